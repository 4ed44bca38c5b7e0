/**
 * The slots of a run, one in each of its groups: acquired one after the other, each held under its lease from its grant
 * on, released together (docs/protocol.md, "Several groups").
 */
import { RunlockError } from '../errors.ts';
import type { GivenBack, RunEvent } from '../events/events.ts';
import { endedBy, withoutWaiting } from '../platform/deps.ts';
import type { Waiting } from '../platform/deps.ts';
import type { Acquired, AcquireRequest } from '../lock/acquire.ts';
import { isOfJob } from '../lock/keys.ts';
import { findFreeze } from '../lock/freeze.ts';
import { holdLease } from '../lock/lease.ts';
import type { Blocked } from '../lock/context.ts';
import type { Grant } from '../lock/head-of-queue.ts';
import type { Lease } from '../lock/lease.ts';
import { placeOf } from './run-events.ts';
import type { ExecDeps, Figures } from './options.ts';
import { waitForSlot } from './wait.ts';

export interface HeldSlot {
  readonly grant: Grant;
  readonly lease: Lease;
  /** Time waited in this group. */
  readonly waitedMs: number;
}

/** At least one, in the order of the groups' paths, that of a job last. */
export type HeldSlots = readonly [HeldSlot, ...HeldSlot[]];

export const grantsOf = ([first, ...rest]: HeldSlots): [Grant, ...Grant[]] => [
  first.grant,
  ...rest.map(({ grant }) => grant),
];

type SentAway = Extract<Acquired, { kind: 'sent-away' }>;

export type Taken =
  | { readonly kind: 'taken'; readonly slots: HeldSlots }
  /** One group had no slot for this run. */
  | { readonly kind: 'busy'; readonly busy: Extract<Acquired, { kind: 'busy' }> }
  /** An operator took the run out of one group's queue. */
  | { readonly kind: 'sent-away'; readonly away: SentAway }
  /** This slot's lease ended while the run was still waiting for another group. */
  | { readonly kind: 'lost'; readonly slot: HeldSlot };

export interface TakeOptions {
  readonly waiting: Waiting;
  readonly ttlMs: number;
  readonly killAfterMs: number;
  /** Whether to log that the run waits. */
  readonly says: boolean;
}

/**
 * Takes a slot in each group, always in the order of their paths, whatever the order of `requests`. A run that waits
 * for a group then holds no group later in that order, so no two runs wait for each other. Unless all slots are taken,
 * everything is left as it was before.
 * @throws the signal's reason when `signal` aborts; RunlockError for a fault that ends the wait for one of them.
 */
export async function takeSlots(
  deps: ExecDeps,
  requests: readonly [AcquireRequest, ...AcquireRequest[]],
  options: TakeOptions,
): Promise<Taken> {
  for (;;) {
    const taken = await takeAll(deps, requests, options);
    if (taken.kind !== 'frozen' && taken.kind !== 'out-of-turn') return taken;
  }
}

async function takeAll(
  deps: ExecDeps,
  requests: readonly [AcquireRequest, ...AcquireRequest[]],
  options: TakeOptions,
): Promise<Taken | { readonly kind: 'frozen' } | { readonly kind: 'out-of-turn' }> {
  const slots: HeldSlot[] = [];
  const over = new AbortController();
  const waiting = endedBy(options.waiting, over.signal);
  const { signal } = waiting;
  try {
    for (const request of [...requests].sort(byPath)) {
      const held = slots.map(({ grant }) => grant.context.keys.group);
      const taken = await takeSlot(deps, request, { ...options, waiting, held });
      if (taken.kind !== 'held') {
        await declineAll(deps, slots);
        return taken;
      }
      slots.push(taken.held);
      deps.emit(grantedEvent(taken.held));
      hear(taken.held.lease.over, () => over.abort());
      signal.throwIfAborted();
    }
    if (await isFrozenByNow(deps, slots, signal)) {
      await declineAll(deps, slots);
      return { kind: 'frozen' };
    }
    const [first, ...others] = ofJobLast(slots);
    if (!first)
      throw new RunlockError('bug', 'a run without a group; please report this as a bug in runlock');
    return { kind: 'taken', slots: [first, ...others] };
  } catch (error) {
    const lost = firstOver(slots, { over: over.signal, signal });
    await declineAll(deps, slots);
    if (lost) return { kind: 'lost', slot: lost };
    throw error;
  }
}

const LOOK_MS = 5_000;

/**
 * The last grant proves that its own group is not frozen. The earlier groups may have been frozen since their grants,
 * and no new run may start in a frozen group.
 */
async function isFrozenByNow(
  deps: ExecDeps,
  slots: readonly HeldSlot[],
  signal: AbortSignal,
): Promise<boolean> {
  // Ask about each group once: a run must not wait for a freeze to end while it holds all slots.
  const once = withoutWaiting(signal);
  const earlier = slots.slice(0, -1).map(async ({ grant }) => {
    const frozen = await findFreeze(grant.context, once, LOOK_MS);
    if (frozen) emitFrozen(deps, grant, frozen);
    return frozen !== undefined;
  });
  return (await Promise.all(earlier)).includes(true);
}

