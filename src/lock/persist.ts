/** Trying again what ends a run or cleans up after it: a single answer, a refusal too, says nothing for good. */
import { isTransient, isWorthAgain } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import type { Clock } from '../platform/deps.ts';
import { isRunlockError, isTimeout, reasonOf } from '../errors.ts';

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

/** Does it, again and again until `signal` aborts. @throws what it met last. */
export async function persist<T>(
  clock: Clock,
  { signal, pauseMs }: { signal: AbortSignal; pauseMs: number },
  act: () => Promise<T>,
): Promise<T> {
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (signal.aborted || !isWorthAgain(error)) throw error;
      await clock.sleep(pauseMs, { signal }).catch(() => {
        throw error;
      });
    }
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
