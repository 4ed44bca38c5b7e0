/** What every step of the protocol needs to know of the run that takes it, how that waits, and how it sends. */
import { isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import { send } from '../consul/txn.ts';
import type { Holder } from '../events/events.ts';
import type { Deps, Waiting } from '../platform/deps.ts';
import type { Claim, Freeze, Hold, NodeMark, Runner } from './records.ts';
import { isTaken } from './decide.ts';
import type { Slot } from './decide.ts';
import type { Result, Step } from './transactions.ts';
import type { GroupKeys } from './keys.ts';

export interface RunContext {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly keys: GroupKeys;
  readonly run: Run;
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
  /** How many slots this caller knows: it uses 0 to slots - 1. */
  readonly slots: number;
  /** All groups that it runs in, where they are several. */
  readonly groups?: readonly string[];
}

/** The time now as records carry it, for people: nothing is decided by it. */
export function timestamp({ deps }: Pick<RunContext, 'deps'>): string {
  return new Date(deps.clock.now()).toISOString();
}

/** The claim of a run that is granted now. */
export function runningClaim(context: RunContext): Claim {
  const { id, node, command, runner, hold, groups } = context.run;
  const since = timestamp(context);
  return { node, state: 'running', run: id, since, command, hold, ...(groups && { groups }), ...runner };
}

/** What a claim says that goes on in the claim after it, whatever run that is of: its node is still out of service. */
export function goesOn({ maintenance }: Claim): Pick<Claim, 'maintenance'> {
  return maintenance === undefined ? {} : { maintenance };
}

/** The claim of a run that takes its lock back: always another value, so that its index changes and watchers notice. */
export function returnedClaim(context: RunContext, before: Claim): Claim {
  const returns = (before.returns ?? 0) + 1;
  return { ...runningClaim(context), ...goesOn(before), since: before.since, returns };
}

export function nodeMark(context: RunContext): NodeMark {
  return { run: context.run.id, since: timestamp(context), ...context.run.runner };
}

/** That the run has joined the queue, and what stood before it at that moment. */
export function emitQueued(
  { deps, keys, run }: RunContext,
  session: string,
  { behind, slots }: { readonly behind: boolean; readonly slots: readonly Slot[] },
): void {
  // Alone in the queue and with a slot free, only a freeze can keep it waiting; that is said where it is met.
  const hasToWait = behind || slots.filter(isTaken).length >= run.slots;
  const holders = hasToWait ? slots.flatMap((slot) => toHolder(slot, deps.clock.now())) : [];
  const who = { group: keys.group, node: run.node, run: run.id };
  deps.emit({ event: 'queued', ...who, session, behind, hasToWait, holders });
}

/** Nobody, or one. */
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

/** With no patience left, everything is still asked once, and nothing is waited for. */
export function ask({ signal, patience, either }: Waiting): { signal: AbortSignal; retryForMs?: number } {
  return patience.aborted ? { signal, retryForMs: IMPATIENT_RETRY_MS } : { signal: either };
}

const IMPATIENT_RETRY_MS = 3_000;

/** Why a run waits, or did not get a slot. */
export type Blocked =
  | { readonly kind: 'slots'; readonly slots: readonly Slot[] }
  /** `at`: which group was frozen, this one or one above; '' for the root. */
  | { readonly kind: 'frozen'; readonly at: string; readonly freeze: Freeze };

/** A grant that was sent and may have taken effect. */
export interface Attempt {
  readonly slot: number;
  /** This node's claim before, to be put back. */
  readonly before?: Claim;
}

/** What one acquisition remembers from one session to the next. */
export interface Progress extends Waiting {
  readonly attempts: Attempt[];
  /** `index`: of the newest ticket that this run had in the queue; 0 where it had none. `sent`: it asked for one, or waits without. */
  readonly newest: { index: number; sent?: true };
  blocked: Blocked;
}

/** Undefined: after a transient fault nobody knows whether it took effect. */
export async function trySend(
  context: RunContext,
  steps: readonly Step[],
  signal: AbortSignal,
): Promise<Result | undefined> {
  return sendWithin(context, steps, { signal });
}

/** The same, with a deadline of its own in milliseconds. */
export async function sendWithin(
  { consul, keys }: RunContext,
  steps: readonly Step[],
  { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs?: number },
): Promise<Result | undefined> {
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
