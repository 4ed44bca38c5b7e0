/** A run behind a gate, while it waits in the queue (docs/protocol.md, "The gate"). Loaded for such runs only. */
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { reasonOf } from '../errors.ts';
import type { Verdict } from '../gate/decide.ts';
import { endedBy } from '../platform/deps.ts';
import type { Waiting } from '../platform/deps.ts';
import type { RunGate } from './gate-session.ts';
import type { ExecDeps } from './options.ts';
import type { Taken } from './slots.ts';

interface Asking {
  readonly waiting: Waiting;
  /** Asks for the slots once; rejects with the signal's reason when the signal aborts. */
  readonly take: (waiting: Waiting) => Promise<Taken>;
}

/** The gate has closed, and no slot was taken. */
export interface LeftQueue {
  readonly kind: 'left-queue';
  readonly verdicts: readonly Verdict[];
  readonly missing: readonly [];
}

/**
 * Asks for the slots, and leaves the queue if the gate closes meanwhile, since the gate may be closed because of a node
 * behind this one in the queue.
 */
export async function takeWhileOpen(
  deps: ExecDeps,
  gate: RunGate,
  { waiting, take }: Asking,
): Promise<Taken | LeftQueue> {
  const { signal, patience } = waiting;
  // Without patience the run does not stay in the queue, so there is nothing to watch.
  if (patience.aborted) return take(waiting);
  const done = new AbortController();
  const closed = new AbortController();
  let verdicts: readonly Verdict[] = [];
  watchOn(deps, gate, AbortSignal.any([signal, done.signal])).then(
    (seen) => {
      verdicts = seen;
      closed.abort();
    },
    () => undefined,
  );
  try {
    return await take(endedBy(waiting, closed.signal));
  } catch (error) {
    if (signal.aborted || !closed.signal.aborted || error !== closed.signal.reason) throw error;
    return { kind: 'left-queue', verdicts, missing: [] };
  } finally {
    done.abort();
  }
}

const AGAIN: Growth = { shortestMs: 2_000, longestMs: 60_000 };

/**
 * Keeps watching after a refused look (a changed token, say): a run that stays in the queue while the gate is closed
 * could keep out the very node that the gate is closed for. Throws only the signal's reason.
 */
async function watchOn(
  { emit, clock, random }: ExecDeps,
  gate: RunGate,
  signal: AbortSignal,
): Promise<readonly Verdict[]> {
  for (let failures = 0; ;) {
    const startedMs = clock.monotonicMs();
    try {
      return await gate.untilClosed(signal);
    } catch (error) {
      signal.throwIfAborted();
      emit({ event: 'gate-unwatched', detail: { fault: reasonOf(error) } });
    }
    // After a long watch that worked, a failure is not one of a row.
    if (clock.monotonicMs() - startedMs > AGAIN.longestMs) failures = 0;
    await clock.sleep(growingMs(failures++, AGAIN, random), { signal });
  }
}
