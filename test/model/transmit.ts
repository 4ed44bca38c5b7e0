/** Sends the very transactions of src/lock to the model's store, and judges each change that they make. */
import { keptClaim } from '../../src/lock/run-record.ts';
import { nodeMark, runningClaim } from '../../src/lock/context.ts';
import type { Result } from '../../src/consul/txn.ts';
import { rootOf } from '../../src/lock/records.ts';
import type { Claim, RunRecord } from '../../src/lock/records.ts';
import { decodeState } from '../../src/state/document.ts';
import {
  abandon,
  changeClaim,
  claimAgain,
  clearClaim,
  comeBack,
  drop,
  endHeld,
  enqueue,
  grant,
  keep,
  markNode,
  moveDown,
  notice,
  recordAlone,
  release,
  removeSeen,
  takeBack,
  takeOver,
} from '../../src/lock/transactions.ts';
import type { HeldSeat, RunObstacle, RunStep, Seat } from '../../src/lock/transactions.ts';
import { judge } from './promises.ts';
import { finishSteps, startSteps } from './states.ts';
import { endSession, get, openSession, transact } from './store.ts';
import type { Store } from './store.ts';
import { NOW_MS, contextOf, keys, secondKeys, stateKeys } from './world.ts';
import type { State, Tx, World } from './world.ts';

export const OPERATOR = 'operator';

/** The steps of a transaction, made by src/lock. */
export function stepsOf(tx: Tx): RunStep[] {
  const context = contextOf(tx.by);
  const mark = nodeMark(context);
  if (tx.name === 'enqueue') return enqueue(keys, tx.by.session, ticketOf(tx), mark);
  if (tx.name === 'markNode') return markNode(keys, tx.by.session, { ...mark, node: tx.by.node });
  const seat: Seat = { keys, session: tx.by.session, slot: tx.slot };
  const vanished = { keys, slot: tx.slot, strayLock: 'strayLock' in tx ? tx.strayLock : undefined };
  switch (tx.name) {
    case 'grant':
      return grant(seat, runningClaim(context));
    case 'takeOver':
      return takeOver(seat, runningClaim(context), tx.index);
    case 'comeBack':
      return comeBack(seat, claimOf(tx), mark, tx.index);
    case 'moveDown': {
      const own = { slot: tx.from, index: tx.index, strayLock: tx.strayLock };
      return moveDown(seat, runningClaim(context), mark, own);
    }
    case 'start':
      return startSteps(tx, [{ seat, index: tx.index }, ...seatsThere(tx)]);
    case 'finish':
      return finishSteps(
        tx,
        [{ seat, index: tx.index }, ...seatsThere(tx)].map((held) => ({
          ...held,
          record: recordOf({ ...tx, index: held.index, outcome: 'succeeded' }),
        })),
      );
    case 'takeBack':
      return takeBack(seat, tx.claim, mark, tx.index);
    case 'claimAgain':
      return claimAgain(seat, tx.claim, mark);
    case 'release':
      return release(seat, recordOf(tx), tx.index, tx.claim);
    case 'recordAlone':
      return recordAlone(keys, recordOf(tx), tx.index);
    case 'keep':
      return keep(seat, tx.claim, tx.index);
    case 'endHeld':
      return endHeld(vanished, recordOf(tx), tx.index, tx.claim);
    case 'abandon':
      return abandon(vanished, tx.claim, tx.index);
    case 'notice':
      return notice(vanished, tx.claim, tx.index);
    case 'changeClaim':
      return changeClaim(keys, tx.slot, tx.claim, tx.index);
    case 'removeSeen':
      return removeSeen(tx.key, tx.index, tx.key === keys.owner(tx.slot) ? 'owner' : 'freeze');
    case 'clearClaim':
      return clearClaim(vanished, tx.index);
    case 'drop':
      return drop(vanished, tx.index);
  }
}

/** The claim of a run that is granted, as its context has it. */
export const claimOf = (tx: Tx): Claim => ({
  ...runningClaim(contextOf(tx.by)),
  ...(tx.name === 'comeBack' && tx.root !== undefined && { root: tx.root }),
});

const seatsThere = ({ second }: Extract<Tx, { name: 'start' | 'finish' }>): HeldSeat[] =>
  second ? [{ seat: { keys: secondKeys, session: second.session, slot: 0 }, index: second.index }] : [];

function ticketOf({ by }: Tx) {
  const { since, run, command, node, pid } = runningClaim(contextOf(by));
  return { since, run, command, node, pid };
}

type Recording = Extract<Tx, { name: 'release' | 'endHeld' | 'recordAlone' }>;

