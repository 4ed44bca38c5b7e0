/** As the first in the queue: take a slot that is free, or may be taken over (docs/protocol.md, "Acquire", steps 4 and 5). */
import { lookPast } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { assertNever } from '../errors.ts';
import { runningClaim } from './context.ts';
import type { RunContext } from './context.ts';
import { untilThawed } from './freeze.ts';
import { granted, sendGrant, trySend } from './grant.ts';
import type { Granted, Progress } from './grant.ts';
import { pause } from '../consul/retry.ts';
import { readSlotsNow } from './queue.ts';
import type { Turn } from './queue.ts';
import type { Session } from '../consul/session.ts';
import { decide } from './decide.ts';
import type { Choice, Tidy } from './decide.ts';
import { abandoned, missing, observe, readSlots } from './slot.ts';
import type { Sightings, Slot } from './slot.ts';
import { abandon, drop, grant, notice, takeOver } from './transactions.ts';
import type { Seat, Step } from './transactions.ts';

/** What fails can do so by chance; with no patience left, it is not tried for ever. */
export const IMPATIENT_TRIES = 3;

/** `again`: all has to start anew, with another session. */
export type Turned = Granted | { readonly kind: 'again' };

/** Watches the slots until this run has one. */
export async function asFirst(
  context: RunContext,
  session: Session,
  { turn, progress }: { turn: Turn; progress: Progress },
): Promise<Turned> {
  const { deps, run } = context;
  let { slots, index } = turn;
  let sightings: Sightings = new Map();
  let askedMs = deps.clock.monotonicMs();
  let failures = 0;
  for (;;) {
    const monotonicMs = deps.clock.monotonicMs();
    sightings = observe(sightings, slots, monotonicMs);
    progress.blocked = { kind: 'slots', slots };
    const seen = { slots, sightings, nowMs: deps.clock.earliest(), monotonicMs };
    const move = decide({ ...run, run: run.id, session: session.id }, seen);
    if (move.kind === 'return') return { kind: 'again' };
    if (move.kind === 'adopt') return granted(context, session, { ...move, provedMs: askedMs });
    askedMs = monotonicMs;
    if (move.kind === 'wait') {
      failures = 0;
      progress.patience.throwIfAborted();
      const watched = watchSlots(context, progress.either, { after: index, forMs: move.forMs });
      progress.onFirst?.();
      ({ slots, index } = await watched);
      continue;
    }
    const done = await make(context, session, { move, progress });
    if (done) return done;
    if (++failures >= IMPATIENT_TRIES) progress.patience.throwIfAborted();
    await pause(deps, failures, progress.signal);
    askedMs = deps.clock.monotonicMs();
    ({ slots, index } = await readSlotsNow(context, progress));
  }
}

/** Reads the slots when they have changed past `after`, or when `forMs` is over. */
export async function watchSlots(
  { consul, keys }: RunContext,
  signal: AbortSignal,
  { after, forMs }: { after: number; forMs: number | undefined },
): Promise<{ slots: Slot[]; index: number }> {
  const read = (past: Past) => consul.list(keys.slotPrefix, { ...past, signal, rule: keys.rule });
  const { entries, index } = await lookPast(read, after, forMs);
  return { slots: readSlots(keys.root, entries), index };
}

type Act = Exclude<Choice, { kind: 'wait' }>;

/** Makes a move; undefined when the slots have to be looked at again. */
async function make(
  context: RunContext,
  session: Session,
  { move, progress }: { move: Act; progress: Progress },
): Promise<Turned | undefined> {
  if (move.kind !== 'grant' && move.kind !== 'take-over') {
    await tidy(context, move, progress.signal);
    return undefined;
  }
  const { slot } = move;
  const seat: Seat = { keys: context.keys, session: session.id, slot };
  const claim = runningClaim(context);
  const steps = move.kind === 'grant' ? grant(seat, claim) : takeOver(seat, claim, move.owner.index);
  const result = await sendGrant(context, { session, steps, slot, claim, progress });
  if (result.kind === 'again') return undefined; // Its answer was lost; the next look tells.
  if (result.kind !== 'refused') return result;
  if (result.obstacle === 'ticket') return adoptLate(context, session, progress);
  if (result.obstacle === 'session') return { kind: 'again' };
  if (result.obstacle === 'freeze') await untilThawed(context, result.key, progress);
  return undefined;
}

/** Does what somebody else's claim is due for, if it is still as it was seen. The next look tells. */
export async function tidy(context: RunContext, move: Tidy, signal: AbortSignal): Promise<void> {
  await trySend(context, tidying(context, move), signal);
}

function tidying({ deps, keys }: RunContext, { kind, owner, slot, strayLock }: Tidy): Step[] {
  const seen = { keys, slot, strayLock };
  switch (kind) {
    case 'notice':
      return notice(seen, missing(owner.claim, deps.clock.latest()), owner.index);
    case 'abandon':
      return abandon(seen, abandoned(owner.claim, deps.clock.latest()), owner.index);
    case 'remove':
      return drop(seen, owner.index);
    default:
      return assertNever(kind);
  }
}

/** The ticket is gone: perhaps because an earlier try, which was given up, arrived late and took a slot with it. */
async function adoptLate(context: RunContext, session: Session, progress: Progress): Promise<Turned> {
  const provedMs = context.deps.clock.monotonicMs();
  const { slots } = await readSlotsNow(context, progress);
  const mine = slots.find(
    ({ owner, lockedBy }) => owner?.claim.run === context.run.id && lockedBy === session.id,
  );
  if (!mine?.owner) return { kind: 'again' };
  return granted(context, session, { slot: mine.slot, owner: mine.owner, provedMs });
}
