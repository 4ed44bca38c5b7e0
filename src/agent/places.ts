/** A bounded number of places: for what must not be done very often at the same time. */

export interface Places {
  /** Takes a place if one is free now. */
  take(): boolean;
  give(): void;
  /** Does the work in a place, first come, first served. Rejects with the signal's reason, or as the work does. */
  inside<T>(work: () => Promise<T>, options: { readonly signal: AbortSignal }): Promise<T>;
}

export function places(most: number): Places {
  let taken = 0;
  /** In the order in which they came. */
  const waiting = new Set<() => void>();
  const take = () => {
    if (taken >= most) return false;
    taken += 1;
    return true;
  };
  const give = () => {
    taken -= 1;
    const [next] = waiting;
    if (next && take()) next();
  };
  const taking = (signal: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
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
      signal.addEventListener('abort', stop, { once: true });
      if (signal.aborted) stop();
      else if (take()) wake();
      else waiting.add(wake);
    });
  return {
    take,
    give,
    inside: async (work, { signal }) => {
      await taking(signal);
      try {
        return await work();
      } finally {
        give();
      }
    },
  };
}
