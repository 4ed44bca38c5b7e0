/** Follows conditions: reads their data anew whenever some of it has changed (docs/adr/0030). */
import type { Consul, ReadOptions, RetryOptions } from '../consul/consul.ts';
import { persistRefused } from '../consul/retry.ts';
import { lookPast } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { createBell } from '../gate/bell.ts';
import { readInstances } from '../gate/read.ts';
import type { WallClock } from '../platform/deps.ts';
import { stateOpenKey } from '../state/path.ts';
import { judge } from './judge.ts';
import type { Judged, Judging } from './judge.ts';
import type { Condition } from './parse.ts';
import { isOf, look, signatureOf } from './read.ts';
import type { Look } from './read.ts';
import { idOf, sourcesOf } from './sources.ts';
import type { Source, Where } from './sources.ts';

export interface Watching extends Where {
  readonly consul: Consul;
  readonly clock: WallClock;
  readonly signal: AbortSignal;
}

/** The conditions, judged by one read. */
export interface Looked {
  readonly judged: readonly Judged[];
  /** Whether all of them were judged by one moment (`Look`). */
  readonly atOnce: boolean;
  /** The same for another time, because ages grow without a change. @param nowMs wall-clock milliseconds */
  readonly at: (nowMs: number) => readonly Judged[];
}

/**
 * What to do after a look: stop, with this result; or look again, after so many milliseconds at the latest.
 */
export type Decision<R> = { readonly done: R } | { readonly againInMs: number };

/** Reads at most ten times a second, even if changes come faster. */
const PAUSE_MS = 100;
/** Longer than PAUSE_MS, because a watch on a missing key also wakes when neighbouring keys change. */
const ABSENT_PAUSE_MS = 1_000;

/**
 * Looks now, and then whenever something has changed or a time has come, until `decide` says that it is done. Survives a
 * restart of the agent, a replaced token and a restored snapshot. Does not poll.
 * @throws RunlockError `forbidden`, `incompatible`, `usage` (too many conditions); what `signal` aborts with.
 */
export async function watchConditions<R>(
  watching: Watching,
  conditions: readonly Condition[],
  {
    since,
    decide,
  }: { readonly since: (look: Look) => Judging['since']; readonly decide: (looked: Looked) => Decision<R> },
): Promise<R> {
  const { consul, clock } = watching;
  const sources = sourcesOf(conditions, watching);
  const bell = createBell(clock);
  const over = new AbortController();
  const stop = () => over.abort(watching.signal.reason);
  watching.signal.addEventListener('abort', stop, { once: true });
  const { signal } = over;
  const followed = sources.map((source): Followed => ({ source, looked: '', seen: undefined, moved: 0 }));
  let isFollowing = false;
  try {
    watching.signal.throwIfAborted();
    for (;;) {
      // Prove rights at each look: the token may have lost one since the last look, and nothing else would show that.
      const world = await persistRefused(clock, signal, () =>
        look(consul, { sources, proven: new Set() }, { signal }),
      );
      for (const each of followed) each.looked = signatureIn(world, each.source);
      const judging = { ...where(watching), nowMs: clock.earliest(), since: since(world) };
      const moved = new Map(followed.map(({ source, moved }) => [idOf(source), moved]));
      const at = (nowMs: number) => judge(conditions, { ...world, moved }, { ...judging, nowMs });
      const judged = at(judging.nowMs);
      const decision = decide({ judged, atOnce: world.atOnce, at });
      if ('done' in decision) return decision.done;
      if (!isFollowing)
        for (const each of followed)
          follow(watching, each, { world, signal, ring: () => bell.ring() }).catch((error: unknown) =>
            bell.fail(error),
          );
      isFollowing = true;
      const dueMs = Math.min(decision.againInMs, ...judged.map(({ changesInMs }) => changesInMs));
      // A watch may have seen something newer while this look was under way.
      const isBehind = followed.some(({ seen, looked }) => seen !== undefined && seen !== looked);
      if (!isBehind) await bell.next(Math.max(0, dueMs), signal);
      await clock.sleep(PAUSE_MS, { signal });
    }
  } finally {
    watching.signal.removeEventListener('abort', stop);
    over.abort();
  }
}

