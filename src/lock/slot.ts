/** Slots and claims as they are read, and how they look to whoever holds one. Pure; decide.ts has what is done about them. */
import type { Entry } from '../consul/consul.ts';
import { assertNever } from '../errors.ts';
import { decodeClaim } from './records.ts';
import { parseKey } from './keys.ts';
import type { Claim, Runner } from './records.ts';

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

const bootOf = (bootId: string) => bootId.split(' ')[0];

/**
 * Whether the two are on different machines, as far as they say. Where both see the same pids, they are on one. A machine-id
 * tells machines apart, and containers of one host, too; two machines that share one (copies of an image) can't be told from one that was booted again.
 */
export function isElsewhere(me: Runner, other: Runner): boolean {
  if (me.bootId === other.bootId) return false;
  if (me.machine !== undefined && other.machine !== undefined) return me.machine !== other.machine;
  if (bootOf(me.bootId) === bootOf(other.bootId)) return false;
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

/** The claim of a run that has vanished: its hold begins when it is marked, at the latest that it may be (`WallClock`). */
export function abandoned(claim: Claim, nowMs: number): Claim {
  const until =
    typeof claim.hold === 'number' ? { heldUntil: new Date(nowMs + claim.hold).toISOString() } : {};
  const marked: Claim & { missingSince?: string } = {
    ...claim,
    state: 'abandoned',
    since: new Date(nowMs).toISOString(),
    ...until,
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
