/** A process that has a slot: src/lock/lease.ts, release.ts and head-of-queue.ts, step by step. */
import { returnedClaim } from '../../src/lock/context.ts';
import { deadAfterMs } from '../../src/lock/lease-state.ts';
import { isLater } from '../../src/lock/run-record.ts';
import { decodeRun } from '../../src/lock/records.ts';
import type { Outcome } from '../../src/lock/records.ts';
import { isHeld, isLeft, standing } from '../../src/lock/decide.ts';
import type { Standing } from '../../src/lock/decide.ts';
import { judgeGivenUp } from './promises.ts';
import { goTo, leave, renewSession, sendFrom, spend, step } from './next.ts';
import type { Actor, Next } from './next.ts';
import { stateOf } from './states.ts';
import { get, transact } from './store.ts';
import { recordOf, releaseTx, withStore, withoutSession } from './transmit.ts';
import {
  contextOf,
  idle,
  isRunning,
  keys,
  nowOf,
  replaceProcess,
  senderOf,
  slotOf,
  stateKeys,
  withProcess,
} from './world.ts';
import type { At, Lease, Process, Sighted, State, Tx } from './world.ts';

export function leaseOf({ lease }: Process): Lease {
  if (!lease) throw new Error('no slot');
  return lease;
}

export const hasSession = ({ state, process }: Actor): boolean =>
  process.session !== undefined && state.store.sessions.includes(process.session);

export const standingNow = ({ state, process }: Actor): Standing =>
  standing(senderOf(process), slotOf(state.store, leaseOf(process).slot));

/** watch and act: one look at the slot. */
export function watch(actor: Actor): Next[] {
  const nexts = [seeSlot(actor)];
  const { claim, index } = leaseOf(actor.process);
  // look: once the session is known to be gone, the slot as it was known is taken back.
  if (!hasSession(actor)) nexts.push(recover(actor, { kind: 'unlocked', owner: { claim, index } }));
  return [...nexts, ...endings(actor)];
}

/** The slot is its own, or it is taken back. */
export function lookAtSlot(actor: Actor): Next {
  const { process } = actor;
  const lease = leaseOf(process);
  const now = standingNow(actor);
  if (now.kind === 'unlocked' || now.kind === 'gone') return recover(actor, now);
  if (now.kind !== 'mine') throw new Error(`looked at what is ${now.kind}`);
  const { claim, index } = now.owner;
  return step(
    actor,
    'looks: its own',
    goTo(actor, process.at, { lease: { ...lease, claim, index, provedMs: 0 } }),
  );
}

function seeSlot(actor: Actor): Next {
  const { process } = actor;
  const lease = leaseOf(process);
  const now = standingNow(actor);
  switch (now.kind) {
    case 'evicted': {
      const { claim, index } = now.owner;
      const changes = { lease: { ...lease, claim, index, outcome: 'evicted' } } as const;
      return step(actor, 'sees its eviction: its command is killed', goTo(actor, { pc: 'end' }, changes));
    }
    case 'mine':
    case 'unlocked':
    case 'gone':
      return lookAtSlot(actor);
    case 'foreign':
      return end(actor, 'sees the slot lost: its command is killed', 'lost');
  }
}

/** recover. */
export function recover(actor: Actor, now: Extract<Standing, { kind: 'unlocked' | 'gone' }>): Next {
  const state = hasSession(actor) ? actor.state : renewSession(actor);
  const process = state.processes[actor.i] ?? actor.process;
  const { slot, claim: known } = leaseOf(process);
  const by = senderOf(process);
  const at: At = { pc: process.at.pc === 'begin' ? 'begin' : 'run' };
  const claim = returnedClaim(contextOf(by), now.kind === 'gone' ? known : now.owner.claim);
  const tx: Tx =
    now.kind === 'gone'
      ? { name: 'claimAgain', by, slot, claim }
      : { name: 'takeBack', by, slot, index: now.owner.index, claim };
  return step(actor, `looks: ${now.kind}`, sendFrom({ ...actor, state }, at, tx));
}

