/**
 * Retries for callers that still want an answer after `request` has given up: how long to pause, and which faults are
 * worth another try.
 */
import type { Clock, Deps } from '../platform/deps.ts';
import { isRunlockError, isTimeout, reasonOf } from '../errors.ts';
import type { RunlockError } from '../errors.ts';
import type { Consul } from './consul.ts';
import { isTransient, isWorthAgain } from './faults.ts';

/** In milliseconds. */
export interface Growth {
  readonly shortestMs: number;
  /** The longest pause, so the end of a fault is noticed within this time. */
  readonly longestMs: number;
}

/**
 * The pause doubles with each failure in a row (from 0), up to the longest; randomised, so that a fleet does not
 * retry at once.
 */
export function growingMs(failures: number, { shortestMs, longestMs }: Growth, random: () => number): number {
  return Math.min(longestMs, shortestMs * 2 ** failures) * (0.5 + random() / 2);
}

/** Pauses after another run or operator was quicker. */
const CONTENDED: Growth = { shortestMs: 100, longestMs: 5_000 };

/** Pauses, longer with every failure in a row. */
export async function pause({ clock, random }: Deps, failures: number, signal: AbortSignal): Promise<void> {
  await clock.sleep(growingMs(failures, CONTENDED, random), { signal });
}

/** How long to retry after a refusal; short, because a person may be waiting for the answer. */
const REFUSED_MS = 3_000;

/**
 * Returns a function that decides for each fault whether to try again: after refusals only for `forMs` from the first.
 */
export function untilRefused(clock: Clock, forMs = REFUSED_MS): (error: unknown) => boolean {
  let sinceMs: number | undefined;
  return (error) => {
    if (isTransient(error)) return true;
    sinceMs ??= clock.monotonicMs();
    return isWorthAgain(error) && clock.monotonicMs() - sinceMs < forMs;
  };
}

/** Calls `act`, and retries refusals for a short time, because a token may just be being replaced. */
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
 * Tries until `tryOnce` returns a value or `signal` aborts: for callers with their own deadline.
 * @throws the last fault; the signal's reason if there was none.
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
 * The reason to report when the time is over: the last fault from Consul or from the connection to it. `before`: the
 * text to use if Consul just did not answer in time.
 */
export function lastWord(
  consul: Pick<Consul, 'fault'>,
  error: unknown,
  before = 'no answer in time',
): string {
  if (isRunlockError(error)) return error.message;
  return consul.fault()?.message ?? (isTimeout(error) ? before : reasonOf(error));
}
