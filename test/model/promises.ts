/** The promises of docs/protocol.md: what a change of the store, and a moment of the world, must not show. */
import { decodeState } from '../../src/state/document.ts';
import { decodeClaim, decodeRun } from '../../src/lock/records.ts';
import type { Claim } from '../../src/lock/records.ts';
import {
  isTaken,
  CLOCK_DIFFERENCE_MS,
  VANISHED_AFTER_MS,
  isElsewhere,
  isLeft,
  isOwn,
} from '../../src/lock/decide.ts';
import type { Owner, Slot } from '../../src/lock/decide.ts';
import { VALUE, isOfRun, isPastHold, isShown } from './states.ts';
import { get, list } from './store.ts';
import type { Store } from './store.ts';
import { NOW_MS, contextOf, isRunning, keys, secondKeys, slotOf, slotsOf, stateKeys } from './world.ts';
import type { At, Process, State, Tx, TxName } from './world.ts';

const PROMISES = {
  overlap: 'promise 1: more runs at once than slots',
  twice: 'same node: two of its runs are under way at once',
  count: 'promise 1: granted although as many slots as its N were taken or kept',
  hold: 'promise 2: granted although the claim was another’s, and not past its hold',
  order: 'promise 3: granted out of the order of the tickets',
  claim: 'promise 4: a claim was changed or removed by somebody who may not',
  stopped: 'promise 4: a run that did not end well gave its claim up',
  evict: 'promise 4: an operator cleared the claim of a run whose session lives',
  token: 'promise 5: a fencing token did not grow',
  freeze: 'freeze: a new run was granted although the group is frozen',
  record: 'history: a node’s record went back to an earlier run',
  thaw: 'freeze: a run removed a freeze that is not past its end',
  start: 'start: a command may begin although its slot is not its run’s any more',
  condition: 'start: a command may begin although its condition has changed',
  good: 'publish: a run was recorded as good although its slot was not its own any more',
  publish: 'publish: a state was published without the record of a good run, or the record without the state',
  others: 'publish: a run removed a state that somebody else had set',
  early: 'during: a state counts as absent although its claim stands',
  late: 'during: a state counts as set although its claim has ended, or its run never began',
  waits: 'start: a run that gave its slot up holds it all the same',
} as const;

/** The promise that a transaction broke, having turned the state's store into `after`. */
export function judge(before: State, after: Store, tx: Tx): string | undefined {
  return (
    judgeFreeze(before.store, after, tx) ??
    judgeRecord(before.store, after, tx) ??
    judgeStates(before.store, after, tx) ??
    (tx.name === 'grant' || tx.name === 'takeOver'
      ? (judgeOrder(before.store, tx) ?? judgeCount(before.store, tx))
      : undefined) ??
    before.ghosts.map((_, slot) => judgeSlot(before, after, { tx, slot })).find((broken) => broken)
  );
}

/** They begin a new run. */
const STARTS = new Set<TxName>(['grant', 'takeOver', 'comeBack', 'moveDown']);

/** A freeze with an end is past it: the model's clock never shows a time before the end of one. */
const isLive = (value: string): boolean => !value.includes('"until"');

function judgeFreeze(before: Store, after: Store, tx: Tx): string | undefined {
  const live = keys.freezes.filter((key) => isLive(get(before, key)?.value ?? '"until"'));
  if (STARTS.has(tx.name) && live.length > 0) return PROMISES.freeze;
  return live.every((key) => get(after, key)) ? undefined : PROMISES.thaw;
}

function judgeRecord(before: Store, after: Store, { by }: Tx): string | undefined {
  const [was, now] = [before, after].map((store) => get(store, keys.run(by.node)));
  if (!was || !now || was === now) return undefined;
  const [earlier = 0, later = 0] = [was, now].map((entry) => decodeRun(entry).claimIndex);
  return later < earlier ? PROMISES.record : undefined;
}

