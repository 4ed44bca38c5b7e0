/** A line of each event, for people, journald or a log collector; where they go is the caller's business. */
import type { Emit, LogLevel, RunEvent, Sentence } from '../events/events.ts';
import { sentenceOf } from '../events/sentence.ts';
import { paint } from '../text/style.ts';
import { renderJson, visible } from '../text/visible.ts';
import type { Style } from '../text/style.ts';

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
  /** Wall-clock milliseconds. */
  readonly now: () => number;
}

const levels: Record<LogLevel, { priority: number; style?: Style }> = {
  error: { priority: 3, style: 'red' },
  warning: { priority: 4, style: 'yellow' },
  info: { priority: 6 },
  debug: { priority: 7, style: 'dim' },
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

/** One line, whatever the message quotes: nothing in it can pass for a line of its own, or for another priority. */
function textLine({ level, message }: Sentence, { journal, color }: LogOptions): string {
  const { priority, style } = levels[level];
  return `${journal ? `<${priority}>` : ''}runlock: ${paint(visible(message), style, color && !journal)}`;
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
