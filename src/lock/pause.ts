/** Pauses between tries: what fails again and again should not also be asked all the time. */

/** In milliseconds. */
export interface Growth {
  readonly shortestMs: number;
  /** No pause is longer, so whoever is in trouble notices its end within this time. */
  readonly longestMs: number;
}

/** Twice as long with each failure in a row (from 0), up to the longest; spread, so that a fleet does not ask as one. */
export function growingMs(failures: number, { shortestMs, longestMs }: Growth, random: () => number): number {
  return Math.min(longestMs, shortestMs * 2 ** failures) * (0.5 + random() / 2);
}
