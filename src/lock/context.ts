/**
 * What every step of the protocol shares: what is known about the run, how the run waits, and how it sends requests.
 */
import { isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { send } from '../consul/txn.ts';
import type { Result as ResultOf, Step as StepOf } from '../consul/txn.ts';
import type { Holder } from '../events/events.ts';
import type { Deps, Waiting } from '../platform/deps.ts';
import { rootOf } from './records.ts';
import type { Claim, Freeze, Hold, NodeMark, Runner, TaskRun } from './records.ts';
import { isTaken } from './decide.ts';
import type { Slot } from './decide.ts';
import type { Result, Step } from './transactions.ts';
import type { GroupKeys } from './keys.ts';

export interface RunContext {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly keys: GroupKeys;
  readonly run: Run;
  /** Undefined: the run needs none. */
  readonly nodeTurn?: NodeTurn | undefined;
}

/**
 * The turn of the run's node on its host. No grant is sent without it, and others may have it while this run waits in a queue
 * (docs/adr/0050).
 */
export interface NodeTurn {
  /** Joins the line for it. Undefined: the turn is the run's. Otherwise, how to wait for it. */
  ask(node: string): WaitForTurn | undefined;
  /** Lets others have it until it is asked for again. May be repeated. */
  lend(): void;
  isLent(): boolean;
  /** Whether this run would lose too much: it lends only while its queue can't move. */
  keeps(): boolean;
}

/** Undefined: the run may ask again. @throws the signal's reason when `signal` aborts. */
export type WaitForTurn = (deps: Deps, waiting: Waiting) => Promise<TurnBusy | undefined>;

/** The slot could be had, but another run has the node's turn. */
export interface OutOfTurn {
  readonly kind: 'out-of-turn';
  readonly wait: WaitForTurn;
}

/** Undefined: the run may have a slot, and start. */
export function outOfTurn({ nodeTurn, run }: RunContext): OutOfTurn | undefined {
  const wait = nodeTurn?.ask(run.node);
  return wait && { kind: 'out-of-turn', wait };
}

/** One execution of a command, before it has a slot. */
export interface Run {
  readonly id: string;
  readonly node: string;
  /** Base name only. */
  readonly command: string;
  readonly runner: Runner;
  readonly hold: Hold;
  /** A signal that ends the run ends its claim too, as a success does. */
  readonly releaseOnSignal?: true;
  /** How many slots the run allows: it uses slots 0 to slots - 1. */
  readonly slots: number;
  /** All groups of the run, if it has several. */
  readonly groups?: readonly string[];
  /** The paths of the states that the run publishes or has set while it runs. Absent: none. */
  readonly publish?: readonly string[];
  /** Absent: it runs no task, or only tries. */
  readonly task?: TaskRun;
}

/** The time now for a record. Only people read this time; no decision depends on it. */
export function timestamp({ deps }: Pick<RunContext, 'deps'>): string {
  return new Date(deps.clock.now()).toISOString();
}

/** The claim of a run that is granted now. */
export function runningClaim(context: RunContext): Claim {
  const { id, node, command, runner, hold, groups, publish } = context.run;
  const since = timestamp(context);
  const more = { ...(groups && { groups }), ...(publish && { publish }) };
  return { node, state: 'running', run: id, since, command, hold, ...more, ...runner };
}

/**
 * The part of a claim that the node's next claim keeps, even for another run: the node is still out of service, and its
 * states of `--during` still stand. `run`: whose claim the next one is.
 */
export function goesOn(before: Claim, run: string): Pick<Claim, 'maintenance' | 'root'> {
  const { maintenance } = before;
  const root = rootOf(before);
  return { ...(maintenance && { maintenance }), ...(root !== run && { root }) };
}

/**
 * The claim of a run that takes its lock back. The value always differs, so that the index changes and watchers
 * notice.
 */
export function returnedClaim(context: RunContext, before: Claim): Claim {
  const returns = (before.returns ?? 0) + 1;
  return { ...runningClaim(context), ...goesOn(before, context.run.id), since: before.since, returns };
}

export function nodeMark(context: RunContext): NodeMark {
  return { run: context.run.id, since: timestamp(context), ...context.run.runner };
}

/** Reports that the run has joined the queue, and what it has to wait for at that moment. */
export function emitQueued(
  { deps, keys, run }: RunContext,
  session: string,
  { behind, slots }: { readonly behind: boolean; readonly slots: readonly Slot[] },
): void {
  // If the run is alone in the queue and a slot is free, only a freeze can make it wait, and `untilThawed` reports
  // that.
  const hasToWait = behind || slots.filter(isTaken).length >= run.slots;
  const holders = hasToWait ? slots.flatMap((slot) => toHolder(slot, deps.clock.now())) : [];
  const who = { group: keys.group, node: run.node, run: run.id };
  deps.emit({ event: 'queued', ...who, session, behind, hasToWait, holders });
}

/** The holder of a slot, as a list of at most one. */
export function toHolder({ slot, owner, lockedBy }: Slot, nowMs: number): Holder[] {
  if (!owner) return [];
  const { node, state, since, command, exitCode, unhealthy } = owner.claim;
  return [
    {
      slot,
      node,
      state,
      command,
      ...(exitCode !== undefined && { exitCode }),
      ...(unhealthy && { unhealthy }),
      isWithoutSession: lockedBy === undefined && (state === 'running' || state === 'evicted'),
      forMs: nowMs - Date.parse(since),
    },
  ];
}

/** Limits for a read. Once the wait is over, each request is still sent, with a short time for retries. */
export function ask({ signal, patience, either }: Waiting): { signal: AbortSignal; retryForMs?: number } {
  return patience.aborted ? { signal, retryForMs: IMPATIENT_RETRY_MS } : { signal: either };
}

const IMPATIENT_RETRY_MS = 3_000;

/** Why a run waits, or did not get a slot. */
export type Blocked =
  | { readonly kind: 'slots'; readonly slots: readonly Slot[] }
  /** `at`: the group that is frozen, this one or an ancestor; '' for the root. */
  | { readonly kind: 'frozen'; readonly at: string; readonly freeze: Freeze };

/** Another run of the node has its turn on this host. */
export interface TurnBusy {
  readonly kind: 'turn';
  readonly pid: number;
  readonly command: string;
  /** All groups of that run. */
  readonly groups: readonly string[];
  /** ISO 8601 in UTC. */
  readonly since: string;
  /** The runlock of that run is dead, and these processes of it are still running. */
  readonly left?: { readonly pids: readonly number[]; readonly cgroup?: string };
}

/** A grant that was sent and may have taken effect. */
export interface Attempt {
  readonly slot: number;
  /** This node's earlier claim, to restore. */
  readonly before?: Claim;
}

/** What one acquisition remembers from one session to the next. */
export interface Progress extends Waiting {
  readonly attempts: Attempt[];
  /**
   * `index`: of the newest ticket that this run had in the queue; 0: it had none. `sent`: the run asked for a ticket,
   * or marked its node to wait without one.
   */
  readonly newest: { index: number; sent?: true };
  blocked: Blocked;
}

/** Sends a transaction. Undefined: after a transient fault it is unknown whether the transaction took effect. */
export async function trySend(
  context: RunContext,
  steps: readonly Step[],
  signal: AbortSignal,
): Promise<Result | undefined> {
  return sendWithin(context, steps, { signal });
}

/** As `trySend`, with its own timeout in milliseconds. */
export async function sendWithin<Obstacle extends string>(
  { consul, keys }: RunContext,
  steps: readonly StepOf<Obstacle>[],
  { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs?: number },
): Promise<ResultOf<Obstacle> | undefined> {
  try {
    return await send(consul, steps, {
      signal,
      rule: keys.rule,
      ...(timeoutMs !== undefined && { timeoutMs }),
    });
  } catch (error) {
    if (isTransient(error)) return undefined;
    throw error;
  }
}
