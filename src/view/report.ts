/** The data that commands show, as text or as `--json`. */

/** What `status --json` prints. Times are ISO 8601 in UTC; names ending in Ms are milliseconds. */
export interface StatusReport {
  readonly v: 1;
  readonly prefix: string;
  /** When the data was read, by the reader's clock; ages in sentences count from here. */
  readonly at: string;
  /** The root's freeze, which stops every group, including groups that no run has used yet. */
  readonly frozen?: FreezeView;
  /** Explains the root's freeze if there is no group to explain it. */
  readonly why?: string;
  /** The command that ends the root's freeze. */
  readonly fix?: string;
  /** Which rights the token lacks to see all groups and the root's freeze. */
  readonly hidden?: string;
  /** The rule that this token lacks to tell whether runs wait for each other; only if they may. */
  readonly circlesNeed?: string;
  /** Problems with the root's freeze; other problems are in their groups. */
  readonly problems: readonly string[];
  /** Runs that wait for each other, so that none of them can start. Absent if there are none. */
  readonly circles?: readonly CircleView[];
  /** How many groups are in each state, including groups that `--blocked` leaves out. */
  readonly states: Readonly<Record<GroupState, number>>;
  /** By name; text output shows blocked groups first. */
  readonly groups: readonly GroupView[];
  /** With `--service`: their health gates. */
  readonly services?: readonly ServiceView[];
}

/** The verdict of a service's gate for some of the nodes that offer it. */
export interface GateView {
  readonly open: boolean;
  readonly nodes: readonly string[];
  readonly why: string;
}

/** The health gate of a service. */
export interface ServiceView {
  readonly service: string;
  /** Number of all instances, and how many of them may be offline. */
  readonly total: number;
  readonly limit: number;
  readonly minHealthy?: number;
  /** The instances that are offline, with their ids, and why. */
  readonly offline: readonly { readonly node: string; readonly id: string; readonly why: string }[];
  /** Nodes that offer it, by whether they may go out of service now. */
  readonly openFor: readonly string[];
  readonly closedFor: readonly string[];
  /** The same with reasons, worded as by `gate check`; nodes with the same reason share an entry. */
  readonly gates: readonly GateView[];
  /** What could not be read about the service. */
  readonly problem?: string;
}

export interface GroupView {
  readonly group: string;
  /** False: nothing of the group is stored (or this token may not read it). */
  readonly known: boolean;
  readonly state: GroupState;
  /** Every slot that has a key, and slot 0. */
  readonly slots: readonly SlotView[];
  /** In the order in which they will be granted. */
  readonly queue: readonly WaiterView[];
  /** Runs that wait for their node's own claim, outside the queue. Absent if there are none. */
  readonly returning?: readonly ReturningView[];
  /** Runs that wait without a slot for their conditions or their gate. Absent if there are none. */
  readonly outside?: readonly OutsideView[];
  /** The group's own freeze, else its nearest ancestor's, that has not ended. */
  readonly frozen?: FreezeView;
  /** Keys that could not be read, or that should not exist. */
  readonly problems: readonly string[];
  /** One sentence: why the group is blocked, or that it moves, or is idle. */
  readonly why: string;
  /** What to do, in one sentence. */
  readonly next?: string;
  /** A command that would free the group. Absent if the command could let two nodes change at once. */
  readonly fix?: string;
}

/** Defined in `view/state.ts`. */
export type GroupState = 'blocked' | 'frozen' | 'waiting' | 'running' | 'idle';

/**
 * `locked`: a session lock without a claim. `unreadable`: a claim that only a newer runlock understands, or none at
 * all.
 */
export type SlotState =
  | 'free'
  | 'running'
  | 'held'
  | 'failed'
  | 'interrupted'
  | 'rebooting'
  | 'abandoned'
  | 'evicted'
  | 'locked'
  | 'unreadable';

export interface SlotView {
  readonly slot: number;
  readonly state: SlotState;
  /** Whether a live session holds the slot's lock. */
  readonly alive: boolean;
  readonly node?: string;
  readonly since?: string;
  readonly run?: string;
  /** Base name. */
  readonly command?: string;
  readonly exitCode?: number;
  /** The run failed because its node's services were not healthy after its command. */
  readonly unhealthy?: true;
  /** Maintenance that runs of the node left on. It may have ended since, which the claim does not record. */
  readonly maintenance?: { readonly services: readonly string[]; readonly node?: true };
  /** `forever`, `none`, or milliseconds. */
  readonly hold?: 'forever' | 'none' | number;
  /** When other runs may have the slot. */
  readonly heldUntil?: string;
  readonly pid?: number;
  /** Host name of the run's machine; several machines may share a node name. */
  readonly host?: string;
  /** When another run first saw that this run had lost its session. */
  readonly missingSince?: string;
  /** Who evicted the run. */
  readonly by?: string;
  /** Of a run in several groups: where else it is. */
  readonly also?: readonly PlaceView[];
  /** Of a running run: as of a waiting one. */
  readonly publish?: readonly string[];
}

