/** A transaction under way: it arrives and is answered, its answer is lost, it arrives late, or it never does. */
import { REQUEST_TIMEOUT_MS } from '../../src/consul/request.ts';
import { writtenIndex } from '../../src/consul/txn.ts';
import type { Result as ResultOf } from '../../src/consul/txn.ts';
import type { RunObstacle } from '../../src/lock/transactions.ts';
import { decodeQueueMark } from '../../src/lock/records.ts';
import { isHeld, unnoticed } from '../../src/lock/decide.ts';
import { declines, ended } from './holding.ts';
import {
  goTo,
  judged,
  leave,
  nameOf,
  renewSession,
  sendFrom,
  spend,
  startBegun,
  startHeld,
  startRun,
} from './next.ts';
import type { Actor, Next } from './next.ts';
import { givenUp, refusedFinish } from './publishing.ts';
import { claimOf, transmit } from './transmit.ts';
import type { Sent } from './transmit.ts';
import { place, tidyTx } from './waiting.ts';
import { keys, nowOf, slotsOf, withProcess } from './world.ts';
import type { At, Faults, Process, State, Tx } from './world.ts';

export type Under = Extract<At, { pc: 'sent' }>;
type Result = ResultOf<RunObstacle>;
type Refusal = Extract<Result, { kind: 'refused' }>;

const isOverdue = ({ ageMs }: Under): boolean => ageMs > REQUEST_TIMEOUT_MS;

/** Every request has a deadline of its own, far shorter than a tick: after one, nobody answers any more. */
export function sent(actor: Actor, at: Under): Next[] {
  const { state, process } = actor;
  const arrived = transmit(actor.world, state, at.tx);
  const nexts = isOverdue(at) ? [] : [answered(actor, at, arrived)];
  if (isOverdue(at) || state.faults.lose > 0) {
    const silence = unanswered(actor, at, { arrived, cost: isOverdue(at) ? undefined : 'lose' });
    nexts.push(...silence.map((next) => ({ ...next, state: afterSilence(actor, at, next.state) })));
  }
  if (arrived.result.kind === 'done' && at.from.pc === 'look-kept' && !isOverdue(at))
    nexts.push(...declines({ ...actor, state: arrived.state }));
  if (state.faults.leave > 0 && !process.lease) nexts.push(...leaving(actor, at, arrived));
  return nexts;
}

/** A signal ends the wait while a transaction is under way; or it was granted, and nothing can be started. */
function leaving(actor: Actor, at: Under, arrived: Sent): Next[] {
  const toIdle = (state: State): State => withProcess(state, actor.i, { at: leave('idle') });
  const nexts = unanswered(actor, at, { arrived, cost: 'leave' });
  return nexts.map(({ label, state }) => ({ label: `${label}; it leaves`, state: toIdle(state) }));
}

/**
 * The sender learns nothing any more: the request did not arrive, or it did, or it will. The state is the sender's
 * before it draws its conclusions.
 */
export function unanswered(
  { state, process }: Actor,
  { tx }: Under,
  { arrived, cost }: { arrived: Sent; cost: keyof Faults | undefined },
): Next[] {
  const what = `${nameOf(process)} ${describe(tx)}: no answer`;
  const paid = (after: State) => (cost ? spend(after, cost) : after);
  const nexts: Next[] = [{ label: `${what}, it never arrives`, state: paid(state) }];
  if (arrived.result.kind === 'done' && (cost !== undefined || state.faults.lose > 0)) {
    const after = cost ? spend(arrived.state, cost) : spend(arrived.state, 'lose');
    nexts.push(judged({ label: `${what}, but it took effect`, state: after }, arrived));
  }
  if (state.faults.late > 0) {
    const late = spend({ ...state, late: [...state.late, tx] }, 'late');
    nexts.push({ label: `${what}, it will arrive late`, state: paid(late) });
  }
  return nexts;
}

