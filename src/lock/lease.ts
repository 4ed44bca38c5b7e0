/**
 * Keeps a granted slot while its run is under way: watches the slot, takes it back after a lost session, notices when
 * it is lost, and releases it (docs/protocol.md, "While it runs" and "Release"). lease-state.ts has the state of the
 * lease.
 */
import { isTransient } from '../consul/consul.ts';
import type { Entry } from '../consul/consul.ts';
import { leaveSession, openSession } from '../consul/session.ts';
import { send, writtenIndex } from '../consul/txn.ts';
import { lookPast } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { assertNever, reasonOf } from '../errors.ts';
import type { GivenBack, Over } from '../events/events.ts';
import { nodeMark, returnedClaim } from './context.ts';
import { readSlots, standing } from './decide.ts';
import type { Owner, Slot, Standing } from './decide.ts';
import { decline } from './head-of-queue.ts';
import type { Grant } from './head-of-queue.ts';
import {
  deadlineMs,
  initialState,
  isWatched,
  longestWaitMs,
  news,
  next,
  pauseMs,
  termAtMs,
} from './lease-state.ts';
import type { LeaseEvent, LeaseState, Refusal, Terms } from './lease-state.ts';
import { giveBack, LEAVE } from './release.ts';
import type { Ending } from './release.ts';
import { claimAgain, takeBack } from './transactions.ts';
import type { Obstacle, Result, Step } from './transactions.ts';

export interface Lease {
  /** Aborts when the command must end; `whyOver` says why. */
  readonly over: AbortSignal;
  /** Why the command must end; undefined: it need not end so far. */
  whyOver(): Over | undefined;
  /** The grant as it is known now: a lock that was taken back has another session, and the claim another index. */
  holding(): Grant;
  /** When the command's tree must be dead, in monotonic milliseconds; Infinity with `hold = forever`. */
  deadlineMs(): number;
  /**
   * Checks the clock now. After a stopped process continues, other events may be handled before the deadline's timer
   * fires, so call this before starting anything.
   */
  checkDeadline(): void;
  /** Stops watching; the slot stays held. */
  stop(): Promise<void>;
  /**
   * Stops watching and gives the slot up before anything was started in it, which restores the state before the grant.
   * False: this failed, and the failure was logged.
   */
  decline(): Promise<boolean>;
  /**
   * Stops watching for a release that somebody else sends; the slot stays held. Returns the grant as it is known then.
   */
  rest(): Promise<Grant>;
  /** After `rest`: the grant has another session, or its claim another index, by now. */
  know(holding: Grant): void;
  /** Stops watching and releases the slot. All processes of the command must be gone by then. */
  release(ending: Ending): Promise<GivenBack>;
}

/** The delay before the first look at the slot: a change in the first moments of a run is seen this much later. */
const FIRST_LOOK_MS = 100;

/** A lease while its run is under way. */
interface Live {
  holding: Grant;
  readonly state: () => LeaseState;
  /** Handles an event. Nothing else changes the state of the lease. */
  readonly hear: (event: LeaseEvent) => void;
  readonly terms: Terms;
  /** Aborts when the watch must stop waiting. */
  readonly ended: AbortSignal;
}

/** `killAfterMs`: TERM must go out this long before the deadline. */
export function holdLease(
  grant: Grant,
  { ttlMs, killAfterMs }: { ttlMs: number; killAfterMs: number },
): Lease {
  const over = new AbortController();
  const ended = new AbortController();
  const terms = { hold: grant.context.run.hold, ttlMs, killAfterMs };
  let state = initialState(grant.provedMs);
  const hear = (event: LeaseEvent) => {
    const before = state;
    state = next(before, event, terms);
    tell(live, before);
    if (state.over && !before.over) over.abort(state.over);
  };
  const live: Live = { holding: grant, state: () => state, hear, terms, ended: ended.signal };
  const watching = watch(live).catch((error: unknown) => {
    hear({ kind: 'lost', why: { kind: 'lost', why: reasonOf(error) } });
  });
  void untilCutOff(live);
  const stop = async () => {
    hear({ kind: 'released' });
    ended.abort();
    await watching;
  };
  let isResting = false;
  const rest = async () => {
    if (isResting) return live.holding;
    isResting = true;
    const isRecovering = state.kind === 'recovering';
    hear({ kind: 'released' });
    // A request that takes the slot back must not arrive after the release, so wait for it. A pending read of the slot
    // ends by itself, because the release changes the slot.
    if (isRecovering || state.unanswered) await stop();
    if (state.unanswered) await leaveSession(grant.context, live.holding.session, LEAVE);
    return live.holding;
  };
  return {
    over: over.signal,
    whyOver: () => state.over,
    holding: () => live.holding,
    deadlineMs: () => deadlineMs(state, terms),
    checkDeadline: () => tick(live),
    stop,
    decline: async () => {
      await stop();
      // Use the current session, which may be a newer one. Once it is destroyed, late requests under it have no effect.
      return decline(live.holding);
    },
    rest,
    know: (holding) => void (live.holding = holding),
    release: async (ending) => giveBack(await rest(), { ...ending, ttlMs }).finally(stop),
  };
}

