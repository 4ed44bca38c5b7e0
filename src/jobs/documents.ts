/**
 * What the keys of requests and jobs hold: small JSON documents with a `v` field, as the lock's records. `rev` counts
 * the writes of a document, because writing what is there already leaves Consul's index as it is. Pure.
 * Times are ISO 8601 in UTC, durations are milliseconds.
 */

/** A failure counts against the job's limit; `lost`: the run is provably gone without an end. */
export const FAILURES = ['failed', 'unhealthy', 'timed-out', 'lost'] as const;
/** The other ends; failures too where the job says so for targets that are offline. */
export const OTHER_ENDS = ['refused', 'offline', 'expired', 'cancelled'] as const;
export const FINAL_STATES = ['good', ...FAILURES, ...OTHER_ENDS] as const;
export type FinalState = (typeof FINAL_STATES)[number];

/** Without a document a target is queued. */
export const OPEN_STATES = ['accepted', 'waiting', 'running', 'rebooting'] as const;
export type TargetState = FinalState | (typeof OPEN_STATES)[number];

/** `.requests/<principal>/spec/<id>`: what is asked. Only `filled` changes after the first write. */
export interface Spec {
  /** Random: the same id used again is another request. */
  readonly nonce: string;
  readonly task: string;
  readonly params: Readonly<Record<string, string>>;
  /** The first by path of the task's groups. */
  readonly home: string;
  /** How many targets each stage has. */
  readonly stages: readonly number[];
  /** Of all lists of targets together: the same id, asked again, must mean the same nodes. */
  readonly digest: string;
  /** How many lists of targets there are, and how many of them are written. */
  readonly chunks: number;
  readonly filled: number;
  readonly maxFailures: number;
  readonly offline: 'wait' | 'skip' | 'fail';
  /** Between two stages, in milliseconds. */
  readonly pauseMs: number;
  /** Each target waits for a part of this, the same each time, from the opening of its stage on; in milliseconds. */
  readonly splayMs?: number;
  /** How many targets may run at once, besides what the slots of their groups allow; absent: no limit of its own. */
  readonly maxRunning?: number;
  /** What found the targets, at the start and never again. */
  readonly selection?: Selection;
  /** What made the stages, as it was asked: `1`, `10%`. */
  readonly canary?: string;
  readonly steps?: readonly string[];
  /** The end of the request: nothing of it starts after this. */
  readonly until: string;
  /** Of one target's run; absent: as the task says. */
  readonly timeoutMs?: number;
  readonly noop?: true;
  /** Each `task@node`, the first cause first. */
  readonly chain?: readonly string[];
  /** The job that this one retries. */
  readonly of?: string;
  readonly reason?: string;
  /** Who asked, by the requester's own word: only for people. */
  readonly by: string;
  readonly at: string;
}

/** What targets have in common; all of it together. */
export interface Selection {
  /** How many were named, and of their names. */
  readonly named?: { readonly count: number; readonly digest: string };
  /** In Consul's catalogue. */
  readonly service?: string;
  readonly tags?: readonly string[];
  /** Of the node. */
  readonly meta?: Readonly<Record<string, string>>;
  /** An expression of Consul. */
  readonly filter?: string;
  /** They have a record there. */
  readonly group?: string;
  /** They were targets of this job (`ops/deploy-42`), and in one of these states if there are any. */
  readonly job?: string;
  readonly states?: readonly string[];
}

/** `.requests/<principal>/targets/<id>/<c>`: the principal's word that these nodes are meant. */
export interface Targets {
  /** Node and stage, from 0; -1: it was offline at the start and belongs to no stage. */
  readonly targets: readonly (readonly [node: string, stage: number])[];
}

/** In one list, and so in one transaction with their pointers. */
export const MOST_TARGETS = 60;

/** `.requests/<principal>/inbox/<node>/<id>`: only wakes the node, and says where to look. */
export interface Pointer {
  readonly nonce: string;
  /** The list of targets that names the node, counted from 0: a node reads no other. */
  readonly chunk: number;
}

/** `<home>/.jobs/<principal>/<id>/stage`: where the job is. */
export type Stage = { readonly rev: number } & (
  | { readonly kind: 'fill' }
  /** Targets of the stages up to `stage` may start, from `notBefore` on. */
  | { readonly kind: 'open'; readonly stage: number; readonly since: string; readonly notBefore?: string }
  | {
      readonly kind: 'stopped';
      readonly why: StopReason;
      readonly by?: string;
      /** The operator's, for people. */
      readonly reason?: string;
      readonly at: string;
      /** Runs that are under way are to be ended too. */
      readonly kill?: true;
    }
  | { readonly kind: 'done'; readonly at: string }
);

