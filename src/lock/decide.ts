/** What a run does about the slots it sees. Pure decisions; their transactions are in transactions.ts. */
import { assertNever } from '../errors.ts';
import type { Runner } from './records.ts';
import { CLOCK_DIFFERENCE_MS, VANISHED_AFTER_MS, isLeft, isOwn, markedMs } from './slot.ts';
import type { Owner, Sightings, Slot } from './slot.ts';

/** What the first in the queue does about the slots it sees. */
export type Move =
  /** The slot is this run's already: the grant's answer was lost. */
  | { readonly kind: 'adopt'; readonly slot: number; readonly owner: Owner }
  /** This node owns a slot, or has the lock of one whose claim is gone: all starts anew, its own claim first. */
  | { readonly kind: 'return' }
  | Choice;

/** What can be had, or done, now. */
export type Choice =
  /** The slot is free. */
  | { readonly kind: 'grant'; readonly slot: number }
  | About<'take-over'>
  | Tidy
  /** `forMs`: until something can become due by itself; absent when only a change helps. */
  | { readonly kind: 'wait'; readonly forMs?: number };

/** What is done about a claim, whoever gets a slot by that. */
export type Tidy =
  /** The run's lock is missing: that is written down, and since when. */
  | About<'notice'>
  /** The run has vanished; its hold begins now. */
  | About<'abandon'>
  /** The claim is past its hold, and stands where it can't be taken over: it goes, and counts no more. */
  | About<'remove'>;

interface About<Kind> {
  readonly kind: Kind;
  readonly slot: number;
  readonly owner: Owner;
  readonly strayLock?: number;
}

export interface Seen {
  readonly slots: readonly Slot[];
  readonly sightings: Sightings;
  /** The earliest that it may be (`WallClock`): `held until` is judged by it. */
  readonly nowMs: number;
  readonly monotonicMs: number;
}

export interface Waiter {
  readonly node: string;
  readonly runner: Runner;
  readonly run: string;
  readonly session: string;
  readonly slots: number;
}

/** Decides as the first in the queue, for a run that uses slots 0 to `slots` - 1. */
export function decide(me: Waiter, seen: Seen): Move {
  const mine = seen.slots.find(({ owner }) => owner && isOwn(me, owner.claim));
  if (mine?.owner) {
    const granted = mine.owner.claim.run === me.run && mine.lockedBy === me.session;
    return granted ? { kind: 'adopt', slot: mine.slot, owner: mine.owner } : { kind: 'return' };
  }
  // A grant whose answer was lost, and whose claim somebody deleted: its own lock must not keep it waiting.
  if (seen.slots.some(({ lockedBy }) => lockedBy === me.session)) return { kind: 'return' };
  return choose(me.slots, seen.slots, { seen, mayTakeOver: true });
}

/**
 * Decides for a node's next run whose claim stands in slot `own`, which it does not use: it moves to one that it does
 * (`grant`) as soon as the first in the queue might have that. It counts all others, but for those above its own of which
 * nothing has been heard for long: of two claims that stand too high the lower one goes first, else each would wait for
 * the other.
 */
export function decideDown(
  { own, slots }: { own: number; slots: number },
  seen: Seen,
): Exclude<Choice, { kind: 'take-over' }> {
  const others = seen.slots.filter(({ slot }) => slot !== own);
  const counted = others.filter((other) => other.slot < own || !isSilent(other, seen));
  const choice = choose(slots, counted, { seen, mayTakeOver: false });
  return choice.kind === 'take-over' ? { ...choice, kind: 'remove' } : choice;
}

/**
 * What becomes of the claim of a run that may be under way on another machine with this node's name. `take-over`: anybody
 * may follow, so this node may queue for it as well. Else it is busy.
 */
export function judgeElsewhere(slot: Slot, seen: Seen): 'take-over' | 'wait' | Tidy {
  const verdict = consider(slot, seen);
  return verdict.kind === 'take-over' || verdict.kind === 'wait' ? verdict.kind : verdict;
}

/** A lock key that no session holds takes no slot. */
export const isTaken = ({ owner, lockedBy }: Slot): boolean => owner !== undefined || lockedBy !== undefined;

/**
 * A slot below `count`, while fewer than `count` are taken in the whole group, wherever they are: else a run with a
 * smaller N would pass a claim that was kept beyond it (docs/adr/0018).
 */
