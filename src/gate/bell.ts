/** Wakes the code that watches a gate when something has changed. */
import type { Clock } from '../platform/deps.ts';

/** A time so long that a timer set to it practically never fires. */
export const FOR_EVER_MS = 366 * 24 * 3_600_000;

export interface Bell {
  ring(): void;
  fail(error: unknown): void;
  next(limitMs: number, signal: AbortSignal): Promise<'change' | 'time'>;
}

/** Has one listener at a time. A ring without a listener is lost, because the next read sees the change anyway. */
export function createBell(clock: Pick<Clock, 'sleep'>): Bell {
  let heard: ((what: 'change') => void) | undefined;
  let failed: { error: unknown } | undefined;
  return {
    ring: () => heard?.('change'),
    fail: (error) => {
      failed = { error };
      heard?.('change');
    },
    next: async (limitMs, signal) => {
      signal.throwIfAborted();
      const over = new AbortController();
      const stop = () => over.abort(signal.reason);
      signal.addEventListener('abort', stop, { once: true });
      const rung = new Promise<'change'>((resolve) => (heard = resolve));
      const slept = clock
        .sleep(Math.min(limitMs, FOR_EVER_MS), { signal: over.signal })
        .then(() => 'time' as const);
      try {
        if (!failed) return await Promise.race([rung, slept]);
      } finally {
        heard = undefined;
        signal.removeEventListener('abort', stop);
        slept.catch(() => undefined);
        over.abort();
      }
      throw failed.error;
    },
  };
}
