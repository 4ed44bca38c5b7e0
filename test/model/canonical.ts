/**
 * One text for all states that differ in names only: processes are put in an order of their own, sessions, runs and
 * nodes are named by their first appearance, indexes by their order within their slot; what nobody reads is left out.
 */
import type { Entry } from '../../src/consul/consul.ts';
import { decodeRun } from '../../src/lock/records.ts';
import type { Claim } from '../../src/lock/records.ts';
import { keys, secondKeys, stateKeys } from './world.ts';
import type { At, HeldSecond, Lease, Process, Sighted, State, Tx } from './world.ts';

/** The canonical text of a state; `parseState` makes a state of it again. */
export function canonical(state: State): string {
  const { store, faults } = state;
  const slots = pick(store.entries, (key) => key.startsWith(keys.slotPrefix)).sort(byKey);
  const tickets = pick(store.entries, (key) => key.startsWith(keys.queuePrefix)).sort(byAge);
  const head = [...slots, ...tickets].map(entryText);
  const processes = inOrder(state.processes, head.join());
  const others = otherEntries(state, processes).map(entryText);
  const late = state.late.map(txText).sort();
  const operator = state.operator ? `"operator":${txText(state.operator)},` : '';
  const records = state.records ? '"records":true,' : '';
  const showing = state.showing === undefined ? '' : `"showing":${state.showing},`;
  const ghosts = state.ghosts.map(
    ({ token, quietMs }, slot) => `{"token":${marked(slot, token)},"quietMs":${quietMs}}`,
  );
  const text =
    `{"entries":[${[...head, ...others].join()}],"processes":[${processes.map(processText).join()}],` +
    `"late":[${late.join()}],${operator}${records}${showing}"ghosts":[${ghosts.join()}],"faults":${faultsText(faults)}`;
  return rename(text, store.sessions);
}

/** The indexes of the tickets are the order that they stand in. */
export function parseState(text: string): State {
  type Parsed = Omit<State, 'store'> & { entries: Entry[]; sessions: string[] };
  const { entries, sessions, ...state } = JSON.parse(text) as Parsed;
  const ordered = entries.map((entry, i) => ({ ...entry, createIndex: i + 1 }));
  return { ...state, store: { entries: ordered, index: HIGHEST, sessions } };
}

/** Beyond all ranks: no state has so many indexes that matter. */
const HIGHEST = 100;

const pick = (entries: readonly Entry[], isIn: (key: string) => boolean): Entry[] =>
  entries.filter((entry) => isIn(entry.key));
const byKey = (a: Entry, b: Entry): number => (a.key < b.key ? -1 : 1);
const byAge = (a: Entry, b: Entry): number => a.createIndex - b.createIndex;

/** Records of past runs are left out, but for the worlds that tell them apart. */
function otherEntries({ store, records }: State, processes: readonly Process[]): Entry[] {
  const nodes = [...new Set(processes.map(({ node }) => node))];
  const names = [
    ...[keys.tail, keys.last, ...keys.freezes],
    ...nodes.map((node) => keys.node(node)),
    ...(records ? nodes.map((node) => keys.run(node)) : []),
    ...Object.values(stateKeys),
    ...[secondKeys.owner(0), secondKeys.lock(0)],
    ...(records ? nodes.map((node) => secondKeys.run(node)) : []),
  ];
  return names.flatMap((key) => store.entries.find((candidate) => candidate.key === key) ?? []);
}

/** Parts of a state never change, and most of them are the same from one state to the next. */
function remembered<T extends object>(make: (it: T) => string): (it: T) => string {
  const known = new WeakMap<T, string>();
  return (it) => {
    const found = known.get(it);
    if (found !== undefined) return found;
    const made = make(it);
    known.set(it, made);
    return made;
  };
}

const faultsText = remembered(JSON.stringify);

/** An index that somebody may compare; `rename` makes its rank of it. */
const marked = (slot: number, index: number): string => `"@${slot}.${index}"`;
const mark = (slot: number, index: number): number => marked(slot, index).slice(1, -1) as unknown as number;

