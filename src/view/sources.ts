/** What `status` reads: the whole prefix, or the named groups and the freezes above them. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul, Entry, ReadOptions } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { groupKeys, parseKey } from '../lock/keys.ts';

export interface Scope {
  /** Without slashes at its ends. */
  readonly prefix: string;
  /** Empty: every group below the prefix. */
  readonly groups: readonly string[];
}

/** One read; without a group its tree is every group's. */
export type Source =
  | { readonly kind: 'tree'; readonly key: string; readonly group?: string }
  | { readonly kind: 'freeze'; readonly key: string };

/** What was read; `refused` has Consul's word on each freeze key that this token may not read. */
export interface Found {
  readonly entries: readonly Entry[];
  readonly refused?: ReadonlyMap<string, string>;
}

export function sourcesOf({ prefix, groups }: Scope): Source[] {
  if (groups.length === 0) return [{ kind: 'tree', key: `${prefix}/` }];
  const keys = [...new Set(groups)].map((group) => groupKeys(prefix, group));
  const above = new Set(keys.flatMap(({ freezes }) => freezes.slice(1)));
  return [
    ...keys.map(({ group, prefix: below }): Source => ({ kind: 'tree', key: below, group })),
    ...[...above].map((key): Source => ({ kind: 'freeze', key })),
  ];
}

/**
 * A freeze key above a group that may not be read is `refused`: a token for one group need not reach above it, and that
 * is worth a word, and no reason to show nothing.
 */
export async function readSource(
  consul: Consul,
  { prefix, source }: { prefix: string; source: Source },
  limits: Omit<ReadOptions, 'rule'>,
): Promise<Found & { readonly index?: number }> {
  const { key } = source;
  if (source.kind === 'tree') {
    const rule = `key_prefix "${key}" { policy = "read" }`;
    const { entries, index } = await consul.list(key, { ...limits, rule });
    const { group } = source;
    if (group === undefined) return { entries, index };
    return { entries: entries.filter((entry) => parseKey(prefix, entry.key)?.group === group), index };
  }
  try {
    const { entry, index } = await consul.get(key, { ...limits, rule: `key "${key}" { policy = "read" }` });
    return { entries: entry ? [entry] : [], index };
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) throw error;
    return { entries: [], refused: new Map([[key, error.message]]) };
  }
}

export function joinFound(parts: readonly Found[]): Found {
  return {
    entries: parts.flatMap(({ entries }) => entries),
    refused: new Map(parts.flatMap(({ refused }) => [...(refused ?? [])])),
  };
}

/** What this token lacks to see all that `scope` names; undefined: nothing. */
export async function findHidden(
  consul: Consul,
  scope: Scope,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    await proveRights(consul, scope, signal);
    return undefined;
  } catch (error) {
    if (isRunlockError(error, 'forbidden')) return error.message;
    throw error;
  }
}

/**
 * Proves that the token may read all that `scope` names: a listing hides what it may not, but one key is refused. Of a
 * tree that is a key that is never stored and that nobody grants by name, unlike `<prefix>/.freeze`, which every node
 * may read.
 * @throws RunlockError `forbidden`, naming the rule that is missing.
 */
export async function proveRights(consul: Consul, scope: Scope, signal: AbortSignal): Promise<void> {
  const proofs = sourcesOf(scope).map(({ kind, key }) => {
    const [resource, probe] = kind === 'tree' ? ['key_prefix', `${key}.may-read`] : ['key', key];
    return consul.get(probe, { ...FIRST_CONTACT, signal, rule: `${resource} "${key}" { policy = "read" }` });
  });
  // All at once, and yet the same one is named each time: the groups' own come first, as the wider right.
  const outcomes = await Promise.allSettled(proofs);
  const refused = outcomes.find(({ status }) => status === 'rejected');
  if (refused?.status === 'rejected') throw refused.reason;
}
