/** Turns what the lock and the gate know of a run into events. Pure. */
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

/** The fields that identify a run in its events. */
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
    case 'turn': {
      const { kind, since: moment, ...holder } = why;
      return { why: kind, detail: { ...holder, forMs: since(moment) } };
    }
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

/** A slot that is free now, but about to go to the first run in the queue, which no run may overtake. */
function firstFree(seen: readonly Slot[], slots: number): number | undefined {
  const taken = new Set(seen.filter(isTaken).map(({ slot }) => slot));
  // Taken slots whose number is beyond this run's own limit count too.
  if (taken.size >= slots) return undefined;
  let slot = 0;
  while (taken.has(slot)) slot++;
  return slot;
}

/**
 * Reports maintenance that earlier runs of the node left on and this run will not end, as its earlier claims record.
 * Without this event the node would silently stay out of service. Undefined: there is none.
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

/**
 * The part of the maintenance that this run would not end. A good run ends the maintenance of the services that its
 * gate names. A gate at the node's own agent also ends the maintenance of the whole node, whatever it names. Undefined:
 * nothing is left.
 */
function notEnded(left: LeftOn, gate: Pick<RunGate, 'changes' | 'services'> | undefined): LeftOn | undefined {
  if (!gate?.changes) return left;
  const services = left.services.filter((service) => !gate.services.includes(service));
  return services.length > 0 ? { services } : undefined;
}

/** For a run whose command has ended while Consul is slow or silent. */
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
  /** For an unhealthy run: what was wrong. */
  readonly why?: string | undefined;
  /** The command succeeded, but this signal ended the wait for the node's health. */
  readonly told?: NodeJS.Signals | undefined;
  /** The command succeeded, but nothing was published; why. */
  readonly unpublished?: string | undefined;
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