/** Logs what has changed since the state `before`. */
function tell({ holding, state }: Live, before: LeaseState): void {
  const { context, slot } = holding;
  const { deps, keys, run } = context;
  const now = news(before, state());
  switch (now?.kind) {
    case undefined:
      break;
    case 'unseen':
      deps.emit({ event: 'slot-unseen', detail: { fault: now.fault } });
      break;
    case 'seen':
      deps.emit({ event: 'slot-seen', detail: { group: keys.group } });
      break;
    case 'lock-taken': {
      const key = now.by === 'node' ? keys.node(run.node) : keys.lock(slot);
      const place = { group: keys.group, node: run.node, slot, run: run.id };
      deps.emit({ event: 'lock-taken', ...place, detail: { key } });
      break;
    }
    default:
      assertNever(now);
  }
}

function tick({ holding, hear }: Live): void {
  hear({ kind: 'tick', nowMs: holding.context.deps.clock.monotonicMs() });
}

async function untilCutOff(live: Live): Promise<void> {
  const { clock } = live.holding.context.deps;
  const leftMs = () => termAtMs(live.state(), live.terms) - clock.monotonicMs();
  if (leftMs() === Infinity) return;
  try {
    while (leftMs() > 0) await clock.sleep(leftMs(), { signal: live.ended });
    tick(live);
  } catch {
    // The run has ended.
  }
}

async function pause({ holding, state, terms, ended }: Live): Promise<void> {
  const { clock, random } = holding.context.deps;
  await clock.sleep(pauseMs(state(), terms, random), { signal: ended });
}

/** Keeps reading the slot, and reacts to what it finds, until the run ends or the lock is lost. */
async function watch(live: Live): Promise<void> {
  const { clock } = live.holding.context.deps;
  // The claim may have been read rather than written, and be evicted: then the first look must not wait for a change.
  const { claim, index: written } = live.holding.owner;
  let index = claim.state === 'running' ? written : 0;
  // Start the run first, so that a short run needs no look at all. The first look sees all changes since the grant.
  await clock.sleep(FIRST_LOOK_MS, { signal: live.ended });
  while (isWatched(live.state())) {
    try {
      const seen = await look(live, index);
      index = seen.standing.kind === 'mine' ? seen.index : 0;
      if (isWatched(live.state())) await act(live, seen);
    } catch (error) {
      index = 0;
      const fault = reasonOf(error);
      live.hear({ kind: 'failed', fault, isTransient: isTransient(error), nowMs: clock.monotonicMs() });
      if (isWatched(live.state())) await pause(live);
    }
  }
}

interface Look {
  readonly standing: Standing;
  readonly index: number;
  /** In monotonic milliseconds. */
  readonly sentMs: number;
}

/** A read of the slot; waits for a change past `index` (0: not at all). */
async function look({ holding, terms, ended }: Live, index: number): Promise<Look> {
  const { context, slot, session } = holding;
  const { consul, deps, keys } = context;
  const sentMs = deps.clock.monotonicMs();
  const signal = AbortSignal.any([ended, session.lost]);
  const read = (past: Past) =>
    consul.list(keys.slot(slot), { ...past, signal, retryForMs: 0, rule: keys.rule });
  try {
    const seen = await lookPast(read, index, longestWaitMs(terms));
    return { standing: standingOf(holding, seen.entries), index: seen.index, sentMs };
  } catch (error) {
    if (!session.lost.aborted || ended.aborted) throw error;
    return { standing: { kind: 'unlocked', owner: holding.owner }, index: 0, sentMs };
  }
}

/** How the slot looks to this run. A value that is not a claim, written by hand, is certainly not this run's. */
function standingOf({ context, session }: Grant, entries: readonly Entry[]): Standing {
  const { node, id } = context.run;
  let slot: Slot | undefined;
  try {
    [slot] = readSlots(context.keys.base, entries);
  } catch {
    return { kind: 'foreign' };
  }
  return standing({ node, run: id, session: session.id }, slot);
}

