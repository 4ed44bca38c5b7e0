/** View data → text for people; the one place that knows colours, columns and what is safe to print. */
import { Chalk } from 'chalk';

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

export function widthOf(text: string): number {
  let width = 0;
  for (const char of text) width += COMBINING.test(char) ? 0 : WIDE.test(char) ? 2 : 1;
  return width;
}

/** Cuts plain text to a terminal's width. */
export function cut(text: string, columns: number | undefined): string {
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

/** Wipes the live line. */
export const CLEAR_LINE = '\r\x1b[K';

/** Draws `line` over the live line. */
export function redrawLine(line: string): string {
  return `${CLEAR_LINE}${line}`;
}
