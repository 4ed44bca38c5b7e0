/**
 * Blocking queries: the one place that knows how an index is used (docs/adr/0021). Whatever waits for a change in Consul
 * looks by one of these two.
 */

/** Goes into a read as it is: wait for a change past `index`, for `waitMs` at most. Empty: answer at once. */
export interface Past {
  readonly index?: number;
  readonly waitMs?: number;
}

/** What was read, and the index of the store when it was. */
export interface Seen {
  readonly index: number;
}

/**
 * One look, which waits until something has changed past `index` (0: not at all), or for `waitMs`.
 * @returns what was read, with the index for the next look: 0 where it went backwards, for then it is another store's (a
 * snapshot was restored), in which nothing might ever come past the old one.
 */
export async function lookPast<T extends Seen>(
  read: (past: Past) => Promise<T>,
  index: number,
  waitMs?: number,
): Promise<T> {
  const limit = waitMs === undefined ? {} : { waitMs };
  const seen = await read(index > 0 ? { index, ...limit } : {});
  return seen.index < index ? { ...seen, index: 0 } : seen;
}

/** Where a watch begins, and how long each of its looks waits at most: as long as Consul may, unless told otherwise. */
export interface WatchOptions {
  /** Unless given, the first look answers at once. */
  readonly from?: number;
  /** Milliseconds, asked before each look. */
  readonly waitMs?: () => number;
}

/** Looks at once, then after each change, until `decide` gives something else than undefined. Looks rest while it works. */
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
