/** What runlock says to people: its log, the line that is drawn below it, and questions; all on stderr. */
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
  /** The line on stderr that is drawn over again and again. */
  readonly terminal: Terminal;
  /** Shows a line while something lasts, until the empty one; on a terminal alone, and where the log is for people. */
  readonly notice: (text: string) => void;
  readonly makeLog: (choice: LogChoice) => Emit;
  /** Says why the program ends, whatever was chosen before, and gives its exit status. */
  readonly sayFailure: (error: unknown, how: FailureChoice) => number;
  /** Puts a question to the person at the terminal, and waits; true: yes was typed. Undefined: stdin or stderr is no terminal. */
  readonly confirm: (question: string) => boolean | undefined;
}

interface FailureChoice extends Pick<LogChoice, 'logFormat'> {
  /** The stack of a bug is said too. */
  readonly isVerbose: boolean;
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
  /** The live line of a waiting exec, and in its place, while there is one, that of a connection that is tried again. */
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
    // On a terminal that stands still the newest one will do.
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
    makeLog: ({ verbose, quiet, logFormat }) => {
      takesNotices = !quiet && logFormat === 'text' && createOutput({ env, isTTY: stderr.isTTY }).live;
      newestLog = logOf(logFormat, (isTalkative) =>
        quiet ? 'error' : verbose ? 'debug' : isTalkative ? 'info' : 'warning',
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
    // Typed in full: a key that was pressed for something else must not pass for it.
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

/* A line of each event, for people, journald or a log collector; where they go is the caller's business. */

/** How much is said, and in which form. */
export interface LogChoice {
  readonly verbose: boolean;
  readonly quiet: boolean;
  readonly logFormat: 'text' | 'json';
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
  /** How wide the terminal is now; undefined: it is none, or nobody knows, and a sentence is one line. */
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

/** Before each sentence. */
const NAME = 'runlock: ';

/**
 * One line, whatever the message quotes: nothing in it can pass for a line of its own, or for another priority. A terminal
 * has it broken at words, and the other lines indented.
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
  // What only the sentence needs is no field.
  return renderJson({ time: new Date(time).toISOString(), level, message, ...event, detail: undefined });
}

/**
 * Whether journald reads a stream: JOURNAL_STREAM (systemd.exec(5)) names its device and inode. A redirected
 * stream inherits the variable but is another file.
 */
export function isJournal(
  env: Readonly<Record<string, string | undefined>>,
  fdStat: { readonly dev: number | bigint; readonly ino: number | bigint } | undefined,
): boolean {
  return fdStat !== undefined && env['JOURNAL_STREAM'] === `${fdStat.dev}:${fdStat.ino}`;
}

/** The `--log-format` of a command line that could not be read, or not yet: what stands behind `--` is another program's. */
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
 * Waits for a line of the terminal that the descriptor is, with signals acting as they do by default; empty at its end.
 * The terminal is opened anew: somebody may have made the descriptor non-blocking.
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
    // Nobody has typed anything.
    return '';
  } finally {
    if (own !== undefined) closeSync(own);
  }
}

function reopen(fd: number): number | undefined {
  try {
    return openSync(`/proc/self/fd/${fd}`, 'r');
  } catch {
    // Another user's terminal: su(1), sudo(8).
    return undefined;
  }
}
