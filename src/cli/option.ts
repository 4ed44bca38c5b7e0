/** How options are declared and read, for every command alike. */
import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import { RunlockError } from '../errors.ts';
import { parseFlag, parseGroup, usage } from '../options.ts';
import type { Common, Env } from './invocation.ts';

/** Stored option values, by attribute name; each was made by its option's parser. */
export type Values = Record<string, unknown>;

export const prefixOption = () =>
  option('--prefix <path>', 'where in the KV store all groups are', parseGroup, 'runlock');

export const commonOptions = () => [
  option('-v, --verbose', 'say everything on stderr', parseFlag, false),
  option('-q, --quiet', 'say only errors on stderr', parseFlag, false),
  option('--log-format <format>', 'text or json', parseLogFormat, 'text'),
];

export function toCommon(values: Values): Common {
  const { verbose, quiet, logFormat } = values as Values & Common;
  return { verbose, quiet, logFormat };
}

function parseLogFormat(text: string): 'text' | 'json' {
  if (text === 'text' || text === 'json') return text;
  throw usage(`'${text}' is no log format; use text or json`);
}

type Parser = (text: string) => unknown;

/** Parsers by option, for the environment: commander keeps them for flags alone. */
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
  return made.required ? made.argParser(checked(parser)) : made;
}

export function addOptions(command: Command, options: readonly Option[]): void {
  for (const each of options) command.addOption(each);
}

/** Commander names the option and the value, and adds what the parser says. */
export function checked<T>(parser: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parser(text);
    } catch (error) {
      if (error instanceof RunlockError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}

export function collect<T>(parser: (text: string) => T): (text: string, before: T[]) => T[] {
  return (text, before) => [...before, checked(parser)(text)];
}

/** Fills in from RUNLOCK_<OPTION> what no flag gave. */
export function withEnvironment(command: Command, env: Env): Values {
  const values: Values = command.opts();
  for (const each of command.options) {
    const name = each.attributeName();
    const variable = `RUNLOCK_${(each.long ?? '').slice(2).replaceAll('-', '_').toUpperCase()}`;
    const text = env[variable];
    if (command.getOptionValueSource(name) === 'cli' || text === undefined || text === '') continue;
    try {
      values[name] = parsers.get(each)?.(text);
    } catch (error) {
      if (error instanceof RunlockError) throw usage(`${variable}=${text}: ${error.message}`);
      throw error;
    }
  }
  return values;
}
