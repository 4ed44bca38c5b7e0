/** Declares and reads the options of all commands. */
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

/** Parsed option values, by attribute name. */
export type Values = Record<string, unknown>;

export const prefixOption = () =>
  option('--prefix <path>', 'KV path of all groups', parseGroup, DEFAULT_PREFIX);

export const commonOptions = () => [
  option('-v, --verbose', 'log debug messages too', parseFlag, false),
  option('-q, --quiet', 'log errors only', parseFlag, false),
  option('--log-format <text|json>', 'format of log lines on stderr', parseLogFormat, 'text'),
  option('--config <file>', 'path of the configuration file', parsePath, '/etc/runlock/config.toml'),
];

/** The last options of every command that uses Consul. @param json description of `--json`, if the command has it. */
export const lastOptions = (json?: string) => [
  ...(json === undefined ? [] : [option('--json', json, parseFlag, false)]),
  prefixOption(),
  ...commonOptions(),
];

/** Options of commands that wait for a slot: number of slots, and time to wait. */
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

/** Parsers by option, for the environment and the configuration file, because commander uses them only for flags. */
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
  // Commander handles flags without a value itself.
  return made.required || made.optional ? made.argParser(checked(parser, made)) : made;
}

/**
 * Options that only the command line can set, because in the environment and the file the same name means something
 * else.
 */
const ofLineAlone = new WeakSet<Option>();

export const isOfLineAlone = (option: Option): boolean => ofLineAlone.has(option);

export function onLineAlone(option: Option): Option {
  ofLineAlone.add(option);
  return option;
}

/**
 * An option that can be repeated; its value is a list of groups without duplicates. Without a `fallback` the command
 * only looks at groups, and ignores the group of the environment and the file, which is for this node's runs.
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
 * The group from the argument or --group. Undefined: the line names none.
 * @throws RunlockError `usage`: the line names two.
 */
export function groupOfLine(command: Command, named: string | undefined): string | undefined {
  const given = command.getOptionValueSource('group') === 'cli';
  const flags = given ? (command.getOptionValue('group') as readonly string[]) : [];
  if (named === undefined) return given ? oneGroup(command.name(), flags) : undefined;
  if (!given) return named;
  const [one, other] = [named, flags.join(',')].map((group) => group || '/');
  throw usage(`${command.name()} takes one group, and was given ${one} and --group ${other}; leave one out`);
}

/** The only group of a list, for a command that takes just one. @throws RunlockError `usage` */
export function oneGroup(command: string, groups: readonly string[]): string {
  const [group = 'default', ...others] = groups;
  if (others.length === 0) return group;
  const named = groups.map((each) => each || '/').join(', ');
  throw usage(`${command} takes one group, not ${groups.length} (${named}); run it once for each`);
}

/** Options that are given once for each of their values; the file has a list of them. */
const repeatable = new WeakSet<Option>();

export const isRepeatable = (option: Option): boolean => repeatable.has(option);

/** One that can be given several times: its value is a list of what `parser` makes of each. */
export function repeatedOption(flags: string, description: string, parser: Parser): Option {
  const made = option(flags, description, (text) => [parser(text)]);
  repeatable.add(made);
  const parse = checked(parser, made);
  return made.argParser((text, before: readonly unknown[] | undefined) => [...(before ?? []), parse(text)]);
}

export function addOptions(command: Command, options: readonly Option[]): void {
  for (const each of options) command.addOption(each);
}

/** Adds the name of the option or argument to a parser's error messages. */
export function checked<T>(parser: (text: string) => T, at: Option | string): (text: string) => T {
  const place = typeof at === 'string' ? at : (at.long ?? '');
  return (text) => atPlace(`${place} `, text, parser);
}

export function collect<T>(parser: (text: string) => T, at: string): (text: string, before: T[]) => T[] {
  return (text, before) => [...before, checked(parser, at)(text)];
}

/** Fills in options that no flag set from RUNLOCK_<OPTION>. */
export function withEnvironment(command: Command, env: Env): Values {
  for (const each of command.options) {
    const name = each.attributeName();
    const text = environmentText(each, env);
    if (command.getOptionValueSource(name) === 'cli' || text === undefined) continue;
    command.setOptionValueWithSource(name, parseEnvironment(each, text), 'env');
  }
  return command.opts();
}

/** Other keys for options whose name means something else in another command. */
const keys = new WeakMap<Option, string>();

/** Gives the option another name in the configuration file and the environment. @param key the name in the file. */
export function keyedAs(key: string, of: Option): Option {
  keys.set(of, key);
  return of;
}

/** An option's name in the configuration file, and in capitals in the environment, where names have no dashes. */
export const keyOf = (option: Option) =>
  keys.get(option) ?? (option.long ?? '').slice(2).replaceAll('-', '_');

export const variableOf = (option: Option) => variableOfOption(keyOf(option));

/** Undefined: not set, or empty. */
export const environmentText = (option: Option, env: Env) =>
  isOfLineAlone(option) ? undefined : env[variableOf(option)] || undefined;

/** @throws RunlockError `usage`, with the variable's name. */
export function parseEnvironment(option: Option, text: string): unknown {
  return atPlace(`${variableOf(option)}=`, text, () => parseValue(option, text));
}

/** Parses the text of a flag. @throws RunlockError `usage` */
export function parseValue(option: Option, text: string): unknown {
  return parsers.get(option)?.(text);
}
