/** What runlock says to people: its log, the line that is drawn below it, and questions; all on stderr. */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { visible } from '../text/visible.ts';
import type { Emit, LogLevel } from '../events/events.ts';
import { createLog, isJournal } from './log.ts';
import type { LogChoice } from './log.ts';
import { readLine } from './read-line.ts';
import { createStream, isTerminal } from './streams.ts';
import type { OutputOptions, OutputStream } from './streams.ts';
import { CLEAR_LINE, createOutput, redrawLine } from './terminal.ts';
import type { Terminal } from './terminal.ts';

export interface Console {
  readonly stderr: OutputStream;
  /** The line on stderr that is drawn over again and again. */
  readonly terminal: Terminal;
  /** Takes one line, without the line break. */
  readonly writeLine: (line: string) => void;
  readonly makeLog: (choice: LogChoice) => Emit;
  /** For the one line that says why the program ends, whatever was chosen before. */
  readonly errorLog: (format: LogChoice['logFormat']) => Emit;
  /** Puts a question to the person at the terminal, and waits; true: yes was typed. Undefined: stdin or stderr is no terminal. */
  readonly confirm: (question: string) => boolean | undefined;
}

interface Given {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly options: Omit<OutputOptions, 'fd' | 'limit' | 'onLost'>;
  /** Wall-clock milliseconds. */
  readonly now: () => number;
}

/** So much of what runlock says is kept for a reader who has stalled, besides what a pipe holds. */
const KEPT_LINES_BYTES = 262_144;

export function openConsole({ env, options, now }: Given): Console {
  const stderr = createStream({ fd: 2, limit: KEPT_LINES_BYTES, onLost: sayLost, ...options });
  /** The live line of a waiting exec, while it is drawn. */
  let liveLine = '';
  let newestLog: Emit | undefined;

  function writeLine(line: string): void {
    stderr.write(`${liveLine === '' ? '' : CLEAR_LINE}${line}\n${liveLine}`);
  }

  function sayLost(lines: number): void {
    newestLog?.({ event: 'lines-lost', lines });
  }

  function logOf(format: LogChoice['logFormat'], levelOf: (isTalkative: boolean) => LogLevel): Emit {
    const { isTTY } = stderr;
    const journal = isJournal(env, stderrStat());
    const level = levelOf(isTTY || journal || format === 'json');
    const { color } = createOutput({ env, isTTY });
    return createLog({ write: writeLine, level, format, journal, color, now });
  }

  return {
    stderr,
    writeLine,
    makeLog: ({ verbose, quiet, logFormat }) => {
      newestLog = logOf(logFormat, (isTalkative) =>
        quiet ? 'error' : verbose ? 'debug' : isTalkative ? 'info' : 'warning',
      );
      return newestLog;
    },
    errorLog: (format) => logOf(format, () => 'error'),
    terminal: {
      columns: () => stderr.columns || 80,
      draw: (line) => {
        if (line === '' && liveLine === '') return;
        liveLine = line === '' ? '' : redrawLine(line);
        // On a terminal that stands still the newest one will do.
        if (line === '') stderr.write(CLEAR_LINE);
        else if (!stderr.isBehind) stderr.write(liveLine);
      },
    },
    // Typed in full: a key that was pressed for something else must not pass for it.
    confirm: (question) => {
      if (!isTerminal(0) || !stderr.isTTY) return undefined;
      stderr.write(`runlock: ${visible(question)}\nType yes to go on all the same: `);
      return readLine(0).replace(/\n$/, '') === 'yes';
    },
  };
}

function stderrStat(): { dev: number; ino: number } | undefined {
  try {
    return fstatSync(2);
  } catch {
    return undefined;
  }
}

/** Whether there is a controlling terminal, wherever stdin and stdout go. */
export function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}
