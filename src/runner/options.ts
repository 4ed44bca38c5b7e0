/** What `exec` is asked to do, and what it may touch. */
import type { Consul } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import type { OwnRun } from '../conditions/own-run.ts';
import type { Condition } from '../conditions/parse.ts';
import type { Bounds } from '../gate/decide.ts';
import type { Scope } from '../gate/maintenance.ts';
import type { Causes } from '../lock/causes.ts';
import type { JobRef } from '../jobs/keys.ts';
import type { TriggerChoice } from '../jobs/trigger.ts';
import type { Hold, Outcome, TaskRun } from '../lock/records.ts';
import type { Containment } from '../process/contain.ts';
import type { RunIdentity } from '../process/process-tree.ts';
import type { SignalSource } from '../platform/signals.ts';
import type { RunFiles } from '../process/run-file.ts';
import type { Turn, TurnAsks } from '../process/turn.ts';
import type { Setting } from '../state/setting.ts';
import type { Terminal } from '../platform/terminal.ts';
import type { OpenLiveLine } from './live-progress.ts';

/** What a run asks of one group. */
export interface GroupChoice {
  readonly group: string;
  /** How many runs the group allows at once. */
  readonly slots: number;
  readonly hold: Hold;
  /** A signal that ends the run also ends its claim in this group. */
  readonly releaseOnSignal?: true;
}

/** The options of the health gate. */
export interface GateChoice extends Bounds {
  /** Names, and `auto`. */
  readonly services: readonly string[];
  /** Milliseconds. */
  readonly stableMs: number;
  readonly maintenance?: Scope;
  readonly settleMs: number;
  /** Undefined: no health check after the command. */
  readonly healthyWithinMs?: number;
  /** The address of the node's own agent, if that differs from the agent that is asked for everything else. */
  readonly agent?: string;
}

/** The job that a run is for. */
export interface JobChoice {
  readonly ref: JobRef;
  /** What the run is, by its node's own files; the job has to ask for just that. */
  readonly task: string;
  readonly params: Readonly<Record<string, string>>;
  /** It runs the command that only tries. */
  readonly noop: boolean;
  /** How many targets of the job may run at once; undefined: as many as the slots allow. */
  readonly maxRunning?: number;
  /** The first by path of the task's groups. */
  readonly home: string;
  /** Whether others may see lines of its output. */
  readonly tail: boolean;
  /** Where this host keeps what it has started for jobs. */
  readonly stateFolder: string;
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
  /** Undefined: no service is named, so there is no gate. */
  readonly gate?: GateChoice;
  /** What must hold before the command starts; undefined: nothing. */
  readonly when?: readonly Condition[];
  /** States to set with the end of a good run, in the transaction that records it; each path once. */
  readonly publish?: readonly Setting[];
  /** States that are there from the start of the command until the run's claim ends; each path once. */
  readonly during?: readonly Setting[];
  /** The node's agent has started the run for this; undefined: it was somebody else. */
  readonly trigger?: TriggerChoice;
  /** Undefined: the run is for no job. */
  readonly job?: JobChoice;
  /** Undefined: it runs no task, or only tries. */
  readonly task?: TaskRun;
  readonly dryRun: boolean;
  /** Where the command's output goes; undefined: where runlock's goes. */
  readonly logFile?: string;
  readonly command: string;
  readonly args: readonly string[];
}

/** Measurements of an attempt to run, whatever its outcome. */
export interface Figures {
  readonly outcome: Outcome | 'busy';
  /** By group, in milliseconds; a group that was never asked is missing. */
  readonly waitedMs: Readonly<Record<string, number>>;
  /** Undefined: nothing was started. */
  readonly ranMs?: number;
}

export interface ExecDeps extends Deps {
  readonly consul: Consul;
  /** Connects to another agent; the connection is closed with the others. */
  readonly connectTo: (address: string) => Promise<Consul>;
  /** The command's environment, without the variables that configure runlock itself. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The run that this one is inside of. */
  readonly inside?: OwnRun | undefined;
  /** Of the run that this one is inside of. */
  readonly causes?: Causes | undefined;
  /** Where the command starts; undefined: where runlock did. */
  readonly cwd?: string;
  /** A program and arguments that become the command as another user; undefined: it runs as this one. */
  readonly become?: readonly [string, ...string[]] | undefined;
  readonly signals: SignalSource;
  readonly run: RunIdentity;
  /** A random id, for a change of a state. */
  readonly newId: () => string;
  /** The notes that runs keep about themselves on this host. */
  readonly runFiles: RunFiles;
  /** The line of runs for a node's turn on this host. */
  readonly openTurn: (asks: TurnAsks) => Turn;
  /** The effective user id. */
  readonly uid: number;
  /** Descriptors above 2 that the command gets. */
  readonly inherited: () => readonly number[];
  /** Where the command will run. */
  readonly contained: Pick<Containment, 'cgroup' | 'fileLimit'>;
  /** Whether the command shares a terminal with runlock. */
  readonly shareTerminal: boolean;
  /** Where to draw a live line; undefined if there is no terminal for one. */
  readonly terminal?: Terminal;
  /** Shows the wait for a slot; undefined if no one would see it. */
  readonly liveLine?: OpenLiveLine;
}
