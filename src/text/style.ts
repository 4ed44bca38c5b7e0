/** Colour and width of text on a terminal. */
import { Chalk } from 'chalk';

export type Style = 'bold' | 'dim' | 'red' | 'yellow' | 'green' | 'cyan';

const chalk = new Chalk({ level: 1 });

export function paint(text: string, style: Style | undefined, color: boolean): string {
  return color && style !== undefined && text !== '' ? chalk[style](text) : text;
}

const WIDE =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Emoji_Presentation}\uff01-\uff60]/u;
const COMBINING = /\p{M}/u;

/** What `paint` adds to a text. */
// eslint-disable-next-line no-control-regex
const COLOURS = /\x1b\[\d+m/g;

/** How many columns `text` takes on a terminal; colours take none. */
export function widthOf(text: string): number {
  const plain = text.includes('\x1b') ? text.replace(COLOURS, '') : text;
  let width = 0;
  for (const char of plain) width += COMBINING.test(char) ? 0 : WIDE.test(char) ? 2 : 1;
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
