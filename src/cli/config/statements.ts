/** TOML text → the content and line number of each statement. */
import { TomlError, parse } from 'smol-toml';
import { RunlockError } from '../../errors.ts';

/** The header of a section (`[[…]]`: of a list), or one value; an inline table has one statement for each value. */
export interface Statement {
  readonly kind: 'head' | 'list-head' | 'value';
  /** From 1; the first line of a value with several lines. */
  readonly line: number;
  /** The full path: `['groups', 'prod/web', 'slots']`. */
  readonly path: readonly string[];
  /** The parsed value; a table only if it is empty. */
  readonly value: unknown;
}

/**
 * @param name the file's name, for messages.
 * @throws RunlockError `config`: not TOML; the message has line and column.
 */
export function readStatements(name: string, text: string): readonly Statement[] {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof TomlError) throw notToml(name, text, error);
    throw error;
  }
  return split(text);
}

/**
 * Finds the line of each statement, which the parser does not report. The whole text is valid TOML, so the lines read so
 * far are valid TOML exactly where a statement ends; inside a string, an array or a table they are not.
 */
function split(text: string): Statement[] {
  const found: Statement[] = [];
  let section: readonly string[] = [];
  let open = '';
  let line = 0;
  for (const [index, part] of text.split(/(?<=\n)/).entries()) {
    if (open === '') line = index + 1;
    open += part;
    const table = whole(open);
    if (!table) continue;
    const [head] = /^\[\[?/.exec(open.trimStart()) ?? [];
    if (head !== undefined) {
      section = headPath(table);
      found.push({ kind: head === '[' ? 'head' : 'list-head', line, path: section, value: undefined });
    } else {
      const values = leaves(table, section);
      found.push(...values.map(([path, value]) => ({ kind: 'value' as const, line, path, value })));
    }
    open = '';
  }
  return found;
}

type Table = Readonly<Record<string, unknown>>;

function whole(text: string): Table | undefined {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof TomlError) return undefined;
    throw error;
  }
}

export function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** A header alone is parsed as nested tables. */
function headPath(table: Table): string[] {
  const [first] = Object.entries(table);
  if (!first) return [];
  const [name, below] = first;
  return [name, ...(isTable(below) ? headPath(below) : [])];
}

function leaves(table: Table, above: readonly string[]): [readonly string[], unknown][] {
  return Object.entries(table).flatMap(([name, value]): [readonly string[], unknown][] => {
    const path = [...above, name];
    return isTable(value) && Object.keys(value).length > 0 ? leaves(value, path) : [[path, value]];
  });
}

function notToml(name: string, text: string, { line, column, message }: TomlError): RunlockError {
  const open = unclosedQuote(text);
  if (open && open.line <= line) {
    const { quote } = open;
    const said = `unclosed quote: write ${quote} on both sides of the text`;
    return new RunlockError('config', `${name}:${open.line}:${open.column}: ${said}`);
  }
  const [what = ''] = message.replace(/^Invalid TOML document: /, '').split('\n');
  const hint = hintFor(text.split('\n')[line - 1] ?? '');
  return new RunlockError('config', `${name}:${line}:${column}: not TOML: ${what}${hint}`);
}

/** Comments and the four kinds of quoted strings, longer quotes first; the last alternatives are unclosed strings. */
const QUOTED =
  /#[^\n]*|"""(?:\\[^]|[^\\])*?"""|'''[^]*?'''|"(?!"")(?:\\.|[^"\\\n])*"|'(?!'')[^'\n]*'|("""|'''|"|')/g;

/** The first unclosed quote in a text that is not valid TOML. */
function unclosedQuote(text: string): { quote: string; line: number; column: number } | undefined {
  for (const { 1: quote, index } of text.matchAll(QUOTED)) {
    if (quote === undefined) continue;
    const before = text.slice(0, index).split('\n');
    return { quote, line: before.length, column: (before.at(-1) ?? '').length + 1 };
  }
  return undefined;
}

/** A hint at missing quotes, the most common mistake. */

function hintFor(line: string): string {
  const path = /^\s*\[(?!groups\b)([^\s"'\]]+\/[^\s"'\]]*)\]/.exec(line);
  if (path) return `; a group's section is [groups."${path[1] ?? ''}"]`;
  const head = /^\s*\[groups\.([^\s"'\]]*\/[^\s"'\]]*)\]/.exec(line);
  if (head) return `; a group's name needs quotes: [groups."${head[1] ?? ''}"]`;
  const value = /^\s*([\w-]+)\s*=\s*(?!(?:true|false|[\d_]+)\b\s*$)([A-Za-z0-9][^\s"'#]*)\s*(?:#.*)?$/.exec(
    line,
  );
  return value ? `; a text needs quotes: ${value[1] ?? ''} = "${value[2] ?? ''}"` : '';
}
