/** The keys that `status` reads: the whole prefix, or the named groups and the freezes above them. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul, Entry, ReadOptions } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { groupKeys, parseKey } from '../lock/keys.ts';
import { isBelow } from './below.ts';
import type { WaitFacts } from './waits.ts';

export interface Scope {
  /** Without slashes at its ends. */
  readonly prefix: string;
  /** Each with all groups below it. Empty: every group below the prefix. */
  readonly groups: readonly string[];
}

/** One read. `group`: use only the keys of that group, not those of groups below it. */
export type Source =
  | { readonly kind: 'tree'; readonly key: string; readonly group?: string }
  | { readonly kind: 'freeze'; readonly key: string };

/** What was read; `refused` has Consul's error for each freeze key that the token may not read. */
export interface Found {
  readonly entries: readonly Entry[];
  readonly refused?: ReadonlyMap<string, string>;
  /** What was read for the conditions of waiting runs; of all groups its entries are those above. */
  readonly waits?: Omit<WaitFacts, 'entries'> & Partial<Pick<WaitFacts, 'entries'>>;
}

export function sourcesOf({ prefix, groups }: Scope): Source[] {
  if (groups.length === 0) return [{ kind: 'tree', key: `${prefix}/` }];
  const tops = [...new Set(groups)].filter((group, _, all) => !isBelow(group, all));
  return [
    ...tops.map((group): Source => ({ kind: 'tree', key: groupKeys(prefix, group).prefix })),
    ...freezesAbove(prefix, tops),
  ];
}

/** Sources for further groups of the runs, without the groups below these. */
export function sourcesBeside({ prefix, groups }: Scope): Source[] {
  return [
    ...groups.map((group): Source => ({ kind: 'tree', key: groupKeys(prefix, group).prefix, group })),
    ...freezesAbove(prefix, groups),
  ];
}

function freezesAbove(prefix: string, groups: readonly string[]): Source[] {
  const above = new Set(groups.flatMap((group) => groupKeys(prefix, group).freezes.slice(1)));
  return [...above].map((key): Source => ({ kind: 'freeze', key }));
}

/**
 * If the token may not read a freeze key above a group, the key is `refused`. A token for one group may lack that right;
 * the report then says so, and still shows the group.
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

/**
 * The right that the token lacks to see all groups of `scope`; undefined: none. An unreadable freeze key above them is
 * reported as a problem of each group instead.
 */
export async function findHidden(
  consul: Consul,
  scope: Scope,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    await proveTrees(consul, scope, signal);
    return undefined;
  } catch (error) {
    if (isRunlockError(error, 'forbidden')) return error.message;
    throw error;
  }
}

/** Like `proveRights`, without the freeze keys above the groups. */
export function proveTrees(consul: Consul, scope: Scope, signal: AbortSignal): Promise<void> {
  return proveSources(
    consul,
    sourcesOf(scope).filter(({ kind }) => kind === 'tree'),
    signal,
  );
}

/**
 * Proves that the token may read below each of `folders` (key prefixes), because a narrower rule may deny part of a group.
 * @throws RunlockError `forbidden`, naming the missing rule.
 */
export function proveFolders(consul: Consul, folders: readonly string[], signal: AbortSignal): Promise<void> {
  return proveSources(
    consul,
    folders.map((key): Source => ({ kind: 'tree', key })),
    signal,
  );
}

/**
 * Proves that the token may read all of `scope`. A listing hides keys that the token may not read, but reading a single
 * key is refused. In a tree, this reads a key that never exists and that no rule names, unlike `<prefix>/.freeze`, which
 * every node may read.
 * @throws RunlockError `forbidden`, naming the missing rule.
 */
export function proveRights(consul: Consul, scope: Scope, signal: AbortSignal): Promise<void> {
  return proveSources(consul, sourcesOf(scope), signal);
}

async function proveSources(consul: Consul, sources: readonly Source[], signal: AbortSignal): Promise<void> {
  const proofs = sources.map(({ kind, key }) => {
    const [resource, probe] = kind === 'tree' ? ['key_prefix', `${key}.may-read`] : ['key', key];
    return consul.get(probe, { ...FIRST_CONTACT, signal, rule: `${resource} "${key}" { policy = "read" }` });
  });
  // Ask at the same time, but always report the first refusal in this order: groups first, as the wider right.
  const outcomes = await Promise.allSettled(proofs);
  const refused = outcomes.find(({ status }) => status === 'rejected');
  if (refused?.status === 'rejected') throw refused.reason;
}