export function describe(tx: Tx): string {
  if (tx.name === 'enqueue' || tx.name === 'markNode') return tx.name;
  if (tx.name === 'moveDown') return `${tx.name} slot ${tx.from} to ${tx.slot}`;
  return tx.name === 'removeSeen' ? `${tx.name} ${tx.key}` : `${tx.name} slot ${tx.slot}`;
}

/** What src/lock does when nobody knows whether it took effect. */
function afterSilence({ i }: Actor, { tx, from }: Under, state: State): State {
  const unsure = withProcess(state, i, { at: from });
  const process = unsure.processes[i];
  if (!process || (from.pc !== 'run' && from.pc !== 'begin') || tx.name === 'start') return unsure;
  // sendAndKeep
  if (tx.name === 'claimAgain' && process.lease)
    return withProcess(unsure, i, { lease: { ...process.lease, unanswered: true } });
  // sendOrForget
  return renewSession({ world: undefined as never, state: unsure, i, process });
}

function answered(actor: Actor, at: Under, arrived: Sent): Next {
  const { result, state } = arrived;
  const after: Actor = { ...actor, state };
  const what = result.kind === 'done' ? 'done' : `refused (${result.obstacle})`;
  const next = result.kind === 'done' ? accepted(after, at, result) : refused(after, at, result);
  const label = `${nameOf(actor.process)} ${describe(at.tx)}: ${what}`;
  if ('label' in next) return judged({ ...next, label: `${label}; ${next.label}` }, arrived);
  return judged({ label, state: next }, arrived);
}

function accepted(
  actor: Actor,
  { tx, from, ageMs }: Under,
  result: Extract<Result, { kind: 'done' }>,
): State | Next {
  const { process } = actor;
  switch (tx.name) {
    case 'enqueue': {
      // As `join` reads the answer.
      const tail = result.entries.find((entry) => entry.key === keys.tail && entry.value !== '');
      return noticeMissing(actor, place(tail && decodeQueueMark(tail).session, actor.state.store));
    }
    case 'markNode':
      if (tx.frozen !== undefined) return goTo(actor, { pc: 'frozen', key: tx.frozen, from: leave('look') });
      return goTo(actor, { pc: 'down', seen: [], slot: tx.slot, index: tx.index });
    case 'grant':
    case 'takeOver':
    case 'comeBack':
    case 'moveDown': {
      const claim = claimOf(tx);
      const index = writtenIndex(result.entries, keys.owner(tx.slot));
      const provedMs = process.hold === 'forever' ? 0 : ageMs;
      return startRun(actor, 'is granted', { slot: tx.slot, claim, index, provedMs });
    }
    case 'takeBack':
    case 'claimAgain': {
      if (!process.lease) throw new Error('nothing to take back');
      const index = writtenIndex(result.entries, keys.owner(tx.slot));
      const lease = {
        ...process.lease,
        claim: tx.claim,
        index,
        provedMs: process.hold === 'forever' ? 0 : ageMs,
      };
      return goTo(actor, from.pc === 'run' || from.pc === 'begin' ? from : { pc: 'end' }, { lease });
    }
    case 'start':
      return startBegun(actor);
    case 'release':
    case 'finish':
    case 'recordAlone':
      return goTo(actor, leave('idle'), { attempts: [] });
    case 'keep':
      return hold(actor, from, tx, result);
    case 'endHeld':
      return ended(actor, actor.state);
    case 'changeClaim':
      return from.pc === 'undo' ? goTo(actor, from) : hold(actor, from, tx, result);
    case 'removeSeen':
      // keepOnce: it was evicted.
      return from.pc === 'look-kept' ? goTo(actor, leave('idle'), { attempts: [] }) : goTo(actor, from);
    case 'abandon':
    case 'notice':
    case 'clearClaim':
    case 'drop':
      return goTo(actor, from);
  }
}

/** noticeMissing: whoever joins says which runs have lost their locks. */
function noticeMissing(actor: Actor, at: At): State {
  const [found] = unnoticed(slotsOf(actor.state.store));
  if (!found) return goTo(actor, at);
  return sendFrom(actor, at, tidyTx(actor.process, { kind: 'notice', ...found }));
}

