/**
 * Every transaction of the protocol (docs/protocol.md), as a list of steps. Consul applies all steps or none. Pure.
 */
import type { Operation } from '../consul/consul.ts';
import type { Result as ResultOf, Step as StepOf } from '../consul/txn.ts';
import { encode, encodeRun } from './records.ts';
import type { Claim, Freeze, NodeMark, OutMark, RunRecord, Ticket } from './records.ts';
import type { GroupKeys, OutKeys } from './keys.ts';

/** What made Consul refuse a transaction. `session`: the session that asked for a lock no longer exists. */
export type Obstacle = 'node' | 'ticket' | 'freeze' | 'owner' | 'lock' | 'session';

export type Step = StepOf<Obstacle>;

export type Result = ResultOf<Obstacle>;

/** What may have changed of a job since it was read: where it is, what is asked, one of its targets, its tally. */
export type JobObstacle = 'stage' | 'spec' | 'target' | 'tally';

/** The same for the start and the end of a run. `condition`: what it rests on has changed; `state`: a state has. */
export type RunObstacle = Obstacle | 'condition' | 'state' | JobObstacle;

export type RunStep = StepOf<RunObstacle>;

/** One slot of a group, and the session that takes or holds its lock. */
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

/** Index 0 means: create the key, and fail if it exists. */
const writeOwner = ({ keys, slot }: Seat, claim: Claim, index: number): Step => ({
  means: 'owner',
  operation: { verb: 'cas', key: keys.owner(slot), value: encode(claim), index },
});

const remove = (key: string, means: Obstacle): Step => ({ means, operation: { verb: 'delete', key } });

const leaveQueueGranted = ({ keys, session }: Seat): Step[] => [
  remove(keys.queue(session), 'ticket'),
  { means: 'ticket', operation: { verb: 'set', key: keys.last, value: encode({ session }) } },
];

/** Joins the queue. The same transaction reads who joined before, who was granted last, and the slots. */
export function enqueue(keys: GroupKeys, session: string, ticket: Ticket, mark: NodeMark): Step[] {
  return [
    lockNode(keys, session, { ...mark, node: ticket.node }),
    { means: 'ticket', operation: { verb: 'check-not-exists', key: keys.queue(session) } },
    // `get` fails the whole transaction if the key does not exist; `get-tree` then returns nothing.
    { means: 'ticket', operation: { verb: 'get-tree', key: keys.tail } },
    { means: 'ticket', operation: { verb: 'set', key: keys.tail, value: encode({ session }) } },
    {
      means: 'ticket',
      operation: { verb: 'lock', key: keys.queue(session), value: encode(ticket), session },
    },
    ...readTurn(keys),
  ];
}

/** Reads who was granted last, and the slots. */
export function readTurn(keys: GroupKeys): Step[] {
  return [
    { means: 'ticket', operation: { verb: 'get-tree', key: keys.last } },
    { means: 'lock', operation: { verb: 'get-tree', key: keys.slotPrefix } },
  ];
}

/**
 * Removes a ticket from the queue, for an operator. The node's mark stays, but without a session, so that the removed
 * run reads the mark when it tries to rejoin. The node's next run overwrites the mark.
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
 * Clears the claim that a waiting run wants to take back, for an operator, and notes this in the node's mark as
 * `sendAway` does. The check of the claim's index settles the race: if the run took the claim back first, Consul
 * refuses this.
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

/** Reads what a run that lost its place in the queue needs: the end of the queue, and the mark of its node. */
export function readLeft(keys: GroupKeys, node: string): Step[] {
  return [
    { means: 'ticket', operation: { verb: 'get-tree', key: keys.tail } },
    { means: 'node', operation: { verb: 'get-tree', key: keys.node(node) } },
  ];
}

/** The first run in the queue takes a free slot. */
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

/**
 * The first run in the queue takes a slot over from a claim that allows this, if the claim has not changed since it
 * was read.
 */
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