/** How the command may end now; a transaction that is under way is given up. */
export function endings(actor: Actor): Next[] {
  const { state, process, world } = actor;
  const nexts = [end(actor, 'ends well', 'succeeded')];
  if (state.faults.fail > 0) nexts.push(end({ ...actor, state: spend(state, 'fail') }, 'fails', 'failed'));
  if (state.faults.stop > 0) {
    const stopped = { ...actor, state: spend(state, 'stop') };
    nexts.push(end(stopped, 'is stopped by a signal: its command is killed', 'interrupted'));
  }
  if (isDue(process, world.tickMs)) nexts.push(end(actor, 'is cut off: its command is killed', 'lost'));
  return nexts;
}

function end(actor: Actor, what: string, outcome: Outcome): Next {
  const { at } = actor.process;
  const unanswered = at.pc === 'sent' && at.tx.name === 'claimAgain' ? { unanswered: true } : {};
  const lease = { ...leaseOf(actor.process), outcome, ...unanswered };
  return step(actor, what, goTo(actor, { pc: 'end' }, { lease }));
}

/** Whether the command must be dead before the next tick: untilCutOff and the guard see to it, or whoever works in a hold. */
export function isDue(process: Process, tickMs: number): boolean {
  const { lease, hold, acquires } = process;
  if (lease === undefined || !isRunning(process)) return false;
  // At the very end of the tick nobody may work any more.
  if (acquires) return !isHeld(lease.claim, nowOf(process) + tickMs);
  return lease.provedMs + tickMs > deadAfterMs(hold);
}

/** release of the lease, releaseOnce. */
export function giveBack(actor: Actor): Next[] {
  const { unanswered, ...lease } = leaseOf(actor.process);
  const { slot, index, claim, outcome } = lease;
  const renewed = hasSession(actor) && !unanswered ? actor.state : renewSession(actor);
  const state = withProcess(renewed, actor.i, { lease });
  const process = state.processes[actor.i] ?? actor.process;
  const tx = releaseTx({ by: senderOf(process), slot, index, claim, outcome: outcome ?? 'lost' });
  return [step(actor, 'gives its slot back', sendFrom({ ...actor, state }, { pc: 'look-again' }, tx))];
}

/** lookAgain: the release was refused, or its answer was lost. */
export function lookAgain(actor: Actor): Next[] {
  const { process, state } = actor;
  const lease = leaseOf(process);
  const now = standingNow(actor);
  switch (now.kind) {
    case 'gone':
    case 'foreign':
      return record(actor, `looks again: ${now.kind}; `);
    case 'mine':
      return [
        step(
          actor,
          'looks again: its own',
          goTo(actor, { pc: 'end' }, { lease: { ...lease, ...now.owner } }),
        ),
      ];
    case 'evicted':
    case 'unlocked': {
      const { claim, index } = now.owner;
      if (isLeft(claim))
        return [step(actor, 'looks again: given back', goTo(actor, leave('idle'), { attempts: [] }))];
      const isLocked = state.store.entries.some(
        ({ key, session }) => key.startsWith(keys.slot(lease.slot)) && session === process.session,
      );
      if (now.kind === 'evicted' && isLocked)
        return [
          step(
            actor,
            'looks again: evicted',
            goTo(actor, { pc: 'end' }, { lease: { ...lease, claim, index } }),
          ),
        ];
      const by = senderOf(process);
      const tx: Tx = {
        name: 'takeBack',
        by,
        slot: lease.slot,
        index,
        claim: returnedClaim(contextOf(by), claim),
      };
      return [step(actor, `looks again: ${now.kind}`, sendFrom(actor, { pc: 'end' }, tx))];
    }
  }
}

