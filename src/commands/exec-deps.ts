/** What `exec` is asked, and what it may touch. */
import type { Consul } from '../consul.ts';
import type { Deps } from '../deps.ts';
import type { Hold, Outcome } from '../lock/records.ts';
import type { SignalSource, Terminal } from '../platform.ts';

export interface ExecOptions {
  readonly prefix: string;
  readonly group: string;
  readonly slots: number;
  /** Milliseconds. */
  readonly wait: number | 'forever';
  readonly splayMs: number;
  readonly hold: Hold;
  /** Milliseconds; undefined: no limit. */
  readonly timeoutMs?: number;
  readonly killAfterMs: number;
  readonly okCodes?: readonly number[];
  readonly rebootCodes?: readonly number[];
  readonly node?: string;
  readonly sessionTtlMs: number;
  readonly dryRun: boolean;
  readonly command: string;
  readonly args: readonly string[];
}

/** What is measured of an attempt to run, whatever became of it. */
export interface Figures {
  readonly outcome: Outcome | 'busy';
  readonly waitedMs: number;
  /** Undefined: nothing was started. */
  readonly ranMs?: number;
}

export interface ExecDeps extends Deps {
  readonly consul: Consul;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signals: SignalSource;
  readonly newRunId: () => string;
  /** Whether the command shares a terminal with runlock. */
  readonly shareTerminal: boolean;
  /** Where the live line goes; undefined where there is none. */
  readonly terminal?: Terminal;
}
