/** Real time. */
import { performance } from 'node:perf_hooks';
import type { Clock } from './deps.ts';

/** The longest that a Node timer can take. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export const clock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: async (ms, { signal }) => {
    signal.throwIfAborted();
    for (let left = ms; left > 0; left -= LONGEST_TIMER_MS)
      await timer(Math.min(left, LONGEST_TIMER_MS), signal);
  },
};

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
