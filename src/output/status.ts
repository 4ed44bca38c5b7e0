/** `runlock status` as text. */
import { assertNever } from '../errors.ts';
import { cut, paint, widthOf } from '../text/style.ts';
import { formatAge } from '../text/age.ts';
import { visible } from '../text/visible.ts';
import type { Style } from '../text/style.ts';
import { leftOnText } from '../view/leftover-maintenance.ts';
import type {
  PlaceView,
  ReturningView,
  SlotView,
  GroupView,
  StatusReport,
  WaiterView,
} from '../view/report.ts';

export interface RenderOptions {
  readonly color: boolean;
  readonly columns?: number | undefined;
  /** Wall-clock milliseconds. */
  readonly now: number;
  /** Nobody asked for these groups by name: of a group where nothing stands still one line is enough. */
  readonly overview?: boolean;
}

/** A long queue, or list of problems, is cut here; `--json` shows all of it. */
const SHOWN = 20;

/**
 * `status` for people. Groups that stand still come first, those where somebody waits before the others; then those
 * where somebody runs or waits; idle ones last. By name within.
 */
export function renderStatus(report: StatusReport, options: RenderOptions): string {
  const shown = report.groups.length === 0 ? `${renderNothing(report)}\n` : renderGroups(report, options);
  if (report.hidden === undefined) return shown;
  const text = `groups and freezes may be missing here: ${report.hidden}`;
  return `${shown}\n${paint(visible(text), 'yellow', options.color)}\n`;
}

function renderGroups(report: StatusReport, options: RenderOptions): string {
  const ranked = report.groups.map((view) => ({ view, rank: rankOf(view) }));
  const inOrder = (...ranks: Rank[]) =>
    ranks.flatMap((wanted) => ranked.filter(({ rank }) => rank === wanted).map(({ view }) => view));
  if (options.overview !== true || report.groups.length === 1)
    return `${inOrder(0, 1, 2, 3)
      .map((group) => renderGroup(group, options))
      .join('\n\n')}\n`;
  const blocks = inOrder(0, 1).map((group) => renderGroup(group, options));
  const moving = inOrder(2);
  if (moving.length > 0) blocks.push(moving.map((group) => renderLine(group, options)).join('\n'));
  const idle = inOrder(3).map(({ group }) => visible(group));
  if (idle.length > 0) blocks.push(paint(`idle: ${idle.join(', ')}`, 'dim', options.color));
  return `${blocks.join('\n\n')}\n`;
}

/** 0: stands still and somebody waits. 1: stands still. 2: somebody runs or waits, or no new run may start. 3: idle. */
type Rank = 0 | 1 | 2 | 3;

function rankOf({ slots, queue, returning = [], frozen, problems }: GroupView): Rank {
  const waits = queue.length + returning.length > 0;
  const stands = problems.length > 0 || slots.some(needsSomebody);
  if (waits && (stands || frozen)) return 0;
  if (stands) return 1;
  return waits || frozen || slots.some(({ state }) => state !== 'free') ? 2 : 3;
}

/** Whether nothing that lives stands behind the slot's claim. */
function needsSomebody(slot: SlotView): boolean {
  return ['failed', 'interrupted', 'abandoned', 'unreadable'].includes(slot.state) || sessionGone(slot);
}

function renderLine({ group, frozen, why }: GroupView, { color }: RenderOptions): string {
  return `${paint(visible(group), 'bold', color)}${frozen ? frozenMark(color) : ''}: ${visible(why)}`;
}

const frozenMark = (color: boolean) => paint(' (frozen)', 'cyan', color);

function renderNothing({ prefix, why, fix, problems }: StatusReport): string {
  const lines = [visible(`nothing is stored below ${prefix}/ (or this token may not read it)`)];
  if (why !== undefined) lines.push(visible(why));
  if (fix !== undefined) lines.push(visible(`fix: ${fix}`));
  return [...lines, ...problems.map((problem) => `problem: ${visible(problem)}`)].join('\n');
}

