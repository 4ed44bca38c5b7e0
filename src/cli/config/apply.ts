/** Option values from the configuration file, for options that neither flags nor the environment set. */
import type { Command, Option } from 'commander';
import type { Config, Key, Keys, Setting } from './read.ts';
import { RunlockError, isRunlockError, reasonOf } from '../../errors.ts';
import type { ConfigUse, Context, Env } from '../command.ts';
import {
  environmentText,
  isOfLineAlone,
  isRepeatable,
  keyOf,
  parseEnvironment,
  parseValue,
} from '../option.ts';

/**
 * Options for a single call, which a file must not set: they would change what every call does or prints, and, as with
 * `force` and `owner`, what it destroys.
 */
const PER_CALL: ReadonlySet<string> = new Set([
  ...['config', 'json', 'dry_run', 'force', 'owner', 'slot', 'failed', 'exit_code'],
  ...[
    'reason',
    'for',
    'forget',
    'silent_for',
    'watch',
    'check',
    'all',
    'blocked',
    'agent',
    'param',
    'triggered',
    'job',
    'commands',
    'state',
    'id',
    'kill',
  ],
  ...['ttl', 'if_value', 'if_absent', 'touch', 'until', 'while', 'any', 'stable', 'on_timeout', 'since'],
]);

/** Each group of a run can set these in its own section; for all other options the groups must agree. */
export const PER_GROUP: ReadonlySet<string> = new Set(['slots', 'hold', 'release_on_signal']);

const uses = new WeakMap<Command, ConfigUse>();

/** Notes how a command uses the file, before its line is read. */
export function noteConfigUse(command: Command, use: ConfigUse): void {
  uses.set(command, use);
}

const isPerGroup = (command: Command, key: string) =>
  PER_GROUP.has(key) || uses.get(command)?.perGroup?.includes(key);

/** The keys that a file may have: every option of every command. */
export function keysOf(commands: readonly Command[]): Keys {
  const keys = new Map<string, Key>();
  const options = commands.flatMap((command) => command.options);
  // Those that the file can set come first.
  for (const option of [...options].sort((a, b) => Number(isOfLineAlone(a)) - Number(isOfLineAlone(b)))) {
    const name = keyOf(option);
    // Of the same name in another command, which only the command line sets.
    if (isOfLineAlone(option) && keys.has(name)) continue;
    const checks = [...(keys.get(name)?.checks ?? []), (text: string) => void parseValue(option, text)];
    keys.set(name, {
      flags: option.flags.replace(/^-\w, /, ''),
      takes: takenBy(option),
      perCall: PER_CALL.has(name) || isOfLineAlone(option),
      checks,
    });
  }
  return keys;
}

function takenBy(option: Option): Key['takes'] {
  if (option.isBoolean()) return 'flag';
  if (isRepeatable(option)) return 'texts';
  return /<list\b/.test(option.flags) ? 'list' : 'value';
}

/** The configuration that was read for a command. */
const loaded = new WeakMap<Command, Config>();

export const configOf = (command: Command) => loaded.get(command);

/** Why the file could not be read, for a command that runs without it. */
const faults = new WeakMap<Command, RunlockError>();

export const configFaultOf = (command: Command) => faults.get(command);

/**
 * Fills in options from the file that neither a flag nor a variable set.
 * @param keys the keys of all commands; called only if there is a file.
 * @throws RunlockError `config`: the file can't be read, or is wrong.
 */
export async function applyConfig(
  command: Command,
  context: Context,
  keys: () => Promise<Keys>,
): Promise<void> {
  try {
    const config = await loadConfig(command, context, keys);
    if (!config) return;
    loaded.set(command, config);
    fillFromConfig(command, context.env, config, groupsOf(command, context.env, config));
  } catch (error) {
    if (!isRunlockError(error)) throw error;
    const wrong = uses.get(command)?.wrong;
    if (wrong === 'report' && error.code === 'config') faults.set(command, error);
    else if (wrong !== 'ignore') throw error;
  }
}

/** Reads the file of --config, or the default file; undefined: there is none. */
async function loadConfig(
  command: Command,
  { env, readText, uid, checkFile }: Context,
  keys: () => Promise<Keys>,
): Promise<Config | undefined> {
  const option = find(command, '--config');
  if (!option) return undefined;
  const { value, source } = effective(command, env, option);
  const path = String(value);
  try {
    const text = readText(path);
    const { readConfig } = await import('./read.ts');
    if (saysNothing(text)) return readConfig(path, text, new Map());
    const isRoots = uid === ROOT && source === 'default';
    if (isRoots || uses.get(command)?.trusted) await checkFile?.(path);
    return readConfig(path, text, await keys());
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (isRunlockError(error)) throw error;
    if (source === 'default' && (code === 'ENOENT' || code === 'ENOTDIR')) return undefined;
    const named = { cli: `--config ${path}`, env: `RUNLOCK_CONFIG=${path}`, default: path }[source];
    throw new RunlockError('config', `${named}: ${unreadable[code] ?? reasonOf(error)}`, { cause: error });
  }
}

const ROOT = 0;