const entryText = remembered((entry: Entry): string => {
  const { key, value, session } = entry;
  const slot = slotOfKey(entry);
  const modifyIndex = slot === undefined ? 0 : mark(slot, entry.modifyIndex);
  return JSON.stringify({ key, value: keptOf(key, value), session, modifyIndex });
});

/** Of a ticket nothing is read; of a record, whose it is, and the index of its claim. */
function keptOf(key: string, value: string): string {
  if (key.startsWith(keys.queuePrefix)) return '';
  const isOfSecond = key.startsWith(secondKeys.run(''));
  if (!key.startsWith(keys.run('')) && !isOfSecond) return value;
  const { slot, claimIndex = 0, ...record } = decodeRun({ key, value });
  const plain = {
    outcome: 'lost',
    endedAt: '2026-01-01',
    claimIndex: isOfSecond ? 0 : mark(slot, claimIndex),
  };
  return JSON.stringify({ ...record, slot, ...plain });
}

/** The indexes of states are compared too, each by itself: they have numbers beyond all slots. */
const STATES: readonly string[] = [stateKeys.condition, stateKeys.published, stateKeys.during];
const [SECOND, CONDITION, PUBLISHED, DURING] = [6, 7, 8, 9];

/** Freezes count as slot 0: a transaction that removes one says so. Records too: they are compared with its claims. */
function slotOfKey({ key, session }: Entry): number | undefined {
  const state = STATES.indexOf(key);
  if (state !== -1) return CONDITION + state;
  if (key.startsWith(secondKeys.prefix)) return key === secondKeys.owner(0) ? SECOND : undefined;
  if (key.endsWith('.freeze') || key.startsWith(keys.run(''))) return 0;
  if (!key.startsWith(keys.slotPrefix) || (key.endsWith('lock') && session !== undefined)) return undefined;
  return Number(key.slice(keys.slotPrefix.length).split('/')[0]);
}

const txText = remembered((tx: Tx): string => JSON.stringify(markTx(tx)));
const processText = remembered((process: Process): string => JSON.stringify(markProcess(process)));
const masked = remembered((process: Process): string => processText(process).replace(NAMES, '$1'));

function markTx(tx: Tx): Tx {
  if (tx.name === 'claimAgain') return { ...tx, claim: plain(tx.claim) as Claim };
  if (!('index' in tx)) return tx;
  if (tx.name === 'moveDown') return markMove(tx);
  if (tx.name === 'start')
    return {
      ...{ ...tx, index: mark(tx.slot, tx.index), condition: mark(CONDITION, tx.condition) },
      ...markSecond(tx.second),
    };
  if (tx.name === 'finish') return markFinish(tx);
  const stray = 'strayLock' in tx ? { strayLock: mark(tx.slot, tx.strayLock) } : {};
  const claim = 'claim' in tx ? { claim: plain(tx.claim) } : {};
  const own = 'claimIndex' in tx ? { claimIndex: mark(tx.slot, tx.claimIndex) } : {};
  return { ...tx, index: mark(tx.slot, tx.index), ...stray, ...claim, ...own } as Tx;
}

const markMove = (tx: Extract<Tx, { name: 'moveDown' }>): Tx => ({
  ...{ ...tx, index: mark(tx.from, tx.index) },
  ...(tx.strayLock !== undefined && { strayLock: mark(tx.from, tx.strayLock) }),
});

const markFinish = (tx: Extract<Tx, { name: 'finish' }>): Tx => ({
  ...{ ...tx, index: mark(tx.slot, tx.index) },
  ...(tx.same !== undefined && { same: mark(PUBLISHED, tx.same) }),
  ...(tx.during !== undefined && { during: mark(DURING, tx.during) }),
  ...markSecond(tx.second),
});

const markSecond = (second: HeldSecond | undefined): { second?: HeldSecond } =>
  second ? { second: { ...second, index: mark(SECOND, second.index) } } : {};

function markAt(at: At): At {
  if (at.pc === 'sent') return { ...at, tx: markTx(at.tx), from: markAt(at.from) };
  if ('held' in at) return { ...at, held: markSighted(at.held) };
  if (at.pc !== 'first' && at.pc !== 'down') return at;
  const seen = at.seen.map((one) => ({ ...one, index: mark(one.slot, one.index) }));
  return at.pc === 'down' ? { ...at, seen, index: mark(at.slot, at.index) } : { ...at, seen };
}

