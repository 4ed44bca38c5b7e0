/** Output of a command, from any source, as text that is safe on a terminal. Pure. */
import { visible } from './visible.ts';

export interface Harmless {
  /** What the next bytes show. A character, or a colour, may be cut between two calls. */
  take(bytes: Uint8Array): string;
  /** What was left. */
  end(): string;
}

/** Colours and the like: dropped, because a log that has them is better read without than with `\x1b[0m` all over. */
// eslint-disable-next-line no-control-regex -- that is what they begin with
const COLOURS = /\x1b\[[0-9;:]*m/g;
/** The beginning of one, or of a line break, at the end of what has come. */
// eslint-disable-next-line no-control-regex
const BEGUN = /(?:\x1b(?:\[[0-9;:]{0,64})?|\r)$/;

/** Keeps line breaks and tabs; a carriage return, by which a program overwrites its line, is a line break. */
export function harmless(): Harmless {
  const decoder = new TextDecoder();
  let begun = '';
  const show = (text: string) =>
    text
      .replace(COLOURS, '')
      .split(/(\r\n|[\r\n\t])/)
      .map((part) =>
        part === '\t' ? part : part.startsWith('\r') ? '\n' : part === '\n' ? part : visible(part),
      )
      .join('');
  return {
    take: (bytes) => {
      const text = begun + decoder.decode(bytes, { stream: true });
      begun = BEGUN.exec(text)?.[0] ?? '';
      return show(text.slice(0, text.length - begun.length));
    },
    end: () => {
      const rest = begun + decoder.decode();
      begun = '';
      return show(rest);
    },
  };
}
