/**
 * A node's own claim stands in a slot that its next run, with a smaller N, does not use: it moves to one that it does,
 * as soon as whoever is first in the queue might have that (docs/protocol.md, "Acquire", step 1).
 */
import { goesOn, nodeMark, runningClaim } from './context.ts';
import type { RunContext } from './context.ts';
import { decideDown } from './decide.ts';
import { IMPATIENT_TRIES, tidy, watchSlots } from './head-of-queue.ts';
import { pause } from '../consul/retry.ts';
import type { Turned } from './head-of-queue.ts';
import { untilThawed } from './freeze.ts';
import { sendGrant } from './grant.ts';
import type { Progress } from './grant.ts';
import { markWaiting } from './local-conflict.ts';
import { readSlotsNow } from './queue.ts';
import type { Turn } from './queue.ts';
import type { Session } from '../consul/session.ts';
import { isHeld, isOwn, observe } from './slot.ts';
import type { Owner, Sightings, Slot } from './slot.ts';
import { moveDown } from './transactions.ts';

/** `node`: another run of this node has its mark; `locked`: or the lock of its claim. */
export type Moved = Turned | { readonly kind: 'node' } | { readonly kind: 'locked' };

type Own = Slot & { readonly owner: Owner };

/**
 * Watches the slots until this node's claim is in one that it uses. It has no ticket: it does not queue behind anybody.
 * `seenIndex`: of the claim that was found to have no run behind it any more.
 */
export async function untilDown(
  context: RunContext,
  session: Session,
  { turn, seenIndex, progress }: { turn: Turn; seenIndex: number; progress: Progress },
): Promise<Moved> {
  const { deps, run } = context;
  const marked = await markWaiting(context, session, progress);
  if (marked !== 'marked') return { kind: marked };
  let { slots, index } = turn;
  let sightings: Sightings = new Map();
  let failures = 0;
  for (let looks = 0; ; looks++) {
    const monotonicMs = deps.clock.monotonicMs();
    const own = slots.find((slot): slot is Own => slot.owner !== undefined && isOwn(run, slot.owner.claim));
    // Another run of this node may have come back to it meanwhile, and be under way: that has to be looked at again.
    if (own?.owner.index !== seenIndex || own.slot < run.slots) return { kind: 'again' };
    if (own.lockedBy !== undefined) return { kind: 'locked' };
    if (isHeld(own.owner.claim, deps.clock.earliest())) return { kind: 'again' };
    const others = slots.filter((slot) => slot !== own);
    sightings = observe(sightings, others, monotonicMs);
    progress.blocked = { kind: 'slots', slots: others };
    const seen = { slots: others, sightings, nowMs: deps.clock.earliest(), monotonicMs };
    const choice = decideDown({ own: own.slot, slots: run.slots }, seen);
    if (choice.kind === 'wait') {
      failures = 0;
      progress.patience.throwIfAborted();
      const watched = watchSlots(context, progress.either, { after: index, forMs: choice.forMs });
      if (looks === 0) progress.onJoined?.(session.id, { node: run.node, behind: false, slots: others });
      progress.onFirst?.();
      ({ slots, index } = await watched);
      continue;
    }
    if (choice.kind === 'grant') {
      const moved = await move(context, session, { own, slot: choice.slot, progress });
      if (moved) return moved;
    } else await tidy(context, choice, progress.signal);
    if (++failures >= IMPATIENT_TRIES) progress.patience.throwIfAborted();
    await pause(deps, failures, progress.signal);
    ({ slots, index } = await readSlotsNow(context, progress));
  }
}

/** Undefined: the slots have to be looked at again. */
async function move(
  context: RunContext,
  session: Session,
  { own, slot, progress }: { own: Own; slot: number; progress: Progress },
): Promise<Moved | undefined> {
  const { claim: before, index } = own.owner;
  const seat = { keys: context.keys, session: session.id, slot };
  const claim = { ...runningClaim(context), ...goesOn(before) };
  const from = { slot: own.slot, index, strayLock: own.strayLock };
  const steps = moveDown(seat, claim, nodeMark(context), from);
  const result = await sendGrant(context, { session, steps, slot, claim, progress, before });
  if (result.kind !== 'refused') return result;
  if (result.obstacle === 'node') return { kind: 'node' };
  if (result.obstacle === 'session') return { kind: 'again' };
  if (result.obstacle === 'freeze') await untilThawed(context, result.key, progress);
  return undefined;
}
