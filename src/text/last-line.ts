/** The last line of an output that is still being written. Pure. */
import { visible } from './visible.ts';

/** Characters of a line that are shown. */
const LONGEST = 200;
/** Of a line that has not ended; the rest of a longer one is never seen. */
const MOST_KEPT = 4 * LONGEST;

export interface LastLine {
  /** Takes the next bytes. A character may be cut between two calls. */
  hear(bytes: Uint8Array): void;
  /** The last line with anything in it, its control characters spelled out; '': there was none. */
  read(): string;
}

export function lastLine(): LastLine {
  const decoder = new TextDecoder();
  let last = '';
  let current = '';
  return {
    hear: (bytes) => {
      // What a program overwrites (a progress bar) counts as lines.
      const lines = (current + decoder.decode(bytes, { stream: true })).split(/[\r\n]+/);
      current = (lines.pop() ?? '').slice(0, MOST_KEPT);
      last = lines.findLast((line) => line.trim() !== '') ?? last;
    },
    read: () => visible(current.trim() === '' ? last.slice(0, LONGEST) : current).slice(0, LONGEST),
  };
}
