/** What `acquire` holds, from its grant to its release: src/lock/hold.ts and release.ts, step by step. */
import { heldAgain, heldClaim } from '../../src/lock/hold.ts';
import { isHeld } from '../../src/lock/decide.ts';
import { goTo, leave, sendFrom, spend, startHeld, step } from './next.ts';
import type { Actor, Next } from './next.ts';
import { isDue, leaseOf, standingNow } from './running.ts';
import { endHeldTx } from './transmit.ts';
import { contextOf, idle, keys, nowOf, replaceProcess, senderOf, slotOf } from './world.ts';
import type { Lease, Process, Sender, Sighted, State, Tx } from './world.ts';

/** keepOnce, the first time. */
export function keepGranted(actor: Actor): Next[] {
  const { slot, index } = leaseOf(actor.process);
  const by = senderOf(actor.process);
  const tx: Tx = { name: 'keep', by, slot, index, claim: heldClaim(contextOf(by), 0) };
  return [step(actor, 'keeps its grant', sendFrom(actor, { pc: 'look-kept' }, tx)), ...declines(actor)];
}

/** A signal came before it was said to be held: `decline` gives it up again. */
export function declines(actor: Actor): Next[] {
  const { state } = actor;
  if (state.faults.leave === 0) return [];
  const left = goTo({ ...actor, state: spend(state, 'leave') }, leave('idle'));
  return [step(actor, 'declines its grant', left)];
}

/** The end of keepGrant: what is left is closed, and nothing is undone. */
const over = (actor: Actor, what: string): Next =>
  step(actor, what, goTo(actor, leave('idle'), { attempts: [] }));

/** lookAt, and what keepOnce does about it; or all of keepGrant's time is over. */
export function lookKept(actor: Actor): Next[] {
  const nexts = keepSeen(actor);
  const { state } = actor;
  if (state.faults.lose > 0)
    nexts.push(over({ ...actor, state: spend(state, 'lose') }, 'cannot keep its grant: its claim stays'));
  return nexts;
}

function keepSeen(actor: Actor): Next[] {
  const { process } = actor;
  const { slot, ...lease } = leaseOf(process);
  const by = senderOf(process);
  const now = standingNow(actor);
  switch (now.kind) {
    case 'mine': {
      const changes = { lease: { slot, ...lease, ...now.owner } };
      return [step(actor, 'looks: its own', goTo(actor, { pc: 'keep' }, changes))];
    }
    case 'unlocked': {
      const { claim, index } = now.owner;
      if (isHeld(claim, nowOf(process))) {
        const kept = startHeld(actor, 'looks: held', { slot, claim, index });
        return [kept, ...declines(actor)];
      }
      const tx: Tx = { name: 'changeClaim', by, slot, index, claim: heldClaim(contextOf(by), 0) };
      return [step(actor, 'looks: unlocked', sendFrom(actor, { pc: 'look-kept' }, tx))];
    }
    case 'evicted': {
      const { index } = now.owner;
      const tx: Tx = { name: 'removeSeen', by, slot, index, key: keys.owner(slot) };
      return [step(actor, 'looks: evicted', sendFrom(actor, { pc: 'look-kept' }, tx))];
    }
    case 'gone':
    case 'foreign':
      return [over(actor, `looks: ${now.kind}, so it holds nothing`)];
  }
}

/** Who speaks for a claim that is held: its node, whichever process it is. */
const ownerOf = ({ node, hold, slots, aheadMs }: Process, { run }: Sighted['claim']): Sender => ({
  ...{ node, run, session: '', hold, slots, aheadMs },
});

/** holdOn: what this node holds already. */
export function ask(actor: Actor, { slot, claim, index }: Sighted): Next[] {
  const by = ownerOf(actor.process, claim);
  const tx: Tx = { name: 'changeClaim', by, slot, index, claim: heldAgain(contextOf(by), claim) };
  return [step(actor, 'holds it already', sendFrom(actor, leave('look'), tx))];
}

/** The first half once more, while the work goes on: its slot is looked at, and holdOn follows. */
export function askAgain(actor: Actor): Next[] {
  const { state, process } = actor;
  const { slot } = leaseOf(process);
  const owner = slotOf(state.store, slot)?.owner;
  if (state.faults.again === 0 || owner?.claim.node !== process.node) return [];
  const { claim, index } = owner;
  if (!isHeld(claim, nowOf(process))) return [];
  const by = ownerOf(process, claim);
  const tx: Tx = { name: 'changeClaim', by, slot, index, claim: heldAgain(contextOf(by), claim) };
  const paid = { ...actor, state: spend(state, 'again') };
  return [step(actor, 'asks again', sendFrom(paid, { pc: 'held' }, tx))];
}

/** How the work may end now. Whoever works in a hold that ends stops in time: nobody else ends it. */
export function heldEndings(actor: Actor): Next[] {
  const { state, process, world } = actor;
  const nexts = [endWork(actor, 'has done its work', 'succeeded')];
  if (state.faults.fail > 0)
    nexts.push(endWork({ ...actor, state: spend(state, 'fail') }, 'fails in its work', 'failed'));
  if (isDue(process, world.tickMs)) nexts.push(endWork(actor, 'stops its work in time', 'failed'));
  return nexts;
}

function endWork(actor: Actor, what: string, outcome: 'succeeded' | 'failed'): Next {
  const lease: Lease = { ...leaseOf(actor.process), outcome };
  return step(actor, what, goTo(actor, { pc: 'end-held' }, { lease }));
}

/** giveHeldBack: whatever this node holds in the slot. */
export function giveHeldBack(actor: Actor): Next[] {
  const { state, process } = actor;
  const { slot, outcome } = leaseOf(process);
  const seen = slotOf(state.store, slot);
  const owner = seen?.owner;
  if (owner?.claim.node !== process.node || owner.claim.state !== 'held')
    return [step(actor, 'holds nothing there any more', ended(actor, state))];
  const { claim, index } = owner;
  const stray = seen?.strayLock === undefined ? {} : { strayLock: seen.strayLock };
  const how = outcome === 'succeeded' ? outcome : 'failed';
  const tx = endHeldTx({ by: ownerOf(process, claim), slot, index, outcome: how, ...stray }, claim);
  const nexts = [step(actor, 'releases what it holds', sendFrom(actor, { pc: 'end-held' }, tx))];
  if (state.faults.lose > 0)
    nexts.push(step(actor, 'cannot release what it holds', ended(actor, spend(state, 'lose'))));
  return nexts;
}

export const ended = ({ i, process }: Actor, state: State): State =>
  replaceProcess(state, i, idle(process, process.runs));
