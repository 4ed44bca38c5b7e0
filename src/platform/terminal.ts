/** What the streams of a terminal are, and what can be shown on them. */

type Env = Readonly<Record<string, string | undefined>>;

export interface Output {
  readonly color: boolean;
  /** Whether a line may be drawn over in place. */
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
 * How wide lines of sentences may be; undefined: nobody says. COLUMNS comes first, as for ls and man: who sets it asks for
 * that. What is drawn over again goes by the terminal's own width alone.
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

/** What is drawn all over the terminal. Both do it at once, and may be told twice. */
export interface Screen {
  /** Gives the terminal back as it was: the process is about to be stopped. */
  readonly leave: () => void;
  /** Takes it again. */
  readonly enter: () => void;
}

export interface Stream {
  readonly isTTY: boolean;
  /** Undefined: unknown, or no terminal. */
  readonly columns: number | undefined;
  readonly rows?: number | undefined;
  /** The terminal's size has changed; whoever read the stream has left. */
  on(event: 'resize' | 'error', listener: () => void): unknown;
}

export interface Terminal {
  /** Draws the line over the one before; an empty one clears it. */
  draw(line: string): void;
  /** The terminal is a command's from here on: what it shows there is not drawn over when a connection is tried again. */
  handOver(): void;
  columns(): number;
}

/** Wipes the live line. */
export const CLEAR_LINE = '\r\x1b[K';

/** Draws `line` over the live line. */
export function redrawLine(line: string): string {
  return `${CLEAR_LINE}${line}`;
}
