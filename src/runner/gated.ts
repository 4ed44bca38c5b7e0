/**
 * A run behind a gate: after its command the node goes back in service if all is well (docs/protocol.md, "The gate").
 * How it gets its slots: outside.ts. Loaded for such runs only.
 */
import { assertNever, reasonOf } from '../errors.ts';
import type { Cause, RunEvent } from '../events/events.ts';
import type { Verdict } from '../gate/decide.ts';
import type { LeftOn, Outcome } from '../lock/records.ts';
import { busyGateEvent } from './gate-events.ts';
import { openRunGate } from './gate-session.ts';
import type { GateRequest, RunGate } from './gate-session.ts';
import type { ExecDeps } from './options.ts';
import { hear } from './slots.ts';
import type { HeldSlots } from './slots.ts';

/** What is different for a run behind a gate. */
export interface Gated {
  readonly gate: RunGate;
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
    busyEvent: (verdicts, group) => busyGateEvent(verdicts, { group, node, run: request.run }),
    judge: (slots, ran) => judgeRun(deps, slots, { gate, ...ran }),
  };
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