function emitFrozen({ emit }: ExecDeps, grant: Grant, { at, freeze }: Frozen): void {
  const { group, node, run } = placeOf(grant);
  const { by, reason, until } = freeze;
  emit({ event: 'frozen', group, node, run, at, by, reason, until, detail: { then: 'gives-back' } });
}

type Frozen = Extract<Blocked, { kind: 'frozen' }>;

/** The slot whose lease ended the wait; undefined: something else ended the wait first. */
export function firstOver(
  slots: readonly HeldSlot[],
  {
    over,
    signal,
  }: { readonly over: AbortSignal; /** Of which `over` is one. */ readonly signal: AbortSignal },
): HeldSlot | undefined {
  if (!over.aborted || signal.reason !== over.reason) return undefined;
  return slots.find(({ lease }) => lease.over.aborted);
}

/**
 * Groups of jobs come first, so that only who has a slot there stands in another queue. Compares code units, to get the
 * same order on every host, whatever its language.
 */
const byPath = (a: AcquireRequest, b: AcquireRequest) =>
  Number(isOfJob(b.group)) - Number(isOfJob(a.group)) || (a.group < b.group ? -1 : 1);

/** The run's own groups first: they stand for it wherever one has to. */
const ofJobLast = (slots: readonly HeldSlot[]): HeldSlot[] => [
  ...slots.filter(({ grant }) => !isOfJob(grant.context.keys.group)),
  ...slots.filter(({ grant }) => isOfJob(grant.context.keys.group)),
];

async function takeSlot(
  deps: ExecDeps,
  request: AcquireRequest,
  { ttlMs, killAfterMs, ...wait }: TakeOptions & { readonly held: readonly string[] },
): Promise<
  | { readonly kind: 'held'; readonly held: HeldSlot }
  | { readonly kind: 'out-of-turn' }
  | Extract<Taken, { kind: 'busy' | 'sent-away' }>
> {
  const askedMs = deps.clock.monotonicMs();
  deps.emit({ event: 'asking', group: request.group });
  const hasSlots = wait.held.length > 0 && ({ hasSlots: true } as const);
  const acquired = await waitForSlot(deps, { ...request, ...hasSlots }, wait);
  if (acquired.kind === 'out-of-turn') return acquired;
  if (acquired.kind === 'busy') return { kind: 'busy', busy: acquired };
  if (acquired.kind === 'sent-away') return { kind: 'sent-away', away: acquired };
  const { grant } = acquired;
  const waitedMs = deps.clock.monotonicMs() - askedMs;
  return { kind: 'held', held: { grant, lease: holdLease(grant, { ttlMs, killAfterMs }), waitedMs } };
}

function grantedEvent({ grant, waitedMs }: HeldSlot): RunEvent {
  const { fencingToken } = grant;
  return { event: 'granted', ...placeOf(grant), fencingToken, waitedMs: Math.round(waitedMs) };
}

/** Calls `act` when the signal aborts, or at once if it has already aborted. */
export function hear(signal: AbortSignal, act: () => void): void {
  if (signal.aborted) act();
  else signal.addEventListener('abort', act, { once: true });
}

/** Releases all slots before anything was started, and leaves each group as it was before. Never throws. */
export async function declineAll(deps: ExecDeps, slots: readonly HeldSlot[]): Promise<void> {
  await Promise.all(slots.map((slot) => declineSlot(deps, slot)));
}

async function declineSlot(deps: ExecDeps, { grant, lease, waitedMs }: HeldSlot): Promise<void> {
  const { keys } = grant.context;
  const tellGivenBack = (given?: GivenBack) =>
    deps.emit({ event: 'given-back', ...placeOf(grant), detail: { prefix: keys.root, given } });
  // An eviction waits until the claim is removed together with the lock, as proof that nothing runs.
  const over = lease.whyOver();
  if (over?.kind === 'evicted') {
    tellGivenBack(await lease.release({ outcome: 'evicted', waitedMs, ranMs: 0 }));
    return;
  }
  const isBack = await lease.decline();
  // A lost slot can't be released any more; the reason is logged elsewhere.
  if (isBack && over?.kind !== 'lost') tellGivenBack();
}

/** For a lease that ended before the command was started: the caller gives up the other slots. */
export function lostBeforeStart(
  deps: ExecDeps,
  { grant, lease }: HeldSlot,
  waitedMs: Figures['waitedMs'],
): { readonly kind: 'lost'; readonly figures: Figures } {
  const over = lease.whyOver() ?? { kind: 'lost', why: 'reason unknown' };
  // A run with one group can only be late; a run with several holds the earlier slots for a while.
  const isLate = over.kind === 'cut-off' && grant.context.run.groups === undefined;
  deps.emit(
    isLate
      ? { event: 'lost', ...placeOf(grant), why: 'late' }
      : { event: 'lost', ...placeOf(grant), why: over.kind, detail: { over, then: 'nothing-started' } },
  );
  return { kind: 'lost', figures: { outcome: over.kind === 'evicted' ? 'evicted' : 'lost', waitedMs } };
}