/** A node's next run takes the node's own claim back without queueing. */
export function comeBack(seat: Seat, claim: Claim, mark: NodeMark, seenIndex: number): Step[] {
  return [...notFrozen(seat.keys), ...takeBack(seat, claim, mark, seenIndex)];
}

/** A claim of this node in a slot that its next run does not use, because that run allows fewer slots. */
export interface TooHigh {
  readonly slot: number;
  readonly index: number;
  readonly strayLock?: number | undefined;
}

/**
 * A node's next run moves the node's own claim to a free slot that the run uses, so the node always has exactly one
 * claim.
 */
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

/**
 * Marks the node of a run that waits outside the queue, so that another run of the node is told at once that it is
 * busy.
 */
export function markNode(keys: GroupKeys, session: string, mark: NodeMark & { node: string }): Step[] {
  return [lockNode(keys, session, mark)];
}

/**
 * A run that is under way takes its own lock back. A freeze does not stop this, because a freeze only stops new runs.
 */
export function takeBack(seat: Seat, claim: Claim, mark: NodeMark, seenIndex: number): Step[] {
  return [
    lockNode(seat.keys, seat.session, { ...mark, node: claim.node }),
    ownerIs(seat, seenIndex),
    takeLock(seat, claim.run),
    writeOwner(seat, claim, seenIndex),
  ];
}

/** A run that is under way claims its slot again after its claim was deleted. */
export function claimAgain(seat: Seat, claim: Claim, mark: NodeMark): Step[] {
  return [
    lockNode(seat.keys, seat.session, { ...mark, node: claim.node }),
    noOwner(seat),
    takeLock(seat, claim.run),
    writeOwner(seat, claim, 0),
  ];
}

/** A slot that the run holds, and the index of its claim there. */
export interface HeldSeat {
  readonly seat: Seat;
  readonly index: number;
}

/** A state's key, and the document to write there. */
export interface WriteState {
  readonly key: string;
  readonly value: string;
}

/** The last thing before the command: the run still holds every slot. `more`: what else is proved and written then. */
export function start<Other extends string>(
  held: readonly HeldSeat[],
  more: readonly StepOf<Other>[],
): StepOf<Other | Obstacle>[] {
  return [...held.flatMap(({ seat, index }) => [holdsLock(seat), ownerIs(seat, index)]), ...more];
}

/** What conditions rest on has not changed since it was read (index 0: the key was not there). */
export const stillHold = (conditions: readonly SeenKey[]): RunStep[] =>
  conditions.map((seen) => ({ means: 'condition', operation: stillAs(seen) }));

/** Sets the states of `--during`. */
export const setStates = (during: readonly WriteState[]): RunStep[] =>
  during.map(({ key, value }) => writeState(key, value));

const writeState = (key: string, value: string): RunStep => ({
  means: 'state',
  operation: { verb: 'set', key, value },
});

/** Index 0: the key is still not there. */
export const stillAs = ({ key, index }: SeenKey): Operation =>
  index === 0 ? { verb: 'check-not-exists', key } : { verb: 'check-index', key, index };

/** Releases the slot. `kept` is the claim that stays to keep other runs out, if there is one. */
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

/** What the end of a good run does to one state. */
export type StateChange =
  | ({ readonly kind: 'set' } & WriteState)
  /** A state of `--during`, as it was read. */
  | ({ readonly kind: 'delete' } & SeenKey)
  /** The state already says what is to be published. */
  | ({ readonly kind: 'same' } & SeenKey);

/** A slot that a run holds to its end, the record of the run there, and the claim that stays, if there is one. */
export interface HeldEnd extends HeldSeat {
  readonly record: RunRecord;
  readonly kept?: Claim | undefined;
}

