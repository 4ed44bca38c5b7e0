/** Judges conditions by what was read at one moment. Pure. */
import type { Entry } from '../consul/consul.ts';
import { assertNever } from '../errors.ts';
import type { Instance } from '../gate/instances.ts';
import { CLOCK_DIFFERENCE_MS, isTaken, readSlots } from '../lock/decide.ts';
import type { Slot } from '../lock/decide.ts';
import type { Caused, Change } from '../lock/causes.ts';
import { freezeKeys, groupKeys, parseKey } from '../lock/keys.ts';
import { decodeFreeze, decodeRun, leftOf } from '../lock/records.ts';
import type { Claim, RunRecord } from '../lock/records.ts';
import { claimKey, leftOfStanding } from '../state/claims.ts';
import { decodeState } from '../state/document.ts';
import type { StateDocument } from '../state/document.ts';
import { stateKey, stateOpenKey } from '../state/path.ts';
import { stateText } from '../state/words.ts';
import { formatAge } from '../text/age.ts';
import { visible } from '../text/visible.ts';
import { isName } from '../text/words.ts';
import { EVERY_NODE } from './parse.ts';
import type { Condition } from './parse.ts';
import { agentKey, groupsOf } from './sources.ts';
import type { Where } from './sources.ts';
import type { Trace } from './traces.ts';

/** All data that the conditions need, as of one moment. */
export interface World {
  readonly entries: readonly Entry[];
  /** By service. */
  readonly instances: ReadonlyMap<string, readonly Instance[]>;
}

/** Which runs count for `good:`. */
export type Since =
  /** Runs that ended at most so many milliseconds ago. */
  | { readonly kind: 'age'; readonly ms: number }
  /** Runs that ended at this time or later; milliseconds since the epoch. */
  | { readonly kind: 'time'; readonly atMs: number }
  /** Runs that were recorded after this index. */
  | { readonly kind: 'index'; readonly index: number };

export interface Judging extends Where {
  /** The earliest possible current time (`WallClock`), by which ends and ages are judged. */
  readonly nowMs: number;
  readonly since?: Since | undefined;
}

/** One condition, judged. */
export interface Judged {
  readonly condition: Condition;
  readonly holds: boolean;
  /** Identifies the data behind the result: a new mark means new data, even if the result is the same. */
  readonly mark: string;
  /** The current facts, as a sentence, whether the condition holds or not. */
  readonly is: string;
  /** After how many milliseconds the result may change without a change in Consul; Infinity: never. */
  readonly changesInMs: number;
  /** The live runs that the condition is about. */
  readonly runs: readonly string[];
  /** The last runs that decide it, of `good:`: it stays as it is until one of these nodes ends another run there. */
  readonly records: readonly Recordable[];
  /** Where something may have come and gone that would have changed the result, without another mark. */
  readonly traces: readonly Trace[];
  /** What was written there last, with what led to it; none where that is not known. */
  readonly changes: readonly Change[];
  /** Of `good:`, if there is a run: the last run of each node together. */
  readonly round?: Round | undefined;
  /** Of `state:`, if it is set. */
  readonly state?: StateDocument | undefined;
}

/** The last runs of some nodes. */
export interface Round {
  /** The least and the greatest index of their claims: of when they began. */
  readonly low: number;
  readonly high: number;
  /** Those that are not good, by their runs. */
  readonly bad: string;
}

/** Where the last run of a node is recorded. */
export interface Recordable {
  readonly node: string;
  readonly group: string;
}

/** Judges each condition by the same data. @throws RunlockError `incompatible`: a record can't be read. */
export function judge(conditions: readonly Condition[], world: World, judging: Judging): readonly Judged[] {
  return conditions.map((condition) => {
    const verdict = judgeKind(condition, world, judging);
    const { holds, mark, is, changesInMs = Infinity, runs = [], records = [], traces = [] } = verdict;
    const { changes = [], round, state } = verdict;
    const found = { mark, is, changesInMs, runs, records, traces, changes, round, state };
    return { condition, holds: holds !== condition.not, ...found };
  });
}

interface Verdict {
  readonly holds: boolean;
  readonly mark: string;
  readonly is: string;
  readonly changesInMs?: number;
  readonly runs?: readonly string[];
  readonly records?: readonly Recordable[];
  readonly traces?: readonly Trace[];
  readonly changes?: readonly Change[];
  readonly round?: Round | undefined;
  readonly state?: StateDocument;
}

