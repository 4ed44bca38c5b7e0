/** Which runs hold slots, which wait, since when, and why a group is blocked, from stored records. Pure. */
import type { Entry } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import {
  decodeClaim,
  decodeFreeze,
  decodeLockMark,
  decodeQueueMark,
  decodeTicket,
  freezeInForce,
} from '../lock/records.ts';
import { groupKeys, parseKey } from '../lock/keys.ts';
import { isName } from '../text/words.ts';
import type { GroupFacts } from './explain.ts';
import { explain, explainFreeze } from './explain.ts';
import { isBelow, usedGroups } from './below.ts';
import { blockedGroups, groupState } from './state.ts';
import { viewReturning } from './returning.ts';
import { outsideViewer } from './outside.ts';
import type { ViewOutside } from './outside.ts';
import { findRuns } from './runs.ts';
import type { Elsewhere } from './runs.ts';
import type { Found, Scope } from './sources.ts';
import { findWaitCircles } from './circles.ts';
import { NO_FACTS, remember } from './waits.ts';
import type { WaitFacts } from './waits.ts';
import type { FreezeView, GroupView, SlotView, StatusReport, WaiterView } from './report.ts';

export interface ViewOptions extends Scope {
  readonly now: number;
}

/** Builds the report from what is stored. Pure. */
export function viewGroups(found: Found, { prefix, groups, now }: ViewOptions): StatusReport {
  const sorted = sortEntries(found.entries, prefix);
  const stored = [...sorted.groups.keys()];
  const wanted =
    groups.length > 0 ? [...groups, ...stored.filter((group) => isBelow(group, groups))] : stored;
  const names = [...new Set(wanted)].sort();
  const freezes = { freezes: sorted.freezes, refused: found.refused ?? new Map<string, string>() };
  const root = findFreeze([`${prefix}/.freeze`], freezes, { prefix, now });
  const elsewhere = findRuns(prefix, found.entries);
  const runningIn = remember((group) => runningNodes(sorted.groups.get(group)));
  const facts: WaitFacts = { ...NO_FACTS, entries: found.entries, ...found.waits };
  const outside = outsideViewer({ prefix, now, facts, runningIn });
  const read = remember((group): Read => {
    const freeze = findFreeze(groupKeys(prefix, group).freezes, freezes, { prefix, now });
    const stored = sorted.groups.get(group);
    const facts = viewFacts(group, { freeze, elsewhere, outside, prefix, now }, stored);
    return { facts, unreadableFreeze: freeze.unreadable };
  });
  const all = [...new Set([...names, ...stored])].sort().map((group) => read(group).facts);
  const blocked = blockedGroups(all, { now });
  const stateOf = ({ facts, unreadableFreeze }: Read) =>
    groupState(facts, { now, unreadableFreeze, blocked });
  const view = (group: string, seen: readonly string[]): GroupView => {
    const found = read(group);
    const { group: name, known: isKnown, ...more } = found.facts;
    return {
      group: name,
      known: isKnown,
      state: stateOf(found),
      ...more,
      ...explain(found.facts, {
        prefix,
        now,
        unreadableFreeze: found.unreadableFreeze,
        // A run waits only for groups after those that it has; circles exist only if a person wrote keys by hand.
        other: (name) =>
          seen.includes(name) || seen.length === MOST_GROUPS ? undefined : view(name, [...seen, name]),
      }),
    };
  };
  const views = names.map((group) => view(group, [group]));
  const circles = findWaitCircles(all, { prefix, now, facts }).filter(({ runs }) =>
    runs.some((run) => run.groups.some((group) => names.includes(group))),
  );
  return {
    v: 1,
    prefix,
    at: new Date(now).toISOString(),
    ...(root.frozen && { frozen: root.frozen }),
    ...(root.frozen &&
      names.length === 0 &&
      explainFreeze({ group: '', queue: [] }, root.frozen, { prefix, now })),
    problems: root.problems,
    ...(circles.length > 0 && { circles }),
    states: countStates(views),
    groups: views,
  };
}

/** How many groups one explanation follows, from each group to the one that its run waits for. */
const MOST_GROUPS = 8;

