/** How often whoever waits looks. Pure. */

/** At most one look a second, whatever a check prints meanwhile. */
const SHORTEST_MS = 1_000;
/** All who wait together look fifty times a second at most, unless they are more than five hundred. */
const EACH_MS = 20;
const LONGEST_MS = 10_000;

/**
 * How long one that waits pauses after a look, in milliseconds; what changes meanwhile costs nothing more.
 * @param waiters how many may wait: whoever waits holds nothing by which it could be counted.
 * @param random uniform in [0, 1): so that all who saw one change do not look together again.
 */
export function pauseMs(waiters: number, random: number): number {
  return Math.min(LONGEST_MS, Math.max(SHORTEST_MS, waiters * EACH_MS)) * (1 + random);
}