/** Records a run in all of its groups and releases all slots, with what else is written then: all of it, or nothing. */
export function finish<Other extends string>(
  held: readonly HeldEnd[],
  more: readonly StepOf<Other>[],
): StepOf<Other | Obstacle>[] {
  return [...held.flatMap(({ seat, record, index, kept }) => release(seat, record, index, kept)), ...more];
}

/** What the end of a good run does to the states that it publishes or had set meanwhile. */
export const changeStates = (states: readonly StateChange[]): RunStep[] => states.map(changeState);

function changeState(change: StateChange): RunStep {
  if (change.kind === 'set') return writeState(change.key, change.value);
  const { key, index } = change;
  const verb = change.kind === 'delete' ? 'delete-cas' : 'check-index';
  return { means: 'state', operation: { verb, key, index } };
}

/**
 * Records a run that ended without its slot. Replaces the record that was read (index 0: there was none). Touches no
 * other key, because the slot and the node's mark may belong to another run by now.
 */
export function recordAlone(keys: GroupKeys, record: RunRecord, seenIndex: number): Step[] {
  const key = keys.run(record.node);
  return [{ means: 'node', operation: { verb: 'cas', key, value: encodeRun(record), index: seenIndex } }];
}

/**
 * The end of `acquire`: the claim becomes `held` and stays without a session; the lock and the node's mark are
 * removed.
 */
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

/** Ends what `acquire` began: as `release`, for a claim that has no session. */
export function endHeld(held: Vanished, record: RunRecord, seenIndex: number, kept?: Claim): Step[] {
  const { keys, slot, strayLock } = held;
  const owner = keys.owner(slot);
  return [
    ...unlocked(keys, slot, strayLock),
    ...(kept ? changeClaim(keys, slot, kept, seenIndex) : removeSeen(owner, seenIndex, 'owner')),
    { means: 'node', operation: { verb: 'set', key: keys.run(record.node), value: encodeRun(record) } },
  ];
}

/** Checks that no session holds the slot's lock, and removes a lock key that has no session. */
function unlocked(keys: GroupKeys, slot: number, strayLock: number | undefined): Step[] {
  if (strayLock !== undefined) return removeSeen(keys.lock(slot), strayLock, 'lock');
  return [{ means: 'lock', operation: { verb: 'check-not-exists', key: keys.lock(slot) } }];
}

/** A slot whose claim has no session, as it was read. */
export interface Vanished {
  readonly keys: GroupKeys;
  readonly slot: number;
  readonly strayLock?: number | undefined;
}

/**
 * The first run in the queue marks the claim of a vanished run as abandoned, if the claim is unchanged and still has
 * no lock.
 */
export function abandon({ keys, slot, strayLock }: Vanished, claim: Claim, seenIndex: number): Step[] {
  return [...unlocked(keys, slot, strayLock), ...changeClaim(keys, slot, claim, seenIndex)];
}

/** Records in a running claim that its lock is missing, if the claim is unchanged and still has no lock. */
export function notice({ keys, slot, strayLock }: Vanished, claim: Claim, seenIndex: number): Step[] {
  return [...unlocked(keys, slot, strayLock), ...changeClaim(keys, slot, claim, seenIndex)];
}

/**
 * Changes a claim if it has not changed since it was read, for example to evict its run or to restore an earlier
 * claim.
 */
export function changeClaim(keys: GroupKeys, slot: number, claim: Claim, seenIndex: number): Step[] {
  return [writeOwner({ keys, slot, session: '' }, claim, seenIndex)];
}

/** Deletes a key, for example a claim or an expired freeze, if the key has not changed since it was read. */
export function removeSeen(key: string, seenIndex: number, means: Obstacle): Step[] {
  return [
    { means, operation: { verb: 'check-index', key, index: seenIndex } },
    { means, operation: { verb: 'delete-cas', key, index: seenIndex } },
  ];
}

/** A key, and its index when it was read. */
export interface SeenKey {
  readonly key: string;
  readonly index: number;
}

