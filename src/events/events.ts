/** What happens to a run, and around it. Whoever logs, shows, measures or gets ready hears of it here. */
import type { ErrorCode } from '../errors.ts';

export type RunEvent = LogEvent | Step;

/**
 * One line of the log each. What stands beside `detail` are the fields of that line, as docs/logs.md has them; `detail` is
 * what its sentence needs besides, and no field of the line.
 */
export type LogEvent = Readonly<OfRun | OfGate | OfLock | OfConsul | OfHost | OfOperator>;

/** Whoever has something to say. Never throws, never waits. */
export type Emit = (event: RunEvent) => void;

export type LogLevel = 'error' | 'warning' | 'info' | 'debug';

/** What an event is to people. */
export interface Sentence {
  /** `never`: of a step, which has no line. */
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
      /** The groups in which it has a slot already. */
      held?: readonly string[] | undefined;
      holders: readonly { readonly slot: number; readonly node: string; readonly state: string }[];
      detail: { readonly holders: readonly Holder[] };
    })
  | (Run & {
      event: 'frozen';
      /** Which group is: its own, or one above; '' for the root. */
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
      /** Of `acquire`, which holds it. */
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
  /** It waits for its conditions without a slot. `missing`: each that does not hold, and how it is instead. */
  | {
      event: 'when-waits' | 'when-gave-way' | 'when-unmet';
      run: string;
      group: string;
      missing: readonly string[];
    }
  | (Run & { event: 'sent-away'; by: string })
  | (Place & {
      event: 'dry-run';
      detail: {
        /** The state of the node's own claim, where it would come back to one. */
        readonly before: string | undefined;
        readonly words: readonly string[];
      };
    })
  | { event: 'metrics-unwritten'; group: string; file: string; why: string };

/** Who has a slot, as far as that matters to somebody who wants it. */
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

/** Why a run must end before its time. */
export type Over =
  | { readonly kind: 'evicted'; readonly by: string }
  | { readonly kind: 'lost'; readonly why: string }
  /** Nothing proved the lock for so long that others may soon follow. */
  | { readonly kind: 'cut-off' };

/** Why runlock ended the command, if it did; `group`: where the lease was over. */
export type Cause =
  (Over & { readonly group: string }) | { readonly kind: 'timed-out' } | { readonly kind: 'signal' };

/** What became of a slot. */
export type GivenBack =
  /** `kept`: of the claim that goes on keeping others out. */
  | {
      readonly kind: 'released';
      readonly kept?: { readonly state: string; readonly heldUntil?: string };
    }
  /** It is this run's no longer. */
  | { readonly kind: 'nothing' }
  /** Consul could not be reached in time: these keys stay behind. `stuck`: no run and no release can clear them, and `why` says what can. */
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
  /** Of a run that was unhealthy: what was not well. */
  readonly why?: string | undefined;
  /** Its command did well, and this signal ended the wait for its node's health. */
  readonly told?: string | undefined;
}

/** Of whoever runs or waits already, `since` when in milliseconds. */
interface Other {
  readonly pid: number;
  readonly forMs: number;
}

export type BusyWhy =
  | { why: 'same-node'; detail: Other & { readonly asked: 'exec' | 'acquire' | 'acquire-inside-exec' } }
  | {
      why: 'elsewhere';
      detail: Other & { readonly prefix: string; readonly host?: string; readonly holds?: number };
    }
  | { why: 'orphan'; detail: { readonly pids: readonly number[]; readonly cgroup?: string } }
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
        /** One that whoever is first in the queue has in a moment. */
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

/** What is in maintenance, or was: a service, or with '' for it the whole node. */
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
      /** `peers`: all that it waits for; '' where `closed`, the reason, is none of them. */
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
      /** Undefined: a hand ended what runlock had set. */
      run?: string;
      by: string;
      /** `wentOut`: whoever reads of it takes the node to be back. */
      detail: { readonly need: string; readonly wentOut: boolean; readonly isReadable: boolean };
    })
  | { event: 'maintenance-left'; node: string; run?: string; detail: Left }
  | (Mode & { event: 'maintenance-foreign'; node: string; run?: string; reason: string })
  /** Has no name in the log: `release` could not look. */
  | { event: undefined; detail: Fault & { readonly node: string } };

/** What runlock set and is not over. `services`: those that end it, none for the whole node. */
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
      /** The whole node. */
      readonly isNode: boolean;
      /** What this run would need in order to end it. */
      readonly lacks: 'agent' | 'service';
    }
  | {
      readonly kind: 'released';
      readonly prefix: string;
      readonly places: readonly string[];
      readonly why: string;
      /** In place of that: who needs it, and what ends it then. */
      readonly need: string | undefined;
    };

interface Fault {
  /** What was wrong, as an error says it. */
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
      /** `isOthers`: of a run that is sent away. */
      detail: Fault & { readonly session?: string; readonly isOthers?: true };
    }
  | { event: 'renewal-failed'; detail: Fault };

type OfConsul =
  | { event: 'consul-unreachable'; address: string; detail: Fault }
  | { event: 'consul-reachable'; address: string }
  | { event: 'consul-fault'; code: ErrorCode; detail: Fault };

/** What a run wrote down of itself can't be used. */
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
  /** A RUNLOCK_ variable that nothing reads; `meant`: the right name that is near. */
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
  | { event: 'condition'; condition: string; holds: boolean; detail: { readonly is: string } }
  | {
      event: 'wait-ended';
      outcome: 'met' | 'timed-out' | 'passed';
      waitedMs: number;
      detail: { readonly text: string };
    }
  | { event: 'wait-in-run'; run: string; group: string };

/** Steps of the way to a slot: the log has no line of them. */
export type Step = Readonly<
  /** A slot of the group is asked for from here on. */
  | { event: 'asking'; group: string }
  /** The run has joined the queue. */
  | (Run & {
      event: 'queued';
      session: string;
      /** Whether somebody may still be before it: who joined just before was not the last to be granted. */
      behind: boolean;
      hasToWait: boolean;
      /** Who had the slots at that moment; nobody, where it has not to wait. */
      holders: readonly Holder[];
    })
  /** The one just before it has left; these tickets are before it still. */
  | { event: 'moved-up'; group: string; tickets: readonly string[] }
  /** Hardly anybody can be before it any more: what a grant needs can be made ready. */
  | { event: 'near'; group: string }
  /** Nobody is before it any more. */
  | { event: 'first'; group: string }
>;
