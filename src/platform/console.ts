/** Output of runlock for people: the log, the live line below it, and questions, all on stderr. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { visible, renderJson } from '../text/visible.ts';
import type { Emit, LogLevel, RunEvent, Sentence } from '../events/events.ts';
import { failureOf } from './failure.ts';
import { createStream, isTerminal } from './streams.ts';
import type { OutputOptions, OutputStream } from './streams.ts';
import { CLEAR_LINE, createOutput, redrawLine, sentenceColumns } from './terminal.ts';
import type { Terminal } from './terminal.ts';
import { sentenceOf } from '../events/sentence.ts';
import { cut, paint } from '../text/style.ts';
import type { Style } from '../text/style.ts';
import { wrapSentence } from '../text/wrap.ts';

export interface Console {
  readonly stderr: OutputStream;
  /** The live line on stderr, which is redrawn in place. */
  readonly terminal: Terminal;
  /** Shows a temporary line until called with an empty one; only on a terminal, and if the log is for people. */
  readonly notice: (text: string) => void;
  readonly makeLog: (choice: LogChoice) => Emit;
  /** Logs why the program fails, even if quiet, and returns its exit status. */
  readonly sayFailure: (error: unknown, how: FailureChoice) => number;
  /** Asks the person at the terminal and waits; true: they typed yes. Undefined: stdin or stderr is not a terminal. */
  readonly confirm: (question: string) => boolean | undefined;
}

interface FailureChoice extends Pick<LogChoice, 'logFormat'> {
  /** Whether to print the stack of a bug too. */
  readonly isVerbose: boolean;
}

interface Given {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly options: Omit<OutputOptions, 'fd' | 'limit' | 'onLost'>;
  /** Wall-clock milliseconds. */
  readonly now: () => number;
}

/** How much output is kept for a stalled reader, in addition to what a pipe holds. */
const KEPT_LINES_BYTES = 262_144;

