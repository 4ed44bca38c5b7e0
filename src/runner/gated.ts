/**
 * A run behind a gate: it never holds slots while the gate is closed (docs/protocol.md, "The gate"), and after its
 * command the node goes back in service if all is well. Loaded for such runs only.
 */
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import { assertNever, reasonOf } from '../errors.ts';
import type { Cause, RunEvent } from '../events/events.ts';
import type { Verdict } from '../gate/decide.ts';
import { describeClosed } from '../gate/describe.ts';
import type { LeftOn, Outcome } from '../lock/records.ts';
import { endedBy } from '../platform/deps.ts';
import type { Waiting } from '../platform/deps.ts';
import { busyGateEvent } from './gate-events.ts';
import { openRunGate } from './gate-session.ts';
import type { GateRequest, RunGate } from './gate-session.ts';
import type { ExecDeps } from './options.ts';
import type { WaitRecord } from './outside-record.ts';
import { declineAll, firstOver, hear } from './slots.ts';
import type { HeldSlots, Taken } from './slots.ts';

/** What is different for a run behind a gate. */
export interface Gated {
  readonly gate: RunGate;
  /** Takes the slots while the gate is open. */
  take(attempts: Attempts): Promise<TakenBehind>;
  /** Reports that the gate was closed to the end of the wait. */
  busyEvent(verdicts: readonly Verdict[], group: string): RunEvent;
  /** Judges after the command whether the node is healthy. Never throws. */
  judge(slots: HeldSlots, ran: Pick<Judged, 'outcome' | 'cause'>): Promise<Judged>;
}

/** @throws RunlockError as `openRunGate` does. */
export async function openGated(deps: ExecDeps, request: GateRequest, signal: AbortSignal): Promise<Gated> {
  const gate = await openRunGate(deps, request, signal);
  const { node } = gate;
  return {
    gate,
    take: (attempts) => takeBehindGate(deps, gate, attempts),
    busyEvent: (verdicts, group) => busyGateEvent(verdicts, { group, node, run: request.run }),
    judge: (slots, ran) => judgeRun(deps, slots, { gate, ...ran }),
  };
}

export type TakenBehind =
  | Taken
  /** The gate was closed when patience ended. */
  | { readonly kind: 'closed'; readonly verdicts: readonly Verdict[] };

export interface Attempts {
  readonly run: string;
  readonly waiting: Waiting;
  /** Shows others that the run waits outside. */
  readonly during: WaitRecord['during'];
  /** Asks for the slots once; rejects with the signal's reason when the signal aborts. */
  readonly take: (waiting: Waiting) => Promise<Taken>;
}

/**
 * Waits for the gate, asks for the slots while the gate is open, and looks at the gate again with the slots held. If
 * the gate has closed by then, releases the slots at once and starts over. Unless all slots are taken, everything is
 * left as it was before.
 * @throws the signal's reason when it aborts; RunlockError for a fault that ends the wait for a slot.
 */
export async function takeBehindGate(
  deps: ExecDeps,
  gate: RunGate,
  attempts: Attempts,
): Promise<TakenBehind> {
  const { run, waiting, during, take } = attempts;
  const { signal, patience } = waiting;
  const { node } = gate;
  const emitClosedBy = (event: 'gate-left-queue' | 'gate-gave-way', verdicts: readonly Verdict[]) =>
    deps.emit({ event, node, run, detail: { closed: describeClosed(verdicts, node) } });
  for (;;) {
    const outside = await during(waiting, () => gate.waitOutside(waiting));
    if (outside) return { kind: 'closed', verdicts: outside };
    const taken = await takeWhileOpen(deps, gate, { waiting, take });
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
 * Asks for the slots, and leaves the queue if the gate closes meanwhile, since the gate may be closed because of a node
 * behind this one in the queue.
 */
async function takeWhileOpen(
  deps: ExecDeps,
  gate: RunGate,
  { waiting, take }: Pick<Attempts, 'waiting' | 'take'>,
): Promise<TakenBehind> {
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
    return { kind: 'closed', verdicts };
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

async function goThrough(
  deps: ExecDeps,
  gate: RunGate,
  { slots, signal, patience }: Pick<Waiting, 'signal' | 'patience'> & { readonly slots: HeldSlots },
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

export interface Judged {
  readonly outcome: Outcome;
  readonly cause: Cause | undefined;
  /** The signal that ended the wait for health. */
  readonly told?: NodeJS.Signals;
  /** For an unhealthy run: what was wrong. */
  readonly why?: string;
  /** What stays in maintenance. */
  readonly leftOn?: LeftOn;
}

/** Never throws. All slots are still held. */
export async function judgeRun(
  deps: ExecDeps,
  slots: HeldSlots,
  { gate, ...ran }: Pick<Judged, 'outcome' | 'cause'> & { readonly gate: RunGate },
): Promise<Judged> {
  // A run that was told to stop does not wait for its services, even if its command succeeds.
  const isAsked = ran.outcome === 'succeeded' && ran.cause === undefined;
  const judged = isAsked ? await lookAfter(deps, slots, { gate, ran }) : ran;
  if (!endsMaintenance(judged.outcome, slots)) {
    const leftOn = gate.stay(judged.outcome);
    return { ...judged, ...(leftOn && { leftOn }) };
  }
  await gate.leave();
  return judged;
}

async function lookAfter(
  deps: ExecDeps,
  slots: HeldSlots,
  { gate, ran }: { gate: RunGate; ran: Judged },
): Promise<Judged> {
  const stop = new AbortController();
  let told: NodeJS.Signals | undefined;
  deps.signals.listen((signal) => {
    if (signal === 'SIGUSR1' || signal === 'SIGUSR2') return;
    told ??= signal;
    stop.abort();
  });
  for (const { lease } of slots) hear(lease.over, () => stop.abort());
  try {
    const health = await gate.health(stop.signal);
    if (health?.kind !== 'unhealthy') return ran;
    return { ...ran, outcome: 'unhealthy', why: health.why };
  } catch (error) {
    const lost = lostSlot(slots);
    if (lost) return { ...lost, outcome: lost.cause.kind === 'evicted' ? 'evicted' : 'lost' };
    if (told !== undefined) return { ...ran, outcome: 'interrupted', told };
    return { ...ran, outcome: 'unhealthy', why: reasonOf(error) };
  }
}

function lostSlot(slots: HeldSlots) {
  for (const { grant, lease } of slots) {
    const over = lease.whyOver();
    if (over) return { cause: { ...over, group: grant.context.keys.group } };
  }
  return undefined;
}

/** After an interrupted run the node goes back in service only if it keeps none of its slots because of that. */
function endsMaintenance(outcome: Outcome, slots: HeldSlots): boolean {
  switch (outcome) {
    case 'succeeded':
      return true;
    case 'interrupted':
      return slots.every(({ grant }) => grant.context.run.releaseOnSignal === true);
    case 'failed':
    case 'unhealthy':
    case 'rebooting':
    case 'timed-out':
    case 'evicted':
    case 'lost':
      return false;
    default:
      return assertNever(outcome);
  }
}