/** keepGrant and holdOn: held, unless the answer came so late that others may follow. */
function hold(
  actor: Actor,
  from: At,
  { slot, claim }: Extract<Tx, { name: 'keep' | 'changeClaim' }>,
  { entries }: Extract<Result, { kind: 'done' }>,
): State | Next {
  if (!isHeld(claim, nowOf(actor.process))) return goTo(actor, from);
  return startHeld(actor, 'holds it', { slot, claim, index: writtenIndex(entries, keys.owner(slot)) });
}

function refused(actor: Actor, at: Under, refusal: Refusal): State {
  const { tx, from } = at;
  switch (tx.name) {
    case 'enqueue':
    case 'markNode':
      return goTo(actor, refusal.obstacle === 'node' ? { pc: 'mark' } : leave('look'));
    case 'grant':
    case 'takeOver':
    case 'comeBack':
    case 'moveDown':
      return goTo(actor, afterRefusedGrant(at, refusal), attemptsAfter(actor.process, at, tx.slot));
    case 'takeBack':
    case 'claimAgain':
      return from.pc === 'run' || from.pc === 'begin'
        ? refusedInRun(actor, tx, refusal)
        : refusedAtEnd(actor, refusal);
    case 'start':
      return refusal.obstacle === 'condition' ? givenUp(actor, 'look') : goTo(actor, from);
    case 'finish':
      return refusedFinish(actor, refusal.obstacle);
    case 'release':
      return goTo(actor, { pc: 'look-again' });
    case 'recordAlone':
    case 'keep':
    case 'endHeld':
    case 'abandon':
    case 'notice':
    case 'changeClaim':
    case 'removeSeen':
    case 'clearClaim':
    case 'drop':
      return goTo(actor, from);
  }
}

const attemptsAfter = ({ attempts }: Process, { isNew }: Under, slot: number): Partial<Process> =>
  isNew ? { attempts: attempts.filter((attempt) => attempt.slot !== slot) } : {};

/** make and returnTo. */
function afterRefusedGrant({ tx, from }: Under, { obstacle, key }: Refusal): At {
  if (obstacle === 'freeze' && tx.name === 'comeBack') {
    const mark: Tx = { name: 'markNode', by: tx.by, slot: tx.slot, index: tx.index, frozen: key };
    return { pc: 'sent', tx: mark, from: leave('look'), ageMs: 0 };
  }
  if (obstacle === 'freeze') return { pc: 'frozen', key, from };
  if (tx.name === 'moveDown') {
    if (obstacle === 'node') return { pc: 'mark' };
    return obstacle === 'session' ? leave('look') : from;
  }
  if (tx.name !== 'comeBack') {
    if (obstacle === 'ticket') return { pc: 'adopt' };
    return obstacle === 'session' ? leave('look') : from;
  }
  if (obstacle === 'node') return { pc: 'mark' };
  return leave(obstacle === 'lock' ? 'idle' : 'look');
}

/** recover. */
function refusedInRun(actor: Actor, tx: Tx, { obstacle }: Refusal): State {
  const { lease } = actor.process;
  const at: At = { pc: lease?.unbegun ? 'begin' : 'run' };
  if (obstacle === 'session') return renewSession({ ...actor, state: goTo(actor, at) });
  const isLost = tx.name === 'claimAgain' && obstacle === 'lock';
  if (!isLost || !lease) return goTo(actor, at);
  if (lease.unbegun) return givenUp(actor, 'idle');
  return goTo(actor, { pc: 'end' }, { lease: { ...lease, outcome: 'lost' } });
}

/** lookAgain. */
function refusedAtEnd(actor: Actor, { obstacle }: Refusal): State {
  const state = goTo(actor, { pc: 'end' });
  return obstacle === 'session' ? renewSession({ ...actor, state }) : state;
}