function judgeKind(condition: Condition, world: World, judging: Judging): Verdict {
  switch (condition.kind) {
    case 'state':
      return judgeState(condition, world, judging);
    case 'idle':
      return judgeIdle(condition.group, world, judging);
    case 'blocked':
      return judgeBlocked(condition.group, world, judging);
    case 'active':
      return judgeActive(condition, world, judging);
    case 'good':
      return judgeGood(condition, world, judging);
    case 'healthy':
      return judgeHealthy(condition, world);
    case 'frozen':
      return judgeFrozen(condition.group, world, judging);
    case 'agent':
      return judgeAgent(condition.node, world, judging);
    default:
      return assertNever(condition);
  }
}

const find = ({ entries }: World, key: string) => entries.find((entry) => entry.key === key);
const ageText = (at: string, nowMs: number) => formatAge(nowMs - Date.parse(at));

type Of<K extends Condition['kind']> = Extract<Condition, { kind: K }>;

function judgeState({ path, is, value }: Of<'state'>, world: World, { prefix, nowMs }: Judging): Verdict {
  const entry = find(world, stateKey(prefix, path));
  const document = entry && decodeState(entry);
  const leftMs = document ? leftOfStanding({ document, claim: claimOf(document, world, prefix) }, nowMs) : 0;
  const there = document && leftMs > 0 ? document : undefined;
  const isEqual = there !== undefined && there.value === value;
  const holds = is === undefined ? there !== undefined : is === 'equal' ? isEqual : !isEqual;
  const changes = entry && document ? [changeOf(document, entry.modifyIndex)] : [];
  if (there)
    return {
      holds,
      mark: there.change,
      changes,
      state: there,
      is: `${path} is ${stateText(there, nowMs)}`,
      changesInMs: leftMs,
    };
  if (!document)
    return { holds, mark: 'absent', is: `${path} is not set`, traces: [stateTrace(prefix, path)] };
  return {
    holds,
    mark: `ended ${document.change}`,
    changes,
    is: `${path} has ended (it was ${stateText(document, nowMs)})`,
  };
}

const changeOf = ({ cause, depth }: Caused, writtenAt: number): Change => ({
  index: writtenAt,
  ...(cause && { cause }),
  ...(depth !== undefined && { depth }),
});

/** A state of `--during` is there only while its claim stands, which was read with it. */
const claimOf = ({ while: claim }: StateDocument, world: World, prefix: string) =>
  claim && { owner: find(world, claimKey(prefix, claim).key) };

function stateTrace(prefix: string, path: string): Trace {
  const open = stateOpenKey(stateKey(prefix, path));
  return { prefix: open.slice(0, -'.open'.length), open };
}

/** The slots of a group, and what keeps each now; a claim whose hold has ended keeps nothing. */
function slotsOf(group: string, { entries }: World, { prefix, nowMs }: Judging) {
  const { slotPrefix } = groupKeys(prefix, group);
  const all = readSlots(
    prefix,
    entries.filter(({ key }) => key.startsWith(slotPrefix)),
  );
  const seen = all.filter(isTaken).map((slot) => ({ slot, leftMs: keptForMs(slot, nowMs) }));
  const ends = seen.map(({ leftMs }) => leftMs).filter((ms) => ms > 0);
  return {
    taken: seen.filter(({ leftMs }) => leftMs > 0).map(({ slot }) => slot),
    changesInMs: Math.min(Infinity, ...ends),
  };
}

/** How long a slot stays taken or kept if nothing changes. A run's slot stays taken until the run ends. */
function keptForMs({ owner, lockedBy }: Slot, nowMs: number): number {
  if (lockedBy !== undefined || !owner || isRun(owner.claim)) return Infinity;
  const { heldUntil } = owner.claim;
  return heldUntil === undefined ? Infinity : Date.parse(heldUntil) + CLOCK_DIFFERENCE_MS - nowMs;
}

const isRun = ({ state }: Claim) => state === 'running' || state === 'evicted';

const slotMark = (slots: readonly Slot[]) =>
  slots
    .map(({ slot, owner, lockedBy }) => `${slot} ${owner?.claim.run ?? lockedBy ?? ''} ${owner?.index ?? 0}`)
    .join();

