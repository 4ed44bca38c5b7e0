/** `[not:]KIND:NAME[=VALUE]` → a condition. Pure. */
import { RunlockError } from '../errors.ts';
import { checkValue } from '../state/document.ts';
import { pathFault } from '../state/path.ts';
import { nearest } from '../text/nearest.ts';
import { isName } from '../text/words.ts';

/** A statement about the current data in Consul. */
export type Kind =
  /** The state is set; is set to `value`; has another value or is not set. */
  | {
      readonly kind: 'state';
      readonly path: string;
      readonly is?: 'equal' | 'other';
      readonly value?: string;
    }
  /** `group`: '' for the root, which only a freeze can have. */
  | { readonly kind: 'idle' | 'blocked' | 'frozen'; readonly group: string }
  /** Without a group: in the command's groups. `node`: `*` for every node. */
  | ({ readonly kind: 'active' } & NodeIn)
  | ({ readonly kind: 'good' } & NodeIn)
  | { readonly kind: 'healthy'; readonly service: string; readonly instances: number }
  | { readonly kind: 'agent'; readonly node: string };

interface NodeIn {
  readonly node: string;
  readonly group?: string;
}

export type Condition = Kind & {
  /** The condition as the user wrote it. */
  readonly text: string;
  readonly not: boolean;
};

const KINDS = ['state', 'idle', 'blocked', 'active', 'good', 'healthy', 'frozen', 'agent'] as const;
type Name = (typeof KINDS)[number];

const NOT = 'not:';
export const EVERY_NODE = '*';

/** @throws RunlockError `usage`: what is wrong, at which character (from 1), and what was probably meant. */
export function parseCondition(text: string): Condition {
  const not = text.startsWith(NOT);
  const start = not ? NOT.length : 0;
  const colon = text.indexOf(':', start);
  const word = colon === -1 ? text.slice(start) : text.slice(start, colon);
  const name = KINDS.find((known) => known === word);
  if (name === undefined) throw unknownKind(word, start);
  if (colon === -1) throw wrong(text.length, `'${name}' needs a name, as in ${EXAMPLES[name]}`);
  return { ...parseKind(name, { text, at: colon + 1 }), text, not };
}

/** The same condition, where it names no group: in this one. */
export function inGroup(condition: Condition, group: string): Condition {
  if ((condition.kind !== 'active' && condition.kind !== 'good') || condition.group !== undefined)
    return condition;
  return { ...condition, group, text: `${condition.text}@${group}` };
}

const EXAMPLES: Readonly<Record<Name, string>> = {
  state: 'state:db/schema=42',
  idle: 'idle:prod/db',
  blocked: 'blocked:prod/db',
  active: 'active:db01 or active:db01@prod/db',
  good: 'good:db01@prod/db or good:*@prod/db',
  healthy: 'healthy:web or healthy:web:2',
  frozen: 'frozen:prod/db',
  agent: 'agent:db01',
};

/** A condition's text, and the position to read next. */
interface Rest {
  readonly text: string;
  readonly at: number;
}

function parseKind(name: Name, rest: Rest): Kind {
  switch (name) {
    case 'state':
      return parseState(rest);
    case 'idle':
    case 'blocked':
      return { kind: name, group: parseGroup(rest) };
    case 'frozen':
      return { kind: name, group: restOf(rest) === '/' ? '' : parseGroup(rest) };
    case 'active':
    case 'good':
      return { kind: name, ...parseNodeIn(name, rest) };
    case 'healthy':
      return parseHealthy(rest);
    case 'agent':
      return { kind: name, node: parseName('node', rest, restOf(rest)) };
  }
}

const restOf = ({ text, at }: Rest) => text.slice(at);

function parseState(rest: Rest): Kind {
  const [, path = '', sign, value = ''] = /^(.*?)(?:(!?=)(.*))?$/s.exec(restOf(rest)) ?? [];
  checkPath(rest, path);
  if (sign === undefined) return { kind: 'state', path };
  // Nearly always a slip, and a wait that never ends.
  if (value.startsWith('='))
    throw wrong(
      rest.at + 1 + path.length + sign.length,
      `write one '=': state:${path}${sign}${value.replace(/^=+/, '')}`,
    );
  return { kind: 'state', path, is: sign === '=' ? 'equal' : 'other', value: checkValue(value) };
}

function checkPath(rest: Rest, path: string): void {
  const fault = pathFault(path);
  if (fault !== undefined) throw wrong(rest.at + 1 + badPart(path), fault);
}

/** Position of the first invalid part of a path. */
function badPart(path: string): number {
  let at = 0;
  for (const part of path.split('/')) {
    if (!isName(part)) return at;
    at += part.length + 1;
  }
  return 0;
}

/** As for every other option. */
const LONGEST_GROUP = 200;

function parseGroup(rest: Rest): string {
  const group = restOf(rest);
  if (!group.split('/').every(isName))
    throw wrong(rest.at + 1 + badPart(group), `'${group}' is not a valid group; ${LIKE}`);
  if (group.length > LONGEST_GROUP)
    throw wrong(rest.at + 1, `this group has ${group.length} characters; ${LONGEST_GROUP} are allowed`);
  return group;
}

const LIKE = 'write a path like prod/web';

function parseNodeIn(kind: 'active' | 'good', rest: Rest): NodeIn {
  const [node = '', ...groups] = restOf(rest).split('@');
  const every = kind === 'good' && node === EVERY_NODE;
  if (!every) parseName('node', rest, node);
  if (groups.length === 0) return { node };
  return { node, group: parseGroup({ text: rest.text, at: rest.at + node.length + 1 }) };
}

function parseName(what: string, { at }: Rest, name: string): string {
  if (isName(name)) return name;
  const most = name === EVERY_NODE ? "; only good: takes '*', as in good:*@prod/db" : '';
  throw wrong(at + 1, `'${name}' is not a valid ${what} name${most}`);
}

function parseHealthy(rest: Rest): Kind {
  const [service = '', count, ...more] = restOf(rest).split(':');
  parseName('service', rest, service);
  if (count === undefined) return { kind: 'healthy', service, instances: 1 };
  const at = rest.at + service.length + 2;
  if (more.length > 0 || !/^[1-9]\d{0,5}$/.test(count))
    throw wrong(at, `'${[count, ...more].join(':')}' is not a number of instances from 1 to 999999`);
  return { kind: 'healthy', service, instances: Number(count) };
}

function unknownKind(word: string, at: number): RunlockError {
  const meant = nearest(word.toLowerCase(), word.toLowerCase() === 'not' ? [] : [...KINDS, 'not']);
  const hint =
    word === 'not'
      ? "give 'not:' once"
      : meant === undefined
        ? `the kinds are ${KINDS.join(', ')}`
        : `did you mean '${meant}:'?`;
  return wrong(at + 1, `unknown kind of condition '${word}'; ${hint}`);
}

function wrong(at: number, message: string): RunlockError {
  return new RunlockError('usage', `character ${at}: ${message}`);
}
