/**
 * Slots and claims as they are read, how they look to whoever holds one, and what a run does about those it sees. Pure; the
 * transactions of what is decided here are in transactions.ts.
 */
import type { Entry } from '../consul/consul.ts';
import { assertNever } from '../errors.ts';
import { isSameBoot } from '../platform/deps.ts';
import { decodeClaim } from './records.ts';
import { parseKey } from './keys.ts';
import type { Claim, Hold, Runner } from './records.ts';

/**
 * A claim without a lock is believed dead after it was so, unchanged, for this long: on the own clock of whoever watched it
 * all the time, or since somebody marked it.
 */
export const VANISHED_AFTER_MS = 60_000;

/** `held until` and `missing since` are written by one host's clock and read by another's; they may differ by this much. */
export const CLOCK_DIFFERENCE_MS = 5_000;

export interface Slot {
  readonly slot: number;
  /** The session that holds the lock. */
  readonly lockedBy?: string;
  /** The index of a lock key that no session holds: left by a hand, or restored from an export. */
  readonly strayLock?: number;
  readonly owner?: Owner;
}

export interface Owner {
  readonly claim: Claim;
  /** The claim's ModifyIndex: any change of it is seen. */
  readonly index: number;
}

/** The slots that have any key, by number. */
export function readSlots(prefix: string, entries: readonly Entry[]): Slot[] {
  const slots = new Map<number, Slot>();
  for (const entry of entries) {
    const key = parseKey(prefix, entry.key)?.key;
    if (key?.kind !== 'lock' && key?.kind !== 'owner') continue;
    const slot = slots.get(key.slot) ?? { slot: key.slot };
    slots.set(key.slot, key.kind === 'lock' ? withLock(slot, entry) : withOwner(slot, entry));
  }
  return [...slots.values()].sort((a, b) => a.slot - b.slot);
}

function withLock(slot: Slot, entry: Entry): Slot {
  return entry.session === undefined
    ? { ...slot, strayLock: entry.modifyIndex }
    : { ...slot, lockedBy: entry.session };
}

function withOwner(slot: Slot, entry: Entry): Slot {
  return { ...slot, owner: { claim: decodeClaim(entry), index: entry.modifyIndex } };
}

/** Since when (monotonic, milliseconds) each claim was seen without a lock, and at which index. */
export type Sightings = ReadonlyMap<number, { readonly index: number; readonly sinceMs: number }>;

/** Remembers how long each running claim has been without a lock; a changed claim starts anew. */
export function observe(before: Sightings, slots: readonly Slot[], monotonicMs: number): Sightings {
  const seen = slots.flatMap(({ slot, owner, lockedBy }) => {
    if (!owner || lockedBy !== undefined || !mayVanish(owner.claim)) return [];
    const known = before.get(slot);
    return [
      [slot, known?.index === owner.index ? known : { index: owner.index, sinceMs: monotonicMs }] as const,
    ];
  });
  return new Map(seen);
}

/** The running claims without a lock of which nobody has said so yet. */
export const unnoticed = (slots: readonly Slot[]): (Slot & { readonly owner: Owner })[] =>
  slots.flatMap((slot) => {
    const { owner, lockedBy } = slot;
    const isNew = owner && mayVanish(owner.claim) && owner.claim.missingSince === undefined;
    return isNew && lockedBy === undefined ? [{ ...slot, owner }] : [];
  });

/** The claim of a run whose lock is missing. `nowMs`: the latest that it may be (`WallClock`). */
export const missing = (claim: Claim, nowMs: number): Claim => ({
  ...claim,
  missingSince: new Date(nowMs).toISOString(),
});

/** For how long the lock of a running claim has been missing since it was marked, by the earliest that it may be now. */
export const markedMs = ({ missingSince }: Claim, nowMs: number): number =>
  missingSince === undefined ? 0 : nowMs - Date.parse(missingSince) - CLOCK_DIFFERENCE_MS;

function mayVanish(claim: Claim): boolean {
  return claim.state === 'running' || claim.state === 'evicted';
}

/** Whether a run that has given its slot back left the claim: its command is gone, and all that it had started. */
export function isLeft({ state }: Claim): boolean {
  switch (state) {
    case 'failed':
    case 'interrupted':
    case 'rebooting':
      return true;
    case 'running':
    case 'evicted':
    case 'abandoned':
    case 'held':
      return false;
    default:
      return assertNever(state);
  }
}

