/** Tells whoever watches a gate that something has changed. */
import type { Deps } from '../platform/deps.ts';

/** For a timer: as good as never. */
export const FOR_EVER_MS = 366 * 24 * 3_600_000;

export interface Bell {
  ring(): void;
  fail(error: unknown): void;
  next(limitMs: number, signal: AbortSignal): Promise<'change' | 'time'>;
}

/** One hears it at a time. What rings while nobody listens is in what is read afterwards. */
export function createBell(clock: Deps['clock']): Bell {
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
