/**
 * A status report → the answer of a monitoring plugin (https://www.monitoring-plugins.org/doc/guidelines.html). Pure.
 */
import { formatAge } from '../../text/age.ts';
import type { GroupView, SlotView, StatusReport } from '../../view/report.ts';
import { endedText } from '../../text/ended.ts';
import { usedGroups } from '../../view/below.ts';
import { waitersOf } from '../../view/explain.ts';
import { isKept, isOver, waitingAt } from '../../view/state.ts';
import { isOfRuns } from '../../view/wait-graph.ts';
import { conditionParser } from '../../view/waits.ts';

export type CheckState = 'OK' | 'WARNING' | 'CRITICAL' | 'UNKNOWN';

export interface CheckLimits {
  /** Longest time that a claim may be in its state, in milliseconds. */
  readonly maxHeldMs?: number;
  /** Longest time that a run may wait, in milliseconds. */
  readonly maxWaitMs?: number;
}

export interface CheckResult {
  readonly state: CheckState;
  /** The findings, the worst first; if the state is OK, one sentence. */
  readonly text: readonly string[];
  readonly figures: readonly Figure[];
}

/** One piece of performance data. */
export interface Figure {
  readonly label: string;
  readonly value: number;
  readonly unit?: 's';
  /** Above this the state is CRITICAL. */
  readonly critical?: number;
}

interface Finding {
  readonly state: Exclude<CheckState, 'OK'>;
  readonly text: string;
}

/** The worst first: certain problems come before unknown states. */
const ORDER: readonly CheckState[] = ['CRITICAL', 'WARNING', 'UNKNOWN', 'OK'];

/** @param beside groups that were not asked for, in which runs of the requested groups wait (`waitedIn`). */
export function checkReport(
  report: StatusReport,
  limits: CheckLimits,
  beside: readonly GroupView[] = [],
): CheckResult {
  const now = Date.parse(report.at);
  const groups = usedGroups(report.groups);
  const all = new Map([...beside, ...groups].map((view) => [view.group, view]));
  const findings = [
    ...rootFindings(report),
    ...(report.circles ?? []).map(({ why }): Finding => ({
      state: 'CRITICAL',
      text: `circle of waits: ${why}`,
    })),
    ...untold(report),
    ...unjudged(groups),
    ...groups.flatMap((group) => groupFindings(group, { ...limits, now, all })),
  ].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state));
  const figures = [
    ...figuresOf(groups, { ...limits, now }),
    { label: 'circles', value: (report.circles ?? []).length },
  ];
  const [worst] = findings;
  if (!worst) return { state: 'OK', text: [okText(groups)], figures };
  return { state: worst.state, text: findings.map(({ text }) => text), figures };
}

function rootFindings({ groups, prefix, problems }: StatusReport): Finding[] {
  if (groups.length > 0) return [];
  const text = `nothing is stored below ${prefix}/; correct --prefix, or wait for the first run`;
  return [{ state: 'UNKNOWN', text }, ...problems.map((problem) => warning(problem))];
}

function untold({ circlesNeed: rule }: StatusReport): Finding[] {
  if (rule === undefined) return [];
  const text = `runs may be waiting for each other, unless a run in a group that this token may not read ends that; to tell, it needs the rule: ${rule}`;
  return [{ state: 'UNKNOWN', text }];
}

/** Conditions of waiting runs that the token may not read: these runs may be in a circle. One finding for each rule. */
function unjudged(groups: readonly GroupView[]): Finding[] {
  const found = new Map<string, { readonly text: string; readonly conditions: Set<string> }>();
  const parse = conditionParser();
  for (const { group, outside = [] } of groups)
    for (const { node, when } of outside)
      for (const { condition, needs } of when) {
        const parsed = needs === undefined ? undefined : parse(condition);
        if (needs === undefined || (parsed && !isOfRuns(parsed))) continue;
        const first = {
          text: `${condition}, for which ${node} is waiting in ${group}`,
          conditions: new Set<string>(),
        };
        const known = found.get(needs) ?? first;
        known.conditions.add(condition);
        found.set(needs, known);
      }
  return [...found].map(([rule, { text, conditions }]) => ({
    state: 'UNKNOWN',
    text: `this token may not read ${text}${andMore(conditions.size)}; it needs the rule: ${rule}`,
  }));
}

