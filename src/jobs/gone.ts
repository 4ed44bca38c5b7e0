/** Which runs of a job are provably gone: by who looks at it for long enough. Pure. */
import { VANISHED_AFTER_MS, readSlots } from '../lock/decide.ts';
import { decodeRun } from '../lock/records.ts';
import type { Slot } from '../lock/decide.ts';
import type { GroupKeys } from '../lock/keys.ts';
import type { SeenKey } from '../lock/transactions.ts';
import type { Entry } from '../consul/consul.ts';
import type { TargetDocument } from './documents.ts';
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
 * when the claim, or the run, changes; a host that reboots keeps its claim without a lock, and is counted without it.
 */
export function watchRuns(
  before: Watched,
  { targets, keys, entries }: RunsSeen,
  monotonicMs: number,
): Watched {
  const slots = readSlots(keys.base, entries);
  const seen = targets.flatMap(({ node, document }) => {
    const { run, state } = document ?? {};
    if (!document || run === undefined) return [];
    const evidence =
      state === 'running'
        ? whyGone(run, node, { slots, keys, entries })
        : rebootEnded({ ...document, run }, node, { keys, entries });
    if (!evidence) return [];
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
  /** What stands below the slots of the group and the marks of its nodes, and the last runs of those that reboot. */
  readonly entries: readonly Entry[];
}

/** Why a target that rebooted is lost. */
export const NOT_BOOTED =
  'its run asked for a reboot, and before its host had booted, its slot was cleared, or another run of the node took it';

/**
 * What proves that nobody waits for the reboot of a run any more: its claim, which only a clearing or the node's next run
 * ends, is gone, or another run of the node has ended since. Undefined: the host is to boot.
 */
export function rebootEnded(
  { state, run, holds, endedAt = '' }: Pick<TargetDocument, 'state' | 'holds' | 'endedAt'> & { run: string },
  node: string,
  { keys, entries }: Omit<RunsSeen, 'targets'>,
): SeenKey | undefined {
  if (state !== 'rebooting') return undefined;
  if (readSlots(keys.base, entries).some(({ owner }) => owner?.claim.run === run)) return undefined;
  const indexOf = (key: string) => entries.find((each) => each.key === key)?.modifyIndex ?? 0;
  const last = entries.find(({ key }) => key === keys.run(node));
  const record = last && decodeRun(last);
  if (record?.run === run) {
    const key = keys.owner(record.slot);
    return holds ? { key, index: indexOf(key) } : undefined;
  }
  const isLater = record !== undefined && Date.parse(record.endedAt) > Date.parse(endedAt);
  return holds || isLater ? { key: keys.run(node), index: last?.modifyIndex ?? 0 } : undefined;
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
