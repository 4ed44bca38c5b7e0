/** Reads single keys from stdin, if stdin is a terminal. */
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { constants, openSync, readSync } from 'node:fs';
import { inBackground } from './signals.ts';
import { isTerminal } from './streams.ts';

export interface Keys {
  /**
   * From now on a key needs no Enter and is not echoed. Keys that send a signal, such as Ctrl-C and Ctrl-Z, still send
   * it to every program of the job. False: this terminal does not allow the change.
   * @param ifKilled what to write to the terminal if this process is killed before it can restore anything.
   */
  take(ifKilled: string): boolean;
  /** Restores the terminal at once; may be called twice. */
  giveBack(): void;
  /** Returns the keys typed since the last call; never waits. */
  read(): string;
}

const OWN = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
const MOST_BYTES = 64;

/** Undefined: stdin is no terminal, or can't be read without waiting, as after su(1). */
export function openKeys(): Keys | undefined {
  if (!isTerminal(0)) return undefined;
  let fd: number;
  try {
    // Open a description of runlock's own, because O_NONBLOCK on the caller's would affect every program that shares
    // it.
    fd = openSync('/proc/self/fd/0', OWN);
  } catch {
    return undefined;
  }
  let saved: string | undefined;
  let restorer: ChildProcess | undefined;
  const bytes = Buffer.alloc(MOST_BYTES);
  return {
    take: (ifKilled) => {
      saved = stty('-g');
      const isTaken = saved !== undefined && stty('-icanon', '-echo', 'min', '1', 'time', '0') !== undefined;
      const taken = isTaken ? stty('-g') : undefined;
      if (saved !== undefined && taken !== undefined) restorer = startRestorer({ saved, taken, ifKilled });
      return isTaken;
    },
    giveBack: () => {
      restorer?.kill('SIGKILL');
      restorer = undefined;
      // In the background the terminal belongs to the shell, so leave the shell's settings alone.
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

/**
 * Waits until this process is gone, then restores the terminal: after SIGKILL nobody else would, since not every shell
 * sets its own settings (dash doesn't). It is in a session of its own, so that neither a signal to the job nor one from
 * the terminal reaches it, and it may set a terminal in the background. Settings that somebody has set since are left
 * alone.
 */
function startRestorer(settings: Record<'saved' | 'taken' | 'ifKilled', string>): ChildProcess {
  const script = `cat >/dev/null; exec 3<&1
[ "$(stty -g <&3)" = "$2" ] && stty "$1" <&3; printf %s "$3"`;
  const { saved, taken, ifKilled } = settings;
  const child = spawn('sh', ['-c', script, 'sh', saved, taken, ifKilled], {
    // The pipe ends with this process.
    stdio: ['pipe', 1, 'ignore'],
    detached: true,
  });
  // Without it all else works.
  child.on('error', () => undefined);
  child.stdin?.on('error', () => undefined);
  child.unref();
  return child;
}

/** Uses stty(1): neither runtime can change a single flag, and raw mode would take Ctrl-C from the rest of the job. */
function stty(...words: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync('stty', words, { stdio: [0, 'pipe', 'ignore'], encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}