function slotText({ slot, owner }: Slot, nowMs: number): string {
  if (!owner) return `slot ${slot} is locked`;
  const { node, state, command, since } = owner.claim;
  if (state === 'running') return `${node} has been running ${visible(command)} for ${ageText(since, nowMs)}`;
  return `slot ${slot} is held by ${node} (${state} ${ageText(since, nowMs)} ago)`;
}

const more = (count: number) => (count > 0 ? ` and ${count} more` : '');

function judgeIdle(group: string, world: World, judging: Judging): Verdict {
  const { taken, changesInMs } = slotsOf(group, world, judging);
  const [first, ...others] = taken;
  const is = first
    ? `${group} is not idle: ${slotText(first, judging.nowMs)}${more(others.length)}`
    : `${group} is idle`;
  const traces = first ? [] : [slotsTrace(group, judging)];
  return { holds: !first, mark: slotMark(taken), is, changesInMs, runs: runsOf(taken), traces };
}

const slotsTrace = (group: string, { prefix }: Judging): Trace => ({
  prefix: groupKeys(prefix, group).slotPrefix,
});

const runsOf = (slots: readonly Slot[]) => slots.flatMap(({ owner }) => owner?.claim.run ?? []);

function judgeBlocked(group: string, world: World, judging: Judging): Verdict {
  const { taken, changesInMs } = slotsOf(group, world, judging);
  const kept = taken.filter(({ owner, lockedBy }) => owner && lockedBy === undefined && !isRun(owner.claim));
  const [first, ...others] = kept;
  const is = first
    ? `${group} is blocked: ${slotText(first, judging.nowMs)}${more(others.length)}`
    : `${group} is not blocked`;
  const traces = first ? [] : [slotsTrace(group, judging)];
  return { holds: first !== undefined, mark: slotMark(kept), is, changesInMs, traces };
}

function judgeActive(condition: Of<'active'>, world: World, judging: Judging): Verdict {
  const { node } = condition;
  const groups = groupsOf(condition, judging);
  const runs = groups.flatMap((group) =>
    slotsOf(group, world, judging).taken.filter(
      ({ owner }) => owner && owner.claim.node === node && isRun(owner.claim),
    ),
  );
  const [first] = runs;
  const where = groups.join(', ');
  const is = first ? `${slotText(first, judging.nowMs)} in ${where}` : `${node} is not running in ${where}`;
  // Each run of a node locks this key before it is active.
  const traces = first
    ? []
    : groups.map((group) => ({ prefix: groupKeys(judging.prefix, group).node(node) }));
  return { holds: first !== undefined, mark: runsOf(runs).join(), is, runs: runsOf(runs), traces };
}

interface Recorded {
  readonly record: RunRecord;
  readonly index: number;
}

function judgeGood(condition: Of<'good'>, world: World, judging: Judging): Verdict {
  const { node } = condition;
  const groups = groupsOf(condition, judging);
  const found = groups.map((group) => ({ group, runs: recordsIn(group, node, world, judging) }));
  const runs = found.flatMap(({ runs }) => runs);
  const bad = runs.filter((run) => !isGood(run, judging));
  const without = found.filter(({ runs }) => runs.length === 0).map(({ group }) => group);
  const holds = bad.length === 0 && without.length === 0;
  const mark = runs.map(({ record }) => record.run).join();
  const { since } = judging;
  const ends =
    since?.kind === 'age' ? runs.map(({ record }) => endOf(record) + since.ms - judging.nowMs) : [];
  const changesInMs = Math.min(Infinity, ...ends.filter((ms) => ms > 0));
  const traces =
    node === EVERY_NODE
      ? []
      : without.map((group) => ({ prefix: groupKeys(judging.prefix, group).run(node) }));
  const is = goodText({ node, groups, runs, bad, without }, judging);
  const changes = runs.map(({ record, index }) => changeOf(record, index));
  const rest = { changes, round: roundOf(runs, bad), traces };
  return { holds, mark, is, changesInMs, records: recordsOf(node, found, judging), ...rest };
}

function roundOf(runs: readonly Recorded[], bad: readonly Recorded[]): Round | undefined {
  if (runs.length === 0) return undefined;
  // Older versions noted no claim; such a run began before it was recorded.
  const claims = runs.map(({ record, index }) => record.claimIndex ?? index);
  const low = claims.reduce((least, one) => Math.min(least, one));
  const high = claims.reduce((most, one) => Math.max(most, one));
  return { low, high, bad: bad.map(({ record }) => record.run).join() };
}