/** Whether the command may still run although no session stands behind the claim. */
export function mayStillRun(state: Claim['state']): boolean {
  switch (state) {
    case 'running':
    case 'evicted':
    case 'abandoned':
      return true;
    case 'failed':
    case 'interrupted':
    case 'rebooting':
    case 'held':
      return false;
    default:
      return assertNever(state);
  }
}

/**
 * Whether the two are on different machines, as far as they say. Where both see the same pids, they are on one. A machine-id
 * tells machines apart, and containers of one host, too; two machines that share one (copies of an image) can't be told from one that was booted again.
 */
export function isElsewhere(me: Runner, other: Runner): boolean {
  if (me.bootId === other.bootId) return false;
  if (me.machine !== undefined && other.machine !== undefined) return me.machine !== other.machine;
  if (isSameBoot(me.bootId, other.bootId)) return false;
  return me.host !== undefined && other.host !== undefined && me.host !== other.host;
}

/**
 * Whether the claim is the node's own, and not that of somebody who may be at work on another machine with its name. What
 * has ended is its node's wherever it ran: a control host runs for many nodes.
 */
export const isOwn = (me: { readonly node: string; readonly runner: Runner }, claim: Claim): boolean =>
  claim.node === me.node && (isLeft(claim) || !isElsewhere(me.runner, claim));

/** Whether the claim is one that `acquire` holds. `nowMs`: the earliest that it may be (`WallClock`). */
export function isHeld({ state, heldUntil }: Claim, nowMs: number): boolean {
  return state === 'held' && (heldUntil === undefined || nowMs < Date.parse(heldUntil));
}

/** When others may follow, for a claim that keeps them out from `nowMs` on: the latest that it may be (`WallClock`). */
export const holdFrom = (hold: Hold, nowMs: number): Pick<Claim, 'heldUntil'> =>
  typeof hold === 'number' ? { heldUntil: new Date(nowMs + hold).toISOString() } : {};

/** For how long a claim keeps others out yet, not above zero when they may follow. `nowMs`: the earliest that it may be (`WallClock`). */
export const keepsOutForMs = ({ heldUntil }: Pick<Claim, 'heldUntil'>, nowMs: number): number =>
  heldUntil === undefined ? Infinity : Date.parse(heldUntil) + CLOCK_DIFFERENCE_MS - nowMs;

/** The claim of a run that has vanished: its hold begins when it is marked, at the latest that it may be (`WallClock`). */
export function abandoned(claim: Claim, nowMs: number): Claim {
  const since = new Date(nowMs).toISOString();
  const marked: Claim & { missingSince?: string } = {
    ...claim,
    state: 'abandoned',
    since,
    ...holdFrom(claim.hold, nowMs),
  };
  delete marked.missingSince;
  return marked;
}

/** How a slot looks to the run that holds it. */
export type Standing =
  | { readonly kind: 'mine'; readonly owner: Owner }
  /** The claim is mine, the lock is not: the session is gone, or somebody deleted the lock. */
  | { readonly kind: 'unlocked'; readonly owner: Owner }
  | { readonly kind: 'evicted'; readonly owner: Owner }
  | { readonly kind: 'gone' }
  | { readonly kind: 'foreign'; readonly owner?: Owner };

/** `slot` undefined: none of its keys exist. */
export function standing(
  me: { node: string; run: string; session: string },
  slot: Slot | undefined,
): Standing {
  const owner = slot?.owner;
  if (!owner) return { kind: 'gone' };
  if (owner.claim.node !== me.node || owner.claim.run !== me.run) return { kind: 'foreign', owner };
  if (owner.claim.state === 'evicted') return { kind: 'evicted', owner };
  const { state, missingSince } = owner.claim;
  const isWhole = slot.lockedBy === me.session && state === 'running' && missingSince === undefined;
  if (!isWhole) return { kind: 'unlocked', owner };
  return { kind: 'mine', owner };
}

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
  const forMs = keepsOutForMs(owner.claim, nowMs);
  if (forMs === Infinity) return { kind: 'wait' };
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
