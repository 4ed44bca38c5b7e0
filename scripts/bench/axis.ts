/** From figures to places on a drawing. */

export interface Axis {
  readonly label: string;
  /** Powers of ten are equally far apart. */
  readonly log: boolean;
  /** Ticks at the figures themselves instead of round ones: for the few that were chosen. */
  readonly chosen?: boolean;
}

/** Least and greatest value on the axis: round ones around the figures. */
function domain({ log }: Axis, values: readonly number[]): readonly [number, number] {
  const [least, greatest] = [Math.min(...values), Math.max(...values)];
  if (!log) return [0, greatest];
  return [roundDown(least), -roundDown(-greatest)];
}

/** To 1, 2 or 5 times a power of ten, away from the figures: down, or up for what is given as negative. */
function roundDown(value: number): number {
  const size = Math.abs(value);
  const power = 10 ** Math.floor(Math.log10(size));
  const steps = [1, 2, 5, 10].map((step) => step * power);
  const within = value > 0 ? steps.findLast((step) => step <= size) : steps.find((step) => step >= size);
  return Math.sign(value) * (within ?? size);
}

export function toScale(
  axis: Axis,
  values: readonly number[],
  [from, to]: readonly [number, number],
): (value: number) => number {
  const place = axis.log ? Math.log10 : (value: number) => value;
  const [least, greatest] = domain(axis, values).map(place) as [number, number];
  return (value) => from + ((place(value) - least) / (greatest - least || 1)) * (to - from);
}

/** Where the axis has a figure. */
export function ticksOf(axis: Axis, values: readonly number[]): number[] {
  if (axis.chosen) return [...new Set(values)];
  const [least, greatest] = domain(axis, values);
  if (!axis.log) return [0, 0.25, 0.5, 0.75, 1].map((share) => share * greatest);
  const decades = Math.log10(greatest / least);
  const steps = decades > 3 ? [1] : [1, 2, 5];
  const ticks: number[] = [];
  for (let power = 10 ** Math.floor(Math.log10(least)); power <= greatest; power *= 10)
    ticks.push(...steps.map((step) => step * power));
  return ticks.filter((tick) => tick >= least && tick <= greatest);
}