const markSighted = ({ slot, claim, index }: Sighted): Sighted => ({
  ...{ slot, claim: plain(claim) as Claim, index: mark(slot, index) },
});

/** Always in the same order of its fields; when the command has ended, nobody asks for its last proof. */
function markProcess(process: Process): object {
  const {
    node,
    hold,
    slots,
    aheadMs,
    runs,
    acquires,
    publishes,
    second,
    machine,
    run,
    session,
    attempts,
    restores,
  } = process;
  const lease = process.lease && markLease(process.lease);
  return {
    node,
    hold,
    slots,
    aheadMs,
    runs,
    acquires,
    publishes,
    second,
    machine,
    run,
    session,
    at: markAt(process.at),
    attempts: attempts.map(plainAttempt),
    lease,
    restores,
  };
}

const plainAttempt = ({ slot, before }: Process['attempts'][number]): object =>
  before ? { slot, before: plain(before) } : { slot };

function markLease({ slot, claim, index, provedMs, outcome, unbegun, isAgain, second }: Lease): object {
  return {
    ...{ slot, claim: plain(claim), index: mark(slot, index), provedMs: outcome ? 0 : provedMs, outcome },
    ...(unbegun && { unbegun: { ...unbegun, condition: mark(CONDITION, unbegun.condition) } }),
    ...(isAgain && { isAgain }),
    ...markSecond(second),
  };
}

/** A claim as it was before it was stored. */
function plain(claim: Claim): object {
  const fields: Claim & { v?: number } = { ...claim };
  delete fields.v;
  return fields;
}

/** First those whose session the slots and the queue show, in that order; the others by what they are. */
function inOrder(processes: readonly Process[], head: string): Process[] {
  const keyed = processes.map((process) => ({
    process,
    at: head.indexOf(`${process.session ?? '-'}"`) >>> 0,
  }));
  keyed.sort((a, b) => a.at - b.at || (masked(a.process) < masked(b.process) ? -1 : 1));
  return keyed.map(({ process }) => process);
}

const NAMES = /\b([nrs])\d+\b/g;
/** The value of a record is text within the text: its quotes are escaped. */
const NAMES_AND_INDEXES = /\b[nrs]\d+\b|\\?"@(\d)\.(\d+)\\?"/g;

/** Names everything by its first appearance. A session that appears nowhere can do nothing any more. */
function rename(text: string, sessions: readonly string[]): string {
  const names = new Map<string, string>();
  const counts = { n: 0, r: 0, s: 0 };
  const ranks = ranking(text);
  const renamed = text.replace(NAMES_AND_INDEXES, (name, slot?: string, index?: string) => {
    if (slot !== undefined && index !== undefined) return String(ranks.get(`${slot}.${index}`) ?? index);
    const known = names.get(name);
    if (known !== undefined) return known;
    const kind = name[0] as 'n' | 'r' | 's';
    const fresh = `${kind}${counts[kind]++}`;
    names.set(name, fresh);
    return fresh;
  });
  const alive = sessions.flatMap((session) => names.get(session) ?? []).sort();
  const next = { session: counts.s, run: counts.r };
  return `${renamed},"sessions":${JSON.stringify(alive)},"next":${JSON.stringify(next)}}`;
}

/** Numbers the indexes in their order, for each slot by itself; 0 stays 0. */
function ranking(text: string): ReadonlyMap<string, number> {
  const found = [...new Set(text.match(/(?<="@)\d\.\d+/g))].map((name) => {
    const [slot, index] = name.split('.').map(Number);
    return { name, slot: slot ?? 0, index: index ?? 0 };
  });
  found.sort((a, b) => a.slot - b.slot || a.index - b.index);
  let rank = 0;
  let before = -1;
  return new Map(
    found.map(({ name, slot, index }) => {
      rank = slot === before ? rank + 1 : index === 0 ? 0 : 1;
      before = slot;
      return [name, rank];
    }),
  );
}
