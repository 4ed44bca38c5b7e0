/**
 * Blocking queries: the only place that knows how an index is used (docs/adr/0021). All code that waits for a change in
 * Consul uses one of these two functions.
 */

/** Options to pass to a read unchanged: wait for a change past `index`, for at most `waitMs`. Empty: answer at once. */
export interface Past {
  readonly index?: number;
  readonly waitMs?: number;
}

/** The result of a read, with the index of Consul's store at that moment. */
export interface Seen {
  readonly index: number;
}

/**
 * Reads once, after a change past `index` (0: at once) or after `waitMs`.
 * @returns what was read, with the index for the next read: 0 if the index went backwards. Then a snapshot was
 * restored, and the new store might never get past the old index.
 */
export async function lookPast<T extends Seen>(
  read: (past: Past) => Promise<T>,
  index: number,
  waitMs?: number,
): Promise<T> {
  const limit = waitMs === undefined ? {} : { waitMs };
  const seen = await read(index > 0 ? { index, ...limit } : {});
  if (seen.index < index) return { ...seen, index: 0 };
  // An index of 0 would have every following read answered at once.
  return seen.index > 0 ? seen : { ...seen, index: 1 };
}

/** Where a watch begins, and how long each of its reads may wait: by default as long as Consul allows. */
export interface WatchOptions {
  /** The index to start from; by default the first read answers at once. */
  readonly from?: number;
  /** The longest wait in milliseconds; called before each read. */
  readonly waitMs?: () => number | undefined;
}

/**
 * Reads, then reads again after each change, until `decide` returns a value. Does not read while `decide` is working.
 */
export async function watchUntil<T extends Seen, R>(
  read: (past: Past) => Promise<T>,
  decide: (seen: T) => R | undefined | Promise<R | undefined>,
  { from = 0, waitMs }: WatchOptions = {},
): Promise<R> {
  for (let index = from; ;) {
    const seen: T = await lookPast(read, index, waitMs?.());
    const decided = await decide(seen);
    if (decided !== undefined) return decided;
    ({ index } = seen);
  }
}
