/** Chance that can be repeated. */

/** Uniform in [0, 1), the same sequence for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Of a lognormal distribution (Box and Muller); `sigma` is that of the logarithm. */
export function lognormal(
  random: () => number,
  { median, sigma }: { median: number; sigma: number },
): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return median * Math.exp(sigma * normal);
}

/** `count` different ones of 0 to `from` - 1. */
export function sample(random: () => number, count: number, from: number): Set<number> {
  const picked = new Set<number>();
  while (picked.size < count) picked.add(Math.floor(random() * from));
  return picked;
}
