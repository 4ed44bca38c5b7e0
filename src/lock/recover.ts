/** Taking a slot back after its lock, its claim or its session was lost under a run. */
import { isTransient } from '../consul/consul.ts';
import { nodeMark, returnedClaim } from './context.ts';
import type { Live } from './observe.ts';
import { openSession } from '../consul/session.ts';
import type { Standing } from './slot.ts';
import { claimAgain, takeBack } from './transactions.ts';
import { send, writtenIndex } from '../consul/txn.ts';
import type { Obstacle, Result, Step } from './transactions.ts';

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