async function act(live: Live, { standing: now, sentMs }: Look): Promise<void> {
  const lose = (why: Over) => live.hear({ kind: 'lost', why });
  switch (now.kind) {
    case 'mine':
      live.holding = { ...live.holding, owner: now.owner };
      live.hear({ kind: 'proved', sentMs });
      break;
    case 'evicted':
      live.holding = { ...live.holding, owner: now.owner };
      lose({ kind: 'evicted', by: now.owner.claim.by ?? 'an operator' });
      break;
    case 'unlocked':
    case 'gone':
      live.hear({ kind: 'missing' });
      await recover(live, now);
      break;
    case 'foreign':
      lose({ kind: 'lost', why: describeForeign(now.owner) });
      break;
    default:
      assertNever(now);
  }
}

const describeForeign = (owner: Owner | undefined): string =>
  owner ? `its claim names ${owner.claim.node} (run ${owner.claim.run})` : 'its claim was overwritten';

/**
 * Takes the lock back, with a new session if the old one is gone. If the claim was deleted, writes it again. The next
 * look shows the result.
 */
async function recover(live: Live, now: Extract<Standing, { kind: 'unlocked' | 'gone' }>): Promise<void> {
  const { context, slot, owner } = live.holding;
  const { deps, keys, run } = context;
  if (live.holding.session.lost.aborted) await renewSession(live);
  const seat = { keys, session: live.holding.session.id, slot };
  const claim = returnedClaim(context, now.kind === 'gone' ? owner.claim : now.owner.claim);
  const steps =
    now.kind === 'gone'
      ? claimAgain(seat, claim, nodeMark(context))
      : takeBack(seat, claim, nodeMark(context), now.owner.index);
  const sentMs = deps.clock.monotonicMs();
  const result = now.kind === 'gone' ? await sendAndKeep(live, steps) : await sendOrForget(live, steps);
  if (result.kind === 'done') {
    live.holding = {
      ...live.holding,
      owner: { claim, index: writtenIndex(result.entries, keys.owner(slot)) },
    };
    deps.emit({ event: 'recovered', group: keys.group, node: run.node, slot, run: run.id });
    live.hear({ kind: 'proved', sentMs });
  } else if (result.obstacle === 'session') {
    // Consul ended the session before a renewal noticed.
    await renewSession(live);
  } else if (now.kind === 'gone' && result.obstacle === 'lock') {
    const why = 'its claim was deleted, and another run has the slot now';
    live.hear({ kind: 'lost', why: { kind: 'lost', why } });
  } else {
    live.hear({ kind: 'refused', by: refusalOf(now.kind, result.obstacle) });
    await pause(live);
  }
}

/** A claim that appears where it was missing may be this run's own: restored meanwhile, or never deleted. */
function refusalOf(missing: 'unlocked' | 'gone', obstacle: Obstacle): Refusal {
  if (obstacle === 'owner') return missing === 'gone' ? 'claim' : 'change';
  return obstacle === 'node' ? 'node' : 'lock';
}

/**
 * After a transient fault the request may still take effect, so replace the session: a late request then has no
 * effect.
 */
async function sendOrForget(live: Live, steps: readonly Step[]): Promise<Result> {
  const { consul, keys } = live.holding.context;
  try {
    return await send(consul, steps, { signal: live.ended, rule: keys.rule });
  } catch (error) {
    if (isTransient(error) && !live.ended.aborted) await renewSession(live);
    throw error;
  }
}

/**
 * While the claim is missing, only the session's lock guards the slot, so keep the session. A late request only
 * restores the claim of a run that is under way; `lease.release` ends the session before it releases the slot.
 */
async function sendAndKeep(live: Live, steps: readonly Step[]): Promise<Result> {
  const { consul, keys } = live.holding.context;
  try {
    return await send(consul, steps, { signal: live.ended, rule: keys.rule });
  } catch (error) {
    live.hear({ kind: 'unanswered' });
    throw error;
  }
}

async function renewSession(live: Live): Promise<void> {
  const { context, session } = live.holding;
  const options = { signal: live.ended };
  await session.close(options);
  const name = `runlock ${context.keys.group}`;
  const opened = await openSession(context, { name, ttlMs: live.terms.ttlMs, ...options });
  live.holding = { ...live.holding, session: opened };
  live.hear({ kind: 'new-session' });
}