/** `failures`: more than allowed. `unproven`: a stage ended with no good target. `gone`: its request is not there. */
export type StopReason = 'failures' | 'unproven' | 'cancelled' | 'expired' | 'gone';

/** `<home>/.jobs/<principal>/<id>/tally`: counts final states as they are written. */
export interface Tally {
  readonly rev: number;
  /** By stage. */
  readonly stages: readonly { readonly final: number; readonly good: number }[];
  readonly states: Readonly<Partial<Record<FinalState, number>>>;
}

/** `<home>/.jobs/<principal>/<id>/nodes/<node>`: one target. */
export interface TargetDocument {
  readonly rev: number;
  readonly state: TargetState;
  /** The run that was started, or that served the request (`served`). */
  readonly run?: string;
  readonly bootId?: string;
  readonly served?: true;
  readonly acceptedAt?: string;
  readonly startedAt?: string;
  readonly endedAt?: string;
  readonly exitCode?: number;
  /** Of one that reboots: its claim in the home group stays until somebody ends it. */
  readonly holds?: true;
  /** For people: why it was refused, what it waits for. */
  readonly why?: string;
  /** The last line of output, for people; at most 200 characters. */
  readonly lastLine?: string;
  /** The outcome of a run that ended after its state was final. */
  readonly late?: string;
}

/** `<home>/.jobs/<principal>/<id>/tail/<node>`: live output of a target that is running, while somebody looks. */
export interface Tail {
  /** The last line, for people; at most 200 characters. */
  readonly line: string;
}

/** `<home>/.jobs/<principal>/<id>/stage/watched/<watch>`: somebody looks at the output of the job's runs. */
export interface Watching {
  /** Counts for nothing after this; who goes on looking writes it again. */
  readonly until: string;
}

/** `.requests/<principal>/inbox/<node>/.logs/<reader>`: which piece of the log of one of its jobs a reader wants next. */
export interface LogRequest {
  readonly id: string;
  /** Of the job: the same id may be another's later. */
  readonly nonce: string;
  /** Its group, and the list of targets that names the node. */
  readonly home: string;
  readonly chunk: number;
  /** Counts the pieces that were asked for, from 0. */
  readonly piece: number;
  /** From which byte on; absent: from the beginning, or the last `lines`. */
  readonly from?: number;
  readonly lines?: number;
  /** Waits for more, until the end of the run. */
  readonly follow?: true;
}

/** `<home>/.jobs/<principal>/.logs/<id>/<node>/<reader>`: the answer. */
export type LogPiece = { readonly piece: number } & (
  | {
      readonly kind: 'bytes';
      /** Of the first of them. */
      readonly from: number;
      /** In base64; at most `PIECE_BYTES`, and none if there is nothing more yet. */
      readonly bytes: string;
      /** Of the log now. */
      readonly size: number;
      /** Nothing comes after this. */
      readonly ended?: true;
    }
  /** For people. */
  | { readonly kind: 'refused'; readonly why: string }
);

/** 64 KiB in base64. */
export const PIECE_BYTES = 49_152;

/** `.agents/<node>`: what an agent says of itself and of its tasks; locked by its session. */
export interface AgentDocument {
  readonly node: string;
  readonly version: string;
  readonly bootId: string;
  readonly host: string;
  /** This machine, as a claim names it; absent: it has no machine-id. */
  readonly machine?: string;
  readonly pid: number;
  /** Of the agent's process, as a claim names it. */
  readonly startTime?: string;
  readonly since: string;
  /** Absent: it serves requests. Else why not, for people. */
  readonly noRequests?: string;
  /** An operator paused it. */
  readonly pausedSince?: string;
  readonly tasks: readonly AgentTask[];
  /** Files that are no tasks, though they should be; absent: none. Of many the first ones. */
  readonly faults?: readonly AgentFault[];
  /** How many more there are. */
  readonly moreFaults?: number;
}

/** A file that the agent can't use. */
export interface AgentFault {
  /** Its name; of a folder its path. */
  readonly file: string;
  /** Why, for people; at most 200 characters. */
  readonly why: string;
}

/** What others may know of a task: never its command. */
export interface AgentTask {
  readonly name: string;
  readonly description?: string;
  /** By path; the first is the home of its jobs. */
  readonly groups: readonly string[];
  /** Principals who may ask for it. */
  readonly allow: readonly string[];
  /** Names of its parameters. */
  readonly params: readonly string[];
  /** Conditions as the file has them. */
  readonly on: readonly string[];
  readonly when: readonly string[];
  /** Paths of states that it sets. */
  readonly publish: readonly string[];
  /** The fewest slots of its groups; and of those where a failed run keeps its slot (absent: none does). */
  readonly slots?: number;
  readonly keptSlots?: number;
  /** It can be tried. */
  readonly noop?: true;
  /** Its runs wait for the health of these. */
  readonly services?: readonly string[];
}
