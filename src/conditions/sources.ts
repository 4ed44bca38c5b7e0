/** What to read for conditions: keys, trees of keys, services. Pure. */
import { RunlockError, assertNever } from '../errors.ts';
import { freezeKeys, groupKeys } from '../lock/keys.ts';
import { stateKey, stateRule } from '../state/path.ts';
import { EVERY_NODE } from './parse.ts';
import type { Condition } from './parse.ts';

/** One key, or every key that begins with `key`. `path`: of a state. */
export interface KeySource {
  readonly kind: 'key' | 'tree';
  readonly key: string;
  readonly rule: string;
  readonly path?: string;
}

export interface ServiceSource {
  readonly kind: 'service';
  readonly service: string;
}

export type Source = KeySource | ServiceSource;

export interface Where {
  /** Without a slash at its end. */
  readonly prefix: string;
  /** The groups of conditions that name none. */
  readonly groups: readonly string[];
}

/** All are read in one transaction, which allows at most 64 operations. */
const MOST = 64;

/** Each is a request of its own at each look, and several share a blocking query. */
const MOST_SERVICES = 32;

/** Each source once. @throws RunlockError `usage`: more sources than one transaction can read. */
export function sourcesOf(conditions: readonly Condition[], where: Where): readonly Source[] {
  const all = conditions.flatMap((condition) => sourcesOfOne(condition, where));
  const sources = [...new Map(all.map((source) => [idOf(source), source])).values()];
  const services = sources.filter(({ kind }) => kind === 'service').length;
  if (services > MOST_SERVICES)
    throw new RunlockError(
      'usage',
      `these conditions need the health of ${services} services; at most ${MOST_SERVICES} are allowed`,
    );
  checkCount(sources.length - services);
  return sources;
}

/** @throws RunlockError `usage`: more reads than one transaction takes. */
export function checkCount(keys: number): void {
  if (keys > MOST)
    throw new RunlockError(
      'usage',
      `these conditions need ${keys} reads, but one consistent read takes ${MOST} at most; use fewer conditions, or publish one state for several of them`,
    );
}

export const idOf = (source: Source) => (source.kind === 'service' ? source.service : source.key);

export const agentKey = (prefix: string, node: string) => `${prefix}/.agents/${node}`;

export const groupsOf = (condition: { readonly group?: string }, { groups }: Where): readonly string[] =>
  condition.group === undefined ? groups : [condition.group];

const readKey = (key: string): Source => ({ kind: 'key', key, rule: `key "${key}" { policy = "read" }` });
const readTree = (key: string): Source => ({
  kind: 'tree',
  key,
  rule: `key_prefix "${key}" { policy = "read" }`,
});

function sourcesOfOne(condition: Condition, where: Where): Source[] {
  const { prefix } = where;
  switch (condition.kind) {
    case 'state': {
      const { path } = condition;
      return [{ kind: 'key', key: stateKey(prefix, path), rule: stateRule(prefix, path, 'read'), path }];
    }
    case 'idle':
    case 'blocked':
      return [readTree(groupKeys(prefix, condition.group).slotPrefix)];
    case 'active':
      return groupsOf(condition, where).map((group) => readTree(groupKeys(prefix, group).slotPrefix));
    case 'good':
      return groupsOf(condition, where).map((group) =>
        condition.node === EVERY_NODE
          ? readTree(groupKeys(prefix, group).run(''))
          : readKey(groupKeys(prefix, group).run(condition.node)),
      );
    case 'frozen':
      return freezeKeys(prefix, condition.group).map(readKey);
    case 'agent':
      return [readKey(agentKey(prefix, condition.node))];
    case 'healthy':
      return [{ kind: 'service', service: condition.service }];
    default:
      return assertNever(condition);
  }
}
