/** `runlock status` as text. */
import { assertNever } from '../errors.ts';
import { paint, widthOf } from '../text/style.ts';
import { formatAge } from '../text/age.ts';
import { visible } from '../text/visible.ts';
import { wrapLines, wrapUnits } from '../text/wrap.ts';
import type { Style } from '../text/style.ts';
import { usedGroups } from '../view/below.ts';
import { waitersOf } from '../view/explain.ts';
import { leftOnText } from '../view/leftover-maintenance.ts';
import type {
  PlaceView,
  ReturningView,
  SlotView,
  GroupState,
  GroupView,
  StatusReport,
  WaiterView,
} from '../view/report.ts';
import { moreText } from './more.ts';
import { renderCircles, renderOutside } from './status-waits.ts';
import { renderTable } from './table.ts';

export interface RenderOptions {
  readonly color: boolean;
  readonly columns?: number | undefined;
  /** Wall-clock milliseconds. */
  readonly now: number;
  /** Show groups without a kept slot as one line each, and idle groups as one line together. */
  readonly overview?: boolean;
  /** Groups named on the command line, which are shown in full. */
  readonly named?: readonly string[];
  /** In the overview, give each idle group its own line. */
  readonly all?: boolean;
}

/** Show at most this many entries of a queue or list of problems; `--json` shows all. */
const SHOWN = 20;

/**
 * `status` for people: how many groups are in which state, then the groups. Groups with a kept slot come first, those
 * with waiting runs before the others; then groups where runs wait or run; idle groups last. Sorted by name within.
 */
export function renderStatus(report: StatusReport, options: RenderOptions): string {
  const { color, columns, named = [] } = options;
  const total = Object.values(report.states).reduce((sum, count) => sum + count, 0);
  const isOne = total === 1 && named.length === 1;
  const blocks = [
    ...(total === 0 || isOne ? [] : [renderSummary(report, options)]),
    ...renderCircles(report.circles ?? [], options),
    ...(total === 0 ? [renderNothing(report, options)] : renderGroups(report, options)),
  ];
  if (report.hidden !== undefined) {
    const lines = wrapLines(visible(`groups and freezes may be missing here: ${report.hidden}`), columns);
    blocks.push(lines.map((line) => paint(line, 'yellow', color)).join('\n'));
  }
  return `${blocks.join('\n\n')}\n`;
}

const STATES: readonly GroupState[] = ['blocked', 'waiting', 'running', 'idle', 'frozen'];

const stateStyles: Readonly<Record<GroupState, Style>> = {
  blocked: 'red',
  frozen: 'cyan',
  waiting: 'yellow',
  running: 'green',
  idle: 'dim',
};

function renderSummary({ states }: StatusReport, { color, columns }: RenderOptions): string {
  const textOf = (state: GroupState) => `${states[state].toLocaleString('en-US')} ${state}`;
  const units = STATES.map((state, i) => `${textOf(state)}${i < STATES.length - 1 ? ',' : ''}`);
  const text = wrapUnits(units, columns, { lead: 'groups: ', hang: 8, between: ' ' }).join('\n');
  // Colour the states after wrapping, each where it stands.
  return STATES.reduce((painted, state) => {
    const style = states[state] === 0 ? 'dim' : stateStyles[state];
    return painted.replace(textOf(state), paint(textOf(state), style, color));
  }, text);
}

function renderGroups(report: StatusReport, options: RenderOptions): string[] {
  const { overview = false, named = [], all = false } = options;
  const groups = usedGroups(report.groups);
  // Groups are counted but none is shown: only `--blocked` does that.
  if (groups.length === 0) return ['no group is blocked'];
  const isFull = (view: GroupView, rank: Rank) =>
    !overview || rank < 2 || named.includes(view.group) || groups.length === 1;
  const ranked = groups.map((view) => ({ view, rank: rankOf(view) }));
  return RANKS.flatMap((wanted) => {
    const same = ranked.filter(({ rank }) => rank === wanted).map(({ view }) => view);
    const full = same.filter((view) => isFull(view, wanted)).map((view) => renderGroup(view, options));
    const short = same.filter((view) => !isFull(view, wanted));
    if (short.length === 0) return full;
    if (wanted < 3) return [...full, short.flatMap((view) => renderLine(view, options)).join('\n')];
    const names = short.map((view) => titleOf(view, options)).join('\n');
    return [...full, all ? names : renderIdle(short, options)];
  });
}

