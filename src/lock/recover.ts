/** Taking a slot back after its lock, its claim or its session was lost under a run. */
import { isTransient } from '../consul.ts';
import { nodeMark, returnedClaim } from './context.ts';
import type { Live } from './holding.ts';
import { openSession } from './session.ts';
import type { Standing } from './slot.ts';
import { claimAgain, send, takeBack, writtenIndex } from './transactions.ts';
import type { Result, Step } from './transactions.ts';

export type Recovered =
  /** The lock is back, or the next look will tell. */
  { readonly kind: 'look-again' } | { readonly kind: 'lost'; readonly why: string };

const RETRY_MS = 500;

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
    deps.log('warning', `took the lock of ${keys.group} back; the run goes on`, {
      event: 'recovered',
      ...{ group: keys.group, node: context.run.node, slot, run: context.run.id },
    });
  } else if (result.obstacle === 'session') {
    // Consul knew before the next renewal did.
    await renewSession(live);
  } else if (now.kind === 'gone' && (result.obstacle === 'owner' || result.obstacle === 'lock')) {
    return { kind: 'lost', why: 'its claim was deleted, and somebody else has the slot now' };
  } else {
    await deps.clock.sleep(RETRY_MS, { signal: live.ended });
  }
  return { kind: 'look-again' };
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
