/** What `exec` is asked, and what it may touch. */
import type { Consul } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import type { Condition } from '../conditions/parse.ts';
import type { Bounds } from '../gate/decide.ts';
import type { Scope } from '../gate/maintenance.ts';
import type { Hold, Outcome } from '../lock/records.ts';
import type { Containment } from '../process/contain.ts';
import type { RunIdentity } from '../process/process-tree.ts';
import type { SignalSource } from '../platform/signals.ts';
import type { RunFiles } from '../process/run-file.ts';
import type { Terminal } from '../platform/terminal.ts';
import type { OpenLiveLine } from './live-progress.ts';

/** What is asked of one group. */
export interface GroupChoice {
  readonly group: string;
  /** How many may run there at once. */
  readonly slots: number;
  readonly hold: Hold;
  /** A signal that ends the run ends its claim there too. */
  readonly releaseOnSignal?: true;
}

/** How the services' gate is asked. */
export interface GateChoice extends Bounds {
  /** Names, and `auto`. */
  readonly services: readonly string[];
  /** Milliseconds. */
  readonly stableMs: number;
  readonly maintenance?: Scope;
  readonly settleMs: number;
  /** Undefined: nobody looks. */
  readonly healthyWithinMs?: number;
  /** The address of the node's own agent, where that is not the one that is asked for everything else. */
  readonly agent?: string;
}

export interface ExecOptions {
  readonly prefix: string;
  /** At least one, each once: the run takes a slot in every one of them. */
  readonly groups: readonly [GroupChoice, ...GroupChoice[]];
  /** Milliseconds. */
  readonly wait: number | 'forever';
  readonly splayMs: number;
  /** Milliseconds; undefined: no limit. */
  readonly timeoutMs?: number;
  readonly killAfterMs: number;
  readonly okCodes?: readonly number[];
  readonly rebootCodes?: readonly number[];
  readonly node?: string;
  readonly sessionTtlMs: number;
  /** Undefined: no service is named, and nobody looks. */
  readonly gate?: GateChoice;
  /** What must hold before the command starts; undefined: nothing. */
  readonly when?: readonly Condition[];
  readonly dryRun: boolean;
  readonly command: string;
  readonly args: readonly string[];
}

/** What is measured of an attempt to run, whatever became of it. */
export interface Figures {
  readonly outcome: Outcome | 'busy';
  /** By group, in milliseconds; one that was not asked is missing. */
  readonly waitedMs: Readonly<Record<string, number>>;
  /** Undefined: nothing was started. */
  readonly ranMs?: number;
}

export interface ExecDeps extends Deps {
  readonly consul: Consul;
  /** To another agent; it is closed with the rest. */
  readonly connectTo: (address: string) => Promise<Consul>;
  /** The command's: without what runlock itself was told by variables. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signals: SignalSource;
  readonly run: RunIdentity;
  /** What runs write down of themselves on this host. */
  readonly runFiles: RunFiles;
  /** Descriptors above 2 that the command gets. */
  readonly inherited: readonly number[];
  /** Where the command is to live. */
  readonly contained: Pick<Containment, 'cgroup' | 'fileLimit'>;
  /** Whether the command shares a terminal with runlock. */
  readonly shareTerminal: boolean;
  /** Where a live line goes; undefined where there is none. */
  readonly terminal?: Terminal;
  /** Shows the wait for a slot; undefined where nobody reads that. */
  readonly liveLine?: OpenLiveLine;
}