function choose(
  count: number,
  slots: readonly Slot[],
  { seen, mayTakeOver }: { seen: Seen; mayTakeOver: boolean },
): Choice {
  const taken = slots.filter(isTaken).sort((a, b) => a.slot - b.slot);
  const verdicts = taken.map((slot) => consider(slot, seen));
  const overdue = verdicts.filter((verdict) => verdict.kind === 'take-over');
  const keeping = taken.filter((_, i) => verdicts[i]?.kind !== 'take-over');
  if (keeping.length >= count) return whileFull(verdicts, keeping.length - count);
  const slot = lowestBeside(keeping);
  const there = overdue.find((candidate) => candidate.slot === slot);
  const highest = overdue.findLast((candidate) => candidate !== there);
  // What is past its hold counts until it is gone: its node may come back to it between this look and the grant.
  const isFull = taken.length - (there && mayTakeOver ? 1 : 0) >= count;
  if (isFull && highest) return { ...highest, kind: 'remove' };
  return there ?? { kind: 'grant', slot };
}

/** It is below their number, or at it. */
function lowestBeside(keeping: readonly Slot[]): number {
  const keeps = new Set(keeping.map(({ slot }) => slot));
  let slot = 0;
  while (keeps.has(slot)) slot++;
  return slot;
}

/** What becomes of a claim, now or in `forMs`. */
type Verdict =
  | Due
  | About<'notice'>
  | { readonly kind: 'wait'; readonly forMs: number; readonly then: Due['kind'] }
  | { readonly kind: 'wait'; readonly forMs?: never };

type Due = About<'take-over'> | About<'abandon'>;

/** Nothing is to be had before one claim, and `more`, are past their holds. What has vanished is marked meanwhile. */
function whileFull(verdicts: readonly Verdict[], more: number): Choice {
  const vanished = verdicts.find((verdict) => verdict.kind === 'abandon');
  if (vanished) return vanished;
  const unseen = verdicts.find((verdict) => verdict.kind === 'notice');
  if (unseen) return unseen;
  const dueInMs = (what: Due['kind']) =>
    verdicts
      .flatMap((verdict) => ('then' in verdict && verdict.then === what ? [verdict.forMs] : []))
      .sort((a, b) => a - b);
  const enough = dueInMs('take-over')[more];
  const waits = [...dueInMs('abandon'), ...(enough === undefined ? [] : [enough])];
  return waits.length === 0 ? { kind: 'wait' } : { kind: 'wait', forMs: Math.min(...waits) };
}

function consider(candidate: Slot, seen: Seen): Verdict {
  const { lockedBy, owner } = candidate;
  if (lockedBy !== undefined || !owner) return { kind: 'wait' };
  switch (owner.claim.state) {
    case 'running':
    case 'evicted':
      return considerVanished(candidate, owner, seen);
    case 'failed':
    case 'interrupted':
    case 'rebooting':
    case 'held':
    case 'abandoned':
      return considerHeld(candidate, owner, seen.nowMs);
    default:
      return assertNever(owner.claim.state);
  }
}

function considerVanished(candidate: Slot, owner: Owner, seen: Seen): Verdict {
  const isNext = owner.claim.hold === 'none';
  const then = isNext ? 'take-over' : 'abandon';
  const forMs = VANISHED_AFTER_MS - missingMs(candidate, owner, seen);
  if (forMs <= 0) return isNext ? about('take-over', candidate, owner) : about('abandon', candidate, owner);
  const isMarked = owner.claim.missingSince !== undefined;
  return isMarked ? { kind: 'wait', forMs, then } : about('notice', candidate, owner);
}

/** For how long it has been without its lock, as far as is known. */
function missingMs({ slot }: Slot, { claim, index }: Owner, { sightings, monotonicMs, nowMs }: Seen): number {
  const sighting = sightings.get(slot);
  const seenMs = sighting?.index === index ? monotonicMs - sighting.sinceMs : 0;
  return Math.max(seenMs, markedMs(claim, nowMs));
}

function considerHeld(candidate: Slot, owner: Owner, nowMs: number): Verdict {
  const { heldUntil } = owner.claim;
  if (heldUntil === undefined) return { kind: 'wait' };
  const forMs = Date.parse(heldUntil) + CLOCK_DIFFERENCE_MS - nowMs;
  return forMs > 0 ? { kind: 'wait', forMs, then: 'take-over' } : about('take-over', candidate, owner);
}

const about = <Kind extends string>(kind: Kind, { slot, strayLock }: Slot, owner: Owner): About<Kind> => ({
  kind,
  slot,
  owner,
  ...(strayLock !== undefined && { strayLock }),
});

/** Its command has ended, or nobody has heard of its run for long: it does not run, as far as anybody can tell. */
function isSilent(candidate: Slot, seen: Seen): boolean {
  const { owner, lockedBy } = candidate;
  if (!owner || lockedBy !== undefined) return false;
  const { state } = owner.claim;
  if (state === 'running' || state === 'evicted')
    return missingMs(candidate, owner, seen) >= VANISHED_AFTER_MS;
  return state === 'abandoned' || isLeft(owner.claim);
}
