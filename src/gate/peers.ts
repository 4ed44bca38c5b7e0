/** Who else runs in a group: each of them can take its node out of service at any moment. */
import type { Consul, Entry, ReadOptions } from '../consul/consul.ts';
import type { WallClock } from '../platform/deps.ts';
import { parseKey } from '../lock/keys.ts';
import type { GroupKeys } from '../lock/keys.ts';
import { decodeClaim } from '../lock/records.ts';
import type { Claim } from '../lock/records.ts';
import { VANISHED_AFTER_MS, keepsOutForMs, markedMs, observe, readSlots } from '../lock/decide.ts';
import type { Sightings, Slot } from '../lock/decide.ts';

/** A group in which others may run at the same time. */
export interface GateGroup {
  readonly keys: GroupKeys;
  /** How many of its slots whoever looks may use. */
  readonly slots: number;
  /** Remembers, from one look to the next, since when claims have been without a lock. */
  readonly sight: (slots: readonly Slot[], monotonicMs: number) => Sightings;
}

export function gateGroup(keys: GroupKeys, slots: number): GateGroup {
  let sightings: Sightings = new Map();
  return { keys, slots, sight: (seen, monotonicMs) => (sightings = observe(sightings, seen, monotonicMs)) };
}

/** Nodes that count as offline because they run. */
export interface Running {
  /** Before a slot is asked for: all but the one for which a caller with one slot waits in the queue anyway. */
  readonly nodes: readonly string[];
  /** All of them: whoever is in the queue waits for these there. */
  readonly all: readonly string[];
  /** With the slot: the only ones that got theirs before `node` got its own. */
  readonly before: readonly string[];
  /** In so many milliseconds one of them counts no more, although nothing changes; Infinity: none. */
  readonly dueInMs: number;
}

/** Who runs in the group beside `node`; with `index` when that has changed. */
export async function readRunning(
  consul: Consul,
  { group, node, clock }: { group: GateGroup; node: string; clock: WallClock },
  options: ReadOptions,
): Promise<{ value: Running; index: number }> {
  const { keys } = group;
  const { entries, index } = await consul.list(keys.slotPrefix, { ...options, rule: keys.rule });
  const now = { nowMs: clock.earliest(), monotonicMs: clock.monotonicMs() };
  return { value: runningOf(entries, { group, node, ...now }), index };
}

interface Viewer {
  readonly group: GateGroup;
  readonly node: string;
  /** The earliest that it may be (`WallClock`): `held until` is judged by it. */
  readonly nowMs: number;
  readonly monotonicMs: number;
}

/** Pure, but for what the group remembers. */
export function runningOf(entries: readonly Entry[], viewer: Viewer): Running {
  const { group, node } = viewer;
  const { root } = group.keys;
  const slots = readSlots(root, entries);
  const sightings = group.sight(slots, viewer.monotonicMs);
  const claims = slots.flatMap((slot) => {
    if (!slot.owner) return [];
    const { claim } = slot.owner;
    const leftMs = countsForMs(claim, { ...slot, sinceMs: sightings.get(slot.slot)?.sinceMs }, viewer);
    return [{ ...claim, slot: slot.slot, leftMs, grantedAt: grantIndex(entries, { root, slot: slot.slot }) }];
  });
  const own = claims.find((claim) => claim.node === node);
  const others = claims.filter((claim) => claim.node !== node && claim.leftMs > 0);
  const before = others.filter(
    ({ state, grantedAt }) => own === undefined || state !== 'running' || grantedAt < own.grantedAt,
  );
  const beside = group.slots === 1 ? others.filter(({ slot }) => slot !== 0) : others;
  return {
    nodes: beside.map((claim) => claim.node),
    all: others.map((claim) => claim.node),
    before: before.map((claim) => claim.node),
    dueInMs: Math.min(Infinity, ...others.map(({ leftMs }) => leftMs)),
  };
}

/**
 * How long a command may be running behind a claim: as long as the claim keeps others out of its slot. A run that has
 * vanished keeps them out for its hold; whoever waits outside is not in the queue, where that would be marked.
 */
function countsForMs(
  claim: Claim,
  { lockedBy, sinceMs }: Pick<Slot, 'lockedBy'> & { sinceMs: number | undefined },
  { nowMs, monotonicMs }: Viewer,
): number {
  switch (claim.state) {
    case 'failed':
    case 'interrupted':
      return 0;
    case 'held':
    case 'rebooting':
    case 'abandoned':
      return keepsOutForMs(claim, nowMs);
    case 'running':
    case 'evicted':
      if (lockedBy !== undefined || sinceMs === undefined || claim.hold === 'forever') return Infinity;
      return (
        VANISHED_AFTER_MS +
        (claim.hold === 'none' ? 0 : claim.hold) -
        Math.max(monotonicMs - sinceMs, markedMs(claim, nowMs))
      );
  }
}

/**
 * When a running claim was granted, by Consul's index. One that its run took back is as old as its key: it was written
 * anew, and is no younger for that. A node that comes back to a claim that it kept has a new grant, in an old key.
 */
function grantIndex(entries: readonly Entry[], { root, slot }: { root: string; slot: number }): number {
  const entry = entries.find(({ key }) => {
    const kind = parseKey(root, key)?.key;
    return kind?.kind === 'owner' && kind.slot === slot;
  });
  if (!entry) return 0;
  return (decodeClaim(entry).returns ?? 0) > 0 ? entry.createIndex : entry.modifyIndex;
}
