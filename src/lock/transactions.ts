/**
 * Every transaction of the protocol (docs/protocol.md), each a list of steps that Consul takes all or none of. Pure.
 */
import type { Result as ResultOf, Step as StepOf } from '../consul/txn.ts';
import { encode, encodeRun } from './records.ts';
import type { Claim, Freeze, NodeMark, OutMark, RunRecord, Ticket } from './records.ts';
import type { GroupKeys, OutKeys } from './keys.ts';

/** What stood in the way. `session`: the session that wanted a lock is gone. */
export type Obstacle = 'node' | 'ticket' | 'freeze' | 'owner' | 'lock' | 'session';

export type Step = StepOf<Obstacle>;

export type Result = ResultOf<Obstacle>;

/** A place in a group for one session. */
export interface Seat {
  readonly keys: GroupKeys;
  readonly session: string;
  readonly slot: number;
}

const lockNode = (keys: GroupKeys, session: string, mark: NodeMark & { node: string }): Step => {
  const { node, ...value } = mark;
  return { means: 'node', operation: { verb: 'lock', key: keys.node(node), value: encode(value), session } };
};

const takeLock = ({ keys, session, slot }: Seat, run: string): Step => ({
  means: 'lock',
  operation: { verb: 'lock', key: keys.lock(slot), value: encode({ run }), session },
});

const holdsLock = ({ keys, session, slot }: Seat): Step => ({
  means: 'lock',
  operation: { verb: 'check-session', key: keys.lock(slot), session },
});

const holdsTicket = ({ keys, session }: Seat): Step => ({
  means: 'ticket',
  operation: { verb: 'check-session', key: keys.queue(session), session },
});

const notFrozen = (keys: GroupKeys): Step[] =>
  keys.freezes.map((key) => ({ means: 'freeze', operation: { verb: 'check-not-exists', key } }));

const ownerIs = ({ keys, slot }: Seat, index: number): Step => ({
  means: 'owner',
  operation: { verb: 'check-index', key: keys.owner(slot), index },
});

const noOwner = ({ keys, slot }: Seat): Step => ({
  means: 'owner',
  operation: { verb: 'check-not-exists', key: keys.owner(slot) },
});

/** Index 0 creates, and only creates. */
const writeOwner = ({ keys, slot }: Seat, claim: Claim, index: number): Step => ({
  means: 'owner',
  operation: { verb: 'cas', key: keys.owner(slot), value: encode(claim), index },
});

const remove = (key: string, means: Obstacle): Step => ({ means, operation: { verb: 'delete', key } });

const leaveQueueGranted = ({ keys, session }: Seat): Step[] => [
  remove(keys.queue(session), 'ticket'),
  { means: 'ticket', operation: { verb: 'set', key: keys.last, value: encode({ session }) } },
];

/** Joins the queue; reads who joined before, who was granted last, and the slots, as they are at that very moment. */
export function enqueue(keys: GroupKeys, session: string, ticket: Ticket, mark: NodeMark): Step[] {
  return [
    lockNode(keys, session, { ...mark, node: ticket.node }),
    { means: 'ticket', operation: { verb: 'check-not-exists', key: keys.queue(session) } },
    // `get` would refuse everything where there is no such key; `get-tree` finds one key or none.
    { means: 'ticket', operation: { verb: 'get-tree', key: keys.tail } },
    { means: 'ticket', operation: { verb: 'set', key: keys.tail, value: encode({ session }) } },
    {
      means: 'ticket',
      operation: { verb: 'lock', key: keys.queue(session), value: encode(ticket), session },
    },
    ...readTurn(keys),
  ];
}

/** Who was granted last, and the slots. */
export function readTurn(keys: GroupKeys): Step[] {
  return [
    { means: 'ticket', operation: { verb: 'get-tree', key: keys.last } },
    { means: 'lock', operation: { verb: 'get-tree', key: keys.slotPrefix } },
  ];
}

/**
 * An operator takes a ticket out of the queue. The node's mark goes on without the session, so that the run reads it when it
 * comes to join anew; the node's next run takes its place.
 */
