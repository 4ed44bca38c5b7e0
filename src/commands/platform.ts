/** What the process that runlock is gives to the commands: streams, signals, the way to Consul. Made by `main`. */
import type { Emit } from '../events/events.ts';
import type { Deps } from '../platform/deps.ts';
import type { Keys } from '../platform/keys.ts';
import type { LogChoice } from '../platform/console.ts';
import type { SignalSource } from '../platform/signals.ts';
import type { Screen, Stream, Terminal } from '../platform/terminal.ts';
import type { RunFiles } from '../process/run-file.ts';

export interface Platform {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** Which commit it was built from, and when. */
  readonly build: string;
  /** Of the Node.js that runs this: `20.19.0`. Undefined: none does, the program is one file. */
  readonly nodeVersion: string | undefined;
  /** A file's text. Throws what node:fs throws. */
  readText(path: string): string;
  /** All of stdin. Throws what node:fs throws, or why it can't be read. */
  readStdin(): Promise<Uint8Array>;
  readonly deps: Omit<Deps, 'emit'>;
  readonly stdout: Stream;
  readonly stderr: Stream;
  /** Resolves when the text is out of this process: an exit cuts off what a pipe has not taken yet. */
  write(text: string): Promise<void>;
  makeLog(options: LogChoice): Emit;
  /** From the first call on a signal no longer ends the process by itself. */
  listenToSignals(): SignalSource;
  /** Called when the process ends, however it does: what is written then must go out at once. */
  atExit(last: () => void): void;
  /** Descriptors above 2 that the caller opened for the command. */
  readonly inherited: readonly number[];
  /** Gets ready what log lines go through: it may take a process, and later is a bad time for that. */
  readonly prepareLog: () => void;
  /** Whether there is a controlling terminal, wherever stdin and stdout go: prompts use /dev/tty. */
  hasTerminal(): boolean;
  /** Shows a line while something lasts, until the empty one; on a terminal alone, and where the log is for people. */
  readonly notice: (text: string) => void;
  /** The line on stderr that is drawn over again and again. */
  readonly terminal: Terminal;
  readonly newRunId: () => string;
  /** What runs write down of themselves on this host. */
  runFiles(emit: Emit): RunFiles;
  /** Puts a question to the person at the terminal, and waits; true: yes was typed. Undefined: stdin or stderr is no terminal. */
  confirm(question: string): boolean | undefined;
  /** Single keys of the terminal; undefined: stdin is none. */
  openKeys(): Keys | undefined;
  /** Ctrl-Z, and back again. */
  whenStopped(screen: Screen): void;
  /** Who runs this: `user@host`; the person behind sudo. */
  operator(): string;
}
