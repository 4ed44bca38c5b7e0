/** A process on its way to a slot: src/lock/acquire.ts, own-claim.ts, queue.ts, head-of-queue.ts and freeze.ts, step by step. */
import { decodeFreeze, decodeNodeMark, decodeQueueMark } from '../../src/lock/records.ts';
import {
  decide,
  decideDown,
  judgeElsewhere,
  abandoned,
  isHeld,
  isLeft,
  isOwn,
  missing,
  observe,
} from '../../src/lock/decide.ts';
import type { Move, Tidy, Owner } from '../../src/lock/decide.ts';
import { goesOn } from '../../src/lock/context.ts';
import { goTo, leave, sendFrom, sendGrant, startRun, step } from './next.ts';
import type { Actor, Next } from './next.ts';
import { get, list } from './store.ts';
import type { Store } from './store.ts';
import { withNewSession, withoutSession } from './transmit.ts';
import { NOW_MS, contextOf, keys, nowOf, senderOf, sightingsOf, slotsOf, withProcess } from './world.ts';
import type { At, Process, Sighting, State, Tx } from './world.ts';

/** exec, acquire: a new run, its session. */
export function start(actor: Actor): Next[] {
  const { process, i } = actor;
  if (process.runs === 0) return [];
  const { state, session } = withNewSession(actor.state);
  const run = `r${state.next.run}`;
  const next = { ...state.next, run: state.next.run + 1 };
  const changes = { at: { pc: 'look' }, run, session, runs: process.runs - 1 } as const;
  return [step(actor, `starts run ${run}`, withProcess({ ...state, next }, i, changes))];
}

/** takeSteps: my own claim first, else a ticket. */
export function look(actor: Actor): Next[] {
  const { state, process } = actor;
  const by = senderOf(process);
  const slots = slotsOf(state.store);
  const namesake = slots.find(
    ({ owner }) => owner?.claim.node === process.node && !isOwnClaim(process, owner),
  );
  if (namesake) {
    const seen = { slots, sightings: new Map(), nowMs: nowOf(process), monotonicMs: 0 };
    const verdict = judgeElsewhere(namesake, seen);
    if (verdict === 'wait') return [step(actor, 'is busy elsewhere', goTo(actor, leave('idle')))];
    if (verdict !== 'take-over') return [tidy(actor, verdict, leave('idle'))];
  }
  const own = slots.find(({ owner }) => owner && isOwnClaim(process, owner));
  if (!own?.owner)
    return [step(actor, 'has no claim', sendFrom(actor, leave('look'), { name: 'enqueue', by }))];
  const { claim, index } = own.owner;
  if (isHeld(claim, nowOf(process))) {
    if (!process.acquires)
      return [step(actor, 'is busy here: it holds the slot', goTo(actor, leave('idle')))];
    const held = { slot: own.slot, claim, index };
    return [step(actor, 'sees what it holds', goTo(actor, { pc: 'leave', then: 'ask', held }))];
  }
  if (isBusy(state, process, own.owner)) return [step(actor, 'is busy here', goTo(actor, leave('idle')))];
  if (own.slot >= process.slots)
    return [
      step(
        actor,
        'sees its own claim too high',
        sendFrom(actor, leave('look'), { name: 'markNode', by, slot: own.slot, index }),
      ),
    ];
  const sent = process.attempts.find((attempt) => attempt.slot === own.slot);
  const before = claim.run === process.run ? sent?.before : claim;
  const { root } = goesOn(claim, by.run);
  const carried = process.publishes && root !== undefined ? { root } : {};
  const tx: Tx = { name: 'comeBack', by, slot: own.slot, index, ...carried };
  const sending = sendGrant(actor, leave('look'), { tx, slot: own.slot, before });
  return [step(actor, `sees its own claim (${claim.state})`, sending)];
}

const isOwnClaim = (process: Process, { claim }: Owner): boolean =>
  isOwn(contextOf(senderOf(process)).run, claim);

/** findOrphan, on the same boot of the same host. */
function isBusy(state: State, { run }: Process, { claim }: Owner): boolean {
  const ended = isLeft(claim) || claim.state === 'held';
  return !ended && claim.run !== run && isAlive(state, claim.run);
}

