/**
 * Everything that can happen to a run, as events: for the log, the live view, the metrics, and code that prepares a
 * start.
 */
import type { ErrorCode } from '../errors.ts';

export type RunEvent = LogEvent | Step;

/**
 * Events that become one log line each. The properties beside `detail` are the fields of that line (docs/logs.md).
 * `detail` has what else the line's sentence needs, and is not part of the fields.
 */
export type LogEvent = Readonly<OfRun | OfGate | OfLock | OfConsul | OfHost | OfOperator | OfJob | OfAgent>;

/** Reports an event. Never throws and never waits. */
export type Emit = (event: RunEvent) => void;

export type LogLevel = 'error' | 'warning' | 'info' | 'debug';

/** An event in words, for people. */
export interface Sentence {
  /** `never`: a step, which has no log line. */
  readonly level: LogLevel | 'never';
  readonly message: string;
}

interface Run {
  group: string;
  node: string;
  run: string;
}

/** A run in its slot. */
export interface Place extends Run {
  slot: number;
}

type OfRun =
  | (Run & {
      event: 'waiting';
      behind: boolean;
      /** The groups in which the run has a slot already. */
      held?: readonly string[] | undefined;
      holders: readonly { readonly slot: number; readonly node: string; readonly state: string }[];
      detail: { readonly holders: readonly Holder[] };
    })
  | (Run & {
      event: 'frozen';
      /** The group that is frozen: the run's own, or an ancestor; '' for the root. */
      at: string;
      by: string;
      reason: string;
      until?: string | undefined;
      detail: { readonly then: 'waits' | 'gives-back' };
    })
  | (Place & {
      event: 'granted';
      fencingToken: number;
      since?: string;
      waitedMs: number;
      heldUntil?: string;
      /** Only for `acquire`, which goes on holding the slot. */
      detail?: { readonly prefix: string };
    })
  | (Place & {
      event: 'already-held';
      fencingToken: number;
      since: string;
      waitedMs: number;
      heldUntil?: string;
      detail: { readonly prefix: string; readonly forMs: number };
    })
  | (Place & {
      event: 'given-back';
      detail: { readonly prefix: string; readonly given: GivenBack | undefined };
    })
  | (Place & { event: 'recovered' })
  | (Place & { event: 'lost'; why: 'late' })
  | (Place & {
      event: 'lost';
      why: Over['kind'];
      detail: { readonly over: Over; readonly then: 'command-ends' | 'nothing-started' | 'not-held' };
    })
  | (Run & {
      event: 'releasing';
      exitCode: number;
      detail: {
        readonly command: string;
        readonly slots: readonly { readonly slot: number; readonly group: string }[];
      };
    })
  | (Place & {
      event: 'ended';
      outcome: string;
      exitCode: number;
      ranMs: number;
      released: 'released' | 'held' | 'nothing' | 'stays';
      heldUntil?: string | undefined;
      detail: End;
    })
  | (Run & { event: 'busy' } & (BusyWhy | BusyGate))
  /**
   * Another run of the node has its turn on this host; `holder` has its pid, command and groups. `leftQueue`: this run has lent
   * its turn while it waited in a queue, and could have had a slot now.
   */
  | (Run & {
      event: 'turn-waits';
      holder: Pick<TurnHolder, 'pid' | 'command' | 'groups'>;
      leftQueue?: true;
      detail: TurnHolder;
    })
  /** From now on, output of the command is left out of its log. */
  | { event: 'output-lost'; run: string; file: string; why: string }
  /** Runs of the node take no turns on this host. */
  | { event: 'no-turn'; node: string; run: string; why: string }
  /**
   * The run waits for its conditions without a slot. `missing`: each condition that does not hold, with its current
   * state.
   */
  | {
      event: 'when-waits' | 'when-gave-way' | 'when-unmet';
      run: string;
      group: string;
      missing: readonly string[];
    }
  /** The conditions were met, but services changed while they were read. */
  | { event: 'when-apart'; run: string; group: string }
  /** Others can't see that the run waits without a slot. */
  | { event: 'wait-unrecorded'; run: string; detail: Fault }
  | (Run & { event: 'sent-away'; by: string })
  /** The run is not wanted any more: its job was stopped, say. Nothing was started. */
  | { event: 'left'; run: string; group: string; why: string }
  | (Place & {
      event: 'dry-run';
      detail: {
        /** The state of the node's own claim, if the run would take one back. */
        readonly before: string | undefined;
        readonly words: readonly string[];
      };
    })
  | { event: 'metrics-unwritten'; group: string; file: string; why: string };

