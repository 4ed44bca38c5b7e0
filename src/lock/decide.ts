/**
 * Reads slots and claims, judges how a slot looks to the run that holds it, and decides what a waiting run does about
 * the claims it sees. Pure; transactions.ts has the transactions that carry the decisions out.
 */
import type { Entry } from '../consul/consul.ts';
import { assertNever } from '../errors.ts';
import { isSameBoot } from '../platform/deps.ts';
import { ended, decodeClaim } from './records.ts';
import { parseKey } from './keys.ts';
import type { Claim, Hold, Runner } from './records.ts';

/**
 * The run of a claim is believed dead when the claim has been unchanged and without a lock for this long: either by the
 * clock of a process that watched it all this time, or since the time marked in the claim.
 */
export const VANISHED_AFTER_MS = 60_000;

/**
 * `held until` and `missing since` are written by one host's clock and read by another's; they may differ by this
 * much.
 */
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
  /** The claim's ModifyIndex, which every change of the claim increases. */
  readonly index: number;
}

/** The slots that have any key, by number. @param prefix of all groups, or of the one (`GroupKeys.base`). */
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

/**
 * For each slot: since when (monotonic, milliseconds) its claim has been seen without a lock, and the claim's index.
 */
export type Sightings = ReadonlyMap<number, { readonly index: number; readonly sinceMs: number }>;

/** Remembers how long each running claim has been without a lock. Counts from zero again when a claim changes. */
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

/** The running claims without a lock that are not yet marked as missing theirs. */
export const unnoticed = (slots: readonly Slot[]): (Slot & { readonly owner: Owner })[] =>
  slots.flatMap((slot) => {
    const { owner, lockedBy } = slot;
    const isNew = owner && mayVanish(owner.claim) && owner.claim.missingSince === undefined;
    return isNew && lockedBy === undefined ? [{ ...slot, owner }] : [];
  });

/** The claim, marked as missing its lock since `nowMs`: the latest possible time now (`WallClock`). */
export const missing = (claim: Claim, nowMs: number): Claim => ({
  ...claim,
  missingSince: new Date(nowMs).toISOString(),
});

/**
 * How long ago a running claim was marked as missing its lock. `nowMs`: the earliest possible time now (`WallClock`).
 */
export const markedMs = ({ missingSince }: Claim, nowMs: number): number =>
  missingSince === undefined ? 0 : nowMs - Date.parse(missingSince) - CLOCK_DIFFERENCE_MS;

function mayVanish(claim: Claim): boolean {
  return claim.state === 'running' || claim.state === 'evicted';
}

/** Whether a run left this claim when it ended: its command and all that the command had started are gone. */
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

/**
 * Whether claims without a session keep out a run that uses `count` slots: no run's end gives it a slot, only time, those
 * claims' nodes or an operator.
 */
export const isBlocked = (slots: readonly Slot[], count: number): boolean =>
  slots.filter(({ owner, lockedBy }) => owner !== undefined && lockedBy === undefined).length >= count;

/** Whether the command may still be running although the claim has no session. */
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
 * Whether the two are on different machines, as far as their records tell. The same boot id (boot and namespaces)
 * means the same machine. A machine-id distinguishes machines, and also containers on one host. Two machines that
 * share a machine-id (copies of an image) look like one machine that was rebooted.
 */
export function isElsewhere(me: Runner, other: Runner): boolean {
  if (me.bootId === other.bootId) return false;
  if (me.machine !== undefined && other.machine !== undefined) return me.machine !== other.machine;
  if (isSameBoot(me.bootId, other.bootId)) return false;
  return me.host !== undefined && other.host !== undefined && me.host !== other.host;
}

/**
 * Whether the claim is the node's own, and not that of a run that may be under way on another machine with the same
 * node name. A claim whose run has ended belongs to its node wherever the run was, because a control host runs for
 * many nodes.
 */
export const isOwn = (me: { readonly node: string; readonly runner: Runner }, claim: Claim): boolean =>
  claim.node === me.node && (isLeft(claim) || !isElsewhere(me.runner, claim));

/** Whether `acquire` holds the claim. `nowMs`: the earliest possible time now (`WallClock`). */
export function isHeld({ state, heldUntil }: Claim, nowMs: number): boolean {
  return state === 'held' && (heldUntil === undefined || nowMs < Date.parse(heldUntil));
}

/**
 * When a hold that begins at `nowMs` ends and others may follow. `nowMs`: the latest possible time now (`WallClock`).
 */
export const holdFrom = (hold: Hold, nowMs: number): Pick<Claim, 'heldUntil'> =>
  typeof hold === 'number' ? { heldUntil: new Date(nowMs + hold).toISOString() } : {};

/**
 * How much longer a claim keeps others out; zero or less: they may follow. `nowMs`: the earliest possible time now
 * (`WallClock`).
 */
export const keepsOutForMs = ({ heldUntil }: Pick<Claim, 'heldUntil'>, nowMs: number): number =>
  heldUntil === undefined ? Infinity : Date.parse(heldUntil) + CLOCK_DIFFERENCE_MS - nowMs;