/** How many groups are in each state. */
export function countStates(views: readonly GroupView[]): StatusReport['states'] {
  const counts = { blocked: 0, waiting: 0, running: 0, idle: 0, frozen: 0 };
  for (const { state } of usedGroups(views)) counts[state] += 1;
  return counts;
}

/** The stored keys of one group. */
interface Read {
  readonly facts: GroupFacts;
  readonly unreadableFreeze: boolean;
}

interface SlotEntries {
  readonly owner?: Entry;
  readonly lock?: Entry;
}

interface GroupEntries {
  readonly slots: Map<number, SlotEntries>;
  readonly outside: Entry[];
  readonly tickets: Entry[];
  readonly marks: Entry[];
  /** `.tail` and `.last`. */
  readonly ends: Entry[];
}

const emptyGroup = (): GroupEntries => ({
  slots: new Map(),
  outside: [],
  tickets: [],
  marks: [],
  ends: [],
});

interface SortedEntries {
  readonly groups: Map<string, GroupEntries>;
  readonly freezes: Map<string, Entry>;
}

/** Sorts keys by group in one pass; ignores keys that runlock does not write. */
function sortEntries(entries: readonly Entry[], prefix: string): SortedEntries {
  const sorted: SortedEntries = { groups: new Map(), freezes: new Map() };
  for (const entry of entries) {
    const parsed = parseKey(prefix, entry.key);
    if (!parsed || parsed.key.kind === 'other') continue;
    const { group, key } = parsed;
    if (key.kind === 'freeze') sorted.freezes.set(entry.key, entry);
    if (!group.split('/').every(isName)) continue;
    const own = sorted.groups.get(group) ?? emptyGroup();
    sorted.groups.set(group, own);
    if (key.kind === 'ticket') own.tickets.push(entry);
    if (key.kind === 'node') own.marks.push(entry);
    if (key.kind === 'outside') own.outside.push(entry);
    if (key.kind === 'tail' || key.kind === 'last') own.ends.push(entry);
    if (key.kind === 'owner' || key.kind === 'lock') {
      own.slots.set(key.slot, { ...own.slots.get(key.slot), [key.kind]: entry });
    }
  }
  return sorted;
}

interface FoundFreeze {
  readonly frozen?: FreezeView;
  readonly unreadable: boolean;
  readonly problems: readonly string[];
}

type Freezes = { freezes: ReadonlyMap<string, Entry>; refused: ReadonlyMap<string, string> };

/** The first of `keys` (the group's own, then its ancestors') whose freeze has not ended. */
function findFreeze(
  keys: readonly string[],
  { freezes, refused }: Freezes,
  { prefix, now }: { prefix: string; now: number },
): FoundFreeze {
  const problems: string[] = [];
  let unreadable = false;
  const read = (key: string) => {
    const message = refused.get(key);
    if (message !== undefined) problems.push(message);
    const entry = freezes.get(key);
    const freeze = entry && attempt(problems, () => decodeFreeze(entry));
    unreadable ||= entry !== undefined && freeze === undefined;
    return freeze;
  };
  const inForce = freezeInForce(keys, read, now);
  if (!inForce) return { unreadable, problems };
  const { by, reason, since, until } = inForce.freeze;
  const at = parseKey(prefix, inForce.key)?.group ?? '';
  return { frozen: { at, by, reason, since, ...(until !== undefined && { until }) }, unreadable, problems };
}

/** Returns the result of `decode`; an unreadable record becomes a problem instead. */
function attempt<T>(problems: string[], decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    problems.push(error.message);
    return undefined;
  }
}

