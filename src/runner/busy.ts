/** That a run did not get a slot, and why, as an event. Pure. */
import type { BusyWhy, Holder, RunEvent } from '../events/events.ts';
import { assertNever } from '../errors.ts';
import type { Acquired } from '../lock/acquire.ts';
import { isTaken } from '../lock/decide.ts';
import type { Slot } from '../lock/decide.ts';

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

/** Nobody, or one. */
export function toHolder({ slot, owner, lockedBy }: Slot, nowMs: number): Holder[] {
  if (!owner) return [];
  const { node, state, since, command, exitCode, unhealthy } = owner.claim;
  return [
    {
      slot,
      node,
      state,
      command,
      ...(exitCode !== undefined && { exitCode }),
      ...(unhealthy && { unhealthy }),
      isWithoutSession: lockedBy === undefined && (state === 'running' || state === 'evicted'),
      forMs: nowMs - Date.parse(since),
    },
  ];
}
