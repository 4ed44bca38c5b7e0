/**
 * Parsers of option values, one for each kind. Each throws a RunlockError `usage` with what is wrong and what is right.
 * The caller adds the value and where it stands (`atPlace`).
 */
import { RunlockError, isRunlockError } from '../errors.ts';
import { DURATIONS, LONGEST_MS, durationMs } from '../text/duration.ts';
import { quote } from '../text/suggested-command.ts';
import { visible } from '../text/visible.ts';
import { isName, toBoolean } from '../text/words.ts';

/**
 * Go's duration syntax, which Consul uses, with days and weeks added: `90s`, `1h30m`, `2d`, `0`. Returns milliseconds.
 * @param words other values that the option takes, for the message.
 */
export function parseDuration(text: string, words: readonly string[] = []): number {
  const ms = durationMs(text);
  if (ms === undefined) throw usage(`not a duration; ${[DURATIONS, ...words].join(', or ')}`);
  if (ms > LONGEST_MS)
    throw usage(
      words.includes('forever')
        ? "longer than a year; use 'forever'"
        : 'longer than a year; 366d is the most',
    );
  return ms;
}

/** Parses a duration, or one of `words`. */
export function durationOr<Word extends string>(...words: Word[]): (text: string) => number | Word {
  return (text) => {
    const word = words.find((known) => known === text);
    return word ?? parseDuration(text, words);
  };
}

/** Parses a duration of at least one millisecond. */
export function parsePositiveDuration(text: string): number {
  const ms = parseDuration(text);
  if (ms < 1) throw usage(ms > 0 ? 'must be at least 1ms' : 'must be greater than 0');
  return ms;
}

/** How long a claim keeps others out: `forever`, `none`, or milliseconds. */
export function parseHold(text: string): 'forever' | 'none' | number {
  const hold = durationOr('forever', 'none')(text);
  if (hold === 0) return 'none';
  return hold;
}

/** Whole seconds within Consul's limits, 10s to 24h. */
export function parseSessionTtl(text: string): number {
  const ms = parseDuration(text);
  if (ms < 10_000 || ms > 86_400_000 || ms % 1_000 !== 0)
    throw usage("not a session's TTL; Consul takes whole seconds from 10s to 24h");
  return ms;
}

const NAMES = "letters, digits, '.', '_' and '-', not starting with '.' or '-', and without '..'";

/** A grant checks the freeze of each level in one transaction, and Consul accepts 64 operations. */
const MOST_LEVELS = 50;

/** A path such as `prod/web`. */
export function parseGroup(text: string): string {
  const good = text.split('/').every(isName);
  if (!good) throw usage(`not a group; write a path like prod/web whose parts are ${NAMES}`);
  if (text.length > 200) throw usage(`too long (${text.length} characters); 200 are allowed`);
  const levels = text.split('/').length;
  if (levels > MOST_LEVELS) throw usage(`too deep (${levels} levels); ${MOST_LEVELS} are allowed`);
  return text;
}

/** A group as it is stored: `/`, the root, is ''. */
export function parseGroupOrRoot(text: string): string {
  return text === '/' ? '' : parseGroup(text);
}

/** Like `parseGroups`, but accepts the root too. */
export function parseGroupsOrRoot(text: string): readonly string[] {
  return text.split(',').map(parseGroupOrRoot);
}

/** One or more groups, separated by commas, because a variable can't be repeated like a flag. */
export function parseGroups(text: string): readonly string[] {
  return text.split(',').map(parseGroup);
}

export function parseNode(text: string): string {
  if (!isName(text)) throw usage(`not a node name; use ${NAMES}`);
  return text;
}

/** Names of services, separated by commas; `auto` is allowed too. */
export function parseServices(text: string): readonly string[] {
  return text.split(',').map((part) => {
    const name = part.trim();
    if (isName(name)) return name;
    const which = part === text ? '' : `'${name}' is `;
    throw usage(`${which}not a service name; use ${NAMES}, or write auto`);
  });
}

/** How many instances may be offline: a number, or a percentage such as `25%`. */
export function parseMaxOffline(text: string): number | { readonly percent: number } {
  const [, digits = '', sign] = /^(\d{1,6})(%?)$/.exec(text) ?? [];
  const number = Number(digits);
  const isPart = sign === '%';
  if (digits !== '' && number >= 1 && (!isPart || number <= 100))
    return isPart ? { percent: number } : number;
  throw usage('must be a whole number from 1, or a percentage from 1% to 100%');
}

/** What maintenance takes out of service: the node's instances of the named services, or the whole node. */
export function parseScope(text: string): 'service' | 'node' {
  if (text === 'service' || text === 'node') return text;
  throw usage('write service or node');
}

export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (/^\d+$/.test(text) && number >= least && number <= most) return number;
    throw usage(`not a whole number from ${least} to ${most}`);
  };
}

/** Exit codes, separated by commas: `0,2,213`. */
export function parseCodes(text: string): readonly number[] {
  if (text === '') return [];
  const code = wholeNumber(0, 255);
  return text.split(',').map((part) => {
    try {
      return code(part.trim());
    } catch {
      throw usage('not a list of exit codes; write numbers from 0 to 255 with commas, like 0,2');
    }
  });
}

/** The path of a file. */
export function parsePath(text: string): string {
  if (text === '') throw usage('write the name of a file');
  return text;
}

/** The value of an environment variable that sets a flag. */
export function parseFlag(text: string): boolean {
  const flag = text === '' ? false : toBoolean(text);
  if (flag === undefined) throw usage('write true or false');
  return flag;
}

/** The long options of all commands, as the names after `RUNLOCK_` in the environment. */
export const LONG_OPTIONS: readonly string[] = [
  'agent agent-session-ttl all allow-unknown-service any blocked canary check commands config conflict-exit-code dry-run during exit-code expires failed follow',
  'filter for force forget from-job gate-stable group healthy-within hold hooks-dir id if-absent if-value job json kill kill-after lines log-dir log-file',
  'log-format lost maintenance max-failures max-held max-offline max-running max-wait meta metrics-file min-healthy node noop not-started offline ok-codes',
  'on-timeout owner param pause prefix principal publish quiet raw reason reboot-codes release-on-signal requests service session-ttl settle silent-for since',
  'slot slots splay stable state state-dir steps tag tasks-dir timeout touch triggered ttl until verbose wait wait-timeout watch when while',
].flatMap((line) => line.split(' '));

/** The variable of a long option. @param name the option without dashes. */
export const variableOfOption = (name: string): string =>
  `RUNLOCK_${name.replaceAll('-', '_').toUpperCase()}`;

/** The environment for the command, without this run's options: a nested runlock, or a daemon, must not inherit them. */
export function withoutOptions<T>(env: Readonly<Record<string, T>>): Record<string, T> {
  const variables = new Set(LONG_OPTIONS.map(variableOfOption));
  return Object.fromEntries(Object.entries(env).filter(([name]) => !variables.has(name)));
}

/** Parses a value, and adds value and place to the error message. @throws RunlockError */
export function atPlace<T>(place: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text);
  } catch (error) {
    if (!isRunlockError(error, 'usage')) throw error;
    throw usage(`${place}${asGiven(text)}: ${error.message}`);
  }
}

const MOST_QUOTED = 60;

/** The value, quoted for a shell; only the beginning if it is very long. */
const asGiven = (text: string) =>
  quote(visible(text.length > MOST_QUOTED ? `${text.slice(0, MOST_QUOTED)}…` : text));

export function usage(message: string): RunlockError {
  return new RunlockError('usage', message);
}
