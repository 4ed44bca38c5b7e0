/** What the benchmark's parts hand over. */

/** One line of the table: the same thing measured of runlock and of others. Figures are in `unit`. */
export interface Row {
  /** Title of the table that the line is in. */
  readonly section: string;
  readonly what: string;
  readonly unit: string;
  readonly runlock: number;
  /** By name, such as { 'consul lock': 29.1, flock: 3 }. */
  readonly others: Readonly<Record<string, number>>;
  /** What was to be reached, and whether it was. It is said, and never a reason to fail. */
  readonly reach?: { readonly text: string; readonly met: boolean };
  readonly note?: string;
}

/** One line of a chart. */
export interface Series {
  readonly chart: 'hand-over' | 'requests';
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** What one part of the benchmark found out. */
export interface Measured {
  readonly rows: readonly Row[];
  /** Goes into the JSON as it is. */
  readonly raw: unknown;
  readonly series?: readonly Series[];
  /** How it was measured, for the reader of the report: a sentence or a few. */
  readonly how?: string;
}

export interface PartOptions {
  /** Few rounds: shows that the program works, and nothing about speed. */
  readonly quick: boolean;
  /** Tells whoever is watching how far it is. */
  readonly say: (line: string) => void;
}

/** A target that is a multiple of what another one takes. */
export function atMost(times: number, name: string, { runlock, others }: Pick<Row, 'runlock' | 'others'>) {
  const other = others[name];
  if (other === undefined) throw new Error(`there is no figure of ${name}`);
  return { text: `at most ${times.toFixed(1)} × ${name}`, met: runlock <= times * other };
}
