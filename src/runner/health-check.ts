/** Between the end of a command and the end of its slots: are the node's services well, and does it go back in service? */
import { assertNever, reasonOf } from '../errors.ts';
import type { LeftOn, Outcome } from '../lock/records.ts';
import type { Cause } from '../events/events.ts';
import type { ExecDeps } from './options.ts';
import type { RunGate } from './gate-session.ts';
import { hear } from './slots.ts';
import type { HeldSlots } from './slots.ts';

export interface Judged {
  readonly outcome: Outcome;
  readonly cause: Cause | undefined;
  /** The signal that ended the wait for health. */
  readonly told?: NodeJS.Signals;
  /** Of a run that was unhealthy: what was not well. */
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
  // Whoever told a run to stop does not wait for its services, also where its command ends well.
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

/** A node that was stopped half-way goes back in service only where it keeps none of its slots for that. */
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
