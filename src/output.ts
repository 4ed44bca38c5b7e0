/** View data → text for people; the one place that knows colours, columns and what is safe to print. */
import { Chalk } from 'chalk';
import { assertNever } from './errors.ts';

/** What `status --json` prints. Times are ISO 8601 in UTC; names ending in Ms are milliseconds. */
export interface StatusReport {
  readonly v: 1;
  readonly prefix: string;
  /** When it was read, by the reader's clock; ages in sentences count from here. */
  readonly at: string;
  /** The root's freeze: it stops every group, those that nobody has used yet too. */
  readonly frozen?: FreezeView;
  /** With the root's freeze; every group's own are with the group. */
  readonly problems: readonly string[];
  /** By name. */
  readonly groups: readonly GroupView[];
}

export interface GroupView {
  readonly group: string;
  /** False: nothing of the group is stored (or this token may not read it). */
  readonly known: boolean;
  /** Every slot that has a key, and slot 0. */
  readonly slots: readonly SlotView[];
  /** In the order in which they will be granted. */
  readonly queue: readonly WaiterView[];
  /** The group's own freeze, else its nearest ancestor's, that has not ended. */
  readonly frozen?: FreezeView;
  /** What is stored and could not be read, or should not be there. */
  readonly problems: readonly string[];
  /** One sentence: why the group stands still, or that it moves, or is idle. */
  readonly why: string;
  /** The command that would free it. */
  readonly fix?: string;
}

/** `locked`: a session lock without a claim. `unreadable`: a claim that only a newer runlock understands, or none at all. */
export type SlotState =
  'free' | 'running' | 'held' | 'failed' | 'rebooting' | 'abandoned' | 'evicted' | 'locked' | 'unreadable';

export interface SlotView {
  readonly slot: number;
  readonly state: SlotState;
  /** Whether a live session holds the slot's lock. */
  readonly alive: boolean;
  readonly node?: string;
  readonly since?: string;
  readonly run?: string;
  /** Base name. */
  readonly command?: string;
  readonly exitCode?: number;
  /** `forever`, `none`, or milliseconds. */
  readonly hold?: 'forever' | 'none' | number;
  /** When others may follow. */
  readonly heldUntil?: string;
  readonly pid?: number;
  /** Who evicted the run. */
  readonly by?: string;
}

export interface WaiterView {
  /** From 1; a ticket that can't be read keeps its place and is missing here. */
  readonly place: number;
  readonly node: string;
  readonly since: string;
  readonly waitedMs: number;
  readonly command: string;
  readonly pid: number;
  readonly session: string;
}

export interface FreezeView {
  /** The frozen group; '' for the root. */
  readonly at: string;
  readonly by: string;
  readonly reason: string;
  readonly since: string;
  readonly until?: string;
}

type Env = Readonly<Record<string, string | undefined>>;

export interface Output {
  readonly color: boolean;
  /** Whether a line may be drawn over in place. */
  readonly live: boolean;
  /** Width of the terminal; undefined: nothing is cut. */
  readonly columns: number | undefined;
}

/** What a stream can show. NO_COLOR comes first, then FORCE_COLOR, then TERM=dumb, then whether it is a terminal. */
export function createOutput(stream: { env: Env; isTTY: boolean; columns?: number | undefined }): Output {
  const { env, isTTY } = stream;
  const live = isTTY && env['TERM'] !== 'dumb';
  return { color: wantsColor(env, live), live, columns: isTTY ? stream.columns || 80 : undefined };
}

function wantsColor(env: Env, live: boolean): boolean {
  if (env['NO_COLOR']) return false;
  const force = env['FORCE_COLOR'];
  return force ? force !== '0' && force !== 'false' : live;
}

export type Style = 'bold' | 'dim' | 'red' | 'yellow' | 'green' | 'cyan';

const chalk = new Chalk({ level: 1 });

export function paint(text: string, style: Style | undefined, color: boolean): string {
  return color && style !== undefined && text !== '' ? chalk[style](text) : text;
}

// Controls, bidi and other format characters, line separators, lone surrogates, and whatever else shows as nothing.
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** `text` that came from elsewhere, with everything that a terminal would obey or hide spelled out (`\x1b`, `\u202e`). */
export function visible(text: string): string {
  return text.replace(INVISIBLE, (char) => {
    const code = char.codePointAt(0) ?? 0;
    const hex = code.toString(16);
    if (code <= 0xff) return `\\x${hex.padStart(2, '0')}`;
    return code <= 0xffff ? `\\u${hex.padStart(4, '0')}` : `\\u{${hex}}`;
  });
}

/** JSON, the same data, in which nothing is left that a terminal would obey or hide. */
export function renderJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, undefined, indent).replace(INVISIBLE, (char) => {
    if (char === '\n') return char;
    return char
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join('');
  });
}

/** `4s`, `3m12s`, `2h05m`, `3d4h`; the smaller unit is left out when it is zero. */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes === 0) return `${seconds}s`;
  if (hours === 0) return `${minutes}m${rest(seconds % 60, 's')}`;
  if (hours < 24) return `${hours}h${rest(minutes % 60, 'm')}`;
  return `${Math.floor(hours / 24)}d${hours % 24 === 0 ? '' : `${hours % 24}h`}`;
}

function rest(count: number, unit: string): string {
  return count === 0 ? '' : `${String(count).padStart(2, '0')}${unit}`;
}

const WIDE =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}\uff01-\uff60]/u;
const COMBINING = /\p{M}/u;

function widthOf(text: string): number {
  let width = 0;
  for (const char of text) width += COMBINING.test(char) ? 0 : WIDE.test(char) ? 2 : 1;
  return width;
}

