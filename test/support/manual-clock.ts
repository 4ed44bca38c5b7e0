import { nowMs } from './jobs.ts';

/** Time that goes on only as the test says. */
export function manualClock() {
  let ms = 0;
  const sleepers = new Set<{ readonly dueMs: number; readonly wake: () => void }>();
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  return {
    clock: {
      ...{
        monotonicMs: () => ms,
        now: () => nowMs + ms,
        earliest: () => nowMs + ms,
        latest: () => nowMs + ms,
      },
      sleep: (forMs: number, { signal }: { signal: AbortSignal }) =>
        new Promise<void>((resolve, reject) => {
          const sleeper = { dueMs: ms + forMs, wake: resolve };
          sleepers.add(sleeper);
          signal.addEventListener('abort', () => reject(signal.reason as Error));
        }),
    },
    settle,
    pass: async (forMs: number) => {
      ms += forMs;
      for (const each of sleepers)
        if (each.dueMs <= ms) {
          sleepers.delete(each);
          each.wake();
        }
      await settle();
    },
  };
}
