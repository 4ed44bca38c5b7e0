/** What the holder of a slot knows of it, and how it looks again. */
import { lookPast } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { Entry } from '../consul/consul.ts';
import type { Grant } from './grant.ts';
import type { Session } from '../consul/session.ts';
import { readSlots, standing } from './slot.ts';
import type { Owner, Slot, Standing } from './slot.ts';

/** What the holder of a slot knows of it now. */
export interface Holding extends Grant {
  readonly session: Session;
  readonly owner: Owner;
}

/** A lease while its run is under way. */
export interface Live {
  holding: Holding;
  /** When the last request that proved the lock mine was sent, in monotonic milliseconds. */
  provedMs: number;
  /** What was said to be wrong, and has not been said to be over. */
  trouble?: string;
  /** How often in a row the slot could not be seen, or not be taken back. */
  failures: number;
  /** When Consul's silence began, in monotonic milliseconds. */
  silentSinceMs?: number;
  /** How often in a row the slot could not be taken back because somebody else has its lock, or the node's mark. */
  refusals?: number;
  /** The slot is being taken back. */
  recovering?: boolean;
  /** A claim was sent under the present session, and nobody knows whether it will still arrive. */
  unanswered?: boolean;
  readonly ttlMs: number;
  /** The run is over, or gives up: the watch sees and does nothing any more. */
  isOver: boolean;
  /** Ends what the watch waits for. */
  readonly ended: AbortSignal;
}

/** A read of the slot; waits for a change past `index` (0: not at all). A look that finds all as it should be is a proof. */
export async function look(live: Live, index: number): Promise<{ standing: Standing; index: number }> {
  const { context, slot, session } = live.holding;
  const { consul, deps, keys, run } = context;
  const sentMs = deps.clock.monotonicMs();
  const signal = AbortSignal.any([live.ended, session.lost]);
  // With a hold that ends, the reads are the proofs. One counts from when it was sent, so it is as old as its wait when
  // it comes, and twice as old before the next one does: half of the time between renewals keeps it younger than that.
  const waitMs = run.hold === 'forever' ? undefined : live.ttlMs / 6;
  const read = (past: Past) =>
    consul.list(keys.slot(slot), { ...past, signal, retryForMs: 0, rule: keys.rule });
  try {
    const seen = await lookPast(read, index, waitMs);
    const now = standingOf(live.holding, seen.entries);
    if (now.kind === 'mine') live.provedMs = sentMs;
    return { standing: now, index: seen.index };
  } catch (error) {
    if (!session.lost.aborted || live.ended.aborted) throw error;
    return { standing: { kind: 'unlocked', owner: live.holding.owner }, index: 0 };
  }
}

/** Whatever somebody wrote there by hand that is no claim is, above all, not mine. */
function standingOf({ context, session }: Holding, entries: readonly Entry[]): Standing {
  const { node, id } = context.run;
  let slot: Slot | undefined;
  try {
    [slot] = readSlots(context.keys.root, entries);
  } catch {
    return { kind: 'foreign' };
  }
  return standing({ node, run: id, session: session.id }, slot);
}