function recordsOf(
  node: string,
  found: readonly { readonly group: string; readonly runs: readonly Recorded[] }[],
  judging: Judging,
): Recordable[] {
  if (node !== EVERY_NODE) return found.map(({ group }) => ({ node, group }));
  return found.flatMap(({ group, runs }) =>
    runs.filter((run) => !isGood(run, judging)).map(({ record }) => ({ node: record.node, group })),
  );
}

const endOf = ({ endedAt }: RunRecord) => Date.parse(endedAt);

function recordsIn(group: string, node: string, { entries }: World, { prefix }: Judging): Recorded[] {
  const start = groupKeys(prefix, group).run('');
  return entries.flatMap((entry) => {
    const key = entry.key.startsWith(start) ? parseKey(prefix, entry.key)?.key : undefined;
    // Ignore keys that runlock does not write, such as a folder's key.
    if (key?.kind !== 'run' || !isName(key.node)) return [];
    if (node !== EVERY_NODE && entry.key !== start + node) return [];
    return [{ record: decodeRun(entry), index: entry.modifyIndex }];
  });
}

function isGood({ record, index }: Recorded, { since, nowMs }: Judging): boolean {
  if (record.outcome !== 'succeeded') return false;
  switch (since?.kind) {
    case undefined:
      return true;
    case 'age':
      return endOf(record) + since.ms > nowMs;
    case 'time':
      return endOf(record) >= since.atMs;
    case 'index':
      return index > since.index;
  }
}

interface GoodFacts {
  readonly node: string;
  readonly groups: readonly string[];
  readonly runs: readonly Recorded[];
  readonly bad: readonly Recorded[];
  readonly without: readonly string[];
}

function goodText({ node, groups, runs, bad, without }: GoodFacts, { nowMs }: Judging): string {
  const [none] = without;
  if (none !== undefined)
    return node === EVERY_NODE ? `no run in ${none} is recorded` : `no run of ${node} in ${none} is recorded`;
  const [first, ...others] = bad;
  const where = groups.join(', ');
  if (!first)
    return node === EVERY_NODE
      ? `the last run of each of the ${runs.length} nodes in ${where} succeeded`
      : `the last run of ${node} in ${where} succeeded`;
  const { record } = first;
  const ended = `${record.outcome} ${ageText(record.endedAt, nowMs)} ago`;
  return `the last run of ${record.node} in ${where} ${ended}${others.length > 0 ? `; ${others.length} more ${others.length === 1 ? 'is' : 'are'} not good` : ''}`;
}

function judgeHealthy({ service, instances: wanted }: Of<'healthy'>, { instances }: World): Verdict {
  const all = instances.get(service) ?? [];
  const healthy = all.filter(({ state }) => state === 'healthy').length;
  const is = `${healthy} of ${all.length} instances of ${service} are healthy`;
  return { holds: healthy >= wanted, mark: '', is };
}

function judgeFrozen(group: string, world: World, { prefix, nowMs }: Judging): Verdict {
  const what = group === '' ? 'everything' : group;
  for (const key of freezeKeys(prefix, group)) {
    const entry = find(world, key);
    const freeze = entry && decodeFreeze(entry);
    if (!freeze || leftOf(freeze, nowMs) <= 0) continue;
    const is = `${what} was frozen ${ageText(freeze.since, nowMs)} ago by ${visible(freeze.by)}: ${visible(freeze.reason)}`;
    return { holds: true, mark: `${entry.modifyIndex}`, is, changesInMs: leftOf(freeze, nowMs) };
  }
  const traces = freezeKeys(prefix, group).map((key) => ({ prefix: key }));
  return { holds: false, mark: '', is: `${what} is not frozen`, traces };
}

function judgeAgent(node: string, world: World, { prefix }: Judging): Verdict {
  const session = find(world, agentKey(prefix, node))?.session;
  const is =
    session === undefined
      ? `no runlock agent is running on ${node}`
      : `the runlock agent of ${node} is running`;
  const traces = session === undefined ? [{ prefix: agentKey(prefix, node) }] : [];
  return { holds: session !== undefined, mark: session ?? '', is, traces };
}
