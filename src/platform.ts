/** What the process that runlock is gives to the commands: streams, signals, the way to Consul. Made by `main`. */
import type { Consul } from './consul.ts';
import type { Deps, Log } from './deps.ts';
import type { FileLimit } from './process/file-limit.ts';
import type { RunFiles } from './process/run-file.ts';

export interface Platform {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** Which commit it was built from, and when. */
  readonly build: string;
  /** Of the Node.js that runs this: `20.19.0`. Undefined: none does, the program is one file. */
  readonly nodeVersion: string | undefined;
  /** A file's text. Throws what node:fs throws. */
  readText(path: string): string;
  readonly deps: Omit<Deps, 'log'>;
  readonly stdout: Stream;
  readonly stderr: Stream;
  /** Resolves when the text is out of this process: an exit cuts off what a pipe has not taken yet. */
  write(text: string): Promise<void>;
  makeLog(options: LogChoice): Log;
  /** To the agent of the environment, or to the one at another address: the same token, TLS and namespace. */
  connect(log: Log, agent?: string): Promise<Consul>;
  /** From the first call on a signal no longer ends the process by itself. */
  listenToSignals(): SignalSource;
  /** Called when the process ends, however it does: what is written then must go out at once. */
  atExit(last: () => void): void;
  /** Descriptors above 2 that the caller opened for the command. */
  readonly inherited: readonly number[];
  /** The caller's limit of open files; undefined: there is nothing to change. */
  readonly fileLimit: () => FileLimit | undefined;
  /** Gets ready what log lines go through: it may take a process, and later is a bad time for that. */
  readonly prepareLog: () => void;
  /** Whether there is a controlling terminal, wherever stdin and stdout go: prompts use /dev/tty. */
  hasTerminal(): boolean;
  /** The line on stderr that is drawn over again and again. */
  readonly terminal: Terminal;
  readonly newRunId: () => string;
  /** What runs write down of themselves on this host. */
  runFiles(log: Log): RunFiles;
  /** Puts a question to the person at the terminal, and waits; true: yes was typed. Undefined: stdin or stderr is no terminal. */
  confirm(question: string): boolean | undefined;
  /** Ctrl-Z, and back again. */
  whenStopped(screen: Screen): void;
  /** Who runs this: `user@host`; the person behind sudo. */
  operator(): string;
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

/** How much is said, and in which form. */
export interface LogChoice {
  readonly verbose: boolean;
  readonly quiet: boolean;
  readonly logFormat: 'text' | 'json';
}

/** Signals that the operating system sends to runlock. */
export interface SignalSource {
  /** Numbers of those that runlock's caller ignores. They are not heard, and the command is to ignore them too. */
  readonly ignored: readonly number[];
  /** The newest listener gets them all. */
  listen(listener: (signal: NodeJS.Signals) => void): void;
  /** From now on these signals are told instead of stopping the process, until what is returned is called. One listener at a time. */
  onStop(listener: (signal: StopSignal) => void): () => void;
  /** Stops the process as the signal would have; returns when it is continued, or at once where no shell could do that. */
  stop(signal: StopSignal): void;
}

/** Ctrl-Z; a read from the terminal by somebody in the background; a write, where the terminal forbids that (stty tostop). */
export type StopSignal = 'SIGTSTP' | 'SIGTTIN' | 'SIGTTOU';

export interface Terminal {
  /** Draws the line over the one before; an empty one clears it. */
  draw(line: string): void;
  columns(): number;
}