/**
 * The claim of a vanished run. Its hold begins at `nowMs`, when it is marked: the latest possible time now
 * (`WallClock`).
 */
export function abandoned(claim: Claim, nowMs: number): Claim {
  const since = new Date(nowMs).toISOString();
  const marked: Claim & { missingSince?: string } = {
    ...ended(claim),
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
  /** The claim is this run's, but the lock is not: the session is gone, or somebody deleted the lock. */
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

/** What the first run in the queue does about the slots it sees. */
export type Move =
  /** This run has the slot already: the answer to its grant was lost. */
  | { readonly kind: 'adopt'; readonly slot: number; readonly owner: Owner }
  /** This node owns a slot, or locks one whose claim is gone: acquire starts again, with the node's own claim first. */
  | { readonly kind: 'return' }
  | Choice;

/** What a run can do now. */
export type Choice =
  /** The slot is free. */
  | { readonly kind: 'grant'; readonly slot: number }
  | About<'take-over'>
  | Tidy
  /** `forMs`: until time alone can change the decision; absent: only a change of the slots can. */
  | { readonly kind: 'wait'; readonly forMs?: number };

/** A step that moves another run's claim forward. This does not reserve the slot for the run that takes the step. */
export type Tidy =
  /** The run's lock is missing: record this in the claim, with the time. */
  | About<'notice'>
  /** The run has vanished: mark the claim as abandoned, so that its hold begins now. */
  | About<'abandon'>
  /** The hold has ended, in a slot that can't be taken over: remove the claim, so that it no longer counts. */
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
  /** The earliest possible time now (`WallClock`), to compare with `heldUntil`. */
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

/** Decides for the first run in the queue, which uses slots 0 to `slots` - 1. */
export function decide(me: Waiter, seen: Seen): Move {
  const mine = seen.slots.find(({ owner }) => owner && isOwn(me, owner.claim));
  if (mine?.owner) {
    const granted = mine.owner.claim.run === me.run && mine.lockedBy === me.session;
    return granted ? { kind: 'adopt', slot: mine.slot, owner: mine.owner } : { kind: 'return' };
  }
  // The answer to a grant was lost, and its claim was deleted: the run must not wait for its own lock.
  if (seen.slots.some(({ lockedBy }) => lockedBy === me.session)) return { kind: 'return' };
  return choose(me.slots, seen.slots, { seen, mayTakeOver: true });
}

/**
 * Decides for a node's next run whose claim is in slot `own`, which the run does not use. The claim moves to a slot
 * that the run uses (`grant`) as soon as the first run in the queue could get it. All other claims count, except
 * silent ones in slots above `own`: if two claims have to move down, the lower one goes first, because otherwise each
 * would wait for the other.
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
 * What to do about the claim of a run that may be under way on another machine with this node's name. `take-over`:
 * any node may follow, so this node may queue too. Otherwise this node is busy.
 */
export function judgeElsewhere(slot: Slot, seen: Seen): 'take-over' | 'wait' | Tidy {
  const verdict = consider(slot, seen);
  return verdict.kind === 'take-over' || verdict.kind === 'wait' ? verdict.kind : verdict;
}

/** A lock key without a session does not take a slot. */
export const isTaken = ({ owner, lockedBy }: Slot): boolean => owner !== undefined || lockedBy !== undefined;

/**
 * Chooses a slot below `count`, if fewer than `count` slots are taken in the whole group. Higher slots are
 * counted too: otherwise a run that allows fewer slots would ignore a claim in a higher slot (docs/adr/0018).
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
  // A claim past its hold counts until it is removed: its node may take it back between this read and the grant.
  const isFull = taken.length - (there && mayTakeOver ? 1 : 0) >= count;
  if (isFull && highest) return { ...highest, kind: 'remove' };
  return there ?? { kind: 'grant', slot };
}

/** The lowest slot without a claim that keeps others out. It is at most the number of those claims. */
function lowestBeside(keeping: readonly Slot[]): number {
  const keeps = new Set(keeping.map(({ slot }) => slot));
  let slot = 0;
  while (keeps.has(slot)) slot++;
  return slot;
}

/** What to do about a claim, now or in `forMs`. */
type Verdict =
  | Due
  | About<'notice'>
  | { readonly kind: 'wait'; readonly forMs: number; readonly then: Due['kind'] }
  | { readonly kind: 'wait'; readonly forMs?: never };

type Due = About<'take-over'> | About<'abandon'>;

/** No slot is available until `more` + 1 claims are past their holds. Meanwhile, mark the claims of vanished runs. */
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

/** How long the claim has been without its lock, as far as this run knows. */
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

/** Whether the claim's command has ended or its run has vanished: as far as anyone can tell, nothing is running. */
function isSilent(candidate: Slot, seen: Seen): boolean {
  const { owner, lockedBy } = candidate;
  if (!owner || lockedBy !== undefined) return false;
  const { state } = owner.claim;
  if (state === 'running' || state === 'evicted')
    return missingMs(candidate, owner, seen) >= VANISHED_AFTER_MS;
  return state === 'abandoned' || isLeft(owner.claim);
}
