/** How often a node that waits for a gate reads again. Pure. */

/** Read at most once a second, even if the output of a check changes more often. */
const SHORTEST_MS = 1_000;
/** All waiting nodes together read at most fifty times a second, unless there are more than five hundred of them. */
const EACH_MS = 20;
const LONGEST_MS = 10_000;

/**
 * How long a waiting node pauses after a read, in milliseconds. Several changes during the pause cost one read.
 * @param waiters how many nodes may be waiting: an upper bound, because a wait leaves no key that could be counted.
 * @param random uniform in [0, 1), so that nodes that saw the same change do not all read again at the same moment.
 */
export function pauseMs(waiters: number, random: number): number {
  return Math.min(LONGEST_MS, Math.max(SHORTEST_MS, waiters * EACH_MS)) * (1 + random);
}
