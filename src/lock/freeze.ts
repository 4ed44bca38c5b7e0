/** An operator's stop sign on a group or one of its ancestors. */
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { RunContext } from './context.ts';
import { trySend } from './grant.ts';
import type { Blocked, Progress } from './grant.ts';
import { parseKey } from './keys.ts';
import { decodeFreeze } from './records.ts';
import type { Freeze } from './records.ts';
import { ask } from './queue.ts';
import type { Waiting } from './queue.ts';
import { removeSeen } from './transactions.ts';

/** How long a freeze still lasts, in milliseconds; not above zero when it is past its end. */
export function leftOf({ until }: Freeze, nowMs: number): number {
  return until === undefined ? Infinity : Date.parse(until) - nowMs;
}

/** Waits until the freeze at `key` is gone; the first to meet one past its end deletes it. */
export async function untilThawed(context: RunContext, key: string, progress: Progress): Promise<void> {
  const { consul, deps, keys } = context;
  const at = frozenGroup(context, key);
  let saidIndex: number | undefined;
  let leftMs = 0;
  const read = (past: Past) => {
    const limits = past.index === undefined ? ask(progress) : { ...past, signal: progress.either };
    return consul.get(key, { ...limits, rule: keys.rule });
  };
  const decide = async ({ entry }: Awaited<ReturnType<typeof read>>) => {
    if (!entry) return true;
    const freeze = decodeFreeze(entry);
    leftMs = leftOf(freeze, deps.clock.earliest());
    if (leftMs <= 0) {
      await trySend(context, removeSeen(key, entry.modifyIndex, 'freeze'), progress.signal);
      return true;
    }
    progress.blocked = { kind: 'frozen', at, freeze };
    progress.patience.throwIfAborted();
    if (entry.modifyIndex !== saidIndex) emitFrozen(context, at, freeze);
    saidIndex = entry.modifyIndex;
    return undefined;
  };
  // Nothing changes in Consul when a freeze ends by itself.
  await watchUntil(read, decide, { waitMs: () => leftMs });
}

/** '' for the root. */
const frozenGroup = ({ keys }: RunContext, key: string) => parseKey(keys.root, key)?.group ?? '';

function emitFrozen({ deps, keys, run }: RunContext, at: string, { by, reason, until }: Freeze): void {
  const who = { group: keys.group, node: run.node, run: run.id };
  deps.emit({ event: 'frozen', ...who, at, by, reason, until, detail: { then: 'waits' } });
}

/** The freeze that stops the group now, if one does: its own, else its nearest ancestor's. */
export async function findFreeze(
  context: RunContext,
  waiting: Waiting,
  timeoutMs: number,
): Promise<Extract<Blocked, { kind: 'frozen' }> | undefined> {
  const { consul, deps, keys } = context;
  const options = { ...ask(waiting), rule: keys.rule, timeoutMs };
  const found = await Promise.all(keys.freezes.map((key) => consul.get(key, options)));
  for (const [i, key] of keys.freezes.entries()) {
    const entry = found[i]?.entry;
    if (!entry) continue;
    const freeze = decodeFreeze(entry);
    if (leftOf(freeze, deps.clock.earliest()) > 0)
      return { kind: 'frozen', at: frozenGroup(context, key), freeze };
  }
  return undefined;
}