/** recordEnd: the slot is not its own any more, and nothing but its record is written. */
export function record(actor: Actor, after = ''): Next[] {
  const { process, state } = actor;
  const { slot, index: claimIndex, outcome = 'lost' } = leaseOf(process);
  const by = senderOf(process);
  const entry = get(state.store, keys.run(process.node));
  const index = entry?.modifyIndex ?? 0;
  const tx = { name: 'recordAlone', by, slot, index, outcome, claimIndex } as const;
  if (entry && (decodeRun(entry).run === by.run || isLater(entry, recordOf(tx))))
    return [step(actor, `${after}need not be recorded`, goTo(actor, leave('idle'), { attempts: [] }))];
  return [step(actor, `${after}records its end`, sendFrom(actor, { pc: 'record' }, tx))];
}

type Leaving = Extract<At, { pc: 'leave' | 'undo' }>;

/** giveUp: the session first, so that nothing can arrive late. */
export function close(actor: Actor, { then, held }: Leaving): Next[] {
  const { state, process } = actor;
  const closed = { ...actor, state: withoutSession(state, process.session) };
  const isDone = process.attempts.length === 0;
  const nexts = [
    step(
      actor,
      'closes its session',
      isDone ? next(closed, { then, held }) : goTo(closed, { pc: 'undo', then, ...(held && { held }) }),
    ),
  ];
  if (state.faults.lose > 0 && hasSession(actor))
    nexts.push(
      step(
        actor,
        'cannot close its session',
        next({ ...actor, state: forgotten({ ...actor, state: spend(state, 'lose') }) }, { then, held }),
      ),
    );
  return nexts;
}

/** restore: what `start` wrote becomes what it was, if the command never began. */
function undoStart({ state, process: { run, restores } }: Actor): State {
  const key = stateKeys.during;
  if (!restores || stateOf(state.store, key)?.run !== run) return state;
  const { value } = restores;
  const { store } = transact(state.store, [
    value === undefined ? { verb: 'delete', key } : { verb: 'set', key, value },
  ]);
  const { showing, ...others } = withStore(state, store);
  const isShown = showing !== undefined && restores.showing !== undefined;
  return { ...others, ...(isShown && { showing }) };
}

/** A run that gave up before its command asks for its slots anew, and knows of no attempts any more. */
function forgotten(actor: Actor): State {
  if (!actor.process.restores) return actor.state;
  return withProcess(undoStart(actor), actor.i, { attempts: [] });
}

/** takeBackGrant, one attempt after the other. */
export function undo(actor: Actor, at: Leaving): Next[] {
  const { state, process } = actor;
  const [attempt, ...attempts] = process.attempts;
  if (!attempt) return [undone(actor, at)];
  const { slot, before } = attempt;
  const owner = slotOf(state.store, slot)?.owner;
  if (!owner || owner.claim.run !== process.run)
    return [step(actor, `has nothing in slot ${slot}`, goTo(actor, at, { attempts }))];
  const by = senderOf(process);
  const { index } = owner;
  const tx: Tx = before
    ? { name: 'changeClaim', by, slot, index, claim: before }
    : { name: 'removeSeen', by, slot, index, key: keys.owner(slot) };
  return [step(actor, `undoes its grant of slot ${slot}`, sendFrom(actor, at, tx))];
}

/** Nothing is left; what its `start` may have written goes as well. */
function undone(actor: Actor, at: Leaving): Next {
  const broken = judgeGivenUp(actor.state, actor.process);
  const state = undoStart(actor);
  return {
    ...step(actor, 'has undone all', next({ ...actor, state }, at)),
    ...(broken !== undefined && { broken }),
  };
}

/** The next try, with another session, what is held already, or the end of the process. */
function next(actor: Actor, { then, held }: { then: Leaving['then']; held?: Sighted | undefined }): State {
  const { state, i, process } = actor;
  const bare = idle(process, process.runs);
  const run = process.run === undefined ? {} : { run: process.run };
  if (then === 'idle') return replaceProcess(state, i, bare);
  if (then === 'ask' && held) return replaceProcess(state, i, { ...bare, ...run, at: { pc: 'ask', held } });
  const fresh = renewSession({ ...actor, process: {} as Process });
  return {
    ...fresh,
    processes: fresh.processes.map(({ restores, ...process }, i) =>
      i === actor.i ? { ...process, at: { pc: 'look' } } : { ...process, ...(restores && { restores }) },
    ),
  };
}
