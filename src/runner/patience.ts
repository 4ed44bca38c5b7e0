/** `--wait`: how long anything is waited for. */
import type { Clock } from '../platform/deps.ts';

export interface Patience {
  /** Aborts when the time is over: from the start, if there is none. */
  readonly signal: AbortSignal;
  /** The wait is over; ends the clock that runs for it. */
  stop(): void;
}

/** @param wait milliseconds. */
export function startPatience(clock: Clock, wait: number | 'forever'): Patience {
  const patience = new AbortController();
  const done = new AbortController();
  if (wait === 0) patience.abort();
  else if (wait !== 'forever') {
    void clock.sleep(wait, { signal: done.signal }).then(
      () => patience.abort(),
      () => undefined,
    );
  }
  return { signal: patience.signal, stop: () => done.abort() };
}