/** The holder of a slot, for messages to a run that wants one. */
export interface Holder {
  readonly slot: number;
  readonly node: string;
  readonly state: string;
  readonly command: string;
  readonly exitCode?: number;
  readonly unhealthy?: true;
  readonly isWithoutSession: boolean;
  readonly forMs: number;
}

/** Why a run must end early. */
export type Over =
  | { readonly kind: 'evicted'; readonly by: string }
  | { readonly kind: 'lost'; readonly why: string }
  /** The lock could not be confirmed for so long that another run may soon get the slot. */
  | { readonly kind: 'cut-off' };

/** Why runlock ended the command. `group`: the group whose slot was lost. */
export type Cause =
  | (Over & { readonly group: string })
  | { readonly kind: 'timed-out' }
  | { readonly kind: 'signal' }
  /** Its job was cancelled, and its runs are to be ended too. `why`: for people. */
  | { readonly kind: 'cancelled'; readonly why: string };

/** What happened to a slot at the end of a run. */
export type GivenBack =
  /** `kept`: the claim that stays to keep other runs out. */
  | {
      readonly kind: 'released';
      readonly kept?: { readonly state: string; readonly heldUntil?: string };
    }
  /** The slot no longer belongs to this run. */
  | { readonly kind: 'nothing' }
  /**
   * The slot could not be released in time, so these keys are left. `stuck`: no run or release can clear them; see
   * `why`.
   */
  | {
      readonly kind: 'stays';
      readonly keys: readonly string[];
      readonly why: string;
      readonly stuck?: true;
    };

interface End {
  readonly prefix: string;
  readonly command: string;
  readonly cause: Cause | undefined;
  readonly given: GivenBack;
  /** For outcome `unhealthy`: what was not healthy. */
  readonly why?: string | undefined;
  /** The command succeeded, and this signal ended the wait for the node to become healthy. */
  readonly told?: string | undefined;
  /** The command succeeded, but the run could not be recorded as good, so nothing was published; why. */
  readonly unpublished?: string | undefined;
}

/** The run that runs or waits already, and for how long, in milliseconds. */
interface Other {
  readonly pid: number;
  readonly forMs: number;
}

/** The run that has its node's turn on this host, or is in line for it. */
export interface TurnHolder {
  readonly pid: number;
  readonly command: string;
  readonly groups: readonly string[];
  readonly forMs: number;
  /** Its runlock is dead, and these processes of it are still running. */
  readonly left?: { readonly pids: readonly number[]; readonly cgroup?: string };
}

export type BusyWhy =
  | { why: 'same-node'; detail: Other & { readonly asked: 'exec' | 'acquire' | 'acquire-inside-exec' } }
  | {
      why: 'elsewhere';
      detail: Other & { readonly prefix: string; readonly host?: string; readonly holds?: number };
    }
  | { why: 'orphan'; detail: { readonly pids: readonly number[]; readonly cgroup?: string } }
  | { why: 'turn'; detail: TurnHolder }
  | { why: 'another-user'; detail: { readonly prefix: string; readonly uid: number } }
  | { why: 'held'; detail: { readonly prefix: string; readonly slot: number; readonly forMs: number } }
  | {
      why: 'frozen';
      detail: {
        readonly prefix: string;
        readonly at: string;
        readonly by: string;
        readonly reason: string;
        readonly since: string;
        readonly until?: string | undefined;
        readonly nowMs: number;
      };
    }
  | {
      why: 'slots';
      detail: {
        readonly prefix: string;
        readonly holders: readonly Holder[];
        /** A free slot, which the first run in the queue will get in a moment. */
        readonly free: number | undefined;
        readonly wait: number | 'forever';
      };
    };

interface BusyGate {
  why: 'gate';
  services: readonly { readonly service: string; readonly offline: readonly OfflinePeer[] }[];
  detail: { readonly closed: string };
}

interface OfflinePeer {
  readonly node: string;
  readonly id: string;
  readonly why: string;
}

interface NodeRun {
  node: string;
  run: string;
}

/** A maintenance: of a service, or of the whole node, for which `service` is ''. */
interface Mode {
  scope: 'node' | 'service';
  service: string;
}

