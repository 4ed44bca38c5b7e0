/** Which runs of a job are provably gone: by who looks at it for long enough. Pure. */
import { VANISHED_AFTER_MS, readSlots } from '../lock/decide.ts';
import type { Slot } from '../lock/decide.ts';
import type { GroupKeys } from '../lock/keys.ts';
import type { SeenKey } from '../lock/transactions.ts';
import type { Entry } from '../consul/consul.ts';
import type { TargetView } from './view.ts';

/** What was seen of a run without a lock, and since when, on a clock that only moves forward, in milliseconds. */
export interface Missing {
  readonly run: string;
  /** What must not have changed: its claim, or the mark of its node where it has none (index 0: that is not there). */
  readonly evidence: SeenKey;
  readonly sinceMs: number;
}

export type Watched = ReadonlyMap<string, Missing>;

/**
 * Remembers since when each running target of a job has been without a lock in the home group. Counts from zero again
 * when the claim, or the run, changes; a host that reboots keeps its claim without a lock, and is not counted.
 * `entries`: what stands below the slots of the group and the marks of its nodes.
 */
export function watchRuns(
  before: Watched,
  { targets, keys, entries }: RunsSeen,
  monotonicMs: number,
): Watched {
  const slots = readSlots(keys.base, entries);
  const seen = targets.flatMap(({ node, document }) => {
    if (document?.state !== 'running') return [];
    const { run } = document;
    const evidence = run === undefined ? undefined : whyGone(run, node, { slots, keys, entries });
    if (run === undefined || !evidence) return [];
    const known = before.get(node);
    const isSame =
      known?.run === run && known.evidence.key === evidence.key && known.evidence.index === evidence.index;
    return [[node, isSame ? known : { run, evidence, sinceMs: monotonicMs }] as const];
  });
  return new Map(seen);
}

export interface RunsSeen {
  readonly targets: readonly TargetView[];
  /** Of the home group. */
  readonly keys: GroupKeys;
  readonly entries: readonly Entry[];
}

/** Undefined: the run has its lock, or another run of its node is under way, or the host reboots. */
function whyGone(
  run: string,
  node: string,
  { slots, keys, entries }: { slots: readonly Slot[]; keys: GroupKeys; entries: readonly Entry[] },
): SeenKey | undefined {
  const own = slots.find(({ owner }) => owner?.claim.run === run);
  if (own?.lockedBy !== undefined) return undefined;
  if (own?.owner) {
    const { claim, index } = own.owner;
    return claim.state === 'rebooting' || claim.state === 'held'
      ? undefined
      : { key: keys.owner(own.slot), index };
  }
  const mark = entries.find(({ key }) => key === keys.node(node));
  return mark?.session === undefined ? { key: keys.node(node), index: mark?.modifyIndex ?? 0 } : undefined;
}

/** The nodes whose runs are gone, by what was seen for long enough. */
export const goneRuns = (watched: Watched, monotonicMs: number): ReadonlyMap<string, Missing> =>
  new Map([...watched].filter(([, { sinceMs }]) => monotonicMs - sinceMs >= VANISHED_AFTER_MS));
