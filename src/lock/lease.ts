/**
 * A granted slot while it is held: watch it, take it back after a lost session, know when it is lost, give it back
 * (docs/protocol.md, "While it runs" and "Release").
 */
import { isTransient } from '../consul/consul.ts';
import { assertNever, reasonOf } from '../errors.ts';
import type { Over } from '../events/events.ts';
import { giveBack, LEAVE } from './release.ts';
import type { Ending, GivenBack } from './release.ts';
import { decline } from './head-of-queue.ts';
import type { Grant } from './head-of-queue.ts';
import { growingMs } from '../consul/retry.ts';
import type { Growth } from '../consul/retry.ts';
import type { Hold } from './records.ts';
import { VANISHED_AFTER_MS, readSlots, standing } from './decide.ts';
import type { Owner, Standing, Slot } from './decide.ts';
import { lookPast } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { Entry } from '../consul/consul.ts';
import { nodeMark, returnedClaim } from './context.ts';
import { leaveSession, openSession } from '../consul/session.ts';
import { claimAgain, takeBack } from './transactions.ts';
import { send, writtenIndex } from '../consul/txn.ts';
import type { Obstacle, Result, Step } from './transactions.ts';

export interface Lease {
  /** Aborts when the command must end; `whyOver` says why. */
  readonly over: AbortSignal;
  /** Undefined: it need not, so far. */
  whyOver(): Over | undefined;
  /** When the command's tree must be dead, in monotonic milliseconds; Infinity with `hold = forever`. */
  deadlineMs(): number;
  /**
   * Looks at the clock now. Of a process that was stopped all other news may come before the timer that does this: whoever
   * starts something asks first.
   */
  checkDeadline(): void;
  /** Stops watching; what is held stays held. */
  stop(): Promise<void>;
  /**
   * Stops watching and gives the slot up, before anything was started in it: all is as it was before the grant. False: it
   * could not be, and that was said.
   */
  decline(): Promise<boolean>;
  /** Stops watching and gives the slot back. The command's tree is gone by then. */
  release(ending: Ending): Promise<GivenBack>;
}

/** After a fault that may be over in a moment, and after a refusal, which somebody has to mend. */
const FAULTY: Growth = { shortestMs: 1_000, longestMs: 5_000 };
const REFUSED: Growth = { shortestMs: 1_000, longestMs: 30_000 };
/** A change is seen this much later in the first moments of a run. */
const FIRST_LOOK_MS = 100;
/** Two seconds for the kill, five more should two clocks differ by twice of what is allowed. */
const MARGIN_MS = 7_000;

/** `killAfterMs`: TERM must go out this long before the deadline. */
export function holdLease(
  grant: Grant,
  { ttlMs, killAfterMs }: { ttlMs: number; killAfterMs: number },
): Lease {
  const { run } = grant.context;
  const over = new AbortController();
  let why: Over | undefined;
  const ended = new AbortController();
  const live: Live = {
    holding: grant,
    provedMs: grant.provedMs,
    ttlMs,
    isOver: false,
    ended: ended.signal,
    failures: 0,
  };
  const deadlineMs = () => live.provedMs + deadAfterMs(run.hold);
  const end = (reason: Over) => {
    if (why || live.isOver) return;
    why = reason;
    over.abort(reason);
  };
  const watching = watch(live, end).catch((error: unknown) => {
    end({ kind: 'lost', why: reasonOf(error) });
  });
  void untilCutOff(live, () => deadlineMs() - killAfterMs, end);
  const stop = async () => {
    live.isOver = true;
    ended.abort();
    await watching;
  };
  return {
    over: over.signal,
    whyOver: () => why,
    deadlineMs,
    checkDeadline: () => {
      if (deadlineMs() - killAfterMs <= grant.context.deps.clock.monotonicMs()) end({ kind: 'cut-off' });
    },
    stop,
    decline: async () => {
      await stop();
      // The session may be another one by now; whatever was sent under it can do nothing when it is gone.
      return decline(live.holding);
    },
    release: async (ending) => {
      live.isOver = true;
      // What takes the slot back must not arrive after its release. A look ends by itself, by what the release changes.
      if (live.recovering || live.unanswered) await stop();
      if (live.unanswered) await leaveSession(grant.context, live.holding.session, LEAVE);
      return giveBack(live.holding, { ...ending, ttlMs }).finally(stop);
    },
  };
}

