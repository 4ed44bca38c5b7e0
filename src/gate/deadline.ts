/** The end of a wait that keeps others waiting. */
import type { Clock } from '../platform/deps.ts';

export interface Deadline {
  /** Aborts when the time is over, or with the given signal's reason. */
  readonly signal: AbortSignal;
  /** Whether `error` is that of the time that is over. */
  isOver(error: unknown): boolean;
  /** Stops the clock. */
  end(): void;
}

export function startDeadline(clock: Pick<Clock, 'sleep'>, limitMs: number, signal: AbortSignal): Deadline {
  const late = new AbortController();
  const ended = new AbortController();
  clock.sleep(limitMs, { signal: ended.signal }).then(
    () => late.abort(),
    () => undefined,
  );
  return {
    signal: AbortSignal.any([signal, late.signal]),
    isOver: (error) => late.signal.aborted && !signal.aborted && error === late.signal.reason,
    end: () => ended.abort(),
  };
}