/** 0: a slot is kept and a run waits. 1: a slot is kept. 2: a run runs or waits, or a freeze is in effect. 3: idle. */
type Rank = 0 | 1 | 2 | 3;

const RANKS: readonly Rank[] = [0, 1, 2, 3];

function rankOf(view: GroupView): Rank {
  const { state, slots, frozen, problems } = view;
  const waits = waitersOf(view) > 0;
  const stands = problems.length > 0 || state === 'blocked' || slots.some(needsSomebody);
  if (waits && (stands || frozen)) return 0;
  if (stands) return 1;
  return waits || frozen || slots.some((slot) => slot.state !== 'free') ? 2 : 3;
}

/** Whether the slot's claim has no live run behind it. */
function needsSomebody(slot: SlotView): boolean {
  return ['failed', 'interrupted', 'abandoned', 'unreadable'].includes(slot.state) || sessionGone(slot);
}

function renderLine(view: GroupView, options: RenderOptions): string[] {
  const title = titleOf(view, { color: false });
  const text = `${title}: ${visible(view.why)}`;
  const [first = '', ...rest] = wrapLines(text, options.columns, { hang: 4 });
  // Colour the title only if it was not broken.
  return first.startsWith(title)
    ? [titleOf(view, options) + first.slice(title.length), ...rest]
    : [first, ...rest];
}

/** The group and its state; no state for a group that was never used. */
function titleOf(
  { group, known, state, frozen }: GroupView,
  { color }: Pick<RenderOptions, 'color'>,
): string {
  const name = paint(visible(group), 'bold', color);
  if (!known && state === 'idle') return name;
  const states: readonly GroupState[] = state === 'blocked' && frozen ? ['blocked', 'frozen'] : [state];
  return `${name} (${states.map((each) => paint(each, stateStyles[each], color)).join(', ')})`;
}

/** One line, with as many names as fit. */
function renderIdle(groups: readonly GroupView[], { color, columns = Infinity }: RenderOptions): string {
  const names = groups.map(({ group }) => visible(group));
  const text = (count: number) => {
    const more = (names.length - count).toLocaleString('en-US');
    if (count === names.length) return `idle: ${names.join(', ')}`;
    if (count === 0) return `idle: ${more} groups (--all shows them)`;
    return `idle: ${names.slice(0, count).join(', ')} and ${more} more (--all shows them)`;
  };
  let count = Math.min(names.length, SHOWN);
  while (count > 0 && widthOf(text(count)) > columns) count -= 1;
  return paint(text(count), 'dim', color);
}

function renderNothing({ prefix, why, fix, problems }: StatusReport, { columns }: RenderOptions): string {
  const wrap = (text: string) => wrapLines(visible(text), columns, { hang: 2 });
  const lines = wrap(`nothing is stored below ${prefix}/ (or this token may not read it)`);
  if (why !== undefined) lines.push(...wrap(why));
  // A command is pasted, so it is never broken.
  if (fix !== undefined) lines.push(visible(`fix: ${fix}`));
  return [...lines, ...problems.flatMap((problem) => wrap(`problem: ${problem}`))].join('\n');
}

/** Why and what to do come first, because the tables below may be long. */
function renderGroup(view: GroupView, options: RenderOptions): string {
  const { color } = options;
  return [
    titleOf(view, options),
    ...sentence(view.why, options),
    ...(view.next === undefined ? [] : sentence(`next: ${view.next}`, options)),
    // A command is pasted, so it is never broken.
    ...(view.fix === undefined ? [] : [`  fix: ${paint(visible(view.fix), 'bold', color)}`]),
    ...(view.known ? renderSlots(view.slots, options) : []),
    ...renderQueue(view.queue, options),
    ...renderReturning(view.returning ?? [], options),
    ...renderOutside(view.outside ?? [], options),
    ...renderProblems(view.problems, options),
  ].join('\n');
}

const sentence = (text: string, { columns }: Pick<RenderOptions, 'columns'>) =>
  wrapLines(visible(text), columns, { lead: '  ', hang: 4 });

