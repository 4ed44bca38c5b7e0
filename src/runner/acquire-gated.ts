/** Slots behind a gate: never held while it is closed (docs/protocol.md, "The gate"). */
import type { Verdict } from '../gate/decide.ts';
import { describeClosed } from '../gate/describe.ts';
import type { ExecDeps } from './options.ts';
import { reasonOf } from '../errors.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import type { RunGate } from './gate-session.ts';
import { declineAll, firstOver, hear } from './slots.ts';
import type { HeldSlots, Taken } from './slots.ts';

export type TakenBehind =
  | Taken
  /** At the end of the patience. */
  | { readonly kind: 'closed'; readonly verdicts: readonly Verdict[] };

export interface Attempts {
  readonly run: string;
  readonly signal: AbortSignal;
  readonly patience: AbortSignal;
  /** Asks for the slots once; ends with the signal's reason when it aborts. */
  readonly take: (signal: AbortSignal) => Promise<Taken>;
}

/**
 * Waits for the gate, asks for the slots while it is open, and looks again with them: closed by then, they are given back at once, and all
 * begins anew. Unless all are taken, all is as it was before.
 * @throws the signal's reason when it aborts; RunlockError for what ends the way to a slot.
 */
export async function takeBehindGate(
  deps: ExecDeps,
  gate: RunGate,
  attempts: Attempts,
): Promise<TakenBehind> {
  const { run, signal, patience, take } = attempts;
  const { node } = gate;
  const emitClosedBy = (event: 'gate-left-queue' | 'gate-gave-way', verdicts: readonly Verdict[]) =>
    deps.emit({ event, node, run, detail: { closed: describeClosed(verdicts, node) } });
  for (;;) {
    const outside = await gate.waitOutside({ signal, patience });
    if (outside) return { kind: 'closed', verdicts: outside };
    const taken = await takeWhileOpen(deps, gate, { signal, patience, take });
    if (taken.kind === 'closed') {
      emitClosedBy('gate-left-queue', taken.verdicts);
      if (patience.aborted) return taken;
      continue;
    }
    if (taken.kind !== 'taken') return taken;
    const inside = await goThrough(deps, gate, { slots: taken.slots, signal, patience });
    if (inside.kind !== 'closed') return inside;
    emitClosedBy('gate-gave-way', inside.verdicts);
    await declineAll(deps, taken.slots);
    if (patience.aborted) return inside;
  }
}

/**
 * Asks for the slots, and leaves the queue when the gate closes meanwhile: whoever is behind may be what it is closed for.
 */
async function takeWhileOpen(
  deps: ExecDeps,
  gate: RunGate,
  { signal, patience, take }: Omit<Attempts, 'run'>,
): Promise<TakenBehind> {
  // Without patience nobody stays in the queue.
  if (patience.aborted) return take(signal);
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
    return await take(AbortSignal.any([signal, closed.signal]));
  } catch (error) {
    if (signal.aborted || !closed.signal.aborted || error !== closed.signal.reason) throw error;
    return { kind: 'closed', verdicts };
  } finally {
    done.abort();
  }
}

const AGAIN: Growth = { shortestMs: 2_000, longestMs: 60_000 };

/**
 * A look that is refused (a token that was changed, say) is not the end of the watch: who stays in the queue behind a closed
 * gate keeps out whoever it is closed for. Throws the signal's reason alone.
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
    // One that was watched for long meanwhile is no failure in a row.
    if (clock.monotonicMs() - startedMs > AGAIN.longestMs) failures = 0;
    await clock.sleep(growingMs(failures++, AGAIN, random), { signal });
  }
}

async function goThrough(
  deps: ExecDeps,
  gate: RunGate,
  { slots, signal, patience }: Pick<Attempts, 'signal' | 'patience'> & { slots: HeldSlots },
): Promise<TakenBehind> {
  const over = new AbortController();
  for (const { lease } of slots) hear(lease.over, () => over.abort());
  const either = AbortSignal.any([signal, over.signal]);
  try {
    const verdicts = await gate.goThrough({ signal: either, patience });
    return verdicts ? { kind: 'closed', verdicts } : { kind: 'taken', slots };
  } catch (error) {
    const lost = firstOver(slots, { over: over.signal, signal: either });
    await gate.backOut();
    await declineAll(deps, slots);
    if (lost) return { kind: 'lost', slot: lost };
    throw error;
  }
}
