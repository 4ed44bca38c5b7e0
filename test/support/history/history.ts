/** What happened in a group, as seen from outside: by the commands themselves, by a reader of Consul's keys, and by the test. */
import { readFileSync } from 'node:fs';

/** All times are milliseconds since boot, 10 ms exact: one clock that every process of the host can read. */
export function uptimeMs(): number {
  return Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1_000;
}

export interface Process {
  readonly role: 'command' | 'grandchild' | 'daemon';
  readonly pid: number;
  readonly startMs: number;
  /** Its last sign of life. */
  readonly lastMs: number;
  /** Absent where it was killed, or still lives. */
  readonly exitCode?: number;
}

/** One execution of a command. */
export interface RunTrace {
  readonly run: string;
  readonly node: string;
  readonly slot: number;
  /** The fencing token: the index at which Consul granted the slot. */
  readonly token: number;
  /** The tokens of its commands before, in the order of their starts, where what is held was asked for again. */
  readonly before?: readonly number[];
  readonly processes: readonly Process[];
}

/** A place in the queue. */
export interface TicketTrace {
  readonly session: string;
  readonly node: string;
  readonly run: string;
  readonly createIndex: number;
  /** Consul's index of the last look that still showed it. */
  readonly lastIndex: number;
}

/** Whom the queue served: `session`, at `index`. */
export interface Served {
  readonly session: string;
  readonly index: number;
}

/** What a slot was seen to hold; `claim` absent: nothing. */
export interface SlotTrace {
  readonly slot: number;
  readonly atMs: number;
  readonly claim?: {
    readonly node: string;
    readonly run: string;
    readonly state: string;
    readonly hold: 'forever' | 'none' | number;
    /** Milliseconds since boot. */
    readonly heldUntilMs?: number;
    readonly index: number;
  };
  /** The session that holds its lock. */
  readonly lockedBy?: string;
}

/** What the test did to the group, and may explain what follows. */
export interface Act {
  readonly atMs: number;
  /**
   * clear: `release`. evict: `release --force`. by-hand: keys of the group written or deleted.
   * stop: a signal that asked runlock to end, which excuses no claim that goes; let-go: it was told so before (--release-on-signal).
   * kill: runlock, its guard or its command ended by SIGKILL.
   */
  readonly kind: 'clear' | 'evict' | 'by-hand' | 'stop' | 'let-go' | 'kill';
  /** Whom it concerns; everybody unless given. */
  readonly node?: string;
}

/** What a queue of so many cost, renewals aside. */
export interface Cost {
  readonly waiters: number;
  readonly runs: number;
  readonly requests: number;
  readonly bytes: number;
}

/** What was seen of a service from outside. */
export interface OfflineTrace {
  readonly service: string;
  /** How many of so many instances may be taken offline at a time. */
  readonly limitOf: (total: number) => number;
  readonly looks: readonly {
    readonly atMs: number;
    readonly total: number;
    readonly offline: readonly { readonly node: string; readonly maintenance: readonly string[] }[];
  }[];
}

export interface History {
  readonly slots: number;
  readonly runs: readonly RunTrace[];
  readonly tickets: readonly TicketTrace[];
  readonly served: readonly Served[];
  /** In the order in which they were seen. */
  readonly slotTraces: readonly SlotTrace[];
  readonly acts: readonly Act[];
  /** Runs whose end was seen in their node's record: they gave their slots back themselves. */
  readonly recorded?: readonly string[];
  /** Of all runs, where they have one: a claim that came and went between two looks was never seen. */
  readonly hold?: 'none';
  /** What is there when all is over: keys below the group's prefix, and names of live sessions of the group. */
  readonly left: { readonly keys: readonly string[]; readonly sessions: readonly string[] };
  readonly costs?: readonly Cost[];
  /** Of the services that a gate guards. */
  readonly offline?: readonly OfflineTrace[];
}