function renderSlots(slots: readonly SlotView[], options: RenderOptions): string[] {
  const rows = slots.map((slot) => ({
    cells: [...slotCells(slot, options.now), ...maintenanceCell(slot, slots), ...alsoCell(slot, slots)],
    style: slotStyle(slot),
  }));
  const left = slots.some(isLeftOn) ? ['MAINTENANCE'] : [];
  const also = slots.some(isElsewhere) ? ['ALSO'] : [];
  const head = ['SLOT', 'STATE', 'NODE', 'SINCE', 'COMMAND', 'EXIT', 'HOLD', ...left, ...also];
  return renderTable(head, rows, { ...options, flexible: 'COMMAND' });
}

function slotCells(slot: SlotView, now: number): string[] {
  return [
    String(slot.slot),
    sessionGone(slot) ? `${slot.state} (no session)` : slot.state,
    slot.node ?? '',
    slot.since === undefined ? '' : formatAge(now - Date.parse(slot.since)),
    slot.command ?? '',
    slot.exitCode === undefined ? '' : String(slot.exitCode),
    holdCell(slot, now),
  ];
}

const isLeftOn = ({ maintenance }: SlotView) => maintenance !== undefined;

/** The maintenance that the node's runs left on; no column if there is none in any slot. */
function maintenanceCell({ maintenance }: SlotView, all: readonly SlotView[]): string[] {
  if (!all.some(isLeftOn)) return [];
  return [maintenance ? leftOnText(maintenance) : ''];
}

const isElsewhere = ({ also = [] }: { also?: readonly PlaceView[] | undefined }) => also.length > 0;

/** The run's other groups; no column if no run has any. */
function alsoCell(
  { also = [] }: { also?: readonly PlaceView[] | undefined },
  all: readonly { also?: readonly PlaceView[] | undefined }[],
): string[] {
  if (!all.some(isElsewhere)) return [];
  const places = also.map((place) =>
    'place' in place ? `waits in ${place.group}` : `slot ${place.slot} of ${place.group}`,
  );
  return [places.join(', ')];
}

/** Whether the run may be alive but has no session. */
function sessionGone({ state, alive }: SlotView): boolean {
  return !alive && (state === 'running' || state === 'evicted');
}

function holdCell({ hold, heldUntil }: SlotView, now: number): string {
  if (heldUntil !== undefined) {
    const leftMs = Date.parse(heldUntil) - now;
    return leftMs > 0 ? `${formatAge(leftMs)} left` : 'over';
  }
  return typeof hold === 'number' ? formatAge(hold) : (hold ?? '');
}

function slotStyle(slot: SlotView): Style | undefined {
  switch (slot.state) {
    case 'free':
      return 'dim';
    case 'running':
      return slot.alive ? 'green' : 'red';
    case 'failed':
    case 'interrupted':
    case 'abandoned':
    case 'unreadable':
      return 'red';
    case 'held':
    case 'rebooting':
    case 'evicted':
    case 'locked':
      return 'yellow';
    default:
      return assertNever(slot.state);
  }
}

function renderQueue(queue: readonly WaiterView[], options: RenderOptions): string[] {
  if (queue.length === 0) return [];
  const shown = queue.slice(0, SHOWN);
  const rows = shown.map((waiter) => ({
    cells: [
      ...[String(waiter.place), waiter.node, formatAge(waiter.waitedMs), waiter.command],
      ...alsoCell(waiter, shown),
    ],
  }));
  const also = shown.some(isElsewhere) ? ['ALSO'] : [];
  return [
    ...renderTable(['PLACE', 'NODE', 'WAITING', 'COMMAND', ...also], rows, {
      ...options,
      flexible: 'COMMAND',
    }),
    ...moreText(queue.length - rows.length),
  ];
}

/** Runs that return to their own claims. They are not in the queue, so they have no place. */
function renderReturning(returning: readonly ReturningView[], options: RenderOptions): string[] {
  if (returning.length === 0) return [];
  const rows = returning
    .slice(0, SHOWN)
    .map(({ node, waitedMs, why }) => ({ cells: [node, formatAge(waitedMs), why] }));
  const table = renderTable(['RETURNS', 'WAITING', 'WHY'], rows, options);
  return [...table, ...moreText(returning.length - rows.length)];
}

export function renderProblems(
  problems: readonly string[],
  options: Pick<RenderOptions, 'color' | 'columns'>,
): string[] {
  const shown = problems.slice(0, SHOWN);
  return [
    ...shown.flatMap((problem) =>
      sentence(`problem: ${problem}`, options).map((line) => paint(line, 'red', options.color)),
    ),
    ...moreText(problems.length - shown.length),
  ];
}
