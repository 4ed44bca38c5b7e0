/** Whether a run that a wait is inside of is still there. */
import type { Consul } from '../consul/consul.ts';
import type { WallClock } from '../platform/deps.ts';
import type { OwnRun } from './own-run.ts';
import { parseCondition } from './parse.ts';
import { lookOnce } from './watch.ts';

interface Where {
  readonly consul: Consul;
  readonly clock: WallClock;
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
