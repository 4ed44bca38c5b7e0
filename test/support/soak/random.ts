/** Chance that can be had again: the same seed gives the same numbers. Pure but for where each stream stands. */

export interface Random {
  /** From 0 up to, but without, 1. */
  next(): number;
  /** A whole number from `least` to `most`, both included. */
  whole(least: number, most: number): number;
  /** True with this probability. */
  chance(probability: number): boolean;
  one<const T>(of: readonly [T, ...T[]]): T;
  /** The same things in another order. */
  shuffled<T>(of: readonly T[]): T[];
  /** Time to the next of events that come by chance, on average after `meanMs`. */
  gapMs(meanMs: number): number;
}

/** A stream of its own for each `purpose`, so that more of one thing moves nothing of another. */
export function random(seed: number, purpose: string): Random {
  const next = mulberry32(hash(`${seed} ${purpose}`));
  const whole: Random['whole'] = (least, most) => least + Math.floor(next() * (most - least + 1));
  return {
    next,
    whole,
    chance: (probability) => next() < probability,
    one: (of) => of[whole(0, of.length - 1)] ?? of[0],
    shuffled: (of) =>
      of
        .map((item) => ({ item, rank: next() }))
        .sort((a, b) => a.rank - b.rank)
        .map(({ item }) => item),
    gapMs: (meanMs) => -Math.log(1 - next()) * meanMs,
  };
}

/** Tommy Ettinger's mulberry32 (public domain): 32 bits of state, good enough to plan with. */
function mulberry32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193);
  return value;
}
