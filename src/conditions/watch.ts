/** Follows conditions: reads their data anew whenever some of it has changed (docs/adr/0030). */
import type { Consul, RetryOptions } from '../consul/consul.ts';
import { persistRefused } from '../consul/retry.ts';
import { createBell } from '../gate/bell.ts';
import type { WallClock } from '../platform/deps.ts';
import { MOST_CLAIMS, UNFOLLOWED_MS, followClaims } from './claims.ts';
import { PAUSE_MS, follow, signatureIn } from './follow.ts';
import type { Followed } from './follow.ts';
import { judge } from './judge.ts';
import type { Judged, Judging } from './judge.ts';
import type { Condition } from './parse.ts';
import { look } from './read.ts';
import type { Look } from './read.ts';
import { idOf, sourcesOf } from './sources.ts';
import type { Source, Where } from './sources.ts';
import { countChanges } from './traces.ts';
import type { Counts, Trace } from './traces.ts';
import { planWatches } from './watches.ts';

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

/** One for all: to make an error of its own, with its stack, takes longer than the rest of a watch's end. */
const OVER = new Error('the watch is over');

/** A look at least so often: where nothing is, a listing shows no loss of the right to read it. */
const RIGHTS_MS = 240_000;

interface WatchOptions<R> {
  readonly since: (look: Look) => Judging['since'];
  readonly decide: (looked: Looked) => Decision<R>;
  /**
   * Whether the marks of this look must also tell of what came and went before it (`Trace`): one request more for each
   * trace. By default they need not.
   */
  readonly isExact?: (judged: readonly Judged[]) => boolean;
  /** The least time between two looks, in milliseconds; the first change of a while is looked at at once. */
  readonly paceMs?: number;
}

/**
 * Looks now, and then whenever something has changed or a time has come, until `decide` says that it is done. Survives a
 * restart of the agent, a replaced token and a restored snapshot. Does not poll, except many services (`planWatches`).
 * @throws RunlockError `forbidden`, `incompatible`, `usage` (too many conditions); what `signal` aborts with.
 */
export async function watchConditions<R>(
  watching: Watching,
  conditions: readonly Condition[],
  { since, decide, isExact = () => false, paceMs = PAUSE_MS }: WatchOptions<R>,
): Promise<R> {
  const { consul, clock } = watching;
  const sources = sourcesOf(conditions, watching);
  const bell = createBell(clock);
  const over = new AbortController();
  const stop = () => over.abort(watching.signal.reason);
  watching.signal.addEventListener('abort', stop, { once: true });
  const { signal } = over;
  const followed = createFollowed(sources, () => bell.ring());
  const changes = countChanges(consul);
  const follows = followClaims({ consul, clock, prefix: watching.prefix, signal }, () => followed.ring(true));
  let isFollowing = false;
  try {
    watching.signal.throwIfAborted();
    for (;;) {
      const lookedMs = clock.monotonicMs();
      const answer = followed.looks();
      // Prove rights at each look: the token may have lost one since the last look, and nothing else would show that.
      const world =
        answer ??
        (await persistRefused(clock, signal, () => look(consul, { sources, proven: new Set() }, { signal })));
      followed.looked(world);
      follows.only(world);
      const judging = { ...where(watching), nowMs: clock.earliest(), since: since(world) };
      const at = (nowMs: number) => judge(conditions, world, { ...judging, nowMs });
      const read = at(judging.nowMs);
      const judged = isExact(read) ? await markExactly(read, (traces) => changes(traces, { signal })) : read;
      const decision = decide({ judged, atOnce: world.atOnce, at });
      if ('done' in decision) return decision.done;
      if (!isFollowing)
        for (const watch of planWatches(sources))
          follow({ consul, clock, signal, world, paceMs, ...followed }, watch).catch((error: unknown) =>
            bell.fail(error),
          );
      isFollowing = true;
      const unfollowedMs = world.claims.length > MOST_CLAIMS ? UNFOLLOWED_MS : Infinity;
      const dueMs = Math.min(
        decision.againInMs,
        unfollowedMs,
        RIGHTS_MS,
        ...judged.map(({ changesInMs }) => changesInMs),
      );
      if (!followed.isBehind()) await bell.next(Math.max(0, dueMs), signal);
      // The first change of a while is looked at at once.
      const pauseMs = lookedMs + paceMs - clock.monotonicMs();
      if (pauseMs > 0) await clock.sleep(pauseMs, { signal });
    }
  } finally {
    watching.signal.removeEventListener('abort', stop);
    over.abort(OVER);
  }
}

async function markExactly(
  judged: readonly Judged[],
  changes: (traces: readonly Trace[]) => Promise<Counts>,
): Promise<readonly Judged[]> {
  const counts = await changes(judged.flatMap(({ traces }) => traces));
  return judged.map((one) => ({
    ...one,
    mark: JSON.stringify([one.mark, ...one.traces.map(({ prefix }) => counts.get(prefix))]),
  }));
}

/** What the last look and the watches have of each source, and whether the watches are ahead. */
function createFollowed(sources: readonly Source[], ring: () => void) {
  const unseen = (): Followed => ({ looked: '', seen: undefined, isAhead: false, answer: undefined });
  const all = new Map<string, Followed>(sources.map((source) => [idOf(source), unseen()]));
  const of = (source: Source) => all.get(idOf(source)) ?? unseen();
  let hasRung = false;
  return {
    of,
    /** `isNews`: not even a look that is under way need have it. */
    ring: (isNews: boolean) => {
      hasRung ||= isNews;
      ring();
    },
    /** A look begins. @returns what its watch has of the only source, a key: then no read is needed. */
    looks: (): Look | undefined => {
      const [first] = all.values();
      const answer = all.size === 1 ? first?.answer : undefined;
      hasRung = false;
      for (const each of all.values()) {
        each.isAhead = false;
        each.answer = undefined;
      }
      return answer;
    },
    looked: (world: Look) => {
      for (const source of sources) {
        const each = of(source);
        each.looked = signatureIn(world, source);
        each.answer = undefined;
      }
    },
    /**
     * A watch may have seen something newer while a look was under way. What it saw before that is older than the look:
     * of a restored snapshot, a watch may hear last of all.
     */
    isBehind: () =>
      hasRung || [...all.values()].some(({ isAhead, seen, looked }) => isAhead && seen !== looked),
  };
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