function renderGroup(view: GroupView, options: RenderOptions): string {
  const { color } = options;
  return [
    paint(visible(view.group), 'bold', color) + (view.frozen ? frozenMark(color) : ''),
    ...(view.known ? renderSlots(view.slots, options) : []),
    ...renderQueue(view.queue, options),
    ...renderReturning(view.returning ?? [], options),
    ...renderProblems(view.problems, color),
    `  ${visible(view.why)}`,
    ...(view.next === undefined ? [] : [`  next: ${visible(view.next)}`]),
    ...(view.fix === undefined ? [] : [`  fix: ${paint(visible(view.fix), 'bold', color)}`]),
  ].join('\n');
}

export interface Row {
  readonly cells: readonly string[];
  readonly style?: Style | undefined;
}

function renderSlots(slots: readonly SlotView[], options: RenderOptions): string[] {
  const rows = slots.map((slot) => ({
    cells: [...slotCells(slot, options.now), ...maintenanceCell(slot, slots), ...alsoCell(slot, slots)],
    style: slotStyle(slot),
  }));
  const left = slots.some(isLeftOn) ? ['MAINTENANCE'] : [];
  const also = slots.some(isElsewhere) ? ['ALSO'] : [];
  const head = ['SLOT', 'STATE', 'NODE', 'SINCE', 'COMMAND', 'EXIT', 'HOLD', ...left, ...also];
  return renderTable([{ cells: head, style: 'dim' }, ...rows], options);
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

/** What the node's runs left in maintenance; no column where none did. */
function maintenanceCell({ maintenance }: SlotView, all: readonly SlotView[]): string[] {
  if (!all.some(isLeftOn)) return [];
  return [maintenance ? leftOnText(maintenance) : ''];
}

const isElsewhere = ({ also = [] }: { also?: readonly PlaceView[] | undefined }) => also.length > 0;

/** Where else the run is; no column where that is so of none of them. */
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

/** A run that may still be alive, but can't show it. */
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
    ...renderTable(
      [{ cells: ['PLACE', 'NODE', 'WAITING', 'COMMAND', ...also], style: 'dim' }, ...rows],
      options,
    ),
    ...moreText(queue.length - rows.length),
  ];
}

/** They are behind nobody in the queue, so they have no place. */
function renderReturning(returning: readonly ReturningView[], options: RenderOptions): string[] {
  if (returning.length === 0) return [];
  const rows = returning
    .slice(0, SHOWN)
    .map(({ node, waitedMs, why }) => ({ cells: [node, formatAge(waitedMs), why] }));
  const head: Row = { cells: ['RETURNS', 'WAITING', 'WHY'], style: 'dim' };
  return [...renderTable([head, ...rows], options), ...moreText(returning.length - rows.length)];
}

function renderProblems(problems: readonly string[], color: boolean): string[] {
  const shown = problems.slice(0, SHOWN);
  return [
    ...shown.map((problem) => paint(`  problem: ${visible(problem)}`, 'red', color)),
    ...moreText(problems.length - shown.length),
  ];
}

export function moreText(count: number): string[] {
  return count > 0 ? [`  … and ${count.toLocaleString('en-US')} more`] : [];
}

/** Rows of the same cells, aligned, cut to the terminal's width before they are coloured. */
export function renderTable(rows: readonly Row[], { color, columns }: RenderOptions): string[] {
  const safe = rows.map(({ cells, style }) => ({ cells: cells.map(visible), style }));
  const widths = (safe[0]?.cells ?? []).map((_, i) =>
    Math.max(...safe.map((row) => widthOf(row.cells[i] ?? ''))),
  );
  return safe.map(({ cells, style }) => {
    const padded = cells.map((cell, i) => cell + ' '.repeat((widths[i] ?? 0) - widthOf(cell)));
    return paint(cut(`  ${padded.join('  ').trimEnd()}`, columns), style, color);
  });
}