export function sendAway(keys: GroupKeys, session: string, mark: NodeMark & { node: string }): Step[] {
  const { node, ...value } = mark;
  const key = keys.queue(session);
  return [
    { means: 'ticket', operation: { verb: 'check-session', key, session } },
    remove(key, 'ticket'),
    { means: 'node', operation: { verb: 'unlock', key: keys.node(node), value: encode(value), session } },
  ];
}

/**
 * An operator clears the claim that a waiting run comes back to, and says so in its node's mark, as `sendAway` does: the
 * claim's index proves that the run was granted before that, or never.
 */
export function sendReturnerAway(
  claimed: Vanished & { readonly seenIndex: number },
  session: string,
  mark: NodeMark & { node: string },
): Step[] {
  const { node, ...value } = mark;
  const key = claimed.keys.node(node);
  return [
    ...clearClaim(claimed, claimed.seenIndex),
    { means: 'node', operation: { verb: 'unlock', key, value: encode(value), session } },
  ];
}

/** What a run that lost its place reads: the queue's end, and the mark of its node. */
export function readLeft(keys: GroupKeys, node: string): Step[] {
  return [
    { means: 'ticket', operation: { verb: 'get-tree', key: keys.tail } },
    { means: 'node', operation: { verb: 'get-tree', key: keys.node(node) } },
  ];
}

/** The first in the queue takes a slot that nobody has. */
export function grant(seat: Seat, claim: Claim): Step[] {
  return [
    holdsTicket(seat),
    ...notFrozen(seat.keys),
    noOwner(seat),
    takeLock(seat, claim.run),
    writeOwner(seat, claim, 0),
    ...leaveQueueGranted(seat),
  ];
}

/** The first in the queue takes a slot over from a claim that may be taken over, if it is still as it was seen. */
export function takeOver(seat: Seat, claim: Claim, seenIndex: number): Step[] {
  return [
    holdsTicket(seat),
    ...notFrozen(seat.keys),
    ownerIs(seat, seenIndex),
    takeLock(seat, claim.run),
    writeOwner(seat, claim, seenIndex),
    ...leaveQueueGranted(seat),
  ];
}

/** A node's next run takes the node's own claim back, without queueing. */
export function comeBack(seat: Seat, claim: Claim, mark: NodeMark, seenIndex: number): Step[] {
  return [...notFrozen(seat.keys), ...takeBack(seat, claim, mark, seenIndex)];
}

/** A claim of this node in a slot that its next run does not use. */
export interface TooHigh {
  readonly slot: number;
  readonly index: number;
  readonly strayLock?: number | undefined;
}

/** A node's next run moves the node's own claim to a free slot that it uses: there is one of it at any moment. */
export function moveDown(seat: Seat, claim: Claim, mark: NodeMark, own: TooHigh): Step[] {
  const { keys } = seat;
  return [
    ...notFrozen(keys),
    lockNode(keys, seat.session, { ...mark, node: claim.node }),
    ...clearClaim({ keys, ...own }, own.index),
    noOwner(seat),
    takeLock(seat, claim.run),
    writeOwner(seat, claim, 0),
  ];
}

/** Whoever waits outside the queue marks its node, so that another run of it is busy at once. */
export function markNode(keys: GroupKeys, session: string, mark: NodeMark & { node: string }): Step[] {
  return [lockNode(keys, session, mark)];
}

/** A run that is under way takes its own lock back, freeze or not: it is no new run. */
export function takeBack(seat: Seat, claim: Claim, mark: NodeMark, seenIndex: number): Step[] {
  return [
    lockNode(seat.keys, seat.session, { ...mark, node: claim.node }),
    ownerIs(seat, seenIndex),
    takeLock(seat, claim.run),
    writeOwner(seat, claim, seenIndex),
  ];
}

/** A run that is under way claims its slot again after somebody deleted the claim. */
export function claimAgain(seat: Seat, claim: Claim, mark: NodeMark): Step[] {
  return [
    lockNode(seat.keys, seat.session, { ...mark, node: claim.node }),
    noOwner(seat),
    takeLock(seat, claim.run),
    writeOwner(seat, claim, 0),
  ];
}