/**
 * How long after the last proof the command must be dead, in milliseconds. Nobody can be granted the slot before 60 s
 * and the hold have passed: whoever marks the claim as missing sees that its lock is gone, so after that proof; the hosts'
 * clocks, by which others judge the mark and the hold's end, may differ by 5 s (docs/adr/0018).
 */
export function deadAfterMs(hold: Hold): number {
  switch (hold) {
    case 'forever':
      return Infinity;
    case 'none':
      return VANISHED_AFTER_MS - MARGIN_MS;
    default:
      return VANISHED_AFTER_MS + hold - MARGIN_MS;
  }
}

async function untilCutOff(live: Live, termAtMs: () => number, end: (reason: Over) => void): Promise<void> {
  const { clock } = live.holding.context.deps;
  if (termAtMs() === Infinity) return;
  try {
    for (
      let leftMs = termAtMs() - clock.monotonicMs();
      leftMs > 0;
      leftMs = termAtMs() - clock.monotonicMs()
    ) {
      await clock.sleep(leftMs, { signal: live.ended });
    }
    end({ kind: 'cut-off' });
  } catch {
    // The run has ended.
  }
}

/** Looks at the slot again and again, and does what its standing asks for, until the run ends or the lock is lost. */
async function watch(live: Live, end: (reason: Over) => void): Promise<void> {
  const { clock } = live.holding.context.deps;
  const ended = () => live.isOver;
  // A claim that was found, not written, may be evicted by now: then the first look must not wait for a change.
  const { claim, index: written } = live.holding.owner;
  let index = claim.state === 'running' ? written : 0;
  // The run is started first, and a short one costs no look: what changes meanwhile, the first one sees.
  await clock.sleep(FIRST_LOOK_MS, { signal: live.ended });
  while (!ended()) {
    try {
      const seen = await look(live, index);
      if (ended()) return;
      if (await act(live, seen.standing, end)) return;
      if (seen.standing.kind === 'mine') endTrouble(live);
      index = seen.standing.kind === 'mine' ? seen.index : 0;
    } catch (error) {
      // Nothing is known, so nothing is lost yet: not even a refusal proves anything.
      if (ended()) return;
      sayTrouble(live, error);
      index = 0;
      await clock.sleep(pauseMs(live, error), { signal: live.ended });
    }
  }
}

/** With a hold that ends, the reads are the proofs: the pause stays as short as a look may wait. */
function pauseMs(live: Live, error: unknown): number {
  const growth = isTransient(error) ? FAULTY : REFUSED;
  const { run, deps } = live.holding.context;
  const longestMs = run.hold === 'forever' ? growth.longestMs : Math.min(growth.longestMs, live.ttlMs / 6);
  return growingMs(live.failures++, { ...growth, longestMs }, deps.random);
}

/** All is as it should be: a slot that could be read, and not be taken back, was no end of it. */
function endTrouble(live: Live): void {
  live.failures = 0;
  delete live.silentSinceMs;
  if (live.trouble === undefined) return;
  const { keys, deps } = live.holding.context;
  deps.emit({ event: 'slot-seen', detail: { group: keys.group } });
  delete live.trouble;
}

/** The same trouble is said once. */
function sayTrouble(live: Live, error: unknown): void {
  const message = reasonOf(error);
  if (isTransient(error) ? !isNewSilence(live) : message === live.trouble) return;
  live.trouble = message;
  live.holding.context.deps.emit({ event: 'slot-unseen', detail: { fault: message } });
}

