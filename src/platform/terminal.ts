/** The streams of a terminal, and what they can show. */

type Env = Readonly<Record<string, string | undefined>>;

export interface Output {
  readonly color: boolean;
  /** Whether a line may be redrawn in place. */
  readonly live: boolean;
  /** Width of the terminal; undefined: nothing is cut. */
  readonly columns: number | undefined;
}

/** What a stream can show. NO_COLOR comes first, then FORCE_COLOR, then TERM=dumb, then whether it is a terminal. */
export function createOutput(stream: { env: Env; isTTY: boolean; columns?: number | undefined }): Output {
  const { env, isTTY } = stream;
  const live = isTTY && env['TERM'] !== 'dumb';
  return { color: wantsColor(env, live), live, columns: isTTY ? stream.columns || 80 : undefined };
}

function wantsColor(env: Env, live: boolean): boolean {
  if (env['NO_COLOR']) return false;
  const force = env['FORCE_COLOR'];
  return force ? force !== '0' && force !== 'false' : live;
}

/**
 * The width at which to wrap sentences; undefined: unknown. COLUMNS overrides the terminal's width, as for ls and man.
 * Lines that are redrawn in place use only the terminal's own width.
 */
export function sentenceColumns({
  env,
  columns,
}: {
  env: Env;
  columns?: number | undefined;
}): number | undefined {
  const asked = env['COLUMNS'] ?? '';
  return /^[1-9]\d{0,4}$/.test(asked) ? Number(asked) : columns || undefined;
}

/** A full-screen view. Both functions act at once, and may be called twice. */
export interface Screen {
  /** Restores the terminal, because the process is about to be stopped. */
  readonly leave: () => void;
  /** Takes the terminal again. */
  readonly enter: () => void;
}

export interface Stream {
  readonly isTTY: boolean;
  /** Undefined: unknown, or no terminal. */
  readonly columns: number | undefined;
  readonly rows?: number | undefined;
  /** `resize`: the terminal's size has changed. `error`: the reader has left. */
  on(event: 'resize' | 'error', listener: () => void): unknown;
}

export interface Terminal {
  /** Draws the line over the one before; an empty one clears it. */
  draw(line: string): void;
  /** Leaves the terminal to the command: no more lines are drawn over its output while a connection is retried. */
  handOver(): void;
  columns(): number;
}

/** Wipes the live line. */
export const CLEAR_LINE = '\r\x1b[K';

/** Draws `line` over the live line. */
export function redrawLine(line: string): string {
  return `${CLEAR_LINE}${line}`;
}
