/** A wait inside a run, for what that very run would have to end for: it would never end. Pure. */
import type { Judged } from './judge.ts';
import type { Condition } from './parse.ts';

/** The run that a process is a part of. */
export interface OwnRun {
  readonly run: string;
  readonly node: string;
  readonly groups: readonly string[];
  /** Of a task. */
  readonly task?: string;
}

type Env = Readonly<Record<string, string | undefined>>;

/** As `exec` tells its command. Undefined: none. */
export function runOf({
  RUNLOCK_RUN_ID: run,
  RUNLOCK_RUN_NODE: node = '',
  RUNLOCK_RUN_GROUP: groups = '',
  RUNLOCK_TASK: task,
}: Env): OwnRun | undefined {
  if (run === undefined) return undefined;
  return { run, node, groups: groups === '' ? [] : groups.split(','), ...(task !== undefined && { task }) };
}

/** For the event that warns of it. */
export const insideOf = ({ run, groups, task }: OwnRun) => ({
  run,
  group: groups.join(),
  ...(task !== undefined && { task }),
});

/** Whether a condition that does not hold can only come to hold after the end of the run. */
export const waitsForEnd =
  (own: OwnRun & { readonly isLive: boolean }) =>
  ({ holds, runs, records, changesInMs }: Judged): boolean =>
    !holds &&
    (runs.includes(own.run) ||
      (own.isLive &&
        changesInMs === Infinity &&
        records.some(({ node, group }) => node === own.node && own.groups.includes(group))));

/** What a run asks for: `slots` is how many runs each of its groups allows at a time. */
export interface Seats {
  readonly node: string;
  readonly groups: readonly { readonly group: string; readonly slots: number }[];
}

/** Why a run can't start while this holds, whatever others do; undefined: it may. */
export function neverBeside(condition: Condition, { node, groups }: Seats): string | undefined {
  if (condition.not) return undefined;
  if (condition.kind !== 'active' && condition.kind !== 'blocked') return undefined;
  const own = groups.filter(({ group }) => condition.group === undefined || group === condition.group);
  if (condition.kind === 'active')
    return condition.node === node && own.length > 0
      ? `a node has one run at a time in a group, and ${node} would have another one`
      : undefined;
  const [single] = own.filter(({ slots }) => slots === 1);
  return single && `${single.group} allows this run one slot, and has none to give while it is blocked`;
}
