/** What a command gives to the command line, which knows none of them. */
import type { Command } from 'commander';
import type { RunlockError } from '../errors.ts';
import type { LogChoice } from '../platform/console.ts';

/** What every command takes. */
export type Common = LogChoice;

/** The environment of the process. */
export type Env = Readonly<Record<string, string | undefined>>;

/** What a command's options are read with. */
export interface Context {
  readonly env: Env;
  readonly version: string;
  /** Which commit it was built from, and when: `--version` says so below the version. */
  readonly build?: string;
  /** A file's text. Throws what node:fs throws. */
  readonly readText: (path: string) => string;
  /** Where help goes. */
  readonly stdout?: { readonly columns: number | undefined };
}

/** What a command defines itself with. */
export interface Defining extends Context {
  /** Every command with its options, unread: a line that names a command has only that command. */
  readonly tree: () => Promise<Command>;
}

/** What a command is asked, once its line is read: typed and frozen. */
export interface Asked<Options = unknown> {
  readonly common: Common;
  readonly options: Options;
}

/** What a command does with the configuration file, where that is not what all others do. */
export interface ConfigUse {
  /**
   * Of a file that is wrong: says it itself (`report`), or nothing at all (`ignore`), where a shell starts it while somebody
   * types, or logs in.
   */
  readonly wrong?: 'report' | 'ignore';
  /** What, of several groups, each one's own section says, besides what it says of a run in all of them. */
  readonly perGroup?: readonly string[];
}

/** One command: how its line is read, and what it does. */
interface CommandModule<Own extends Asked, Platform> {
  readonly name: string;
  readonly config?: ConfigUse;
  /** Adds it, with its options, to the program. `done` hears what it was asked. */
  readonly define: (program: Command, context: Defining, done: (asked: Own) => void) => void;
  /** Does it, and gives the exit status. It loads what it needs when it is called. */
  readonly run: (asked: Own, platform: Platform) => Promise<number>;
  /** What it is asked by a line that is wrong, where that is no fault as every other. */
  readonly ifWrong?: (argv: readonly string[], error: RunlockError) => Own | undefined;
}

/** A command as the registry has it. */
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

/** A command that is loaded when it is named, or when all are described. */
export interface Listed<Platform> {
  readonly name: string;
  readonly load: () => Promise<Registered<Platform>>;
}

/** What a command line asks for. */
export interface Invocation<Platform> {
  /** The command's name; `help` and `licenses` are asked for by options. */
  readonly kind: string;
  /** What `define` told. Help and licences take nothing. */
  readonly asked: Asked | undefined;
  /** @throws RunlockError: what ends the command before its time. */
  readonly run: (platform: Platform) => Promise<number>;
}

/** Makes of a command what can stand in one list with all others. */
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
