/** A wait inside a run, for what that very run would have to end for: it would never end. Pure. */
import type { Judged } from './judge.ts';

/** The run that a process is a part of. */
export interface OwnRun {
  readonly run: string;
  readonly node: string;
  readonly groups: readonly string[];
}

type Env = Readonly<Record<string, string | undefined>>;

/** As `exec` tells its command. Undefined: none. */
export function runOf({
  RUNLOCK_RUN_ID: run,
  RUNLOCK_RUN_NODE: node = '',
  RUNLOCK_RUN_GROUP: groups = '',
}: Env): OwnRun | undefined {
  return run === undefined ? undefined : { run, node, groups: groups === '' ? [] : groups.split(',') };
}

/** Whether a condition that does not hold can only come to hold after the end of the run. */
export const waitsForEnd =
  (own: OwnRun & { readonly isLive: boolean }) =>
  ({ holds, runs, records, changesInMs }: Judged): boolean =>
    !holds &&
    (runs.includes(own.run) ||
      (own.isLive &&
        changesInMs === Infinity &&
        records.some(({ node, group }) => node === own.node && own.groups.includes(group))));
