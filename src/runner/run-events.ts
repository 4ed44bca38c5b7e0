/** What happens to a run, from what the lock and the gate know of it to the events that everybody hears. Pure. */
import type { BusyWhy, Cause, GivenBack, Place, RunEvent } from '../events/events.ts';
import { assertNever } from '../errors.ts';
import type { Acquired } from '../lock/acquire.ts';
import { toHolder } from '../lock/context.ts';
import { isTaken } from '../lock/decide.ts';
import type { Slot } from '../lock/decide.ts';
import type { Grant } from '../lock/head-of-queue.ts';
import { joinLeft } from '../lock/records.ts';
import type { LeftOn, Outcome } from '../lock/records.ts';
import type { RunGate } from './gate-session.ts';

/** The names of a run in every event of it. */
export function placeOf({ context, slot }: Grant): Place {
  return { group: context.keys.group, node: context.run.node, slot, run: context.run.id };
}

type Busy = Extract<Acquired, { kind: 'busy' }>;
type SameNode = Extract<BusyWhy, { why: 'same-node' }>;

interface When {
  readonly wait: number | 'forever';
  readonly nowMs: number;
  /** `exec` unless given. */
  readonly asked?: SameNode['detail']['asked'];
}

export function busyEvent(busy: Busy, when: When): RunEvent {
  const { keys, run } = busy.context;
  return { event: 'busy', group: keys.group, node: run.node, run: run.id, ...busyWhy(busy, when) };
}

function busyWhy({ context, why }: Busy, { wait, nowMs, asked = 'exec' }: When): BusyWhy {
  const prefix = context.keys.root;
  const since = (moment: string) => nowMs - Date.parse(moment);
  switch (why.kind) {
    case 'same-node':
      return { why: why.kind, detail: { pid: why.pid, forMs: since(why.since), asked } };
    case 'elsewhere': {
      const { kind, since: moment, ...other } = why;
      return { why: kind, detail: { ...other, prefix, forMs: since(moment) } };
    }
    case 'orphan':
      return { why: why.kind, detail: why };
    case 'another-user':
      return { why: why.kind, detail: { prefix, uid: why.uid } };
    case 'held':
      return { why: why.kind, detail: { prefix, slot: why.slot, forMs: since(why.owner.claim.since) } };
    case 'frozen':
      return { why: why.kind, detail: { ...why.freeze, at: why.at, prefix, nowMs } };
    case 'slots': {
      const holders = why.slots.flatMap((slot) => toHolder(slot, nowMs));
      return {
        why: why.kind,
        detail: { prefix, holders, free: firstFree(why.slots, context.run.slots), wait },
      };
    }
    default:
      return assertNever(why);
  }
}

export function sentAwayEvent({
  context: { keys, run },
  by,
}: Extract<Acquired, { kind: 'sent-away' }>): RunEvent {
  return { event: 'sent-away', group: keys.group, node: run.node, run: run.id, by };
}

/** One that whoever is first in the queue will have in a moment; nobody passes them. */
function firstFree(seen: readonly Slot[], slots: number): number | undefined {
  const taken = new Set(seen.filter(isTaken).map(({ slot }) => slot));
  // Those beyond its own count too.
  if (taken.size >= slots) return undefined;
  let slot = 0;
  while (taken.has(slot)) slot++;
  return slot;
}

/**
 * What of the maintenance that earlier runs of the node left on this run will not end, from the claims that it came back to:
 * without a word the node would stay out of service. Undefined: nothing.
 */
export function leftOnEvent(
  grants: readonly [Grant, ...Grant[]],
  gate: Pick<RunGate, 'changes' | 'services'> | undefined,
): RunEvent | undefined {
  const left = grants.map(({ before }) => before?.maintenance).reduce(joinLeft, undefined);
  const stays = left && notEnded(left, gate);
  if (!stays) return undefined;
  const { keys, run } = grants[0].context;
  return {
    event: 'maintenance-left',
    node: run.node,
    run: run.id,
    detail: {
      kind: 'by-earlier-run',
      prefix: keys.root,
      services: stays.services,
      isNode: stays.node === true,
      lacks: gate && !gate.changes ? 'agent' : 'service',
    },
  };
}

/** Undefined: nothing is left then: its good runs end it where they name the same services. A gate at the node's own agent ends the maintenance of the whole node whatever it names. */
function notEnded(left: LeftOn, gate: Pick<RunGate, 'changes' | 'services'> | undefined): LeftOn | undefined {
  if (!gate?.changes) return left;
  const services = left.services.filter((service) => !gate.services.includes(service));
  return services.length > 0 ? { services } : undefined;
}

/** The command has ended, and Consul is slow or silent. */
export function releasingEvent(grants: readonly [Grant, ...Grant[]], exitCode: number): RunEvent {
  const { command, node, id: run } = grants[0].context.run;
  const slots = grants.map(({ slot, context }) => ({ slot, group: context.keys.group }));
  const group = slots.map((one) => one.group).join(',');
  return { event: 'releasing', group, node, run, exitCode, detail: { command, slots } };
}

interface End {
  readonly outcome: Outcome;
  readonly exitCode: number;
  readonly ranMs: number;
  readonly cause: Cause | undefined;
  readonly given: GivenBack;
  /** Of a run that was unhealthy: what was not well. */
  readonly why?: string | undefined;
  /** Its command did well, and this signal ended the wait for its node's health. */
  readonly told?: NodeJS.Signals | undefined;
}

export function endedEvent(grant: Grant, { outcome, exitCode, ranMs, ...end }: End): RunEvent {
  const { keys, run } = grant.context;
  const kept = end.given.kind === 'released' ? end.given.kept : undefined;
  return {
    event: 'ended',
    ...placeOf(grant),
    outcome,
    exitCode,
    ranMs: Math.round(ranMs),
    released: kept ? 'held' : end.given.kind,
    heldUntil: kept?.heldUntil,
    detail: { prefix: keys.root, command: run.command, ...end },
  };
}