/** The record of a run that ends; `keptClaim` and `release` read its outcome and its node. */
export function recordOf(
  tx: Pick<Recording, 'by' | 'outcome' | 'slot' | 'index'> & { readonly claimIndex?: number },
): RunRecord {
  const { node, run, since, command } = runningClaim(contextOf(tx.by));
  const { outcome, slot, claimIndex = tx.index } = tx;
  return { node, run, outcome, command, slot, endedAt: since, waitedMs: 0, ranMs: 0, claimIndex };
}

/** The transaction that gives a slot back, composed as releaseOnce does. */
export function releaseTx(tx: Omit<Extract<Tx, { name: 'release' }>, 'name'>): Tx {
  const { claim: before, ...rest } = tx;
  if (!before) throw new Error('no claim');
  const running = { ...before, state: 'running', node: tx.by.node } as const;
  const kept = keptClaim(running, recordOf(tx), NOW_MS + tx.by.aheadMs);
  return { name: 'release', ...rest, ...(kept && { claim: kept }) };
}

/** The second half, composed as giveHeldBack does. */
export function endHeldTx(tx: Omit<Extract<Tx, { name: 'endHeld' }>, 'name' | 'claim'>, held: Claim): Tx {
  const kept = keptClaim(held, recordOf(tx), NOW_MS + tx.by.aheadMs);
  return { name: 'endHeld', ...tx, ...(kept && { claim: kept }) };
}

/** `broken`: the promise that this change breaks. */
export interface Sent {
  readonly result: Result<RunObstacle>;
  readonly state: State;
  readonly broken?: string;
}

/** A transaction arrives. */
export function transmit(world: World, state: State, tx: Tx): Sent {
  const steps = stepsOf(tx);
  const sent = world.mutate ? world.mutate(tx.name, steps) : steps;
  const { answer, store } = transact(
    state.store,
    sent.map((step) => step.operation),
  );
  if (answer.kind === 'done') {
    const broken = judge(state, store, tx);
    const changed = showing(state, withStore(state, store, tx.name === 'notice'), tx);
    return { result: answer, state: changed, ...(broken !== undefined && { broken }) };
  }
  // As `send` in src/consul/txn.ts reads a refusal.
  const step = sent[answer.at];
  const obstacle = /invalid session/i.test(answer.why) ? 'session' : (step?.means ?? 'session');
  return {
    result: { kind: 'refused', obstacle, at: answer.at, key: step?.operation.key ?? '', why: answer.why },
    state,
  };
}

/** A `start` that took effect shows its state, until another run is granted the slot; `withStore` knows the other ends. */
function showing(before: State, after: State, tx: Tx): State {
  if (tx.name === 'start') return { ...after, showing: tx.slot };
  if (tx.name === 'claimAgain' && isOfClaim(after.store, tx)) return { ...after, showing: tx.slot };
  const isGranted = tx.name === 'grant' || tx.name === 'takeOver';
  return isGranted && tx.slot === before.showing ? hidden(after) : after;
}

/** A run that claims its slot again shows again what it showed. */
function isOfClaim(store: Store, { slot, claim }: Extract<Tx, { name: 'claimAgain' }>): boolean {
  const entry = get(store, stateKeys.during);
  const shown = entry && decodeState(entry).while;
  return shown?.slot === slot && shown.root === rootOf(claim);
}

function hidden(state: State): State {
  const { showing: shown, ...others } = state;
  return shown === undefined ? state : others;
}

/** Every change goes through here: a slot that is locked, or whose claim changed, but for that note, has not been quiet. */
export function withStore(state: State, store: Store, isNotice = false): State {
  if (store === state.store) return state;
  const ghosts = state.ghosts.map((ghost, slot) => {
    if (ghost.quietMs === 0) return ghost;
    const isSame = isNotice || ownerIndex(store, slot) === ownerIndex(state.store, slot);
    const isQuiet = isSame && !findLocked(store, slot);
    return isQuiet ? ghost : { ...ghost, quietMs: 0 };
  });
  const changed = { ...state, store, ghosts };
  const isOver =
    state.showing !== undefined &&
    (ownerIndex(store, state.showing) === undefined || !get(store, stateKeys.during));
  return isOver ? hidden(changed) : changed;
}

const findLocked = (store: Store, slot: number): boolean =>
  store.entries.some((entry) => entry.key === keys.lock(slot) && entry.session !== undefined);

const ownerIndex = (store: Store, slot: number): number | undefined =>
  store.entries.find((entry) => entry.key === keys.owner(slot))?.modifyIndex;

export const withoutSession = (state: State, session: string | undefined): State =>
  withStore(state, endSession(state.store, session));

export function withNewSession(state: State): { readonly state: State; readonly session: string } {
  const session = `s${state.next.session}`;
  const next = { ...state.next, session: state.next.session + 1 };
  return { session, state: { ...state, next, store: openSession(state.store, session) } };
}
