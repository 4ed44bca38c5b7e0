/** Finds which other nodes run in a group: each of these can go out of service at any moment. */
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
  /** How many of its slots the asking run may use. */
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
  /**
   * To count before asking for a slot: all, except the node in slot 0 if the run has one slot and will queue for it
   * anyway.
   */
  readonly nodes: readonly string[];
  /** All of them: a run in the queue waits for these nodes there. */
  readonly all: readonly string[];
  /** To count once `node` has its slot: only the nodes that got their slots before it. */
  readonly before: readonly string[];
  /** After how many milliseconds one of them stops counting without any change in Consul; Infinity: never. */
  readonly dueInMs: number;
}

/** Reads which nodes other than `node` run in the group; with `index`, waits for a change first. */
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
  /** The earliest possible time now (`WallClock`), to compare with `heldUntil`. */
  readonly nowMs: number;
  readonly monotonicMs: number;
}

/** Pure, except for what `group.sight` remembers. */
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
 * How much longer a command may be running under a claim: as long as the claim keeps others out of its slot. For a
 * vanished run this includes its hold, counted here, because a node that waits outside the queue does not mark the
 * claim as abandoned.
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
 * When a running claim was granted, as an index of Consul. If the run took its own claim back, the claim was
 * rewritten but is as old as its key. If a node's next run took back a kept claim, the key is old but the grant is
 * new.
 */
function grantIndex(entries: readonly Entry[], { root, slot }: { root: string; slot: number }): number {
  const entry = entries.find(({ key }) => {
    const kind = parseKey(root, key)?.key;
    return kind?.kind === 'owner' && kind.slot === slot;
  });
  if (!entry) return 0;
  return (decodeClaim(entry).returns ?? 0) > 0 ? entry.createIndex : entry.modifyIndex;
}
