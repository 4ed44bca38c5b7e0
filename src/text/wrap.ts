/** Text broken at words, for a terminal of so many columns. */
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

/** The same, as lines. `columns` undefined: it is one line. */
export function wrapLines(
  text: string,
  columns: number | undefined,
  shape: Pick<Shape, 'lead' | 'hang'> = {},
): string[] {
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
  /** Stands before the first word, as it is. */
  readonly lead?: string;
  /** Spaces before every line but the first. */
  readonly hang?: number;
  /** Stands at the end of each line that goes on. */
  readonly tail?: string;
  /** Between two words of a line; a space unless given. */
  readonly between?: string;
}

function fill(
  words: readonly string[],
  columns: number,
  { lead = '', hang = 0, tail = '', between = ' ' }: Shape,
): string[] {
  const lines: string[] = [];
  let line = lead;
  // Measured as it grows: anew for each word, a long line would take as long as its square.
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
 * A text of help for `columns`: what is not indented is a paragraph, an indented line is a row of its own, and lines
 * below it that are indented more go on with it. Rows that are commands are broken so that a shell still takes them.
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

/** Less room than this for the last column of a row, and it begins further left. */
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

/** A command, and a remark behind it, which comes before it where both have no room on a line. */
function example([first = '', ...others]: readonly string[], indent: number, columns: number): string[] {
  const [, command = first, remark = ''] = /^(.*?) {2,}# (.*)$/.exec(first) ?? [];
  const lead = ' '.repeat(indent);
  const remarks = [remark, ...others.map((line) => line.replace(/^# /, ''))].join(' ').trim();
  const said = remarks === '' ? [] : fill(remarks.split(' '), columns - indent - 2, {});
  // An option stays with its value, and what is in quotes is one word.
  const words = command.match(/(?:-\S+ (?!-))?(?:[^\s']|'[^']*')+/g) ?? [];
  return [
    ...said.map((line) => `${lead}# ${line}`),
    ...fill(words, columns, { lead, hang: indent + 4, tail: ' \\' }),
  ];
}