function viewFacts(
  group: string,
  {
    freeze,
    elsewhere,
    outside,
    prefix,
    now,
  }: { freeze: FoundFreeze; elsewhere: Elsewhere; outside: ViewOutside; prefix: string; now: number },
  stored: GroupEntries | undefined,
): GroupFacts {
  const problems = [...freeze.problems];
  const own = stored ?? emptyGroup();
  const { slots } = own;
  if (!slots.has(0)) slots.set(0, {});
  for (const entry of own.ends) attempt(problems, () => decodeQueueMark(entry));
  const returning = viewReturning(
    { prefix, ...own },
    { frozen: freeze.frozen, now, attempt: (decode) => attempt(problems, decode) },
  );
  const alsoOf = (run: string) => {
    const also = elsewhere(run, group);
    return also.length > 0 ? { also } : {};
  };
  const seats = [...slots]
    .sort(([a], [b]) => a - b)
    .map(([slot, entries]) => viewSlot(slot, entries, problems))
    .map((slot) => ({ ...slot, ...(slot.run !== undefined && alsoOf(slot.run)) }));
  const queue = viewQueue(own.tickets, { now, problems, alsoOf });
  // The record of a run that has come in meanwhile goes a moment later.
  const inside = new Set([...seats, ...queue].map(({ run }) => run));
  const waits = own.outside
    .flatMap((entry) => attempt(problems, () => outside(entry)) ?? [])
    .filter(({ run }) => !inside.has(run) && elsewhere(run, group).length === 0);
  return {
    group,
    known: stored !== undefined,
    slots: seats,
    queue,
    ...(returning.length > 0 && { returning }),
    ...(waits.length > 0 && { outside: waits.sort((a, b) => b.waitedMs - a.waitedMs) }),
    ...(freeze.frozen && { frozen: freeze.frozen }),
    problems,
  };
}

/** Nodes with a run under way, as a gate counts them. A claim that can't be read is shown with its slot. */
function runningNodes(stored: GroupEntries | undefined): readonly string[] {
  return [...(stored?.slots ?? [])].flatMap(([slot, entries]) => {
    const { state, alive, node } = viewSlot(slot, entries, []);
    return alive && (state === 'running' || state === 'evicted') && node !== undefined ? [node] : [];
  });
}

function viewSlot(slot: number, { owner, lock }: SlotEntries, problems: string[]): SlotView {
  const alive = lock?.session !== undefined;
  if (!owner) {
    if (!lock || !alive) return { slot, state: 'free', alive };
    const mark = attempt(problems, () => decodeLockMark(lock));
    return { slot, state: 'locked', alive, ...(mark && { run: mark.run }) };
  }
  const claim = attempt(problems, () => decodeClaim(owner));
  if (!claim) return { slot, state: 'unreadable', alive };
  const {
    state,
    node,
    since,
    run,
    command,
    exitCode,
    unhealthy,
    maintenance,
    hold,
    heldUntil,
    pid,
    host,
    by,
    missingSince,
    publish,
  } = claim;
  return {
    slot,
    state,
    alive,
    node,
    since,
    run,
    command,
    ...(exitCode !== undefined && { exitCode }),
    ...(unhealthy && { unhealthy }),
    ...(maintenance && { maintenance }),
    hold,
    ...(heldUntil !== undefined && { heldUntil }),
    pid,
    ...(host !== undefined && { host }),
    ...(by !== undefined && { by }),
    ...(missingSince !== undefined && { missingSince }),
    ...(publish && state === 'running' && { publish }),
  };
}

/** Tickets are granted in the order of their CreateIndex. */
function viewQueue(
  tickets: readonly Entry[],
  {
    now,
    problems,
    alsoOf,
  }: { now: number; problems: string[]; alsoOf: (run: string) => Pick<WaiterView, 'also'> },
): WaiterView[] {
  const ordered = [...tickets].sort((a, b) => a.createIndex - b.createIndex);
  return ordered.flatMap((entry, i) => {
    const ticket = attempt(problems, () => decodeTicket(entry));
    if (!ticket) return [];
    const session = entry.key.slice(entry.key.lastIndexOf('/') + 1);
    if (entry.session === undefined) problems.push(orphanText(entry.key));
    const { node, since, command, pid, run, groups, publish } = ticket;
    const waitedMs = Math.max(0, now - Date.parse(since));
    const waiter = { place: i + 1, node, run, since, waitedMs, command, pid, session };
    const more = { ...(groups && { groups }), ...(publish && { publish }) };
    return [{ ...waiter, ...more, ...alsoOf(run) }];
  });
}

function orphanText(key: string): string {
  return `${key}: no session holds this ticket, so the ticket never leaves the queue; delete the ticket with 'consul kv delete ${key}'`;
}
