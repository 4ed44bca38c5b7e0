/**
 * Asking again, for those who still want an answer after `request` has given a question up: how long to pause, and what is
 * worth asking again.
 */
import type { Clock, Deps } from '../platform/deps.ts';
import { isRunlockError, isTimeout, reasonOf } from '../errors.ts';
import type { RunlockError } from '../errors.ts';
import type { Consul } from './consul.ts';
import { isTransient, isWorthAgain } from './faults.ts';

/** In milliseconds. */
export interface Growth {
  readonly shortestMs: number;
  /** No pause is longer, so whoever is in trouble notices its end within this time. */
  readonly longestMs: number;
}

/** Twice as long with each failure in a row (from 0), up to the longest; spread, so that a fleet does not ask as one. */
export function growingMs(failures: number, { shortestMs, longestMs }: Growth, random: () => number): number {
  return Math.min(longestMs, shortestMs * 2 ** failures) * (0.5 + random() / 2);
}

/** After what somebody else was quicker with. */
const CONTENDED: Growth = { shortestMs: 100, longestMs: 5_000 };

/** Longer with every failure in a row. */
export async function pause({ clock, random }: Deps, failures: number, signal: AbortSignal): Promise<void> {
  await clock.sleep(growingMs(failures, CONTENDED, random), { signal });
}

/** How long a refusal is asked again where a person may wait for the answer. */
const REFUSED_MS = 3_000;

/** Says of each fault whether to try again: after a refusal for a little while, counted from the first one. */
export function untilRefused(clock: Clock): (error: unknown) => boolean {
  let sinceMs: number | undefined;
  return (error) => {
    if (isTransient(error)) return true;
    sinceMs ??= clock.monotonicMs();
    return isWorthAgain(error) && clock.monotonicMs() - sinceMs < REFUSED_MS;
  };
}

/** Does it, again and again while it is refused, for a little while: a token may just be replaced. */
export async function persistRefused<T>(
  clock: Clock,
  signal: AbortSignal,
  act: () => Promise<T>,
): Promise<T> {
  const again = untilRefused(clock);
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (!isWorthAgain(error) || !again(error)) throw error;
      await clock.sleep(CONTENDED.shortestMs, { signal });
    }
  }
}

export interface Tries {
  readonly signal: AbortSignal;
  /** The pause before the next try. */
  readonly pauseMs: () => number;
  /** Which faults are worth another try. */
  readonly isWorth?: (error: unknown) => boolean;
}

/**
 * Tries until there is something to give back, as long as `signal` lets it: for whoever has a deadline of its own.
 * @throws what was met last; the signal's reason where nothing was.
 */
export async function untilDone<T>(
  clock: Clock,
  { signal, pauseMs, isWorth = isWorthAgain }: Tries,
  tryOnce: () => Promise<T | undefined>,
): Promise<T> {
  let met: RunlockError | undefined;
  try {
    for (;;) {
      try {
        const done = await tryOnce();
        if (done !== undefined) return done;
      } catch (error) {
        if (isRunlockError(error)) met = error;
        if (signal.aborted || !isWorth(error)) throw error;
      }
      await clock.sleep(pauseMs(), { signal });
    }
  } catch (error) {
    throw signal.aborted ? (met ?? error) : error;
  }
}

/**
 * What is said once the time is over: what Consul, or the way to it, said last. `before`: what it was answered with until
 * then.
 */
export function lastWord(
  consul: Pick<Consul, 'fault'>,
  error: unknown,
  before = 'no answer in time',
): string {
  if (isRunlockError(error)) return error.message;
  return consul.fault()?.message ?? (isTimeout(error) ? before : reasonOf(error));
}
