/** Turns errors of the command-line library into one line: what is wrong, where, and what to do next. */
import type { CommanderError } from 'commander';
import type { RunlockError } from '../errors.ts';
import { usage } from './values.ts';

/** Commander's messages, and plainer ones. */
const SAYINGS: readonly (readonly [said: RegExp, plain: string])[] = [
  [/^option '(?:-\w, )?(\S+) (.*)' argument missing$/, 'no value for $1 $2'],
  [/^missing required argument '(.*)'$/, 'missing <$1>'],
  [
    /^too many arguments for '(.*)'\. Expected (\d+) arguments? but got (\d+)$/,
    'too many arguments: $1 takes $2, not $3',
  ],
  [
    /^command-argument value '(.*)' is invalid for argument '(.*)'\. Allowed choices are (.*)$/s,
    "unknown $2 '$1'; use $3",
  ],
  [/^(.*) \(Did you mean (?:one of )?(.*)\?\)$/s, '$1; did you mean $2?'],
];

/** @param word first word of the line, which may be one of `commands`. */
export function usageOf(
  { code, message }: CommanderError,
  word: string | undefined,
  commands: readonly string[],
): RunlockError {
  if (code === 'commander.help') return usage("no command; see 'runlock --help'");
  const named = commands.find((name) => name === word);
  const said = message
    .replace(/^error: /, '')
    .replaceAll(/\.?\n+/g, ' ')
    .trim()
    .replace(/\.$/, '');
  const [pattern, plain] = SAYINGS.find(([known]) => known.test(said)) ?? [];
  const what = pattern && plain ? said.replace(pattern, plain) : said;
  return usage(`${what}; see '${['runlock', named, '--help'].filter(Boolean).join(' ')}'`);
}
