/** `runlock wait`: until conditions hold, or the time is over. */
import type { Condition } from '../../conditions/parse.ts';
import type { Judged, Since } from '../../conditions/judge.ts';
import { isLive } from '../../conditions/is-live.ts';
import { waitsForEnd } from '../../conditions/own-run.ts';
import type { OwnRun } from '../../conditions/own-run.ts';
import { watchConditions } from '../../conditions/watch.ts';
import type { Decision, Looked } from '../../conditions/watch.ts';
import type { Consul } from '../../consul/consul.ts';
import { lastWord } from '../../consul/retry.ts';
import { RunlockError } from '../../errors.ts';
import type { Deps } from '../../platform/deps.ts';

export interface WaitOptions {
  readonly prefix: string;
  /** The groups of conditions that name none. */
  readonly groups: readonly string[];
  /** The conditions that must hold: those of `--until`, and the opposites of those of `--while`. */
  readonly goals: readonly Goal[];
  /** Whether one of them is enough. */
  readonly any: boolean;
  /** In milliseconds; 0: one look. */
  readonly timeoutMs: number;
  /** How long they must hold without a change of the data behind them; milliseconds. */
  readonly stableMs: number;
  /** `start`: since the start of this wait. */
  readonly since?: 'start' | Exclude<Since, { kind: 'index' }>;
}

export interface Goal {
  readonly option: 'until' | 'while';
  /** The condition that must hold: for `--while` the opposite of what the user wrote. */
  readonly condition: Condition;
}

export interface WaitResult {
  readonly kind: 'met' | 'timed-out';
  /** One for each goal, in their order. */
  readonly judged: readonly Judged[];
  readonly atOnce: boolean;
  readonly waitedMs: number;
}

export interface WaitDeps {
  readonly consul: Consul;
  readonly deps: Deps;
  /** The run that this is a part of, which can't wait for its own end. */
  readonly inside?: OwnRun | undefined;
  /** Hears each look. */
  readonly looked: (looked: Looked, waitedMs: number) => void;
}

/**
 * Minimum time for the first look, even with a shorter timeout. Longer than the 3 s for refusals (`persistRefused`).
 */
const FIRST_LOOK_MS = 5_000;

/**
 * @throws RunlockError `unreachable` and similar: Consul did not answer within the time; `usage`: the wait would be for
 * the end of its own run; `forbidden`; `incompatible`. The reason of `signal` when it aborts.
 */
export async function wait(
  { consul, deps: { clock }, inside, looked }: WaitDeps,
  { goals, prefix, groups, any, timeoutMs, stableMs, since }: WaitOptions,
  signal: AbortSignal,
): Promise<WaitResult> {
  const startedMs = clock.monotonicMs();
  const waitedMs = () => clock.monotonicMs() - startedMs;
  let last: Looked | undefined;
  let startIndex: number | undefined;
  const held: ({ readonly mark: string; readonly sinceMs: number } | undefined)[] = [];
  /** How long a condition has held without a change. */
  const heldMs = ({ holds, mark }: Judged, i: number): number => {
    const nowMs = clock.monotonicMs();
    const before = held[i];
    const now = before?.mark === mark ? before : { mark, sinceMs: nowMs };
    held[i] = holds ? now : undefined;
    return holds ? nowMs - now.sinceMs : -Infinity;
  };
  const result = (kind: WaitResult['kind'], { judged, atOnce }: Looked) => ({
    done: { kind, judged, atOnce, waitedMs: waitedMs() },
  });
  const isMet = (judged: readonly Judged[]) =>
    any ? judged.some(({ holds }) => holds) : judged.every(({ holds }) => holds);
  const decide = (now: Looked): Decision<WaitResult> => {
    last = now;
    looked(now, waitedMs());
    refuseOwn(now.judged, { any, own });
    const times = now.judged.map(heldMs);
    const leftMs = stableMs - (any ? Math.max(...times) : Math.min(...times));
    if (leftMs <= 0) return result('met', now);
    return waitedMs() >= timeoutMs ? result('timed-out', now) : { againInMs: leftMs };
  };
  const needsOwn = goals.some(({ condition }) => condition.kind === 'good');
  const own = inside && {
    ...inside,
    isLive: needsOwn && (await isLive({ consul, clock, prefix }, inside, signal)),
  };
  const time = limitTime(clock, { timeoutMs, signal, hasLooked: () => last !== undefined });
  try {
    return await watchConditions(
      { consul, clock, prefix, groups, signal: time.signal },
      goals.map(({ condition }) => condition),
      {
        since: ({ entries }) => {
          if (since !== 'start') return since;
          startIndex ??= Math.max(0, ...entries.map(({ modifyIndex }) => modifyIndex));
          return { kind: 'index', index: startIndex };
        },
        decide,
        isExact: (judged) => stableMs > 0 && isMet(judged),
      },
    );
  } catch (error) {
    if (signal.aborted || !time.isOver()) throw error;
    // Ages have grown since the last look.
    if (last) return result('timed-out', { ...last, judged: last.at(clock.earliest()) }).done;
    throw new RunlockError('unreachable', lastWord(consul, error));
  } finally {
    time.stop();
  }
}

/** One for all waits, because an error of its own takes long to make. */
const ENDED = new Error('the wait has ended');

/** Aborts when the time is over; before the first look, only if that look takes too long as well. */
function limitTime(
  clock: Deps['clock'],
  { timeoutMs, signal, hasLooked }: { timeoutMs: number; signal: AbortSignal; hasLooked: () => boolean },
) {
  const ended = new AbortController();
  const over = new AbortController();
  const sleep = (ms: number) => clock.sleep(ms, { signal: ended.signal });
  const run = async () => {
    await sleep(timeoutMs);
    if (!hasLooked()) await sleep(FIRST_LOOK_MS - timeoutMs);
    over.abort();
  };
  run().catch(() => undefined);
  return {
    signal: AbortSignal.any([signal, over.signal]),
    isOver: () => over.signal.aborted,
    stop: () => ended.abort(ENDED),
  };
}

type Own = OwnRun & { readonly isLive: boolean };

/** Refuses to wait for the end of the run that this wait is part of, which would never come. @throws RunlockError `usage` */
function refuseOwn(
  judged: readonly Judged[],
  { any, own }: { readonly any: boolean; readonly own: Own | undefined },
): void {
  if (!own) return;
  const isOwn = waitsForEnd(own);
  const first = judged.find(isOwn);
  if (!first || (any && !judged.every(isOwn))) return;
  throw new RunlockError(
    'usage',
    `this wait is inside the run that it waits for, so it would never end (${first.is}); run 'runlock wait' before or after 'runlock exec'`,
  );
}
