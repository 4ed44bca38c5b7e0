/** What runlock's process offers to commands: streams, signals, files, the terminal. Made by `main`. */
import type { Emit } from '../events/events.ts';
import type { Deps } from '../platform/deps.ts';
import type { Keys } from '../platform/keys.ts';
import type { LogChoice } from '../platform/console.ts';
import type { SignalSource } from '../platform/signals.ts';
import type { Screen, Stream, Terminal } from '../platform/terminal.ts';
import type { Turn, TurnAsks } from '../process/turn.ts';
import type { RunFiles } from '../process/run-file.ts';

export interface Platform {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** Commit and date of the build. */
  readonly build: string;
  /** Version of the Node.js that runs this, such as `20.19.0`. Undefined: the program is a single file. */
  readonly nodeVersion: string | undefined;
  /** Reads a file. Throws what node:fs throws. */
  readText(path: string): string;
  /** Throws `config` if users other than root and the one who runs this can write the file. */
  checkFile(path: string): Promise<void>;
  /** Reads all of stdin. Throws what node:fs throws, or the reason why stdin can't be read. */
  readStdin(): Promise<Uint8Array>;
  /** The words that start this program again, as it was started: after an update they start the new version. */
  readonly self: () => readonly [string, ...string[]];
  readonly deps: Omit<Deps, 'emit'>;
  readonly stdout: Stream;
  readonly stderr: Stream;
  /** Resolves when the text has left this process; an earlier exit would cut off what a pipe has not taken. */
  write(text: string | Uint8Array): Promise<void>;
  makeLog(options: LogChoice): Emit;
  /** After the first call, signals no longer end the process by default. */
  listenToSignals(): SignalSource;
  /** Calls `last` whenever the process ends; output in it must be synchronous. */
  atExit(last: () => void): void;
  /** Descriptors above 2 that the caller opened for the command. */
  readonly inherited: () => readonly number[];
  /** Prepares the log's output early, because that may start a process. */
  readonly prepareLog: () => void;
  /** Whether there is a controlling terminal, even if stdin and stdout are redirected; prompts use /dev/tty. */
  hasTerminal(): boolean;
  /** Shows a temporary line until called with an empty one; only on a terminal, and if the log is for people. */
  readonly notice: (text: string) => void;
  /** The live line on stderr, which is redrawn in place. */
  readonly terminal: Terminal;
  readonly newRunId: () => string;
  /** The files in which runs are recorded on this host. */
  runFiles(emit: Emit): RunFiles;
  /** The line of runs for a node's turn on this host. */
  readonly openTurn: (asks: TurnAsks) => Turn;
  /** Asks the person at the terminal and waits; true: they typed yes. Undefined: stdin or stderr is not a terminal. */
  confirm(question: string): boolean | undefined;
  /** Reads single keys; undefined: stdin is not a terminal. */
  openKeys(): Keys | undefined;
  /** Leaves the screen when the process is stopped (Ctrl-Z), and enters it again when continued. */
  whenStopped(screen: Screen): void;
  /** The id of the user who runs this. */
  readonly uid: number;
  /** Who runs this, as `user@host`; under sudo, the person who called it. */
  operator(): string;
}
