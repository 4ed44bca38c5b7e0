/** What a command line asks for: one typed, frozen command. */
import type { CompleteOptions } from '../commands/complete.ts';
import type { AcquireOptions } from '../commands/acquire.ts';
import type { DoctorOptions } from '../commands/doctor.ts';
import type { ExecOptions } from '../commands/exec-deps.ts';
import type { GateOptions } from '../commands/gate.ts';
import type { HistoryRequest } from '../commands/history.ts';
import type { FreezeOptions } from '../commands/freeze.ts';
import type { ReleaseOptions } from '../commands/release/released.ts';
import type { StatusRequest } from '../commands/status.ts';
import type { ThawOptions } from '../commands/thaw.ts';
import type { ConfigReport } from './config-report.ts';
import type { LogChoice } from '../platform/log.ts';

/** What every command takes. */
export type Common = LogChoice;

export type Invocation =
  | {
      readonly kind: 'exec';
      readonly common: Common;
      readonly options: ExecOptions;
      readonly conflictExitCode: number;
      /** Where the figures of the attempt go. */
      readonly metricsFile?: string;
    }
  | {
      readonly kind: 'status';
      readonly common: Common;
      readonly options: StatusRequest;
    }
  | {
      readonly kind: 'acquire';
      readonly common: Common;
      readonly options: AcquireOptions & { readonly json: boolean };
      readonly conflictExitCode: number;
    }
  | {
      readonly kind: 'release';
      readonly common: Common;
      readonly options: Omit<ReleaseOptions, 'by'> & { readonly json: boolean };
      /** The address of the owner's own Consul agent. */
      readonly agent?: string;
    }
  | {
      readonly kind: 'history';
      readonly common: Common;
      readonly options: HistoryRequest;
    }
  | {
      readonly kind: 'freeze';
      readonly common: Common;
      readonly options: Omit<FreezeOptions, 'by'> & { readonly json: boolean };
    }
  | {
      readonly kind: 'thaw';
      readonly common: Common;
      readonly options: ThawOptions & { readonly json: boolean };
    }
  | {
      readonly kind: 'gate';
      readonly common: Common;
      readonly options: GateOptions & { readonly json: boolean; readonly agent?: string };
    }
  | {
      readonly kind: 'doctor';
      readonly common: Common;
      readonly options: DoctorOptions & { readonly json: boolean };
    }
  | {
      readonly kind: 'completion';
      readonly common: Common;
      readonly options: { readonly shell: 'bash' | 'zsh' | 'fish' };
    }
  /** A shell asks what can stand where the cursor is. */
  | { readonly kind: 'complete'; readonly common: Common; readonly options: CompleteOptions }
  | {
      readonly kind: 'config';
      readonly common: Common;
      readonly options: { readonly json: boolean; readonly report: ConfigReport };
    }
  /** Of all that the program has in it. */
  | { readonly kind: 'licenses' }
  /** Help or version, for stdout. */
  | { readonly kind: 'text'; readonly text: string };

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

/** Hears the one command that the line asks for. */
export type Done = (invocation: Invocation) => void;