const isAlive = (state: State, run: string): boolean => state.processes.some((other) => other.run === run);

/** clearOrBusy: this node's mark stands in the way. */
export function mark(actor: Actor): Next[] {
  const { state, process } = actor;
  const entry = get(state.store, keys.node(process.node));
  if (entry?.session === undefined) return [step(actor, 'finds no mark', goTo(actor, leave('look')))];
  const { run } = decodeNodeMark(entry);
  if (run !== process.run && isAlive(state, run))
    return [step(actor, 'is busy here', goTo(actor, leave('idle')))];
  const cleared = { ...actor, state: withoutSession(state, entry.session) };
  return [step(actor, 'destroys the session of a dead mark', goTo(cleared, leave('look')))];
}

/** untilFirst, after the join or after the predecessor has gone. */
export function place(predecessor: string | undefined, store: Store): At {
  const last = get(store, keys.last);
  const isFirst = predecessor !== undefined && last && decodeQueueMark(last).session === predecessor;
  if (isFirst) return { pc: 'first', seen: [] };
  return predecessor === undefined ? { pc: 'list' } : { pc: 'wait', predecessor };
}

/** untilGone, and the look at `.last` that follows. */
export function wait(actor: Actor, predecessor: string): Next[] {
  const { store } = actor.state;
  if (get(store, keys.queue(predecessor))?.session !== undefined) return [];
  const at = place(predecessor, store);
  return [step(actor, 'sees its predecessor gone', goTo(actor, at.pc === 'first' ? at : { pc: 'list' }))];
}

/** findBefore. */
export function findBefore(actor: Actor): Next[] {
  const { state, process } = actor;
  const tickets = list(state.store, keys.queuePrefix).filter((entry) => entry.session !== undefined);
  const order = tickets.sort((a, b) => a.createIndex - b.createIndex).map((entry) => entry.key);
  const mine = order.indexOf(keys.queue(process.session ?? ''));
  if (mine === -1) return [step(actor, 'has lost its ticket', goTo(actor, leave('look')))];
  const before = order[mine - 1];
  if (before === undefined) return [step(actor, 'is first', goTo(actor, { pc: 'first', seen: [] }))];
  const predecessor = before.slice(keys.queuePrefix.length);
  return [step(actor, `waits for ${predecessor}`, goTo(actor, { pc: 'wait', predecessor }))];
}

/** asFirst: one look at the slots, and what follows from it. */
export function first(actor: Actor, before: readonly Sighting[]): Next[] {
  const { state, process } = actor;
  const slots = slotsOf(state.store);
  const sightings = observe(sightingsOf(before), slots, 0);
  const seen = [...sightings].map(([slot, { index, sinceMs }]) => ({ slot, index, agoMs: -sinceMs }));
  const { node, run, session } = senderOf(process);
  const nowMs = NOW_MS + process.aheadMs;
  const me = { node, run, session, slots: process.slots, runner: contextOf(senderOf(process)).run.runner };
  const move = decide(me, { slots, sightings, nowMs, monotonicMs: 0 });
  return make(actor, move, seen);
}

function make(actor: Actor, move: Move, seen: readonly Sighting[]): Next[] {
  const { process } = actor;
  const at: At = { pc: 'first', seen };
  const by = senderOf(process);
  switch (move.kind) {
    case 'return':
      return [step(actor, 'sees its own claim', goTo(actor, leave('look')))];
    case 'adopt':
      return [
        startRun(actor, 'finds itself granted', {
          ...{ slot: move.slot, claim: move.owner.claim, index: move.owner.index, provedMs: 0 },
        }),
      ];
    case 'wait':
      return [step(actor, 'waits as the first', goTo(actor, at))];
    case 'notice':
    case 'abandon':
    case 'remove':
      return [tidy(actor, move, at)];
    case 'grant':
    case 'take-over': {
      const { slot } = move;
      const tx: Tx =
        move.kind === 'grant'
          ? { name: 'grant', by, slot }
          : { name: 'takeOver', by, slot, index: move.owner.index };
      return [step(actor, `sees slot ${slot} to be had`, sendGrant(actor, at, { tx, slot }))];
    }
  }
}