export function openConsole({ env, options, now }: Given): Console {
  const stderr = createStream({ fd: 2, limit: KEPT_LINES_BYTES, onLost: sayLost, ...options });
  /** The live line of a waiting exec. While a connection is being retried, `notice` takes its place. */
  let liveLine = '';
  let notice = '';
  let drawn = '';
  let takesNotices = false;
  let newestLog: Emit | undefined;

  function writeLine(line: string): void {
    stderr.write(`${drawn === '' ? '' : CLEAR_LINE}${line}\n${drawn}`);
  }

  function redraw(): void {
    const line = notice === '' ? liveLine : notice;
    if (line === '' && drawn === '') return;
    drawn = line === '' ? '' : redrawLine(line);
    // Skip lines while the terminal is stalled; only the newest one matters.
    if (line === '') stderr.write(CLEAR_LINE);
    else if (!stderr.isBehind) stderr.write(drawn);
  }

  const columnsNow = () => stderr.columns || 80;

  function sayLost(lines: number): void {
    newestLog?.({ event: 'lines-lost', lines });
  }

  function logOf(format: LogChoice['logFormat'], levelOf: (isTalkative: boolean) => LogLevel): Emit {
    const { isTTY } = stderr;
    const journal = isJournal(env, stderrStat());
    const level = levelOf(isTTY || journal || format === 'json');
    const { color } = createOutput({ env, isTTY });
    const columns = () => (isTTY ? sentenceColumns({ env, columns: stderr.columns }) : undefined);
    return createLog({ write: writeLine, level, format, journal, color, columns, now });
  }

  return {
    stderr,
    notice: (text) => {
      if (!takesNotices) return;
      const before = notice;
      notice = cut(visible(text), Math.max(1, columnsNow() - 1));
      if (notice !== before) redraw();
    },
    makeLog: ({ verbose, quiet, logFormat, isTalkative = false }) => {
      takesNotices = !quiet && logFormat === 'text' && createOutput({ env, isTTY: stderr.isTTY }).live;
      newestLog = logOf(logFormat, (isHeard) =>
        quiet ? 'error' : verbose ? 'debug' : isTalkative || isHeard ? 'info' : 'warning',
      );
      return newestLog;
    },
    sayFailure: (error, { logFormat, isVerbose }) => {
      const { event, stack, status } = failureOf(error, { isVerbose });
      logOf(logFormat, () => 'error')(event);
      if (stack !== undefined && logFormat === 'text') writeLine(stack);
      return status;
    },
    terminal: {
      columns: columnsNow,
      draw: (line) => {
        liveLine = line;
        redraw();
      },
      handOver: () => {
        takesNotices = false;
        [liveLine, notice] = ['', ''];
        redraw();
      },
    },
    // Require the whole word, so that a key pressed for something else is not taken for a yes.
    confirm: (question) => {
      if (!isTerminal(0) || !stderr.isTTY) return undefined;
      const line = NAME + visible(question);
      const columns = sentenceColumns({ env, columns: stderr.columns });
      const asked = columns === undefined ? line : wrapSentence(line, columns);
      stderr.write(`${asked}\nType yes to continue: `);
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

/* One log line for each event, for people, journald or a log collector; the caller decides where lines go. */

/** How much to log, and in which format. */
export interface LogChoice {
  readonly verbose: boolean;
  readonly quiet: boolean;
  readonly logFormat: 'text' | 'json';
  /** Write information also where nobody looks at once: the log of a daemon is read later. */
  readonly isTalkative?: true;
}

export interface LogOptions {
  /** Takes one line, without the line break. */
  readonly write: (line: string) => void;
  /** The least important level that is written. */
  readonly level: LogLevel;
  readonly format: 'text' | 'json';
  /** Whether journald reads the stream: text lines then start with their priority (sd-daemon(3)). */
  readonly journal: boolean;
  readonly color: boolean;
  /** The current width of the terminal; undefined: no terminal, or unknown width, so do not wrap sentences. */
  readonly columns?: () => number | undefined;
  /** Wall-clock milliseconds. */
  readonly now: () => number;
}

const levels: Record<Sentence['level'], { priority: number; style?: Style }> = {
  error: { priority: 3, style: 'red' },
  warning: { priority: 4, style: 'yellow' },
  info: { priority: 6 },
  debug: { priority: 7, style: 'dim' },
  never: { priority: 8 },
};

export function createLog(options: LogOptions): Emit {
  const least = levels[options.level].priority;
  return (event) => {
    const sentence = sentenceOf(event);
    if (levels[sentence.level].priority > least) return;
    if (options.format === 'json') options.write(jsonLine(options.now(), sentence, event));
    else options.write(textLine(sentence, options));
  };
}

/** Prefix of each sentence. */
const NAME = 'runlock: ';

/**
 * One line, whatever the message quotes: no part of it can look like another line or another priority. On a terminal
 * the line is wrapped between words, with the further lines indented.
 */
function textLine({ level, message }: Sentence, { journal, color, columns }: LogOptions): string {
  const { priority, style } = levels[level];
  if (journal) return `<${priority}>${NAME}${visible(message)}`;
  const width = columns?.();
  const line = NAME + visible(message);
  const shown = width === undefined ? line : wrapSentence(line, width);
  return NAME + paint(shown.slice(NAME.length), style, color);
}

function jsonLine(time: number, { level, message }: Sentence, event: RunEvent): string {
  // Leave out `detail`, which only the sentence needs.
  return renderJson({ time: new Date(time).toISOString(), level, message, ...event, detail: undefined });
}

/**
 * Whether journald reads a stream: JOURNAL_STREAM (systemd.exec(5)) names the stream's device and inode. After a
 * redirection the variable is still set, but the stream is another file.
 */
export function isJournal(
  env: Readonly<Record<string, string | undefined>>,
  fdStat: { readonly dev: number | bigint; readonly ino: number | bigint } | undefined,
): boolean {
  return fdStat !== undefined && env['JOURNAL_STREAM'] === `${fdStat.dev}:${fdStat.ino}`;
}

/** The `--log-format` of a command line that is not parsed yet, or can't be. Words after `--` belong to the command. */
export function likelyLogFormat(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): LogOptions['format'] {
  const end = argv.indexOf('--');
  const own = (end === -1 ? argv : argv.slice(0, end)).join('\n');
  const [, flag] = /^--log-format[=\n](.*)$/m.exec(own) ?? [];
  return (flag ?? env['RUNLOCK_LOG_FORMAT']) === 'json' ? 'json' : 'text';
}

/**
 * Waits for a line from the terminal behind the descriptor, with default signal actions; returns '' at end of input.
 * Opens the terminal anew, because the caller may have made the descriptor non-blocking.
 */
export function readLine(fd: number): string {
  const own = reopen(fd);
  try {
    const bytes = Buffer.alloc(1024);
    let line = '';
    while (!line.includes('\n')) {
      const count = readSync(own ?? fd, bytes);
      if (count === 0) break;
      line += bytes.toString('utf8', 0, count);
    }
    return line;
  } catch {
    // Nothing was typed.
    return '';
  } finally {
    if (own !== undefined) closeSync(own);
  }
}

function reopen(fd: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${fd}`, 'r');
  } catch {
    // The terminal belongs to another user, as after su(1) or sudo(8).
    return undefined;
  }
}
