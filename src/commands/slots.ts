/**
 * The slots of a run, one in each of its groups: taken one after the other, each held under its lease from its grant on,
 * given up together (docs/protocol.md, "Several groups").
 */
import { RunlockError } from '../errors.ts';
import type { Acquired, AcquireRequest } from '../lock/acquire.ts';
import { holdLease } from '../lock/lease.ts';
import type { Grant } from '../lock/grant.ts';
import type { Lease, Over } from '../lock/lease.ts';
import { sayDeclined, sayNothingStarted } from './end.ts';
import type { ExecDeps, Figures } from './exec-deps.ts';
import { waitForSlot } from './wait-for-slot.ts';
import type { Wait } from './wait-for-slot.ts';

export interface HeldSlot {
  readonly grant: Grant;
  readonly lease: Lease;
  /** In this group. */
  readonly waitedMs: number;
}

/** At least one, in the order of the groups' paths. */
export type HeldSlots = readonly [HeldSlot, ...HeldSlot[]];

export type Taken =
  | { readonly kind: 'taken'; readonly slots: HeldSlots }
  /** In one group there is none to be had. */
  | { readonly kind: 'busy'; readonly busy: Extract<Acquired, { kind: 'busy' }> }
  /** This lease was over while another group kept the run waiting. */
  | { readonly kind: 'lost'; readonly slot: HeldSlot };

export interface TakeOptions extends Omit<Wait, 'onJoined'> {
  readonly ttlMs: number;
  readonly killAfterMs: number;
  /**
   * Hears which group is asked now; `over` aborts when it is no longer waited for. What it gives hears when the run
   * joins the group's queue.
   */
  readonly onAsked: (request: AcquireRequest, over: AbortSignal) => NonNullable<Wait['onJoined']>;
  readonly onGranted: (slot: HeldSlot) => void;
}

/**
 * Takes a slot in each group. Always in the same order, whatever the order of `requests`: whoever waits for a group then
 * holds none that comes after it, so no two runs wait for each other.
 * Unless all are taken, all is as it was before.
 * @throws the signal's reason when `signal` aborts; RunlockError for what ends the way to one of them.
 */
export async function takeSlots(
  deps: ExecDeps,
  requests: readonly [AcquireRequest, ...AcquireRequest[]],
  options: TakeOptions,
): Promise<Taken> {
  const slots: HeldSlot[] = [];
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, over.signal]);
  try {
    for (const request of [...requests].sort(byPath)) {
      const taken = await takeSlot(deps, request, { ...options, signal });
      if (taken.kind === 'busy') {
        await declineAll(deps, slots);
        return taken;
      }
      slots.push(taken.held);
      options.onGranted(taken.held);
      hear(taken.held.lease.over, () => over.abort());
      signal.throwIfAborted();
    }
    const [first, ...others] = slots;
    if (!first)
      throw new RunlockError('bug', 'a run without a group; please report this as a bug in runlock');
    return { kind: 'taken', slots: [first, ...others] };
  } catch (error) {
    await declineAll(deps, slots);
    const lost = slots.find(({ lease }) => lease.over.aborted);
    if (lost && over.signal.aborted && !options.signal.aborted) return { kind: 'lost', slot: lost };
    throw error;
  }
}

/** By code units: the same on every host, whatever its language. */
const byPath = (a: AcquireRequest, b: AcquireRequest) => (a.group < b.group ? -1 : 1);

async function takeSlot(
  deps: ExecDeps,
  request: AcquireRequest,
  { signal, patience, ttlMs, killAfterMs, onAsked }: TakeOptions,
): Promise<{ readonly kind: 'held'; readonly held: HeldSlot } | Extract<Taken, { kind: 'busy' }>> {
  const askedMs = deps.clock.monotonicMs();
  const done = new AbortController();
  try {
    const onJoined = onAsked(request, done.signal);
    const acquired = await waitForSlot(deps, request, { signal, patience, onJoined });
    if (acquired.kind === 'busy') return { kind: 'busy', busy: acquired };
    const { grant } = acquired;
    const waitedMs = deps.clock.monotonicMs() - askedMs;
    return { kind: 'held', held: { grant, lease: holdLease(grant, { ttlMs, killAfterMs }), waitedMs } };
  } finally {
    done.abort();
  }
}

/** Also where it has aborted already. */
export function hear(signal: AbortSignal, act: () => void): void {
  if (signal.aborted) act();
  else signal.addEventListener('abort', act, { once: true });
}

/** Gives all of them up before anything was started: each group is as it was. Never throws. */
export async function declineAll(deps: ExecDeps, slots: readonly HeldSlot[]): Promise<void> {
  await Promise.all(slots.map((slot) => declineSlot(deps, slot)));
}

async function declineSlot(deps: ExecDeps, { grant, lease, waitedMs }: HeldSlot): Promise<void> {
  // Whoever evicted it waits until the claim goes with the lock: that says that nothing runs.
  const evicted = overOf(lease)?.kind === 'evicted';
  const given = evicted ? await lease.release({ outcome: 'evicted', waitedMs, ranMs: 0 }) : undefined;
  if (!given) await lease.decline();
  sayDeclined(deps, grant, given);
}

/** One of the leases was over before the command was started: the others have been given up by then, or are now. */
export function lostBeforeStart(
  deps: ExecDeps,
  { grant, lease }: HeldSlot,
  waitedMs: Figures['waitedMs'],
): { readonly kind: 'lost'; readonly figures: Figures } {
  const over = overOf(lease) ?? { kind: 'lost', why: 'nobody knows why' };
  sayNothingStarted(deps, grant, over);
  return { kind: 'lost', figures: { outcome: over.kind === 'evicted' ? 'evicted' : 'lost', waitedMs } };
}

/** Why the command must end before its time; undefined: it need not. */
export function overOf({ over }: Lease): Over | undefined {
  return over.aborted ? (over.reason as Over) : undefined;
}
