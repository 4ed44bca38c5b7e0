/**
 * The configuration file's text → checked settings. Checks the whole file, not only what the command needs.
 */
import { nearest } from '../../text/nearest.ts';
import { isTable, readStatements } from './statements.ts';
import type { Statement } from './statements.ts';
import { RunlockError, isRunlockError } from '../../errors.ts';
import { parseGroup } from '../values.ts';

/** A key that the file may have: the long name of an option, with underscores. */
export interface Key {
  /** As on the command line: `--wait <duration|forever>`. */
  readonly flags: string;
  /** `texts`: one text, or a list of texts, each as a flag of its own would give it. */
  readonly takes: 'flag' | 'value' | 'list' | 'texts';
  /** Whether the option is for a single call, so that a file must not set it. */
  readonly perCall: boolean;
  /** One for each command that has the option; one must accept the value. @throws RunlockError `usage` */
  readonly checks: readonly ((text: string) => void)[];
}

/** By name. */
export type Keys = ReadonlyMap<string, Key>;

export interface Setting {
  /** As the text of a flag. */
  readonly text: string;
  /** Of an option that is given several times: each of them; `text` is all of them, for messages. */
  readonly texts?: readonly string[];
  readonly line: number;
  /** The group whose section has it. */
  readonly section?: string;
}

export interface Config {
  readonly path: string;
  readonly general: ReadonlyMap<string, Setting>;
  readonly groups: ReadonlyMap<string, ReadonlyMap<string, Setting>>;
}

/** @throws RunlockError `config`: file, line, what is wrong, and what is right. */
export const readConfig = (path: string, text: string, keys: Keys): Config =>
  readSettings(path, readStatements(path, text), keys);

/** The same of statements that have been read. @throws as `readConfig` */
export function readSettings(path: string, statements: readonly Statement[], keys: Keys): Config {
  const general = new Map<string, Setting>();
  const groups = new Map<string, Map<string, Setting>>();
  for (const statement of statements) {
    const { line } = statement;
    try {
      const place = placeOf(statement);
      if (!place) continue;
      const { name, section } = place;
      const said = settingTexts(place, statement.value, keys);
      const settings = section === undefined ? general : (groups.get(section) ?? new Map<string, Setting>());
      settings.set(name, { ...said, line, ...(section !== undefined && { section }) });
      if (section !== undefined) groups.set(section, settings);
    } catch (error) {
      if (!isRunlockError(error)) throw error;
      throw new RunlockError('config', `${path}:${line}: ${error.message}`);
    }
  }
  return { path, general, groups };
}

interface Place {
  readonly name: string;
  readonly section?: string;
}

/** The option and group of a value; undefined: the statement only opens a section. */
function placeOf({ kind, path, value }: Statement): Place | undefined {
  if (kind === 'list-head') throw wrong(`write ${sectionName(path)}, with one bracket on each side`);
  const opens = kind === 'head' || isTable(value);
  const name = opens ? undefined : path.at(-1);
  const [first, group, ...deeper] = opens ? path : path.slice(0, -1);
  if (first !== undefined && first !== 'groups') throw unknownSection(first);
  if (deeper.length > 0) throw tooDeep([group ?? '', ...deeper]);
  if (group !== undefined) checkGroup(group);
  if (name === undefined) return undefined;
  if (first === 'groups' && group === undefined)
    throw wrong(
      `'${name}' is not allowed in [groups]; write it in a group's section, like [groups."prod/web"]`,
    );
  if (first === undefined && name === 'groups')
    throw wrong('\'groups\' is not an option; write sections, like [groups."prod/web"]');
  return { name, ...(group !== undefined && { section: group }) };
}

function unknownSection(name: string): RunlockError {
  const meant = nearest(name, ['groups']);
  return wrong(
    meant === undefined
      ? `unknown section [${name}]; options go at the top, or in a group's section like [groups."prod/web"]`
      : `unknown section [${name}]; did you mean '${meant}'?`,
  );
}

function tooDeep(parts: readonly string[]): RunlockError {
  const meant = sectionName(['groups', parts.join('/')]);
  return wrong(`${sectionName(['groups', ...parts])} is not a section; did you mean ${meant}?`);
}

function checkGroup(group: string): void {
  const error = thrownBy(() => parseGroup(group));
  if (error) throw wrong(`${sectionName(['groups', group])}: ${error.message}`);
}