/** The groups in which runs wait while they hold a slot in one of `groups`. */
export function waitedIn(groups: readonly GroupView[]): string[] {
  return groups.flatMap(({ slots }) => slots.flatMap(({ also = [] }) => also.flatMap(waitingAt)));
}

type Judged = CheckLimits & {
  readonly now: number;
  /** Every group that was read, by name. */
  readonly all: ReadonlyMap<string, GroupView>;
};

function groupFindings(view: GroupView, limits: Judged): Finding[] {
  const { group, slots, frozen, problems } = view;
  const waits = waitersOf(view);
  if (!view.known && waits === 0 && frozen === undefined && problems.length === 0)
    return [
      {
        state: 'UNKNOWN',
        text: `group ${group} has not been used yet; correct its name, or wait for its first run`,
      },
    ];
  return [
    ...keptFindings(view, limits),
    ...slots.flatMap((slot) => heldTooLong(group, slot, limits)),
    ...waitsTooLong(view, limits),
    ...(frozen && waits > 0 ? [warning(`${group} is frozen by ${frozen.by}, ${waiting(waits)}`)] : []),
    ...problems.map((problem) => warning(`${group}: ${problem}`)),
  ];
}

/** Claims without a live run, and claims of runs that wait in another group for such a claim. */
function keptFindings(view: GroupView, { now, all }: Pick<Judged, 'now' | 'all'>): Finding[] {
  const { group, slots } = view;
  const waits = waitersOf(view);
  const kept = stuckSlots(view, { now, all });
  const [first] = kept;
  if (!first) return [];
  const behind = `${stuckText(first, { now, all, seen: [group] })}${andMore(kept.length)}`;
  // While another slot of the group is free, or will be released by its run, the queue moves on.
  if (kept.length < slots.length)
    return [
      warning(`${group}: ${kept.length} of ${slots.length} slots held by ${behind}, ${waiting(waits)}`),
    ];
  const text = `${group} is blocked by ${behind}, ${waiting(waits)}`;
  return [waits === 0 ? warning(text) : { state: 'CRITICAL', text }];
}

const andMore = (count: number) => (count === 1 ? '' : ` and ${count - 1} more`);

type Groups = Pick<Judged, 'now' | 'all'>;

/** The slots that nothing in progress will release. */
function stuckSlots({ slots, returning = [] }: GroupView, { now, all }: Groups): SlotView[] {
  // Leave out nodes that are back: their next run takes the claim over.
  const back = new Set(returning.map(({ node }) => node));
  return slots.filter(
    (slot) =>
      !(slot.node !== undefined && back.has(slot.node)) &&
      (isKept(slot, now) || blockedAt(slot, all) !== undefined),
  );
}

/** The blocked group in which the slot's run waits. */
function blockedAt(slot: SlotView, all: Judged['all']): GroupView | undefined {
  if (slot.state !== 'running') return undefined;
  return (slot.also ?? [])
    .flatMap(waitingAt)
    .map((name) => all.get(name))
    .find((group) => group?.state === 'blocked');
}

/** @param seen groups followed so far; a long way is cut. */
function stuckText(
  slot: SlotView,
  { seen, ...groups }: Groups & { readonly seen: readonly string[] },
): string {
  if (isKept(slot, groups.now)) return keptText(slot, groups.now);
  const there = blockedAt(slot, groups.all);
  const node = slot.node ?? '?';
  if (!there) return node;
  const waits = `${node}, waiting in ${there.group}`;
  const stuck = stuckSlots(there, groups);
  const [first] = stuck;
  if (!first || seen.includes(there.group) || seen.length === MOST_GROUPS)
    return `${waits}, which is blocked`;
  const text = stuckText(first, { ...groups, seen: [...seen, there.group] });
  return `${waits}, which is blocked by ${text}${andMore(stuck.length)}`;
}

/** How many groups a finding follows, from each to the one in which its run waits. */
const MOST_GROUPS = 8;