type OfGate =
  | {
      event: 'gate-closed';
      node: string;
      run?: string;
      services: readonly {
        readonly service: string;
        readonly because: string;
        readonly offline: readonly OfflinePeer[];
      }[];
      /** `peers`: the nodes that the run waits for; '' if there are none. `closed`: why the gate is closed. */
      detail: { readonly peers: string; readonly closed: string };
    }
  | { event: 'gate-open'; node: string; run?: string }
  | { event: 'gate-nowhere'; node: string; service: string; run?: string }
  | (NodeRun & { event: 'gate-gave-way' | 'gate-left-queue'; detail: { readonly closed: string } })
  | { event: 'gate-unwatched' | 'out-unwatched'; detail: Fault }
  | (NodeRun &
      Mode & {
        event: 'maintenance-on';
        how: 'set' | 'adopted' | 'foreign';
        detail: { readonly reason: string };
      })
  | (NodeRun & { event: 'waiting-for-health'; withinMs: number; why: string })
  | (NodeRun & Mode & { event: 'maintenance-lost'; how: 'again' | 'by-hand' })
  | (NodeRun & Mode & { event: 'maintenance-lost'; how: 'closed'; detail: { readonly closed: string } })
  | (NodeRun & Mode & { event: 'maintenance-off' })
  | (Mode & {
      event: 'maintenance-kept';
      node: string;
      /** Undefined: the maintenance was ended by hand. */
      run?: string;
      by: string;
      /**
       * `wentOut`: the node had been taken out of service, so the reader expects it to be back: this makes it a
       * warning.
       */
      detail: { readonly need: string; readonly wentOut: boolean; readonly isReadable: boolean };
    })
  | { event: 'maintenance-left'; node: string; run?: string; detail: Left }
  | (Mode & { event: 'maintenance-foreign'; node: string; run?: string; reason: string })
  /** `release` could not check the maintenance. The event has no name in the log. */
  | { event: undefined; detail: Fault & { readonly node: string } };

/** Maintenance that runlock set and that is still on. `services`: what to name to end it; empty for the whole node. */
type Left =
  | { readonly kind: 'may-go-in'; readonly prefix: string; readonly services: readonly string[] }
  | {
      readonly kind: 'may-stay' | 'stays';
      readonly prefix: string;
      readonly services: readonly string[];
      readonly why: string;
    }
  | {
      readonly kind: 'by-earlier-run';
      readonly prefix: string;
      readonly services: readonly string[];
      /** Whether the whole node is in maintenance. */
      readonly isNode: boolean;
      /** What this run would need in order to end it. */
      readonly lacks: 'agent' | 'service';
    }
  | {
      readonly kind: 'released';
      readonly prefix: string;
      readonly places: readonly string[];
      readonly why: string;
      /** If set, shown instead of `why`: which run needs the maintenance, and what ends it. */
      readonly need: string | undefined;
    };

interface Fault {
  /** The message of the error. */
  readonly fault: string;
}

type OfLock =
  | { event: 'went-back'; group: string; detail: { readonly pauseMs: number } }
  | { event: 'slot-unseen'; detail: Fault }
  | { event: 'slot-seen'; detail: { readonly group: string } }
  | (Place & { event: 'lock-taken'; detail: { readonly key: string } })
  | {
      event: 'left-behind';
      detail: Run & Fault & { readonly prefix: string; readonly stays: 'ticket' | 'what-is-there' | 'claim' };
    }
  | (Run & { event: 'not-recorded'; detail: Fault })
  | {
      event: 'session-left';
      /** `isOthers`: the session belongs to a run that was sent away. */
      detail: Fault & { readonly session?: string; readonly isOthers?: true };
    }
  | { event: 'renewal-failed'; detail: Fault };

type OfConsul =
  | { event: 'consul-unreachable'; address: string; detail: Fault }
  | { event: 'consul-reachable'; address: string }
  | { event: 'consul-fault'; code: ErrorCode; detail: Fault };

/** A problem with the file in which a run records itself on this host. */
export type RunFileTrouble =
  | { readonly kind: 'not-believed'; readonly path: string; readonly why: string }
  | { readonly kind: 'not-noted'; readonly why: string };

type OfHost =
  | { event: 'guard'; kind: 'fired' | 'replaced' }
  | { event: 'guard'; kind: 'failed'; detail: { readonly reason: string } }
  | { event: 'no-cgroup'; run: string; why: string }
  | {
      event: 'run-file';
      detail: RunFileTrouble;
    }
  | { event: 'lines-lost'; lines: number }
  /** A RUNLOCK_ variable that runlock does not know. `meant`: a known name that is similar. */
  | { event: 'unknown-variable'; name: string; meant?: string }
  | {
      event: 'stuck';
      detail: { readonly processes: readonly { readonly pid: number; readonly name: string }[] };
    }
  | { event: 'signal-lost'; detail: Fault & { readonly signal: string } }
  | {
      event: 'interrupt-passed-on';
      detail: { readonly command: string; readonly againMs: number; readonly killAfterMs: number };
    }
  | { event: 'paused'; detail: { readonly leftMs: number } }
  | { event: 'signals-not-ignored'; signals: string; detail: { readonly command: string } }
  | { event: 'variables-changed'; names: readonly string[] }
  | {
      event: 'holder';
      group: string;
      slot: number;
      node?: string;
      state?: string;
      detail: { readonly text: string };
    }
  | { event: 'no-live-line'; detail: Fault };