/** Whether a file has only comments, like the package's: then no command has to be loaded to check it. */
const saysNothing = (text: string) => text.split('\n').every((line) => /^\s*(?:#|$)/.test(line));

const unreadable: Readonly<Record<string, string>> = {
  ENOENT: 'no such file; correct the name, or leave it out',
  EACCES: 'permission denied; make it readable for this user, or name another file with --config',
  EISDIR: 'it is a folder; name a file in it',
};

export function fillFromConfig(command: Command, env: Env, config: Config, groups: readonly string[]): void {
  for (const option of command.options) {
    const { source } = effective(command, env, option);
    if (source !== 'default' || (groups.length > 1 && isPerGroup(command, keyOf(option)))) continue;
    const setting = settingFor(option, groups, config);
    if (!setting) continue;
    const value = parseSetting(option, setting, config.path);
    command.setOptionValueWithSource(option.attributeName(), value, 'config');
  }
}

/**
 * Fills in what a task's file says of the options of `exec`: as if they stood on the command line, so neither environment
 * nor configuration file speaks against it.
 */
export function fillFromTask(command: Command, task: Config): void {
  for (const option of command.options) {
    const setting = task.general.get(keyOf(option));
    if (!setting) continue;
    const value = parseSetting(option, setting, task.path);
    command.setOptionValueWithSource(option.attributeName(), value, 'cli');
  }
}

/** The value of an option for one of several groups; a flag or variable sets it for all groups. */
export function valueIn(command: Command, long: string, group: string): unknown {
  const option = find(command, long);
  if (!option) return undefined;
  const name = option.attributeName();
  const config = configOf(command);
  // An option without a default has no source.
  const source = command.getOptionValueSource(name) ?? 'default';
  const setting = source === 'default' && config ? settingFor(option, [group], config) : undefined;
  return config && setting ? parseSetting(option, setting, config.path) : command.getOptionValue(name);
}

/** A value can be right for one command and wrong for another, such as `hold = "none"` for acquire. */
function parseSetting(option: Option, { text, texts, line }: Setting, path: string): unknown {
  try {
    return texts ? texts.flatMap((one) => parseValue(option, one)) : parseValue(option, text);
  } catch (error) {
    if (!isRunlockError(error)) throw error;
    throw new RunlockError('config', `${path}:${line}: ${keyOf(option)} = ${text}: ${error.message}`);
  }
}

/** The value from the nearest section: the group's own, its parent's, and so on, then the top of the file. */
export function settingFor(option: Option, groups: readonly string[], config: Config): Setting | undefined {
  if (isOfLineAlone(option)) return undefined;
  const key = keyOf(option);
  const [first, ...others] = groups.map((group) => ({ group, setting: nearestSetting(key, group, config) }));
  if (!first) return config.general.get(key);
  const other = others.find(({ setting }) => setting?.text !== first.setting?.text);
  if (!other) return first.setting;
  const [one, two] = [first, other].map(
    ({ group, setting }) => `${setting ? `${setting.text} (line ${setting.line})` : 'not set'} for ${group}`,
  );
  const say = `${key} is ${one ?? ''} and ${two ?? ''}; for several groups, use ${option.long ?? key}`;
  throw new RunlockError('config', `${config.path}: ${say}`);
}

function nearestSetting(key: string, group: string, config: Config): Setting | undefined {
  const parts = group.split('/');
  for (let count = parts.length; count > 0; count -= 1) {
    const setting = config.groups.get(parts.slice(0, count).join('/'))?.get(key);
    if (setting) return setting;
  }
  return config.general.get(key);
}

/** The groups of the command; empty if it reads all groups, or only looks at several. */
export function groupsOf(command: Command, env: Env, config: Config | undefined): readonly string[] {
  const index = command.registeredArguments.findIndex((argument) => argument.name() === 'group');
  const named: unknown = command.processedArgs[index];
  if (typeof named === 'string') return named === '' ? [] : [named];
  const option = find(command, '--group');
  if (!option) return Array.isArray(named) && named.length === 1 ? named.map(String) : [];
  const { value, source } = effective(command, env, option);
  if (command.registeredArguments[index]?.variadic) {
    const all = [named, source === 'cli' ? value : []].flat().filter((each) => typeof each === 'string');
    return all.length === 1 ? all : [];
  }
  const setting = source === 'default' && !isOfLineAlone(option) ? config?.general.get('group') : undefined;
  const group: unknown = config && setting ? parseSetting(option, setting, config.path) : value;
  return [group].flat().filter((each) => typeof each === 'string');
}

export const find = (command: Command, long: string) =>
  command.options.find((option) => option.long === long);

interface Effective {
  readonly value: unknown;
  readonly source: 'cli' | 'env' | 'default';
}

/** The value by flag, environment or default. */
function effective(command: Command, env: Env, option: Option): Effective {
  const name = option.attributeName();
  if (command.getOptionValueSource(name) === 'cli')
    return { value: command.getOptionValue(name), source: 'cli' };
  const text = environmentText(option, env);
  if (text !== undefined) return { value: parseEnvironment(option, text), source: 'env' };
  return { value: option.defaultValue, source: 'default' };
}
