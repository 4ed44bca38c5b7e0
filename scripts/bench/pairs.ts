/** Turns, and what many of them say. */

/** `rounds` turns of each, one after the other: A B A B …, so that whatever the machine does meanwhile hits all alike. */
export async function inTurns<Name extends string, Result>(
  names: readonly Name[],
  rounds: number,
  turn: (name: Name, round: number) => Promise<Result>,
): Promise<Record<Name, Result[]>> {
  const results = Object.fromEntries(names.map((name) => [name, [] as Result[]])) as Record<Name, Result[]>;
  for (let round = 0; round < rounds; round++)
    for (const name of names) results[name].push(await turn(name, round));
  return results;
}

/** The value that a share of them does not exceed (nearest rank). */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  if (value === undefined) throw new Error('nothing was measured');
  return value;
}

/** The one in the middle, or half-way between the two in the middle. */
export function median(values: readonly number[]): number {
  const fromAbove = percentile(
    values.map((value) => -value),
    0.5,
  );
  return (percentile(values, 0.5) - fromAbove) / 2;
}

/** Pairs of runs that started the other way round than they joined; `joined` lists the places of joining, by start. */
export function pairsOutOfOrder(joined: readonly number[]): number {
  let wrong = 0;
  joined.forEach((place, i) => {
    wrong += joined.slice(i + 1).filter((later) => later < place).length;
  });
  return wrong;
}

/** How many pairs `count` runs make. */
export const pairsOf = (count: number): number => (count * (count - 1)) / 2;
