/** Single keys of the terminal that stdin is. */
import { spawnSync } from 'node:child_process';
import { constants, openSync, readSync } from 'node:fs';
import { inBackground } from './signals.ts';
import { isTerminal } from './streams.ts';

export interface Keys {
  /**
   * From now on a key need not be followed by Enter, and shows nothing. Those that send a signal still do, Ctrl-C and
   * Ctrl-Z too, and to every program of the job. False: this terminal can't be set so.
   */
  take(): boolean;
  /** The terminal is as it was before; at once, and may be called twice. */
  giveBack(): void;
  /** What was typed since the last call; never waits. */
  read(): string;
}

const OWN = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
const MOST_BYTES = 64;

/** Undefined: stdin is no terminal, or can't be read without waiting, as after su(1). */
export function openKeys(): Keys | undefined {
  if (!isTerminal(0)) return undefined;
  let fd: number;
  try {
    // A description of runlock's own: O_NONBLOCK on the caller's would be everybody's.
    fd = openSync('/proc/self/fd/0', OWN);
  } catch {
    return undefined;
  }
  let saved: string | undefined;
  const bytes = Buffer.alloc(MOST_BYTES);
  return {
    take: () => {
      saved = stty('-g');
      return saved !== undefined && stty('-icanon', '-echo', 'min', '1', 'time', '0') !== undefined;
    },
    giveBack: () => {
      // In the background the terminal is the shell's, which has set it as it wants it.
      if (saved !== undefined && !inBackground()) stty(saved);
      saved = undefined;
    },
    read: () => {
      if (saved === undefined || inBackground()) return '';
      try {
        return bytes.toString('latin1', 0, readSync(fd, bytes));
      } catch {
        // Nothing was typed, or the terminal has hung up.
        return '';
      }
    },
  };
}

/** Neither runtime can change one flag of a terminal; its raw mode would take Ctrl-C from the rest of the job. */
function stty(...words: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync('stty', words, { stdio: [0, 'pipe', 'ignore'], encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}