/** A value as a flag, or several, would give it. */
function settingTexts(place: Place, value: unknown, keys: Keys): Pick<Setting, 'text' | 'texts'> {
  const key = keyAt(place, keys);
  try {
    if (key.takes === 'texts') return toTexts(value, key);
    const text = toText(value, key);
    if (text === undefined) throw wrong(expected(key));
    checkText(text, key);
    return { text };
  } catch (error) {
    if (isRunlockError(error))
      throw wrong(`${place.name} = ${show(value)}${inSection(place)}: ${error.message}`);
    throw error;
  }
}

/** @throws RunlockError the first command's error, if no command accepts the value. */
function checkText(text: string, { checks }: Key): void {
  const errors = checks.map((check) => thrownBy(() => check(text)));
  const [first] = errors;
  if (first && !errors.includes(undefined)) throw first;
}

function thrownBy(check: () => void): RunlockError | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    if (isRunlockError(error)) return error;
    throw error;
  }
}

/** Options that select groups, so they make no sense in a group's section. */
const GENERAL: readonly string[] = ['group', 'prefix'];

function keyAt(place: Place, keys: Keys): Key {
  const { name, section } = place;
  const key = keys.get(name);
  if (!key) throw unknownKey(place, keys);
  if (key.perCall) {
    const meant = nearest(name, fileKeys(keys));
    const hint = meant === undefined ? `use the flag ${key.flags}` : `did you mean '${meant}'?`;
    throw wrong(`'${name}' is not allowed in a file; ${hint}`);
  }
  if (section !== undefined && GENERAL.includes(name))
    throw wrong(`'${name}' can't depend on the group; write it at the top, not${inSection(place)}`);
  return key;
}

function unknownKey(place: Place, keys: Keys): RunlockError {
  const { name } = place;
  if (/token|^consul/i.test(name))
    return wrong(
      `'${name}' is not allowed in a file; use Consul's own CONSUL_* variables, such as CONSUL_HTTP_TOKEN_FILE`,
    );
  const unknown = `unknown key '${name}'${inSection(place)}`;
  const underscored = name.replaceAll('-', '_');
  if (underscored !== name && keys.has(underscored))
    return wrong(`${unknown}; write it with underscores: '${underscored}'`);
  const meant = nearest(underscored.toLowerCase(), fileKeys(keys));
  return wrong(
    `${unknown}; ${meant === undefined ? "see 'runlock exec --help'" : `did you mean '${meant}'?`}`,
  );
}

const fileKeys = (keys: Keys) => [...keys].flatMap(([known, { perCall }]) => (perCall ? [] : [known]));

function toText(value: unknown, { takes }: Key): string | undefined {
  if (takes === 'flag') return typeof value === 'boolean' ? String(value) : undefined;
  if (takes === 'value' || !Array.isArray(value)) return plainText(value);
  const parts = value.map(plainText);
  return parts.includes(undefined) ? undefined : parts.join(',');
}

function toTexts(value: unknown, key: Key): Pick<Setting, 'text' | 'texts'> {
  const all: unknown[] = Array.isArray(value) ? value : [value];
  const texts = all.map((each, i) => {
    const text = plainText(each);
    const error = text === undefined ? wrong(expected(key)) : thrownBy(() => checkText(text, key));
    if (error) throw all.length > 1 ? wrong(`item ${i + 1}: ${error.message}`) : error;
    return text ?? '';
  });
  return { text: show(value), texts };
}

function plainText(value: unknown): string | undefined {
  // Refuse other numbers: 1.50 would become 1.5, and only a quoted text stays unchanged.
  return typeof value === 'string' ? value : Number.isSafeInteger(value) ? String(value) : undefined;
}

function expected({ takes, flags }: Key): string {
  if (takes === 'flag') return 'write true or false, without quotes';
  const list = takes === 'list' || takes === 'texts' ? ', or a list of these' : '';
  return `write a text in quotes or a whole number${list}, as for ${flags}`;
}

const inSection = ({ section }: Place) => (section === undefined ? '' : ` in [groups."${section}"]`);

/** As in the file: `[groups.prod]`. */
function sectionName(path: readonly string[]): string {
  return `[${path.map((part) => (/^[\w-]+$/.test(part) ? part : JSON.stringify(part))).join('.')}]`;
}

function show(value: unknown): string {
  if (value instanceof Date) return value.toISOString();
  return typeof value === 'number' ? String(value) : JSON.stringify(value);
}

function wrong(message: string): RunlockError {
  return new RunlockError('config', message);
}
