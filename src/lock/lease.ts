/**
 * A granted slot while it is held: watch it, take it back after a lost session, know when it is lost, give it back
 * (docs/protocol.md, "While it runs" and "Release").
 */
import { isTransient } from '../consul.ts';
import type { Entry } from '../consul.ts';
import { assertNever } from '../errors.ts';
import type { Grant } from './acquire.ts';
import { nodeMark, runningClaim } from './context.ts';
import { giveBack } from './give-back.ts';
import type { Ending, GivenBack } from './give-back.ts';
import type { Hold } from './layout.ts';
import { openSession } from './session.ts';
import type { Session } from './session.ts';
import { readSlots, standing, VANISHED_AFTER_MS } from './slot.ts';
import type { Owner, Slot, Standing } from './slot.ts';
import { claimAgain, send, takeBack } from './transactions.ts';
import type { Result, Step } from './transactions.ts';

/** Why the command must end before its time. */
export type Over =
  | { readonly kind: 'evicted'; readonly by: string }
  | { readonly kind: 'lost'; readonly why: string }
  /** Nothing proved the lock for so long that others may soon follow. */
  | { readonly kind: 'cut-off' };

export interface Lease {
  /** Aborts, with an `Over` as its reason, when the command must end. */
  readonly over: AbortSignal;
  /** When the command's tree must be dead, in monotonic milliseconds; Infinity with `hold = forever`. */
  deadlineMs(): number;
  /** Stops watching; what is held stays held. */
  stop(): Promise<void>;
  /** Stops watching and gives the slot back. The command's tree is gone by then. */
  release(ending: Ending): Promise<GivenBack>;
}

/** What the holder of a slot knows of it now. */
export interface Holding extends Grant {
  readonly session: Session;
  readonly owner: Owner;
}

const RETRY_MS = 500;

/** `killAfterMs`: TERM must go out this long before the deadline. */
export function holdLease(
  grant: Grant,
  { ttlMs, killAfterMs }: { ttlMs: number; killAfterMs: number },
): Lease {
  const { run } = grant.context;
  const over = new AbortController();
  const ended = new AbortController();
  const live: Live = { holding: grant, provedMs: grant.provedMs, ttlMs, ended: ended.signal };
  const deadlineMs = () => live.provedMs + deadAfterMs(run.hold);
  const end = (reason: Over) => {
    if (!over.signal.aborted && !ended.signal.aborted) over.abort(reason);
  };
  const watching = watch(live, end).catch((error: unknown) => {
    if (!ended.signal.aborted) end({ kind: 'lost', why: String(error) });
  });
  void untilCutOff(live, () => deadlineMs() - killAfterMs, end);
  const stop = async () => {
    ended.abort();
    await watching;
  };
  return {
    over: over.signal,
    deadlineMs,
    stop,
    release: async (ending) => {
      await stop();
      return giveBack(live.holding, { ...ending, ttlMs });
    },
  };
}

interface Live {
  holding: Holding;
  /** When the last request that proved the lock mine was sent, in monotonic milliseconds. */
  provedMs: number;
  trouble?: string;
  readonly ttlMs: number;
  readonly ended: AbortSignal;
}

/**
 * How long after the last proof the command must be dead, in milliseconds. Nobody can be granted the slot before 60 s
 * and the hold have passed; where `held until` decides, the hosts' clocks may differ by 5 s.
 */
