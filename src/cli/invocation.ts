/** What a command line asks for: one typed, frozen command. */
import type { ExecOptions } from '../commands/exec-deps.ts';
import type { ReleaseOptions } from '../commands/release.ts';
import type { LogChoice } from '../platform.ts';

/** What every command takes. */
export type Common = LogChoice;

export type Invocation =
  | {
      readonly kind: 'exec';
      readonly common: Common;
      readonly options: ExecOptions;
      readonly conflictExitCode: number;
    }
  | {
      readonly kind: 'status';
      readonly common: Common;
      readonly options: {
        readonly prefix: string;
        readonly groups: readonly string[];
        readonly json: boolean;
      };
    }
  | {
      readonly kind: 'release';
      readonly common: Common;
      readonly options: Omit<ReleaseOptions, 'by'> & { readonly json: boolean };
    }
  /** Help or version, for stdout. */
  | { readonly kind: 'text'; readonly text: string };

/** The environment of the process. */
export type Env = Readonly<Record<string, string | undefined>>;

/** What a command's options are read with. */
export interface Context {
  readonly env: Env;
  readonly version: string;
}

/** Hears the one command that the line asks for. */
export type Done = (invocation: Invocation) => void;