/** `start` and `finish` are right if the slot is their run's, running and locked by nobody else; only `finish` publishes. */
function judgeStates(before: Store, after: Store, tx: Tx): string | undefined {
  const { name, by } = tx;
  if (name === 'start' || name === 'finish') {
    const claim = slotOf(before, tx.slot)?.owner?.claim;
    const isOwnThere = !tx.second || isRunningThere(before, by.run);
    if (claim?.run !== by.run || (claim.state !== 'running' && !tx.isEvicted) || !isOwnThere)
      return name === 'start' ? PROMISES.start : PROMISES.good;
  }
  const isChanged = (key: string) => get(before, key) !== get(after, key);
  if (name === 'start' && tx.condition !== get(before, stateKeys.condition)?.modifyIndex)
    return PROMISES.condition;
  if (isChanged(stateKeys.during) && !get(after, stateKeys.during) && writerOfDuring(before) !== by.run)
    return PROMISES.others;
  const groups = by.publishes ? [keys, ...(by.second ? [secondKeys] : [])] : [];
  const good = groups.filter((group) => {
    const key = group.run(by.node);
    const record = isChanged(key) ? get(after, key) : undefined;
    return record !== undefined && decodeRun(record).outcome === 'succeeded';
  });
  if (good.length > 0 && good.length < groups.length) return PROMISES.publish;
  const isGood = good.length > 0;
  if (isChanged(stateKeys.published) && !isGood) return PROMISES.publish;
  return isGood && !isPublished(after) ? PROMISES.publish : undefined;
}

function isRunningThere(store: Store, run: string): boolean {
  const entry = get(store, secondKeys.owner(0));
  const claim = entry && decodeClaim(entry);
  return claim?.run === run && claim.state === 'running';
}

function writerOfDuring(store: Store): string | undefined {
  const entry = get(store, stateKeys.during);
  return entry && decodeState(entry).run;
}

function isPublished(store: Store): boolean {
  const entry = get(store, stateKeys.published);
  return entry !== undefined && decodeState(entry).value === VALUE;
}

function judgeOrder(before: Store, { by }: Tx): string | undefined {
  const tickets = list(before, keys.queuePrefix).filter((entry) => entry.session !== undefined);
  const first = tickets.reduce<string | undefined>(
    (key, entry) =>
      entry.createIndex < (key ? (get(before, key)?.createIndex ?? 0) : Infinity) ? entry.key : key,
    undefined,
  );
  return first === keys.queue(by.session) ? undefined : PROMISES.order;
}

/** Whoever comes by the queue: a node that comes back to its claim is in the count already. */
function judgeCount(before: Store, { by, slot }: Extract<Tx, { readonly slot: number }>): string | undefined {
  const others = slotsOf(before).filter((other) => other.slot !== slot && isTaken(other));
  return others.length < by.slots ? undefined : PROMISES.count;
}

function judgeSlot(before: State, after: Store, { tx, slot }: { tx: Tx; slot: number }): string | undefined {
  const key = keys.owner(slot);
  if (get(before.store, key) === get(after, key)) return undefined;
  const was = slotOf(before.store, slot);
  if (!was?.owner) return undefined;
  const quietMs = before.ghosts[slot]?.quietMs ?? 0;
  return judgeChange({ ...was, owner: was.owner, quietMs }, slotOf(after, slot)?.owner?.claim, tx);
}

type Was = Slot & { readonly owner: Owner; readonly quietMs: number };

/** Who may do what about a claim that is there. */
function judgeChange(was: Was, now: Claim | undefined, tx: Tx): string | undefined {
  const { by, name } = tx;
  const { claim } = was.owner;
  const isOwnRun = by.run === claim.run;
  if (isOwnRun) return mayGo(claim, tx) || now ? undefined : PROMISES.stopped;
  if (name === 'drop') return isOver(was) ? undefined : PROMISES.hold;
  if (name === 'clearClaim') return was.lockedBy !== undefined ? PROMISES.evict : undefined;
  const isMoved = name === 'moveDown' && by.node === claim.node && !now;
  if (isMoved && isOwn(contextOf(by).run, claim)) return undefined;
  if (!now) return PROMISES.claim;
  if (now.run === claim.run) {
    const isNotice = name === 'notice' && was.lockedBy === undefined && now.state === claim.state;
    const may =
      isNotice ||
      (now.state === 'abandoned' && isVanished(was)) ||
      (now.state === 'evicted' && by.run === 'operator');
    return may && mayEnd(claim) ? undefined : PROMISES.claim;
  }
  if (now.run !== by.run) return PROMISES.claim;
  const isOwnNode = now.node === claim.node && (isLeft(claim) || !isElsewhere(claim, now));
  if (isOwnNode && name === 'comeBack') return undefined;
  return isOver(was) ? undefined : PROMISES.hold;
}

