/** Parameters of a task: what each may be, and the command's words with them in their places. Pure. */
import { RunlockError } from '../../errors.ts';
import { nearest } from '../../text/nearest.ts';
import { visible } from '../../text/visible.ts';

export interface Parameter {
  readonly name: string;
  /** A regular expression that must match the whole value. */
  readonly match: string;
  /** Undefined: it has to be given. */
  readonly fallback?: string;
  readonly description?: string;
  /** Whether a value that begins a word may begin with '-', which most programs take for an option. */
  readonly dash: boolean;
}

interface Parameterised {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  readonly noop?: readonly [string, ...string[]];
  readonly params: readonly Parameter[];
}

/** Most characters of a value. */
const LONGEST = 256;

/** `{name}`; `{{name}}`, as templates write it, is plain text. */
const PLACEHOLDER = /(?<!\{)\{([a-z][a-z0-9_]*)\}/g;

export const placeholdersOf = (word: string): string[] =>
  [...word.matchAll(PLACEHOLDER)].map(([, name = '']) => name);

/**
 * Each value becomes a part of one word, never of a shell's line.
 * @throws RunlockError `usage`: a parameter that is unknown, missing, or not what the task's file allows.
 */
export function fill(
  { name: task, command: [program, ...args], params }: Parameterised,
  given: ReadonlyMap<string, string>,
): readonly [string, ...string[]] {
  const names = params.map(({ name }) => name);
  const unknown = [...given.keys()].find((name) => !names.includes(name));
  if (unknown !== undefined) throw usage(unknownText(task, unknown, names));
  const values = new Map(params.map((parameter) => [parameter.name, valueOf(task, parameter, given)]));
  const filled = args.map((word) => word.replace(PLACEHOLDER, (_, name: string) => values.get(name) ?? ''));
  for (const [index, word] of args.entries()) checkDash({ word, filled: filled[index] ?? '', params });
  return [program, ...filled];
}

/**
 * The words of the command that only tries.
 * @throws RunlockError `usage`: the task has none; as `fill`.
 */
export function fillNoop(
  task: Parameterised,
  given: ReadonlyMap<string, string>,
): readonly [string, ...string[]] {
  const { name, noop } = task;
  if (noop) return fill({ ...task, command: noop }, given);
  throw usage(`task ${name} has no noop command; write noop = ["/program", …] into its file`);
}

function valueOf(
  task: string,
  { name, match, fallback }: Parameter,
  given: ReadonlyMap<string, string>,
): string {
  const value = given.get(name) ?? fallback;
  if (value === undefined)
    throw usage(`task ${task} needs the parameter ${name}; give --param ${name}=VALUE`);
  if (value.length > LONGEST)
    throw usage(`parameter ${name} is too long (${value.length} characters); ${LONGEST} are allowed`);
  if (/\p{Cc}/u.test(value))
    throw usage(`parameter ${name}: '${visible(value)}' has control characters; leave them out`);
  if (!new RegExp(`^(?:${match})$`, 'u').test(value))
    throw usage(
      `parameter ${name}: '${visible(value)}' is not allowed; the whole value must match ${visible(match)}`,
    );
  return value;
}

/** An option that a value smuggles in. */
function checkDash({
  word,
  filled,
  params,
}: {
  word: string;
  filled: string;
  params: readonly Parameter[];
}): void {
  if (word.startsWith('-') || !filled.startsWith('-')) return;
  const names = placeholdersOf(word);
  if (params.every(({ name, dash }) => dash || !names.includes(name))) return;
  throw usage(
    `parameter ${names.join(' and ')}: '${visible(filled)}' begins with '-', so the command would take it for an option; only a task with dash = true for it allows that`,
  );
}

function unknownText(task: string, name: string, names: readonly string[]): string {
  const meant = nearest(name, names);
  const hint = meant
    ? `did you mean '${meant}'?`
    : names.length === 0
      ? 'it takes none'
      : `it takes ${names.join(', ')}`;
  return `task ${task} has no parameter '${visible(name)}'; ${hint}`;
}

function usage(message: string): RunlockError {
  return new RunlockError('usage', message);
}

/** As far as the file has been read. */
export interface Draft {
  readonly name: string;
  readonly line: number;
  match?: string;
  default?: string;
  description?: string;
  dash?: boolean;
}

const FIELDS = ['match', 'default', 'description', 'dash'] as const;

/** Adds what a line of the file says of a parameter. @param below its name and field. @throws RunlockError `config` */
export function takeParameter(
  [name, field, ...below]: readonly string[],
  { value, line }: { readonly value: unknown; readonly line: number },
  params: Map<string, Draft>,
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

/** @throws RunlockError `config`: it is not complete. */
export function toParameter({ name, match, dash = false, description, ...draft }: Draft): Parameter {
  if (match === undefined)
    throw wrong(
      `params.${name}: match is missing; write what its values look like, such as match = "[a-z_]+"`,
    );
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

function wrong(message: string): RunlockError {
  return new RunlockError('config', message);
}
