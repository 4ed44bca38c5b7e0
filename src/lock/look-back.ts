/**
 * What a run that lost its place in the queue has to know before it joins anew: whether an operator sent it away, and whether
 * the store went back in time.
 */
import type { Entry } from '../consul/consul.ts';
import type { RunContext } from './context.ts';
import { trySend } from './grant.ts';
import type { Progress } from './grant.ts';
import { ask } from './queue.ts';
import { decodeNodeMark } from './records.ts';
import type { Away } from './records.ts';
import { VANISHED_AFTER_MS } from './slot.ts';
import { readLeft, removeSeen } from './transactions.ts';

/** Gives who sent this run away; undefined: it may join. Costs a run that never lost its place nothing. */
export async function lookBack(context: RunContext, progress: Progress): Promise<Away | undefined> {
  const { consul, keys, run } = context;
  if (!progress.newest.sent) return undefined;
  const entries = await consul.readAll(
    readLeft(keys, run.node).map((step) => step.operation),
    { ...ask(progress), rule: keys.rule },
  );
  const away = await sentAway(context, entries, progress.signal);
  if (!away) await untilClaimedAgain(context, progress, entries);
  return away;
}

/** The operator who sent this very run away. Its mark goes: it has been read. */
async function sentAway(
  context: RunContext,
  entries: readonly Entry[],
  signal: AbortSignal,
): Promise<Away | undefined> {
  const { keys, run } = context;
  const key = keys.node(run.node);
  const entry = entries.find((each) => each.key === key);
  const mark = entry?.session === undefined ? readMark(entry) : undefined;
  if (!entry || !mark?.away || mark.run !== run.id) return undefined;
  // What can't be removed goes with the node's next run.
  await trySend(context, removeSeen(key, entry.modifyIndex, 'node'), signal);
  return mark.away;
}

/** What a hand wrote there stands in nobody's way: the next mark takes its place. */
function readMark(entry: Entry | undefined) {
  try {
    return entry && decodeNodeMark(entry);
  } catch {
    return undefined;
  }
}

/**
 * After a snapshot was restored, or the group was deleted by hand, runs may be under way whose claims are gone. Each finds
 * out by itself, with its next renewal at the latest, and claims its slot again; whoever queues anew before that would start
 * beside it. Who has waited before can tell: every ticket leaves its index in `.tail`, which only grows. So who finds an older
 * one waits for as long as anybody is believed alive without a lock.
 */
async function untilClaimedAgain(
  { deps, keys }: RunContext,
  { newest, either }: Progress,
  entries: readonly Entry[],
): Promise<void> {
  if (newest.index === 0) return;
  const tail = entries.find(({ key }) => key === keys.tail);
  if (tail !== undefined && tail.modifyIndex >= newest.index) return;
  deps.emit({ event: 'went-back', group: keys.group, detail: { pauseMs: VANISHED_AFTER_MS } });
  await deps.clock.sleep(VANISHED_AFTER_MS, { signal: either });
  newest.index = 0;
}