/** Anybody may follow. */
const isOver = (was: Was): boolean =>
  mayEnd(was.owner.claim) ? was.owner.claim.hold === 'none' && isVanished(was) : isPast(was.owner.claim);

const isVanished = ({ lockedBy, quietMs }: Was): boolean =>
  lockedBy === undefined && quietMs >= VANISHED_AFTER_MS;

/** Only what ended well, or was ended by an operator, lets others follow; `none` lets them in any case. */
const mayGo = ({ hold }: Claim, tx: Tx): boolean =>
  tx.name !== 'release' || hold === 'none' || tx.outcome === 'succeeded' || tx.outcome === 'evicted';

/** A run of its own stands behind it, or did. */
const mayEnd = ({ state }: Claim): boolean => state === 'running' || state === 'evicted';

/** The host that wrote the end may be ahead by the difference that is allowed. */
const isPast = ({ heldUntil }: Claim): boolean =>
  heldUntil !== undefined && Date.parse(heldUntil) <= NOW_MS + CLOCK_DIFFERENCE_MS;

/** The promise that this moment breaks. */
export function judgeMoment(state: State): string | undefined {
  const running = state.processes.filter(isRunning);
  // Several processes of a node may work in what `acquire` holds; on another machine it is another's work.
  const runs = new Set(running.map(({ lease, machine }) => `${lease?.claim.run} ${machine ?? ''}`)).size;
  const slots = new Set(running.map(({ lease }) => lease?.slot)).size;
  const most = Math.max(0, ...running.map((process) => process.slots));
  if (runs > Math.min(slots, most)) return PROMISES.overlap;
  // What `acquire` holds is left out: several processes of a node may work in it.
  const broken =
    judgeShown(state) ?? (state.processes.some(waitsInSecond(state)) ? PROMISES.waits : undefined);
  if (broken !== undefined) return broken;
  const nodes = running
    .filter(({ acquires }) => !acquires)
    .map(({ node, machine }) => `${node} ${machine ?? ''}`);
  return new Set(nodes).size < nodes.length ? PROMISES.twice : undefined;
}

/** What a run shows meanwhile is there as long as the claim, and not longer. */
function judgeShown({ store, showing }: State): string | undefined {
  if (showing !== undefined) return isShown(store) || isPastHold(store, showing) ? undefined : PROMISES.early;
  return isOfRun(store) && isShown(store) ? PROMISES.late : undefined;
}

/** A run whose `start` was refused, or that was stopped before it, has nothing any more. */
export function judgeGivenUp({ store }: State, { publishes, run }: Process): string | undefined {
  if (!publishes) return undefined;
  return slotsOf(store).some(({ owner }) => owner?.claim.run === run) ? PROMISES.waits : undefined;
}

const OUTSIDE = new Set<At['pc']>(['look', 'mark', 'wait', 'list', 'first', 'frozen']);

/** In the first group an answer may have been lost. */
const waitsInSecond =
  ({ store }: State) =>
  ({ second, run, at }: Process): boolean => {
    const entry = second && OUTSIDE.has(at.pc) ? get(store, secondKeys.owner(0)) : undefined;
    return entry !== undefined && decodeClaim(entry).run === run;
  };

/** A command starts with this fencing token. */
export const judgeToken = (state: State, slot: number, token: number): string | undefined =>
  token > (state.ghosts[slot]?.token ?? 0) ? undefined : PROMISES.token;
