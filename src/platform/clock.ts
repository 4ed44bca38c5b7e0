/** Real time. */
import type { Clock, WallClock } from './deps.ts';

/** The longest that a Node timer can take. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

async function sleep(ms: number, { signal }: { signal: AbortSignal }): Promise<void> {
  signal.throwIfAborted();
  for (let left = ms; left > 0; left -= LONGEST_TIMER_MS)
    await timer(Math.min(left, LONGEST_TIMER_MS), signal);
}

/** A clock that knows how far its wall clock has jumped since it was made. */
export function anchorClock({ now, monotonicMs }: Pick<Clock, 'now' | 'monotonicMs'>): WallClock {
  const startedAt = now() - monotonicMs();
  const anchored = () => startedAt + monotonicMs();
  return {
    now,
    monotonicMs,
    earliest: () => Math.min(now(), anchored()),
    latest: () => Math.max(now(), anchored()),
    sleep,
  };
}

export const clock = anchorClock({ now: () => Date.now(), monotonicMs: () => performance.now() });

function timer(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timeout);
      reject(signal.reason as Error);
    };
    const timeout = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal.addEventListener('abort', stop, { once: true });
  });
}