/** Longer than an election, or an agent's restart by the command, takes. */
const QUIET_SILENCE_MS = 30_000;

/** With a hold that ends, the run's deadline speaks; with `forever` nothing else ever would. */
function isNewSilence(live: Live): boolean {
  const { run, deps } = live.holding.context;
  const nowMs = deps.clock.monotonicMs();
  live.silentSinceMs ??= nowMs;
  const isLong = nowMs - live.silentSinceMs >= QUIET_SILENCE_MS;
  return run.hold === 'forever' && isLong && live.trouble === undefined;
}

/** True: it is over. */
async function act(live: Live, now: Standing, end: (reason: Over) => void): Promise<boolean> {
  switch (now.kind) {
    case 'mine':
      live.holding = { ...live.holding, owner: now.owner };
      return false;
    case 'evicted':
      live.holding = { ...live.holding, owner: now.owner };
      end({ kind: 'evicted', by: now.owner.claim.by ?? 'an operator' });
      return true;
    case 'unlocked':
    case 'gone': {
      live.recovering = true;
      const recovered = await recover(live, now).finally(() => (live.recovering = false));
      if (recovered.kind === 'lost') end(recovered);
      return recovered.kind === 'lost';
    }
    case 'foreign':
      end({ kind: 'lost', why: describeForeign(now.owner) });
      return true;
    default:
      return assertNever(now);
  }
}

const describeForeign = (owner: Owner | undefined): string =>
  owner ? `its claim names ${owner.claim.node} (run ${owner.claim.run})` : 'its claim was overwritten';

/** A lease while its run is under way. */
export interface Live {
  holding: Grant;
  /** When the last request that proved the lock mine was sent, in monotonic milliseconds. */
  provedMs: number;
  /** What was said to be wrong, and has not been said to be over. */
  trouble?: string;
  /** How often in a row the slot could not be seen, or not be taken back. */
  failures: number;
  /** When Consul's silence began, in monotonic milliseconds. */
  silentSinceMs?: number;
  /** How often in a row the slot could not be taken back because somebody else has its lock, or the node's mark. */
  refusals?: number;
  /** The slot is being taken back. */
  recovering?: boolean;
  /** A claim was sent under the present session, and nobody knows whether it will still arrive. */
  unanswered?: boolean;
  readonly ttlMs: number;
  /** The run is over, or gives up: the watch sees and does nothing any more. */
  isOver: boolean;
  /** Ends what the watch waits for. */
  readonly ended: AbortSignal;
}

/** A read of the slot; waits for a change past `index` (0: not at all). A look that finds all as it should be is a proof. */
export async function look(live: Live, index: number): Promise<{ standing: Standing; index: number }> {
  const { context, slot, session } = live.holding;
  const { consul, deps, keys, run } = context;
  const sentMs = deps.clock.monotonicMs();
  const signal = AbortSignal.any([live.ended, session.lost]);
  // With a hold that ends, the reads are the proofs. One counts from when it was sent, so it is as old as its wait when
  // it comes, and twice as old before the next one does: half of the time between renewals keeps it younger than that.
  const waitMs = run.hold === 'forever' ? undefined : live.ttlMs / 6;
  const read = (past: Past) =>
    consul.list(keys.slot(slot), { ...past, signal, retryForMs: 0, rule: keys.rule });
  try {
    const seen = await lookPast(read, index, waitMs);
    const now = standingOf(live.holding, seen.entries);
    if (now.kind === 'mine') live.provedMs = sentMs;
    return { standing: now, index: seen.index };
  } catch (error) {
    if (!session.lost.aborted || live.ended.aborted) throw error;
    return { standing: { kind: 'unlocked', owner: live.holding.owner }, index: 0 };
  }
}

/** Whatever somebody wrote there by hand that is no claim is, above all, not mine. */
function standingOf({ context, session }: Grant, entries: readonly Entry[]): Standing {
  const { node, id } = context.run;
  let slot: Slot | undefined;
  try {
    [slot] = readSlots(context.keys.root, entries);
  } catch {
    return { kind: 'foreign' };
  }
  return standing({ node, run: id, session: session.id }, slot);
}

