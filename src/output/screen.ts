/** A view that is redrawn on the terminal's alternate screen. */
import { clockTime, formatAge } from '../text/age.ts';
import { paint, widthOf } from '../text/style.ts';
import type { Style } from '../text/style.ts';
import { visible } from '../text/visible.ts';
import { wrapLines } from '../text/wrap.ts';

/** What stands above what is shown. */
export interface ScreenHead {
  /** What is shown, such as the keys' prefix. */
  readonly what: string;
  /** Consul's address. */
  readonly address: string;
  /** Whether the terminal passes on keys without Enter. */
  readonly hearsKeys: boolean;
  /** Set while Consul does not answer: since when (wall-clock milliseconds), and the error. */
  readonly fault?: { readonly sinceMs: number; readonly message: string };
}

export interface FrameOptions {
  readonly color: boolean;
  readonly columns: number;
  readonly rows: number;
  /** Wall-clock milliseconds. */
  readonly now: number;
}

/** Switches to the alternate screen and hides the cursor. */
export const ENTER_SCREEN = '\x1b[?1049h\x1b[?25l';
/** Shows the cursor and switches back. */
export const LEAVE_SCREEN = '\x1b[?25h\x1b[?1049l';
export const WIPE_SCREEN = '\x1b[2J';

/** Redraws without clearing first, to avoid flicker; cuts at the bottom of the terminal. */
export function renderFrame(head: ScreenHead, body: readonly string[], options: FrameOptions): string {
  const { columns, rows } = options;
  const lines = fit([...heading(head, options), ...body], options);
  const used = lines.reduce((sum, line) => sum + heightOf(line, columns), 0);
  // Erasing to the end of a full row would erase its last character.
  const drawn = lines.map((line) => (isFull(line, columns) ? line : `${line}\x1b[K`));
  return `\x1b[H${drawn.join('\r\n')}${used < rows ? '\r\n\x1b[J' : ''}`;
}

function heading(
  { what, address, fault, hearsKeys }: ScreenHead,
  { color, now, columns }: FrameOptions,
): string[] {
  const at = (ms: number) => clockTime(new Date(ms).toISOString());
  const title = `${what} in Consul at ${address}, ${at(now)}, ${hearsKeys ? 'q' : 'Ctrl-C'} to quit`;
  const said = (text: string, style: Style) =>
    wrapLines(visible(text), columns).map((line) => paint(line, style, color));
  const lines = said(title, 'dim');
  if (fault) {
    const since = `${formatAge(now - fault.sinceMs)} (since ${at(fault.sinceMs)})`;
    const text = `Consul has not answered for ${since}; the data below is older. ${fault.message}`;
    lines.push(...said(text, 'red'));
  }
  return [...lines, ''];
}

/** As many lines as fit the terminal; the last one says how many are missing. */
function fit(lines: readonly string[], { columns, rows, color }: FrameOptions): string[] {
  const heights = lines.map((line) => heightOf(line, columns));
  if (sum(heights) <= rows) return [...lines];
  let kept = 0;
  for (let used = heights[0] ?? 0; kept < lines.length && used < rows; used += heights[kept] ?? 0) kept += 1;
  const missing = lines.length - kept;
  const text = `… ${missing.toLocaleString('en-US')} more ${missing === 1 ? 'line' : 'lines'}`;
  return [...lines.slice(0, kept), paint(text.slice(0, columns), 'dim', color)];
}

const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

/** How many rows a line takes when the terminal wraps it; a wide character is never split between rows. */
function heightOf(line: string, columns: number): number {
  return layOut(line, columns).rows;
}

function isFull(line: string, columns: number): boolean {
  return layOut(line, columns).column === columns;
}

function layOut(line: string, columns: number): { rows: number; column: number } {
  let rows = 1;
  let column = 0;
  // eslint-disable-next-line no-control-regex -- colours take no room
  for (const char of line.replace(/\x1b\[\d+m/g, '')) {
    const width = widthOf(char);
    if (column + width > columns) {
      rows += 1;
      column = 0;
    }
    column += width;
  }
  return { rows, column };
}