/** A slot that a run has in another group, or its place in the queue there, from 1. */
export type PlaceView =
  | { readonly group: string; readonly slot: number; readonly state: SlotState }
  | { readonly group: string; readonly place: number };

export interface WaiterView {
  /** From 1; a ticket that can't be read keeps its place and is missing here. */
  readonly place: number;
  readonly node: string;
  readonly run: string;
  readonly since: string;
  readonly waitedMs: number;
  readonly command: string;
  readonly pid: number;
  readonly session: string;
  /** Of a run in several groups: all of them, and where else it is. */
  readonly groups?: readonly string[];
  readonly also?: readonly PlaceView[];
  /** The paths of the states that the run sets when it succeeds, or while it runs. Absent: none is known. */
  readonly publish?: readonly string[];
}

export interface ReturningView {
  readonly node: string;
  /** The slot of the node's claim. */
  readonly slot: number;
  readonly run: string;
  readonly since: string;
  readonly waitedMs: number;
  readonly pid: number;
  readonly session: string;
  /** Host name of the run's machine. */
  readonly host?: string;
  /** As of a waiting run. */
  readonly publish?: readonly string[];
  /** What the run waits for. */
  readonly why: string;
}

/** A run that waits for its conditions (`--when`), its gate or its node's turn, without a slot or a place in the queue. */
export interface OutsideView {
  readonly node: string;
  readonly run: string;
  readonly since: string;
  readonly waitedMs: number;
  readonly command: string;
  readonly session: string;
  /** All groups of the run. */
  readonly groups: readonly string[];
  /** How often the run has given its slots up again, because a condition no longer held. Absent: never. */
  readonly tries?: number;
  readonly when: readonly ConditionView[];
  /** Empty: the run has no gate. */
  readonly gate: readonly GateOfRunView[];
  /** The run of the node that has its turn on its host. Absent: the run does not wait for it. */
  readonly turn?: { readonly pid: number; readonly command: string; readonly groups: readonly string[] };
  /** The paths of the states that the run sets when it succeeds, or while it runs. */
  readonly publish: readonly string[];
  readonly during: readonly string[];
  /** What the run is waiting for, in one sentence. */
  readonly why: string;
}

/** A condition of a waiting run, judged by what `status` read. */
export interface ConditionView {
  /** As it was written. */
  readonly condition: string;
  /** Absent: can't be told; `is` says why. */
  readonly holds?: boolean;
  /** How it is now: `db/schema is 41, set by db01 3m ago`. */
  readonly is: string;
  /** The rule of Consul's ACL that the token lacks to tell. */
  readonly needs?: string;
}

export interface GateOfRunView {
  readonly service: string;
  /** Absent: can't be told; `why` says why. */
  readonly open?: boolean;
  readonly why: string;
}

/** Runs that wait for each other. */
export interface CircleView {
  /** Each waits for the next one, and the last one for the first. */
  readonly runs: readonly CircleRunView[];
  /** How many more runs wait for these in a circle, and these for them. Absent: none. */
  readonly others?: number;
  /** Who waits for what, in one sentence. */
  readonly why: string;
  /** What to do about it. */
  readonly next: string;
}

export interface CircleRunView {
  readonly node: string;
  readonly run: string;
  /** All groups of the run. */
  readonly groups: readonly string[];
  /** A condition as it was written, or a slot. */
  readonly waitsFor: string;
  /** Why that takes the next run: `db01 publishes it`. */
  readonly because: string;
}

export interface FreezeView {
  /** The frozen group; '' for the root. */
  readonly at: string;
  readonly by: string;
  readonly reason: string;
  readonly since: string;
  readonly until?: string;
}

/** What a waiting `exec` knows about its group. */
export interface WaitingView {
  readonly group: string;
  readonly waitedMs: number;
  /** The groups in which the run has a slot already. */
  readonly held?: readonly string[] | undefined;
  /** The run of `node` that this one waits for on their host; it has asked for no slot yet. */
  readonly turn?: (NonNullable<OutsideView['turn']> & { readonly node: string }) | undefined;
  /** From 1. */
  readonly place?: number | undefined;
  readonly holders?: readonly HolderView[] | undefined;
  /** The freeze that stops the run, its group's or one above; `leftMs`: time until the freeze ends. */
  readonly frozen?:
    | { readonly at?: string; readonly by: string; readonly reason: string; readonly leftMs?: number }
    | undefined;
}

export interface HolderView {
  readonly node: string;
  readonly state: Exclude<SlotState, 'free' | 'locked' | 'unreadable'>;
  readonly command: string;
  /** How long the slot has been in this state. */
  readonly ageMs: number;
  /** Set if the run has lost its session: how long ago, and what will happen when. */
  readonly gone?: { readonly forMs: number; readonly leftMs: number; readonly then: 'abandoned' | 'next' };
}
