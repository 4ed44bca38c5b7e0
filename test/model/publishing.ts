/** A run that publishes: src/runner/begin.ts and src/lock/finish.ts, step by step. */
import { isLeft } from '../../src/lock/decide.ts';
import { returnedClaim } from '../../src/lock/context.ts';
import { deadAfterMs } from '../../src/lock/lease-state.ts';
import { decodeRun, rootOf } from '../../src/lock/records.ts';
import type { Outcome } from '../../src/lock/records.ts';
import { decodeState } from '../../src/state/document.ts';
import { goTo, leave, renewSession, sendFrom, spend, step } from './next.ts';
import type { Actor, Next } from './next.ts';
import { hasSession, leaseOf, lookAtSlot, recover, standingNow } from './running.ts';
import { declineThere, lookThere } from './second.ts';
import { VALUE, stateOf } from './states.ts';
import { get } from './store.ts';
import { contextOf, keys, replaceProcess, senderOf, stateKeys, withProcess } from './world.ts';
import type { At, Lease, Process, State, Tx } from './world.ts';

/** begin: the lease is looked at meanwhile, as during the command. */
export function begin(actor: Actor): Next[] {
  const { process, state } = actor;
  const { slot, index, claim, unbegun, provedMs } = leaseOf(process);
  // checkDeadline
  if (provedMs > deadAfterMs(process.hold)) return [giveUp(actor, 'has come too late', 'idle')];
  const there = lookThere(actor);
  if (there === 'over') return [giveUp(actor, 'has lost the second group', 'idle')];
  const by = senderOf(process);
  const condition = unbegun?.condition ?? 0;
  const known = claim.state === 'evicted' ? ({ isEvicted: true } as const) : {};
  const tx: Tx = {
    name: 'start',
    by,
    slot,
    index,
    condition,
    root: rootOf(claim),
    ...known,
    ...secondOf(process),
  };
  const nexts = [step(actor, 'asks to start', sendFrom(actor, { pc: 'begin' }, tx)), look(actor)];
  if (there) nexts.push(there);
  if (!hasSession(actor)) nexts.push(recover(actor, { kind: 'unlocked', owner: { claim, index } }));
  if (state.faults.leave > 0)
    nexts.push(giveUp({ ...actor, state: spend(state, 'leave') }, 'is stopped before its command', 'idle'));
  return nexts;
}

function look(actor: Actor): Next {
  const now = standingNow(actor);
  if (now.kind === 'foreign') return giveUp(actor, 'looks: foreign', 'idle');
  if (now.kind !== 'evicted') return lookAtSlot(actor);
  // An eviction waits until the claim is removed together with the lock, as proof that nothing runs.
  const { slot, provedMs } = leaseOf(actor.process);
  const evicted: Lease = { slot, ...now.owner, provedMs, outcome: 'evicted' };
  return step(actor, 'sees its eviction, and starts nothing', goTo(actor, { pc: 'end' }, { lease: evicted }));
}

/** All slots are given up: the session goes first, so that no `start` can arrive late. */
export const giveUp = (actor: Actor, what: string, then: 'look' | 'idle'): Next =>
  step(actor, `${what}; gives its slot up`, givenUp(actor, then));

export function givenUp({ state, i, process }: Actor, then: 'look' | 'idle'): State {
  const bare: { -readonly [Key in keyof Process]: Process[Key] } = { ...process, at: leave(then) };
  delete bare.lease;
  if (process.lease?.unbegun) bare.restores = process.lease.unbegun.before;
  return replaceProcess(declineThere(state, process), i, bare);
}

const secondOf = ({ lease: held }: Process) => (held?.second ? { second: held.second } : {});

/** Its end is to be recorded as good, with what it publishes. */
export const finishes = ({ publishes, lease: held }: Process): boolean =>
  publishes === true && held?.outcome === 'succeeded';

