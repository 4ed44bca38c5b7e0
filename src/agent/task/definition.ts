/** A task's file → what the task is. Pure. */
import { nearest } from '../../text/nearest.ts';
import { RunlockError } from '../../errors.ts';
import { fill, placeholdersOf, takeParameter, toParameter } from './parameters.ts';
import type { Draft, Parameter } from './parameters.ts';
import { isPrincipal } from '../../jobs/keys.ts';
import { textsOf, toYesOrNo } from './texts.ts';
import { TRIGGER_KEYS, readTrigger, toTrigger } from './trigger.ts';
import type { Trigger, TriggerDraft } from './trigger.ts';

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
  /** Principals who may ask for it from afar; none: nobody. */
  readonly allow: readonly string[];
  /** Undefined: no change of a condition, and no age, asks for a run. */
  readonly trigger?: Trigger;
  /** Instead of `command` where a job only tries; undefined: such a job is refused. */
  readonly noop?: Task['command'];
  /** Whether the end of its output may be shown to who watches a job. */
  readonly tail: boolean;
}

/** As a part of a file's name, of a key and of a log's name. */
const TASK_NAME = /^[a-z0-9][a-z0-9_-]{0,63}$/;

export const isTaskName = (name: string) => TASK_NAME.test(name);

export const TASK_NAMES =
  "lower-case letters, digits, '-' and '_', at most 64, and begins with a letter or a digit";

/** What a task's file may say besides the options of `exec`. */
const OWN: readonly string[] = [
  ...['command', 'description', 'params', 'user', 'cwd', 'env', 'allow', 'noop', 'tail'],
  ...TRIGGER_KEYS,
];

/** Whether this is the task's own affair; all else is an option of `exec`. */
export const isOfTask = ({ path: [first = ''] }: Entry) => OWN.includes(first);

/** @throws RunlockError `config`: file and line, what is wrong, and what is right. */
export function toTask({ name, file }: Pick<Task, 'name' | 'file'>, entries: readonly Entry[]): Task {
  const read: Reading = {
    params: new Map(),
    env: {},
    allow: [],
    tail: true,
    trigger: { draft: {}, line: 0 },
  };
  for (const entry of entries) at(file, entry.line, () => take(entry, read));
  const { command, noop, user, cwd, description, env, allow, tail } = read;
  if (!command) throw wrong(`${file}: a task needs a command, as in command = ["/usr/bin/chef-client"]`);
  const trigger = at(file, read.trigger.line, () => toTrigger(read.trigger.draft));
  const params = [...read.params.values()].map((each) => at(file, each.line, () => toParameter(each)));
  const task: Task = {
    name,
    file,
    command: command.words,
    params,
    env,
    allow,
    tail,
    ...(noop && { noop: noop.words }),
    ...(trigger && { trigger }),
    ...(description !== undefined && { description }),
    ...(user !== undefined && { user }),
    ...(cwd !== undefined && { cwd }),
  };
  at(file, command.line, () => checkPlaceholders(task, 'command'));
  if (noop) at(file, noop.line, () => checkPlaceholders({ ...task, command: noop.words }, 'noop'));
  at(file, command.line, () => checkUse(task));
  return task;
}

interface Words {
  readonly words: Task['command'];
  readonly line: number;
}

interface Reading {
  command?: Words;
  noop?: Words;
  allow: readonly string[];
  tail: boolean;
  /** With the first line that speaks of it. */
  trigger: { readonly draft: TriggerDraft; readonly line: number };
  description?: string;
  user?: string;
  cwd?: string;
  readonly params: Map<string, Draft>;
  readonly env: Record<string, string>;
}

function take({ path: [key = '', ...below], value, line }: Entry, read: Reading): void {
  switch (key) {
    case 'command':
    case 'noop':
      read[key] = { words: toCommand(key, below, value), line };
      return;
    case 'allow':
      read.allow = textsOf(key, below, value).map(toPrincipal);
      return;
    case 'tail':
      read.tail = toYesOrNo(key, below.length === 0 ? value : undefined);
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
    case 'params':
      takeParameter(below, { value, line }, read.params);
      return;
    default: {
      const known = TRIGGER_KEYS.find((each) => each === key);
      if (!known) throw wrong(`${key}: unknown key`);
      const { draft, line: first } = read.trigger;
      read.trigger = { draft: { ...draft, ...readTrigger(known, below, value) }, line: first || line };
    }
  }
}

function toPrincipal(name: string): string {
  if (isPrincipal(name)) return name;
  throw wrong(
    `allow: '${name}' is not a principal's name; use letters, digits, '.', '_' and '-', at most 64, not starting with '.' or '-'`,
  );
}

function toCommand(key: string, below: readonly string[], value: unknown): Task['command'] {
  const words: readonly unknown[] = below.length === 0 && Array.isArray(value) ? value : [];
  const [program, ...args] = words.filter((word) => typeof word === 'string');
  if (program === undefined || words.length !== args.length + 1)
    throw wrong(`${key} is a list of texts: ${key} = ["/usr/bin/chef-client", "-o", "recipe[{recipe}]"]`);
  if ([program, ...args].some((word) => word.includes('\0')))
    throw wrong(`${key}: a word can't hold a zero byte`);
  if (placeholdersOf(program).length > 0) throw wrong(`${key}: the program itself can't be a parameter`);
  return [absolute(key, program), ...args];
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

function checkUse({ command, noop = command, params }: Task): void {
  const used = new Set([...command, ...noop].flatMap(placeholdersOf));
  const unused = params.find(({ name }) => !used.has(name));
  if (unused)
    throw wrong(`params.${unused.name} is used nowhere in the command; write {${unused.name}} there`);
}

/** Each placeholder is a parameter, and each default would be taken. */
function checkPlaceholders(task: Task, key: 'command' | 'noop'): void {
  const { command, params } = task;
  const used = new Set(command.flatMap(placeholdersOf));
  const names = params.map(({ name }) => name);
  for (const name of used) {
    if (names.includes(name)) continue;
    const meant = nearest(name, names);
    throw wrong(
      `${key}: {${name}} is not a parameter; ${meant ? `did you mean {${meant}}?` : `declare params.${name}, or write {{${name}}} for the text itself`}`,
    );
  }
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
