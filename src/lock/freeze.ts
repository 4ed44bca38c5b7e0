/** An operator's stop sign on a group or one of its ancestors. */
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
  let seenIndex: number | undefined;
  let waitMs = 0;
  for (;;) {
    const limits =
      seenIndex === undefined ? ask(progress) : { signal: progress.either, index: seenIndex, waitMs };
    const { entry } = await consul.get(key, { ...limits, rule: keys.rule });
    if (!entry) return;
    const freeze = decodeFreeze(entry);
    const leftMs = leftOf(freeze, deps.clock.earliest());
    if (leftMs <= 0) {
      await trySend(context, removeSeen(key, entry.modifyIndex, 'freeze'), progress.signal);
      return;
    }
    progress.blocked = { kind: 'frozen', at, freeze };
    progress.patience.throwIfAborted();
    if (entry.modifyIndex !== seenIndex) sayFrozen(context, at, freeze);
    seenIndex = entry.modifyIndex;
    // Nothing changes in Consul when a freeze ends by itself.
    waitMs = leftMs;
  }
}

/** '' for the root. */
const frozenGroup = ({ keys }: RunContext, key: string) => parseKey(keys.root, key)?.group ?? '';

function sayFrozen({ deps, keys, run }: RunContext, at: string, { by, reason, until }: Freeze): void {
  const what = at === keys.group ? at : at === '' ? 'everything' : `${at}, and so ${keys.group},`;
  const end = until === undefined ? 'someone thaws it' : until;
  deps.log('info', `${what} is frozen by ${by} (${reason}); waiting until ${end}`, {
    event: 'frozen',
    group: keys.group,
    node: run.node,
    run: run.id,
    at,
    by,
    reason,
    ...(until !== undefined && { until }),
  });
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