/** Gives the slot back; `kept` is the claim that goes on keeping others out, if any does. */
export function release(seat: Seat, record: RunRecord, seenIndex: number, kept?: Claim): Step[] {
  const { keys, slot } = seat;
  return [
    holdsLock(seat),
    ownerIs(seat, seenIndex),
    kept ? writeOwner(seat, kept, seenIndex) : remove(keys.owner(slot), 'owner'),
    remove(keys.lock(slot), 'lock'),
    remove(keys.node(record.node), 'node'),
    { means: 'node', operation: { verb: 'set', key: keys.run(record.node), value: encodeRun(record) } },
  ];
}

/**
 * Records a run that ended without its slot, in the place of the record that was seen (index 0: of none). No other key is
 * touched: slot and node may be another run's by now.
 */
export function recordAlone(keys: GroupKeys, record: RunRecord, seenIndex: number): Step[] {
  const key = keys.run(record.node);
  return [{ means: 'node', operation: { verb: 'cas', key, value: encodeRun(record), index: seenIndex } }];
}

/** The end of `acquire`: the claim says `held` and goes on alone; lock and mark are given back. */
export function keep(seat: Seat, held: Claim, seenIndex: number): Step[] {
  const { keys, slot } = seat;
  return [
    holdsLock(seat),
    ownerIs(seat, seenIndex),
    writeOwner(seat, held, seenIndex),
    remove(keys.lock(slot), 'lock'),
    remove(keys.node(held.node), 'node'),
  ];
}

/** The second half of `acquire`: as `release`, for a claim that no session stands behind. */
export function endHeld(held: Vanished, record: RunRecord, seenIndex: number, kept?: Claim): Step[] {
  const { keys, slot, strayLock } = held;
  const owner = keys.owner(slot);
  return [
    ...unlocked(keys, slot, strayLock),
    ...(kept ? changeClaim(keys, slot, kept, seenIndex) : removeSeen(owner, seenIndex, 'owner')),
    { means: 'node', operation: { verb: 'set', key: keys.run(record.node), value: encodeRun(record) } },
  ];
}

/** Nobody holds the slot's lock; a lock key that no session holds goes. */
function unlocked(keys: GroupKeys, slot: number, strayLock: number | undefined): Step[] {
  if (strayLock !== undefined) return removeSeen(keys.lock(slot), strayLock, 'lock');
  return [{ means: 'lock', operation: { verb: 'check-not-exists', key: keys.lock(slot) } }];
}

/** What is seen of a slot whose run has vanished. */
export interface Vanished {
  readonly keys: GroupKeys;
  readonly slot: number;
  readonly strayLock?: number | undefined;
}

/** The first in the queue marks the claim of a run that has vanished, if it is still as it was seen, and still without a lock. */
export function abandon({ keys, slot, strayLock }: Vanished, claim: Claim, seenIndex: number): Step[] {
  return [...unlocked(keys, slot, strayLock), ...changeClaim(keys, slot, claim, seenIndex)];
}

/** Whoever sees first that a running claim has no lock writes it down, if that is still so. */
export function notice({ keys, slot, strayLock }: Vanished, claim: Claim, seenIndex: number): Step[] {
  return [...unlocked(keys, slot, strayLock), ...changeClaim(keys, slot, claim, seenIndex)];
}

/** Changes a claim that is still as it was seen: evicts its run, or puts back what was there before. */
export function changeClaim(keys: GroupKeys, slot: number, claim: Claim, seenIndex: number): Step[] {
  return [writeOwner({ keys, slot, session: '' }, claim, seenIndex)];
}

/** Deletes a key that is still as it was seen: an operator's or owner's claim, a freeze past its end. */
export function removeSeen(key: string, seenIndex: number, means: Obstacle): Step[] {
  return [
    { means, operation: { verb: 'check-index', key, index: seenIndex } },
    { means, operation: { verb: 'delete-cas', key, index: seenIndex } },
  ];
}

/** A key as it was seen. */
export interface SeenKey {
  readonly key: string;
  readonly index: number;
}

/**
 * Removes what is left of a group that nobody uses. Whoever joins its queue changes `.tail` (index 0: there was none), so
 * nothing of a group goes that a run has come to; nor of one that was frozen since.
 */
