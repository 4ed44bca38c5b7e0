/** For what runs wait without a slot: what has to be read to tell, and how it is now. Pure. */
import { judge } from '../conditions/judge.ts';
import { parseCondition } from '../conditions/parse.ts';
import type { Condition } from '../conditions/parse.ts';
import { idOf, sourcesOf } from '../conditions/sources.ts';
import type { KeySource, Source } from '../conditions/sources.ts';
import type { Entry } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { decideGate } from '../gate/decide.ts';
import { describeVerdict } from '../gate/describe.ts';
import type { Instance } from '../gate/instances.ts';
import { groupKeys, parseKey } from '../lock/keys.ts';
import { decodeOutside, isWaiting } from '../lock/outside.ts';
import type { OutsideRecord } from '../lock/outside.ts';
import { decodeState } from '../state/document.ts';
import type { StateDocument } from '../state/document.ts';
import { isName } from '../text/words.ts';
import type { ConditionView, GateOfRunView } from './report.ts';

/** What was read to judge the conditions. */
export interface WaitFacts {
  readonly entries: readonly Entry[];
  /** By service. */
  readonly instances: ReadonlyMap<string, readonly Instance[]>;
  /** What this token may not read, by `idOf` its source: the rule that it needs. */
  readonly refused: ReadonlyMap<string, string>;
  /** What is not read (yet), by `idOf` its source. */
  readonly unread: ReadonlySet<string>;
  /** There may be runs of groups that were not read: then nobody knows who could set a state. */
  readonly isPartial?: true;
}

export const NO_FACTS: WaitFacts = {
  entries: [],
  instances: new Map(),
  refused: new Map(),
  unread: new Set(),
};

/** Parses each text once. Undefined: this version does not know such a condition. */
export function conditionParser(): (text: string) => Condition | undefined {
  return remember((text) => {
    try {
      return parseCondition(text);
    } catch (error) {
      if (!isRunlockError(error, 'usage')) throw error;
      return undefined;
    }
  });
}

export function remember<T>(make: (name: string) => T): (name: string) => T {
  const known = new Map<string, { readonly value: T }>();
  return (name) => {
    const before = known.get(name);
    if (before) return before.value;
    const value = make(name);
    known.set(name, { value });
    return value;
  };
}

/** A run that waits without a slot. */
export interface WaitingRun {
  readonly group: string;
  readonly node: string;
  readonly session: string;
  readonly record: OutsideRecord;
}

/**
 * Undefined: the entry is none, or its run no longer waits.
 * @throws RunlockError `incompatible`: it can't be read.
 */
export function waitingRun(prefix: string, entry: Entry): WaitingRun | undefined {
  // Skip parsing for most entries, because there can be thousands.
  if (!entry.key.includes('/.outside/') || !isWaiting(entry)) return undefined;
  const { group = '', key } = parseKey(prefix, entry.key) ?? {};
  if (key?.kind !== 'outside' || !isName(key.node) || !group.split('/').every(isName)) return undefined;
  return { group, node: key.node, session: entry.session ?? '', record: decodeOutside(entry) };
}

/** The waiting runs of these entries, without those whose record can't be read. */
export function waitingRuns(prefix: string, entries: readonly Entry[]): WaitingRun[] {
  return entries.flatMap((entry) => {
    try {
      return waitingRun(prefix, entry) ?? [];
    } catch (error) {
      if (!isRunlockError(error, 'incompatible')) throw error;
      return [];
    }
  });
}

/** All that is stored: who may not read it may not see every run. */
export const wholePrefix = (prefix: string): KeySource => ({
  kind: 'tree',
  key: `${prefix}/`,
  rule: `key_prefix "${prefix}/" { policy = "read" }`,
});

/** What has to be read to tell for what these runs wait, each source once. */
export function sourcesOfWaits(prefix: string, runs: readonly WaitingRun[]): readonly Source[] {
  const found = new Map<string, Source>();
  const parse = conditionParser();
  const seen = new Set<string>();
  for (const { record } of runs) {
    const isNew = (text: string) => {
      const size = seen.size;
      return seen.add(`${text} ${record.groups.join()}`).size > size;
    };
    for (const text of record.when.filter(isNew)) {
      const condition = parse(text);
      if (!condition) continue;
      for (const source of sourcesFor(condition, { prefix, groups: record.groups }) ?? [])
        found.set(idOf(source), source);
    }
    for (const service of record.gate?.services ?? []) found.set(service, { kind: 'service', service });
  }
  return [...found.values()];
}

/**
 * The claims under which states of `--during` stand, as far as these are read: such a state is there only while its
 * claim is.
 */
export function claimsOfStates(
  prefix: string,
  sources: readonly Source[],
  find: Lookup,
): readonly KeySource[] {
  const claims = new Map<string, KeySource>();
  for (const source of sources) {
    const claim =
      source.kind === 'key' && source.path !== undefined ? whileOf(find.get(source.key)) : undefined;
    if (!claim) continue;
    const keys = groupKeys(prefix, claim.group);
    const rule = `key_prefix "${keys.slotPrefix}" { policy = "read" }`;
    claims.set(keys.owner(claim.slot), { kind: 'key', key: keys.owner(claim.slot), rule });
  }
  return [...claims.values()];
}