function keptText(view: SlotView, now: number): string {
  const { slot, state, node = '?', since } = view;
  if (state === 'unreadable') return `an unreadable claim (slot ${slot})`;
  const what = endedText(view);
  const age = formatAge(ageMs(since, now));
  if (state === 'running' || state === 'evicted') return `${node}, session lost (running ${what} for ${age})`;
  return `${node}, ${state} ${age} ago (${what})`;
}

function heldTooLong(group: string, slot: SlotView, { maxHeldMs, now }: Judged): Finding[] {
  if (maxHeldMs === undefined || slot.since === undefined || isOver(slot, now)) return [];
  const held = ageMs(slot.since, now);
  if (held <= maxHeldMs) return [];
  const text = `${slot.node ?? '?'} ${slot.state} in ${group} for ${formatAge(held)}, longer than ${formatAge(maxHeldMs)}`;
  return [{ state: 'CRITICAL', text }];
}

function waitsTooLong(view: GroupView, { maxWaitMs }: Judged): Finding[] {
  const { group } = view;
  const late = waitingIn(view).filter(({ waitedMs }) => maxWaitMs !== undefined && waitedMs > maxWaitMs);
  const [first, ...more] = late.sort((a, b) => b.waitedMs - a.waitedMs);
  if (!first || maxWaitMs === undefined) return [];
  const others = more.length === 0 ? '' : `, and ${more.length} more`;
  const text = `${first.node} waiting in ${group} for ${formatAge(first.waitedMs)}, longer than ${formatAge(maxWaitMs)}${others}`;
  return [{ state: 'CRITICAL', text }];
}

/** Every run that waits, in the queue or outside of it. */
const waitingIn = ({ queue, returning = [], outside = [] }: GroupView) => [
  ...queue,
  ...returning,
  ...outside,
];

function figuresOf(
  groups: readonly GroupView[],
  { maxHeldMs, maxWaitMs, now }: Omit<Judged, 'all'>,
): Figure[] {
  const slots = groups.flatMap((group) => group.slots);
  const waits = groups.flatMap(waitingIn);
  const claims = slots.filter((slot) => slot.since !== undefined && !isOver(slot, now));
  const seconds = (all: readonly number[]) => Math.floor(all.reduce((a, b) => Math.max(a, b), 0) / 1000);
  const critical = (ms: number | undefined) => (ms === undefined ? {} : { critical: ms / 1000 });
  return [
    { label: 'groups', value: groups.length },
    { label: 'frozen', value: groups.filter(({ frozen }) => frozen !== undefined).length },
    { label: 'running', value: slots.filter(({ state, alive }) => state === 'running' && alive).length },
    { label: 'kept', value: slots.filter((slot) => isKept(slot, now)).length },
    { label: 'waiting', value: countRuns(waits) },
    {
      label: 'longest_held',
      value: seconds(claims.map(({ since }) => ageMs(since, now))),
      unit: 's',
      ...critical(maxHeldMs),
    },
    {
      label: 'longest_wait',
      value: seconds(waits.map(({ waitedMs }) => waitedMs)),
      unit: 's',
      ...critical(maxWaitMs),
    },
  ];
}

/** A run that waits without a slot does so in each of its groups. */
const countRuns = (waits: readonly { readonly run: string; readonly node: string }[]) =>
  new Set(waits.map(({ run, node }) => `${run} ${node}`)).size;

function okText(groups: readonly GroupView[]): string {
  const count = (one: string, many: string, n: number) => `${n} ${n === 1 ? one : many}`;
  const running = groups.flatMap(({ slots }) => slots).filter(({ state }) => state === 'running').length;
  const waits = countRuns(groups.flatMap(waitingIn));
  return `${count('group', 'groups', groups.length)}, ${count('run', 'runs', running)}, ${waits} waiting`;
}

const warning = (text: string): Finding => ({ state: 'WARNING', text });

const waiting = (count: number) => `${count === 0 ? 'no' : count} ${count === 1 ? 'run' : 'runs'} waiting`;

const ageMs = (since: string | undefined, now: number) => Math.max(0, now - Date.parse(since ?? ''));
