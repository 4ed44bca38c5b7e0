/** An operator's stop sign on a group or one of its ancestors. */
import type { RunContext } from './context.ts';
import { trySend } from './grant.ts';
import type { Progress } from './grant.ts';
import { decodeFreeze } from './records.ts';
import { ask } from './queue.ts';
import { removeSeen } from './transactions.ts';

/** Waits until the freeze at `key` is gone; the first to meet one past its end deletes it. */
export async function untilThawed(context: RunContext, key: string, progress: Progress): Promise<void> {
  const { consul, deps, keys } = context;
  let index: number | undefined;
  for (;;) {
    const limits = index === undefined ? ask(progress) : { signal: progress.either, index };
    const seen = await consul.get(key, { ...limits, rule: keys.rule });
    if (!seen.entry) return;
    const freeze = decodeFreeze(seen.entry);
    const leftMs = freeze.until === undefined ? Infinity : Date.parse(freeze.until) - deps.clock.earliest();
    if (leftMs <= 0) {
      await trySend(context, removeSeen(key, seen.entry.modifyIndex, 'freeze'), progress.signal);
      return;
    }
    progress.blocked = { kind: 'frozen', key, freeze };
    progress.patience.throwIfAborted();
    index = seen.entry.modifyIndex;
  }
}