const TIDIES: Record<Tidy['kind'], string> = {
  notice: 'notices that nobody has the lock of',
  abandon: 'believes dead the run in',
  remove: 'removes the claim in',
};

function tidy(actor: Actor, move: Tidy, at: At): Next {
  return step(
    actor,
    `${TIDIES[move.kind]} slot ${move.slot}`,
    sendFrom(actor, at, tidyTx(actor.process, move)),
  );
}

export function tidyTx(process: Process, { kind, slot, owner, strayLock }: Tidy): Tx {
  const stray = strayLock === undefined ? {} : { strayLock };
  const seen = { by: senderOf(process), slot, index: owner.index, ...stray };
  const nowMs = nowOf(process);
  switch (kind) {
    case 'notice':
      return { name: 'notice', ...seen, claim: missing(owner.claim, nowMs) };
    case 'abandon':
      return { name: 'abandon', ...seen, claim: abandoned(owner.claim, nowMs) };
    case 'remove':
      return { name: 'drop', ...seen };
  }
}

/** untilDown: one look at the slots, and what follows from it. */
export function down(
  actor: Actor,
  { seen: before, slot: from, index: checked }: Extract<At, { pc: 'down' }>,
): Next[] {
  const { state, process } = actor;
  const slots = slotsOf(state.store);
  const own = slots.find(({ owner }) => owner && isOwnClaim(process, owner));
  if (
    !own?.owner ||
    own.slot !== from ||
    own.owner.index !== checked ||
    isHeld(own.owner.claim, nowOf(process))
  )
    return [step(actor, 'sees its own claim changed', goTo(actor, leave('look')))];
  if (own.lockedBy !== undefined) return [step(actor, 'is busy here', goTo(actor, leave('idle')))];
  const others = slots.filter((slot) => slot !== own);
  const sightings = observe(sightingsOf(before), others, 0);
  const seen = [...sightings].map(([slot, { index, sinceMs }]) => ({ slot, index, agoMs: -sinceMs }));
  const nowMs = nowOf(process);
  const choice = decideDown(
    { own: own.slot, slots: process.slots },
    { slots: others, sightings, nowMs, monotonicMs: 0 },
  );
  const at: At = { pc: 'down', seen, slot: from, index: checked };
  if (choice.kind === 'wait') return [step(actor, 'waits for a lower slot', goTo(actor, at))];
  if (choice.kind !== 'grant') return [tidy(actor, choice, at)];
  const { claim, index } = own.owner;
  const stray = own.strayLock === undefined ? {} : { strayLock: own.strayLock };
  const { slot } = choice;
  const tx: Tx = { name: 'moveDown', by: senderOf(process), slot, from: own.slot, index, ...stray };
  return [step(actor, `sees slot ${slot} to be had`, sendGrant(actor, at, { tx, slot, before: claim }))];
}

/** adoptLate: an earlier try, which was given up, may have arrived and taken a slot with the ticket. */
export function adopt(actor: Actor): Next[] {
  const { run, session } = senderOf(actor.process);
  const mine = slotsOf(actor.state.store).find(
    ({ owner, lockedBy }) => owner?.claim.run === run && lockedBy === session,
  );
  if (!mine?.owner) return [step(actor, 'has lost its ticket', goTo(actor, leave('look')))];
  const { claim, index } = mine.owner;
  return [startRun(actor, 'was granted late', { slot: mine.slot, claim, index, provedMs: 0 })];
}

/** untilThawed: waits, or removes a freeze that is past its end. */
export function frozen(actor: Actor, { key, from }: Extract<At, { pc: 'frozen' }>): Next[] {
  const { state, process } = actor;
  const entry = get(state.store, key);
  if (!entry) return [step(actor, 'sees the freeze gone', goTo(actor, from))];
  if (decodeFreeze(entry).until === undefined) return [];
  const tx: Tx = { name: 'removeSeen', by: senderOf(process), slot: 0, index: entry.modifyIndex, key };
  return [step(actor, 'sees a freeze past its end', sendFrom(actor, from, tx))];
}
