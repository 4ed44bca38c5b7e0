/** Follows what tells for what runs wait without a slot, for as long as a run waits for it. */
import { idOf } from '../conditions/sources.ts';
import type { Source } from '../conditions/sources.ts';
import { FIRST_CONTACT, isTransient } from '../consul/consul.ts';
import type { Consul, Entry, ReadOptions } from '../consul/consul.ts';
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { isRunlockError } from '../errors.ts';
import type { Instance } from '../gate/instances.ts';
import { readInstances } from '../gate/read.ts';
import type { Clock } from '../platform/deps.ts';
import { findRefused } from './read-waits.ts';
import { claimsOfStates, lookup, sourcesOfWaits, waitingRuns, wholePrefix } from './waits.ts';
import type { WaitFacts } from './waits.ts';

export interface FollowWaits {
  /** Called with everything that was read of the groups, after each change of it. */
  readonly see: (entries: readonly Entry[]) => void;
  readonly facts: () => Omit<WaitFacts, 'entries'> & Partial<Pick<WaitFacts, 'entries'>>;
}

interface Options {
  readonly prefix: string;
  /** Everything below the prefix is followed as it is, so that only services are left. */
  readonly hasAll: () => boolean;
  readonly signal: AbortSignal;
  readonly changed: () => void;
  readonly fail: (error: unknown) => void;
}

/** An agent allows one client 200 connections; what is more is said to be unread. */
const MOST_FOLLOWED = 64;
const WATCH = { waitMs: 25_000, timeoutMs: 5_000 };
/** A watch on a missing key also wakes for its neighbours. */
const PAUSE_MS = 1_000;
/** The token may have got the right. */
const REFUSED_PAUSE_MS = 30_000;

interface Seen {
  readonly entries: readonly Entry[];
  readonly instances?: readonly Instance[];
}

export function followWaits(
  { consul, clock }: { readonly consul: Consul; readonly clock: Clock },
  { prefix, hasAll, signal, changed, fail }: Options,
): FollowWaits {
  /** By `idOf` a source. Undefined: not read yet. */
  const seen = new Map<string, Seen | undefined>();
  const stops = new Map<string, AbortController>();
  let latest: readonly Entry[] = [];
  let base: readonly Source[] = [];
  let wanted: readonly Source[] = [];
  let refused: ReadonlyMap<string, string> = new Map();
  const whole = wholePrefix(prefix);
  /** Sources whose rights were asked for, while they are wanted. */
  const asked = new Set<string>();

  return {
    see: (entries) => {
      latest = entries;
      base = sourcesOfWaits(prefix, waitingRuns(prefix, entries));
      follow();
    },
    facts: () => {
      const instances = new Map<string, readonly Instance[]>();
      for (const [id, one] of seen) if (one?.instances) instances.set(id, one.instances);
      const isUnread = (source: Source) =>
        (!hasAll() || source.kind === 'service') && seen.get(idOf(source)) === undefined;
      return {
        instances,
        refused,
        unread: new Set(wanted.filter(isUnread).map(idOf)),
        ...(!hasAll() && { entries: entriesOf() }),
        ...((!hasAll() || refused.has(idOf(whole))) && { isPartial: true }),
      };
    },
  };

  /** What states of `--during` name is wanted too, once they are read. */
  function follow(): void {
    const entries = hasAll() ? latest : entriesOf();
    wanted = [...base, ...claimsOfStates(prefix, base, lookup(entries))];
    const followed = wanted.filter(({ kind }) => !hasAll() || kind === 'service').slice(0, MOST_FOLLOWED);
    const ids = new Set(followed.map(idOf));
    for (const [id, stop] of stops) if (!ids.has(id)) end(id, stop);
    for (const source of followed) if (!stops.has(idOf(source))) start(source);
    askRights(entries).catch(fail);
  }

  function entriesOf(): readonly Entry[] {
    const found = [...seen.values()].flatMap((one) => one?.entries ?? []);
    return [...new Map(found.map((entry) => [entry.key, entry])).values()];
  }

  function end(id: string, stop: AbortController): void {
    stop.abort();
    stops.delete(id);
    seen.delete(id);
  }

  function start(source: Source): void {
    const id = idOf(source);
    const stop = new AbortController();
    stops.set(id, stop);
    seen.set(id, undefined);
    const either = AbortSignal.any([signal, stop.signal]);
    const read = async (past: Past) => {
      const contact = seen.get(id) ? { retryForMs: 0, electionMs: 0 } : FIRST_CONTACT;
      return readSource(consul, source, { ...WATCH, ...contact, ...past, signal: either });
    };
    watchUntil(read, async (found) => {
      if (found.seen && !stop.signal.aborted) {
        seen.set(id, found.seen);
        follow();
        changed();
      }
      await clock.sleep(found.isRefused ? REFUSED_PAUSE_MS : PAUSE_MS, { signal: either });
      return undefined;
    }).catch((error: unknown) => {
      if (!stop.signal.aborted) fail(error);
    });
  }

  /** Asks once for each source, while a run waits for it, since what is missing may be hidden. */
  async function askRights(entries: readonly Entry[]): Promise<void> {
    const ids = new Set([...wanted, whole].map(idOf));
    for (const id of asked) if (!ids.has(id)) asked.delete(id);
    const rights = hasAll() && wanted.length > 0 ? [...wanted, whole] : wanted;
    const fresh = rights.filter((source) => !asked.has(idOf(source)));
    for (const source of fresh) asked.add(idOf(source));
    if (fresh.length === 0) return;
    const found = await findRefused(consul, fresh, { ...FIRST_CONTACT, signal, entries }).catch(
      (error: unknown) => {
        if (!isTransient(error)) throw error;
        // The next change asks again.
        for (const source of fresh) asked.delete(idOf(source));
        return new Map<string, string>();
      },
    );
    refused = new Map([...refused, ...found]);
    if (found.size > 0) changed();
  }
}

/** `seen` is missing where the read failed in a way that may be over later. */
async function readSource(
  consul: Consul,
  source: Source,
  options: ReadOptions,
): Promise<{ readonly index: number; readonly seen?: Seen; readonly isRefused?: true }> {
  try {
    if (source.kind === 'service') {
      const { value, index } = await readInstances(consul, source.service, options);
      return { index, seen: { entries: [], instances: value } };
    }
    const { key, rule } = source;
    if (source.kind === 'tree') {
      const { entries, index } = await consul.list(key, { ...options, rule });
      return { index, seen: { entries } };
    }
    const { entry, index } = await consul.get(key, { ...options, rule });
    return { index, seen: { entries: entry ? [entry] : [] } };
  } catch (error) {
    // That it may not be read is found out and said by `findRefused`.
    if (isRunlockError(error, 'forbidden')) return { index: 0, seen: { entries: [] }, isRefused: true };
    if (!isTransient(error)) throw error;
    return { index: 0 };
  }
}