/** finishOnce: the states are read, and what is to be done to them is sent. */
export function finishRun(actor: Actor): Next[] {
  const { isAgain, second, ...lease } = leaseOf(actor.process);
  const state = hasSession(actor) ? actor.state : renewSession(actor);
  const by = senderOf(state.processes[actor.i] ?? actor.process);
  const { store } = state;
  const there = get(store, stateKeys.published);
  const seen = there && decodeState(there);
  const isSame = seen?.value === VALUE && !seen.while && isAgain !== true;
  const shown = get(store, stateKeys.during);
  const own = shown && decodeState(shown);
  const tx: Tx = {
    ...{ name: 'finish', by, slot: lease.slot, index: lease.index },
    ...(second && { second }),
    ...(lease.claim.state === 'evicted' && { isEvicted: true }),
    ...(there && isSame && { same: there.modifyIndex }),
    ...(shown && own?.run === by.run && own.while && { during: shown.modifyIndex }),
  };
  return [step(actor, 'ends well, and publishes', sendFrom({ ...actor, state }, { pc: 'look-finish' }, tx))];
}

/** look, of finishAll: it was refused, or its answer was lost. */
export function lookFinish(actor: Actor): Next[] {
  const nexts = [finishSeen(actor)];
  const { state } = actor;
  if (state.faults.lose === 0) return nexts;
  const silent = { ...actor, state: spend(state, 'lose') };
  const refused = { ...lease(actor, 'lost') };
  return [
    ...nexts,
    step(actor, 'hears nothing for 30 s: its claim stays', goTo(silent, leave('idle'), { attempts: [] })),
    step(actor, 'is refused for 30 s', goTo(silent, { pc: 'end' }, { lease: refused })),
  ];
}

const lease = ({ process }: Actor, outcome: Outcome): Lease => ({ ...leaseOf(process), outcome });

function finishSeen(actor: Actor): Next {
  const there = lookThere(actor);
  if (there === 'over') return over(actor, 'the second group is not its own', 'lost');
  if (there) return there;
  const { process } = actor;
  const now = standingNow(actor);
  const known = leaseOf(process);
  switch (now.kind) {
    case 'mine':
      return step(actor, 'looks: its own', goTo(actor, { pc: 'end' }, { lease: { ...known, ...now.owner } }));
    case 'gone':
    case 'foreign':
      return over(actor, now.kind, 'lost');
    case 'evicted':
      return over(
        { ...actor, state: withProcess(actor.state, actor.i, { lease: { ...known, ...now.owner } }) },
        now.kind,
        'evicted',
      );
    case 'unlocked': {
      const { claim, index } = now.owner;
      if (isLeft(claim)) return over(actor, claim.state, 'lost');
      const by = senderOf(process);
      const back = returnedClaim(contextOf(by), claim);
      const tx: Tx = { name: 'takeBack', by, slot: known.slot, index, claim: back };
      return step(actor, 'looks: unlocked', sendFrom(actor, { pc: 'end' }, tx));
    }
  }
}

/** The slot is not its own any more: the lost answer was a yes, or it is no good run. */
function over(actor: Actor, what: string, outcome: 'lost' | 'evicted'): Next {
  const { state, process, i } = actor;
  const record = get(state.store, keys.run(process.node));
  const isRecorded = outcome === 'lost' && record && decodeRun(record).run === process.run;
  const isPublished = stateOf(state.store, stateKeys.published)?.change === process.run;
  if (isRecorded || isPublished)
    return step(actor, `looks: ${what}; it was recorded`, goTo(actor, leave('idle'), { attempts: [] }));
  const changed = state.processes[i] ?? process;
  return step(
    actor,
    `looks: ${what}`,
    goTo(actor, { pc: 'end' }, { lease: { ...leaseOf(changed), outcome } }),
  );
}

/** A `finish` was refused. */
export const refusedFinish = (actor: Actor, obstacle: string): State => {
  const again: Lease = { ...leaseOf(actor.process), isAgain: true };
  const at: At = { pc: obstacle === 'state' ? 'end' : 'look-finish' };
  return goTo(actor, at, { lease: again });
};
