/** Reads states once, and follows their changes. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { persistRefused } from '../consul/retry.ts';
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { isRunlockError } from '../errors.ts';
import type { RunlockError } from '../errors.ts';
import type { WallClock } from '../platform/deps.ts';
import { claimFault, followClaims, leftOfStanding, withClaims } from './claims.ts';
import type { Standing } from './claims.ts';
import { decodeState } from './document.ts';
import type { StateDocument } from './document.ts';
import { belowRule, openPathOf, pathOf, stateKey, stateRule, statesBelow } from './path.ts';

/** What every read of states needs. */
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

/** One stored document, even if its state has ended. */
export interface Seen extends Standing {
  readonly index: number;
}

/** A key with contents that this version can't read: a newer version wrote it, or something else did. */
export interface Unreadable {
  readonly fault: RunlockError;
  readonly index: number;
}

type Reader = Pick<Looking, 'consul' | 'prefix' | 'signal'>;

/** What is stored under `path`, readable or not. @throws RunlockError `forbidden`, naming the rule. */
export async function readStored(
  { consul, prefix, signal }: Reader,
  path: string,
  policy: 'read' | 'write',
): Promise<Seen | Unreadable | undefined> {
  const options = { signal, ...FIRST_CONTACT, rule: stateRule(prefix, path, policy) };
  const { entry } = await consul.get(stateKey(prefix, path), options);
  return entry && toStored(entry);
}

/** The document under `path`. @throws RunlockError as `readStored`; `incompatible`: it can't be read. */
export async function readDocument(
  reader: Reader,
  path: string,
  policy: 'read' | 'write',
): Promise<Seen | undefined> {
  const stored = await readStored(reader, path, policy);
  if (stored && 'fault' in stored) throw stored.fault;
  if (!stored?.document.while) return stored;
  const { prefix, signal } = reader;
  const listed = [{ path, key: stateKey(prefix, path), ...stored }];
  const [now] = await settle(reader, listed, { signal, ...FIRST_CONTACT });
  if (now && 'fault' in now) throw now.fault;
  return now;
}

/** States of `--during` with the claims under which they stand, both read at one moment. */
async function settle(
  reader: Reader,
  states: readonly Listed[],
  limits: RetryOptions,
): Promise<readonly Listed[]> {
  const readable = states.flatMap((each) => ('document' in each ? [each] : []));
  const unreadable = states.filter((each) => 'fault' in each);
  const read = (entry: Entry, { path, key }: { readonly path: string; readonly key: string }) => {
    const stored = toStored(entry);
    if ('document' in stored) return { path, key, ...stored };
    unreadable.push({ path, key, ...stored });
    return undefined;
  };
  const settled = await withClaims(reader, readable, { limits, read });
  // A claim that can't be read must not hide the other states either.
  const judged = settled.map(({ path, key, index, ...standing }): Listed => {
    const fault = claimFault(standing);
    return fault ? { path, key, index, fault } : { path, key, index, ...standing };
  });
  return [...judged, ...unreadable];
}

/** One unreadable key must not hide the others, so its fault is a result here. */
function toStored(entry: Entry): Seen | Unreadable {
  const index = entry.modifyIndex;
  try {
    return { document: decodeState(entry), index };
  } catch (error) {
    if (!isRunlockError(error, 'incompatible')) throw error;
    return { fault: error, index };
  }
}

/** The state at `path`; undefined: it is not set, or has ended. */
export async function getState(looking: Looking, path: string): Promise<State | undefined> {
  const seen = await readDocument(looking, path, 'read');
  const isThere = seen && leftOfStanding(seen, looking.clock.earliest()) > 0;
  return isThere ? { path, ...seen.document } : undefined;
}

/** One key of a state, with what it holds. */
export type Listed = (Seen | Unreadable) & { readonly path: string; readonly key: string };

const listedIn = (prefix: string, entries: readonly Entry[]): readonly Listed[] =>
  entries.flatMap((entry) => {
    const path = pathOf(prefix, entry.key);
    return path === undefined ? [] : [{ path, key: entry.key, ...toStored(entry) }];
  });

interface Listing {
  /** Whatever their ends; sorted by path. */
  readonly states: readonly Listed[];
  /** Keys that somebody who waited for an unset state left beside it (docs/adr/0030). */
  readonly open: readonly { readonly path: string; readonly key: string; readonly index: number }[];
}