export type Recovered =
  /** The lock is back, or the next look will tell. */
  { readonly kind: 'look-again' } | { readonly kind: 'lost'; readonly why: string };

const RETRY_MS = 500;
const LONGEST_RETRY_MS = 60_000;
/** The session of a run of this node that gave up may last for a moment. */
const SAY_AFTER = 2;
/** Soon: it may be another's, and then the command has to end. */
const LOOK_MS = 100;

/** Takes the lock back, with a new session if the old one is gone; claims again, once, what somebody deleted. */
export async function recover(
  live: Live,
  now: Extract<Standing, { kind: 'unlocked' | 'gone' }>,
): Promise<Recovered> {
  const { context, slot, owner } = live.holding;
  const { deps, keys } = context;
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
    const index = writtenIndex(result.entries, keys.owner(slot));
    live.holding = { ...live.holding, owner: { claim, index } };
    live.provedMs = sentMs;
    live.refusals = 0;
    deps.emit({
      event: 'recovered',
      group: keys.group,
      node: context.run.node,
      slot,
      run: context.run.id,
    });
  } else if (result.obstacle === 'session') {
    // Consul knew before the next renewal did.
    await renewSession(live);
  } else if (now.kind === 'gone' && result.obstacle === 'owner') {
    // A claim is there, and may be my own: put back meanwhile, or never gone. The next look tells whose it is.
    await deps.clock.sleep(LOOK_MS, { signal: live.ended });
  } else if (now.kind === 'gone' && result.obstacle === 'lock') {
    return { kind: 'lost', why: 'its claim was deleted, and somebody else has the slot now' };
  } else {
    await afterRefusal(live, result.obstacle);
  }
  return { kind: 'look-again' };
}

/**
 * A claim that changed meanwhile is looked at again. A lock that somebody else has, which only a hand can take, may be
 * gone for good: it is said once, and asked for less and less often, for each try is a write.
 */
async function afterRefusal(live: Live, obstacle: Obstacle): Promise<void> {
  const { context, slot } = live.holding;
  const { deps, keys, run } = context;
  const isChange = obstacle === 'owner';
  const refusals = isChange ? 0 : (live.refusals ?? 0);
  if (!isChange) live.refusals = refusals + 1;
  if (refusals === SAY_AFTER) {
    const key = obstacle === 'node' ? keys.node(run.node) : keys.lock(slot);
    const place = { group: keys.group, node: run.node, slot, run: run.id };
    deps.emit({ event: 'lock-taken', ...place, detail: { key } });
  }
  // With a hold that ends there is a deadline to be met.
  const longestMs = run.hold === 'forever' ? LONGEST_RETRY_MS : live.ttlMs / 6;
  await deps.clock.sleep(Math.min(longestMs, RETRY_MS * 2 ** refusals), { signal: live.ended });
}

/** After a transient fault nobody knows whether it took effect: the session goes, so that a late arrival can do nothing. */
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
 * Without its claim the slot is guarded by the session's lock alone: the session stays. A late arrival only restores the
 * claim of a run that is under way; before its end the session has to go (`lease.release`).
 */
async function sendAndKeep(live: Live, steps: readonly Step[]): Promise<Result> {
  const { consul, keys } = live.holding.context;
  try {
    return await send(consul, steps, { signal: live.ended, rule: keys.rule });
  } catch (error) {
    live.unanswered = true;
    throw error;
  }
}

async function renewSession(live: Live): Promise<void> {
  const { context, session } = live.holding;
  const options = { signal: live.ended };
  await session.close(options);
  const name = `runlock ${context.keys.group}`;
  live.holding = {
    ...live.holding,
    session: await openSession(context, { name, ttlMs: live.ttlMs, ...options }),
  };
}