/**
 * Removes the leftover keys of an unused group. Removes nothing if a run has joined the queue since (joining changes
 * `.tail`; index 0: there was no `.tail`), or if the group has been frozen since.
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
 * Freezes a group, for an operator: creates the freeze (index 0: there was none), or replaces the one that was read.
 * Every grant checks for a freeze in its own transaction, so no run starts between this transaction and its answer.
 */
export function freeze(key: string, record: Freeze, seenIndex: number): Step[] {
  return [{ means: 'freeze', operation: { verb: 'cas', key, value: encode(record), index: seenIndex } }];
}

/** Ends the freeze that was read, but no newer one. */
export function thaw(key: string, seenIndex: number): Step[] {
  return removeSeen(key, seenIndex, 'freeze');
}

/** Clears a claim that has no session, for an operator or for the node that owns the claim. */
export function clearClaim({ keys, slot, strayLock }: Vanished, seenIndex: number): Step[] {
  return [...unlocked(keys, slot, strayLock), ...removeSeen(keys.owner(slot), seenIndex, 'owner')];
}

/** A waiting run removes a claim whose hold has ended, in a slot that the run can't take over. */
export function drop(overdue: Vanished, seenIndex: number): Step[] {
  return clearClaim(overdue, seenIndex);
}

/**
 * Locks the gates of services, all or none, so that only one node at a time checks these gates and goes out of
 * service.
 */
export function lockGates(keys: readonly string[], session: string, run: string): Step[] {
  const value = encode({ run });
  return keys.map((key) => ({ means: 'lock', operation: { verb: 'lock', key, value, session } }));
}

/** Checks that this session still holds the locks of these gates. */
export function holdsGates(keys: readonly string[], session: string): Step[] {
  return keys.map((key) => ({ means: 'lock', operation: { verb: 'check-session', key, session } }));
}

/**
 * Marks that a run needs its node in maintenance, or is leaving. The same transaction reads the marks of other runs.
 */
export function markOut(keys: OutKeys, run: string, mark: OutMark): Step[] {
  return [
    // A mark that is locked by a session would be deleted with the session, so it is written anew without one.
    remove(keys.mark(run), 'node'),
    { means: 'node', operation: { verb: 'set', key: keys.mark(run), value: encode(mark) } },
    { means: 'node', operation: { verb: 'get-tree', key: keys.prefix } },
  ];
}

/** As `markOut`, for maintenance by hand: until the mark is confirmed, it is deleted when its session ends. */
export function markEntering(keys: OutKeys, run: string, { mark, session }: Entering): Step[] {
  return [
    { means: 'node', operation: { verb: 'lock', key: keys.mark(run), value: encode(mark), session } },
    { means: 'node', operation: { verb: 'get-tree', key: keys.prefix } },
  ];
}

/** The node is out of service: the mark now outlives its session. Consul refuses this if the session has ended. */
export function confirmOut(keys: OutKeys, run: string, { mark, session }: Entering): Step[] {
  return [
    { means: 'node', operation: { verb: 'unlock', key: keys.mark(run), value: encode(mark), session } },
  ];
}

export interface Entering {
  readonly mark: OutMark;
  readonly session: string;
}

/** Marks that a run left the maintenance on for other runs. Does nothing if the run's mark has changed or is gone. */
export function leftOut(keys: OutKeys, run: string, mark: OutMark, seenIndex: number): Step[] {
  const value = encode({ ...mark, state: 'left' });
  return [
    { means: 'node', operation: { verb: 'cas', key: keys.mark(run), value, index: seenIndex } },
    { means: 'node', operation: { verb: 'get-tree', key: keys.prefix } },
  ];
}

/** Removes the mark of a run that no longer needs maintenance. The same transaction reads the marks of other runs. */
export function unmarkOut(keys: OutKeys, run: string): Step[] {
  return [
    remove(keys.mark(run), 'node'),
    { means: 'node', operation: { verb: 'get-tree', key: keys.prefix } },
  ];
}