/** All that is stored at `below` and under it. @throws RunlockError `forbidden`, naming the rule. */
export async function listStored(
  { consul, prefix, signal }: Reader,
  below = '',
  policy: 'read' | 'write' = 'read',
): Promise<Listing> {
  const key = statesBelow(prefix, below);
  const options = { ...FIRST_CONTACT, signal, rule: belowRule(key, policy) };
  // A listing hides keys that the token may not read, but reading a single key is refused.
  const [{ entries }] = await Promise.all([
    consul.list(key, options),
    consul.get(`${key}.may-read`, options),
  ]);
  const limits = { ...FIRST_CONTACT, signal };
  const states = [...(await settle({ consul, prefix, signal }, listedIn(prefix, entries), limits))];
  const open = entries.flatMap((entry) => {
    const path = openPathOf(prefix, entry.key);
    return path === undefined ? [] : [{ path, key: entry.key, index: entry.modifyIndex }];
  });
  return { states: states.sort((a, b) => (a.path < b.path ? -1 : 1)), open };
}

/** A state's path, and why it can't be read. */
export interface Fault {
  readonly path: string;
  readonly fault: RunlockError;
}

/** Every state at `below` and under it that has not ended, and those that can't be read. */
export async function listStates(
  looking: Looking,
  below?: string,
): Promise<{ readonly states: readonly State[]; readonly unreadable: readonly Fault[] }> {
  const { states } = await listStored(looking, below);
  const nowMs = looking.clock.earliest();
  return {
    states: states.flatMap((each) =>
      'document' in each && leftOfStanding(each, nowMs) > 0 ? [{ path: each.path, ...each.document }] : [],
    ),
    unreadable: faultsOf(states),
  };
}

export const faultsOf = (states: readonly Listed[]): readonly Fault[] =>
  states.flatMap((each) => ('fault' in each ? [{ path: each.path, fault: each.fault }] : []));

/** A state after a change. */
export type Change =
  | { readonly path: string; readonly state: State | undefined }
  /** Something is stored that can't be read. */
  | Fault;

interface Following {
  /** Empty: all states. */
  readonly paths: readonly string[];
  /** Called for each state when first seen, then after changes. May miss changes, because Consul shows only the latest. */
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
  /** Paths to report even if they are not set; empty: the key is a folder. */
  readonly paths: readonly string[];
  readonly rule: string;
}

async function followSource(
  looking: Looking,
  { key, paths, rule }: Source,
  changed: Following['changed'],
): Promise<never> {
  const { consul, clock, prefix, signal } = looking;
  /** A mark of what was told last, by path. */
  const told = new Map<string, string>();
  let contact: object = FIRST_CONTACT;
  let endsInMs = Infinity;
  let claims: readonly Standing[] = [];
  const readOnce = async (
    past: Past,
    signal: AbortSignal,
  ): Promise<{ entries: readonly Entry[]; index: number }> => {
    const options = { ...contact, ...past, signal, rule };
    if (paths.length === 0) {
      const found = await consul.list(key, options);
      // The token may lose its right at any time: a listing then hides keys, but reading a single key is refused.
      await consul.get(`${key}.may-read`, { ...contact, signal, rule });
      return found;
    }
    const { entry, index } = await consul.get(key, options);
    return { entries: entry ? [entry] : [], index };
  };
  // After the first contact a refusal may be that of a token which is just being replaced.
  const readNow = (past: Past, signal: AbortSignal) =>
    contact === FIRST_CONTACT
      ? readOnce(past, signal)
      : persistRefused(clock, signal, () => readOnce(past, signal));
  // A state of --during also ends with its claim, and that changes nothing of the state itself.
  const read = (past: Past) =>
    claims.length === 0 || past.index === undefined
      ? readNow(past, signal)
      : followClaims(looking, claims, { past, readNow });
  return watchUntil<Awaited<ReturnType<typeof read>>, never>(
    read,
    async ({ entries }) => {
      const asked = contact;
      contact = {};
      const nowMs = clock.earliest();
      const found = new Map<string, { readonly mark: string; readonly change: Change }>();
      endsInMs = Infinity;
      const listed = await settle(looking, listedIn(prefix, entries), { ...asked, signal });
      claims = listed.flatMap((each) => ('document' in each && each.document.while ? [each] : []));
      for (const { path, ...stored } of listed) {
        if ('fault' in stored) {
          found.set(path, { mark: `unreadable ${stored.index}`, change: { path, fault: stored.fault } });
          continue;
        }
        const { document } = stored;
        const leftMs = leftOfStanding(stored, nowMs);
        if (leftMs <= 0) continue;
        endsInMs = Math.min(endsInMs, leftMs);
        found.set(path, { mark: `set ${document.change}`, change: { path, state: { path, ...document } } });
      }
      for (const path of new Set([...paths, ...told.keys(), ...found.keys()])) {
        const { mark, change } = found.get(path) ?? { mark: 'not set', change: { path, state: undefined } };
        if (told.get(path) === mark) continue;
        told.set(path, mark);
        await changed(change);
      }
      await clock.sleep(entries.length === 0 ? ABSENT_PAUSE_MS : PAUSE_MS, { signal });
      return undefined;
    },
    // Wake when a state expires, because nothing changes in Consul then.
    { waitMs: () => endsInMs },
  );
}
