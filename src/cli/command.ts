/** The interface between commands and the command line, which knows no command itself. */
import type { Command } from 'commander';
import type { RunlockError } from '../errors.ts';
import type { LogChoice } from '../platform/console.ts';

/** Options that every command has. */
export type Common = LogChoice;

/** The environment of the process. */
export type Env = Readonly<Record<string, string | undefined>>;

/** What is needed to read a command's options. */
export interface Context {
  readonly env: Env;
  readonly version: string;
  /** Commit and date of the build, which `--version` prints below the version. */
  readonly build?: string;
  /** Reads a file. Throws what node:fs throws. */
  readonly readText: (path: string) => string;
  /** The user who runs this. */
  readonly uid?: number;
  /** Throws `config` if users other than root and this one can write the file; undefined: files are not asked. */
  readonly checkFile?: (path: string) => Promise<void>;
  /** The stream for help. */
  readonly stdout?: { readonly columns: number | undefined };
}

/** What a command needs to define its options. */
export interface Defining extends Context {
  /** All commands with their options; if the line names a command, only that one is loaded otherwise. */
  readonly tree: () => Promise<Command>;
}

/** A parsed command line, typed and frozen. */
export interface Asked<Options = unknown> {
  readonly common: Common;
  readonly options: Options;
}

/** How a command uses the configuration file, if not as most do. */
export interface ConfigUse {
  /**
   * What to do about a wrong file: `report`: the command reports it itself. `ignore`: say nothing, because a shell runs
   * the command while the user types or logs in.
   */
  readonly wrong?: 'report' | 'ignore';
  /**
   * `always`: the file is refused if users other than root and the caller can write it, because the command runs what
   * this host's files say. Else that is so only where root reads the file that nobody named.
   */
  readonly trusted?: 'always';
  /** Further options that each of several groups can set in its own section. */
  readonly perGroup?: readonly string[];
}

/** One command: its options, and what it does. */
interface CommandModule<Own extends Asked, Platform> {
  readonly name: string;
  readonly config?: ConfigUse;
  /** Adds the command with its options to the program, and calls `done` with what was asked. */
  readonly define: (program: Command, context: Defining, done: (asked: Own) => void) => void;
  /** Runs the command and returns the exit status. Loads its code only then. */
  readonly run: (asked: Own, platform: Platform) => Promise<number>;
  /** What to run if the line is wrong, if that is more than an error message. */
  readonly ifWrong?: (argv: readonly string[], error: RunlockError) => Own | undefined;
}

/** A command, ready for the registry. */
export interface Registered<Platform> {
  readonly name: string;
  readonly config: ConfigUse;
  readonly define: (
    program: Command,
    context: Defining,
    done: (invocation: Invocation<Platform>) => void,
  ) => void;
  readonly ifWrong: (argv: readonly string[], error: RunlockError) => Invocation<Platform> | undefined;
}

/** A command of the registry, loaded only if it is named, or if all commands are described. */
export interface Listed<Platform> {
  readonly name: string;
  readonly load: () => Promise<Registered<Platform>>;
}

/** A command to run, as the command line asks. */
export interface Invocation<Platform> {
  /** The command's name; options ask for `help` and `licenses`. */
  readonly kind: string;
  /** What `define` passed to `done`. Undefined for help and licences. */
  readonly asked: Asked | undefined;
  /** @throws RunlockError if the command fails. */
  readonly run: (platform: Platform) => Promise<number>;
}

/** Hides a command's own types, so that all commands fit in one list. */
export function register<Own extends Asked, Platform>({
  name,
  config = {},
  define,
  run,
  ifWrong,
}: CommandModule<Own, Platform>): Registered<Platform> {
  const toInvocation = (asked: Own): Invocation<Platform> =>
    Object.freeze({
      kind: name,
      asked: Object.freeze(asked),
      run: (platform: Platform) => run(asked, platform),
    });
  return {
    name,
    config,
    define: (program, context, done) => define(program, context, (asked) => done(toInvocation(asked))),
    ifWrong: (argv, error) => {
      const asked = ifWrong?.(argv, error);
      return asked && toInvocation(asked);
    },
  };
}
