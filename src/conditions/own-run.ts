/** A wait inside a run, for what that very run would have to end for: it would never end. */
import type { Consul } from '../consul/consul.ts';
import type { Clock, WallClock } from '../platform/deps.ts';
import type { Judged } from './judge.ts';
import { parseCondition } from './parse.ts';
import { lookOnce } from './watch.ts';

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

interface Where {
  readonly consul: Consul;
  readonly clock: WallClock & Clock;
  readonly prefix: string;
}

/**
 * Whether the run is still under way: a daemon that it left behind may wait for the next one. False if that can't be
 * read.
 */
export async function isLive(
  where: Where,
  { run, node, groups }: OwnRun,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    const limits = { signal, retryForMs: 0 };
    const judged = await lookOnce({ ...where, groups }, [parseCondition(`active:${node}`)], limits);
    return judged.some(({ runs }) => runs.includes(run));
  } catch {
    signal.throwIfAborted();
    return false;
  }
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