/** Judges the conditions once, without waiting. `limits`: how long to retry requests to Consul. */
export async function lookOnce(
  { consul, clock, ...place }: Omit<Watching, 'signal'>,
  conditions: readonly Condition[],
  limits: RetryOptions,
): Promise<readonly Judged[]> {
  const world = await look(consul, { sources: sourcesOf(conditions, place), proven: new Set() }, limits);
  return judge(conditions, world, { ...where(place), nowMs: clock.earliest() });
}

const where = ({ prefix, groups }: Where): Where => ({ prefix, groups });

interface Followed {
  readonly source: Source;
  /** Signature of the source at the last look. */
  looked: string;
  /** Signature that the source's own watch saw last; undefined: none yet. */
  seen: string | undefined;
  /** How often its watch saw a change, including changes back to the same data. */
  moved: number;
}

function signatureIn({ entries, instances }: Look, source: Source): string {
  if (source.kind === 'service') return JSON.stringify(instances.get(source.service) ?? []);
  return signatureOf(entries.filter(({ key }) => isOf(source, key)));
}

interface Following {
  readonly world: Look;
  readonly signal: AbortSignal;
  readonly ring: () => void;
}

/** Calls `ring` if it sees other data than the last look. */
async function follow(
  { consul, clock }: Watching,
  followed: Followed,
  { world, signal, ring }: Following,
): Promise<never> {
  const { source } = followed;
  let index = startIndex(world, source);
  let needless = 0;
  let opensAt = NEEDLESS;
  for (;;) {
    const before = followed.seen ?? followed.looked;
    const seen = await persistRefused(clock, signal, () =>
      lookPast((past) => readSource(consul, source, { ...past, signal }), index),
    );
    const hasMoved = index > 0 && seen.index !== index;
    ({ index } = seen);
    followed.seen = seen.signature;
    if (hasMoved) followed.moved += 1;
    if (hasMoved && seen.signature === before) needless += 1;
    // A tree with the same data has changed and changed back. A missing key also wakes for its neighbours, so ignore that.
    if (seen.signature !== followed.looked || (hasMoved && source.kind === 'tree')) ring();
    if (needless === opensAt && source.kind === 'key' && source.path !== undefined) {
      await openFolder(consul, stateOpenKey(source.key), signal);
      // `state prune` may remove it, but it is rarely needed again.
      opensAt *= 16;
    }
    await clock.sleep(seen.isEmpty ? ABSENT_PAUSE_MS : PAUSE_MS, { signal });
  }
}

/** An existing key wakes only for its own changes, so watch from its own index; watch all else from the start. */
function startIndex({ entries }: Look, source: Source): number {
  if (source.kind !== 'key') return 0;
  return entries.find(({ key }) => key === source.key)?.modifyIndex ?? 0;
}

/**
 * After so many needless wake-ups by neighbouring keys, a watch on a missing state creates a key beside it (`openFolder`).
 */
const NEEDLESS = 2;

/**
 * Creates a key in the state's own folder: then a watch on the missing state wakes for that folder only (measured).
 * Without the right to write, the watch stays as it is.
 */
async function openFolder(consul: Consul, key: string, signal: AbortSignal): Promise<void> {
  await consul.transact([{ verb: 'cas', key, value: '', index: 0 }], { signal }).catch(() => {
    signal.throwIfAborted();
  });
}

interface SeenSource {
  readonly signature: string;
  readonly index: number;
  readonly isEmpty: boolean;
}

async function readSource(consul: Consul, source: Source, options: Past & ReadOptions): Promise<SeenSource> {
  if (source.kind === 'service') {
    const { value, index } = await readInstances(consul, source.service, options);
    return { signature: JSON.stringify(value), index, isEmpty: value.length === 0 };
  }
  const { key, rule } = source;
  if (source.kind === 'tree') {
    const { entries, index } = await consul.list(key, { ...options, rule });
    return { signature: signatureOf(entries), index, isEmpty: entries.length === 0 };
  }
  const { entry, index } = await consul.get(key, { ...options, rule });
  return { signature: signatureOf(entry ? [entry] : []), index, isEmpty: !entry };
}
