/** How options are declared and read, for every command alike. */
import { Option } from 'commander';
import type { Command } from 'commander';
import { DEFAULT_PREFIX } from '../text/suggested-command.ts';
import {
  atPlace,
  durationOr,
  parseFlag,
  parseGroup,
  parseGroups,
  parseNode,
  parsePath,
  parseSessionTtl,
  usage,
  variableOfOption,
  wholeNumber,
} from './values.ts';
import type { Common, Env } from './command.ts';

/** Stored option values, by attribute name; each was made by its option's parser. */
export type Values = Record<string, unknown>;

export const prefixOption = () =>
  option('--prefix <path>', 'KV path of all groups', parseGroup, DEFAULT_PREFIX);

export const commonOptions = () => [
  option('-v, --verbose', 'log debug messages too', parseFlag, false),
  option('-q, --quiet', 'log errors only', parseFlag, false),
  option('--log-format <text|json>', 'format of log lines on stderr', parseLogFormat, 'text'),
  option('--config <file>', 'path of the configuration file', parsePath, '/etc/runlock/config.toml'),
];

/** The last of a command that asks Consul; `json`: what it prints as JSON, where it does. */
export const lastOptions = (json?: string) => [
  ...(json === undefined ? [] : [option('--json', json, parseFlag, false)]),
  prefixOption(),
  ...commonOptions(),
];

/** Of a command that waits for a slot: of how many, and for how long. */
export const slotOptions = () => [
  option('-n, --slots <n>', 'runs allowed at a time in the group', wholeNumber(1, 100_000), 1),
  option(
    '-w, --wait <duration|forever>',
    'how long to wait for a slot; 0: do not wait',
    durationOr('forever'),
    3_600_000,
    '1h',
  ),
];

/** More options of commands that take a slot: the node name, the session TTL, and the exit code without a slot. */
export const ownerOptions = () => [
  option('-E, --conflict-exit-code <n>', 'exit code when no slot was available', wholeNumber(0, 255), 75),
  option('--node <name>', "node name to hold the lock as (default: the agent's node name)", parseNode),
  option('--session-ttl <duration>', 'TTL of the Consul session', parseSessionTtl, 30_000, '30s'),
];

export function toCommon(values: Values): Common {
  const { verbose, quiet, logFormat } = values as Values & Common;
  return { verbose, quiet, logFormat };
}

function parseLogFormat(text: string): 'text' | 'json' {
  if (text === 'text' || text === 'json') return text;
  throw usage('unknown log format; use text or json');
}

type Parser = (text: string) => unknown;

/** Parsers by option, for the environment and the configuration file: commander keeps them for flags alone. */
const parsers = new WeakMap<Option, Parser>();

export function option(
  flags: string,
  description: string,
  parser: Parser,
  fallback?: unknown,
  fallbackText?: string,
): Option {
  const made = new Option(flags, description);
  parsers.set(made, parser);
  if (fallback !== undefined) made.default(fallback, fallbackText);
  // A flag without a value stays commander's own.
  return made.required || made.optional ? made.argParser(checked(parser, made)) : made;
}

/**
 * Of these only the command line says anything: in the environment and the file the same name stands for something
 * else.
 */
const ofLineAlone = new WeakSet<Option>();

export const isOfLineAlone = (option: Option): boolean => ofLineAlone.has(option);

/**
 * One that can be given several times: its value is a list of groups, each once. Without a `fallback` the command looks
 * at groups, and the one that the environment and the file name is where runs of this node are.
 */
export function groupsOption(
  description: string,
  fallback?: string,
  parser: (text: string) => readonly string[] = parseGroups,
): Option {
  const first = fallback === undefined ? undefined : [fallback];
  const made = option('-g, --group <path>', description, parser, first, fallback);
  if (fallback === undefined) ofLineAlone.add(made);
  const parse = checked(parser, made);
  return made.argParser((text, before: readonly string[] | undefined) => [
    ...new Set([...(before === undefined || before === first ? [] : before), ...parse(text)]),
  ]);
}

/**
 * The group of a command that takes it as an argument, or by --group. Undefined: the line names none.
 * @throws RunlockError `usage`: two of them.
 */
export function groupOfLine(command: Command, named: string | undefined): string | undefined {
  const given = command.getOptionValueSource('group') === 'cli';
  const flags = given ? (command.getOptionValue('group') as readonly string[]) : [];
  if (named === undefined) return given ? oneGroup(command.name(), flags) : undefined;
  if (!given) return named;
  const [one, other] = [named, flags.join(',')].map((group) => group || '/');
  throw usage(`${command.name()} takes one group, and was given ${one} and --group ${other}; leave one out`);
}

/** The group of a command that takes one, and is given a list as every other is. @throws RunlockError `usage` */
export function oneGroup(command: string, groups: readonly string[]): string {
  const [group = 'default', ...others] = groups;
  if (others.length === 0) return group;
  const named = groups.map((each) => each || '/').join(', ');
  throw usage(`${command} takes one group, not ${groups.length} (${named}); run it once for each`);
}

export function addOptions(command: Command, options: readonly Option[]): void {
  for (const each of options) command.addOption(each);
}

/** A parser that says where the value stands: for an option, or for the argument of that name. */
export function checked<T>(parser: (text: string) => T, at: Option | string): (text: string) => T {
  const place = typeof at === 'string' ? at : (at.long ?? '');
  return (text) => atPlace(`${place} `, text, parser);
}

export function collect<T>(parser: (text: string) => T, at: string): (text: string, before: T[]) => T[] {
  return (text, before) => [...before, checked(parser, at)(text)];
}

/** Fills in from RUNLOCK_<OPTION> what no flag gave. */
export function withEnvironment(command: Command, env: Env): Values {
  for (const each of command.options) {
    const name = each.attributeName();
    const text = environmentText(each, env);
    if (command.getOptionValueSource(name) === 'cli' || text === undefined) continue;
    command.setOptionValueWithSource(name, parseEnvironment(each, text), 'env');
  }
  return command.opts();
}

/** Keys of options whose name means something else in another command. */
const keys = new WeakMap<Option, string>();

/** Gives the option another name in the configuration file, and in the environment. `key`: as in the file. */
export function keyedAs(key: string, of: Option): Option {
  keys.set(of, key);
  return of;
}

/** An option's name where there are no dashes: in the configuration file, and in capitals in the environment. */
export const keyOf = (option: Option) =>
  keys.get(option) ?? (option.long ?? '').slice(2).replaceAll('-', '_');

export const variableOf = (option: Option) => variableOfOption(keyOf(option));

/** Undefined: not set, or set to nothing. */
export const environmentText = (option: Option, env: Env) =>
  isOfLineAlone(option) ? undefined : env[variableOf(option)] || undefined;

/** @throws RunlockError `usage`, with the variable's name. */
export function parseEnvironment(option: Option, text: string): unknown {
  return atPlace(`${variableOf(option)}=`, text, () => parseValue(option, text));
}

/** What a flag's text means. @throws RunlockError `usage` */
export function parseValue(option: Option, text: string): unknown {
  return parsers.get(option)?.(text);
}
