/** States as they are in Consul now, and as they change. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul, Entry } from '../consul/consul.ts';
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { WallClock } from '../platform/deps.ts';
import { decodeState, leftOfState } from './document.ts';
import type { StateDocument } from './document.ts';
import { belowRule, pathOf, stateKey, stateRule, statesBelow } from './path.ts';

/** What every look at states needs. */
export interface Looking {
  readonly consul: Consul;
  readonly clock: WallClock;
  readonly prefix: string;
  readonly signal: AbortSignal;
}

/** A state with its path. */
export interface State extends StateDocument {
  readonly path: string;
}

/** One stored document, past its end or not. */
export interface Seen {
  readonly document: StateDocument;
  readonly index: number;
}

/** What is stored under `path`. @throws RunlockError `forbidden`, naming the rule; `incompatible`. */
export async function readDocument(
  { consul, prefix, signal }: Pick<Looking, 'consul' | 'prefix' | 'signal'>,
  path: string,
  policy: 'read' | 'write',
): Promise<Seen | undefined> {
  const options = { signal, ...FIRST_CONTACT, rule: stateRule(prefix, path, policy) };
  const { entry } = await consul.get(stateKey(prefix, path), options);
  return entry && { document: decodeState(entry), index: entry.modifyIndex };
}

/** The state at `path`; undefined: it is not set, or past its end. */
export async function getState(looking: Looking, path: string): Promise<State | undefined> {
  const seen = await readDocument(looking, path, 'read');
  const isThere = seen && leftOfState(seen.document, looking.clock.earliest()) > 0;
  return isThere ? { path, ...seen.document } : undefined;
}

/** Keys of states with what they hold, whatever their ends. Sorted by path. */
export async function listDocuments(
  { consul, prefix, signal }: Pick<Looking, 'consul' | 'prefix' | 'signal'>,
  below = '',
  policy: 'read' | 'write' = 'read',
): Promise<readonly (Seen & { readonly path: string; readonly key: string })[]> {
  const key = statesBelow(prefix, below);
  const options = { ...FIRST_CONTACT, signal, rule: belowRule(key, policy) };
  // A listing hides what the token may not read; a single key is refused.
  const [{ entries }] = await Promise.all([
    consul.list(key, options),
    consul.get(`${key}.may-read`, options),
  ]);
  return entries
    .flatMap((entry) => {
      const path = pathOf(prefix, entry.key);
      if (path === undefined) return [];
      return [{ path, key: entry.key, document: decodeState(entry), index: entry.modifyIndex }];
    })
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Every state at `below` and under it that has not ended. */
export async function listStates(looking: Looking, below?: string): Promise<readonly State[]> {
  const found = await listDocuments(looking, below);
  const nowMs = looking.clock.earliest();
  return found
    .filter(({ document }) => leftOfState(document, nowMs) > 0)
    .map(({ path, document }) => ({ path, ...document }));
}

/** What became of a state. */
export type Change = { readonly path: string; readonly state: State | undefined };

interface Following {
  /** Empty: all states. */
  readonly paths: readonly string[];
  /** Hears each state when it is first seen, then after each change that is seen: Consul shows the latest only. */
  readonly changed: (change: Change) => Promise<void>;
}

/** Reads at most ten times a second. A watch on a missing key also wakes for neighbouring keys, so it pauses longer. */
const PAUSE_MS = 100;
const ABSENT_PAUSE_MS = 1_000;

/**
 * Runs until `signal`, and outlives an agent that restarts. @throws RunlockError: the first contact failed, or Consul
 * refused.
 */
export async function followStates(looking: Looking, { paths, changed }: Following): Promise<never> {
  const { prefix } = looking;
  const alone = paths.map((path) => ({
    key: stateKey(prefix, path),
    paths: [path],
    rule: stateRule(prefix, path, 'read'),
  }));
  const below = statesBelow(prefix);
  const all = { key: below, paths: [], rule: belowRule(below, 'read') };
  const sources = alone.length > 0 ? alone : [all];
  return Promise.race(sources.map((source) => followSource(looking, source, changed)));
}

interface Source {
  readonly key: string;
  /** What is told of even where it is not there; none: the key is a folder. */
  readonly paths: readonly string[];
  readonly rule: string;
}

async function followSource(
  { consul, clock, prefix, signal }: Looking,
  { key, paths, rule }: Source,
  changed: Following['changed'],
): Promise<never> {
  /** The change that was told last, by path; undefined: that it is not there. */
  const told = new Map<string, string | undefined>();
  let contact: object = FIRST_CONTACT;
  let endsInMs = Infinity;
  const read = async (past: Past): Promise<{ entries: readonly Entry[]; index: number }> => {
    const options = { ...contact, ...past, signal, rule };
    if (paths.length === 0) {
      const found = await consul.list(key, options);
      // A listing hides what the token may not read, from some moment on perhaps; a single key is refused.
      await consul.get(`${key}.may-read`, { ...contact, signal, rule });
      return found;
    }
    const { entry, index } = await consul.get(key, options);
    return { entries: entry ? [entry] : [], index };
  };
  return watchUntil<Awaited<ReturnType<typeof read>>, never>(
    read,
    async ({ entries }) => {
      contact = {};
      const nowMs = clock.earliest();
      const found = new Map<string, State>();
      endsInMs = Infinity;
      for (const entry of entries) {
        const path = pathOf(prefix, entry.key);
        if (path === undefined) continue;
        const state = { path, ...decodeState(entry) };
        const leftMs = leftOfState(state, nowMs);
        if (leftMs > 0) found.set(path, state);
        if (leftMs > 0) endsInMs = Math.min(endsInMs, leftMs);
      }
      for (const path of new Set([...paths, ...told.keys(), ...found.keys()])) {
        const state = found.get(path);
        if (told.has(path) && told.get(path) === state?.change) continue;
        told.set(path, state?.change);
        await changed({ path, state });
      }
      await clock.sleep(entries.length === 0 ? ABSENT_PAUSE_MS : PAUSE_MS, { signal });
      return undefined;
    },
    // Wake when a state expires, because nothing changes in Consul then.
    { waitMs: () => endsInMs },
  );
}