export function deadAfterMs(hold: Hold): number {
  switch (hold) {
    case 'forever':
      return Infinity;
    case 'none':
      return VANISHED_AFTER_MS - 2_000;
    default:
      return VANISHED_AFTER_MS + hold - 7_000;
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
  const ended = () => live.ended.aborted;
  let index: number | undefined = live.holding.owner.index;
  while (!ended()) {
    try {
      const seen = await look(live, index);
      if (await act(live, seen.standing, end)) return;
      index = seen.standing.kind === 'mine' && seen.index >= (index ?? 0) ? seen.index : undefined;
    } catch (error) {
      // Nothing is known, so nothing is lost yet: not even a refusal proves anything.
      if (ended()) return;
      sayTrouble(live, error);
      index = undefined;
      await clock.sleep(RETRY_MS * (1 + live.holding.context.deps.random()), { signal: live.ended });
    }
  }
}

function sayTrouble({ holding }: Live, error: unknown): void {
  const level = isTransient(error) ? 'debug' : 'warning';
  holding.context.deps.log(level, `can't see slot ${holding.slot}: ${String(error)}`, {
    event: 'slot-unseen',
  });
}

/** A read of the slot; waits for a change past `index`. A look that finds all as it should be is a proof. */
async function look(live: Live, index: number | undefined): Promise<{ standing: Standing; index: number }> {
  const { context, slot, session } = live.holding;
  const { consul, deps, keys, run } = context;
  const sentMs = deps.clock.monotonicMs();
  const signal = AbortSignal.any([live.ended, session.lost]);
  // With a hold that ends, the reads are the proofs, so they come as often as renewals.
  const waitMs = run.hold === 'forever' ? {} : { waitMs: live.ttlMs / 3 };
  try {
    const seen = await consul.list(keys.slot(slot), {
      signal,
      index,
      retryForMs: 0,
      rule: keys.rule,
      ...waitMs,
    });
    const now = standingOf(live.holding, seen.entries);
    if (now.kind === 'mine') live.provedMs = sentMs;
    return { standing: now, index: seen.index };
  } catch (error) {
    if (!session.lost.aborted || live.ended.aborted) throw error;
    return { standing: { kind: 'unlocked', owner: live.holding.owner }, index: 0 };
  }
}

/** Whatever somebody wrote there by hand that is no claim is, above all, not mine. */
function standingOf({ context, session }: Holding, entries: readonly Entry[]): Standing {
  const { node, id } = context.run;
  let slot: Slot | undefined;
  try {
    [slot] = readSlots(context.keys.root, entries);
  } catch {
    return { kind: 'foreign' };
  }
  return standing({ node, run: id, session: session.id }, slot);
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
    case 'gone':
      return recover(live, end);
    case 'foreign':
      end({ kind: 'lost', why: describeForeign(now.owner) });
      return true;
    default:
      return assertNever(now);
  }
}

const describeForeign = (owner: Owner | undefined): string =>
  owner ? `its claim names ${owner.claim.node} (run ${owner.claim.run})` : 'its claim was overwritten';

/** Takes the lock back, with a new session if the old one is gone. True: it can't be, somebody else has the slot. */
async function recover(live: Live, end: (reason: Over) => void): Promise<boolean> {
  const { context, slot } = live.holding;
  const { deps, keys } = context;
  if (live.holding.session.lost.aborted) await renewSession(live);
  const { standing: now } = await look(live, undefined);
  if (now.kind !== 'unlocked' && now.kind !== 'gone') return act(live, now, end);
  const seat = { keys, session: live.holding.session.id, slot };
  const claim = { ...runningClaim(context), since: live.holding.owner.claim.since };
  const steps =
    now.kind === 'gone'
      ? claimAgain(seat, claim, nodeMark(context))
      : takeBack(seat, claim, nodeMark(context), now.owner.index);
  const sentMs = deps.clock.monotonicMs();
  const result = await sendOrForget(live, steps);
  if (result.kind === 'done') {
    const index = result.entries.find((entry) => entry.key === keys.owner(slot))?.modifyIndex ?? 0;
    live.holding = { ...live.holding, owner: { claim, index } };
    live.provedMs = sentMs;
    deps.log('warning', `took the lock of ${keys.group} back; the run goes on`, { event: 'recovered', slot });
    return false;
  }
  if (now.kind === 'gone' && (result.obstacle === 'owner' || result.obstacle === 'lock')) {
    end({ kind: 'lost', why: 'its claim was deleted, and somebody else has the slot now' });
    return true;
  }
  // Consul knew before the next renewal did.
  if (result.obstacle === 'session') await renewSession(live);
  else await deps.clock.sleep(RETRY_MS, { signal: live.ended });
  return false;
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
