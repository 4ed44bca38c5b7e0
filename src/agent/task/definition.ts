/** A task's file → what the task is. Pure. */
import { nearest } from '../../text/nearest.ts';
import { RunlockError } from '../../errors.ts';
import { fill, placeholdersOf } from './parameters.ts';
import type { Parameter } from './parameters.ts';

/** A value of the file, where it stands: `['params', 'recipe', 'match']`. */
export interface Entry {
  readonly path: readonly string[];
  readonly value: unknown;
  /** From 1. */
  readonly line: number;
}

/** A command that a node's own files define under a name. The options of `exec` are read by who knows them. */
export interface Task {
  readonly name: string;
  readonly file: string;
  readonly description?: string;
  /** Program and arguments; `{name}` stands for a parameter. */
  readonly command: readonly [string, ...string[]];
  readonly params: readonly Parameter[];
  /** Undefined: the user who runs it. */
  readonly user?: string;
  /** Undefined: the root folder. */
  readonly cwd?: string;
  readonly env: Readonly<Record<string, string>>;
}

/** As a part of a file's name, of a key and of a log's name. */
const TASK_NAME = /^[a-z0-9][a-z0-9_-]{0,63}$/;

export const isTaskName = (name: string) => TASK_NAME.test(name);

export const TASK_NAMES =
  "lower-case letters, digits, '-' and '_', at most 64, and begins with a letter or a digit";

/** What a task's file may say besides the options of `exec`. */
const OWN = ['command', 'description', 'params', 'user', 'cwd', 'env'];

/** Whether this is the task's own affair; all else is an option of `exec`. */
export const isOfTask = ({ path: [first = ''] }: Entry) => OWN.includes(first);

/** @throws RunlockError `config`: file and line, what is wrong, and what is right. */
export function toTask({ name, file }: Pick<Task, 'name' | 'file'>, entries: readonly Entry[]): Task {
  const read: Reading = { params: new Map(), env: {} };
  for (const entry of entries) at(file, entry.line, () => take(entry, read));
  const { command, user, cwd, description, env } = read;
  if (!command) throw wrong(`${file}: a task needs a command, as in command = ["/usr/bin/chef-client"]`);
  const params = [...read.params.values()].map((each) => at(file, each.line, () => toParameter(each)));
  const task: Task = {
    name,
    file,
    command: command.words,
    params,
    env,
    ...(description !== undefined && { description }),
    ...(user !== undefined && { user }),
    ...(cwd !== undefined && { cwd }),
  };
  at(file, command.line, () => checkPlaceholders(task));
  return task;
}

interface Draft {
  readonly name: string;
  readonly line: number;
  match?: string;
  default?: string;
  description?: string;
  dash?: boolean;
}

interface Reading {
  command?: { readonly words: Task['command']; readonly line: number };
  description?: string;
  user?: string;
  cwd?: string;
  readonly params: Map<string, Draft>;
  readonly env: Record<string, string>;
}

function take({ path: [key = '', ...below], value, line }: Entry, read: Reading): void {
  switch (key) {
    case 'command':
      read.command = { words: toCommand(below, value), line };
      return;
    case 'description':
    case 'user':
      read[key] = text(key, below, value);
      return;
    case 'cwd':
      read.cwd = absolute('cwd', text('cwd', below, value));
      return;
    case 'env':
      takeVariable(below, value, read);
      return;
    default:
      takeParameter(below, { value, line }, read);
  }
}

function toCommand(below: readonly string[], value: unknown): Task['command'] {
  const words: readonly unknown[] = below.length === 0 && Array.isArray(value) ? value : [];
  const [program, ...args] = words.filter((word) => typeof word === 'string');
  if (program === undefined || words.length !== args.length + 1)
    throw wrong('command is a list of texts: command = ["/usr/bin/chef-client", "-o", "recipe[{recipe}]"]');
  if ([program, ...args].some((word) => word.includes('\0')))
    throw wrong("command: a word can't hold a zero byte");
  if (placeholdersOf(program).length > 0) throw wrong("command: the program itself can't be a parameter");
  return [absolute('command', program), ...args];
}

function absolute(key: string, path: string): string {
  if (path.startsWith('/')) return path;
  throw wrong(`${key}: '${path}' is not an absolute path; begin it with /`);
}

function text(key: string, below: readonly string[], value: unknown): string {
  if (below.length === 0 && typeof value === 'string' && value !== '' && !CONTROL.test(value)) return value;
  throw wrong(`${key}: write a text in quotes, of one line`);
}

