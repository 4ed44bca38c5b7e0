/** The valid word that was probably meant; undefined: none is similar. */
export function nearest(word: string, right: Iterable<string>): string | undefined {
  // With more than one mistake in three letters it is another word.
  let least = Math.max(1, Math.ceil(word.length / 3)) + 1;
  let found: string | undefined;
  for (const candidate of right) {
    const count = mistakes(word, candidate);
    if (count >= least) continue;
    least = count;
    found = candidate;
  }
  return found;
}

/** Number of letters that are extra, missing, wrong, or swapped with a neighbour. */
function mistakes(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const wrong = at(last, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swap = swapped ? at(before, j - 2) + 1 : Infinity;
      row.push(Math.min(wrong, swap, at(last, j) + 1, at(row, j - 1) + 1));
    }
    [before, last] = [last, row];
  }
  return at(last, b.length);
}

const at = (row: readonly number[], index: number) => row[index] ?? Infinity;
