/** The states that a run publishes and shows, as src writes and reads them. Pure. */
import { keepsOutForMs } from '../../src/lock/decide.ts';
import { changeStates, finish, setStates, start, stillHold } from '../../src/lock/transactions.ts';
import type { HeldEnd, HeldSeat, RunStep, StateChange } from '../../src/lock/transactions.ts';
import { leftOfStanding } from '../../src/state/claims.ts';
import { decodeState, encodeState } from '../../src/state/document.ts';
import type { StateDocument } from '../../src/state/document.ts';
import { duringDocument, publishedDocument } from '../../src/state/of-run.ts';
import type { Writer } from '../../src/state/of-run.ts';
import { get } from './store.ts';
import type { Store } from './store.ts';
import { NOW_MS, keys, slotOf, stateKeys } from './world.ts';
import type { Sender, Tx } from './world.ts';

/** What every run publishes; whoever else sets the state may set the same. */
export const VALUE = 'v';

const writerOf = ({ node, run }: Sender): Writer => ({
  ...{ node, run, at: new Date(NOW_MS).toISOString(), newId: () => run },
});

/** Undefined: it is not set. */
export const stateOf = (store: Store, key: string): StateDocument | undefined => {
  const entry = get(store, key);
  return entry && decodeState(entry);
};

/** `start`, made by src/lock. */
export function startSteps(tx: Extract<Tx, { name: 'start' }>, held: readonly HeldSeat[]): RunStep[] {
  const claim = { group: keys.group, slot: tx.slot, root: tx.root };
  const document = duringDocument({ path: 'during', value: VALUE }, claim, writerOf(tx.by));
  const conditions = tx.condition === 0 ? [] : [{ key: stateKeys.condition, index: tx.condition }];
  return start(held, [
    ...stillHold(conditions),
    ...setStates([{ key: stateKeys.during, value: encodeState(document) }]),
  ]);
}

/** `finish`, made by src/lock. */
export function finishSteps(tx: Extract<Tx, { name: 'finish' }>, held: readonly HeldEnd[]): RunStep[] {
  const document = publishedDocument({ path: 'published', value: VALUE }, writerOf(tx.by));
  const published: StateChange =
    tx.same === undefined
      ? { kind: 'set', key: stateKeys.published, value: encodeState(document) }
      : { kind: 'same', key: stateKeys.published, index: tx.same };
  const during: StateChange[] =
    tx.during === undefined ? [] : [{ kind: 'delete', key: stateKeys.during, index: tx.during }];
  return finish(held, changeStates([published, ...during]));
}

/** Whether what a run shows meanwhile counts as set, as its readers judge it by both keys. */
export function isShown(store: Store): boolean {
  const document = stateOf(store, stateKeys.during);
  if (!document) return false;
  const { while: claim } = document;
  const owner = claim && get(store, keys.owner(claim.slot));
  return leftOfStanding({ document, ...(claim && { claim: { owner } }) }, NOW_MS) > 0;
}

/** Nobody has set it since but a run. */
export const isOfRun = (store: Store): boolean => stateOf(store, stateKeys.during)?.run !== undefined;

/** Whether the claim of this slot is past its hold. */
export function isPastHold(store: Store, slot: number): boolean {
  const claim = slotOf(store, slot)?.owner?.claim;
  return claim !== undefined && keepsOutForMs(claim, NOW_MS) <= 0;
}