// eslint-disable-next-line no-control-regex
const CONTROL = /[\x00-\x1f\x7f]/;

function takeVariable([name, ...below]: readonly string[], value: unknown, read: Reading): void {
  if (name === undefined || below.length > 0) throw wrong('env: write variables, as in env.LANG = "C.UTF-8"');
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) throw wrong(`env.${name}: not a variable's name`);
  if (/^RUNLOCK_|^CONSUL_LOCK_HELD$/.test(name))
    throw wrong(`env.${name}: runlock sets this variable itself`);
  const plain = typeof value === 'number' ? String(value) : value;
  if (typeof plain !== 'string' || plain.includes('\0')) throw wrong(`env.${name}: write a text in quotes`);
  read.env[name] = plain;
}

const FIELDS = ['match', 'default', 'description', 'dash'] as const;

function takeParameter(
  [name, field, ...below]: readonly string[],
  { value, line }: Pick<Entry, 'value' | 'line'>,
  { params }: Reading,
): void {
  if (name === undefined || below.length > 0)
    throw wrong('params: write parameters, as in params.recipe = { match = "[a-z_]+" }');
  if (!/^[a-z][a-z0-9_]{0,31}$/.test(name))
    throw wrong(`params.${name}: a name is of lower-case letters, digits and '_', and begins with a letter`);
  const draft = params.get(name) ?? { name, line };
  params.set(name, draft);
  if (field === undefined) return;
  const known = FIELDS.find((each) => each === field);
  if (known === undefined) {
    const meant = nearest(field, FIELDS);
    throw wrong(
      `params.${name}: unknown key '${field}'; ${meant ? `did you mean '${meant}'?` : `write ${FIELDS.join(', ')}`}`,
    );
  }
  if (known === 'dash') {
    if (typeof value !== 'boolean') throw wrong(`params.${name}.dash: write true or false, without quotes`);
    draft.dash = value;
  } else {
    if (typeof value !== 'string') throw wrong(`params.${name}.${known}: write a text in quotes`);
    draft[known] = value;
  }
}

function toParameter({ name, match, dash = false, description, ...draft }: Draft): Parameter {
  if (match === undefined) throw wrong(`params.${name}: say what it may be, as in match = "[a-z_]+"`);
  const parameter: Parameter = {
    name,
    match,
    dash,
    ...(draft.default !== undefined && { fallback: draft.default }),
    ...(description !== undefined && { description }),
  };
  if (!isPattern(match)) throw wrong(`params.${name}.match: '${match}' is not a regular expression`);
  return parameter;
}

function isPattern(match: string): boolean {
  try {
    // By itself too: brackets must not close what stands around it.
    return [match, `^(?:${match})$`].every((source) => new RegExp(source, 'u').source !== '');
  } catch {
    return false;
  }
}

/** Each placeholder is a parameter, each parameter is used, and each default would be taken. */
function checkPlaceholders(task: Task): void {
  const { command, params } = task;
  const used = new Set(command.flatMap(placeholdersOf));
  const names = params.map(({ name }) => name);
  for (const name of used) {
    if (names.includes(name)) continue;
    const meant = nearest(name, names);
    throw wrong(
      `command: {${name}} is not a parameter; ${meant ? `did you mean {${meant}}?` : `declare params.${name}, or write {{${name}}} for the text itself`}`,
    );
  }
  const unused = names.find((name) => !used.has(name));
  if (unused !== undefined)
    throw wrong(`params.${unused} is used nowhere in the command; write {${unused}} there`);
  const defaults = params.flatMap(({ name, fallback }) =>
    fallback === undefined ? [] : [[name, fallback] as const],
  );
  const others = params.filter(({ fallback }) => fallback === undefined).map(({ name }) => name);
  const sample = {
    ...task,
    params: params.filter(({ name }) => !others.includes(name)),
    command: withoutOthers(command, others),
  };
  fill(sample, new Map(defaults));
}

/** Only to try the defaults: a word with a parameter that has none can't be filled. */
const withoutOthers = (command: Task['command'], others: readonly string[]): Task['command'] => [
  command[0],
  ...command.slice(1).filter((word) => !placeholdersOf(word).some((name) => others.includes(name))),
];

function at<T>(file: string, line: number, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof RunlockError && !error.message.startsWith(file))
      throw new RunlockError('config', `${file}:${line}: ${error.message}`);
    throw error;
  }
}

function wrong(message: string): RunlockError {
  return new RunlockError('config', message);
}