/** Cuts plain text to a terminal's width. */
function cut(text: string, columns: number | undefined): string {
  if (columns === undefined || widthOf(text) <= columns) return text;
  let kept = '';
  let width = 1;
  for (const char of text) {
    width += widthOf(char);
    if (width > columns) break;
    kept += char;
  }
  return `${kept}…`;
}

export interface RenderOptions {
  readonly color: boolean;
  readonly columns?: number | undefined;
  /** Wall-clock milliseconds. */
  readonly now: number;
}

/** A long queue, or list of problems, is cut here; `--json` shows all of it. */
const SHOWN = 20;

/** `status` for people: a block a group, with a line break at its end. */
export function renderStatus(report: StatusReport, options: RenderOptions): string {
  const blocks = report.groups.map((group) => renderGroup(group, options));
  if (blocks.length === 0) blocks.push(renderNothing(report));
  return `${blocks.join('\n\n')}\n`;
}

function renderNothing({ prefix, frozen, problems }: StatusReport): string {
  const lines = [visible(`nothing is stored below ${prefix}/ (or this token may not read it)`)];
  if (frozen) lines.push(visible(`everything is frozen by ${frozen.by}: ${frozen.reason}`));
  return [...lines, ...problems.map((problem) => `problem: ${visible(problem)}`)].join('\n');
}

function renderGroup(view: GroupView, options: RenderOptions): string {
  const { color } = options;
  return [
    paint(visible(view.group), 'bold', color) + (view.frozen ? paint(' (frozen)', 'cyan', color) : ''),
    ...(view.known ? renderSlots(view.slots, options) : []),
    ...renderQueue(view.queue, options),
    ...renderProblems(view.problems, color),
    `  ${visible(view.why)}`,
    ...(view.fix === undefined ? [] : [`  fix: ${paint(visible(view.fix), 'bold', color)}`]),
  ].join('\n');
}

interface Row {
  readonly cells: readonly string[];
  readonly style?: Style | undefined;
}

function renderSlots(slots: readonly SlotView[], options: RenderOptions): string[] {
  const rows = slots.map((slot) => ({ cells: slotCells(slot, options.now), style: slotStyle(slot) }));
  const head = ['SLOT', 'STATE', 'NODE', 'SINCE', 'COMMAND', 'EXIT', 'HOLD'];
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
  const rows = queue.slice(0, SHOWN).map(({ place, node, waitedMs, command }) => ({
    cells: [String(place), node, formatAge(waitedMs), command],
  }));
  return [
    ...renderTable([{ cells: ['PLACE', 'NODE', 'WAITING', 'COMMAND'], style: 'dim' }, ...rows], options),
    ...moreText(queue.length - rows.length),
  ];
}

function renderProblems(problems: readonly string[], color: boolean): string[] {
  const shown = problems.slice(0, SHOWN);
  return [
    ...shown.map((problem) => paint(`  problem: ${visible(problem)}`, 'red', color)),
    ...moreText(problems.length - shown.length),
  ];
}

function moreText(count: number): string[] {
  return count > 0 ? [`  … and ${count.toLocaleString('en-US')} more`] : [];
}

/** Rows of the same cells, aligned, cut to the terminal's width before they are coloured. */
function renderTable(rows: readonly Row[], { color, columns }: RenderOptions): string[] {
  const safe = rows.map(({ cells, style }) => ({ cells: cells.map(visible), style }));
  const widths = (safe[0]?.cells ?? []).map((_, i) =>
    Math.max(...safe.map((row) => widthOf(row.cells[i] ?? ''))),
  );
  return safe.map(({ cells, style }) => {
    const padded = cells.map((cell, i) => cell + ' '.repeat((widths[i] ?? 0) - widthOf(cell)));
    return paint(cut(`  ${padded.join('  ').trimEnd()}`, columns), style, color);
  });
}

/** What a waiting `exec` knows of its group. */
export interface WaitingView {
  readonly group: string;
  readonly waitedMs: number;
  /** From 1. */
  readonly place?: number | undefined;
  readonly holders?: readonly HolderView[] | undefined;
  readonly frozen?: { readonly by: string; readonly reason: string } | undefined;
}

export interface HolderView {
  readonly node: string;
  readonly state: Exclude<SlotState, 'free' | 'locked' | 'unreadable'>;
  readonly command: string;
  /** How long it has been in this state. */
  readonly ageMs: number;
}

/** The single line that a terminal shows while `exec` waits, one column short of the width so that it never wraps. */
export function renderWaiting(view: WaitingView, columns: number | undefined): string {
  const [holder, ...others] = view.holders ?? [];
  const parts = [`waiting ${formatAge(view.waitedMs)} for ${view.group}`];
  if (view.place !== undefined) parts.push(`place ${view.place}`);
  if (view.frozen) parts.push(`frozen by ${view.frozen.by}: ${view.frozen.reason}`);
  if (holder) parts.push(holderText(holder) + (others.length > 0 ? ` (and ${others.length} more)` : ''));
  return cut(visible(parts.join(' · ')), columns === undefined ? undefined : Math.max(1, columns - 1));
}

function holderText({ node, state, command, ageMs }: HolderView): string {
  if (state === 'running') return `${node} runs ${command} since ${formatAge(ageMs)}`;
  return `${node} ${state} since ${formatAge(ageMs)} (${command})`;
}

/** Wipes the live line. */
export const CLEAR_LINE = '\r\x1b[K';

/** Draws `line` over the live line. */
export function redrawLine(line: string): string {
  return `${CLEAR_LINE}${line}`;
}
