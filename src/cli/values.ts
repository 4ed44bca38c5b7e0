/** Parsers of option values, one for each kind. Each throws a RunlockError `usage` with what is wrong and what is right. */
import { RunlockError } from '../errors.ts';
import { isName, toBoolean } from '../text/words.ts';

const UNITS_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
};

/** A year: longer than any run waits, and far inside what a timer can do in steps. */
const LONGEST_MS = 366 * 24 * 3_600_000;

/** Go's duration syntax, as Consul's own: `90s`, `1h30m`, `0`. Milliseconds. */
export function parseDuration(text: string): number {
  const part = /(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/gy;
  let ms = 0;
  let end = 0;
  for (let match = part.exec(text); match; match = part.exec(text)) {
    ms += Number(match[1]) * (UNITS_MS[match[2] ?? ''] ?? 0);
    end = part.lastIndex;
  }
  if (text === '0') return 0;
  if (text === '' || end !== text.length)
    throw usage(`'${text}' is not a duration; write it like 90s, 10m or 1h30m`);
  if (ms > LONGEST_MS)
    throw usage(`'${text}' is longer than a year; write 'forever' where that is meant and allowed`);
  return ms;
}

/** A duration, or one of `words`. */
export function durationOr<Word extends string>(...words: Word[]): (text: string) => number | Word {
  return (text) => {
    const word = words.find((known) => known === text);
    if (word !== undefined) return word;
    if (/^[a-z]+$/i.test(text))
      throw usage(`'${text}' is neither a duration like 90s or 1h30m nor ${words.join(' nor ')}`);
    return parseDuration(text);
  };
}

/** A duration of at least one millisecond. */
export function parsePositiveDuration(text: string): number {
  const ms = parseDuration(text);
  if (ms < 1) throw usage(`'${text}' is no time at all; give a duration like 90s or 1h30m`);
  return ms;
}

/** How long a claim keeps others out: `forever`, `none`, or milliseconds. */
export function parseHold(text: string): 'forever' | 'none' | number {
  const hold = durationOr('forever', 'none')(text);
  if (hold === 0) return 'none';
  return hold;
}

/** Consul takes 10s to 24h, in whole seconds here. */
export function parseSessionTtl(text: string): number {
  const ms = parseDuration(text);
  if (ms < 10_000 || ms > 86_400_000 || ms % 1_000 !== 0) {
    throw usage(`'${text}' can't be a session's TTL; Consul takes whole seconds from 10s to 24h`);
  }
  return ms;
}

const NAMES = "letters, digits, '.', '_' and '-', not starting with '.' or '-', and without '..'";

/** A grant asks for the freeze of each level in one transaction, which has 64 operations at most. */
const MOST_LEVELS = 50;

/** A path such as `prod/web`. */
export function parseGroup(text: string): string {
  const good = text.split('/').every(isName);
  if (!good) throw usage(`'${text}' can't be a group; write a path like prod/web whose parts are ${NAMES}`);
  if (text.length > 200) throw usage(`this group's name has ${text.length} characters; 200 are allowed`);
  const levels = text.split('/').length;
  if (levels > MOST_LEVELS) throw usage(`this group has ${levels} levels; ${MOST_LEVELS} are allowed`);
  return text;
}

/** A group as it is stored: `/`, the root, is ''. */
export function parseGroupOrRoot(text: string): string {
  return text === '/' ? '' : parseGroup(text);
}

/** One group, or several with commas between them: a variable is there once. */
export function parseGroups(text: string): readonly string[] {
  return text.split(',').map(parseGroup);
}

export function parseNode(text: string): string {
  if (!isName(text)) throw usage(`'${text}' can't be a node's name; use ${NAMES}`);
  return text;
}

/** Names of services, comma-separated; `auto` is one of them. */
export function parseServices(text: string): readonly string[] {
  return text.split(',').map((part) => {
    const name = part.trim();
    if (isName(name)) return name;
    throw usage(`'${name}' can't be a service's name; use ${NAMES}, or write auto`);
  });
}

/** How many may be offline: a number, or a part of all such as `25%`. */
export function parseMaxOffline(text: string): number | { readonly percent: number } {
  const [, digits = '', sign] = /^(\d{1,6})(%?)$/.exec(text) ?? [];
  const number = Number(digits);
  const isPart = sign === '%';
  if (digits !== '' && number >= 1 && (!isPart || number <= 100))
    return isPart ? { percent: number } : number;
  throw usage(`'${text}' is neither a whole number from 1 nor a part from 1% to 100%`);
}

/** What is taken out of service: the node's instances of the named services, or the whole node. */
export function parseScope(text: string): 'service' | 'node' {
  if (text === 'service' || text === 'node') return text;
  throw usage(`'${text}' can't be in maintenance; write service or node`);
}

export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (/^\d+$/.test(text) && number >= least && number <= most) return number;
    throw usage(`'${text}' is not a whole number from ${least} to ${most}`);
  };
}

/** Exit codes, comma-separated: `0,2,213`. */
export function parseCodes(text: string): readonly number[] {
  if (text === '') return [];
  const code = wholeNumber(0, 255);
  return text.split(',').map((part) => {
    try {
      return code(part.trim());
    } catch {
      throw usage(`'${text}' is not a list of exit codes; write numbers from 0 to 255 with commas, like 0,2`);
    }
  });
}

/** A file's name. */
export function parsePath(text: string): string {
  if (text === '') throw usage('an empty name is no file');
  return text;
}

/** The word of an environment variable for a flag. */
export function parseFlag(text: string): boolean {
  const flag = text === '' ? false : toBoolean(text);
  if (flag === undefined) throw usage(`'${text}' is neither true nor false`);
  return flag;
}

/** The long options of all commands: each is `RUNLOCK_<OPTION>` in the environment. */
export const LONG_OPTIONS: readonly string[] = [
  'agent allow-unknown-service check config conflict-exit-code dry-run exit-code failed for force forget gate-stable group healthy-within',
  'hold json kill-after log-format maintenance max-held max-offline max-wait metrics-file min-healthy node ok-codes',
  'owner prefix quiet reason reboot-codes release-on-signal service session-ttl settle silent-for slot slots splay',
  'timeout verbose wait watch',
].flatMap((line) => line.split(' '));

/** The environment of a command: what this call was told is not meant for a runlock inside, or for a daemon that goes on. */
export function withoutOptions<T>(env: Readonly<Record<string, T>>): Record<string, T> {
  const variables = new Set(LONG_OPTIONS.map((name) => `RUNLOCK_${name.replaceAll('-', '_').toUpperCase()}`));
  return Object.fromEntries(Object.entries(env).filter(([name]) => !variables.has(name)));
}

export function usage(message: string): RunlockError {
  return new RunlockError('usage', message);
}
