/** TOML text → the content and line number of each statement. */
import { TomlError, parse } from 'smol-toml';
import { RunlockError } from '../../errors.ts';

/** A section's head (`[[…]]` is a list's), or one value; an inline table gives one for each value in it. */
export interface Statement {
  readonly kind: 'head' | 'list-head' | 'value';
  /** From 1; the first one of a value that takes several lines. */
  readonly line: number;
  /** All of it, from the top: `['groups', 'prod/web', 'slots']`. */
  readonly path: readonly string[];
  /** What TOML makes of it; a table only when it is empty. */
  readonly value: unknown;
}

/**
 * @param name of the file, for messages.
 * @throws RunlockError `config`: not TOML; with line and column.
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
 * The parser says no lines. But the text as a whole is TOML, so line by line it becomes TOML again exactly where a
 * statement ends: in the middle of a text, an array or a table something is still open.
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

/** A head alone is nothing but tables, one in the other. */
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

/** Comments, and texts in quotes of all four kinds, the longer ones first; the last alternatives have no end. */
const QUOTED =
  /#[^\n]*|"""(?:\\[^]|[^\\])*?"""|'''[^]*?'''|"(?!"")(?:\\.|[^"\\\n])*"|'(?!'')[^'\n]*'|("""|'''|"|')/g;

/** The first quote that nothing closes, in a text that is not TOML. */
function unclosedQuote(text: string): { quote: string; line: number; column: number } | undefined {
  for (const { 1: quote, index } of text.matchAll(QUOTED)) {
    if (quote === undefined) continue;
    const before = text.slice(0, index).split('\n');
    return { quote, line: before.length, column: (before.at(-1) ?? '').length + 1 };
  }
  return undefined;
}

/** What people forget: quotes. */
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
