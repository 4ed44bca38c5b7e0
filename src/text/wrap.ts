/** Breaks text into lines between words, for a terminal's width. */
import { widthOf } from './style.ts';

/** Units that a line break must not split: a word, or a command to copy. */
const WORDS = /(?:'(?:runlock|consul) [^\n]*?'(?![\w'\\])|\S)+/g;

/**
 * `text` in lines of at most `columns`; lines after the first are indented. A word is never cut, and a text that fits is
 * unchanged.
 */
export function wrapSentence(text: string, columns: number, indent = 2): string {
  if (widthOf(text) <= columns) return text;
  return fill(text.match(WORDS) ?? [], columns, { hang: indent }).join('\n');
}

/** The same, as an array of lines. @param columns undefined: one line */
export function wrapLines(
  text: string,
  columns: number | undefined,
  shape: Pick<Shape, 'lead' | 'hang'> = {},
): string[] {
  const whole = (shape.lead ?? '') + text;
  if (widthOf(whole) <= (columns ?? Infinity)) return [whole];
  return fill(text.match(WORDS) ?? [], columns ?? Infinity, shape);
}

/**
 * Texts with `between` (two spaces) between them, in lines of at most `columns`. A text that fits into a line is never
 * broken; a longer one has lines of its own.
 */
export function wrapUnits(
  units: readonly string[],
  columns = Infinity,
  { between = '  ', lead = '', hang = 0 }: Pick<Shape, 'lead' | 'hang' | 'between'> = {},
): string[] {
  const lines: string[] = [];
  let together: string[] = [];
  const nextLead = () => (lines.length === 0 ? lead : ' '.repeat(hang));
  const flush = () => {
    if (together.length > 0) lines.push(...fill(together, columns, { between, lead: nextLead(), hang }));
    together = [];
  };
  for (const unit of units) {
    if (hang + widthOf(unit) <= columns) {
      together.push(unit);
      continue;
    }
    flush();
    lines.push(...wrapLines(unit, columns, { lead: nextLead(), hang: hang + 2 }));
  }
  flush();
  return lines;
}

interface Shape {
  /** Text before the first word. */
  readonly lead?: string;
  /** Number of spaces before each line except the first. */
  readonly hang?: number;
  /** Text at the end of each line except the last. */
  readonly tail?: string;
  /** Text between two words of a line; default: a space. */
  readonly between?: string;
}

function fill(
  words: readonly string[],
  columns: number,
  { lead = '', hang = 0, tail = '', between = ' ' }: Shape,
): string[] {
  const lines: string[] = [];
  let line = lead;
  // Add up widths, because measuring the line again for each word would take quadratic time.
  let width = widthOf(lead);
  let isEmpty = true;
  for (const [i, word] of words.entries()) {
    const room = columns - (i === words.length - 1 ? 0 : widthOf(tail));
    const more = isEmpty ? word : between + word;
    if (!isEmpty && width + widthOf(more) > room) {
      lines.push(line + tail);
      line = ' '.repeat(hang) + word;
      width = widthOf(line);
    } else {
      line += more;
      width += widthOf(more);
    }
    isEmpty = false;
  }
  return [...lines, line];
}

/**
 * Wraps the text of help. Lines without indentation form a paragraph. An indented line is a row, which more indented
 * lines continue. Commands are broken with a backslash, so that a shell still accepts them.
 */
export function wrapHelp(text: string, columns: number): string {
  const out: string[] = [];
  let block: string[] = [];
  const flush = () => {
    if (block.length > 0)
      out.push(...(indentOf(block[0] ?? '') === 0 ? paragraph(block, columns) : row(block, columns)));
    block = [];
  };
  for (const line of text.split('\n')) {
    const [first] = block;
    const goesOn =
      first !== undefined &&
      (indentOf(first) === 0 ? indentOf(line) === 0 : indentOf(line) > indentOf(first));
    if (line === '' || !goesOn) flush();
    if (line === '') out.push('');
    else block.push(line);
  }
  flush();
  return out.join('\n');
}

const indentOf = (line: string) => line.length - line.trimStart().length;

const paragraph = (lines: readonly string[], columns: number) =>
  fill(lines.join(' ').match(WORDS) ?? [], columns, {});

/** With less room than this, the last column of a row starts further left. */
const LEAST_COLUMNS = 24;

function row(lines: readonly string[], columns: number): string[] {
  if (lines.every((line) => widthOf(line) <= columns)) return [...lines];
  const indent = indentOf(lines[0] ?? '');
  const [first = '', ...others] = lines.map((line) => line.trim());
  if (/^(?:runlock|source) /.test(first)) return example([first, ...others], indent, columns);
  const [lead = ''] = /^.*\S {2,}(?=\S)/.exec(first) ?? [];
  const words = [first.slice(lead.length), ...others].join(' ').split(' ');
  const column = indent + lead.length;
  const hang = columns - column < LEAST_COLUMNS ? indent + 4 : column;
  return fill(words, columns, { lead: ' '.repeat(indent) + lead, hang });
}

/** A command with a comment, which is put above the command if they don't fit on one line. */
function example([first = '', ...others]: readonly string[], indent: number, columns: number): string[] {
  const [, command = first, remark = ''] = /^(.*?) {2,}# (.*)$/.exec(first) ?? [];
  const lead = ' '.repeat(indent);
  const remarks = [remark, ...others.map((line) => line.replace(/^# /, ''))].join(' ').trim();
  const said = remarks === '' ? [] : fill(remarks.split(' '), columns - indent - 2, {});
  // Keep an option with its value, and a quoted text as one word.

  const words = command.match(/(?:-\S+ (?!-))?(?:[^\s']|'[^']*')+/g) ?? [];
  return [
    ...said.map((line) => `${lead}# ${line}`),
    ...fill(words, columns, { lead, hang: indent + 4, tail: ' \\' }),
  ];
}
