/** A value that changes, for whoever has to act on each change. */

export interface Watched<T> {
  /** The value now, with the number of changes so far. */
  look(): { readonly value: T; readonly change: number };
  /** Resolves after a change past `change`. Rejects with the signal's reason. */
  past(change: number, options: { readonly signal: AbortSignal }): Promise<void>;
}

export interface Changing<T> extends Watched<T> {
  /** Counts as a change, even if the value is the same. */
  set(value: T): void;
}

export function changing<T>(first: T): Changing<T> {
  let value = first;
  let change = 0;
  const waiting = new Set<() => void>();
  return {
    look: () => ({ value, change }),
    past: (seen, { signal }) =>
      new Promise((resolve, reject) => {
        const end = () => {
          waiting.delete(wake);
          signal.removeEventListener('abort', stop);
        };
        const wake = () => {
          end();
          resolve();
        };
        const stop = () => {
          end();
          reject(signal.reason as Error);
        };
        waiting.add(wake);
        signal.addEventListener('abort', stop, { once: true });
        if (signal.aborted) stop();
        else if (change > seen) wake();
      }),
    set: (next) => {
      value = next;
      change += 1;
      for (const wake of [...waiting]) wake();
    },
  };
}