/** Undefined: none, or the state can't be read. */
function whileOf(entry: Entry | undefined): StateDocument['while'] {
  if (!entry?.value.includes('"while"')) return undefined;
  try {
    return decodeState(entry).while;
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return undefined;
  }
}

/** Undefined: the condition needs more reads than any run can make. */
function sourcesFor(
  condition: Condition,
  where: { readonly prefix: string; readonly groups: readonly string[] },
): readonly Source[] | undefined {
  try {
    return sourcesOf([condition], where);
  } catch (error) {
    if (!isRunlockError(error, 'usage')) throw error;
    return undefined;
  }
}

/** The groups that these conditions name: what happens there decides how they end. */
export function groupsOfWaits(runs: readonly WaitingRun[]): string[] {
  const parse = conditionParser();
  const texts = new Set(runs.flatMap(({ record }) => record.when));
  const named = [...texts].flatMap((text) => {
    const condition = parse(text);
    const group = condition && 'group' in condition ? condition.group : undefined;
    return group === undefined || group === '' ? [] : [group];
  });
  return [...new Set([...runs.flatMap(({ record }) => record.groups), ...named])];
}

/** Entries by key, and in order. */
export interface Lookup {
  readonly get: (key: string) => Entry | undefined;
  /** All whose keys begin with `start`. */
  readonly below: (start: string) => readonly Entry[];
}

export function lookup(entries: readonly Entry[]): Lookup {
  const byKey = new Map(entries.map((entry) => [entry.key, entry]));
  let sorted: readonly Entry[] | undefined;
  return {
    get: (key) => byKey.get(key),
    below: (start) => {
      sorted ??= [...byKey.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
      const from = firstNotBefore(sorted, start);
      let to = from;
      while (sorted[to]?.key.startsWith(start)) to += 1;
      return sorted.slice(from, to);
    },
  };
}

function firstNotBefore(sorted: readonly Entry[], key: string): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if ((sorted[middle]?.key ?? '') < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

export interface JudgeOptions {
  readonly prefix: string;
  readonly now: number;
  readonly facts: WaitFacts;
  readonly find: Lookup;
}

/** Judges each condition once, however many runs wait for it: of each only what it needs is looked at. */
export function conditionJudge({
  prefix,
  now,
  facts,
  find,
}: JudgeOptions): (text: string, groups: readonly string[]) => ConditionView {
  const parse = conditionParser();
  const judgeIn = (text: string, groups: readonly string[]): ConditionView => {
    const condition = parse(text);
    if (!condition) return { condition: text, is: 'this version of runlock does not know such a condition' };
    const where = { prefix, groups };
    const own = sourcesFor(condition, where);
    if (!own) return { condition: text, is: 'it needs too many reads' };
    const sources = [...own, ...claimsOfStates(prefix, own, find)];
    const rule = sources.map((source) => facts.refused.get(idOf(source))).find((each) => each !== undefined);
    if (rule !== undefined)
      return { condition: text, is: `this token may not read it; it needs the rule: ${rule}`, needs: rule };
    if (sources.some((source) => facts.unread.has(idOf(source))))
      return { condition: text, is: 'not read yet' };
    const entries = sources.flatMap((source) => entriesOf(source, find));
    try {
      const [judged] = judge([condition], { entries, instances: facts.instances }, { ...where, nowMs: now });
      return { condition: text, ...(judged && { holds: judged.holds }), is: judged?.is ?? '' };
    } catch (error) {
      if (!isRunlockError(error, 'incompatible')) throw error;
      return { condition: text, is: error.message };
    }
  };
  const known = new Map<string, ConditionView>();
  return (text, groups) => {
    const condition = parse(text);
    const isOfGroups = condition !== undefined && 'node' in condition && condition.kind !== 'agent';
    const name = isOfGroups && condition.group === undefined ? `${text} ${groups.join()}` : text;
    const view = known.get(name) ?? judgeIn(text, groups);
    known.set(name, view);
    return view;
  };
}

function entriesOf(source: Source, find: Lookup): readonly Entry[] {
  if (source.kind === 'service') return [];
  if (source.kind === 'tree') return find.below(source.key);
  const entry = find.get(source.key);
  return entry ? [entry] : [];
}

/** What the gate of a waiting run says now. `running`: the other nodes that run in its groups. */
export function judgeGate(
  { node, record }: Pick<WaitingRun, 'node' | 'record'>,
  { instances, refused, unread }: WaitFacts,
  running: readonly string[],
): GateOfRunView[] {
  const { gate } = record;
  if (!gate) return [];
  const { services, ...bounds } = gate;
  return services.map((service) => {
    const rule = refused.get(service);
    if (rule !== undefined)
      return { service, why: `this token may not see its instances; it needs the rule: ${rule}` };
    if (unread.has(service)) return { service, why: 'not read yet' };
    const found = instances.get(service) ?? [];
    const verdict = decideGate({ ...bounds, service, instances: found, node, running });
    return { service, open: verdict.open, why: describeVerdict(verdict, node) };
  });
}