export function forgetKeys(keys: GroupKeys, tailIndex: number, leftovers: readonly SeenKey[]): Step[] {
  const { tail } = keys;
  const [freeze = ''] = keys.freezes;
  return [
    {
      means: 'ticket',
      operation:
        tailIndex === 0
          ? { verb: 'check-not-exists', key: tail }
          : { verb: 'check-index', key: tail, index: tailIndex },
    },
    ...(leftovers.some(({ key }) => key === freeze)
      ? []
      : [{ means: 'freeze', operation: { verb: 'check-not-exists', key: freeze } } satisfies Step]),
    ...leftovers.flatMap(({ key, index }) => removeSeen(key, index, 'node')),
  ];
}

/**
 * An operator freezes a group, where no freeze was seen (index 0), or puts another in the place of the one that was seen.
 * Every grant checks that there is none, so no run starts between this and its answer.
 */
export function freeze(key: string, record: Freeze, seenIndex: number): Step[] {
  return [{ means: 'freeze', operation: { verb: 'cas', key, value: encode(record), index: seenIndex } }];
}

/** An operator ends the freeze that was seen, and no newer one. */
export function thaw(key: string, seenIndex: number): Step[] {
  return removeSeen(key, seenIndex, 'freeze');
}

/** An operator, or the owner, clears a claim that no session stands behind. */
export function clearClaim({ keys, slot, strayLock }: Vanished, seenIndex: number): Step[] {
  return [...unlocked(keys, slot, strayLock), ...removeSeen(keys.owner(slot), seenIndex, 'owner')];
}

/** Whoever waits removes a claim that is past its hold, where it can't take it over. */
export function drop(overdue: Vanished, seenIndex: number): Step[] {
  return clearClaim(overdue, seenIndex);
}

/** Who looks at the gates of services and goes out of service by them does so alone: all of their locks, or none. */
export function lockGates(keys: readonly string[], session: string, run: string): Step[] {
  const value = encode({ run });
  return keys.map((key) => ({ means: 'lock', operation: { verb: 'lock', key, value, session } }));
}

/** They are still this session's. */
export function holdsGates(keys: readonly string[], session: string): Step[] {
  return keys.map((key) => ({ means: 'lock', operation: { verb: 'check-session', key, session } }));
}

/** A run says that it needs its node in maintenance, or that it leaves; reads who else does, at that very moment. */
export function markOut(keys: OutKeys, run: string, mark: OutMark): Step[] {
  return [
    // A mark that was to go with its session goes on without it.
    remove(keys.mark(run), 'node'),
    { means: 'node', operation: { verb: 'set', key: keys.mark(run), value: encode(mark) } },
    { means: 'node', operation: { verb: 'get-tree', key: keys.prefix } },
  ];
}

/** As `markOut`, by hand: until it is confirmed, the mark goes with the session that it is set with. */
export function markEntering(keys: OutKeys, run: string, { mark, session }: Entering): Step[] {
  return [
    { means: 'node', operation: { verb: 'lock', key: keys.mark(run), value: encode(mark), session } },
    { means: 'node', operation: { verb: 'get-tree', key: keys.prefix } },
  ];
}

/** It is out: the mark stays without the session, which is refused when the session is over. */
export function confirmOut(keys: OutKeys, run: string, { mark, session }: Entering): Step[] {
  return [
    { means: 'node', operation: { verb: 'unlock', key: keys.mark(run), value: encode(mark), session } },
  ];
}

export interface Entering {
  readonly mark: OutMark;
  readonly session: string;
}

/** A run that left the maintenance on for others; its mark may be gone with theirs by now. */
export function leftOut(keys: OutKeys, run: string, mark: OutMark, seenIndex: number): Step[] {
  const value = encode({ ...mark, state: 'left' });
  return [
    { means: 'node', operation: { verb: 'cas', key: keys.mark(run), value, index: seenIndex } },
    { means: 'node', operation: { verb: 'get-tree', key: keys.prefix } },
  ];
}

/** A run is out no more, or never was; reads who else of its node is, at that very moment. */
export function unmarkOut(keys: OutKeys, run: string): Step[] {
  return [
    remove(keys.mark(run), 'node'),
    { means: 'node', operation: { verb: 'get-tree', key: keys.prefix } },
  ];
}
