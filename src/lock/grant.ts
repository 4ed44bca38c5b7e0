/** Sending what may grant a slot, and knowing afterwards whether it did. */
import { isTransient } from '../consul/consul.ts';
import type { RunContext } from './context.ts';
import { giveUp } from './roll-back.ts';
import type { Attempt } from './roll-back.ts';
import type { Claim, Freeze } from './records.ts';
import type { Waiting } from './queue.ts';
import type { Session } from '../consul/session.ts';
import type { Owner, Slot } from './slot.ts';
import { send, writtenIndex } from '../consul/txn.ts';
import type { Result, Step } from './transactions.ts';

/** A slot that this run holds. */
export interface Grant {
  readonly context: RunContext;
  readonly session: Session;
  readonly slot: number;
  readonly owner: Owner;
  /** Grows with every grant of the slot. */
  readonly fencingToken: number;
  /** Monotonic time at which the request that proved the lock mine was sent, in milliseconds. */
  readonly provedMs: number;
  /** This node's claim before, where it came back to one. */
  readonly before?: Claim;
}

/** Why a run waits, or did not get a slot. */
export type Blocked =
  | { readonly kind: 'slots'; readonly slots: readonly Slot[] }
  /** `at`: which group was frozen, this one or one above; '' for the root. */
  | { readonly kind: 'frozen'; readonly at: string; readonly freeze: Freeze };

/** What one acquisition remembers from one session to the next. */
export interface Progress extends Waiting {
  readonly attempts: Attempt[];
  /** `index`: of the newest ticket that this run had in the queue; 0 where it had none. `sent`: it asked for one, or waits without. */
  readonly newest: { index: number; sent?: true };
  blocked: Blocked;
}

export interface Granted {
  readonly kind: 'granted';
  readonly grant: Grant;
}

export interface GrantTry {
  readonly session: Session;
  readonly steps: readonly Step[];
  readonly slot: number;
  readonly claim: Claim;
  readonly progress: Progress;
  /** This node's claim before: it is put back if nothing is started after all. */
  readonly before?: Claim;
}

export type GrantResult =
  | Granted
  /** Nobody knows whether it took effect. */
  | { readonly kind: 'again' }
  | Extract<Result, { kind: 'refused' }>;

/** The longest that a grant is waited for; what comes later is found by the next look. */
const GRANT_MS = 5_000;
/** The same once `--wait` is over. */
const IMPATIENT_MS = 3_000;

/** Sends what may grant the slot. */
export async function sendGrant(context: RunContext, it: GrantTry): Promise<GrantResult> {
  const { session, slot, claim, progress } = it;
  const provedMs = context.deps.clock.monotonicMs();
  // Of several attempts at a slot the first one knows what was there before.
  const isFirst = !progress.attempts.some((attempt) => attempt.slot === slot);
  if (isFirst) progress.attempts.push({ slot, ...(it.before && { before: it.before }) });
  const timeoutMs = progress.patience.aborted ? IMPATIENT_MS : GRANT_MS;
  const result = await sendWithin(context, it.steps, { signal: progress.signal, timeoutMs });
  if (result === undefined) return { kind: 'again' };
  if (result.kind === 'refused') {
    if (isFirst) progress.attempts.pop();
    return result;
  }
  const index = writtenIndex(result.entries, context.keys.owner(slot));
  const before = it.before && { before: it.before };
  return granted(context, session, { slot, owner: { claim, index }, provedMs, ...before });
}

export function granted(
  context: RunContext,
  session: Session,
  it: Pick<Grant, 'slot' | 'owner' | 'provedMs' | 'before'>,
): Granted {
  return { kind: 'granted', grant: { context, session, ...it, fencingToken: it.owner.index } };
}

/** Gives a granted slot up before anything was started in it: all is as it was before. False: as `giveUp` says. */
export async function decline({ context, session, slot, before }: Grant): Promise<boolean> {
  return giveUp(context, session, [{ slot, ...(before && { before }) }]);
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