type OfOperator =
  | { event: 'evicted'; slot: number; detail: { readonly node: string } }
  | { event: 'sending-away'; detail: { readonly node: string; readonly group: string } }
  | { event: 'error'; code: ErrorCode; stack?: string; detail: Fault }
  | { event: 'freeze-unknown'; detail: Fault }
  | { event: 'state-not-set'; path: string }
  | { event: 'state-unreadable'; path: string; detail: Fault }
  | { event: 'condition'; condition: string; holds: boolean; detail: { readonly is: string } }
  | {
      event: 'wait-ended';
      outcome: 'met' | 'timed-out' | 'passed' | 'stopped';
      waitedMs: number;
      detail: { readonly text: string };
    }
  | { event: 'wait-in-run'; run: string; group: string; task?: string };

/** Of `runlock job`; `job` is PRINCIPAL/ID. */
type OfJob =
  /** The same start was given before. */
  | { event: 'job-known'; job: string }
  /** Consul has refused to write it; tried again for some seconds. */
  | { event: 'job-refused'; job: string; detail: Fault }
  /** A signal has ended the watch. */
  | { event: 'job-left'; job: string; detail: { readonly watch: string; readonly cancel: string } }
  | { event: 'job-unanswered'; job: string; nodes: readonly string[]; waitedMs: number }
  | { event: 'job-waits-paused'; node: string; since: string }
  /** A run of the job has ended, and the job does not take its end. */
  | { event: 'job-end-unrecorded'; job: string; detail: Fault }
  /** No agent runs on these nodes, and the start says what becomes of them. */
  | { event: 'job-offline'; nodes: readonly string[]; offline: 'wait' | 'skip' | 'fail' };

/** Of `runlock agent`. */
type OfAgent =
  | { event: 'agent-ready'; node: string; tasks: readonly string[] }
  | { event: 'agent-waits'; detail: Fault }
  | { event: 'agent-lost'; node: string; detail: Fault }
  | { event: 'agent-stops'; signal: string }
  /** The files were read: those that are no tasks, and why. */
  | { event: 'agent-tasks'; tasks: readonly string[]; faults: readonly string[] }
  | { event: 'agent-paused'; by: string; reason?: string }
  | { event: 'agent-resumed' }
  | { event: 'agent-no-requests'; why: string }
  /** A change asks for a run of the task; none: its age does. */
  | { event: 'trigger-starts'; task: string; on: readonly string[] }
  | { event: 'trigger-refused'; task: string; why: 'loop' | 'deep'; cause: readonly string[] }
  | { event: 'trigger-held'; task: string; by: 'back-off' | 'tripped' | 'paused' }
  | { event: 'reactor-failed'; reactor: string; detail: Fault }
  | { event: 'hook-taken'; hook: string; host: string }
  | { event: 'hook-failed'; hook: string; host: string; detail: Fault }
  /** A request of a job for this node. `state`: of an end. */
  | {
      event: 'request';
      job: string;
      step: 'accepted' | 'started' | 'ended' | 'dropped' | 'unreadable';
      task?: string;
      state?: string;
      exitCode?: number;
      ranMs?: number;
      why?: string;
    }
  /** A process that the agent had started. `job`: absent, a change had asked for it. */
  | {
      event: 'agent-run-ended';
      job?: string;
      task: string;
      code?: number;
      signal?: string;
      /** The last thing that it wrote. */
      said: string;
      ranMs: number;
      log: string;
    }
  | { event: 'agent-part-failed'; part: string; detail: Fault & { readonly pauseMs: number } };

/** Steps on the way to a slot, which are not logged. */
export type Step = Readonly<
  /** The run starts to ask for a slot of the group. */
  | { event: 'asking'; group: string }
  /** The run has joined the queue. */
  | (Run & {
      event: 'queued';
      session: string;
      /** Whether others may be ahead: the run that joined just before was not the last to get a slot. */
      behind: boolean;
      hasToWait: boolean;
      /** The holders of the slots at that moment; empty if the run need not wait. */
      holders: readonly Holder[];
    })
  /** The ticket just before this run's has left the queue. `tickets`: those still ahead. */
  | { event: 'moved-up'; group: string; tickets: readonly string[] }
  /** A grant is likely soon, so listeners can prepare for it. */
  | { event: 'near'; group: string }
  /** The run is first in the queue. */
  | { event: 'first'; group: string }
>;
