/** A store that went back in time: a snapshot was restored, or the group was deleted by hand. */
import type { RunContext } from './context.ts';
import type { Progress } from './grant.ts';
import { ask } from './queue.ts';
import { VANISHED_AFTER_MS } from './slot.ts';

/**
 * Runs may be under way whose claims are gone. Each finds out by itself, with its next renewal at the latest, and claims
 * its slot again; whoever queues anew before that would start beside it. Who has waited before can tell: every ticket
 * leaves its index in `.tail`, which only grows. So who finds an older one waits for as long as anybody is believed
 * alive without a lock.
 */
export async function untilClaimedAgain(context: RunContext, progress: Progress): Promise<void> {
  const { consul, deps, keys } = context;
  const { newest } = progress;
  if (newest.index === 0) return;
  const { entry } = await consul.get(keys.tail, { ...ask(progress), rule: keys.rule });
  if (entry !== undefined && entry.modifyIndex >= newest.index) return;
  const why = `the keys of ${keys.group} were deleted or restored from a snapshot`;
  const then = `runs under way get ${VANISHED_AFTER_MS / 1_000}s to claim their slots again`;
  deps.log('warning', `${why}; ${then}`, { event: 'went-back', group: keys.group });
  await deps.clock.sleep(VANISHED_AFTER_MS, { signal: progress.either });
  newest.index = 0;
}
