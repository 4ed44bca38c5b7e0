/** Removing what nobody needs any more of states: ended ones, and the empty keys of those who waited for one. */
import { pause } from '../consul/retry.ts';
import { removeSeen, trySend } from './change.ts';
import type { Changing, SeenKey } from './change.ts';
import { leftOfStanding } from './claims.ts';
import { stateRule } from './path.ts';
import { faultsOf, listStored } from './read.ts';
import type { Fault } from './read.ts';

export interface Pruned {
  /** Paths of the states that had ended. */
  readonly states: readonly string[];
  /** Paths of unset states beside which an `.open` stood. */
  readonly open: readonly string[];
  /** These were left as they are. */
  readonly unreadable: readonly Fault[];
}

interface Item extends SeenKey {
  readonly path: string;
}

/** A transaction has at most 64 operations, two for each key. */
const BATCH = 32;

/** Give up after so many lost answers in a row. */
const TRIES = 10;

/**
 * Deletes every state that is past its end, and every `.open` that stands beside no state. Whoever still waits there
 * wakes once, and makes its own again when it needs it.
 * @throws RunlockError `forbidden`, naming the rule; a transient fault.
 */
export async function pruneStates(changing: Changing): Promise<Pruned> {
  const { states, open } = await listStored(changing, '', 'write');
  const nowMs = changing.deps.clock.earliest();
  const ended = states.filter((each) => 'document' in each && leftOfStanding(each, nowMs) <= 0);
  const gone = await removeAll(changing, ended);
  const there = new Set(states.map(({ path }) => path));
  for (const path of gone) there.delete(path);
  const closed = await removeAll(
    changing,
    open.filter(({ path }) => !there.has(path)),
  );
  return { states: gone, open: closed, unreadable: faultsOf(states) };
}

/** @returns the paths of those that were removed; the others have changed meanwhile. */
async function removeAll(changing: Changing, items: readonly Item[]): Promise<readonly string[]> {
  // Keys of one folder need one rule, so a refusal names the one that is missing.
  const byRule = new Map<string, Item[]>();
  for (const item of items) {
    const rule = stateRule(changing.prefix, item.path, 'write');
    const those = byRule.get(rule) ?? [];
    those.push(item);
    byRule.set(rule, those);
  }
  const removed: string[] = [];
  for (const [rule, those] of byRule)
    for (let at = 0; at < those.length; at += BATCH)
      removed.push(...(await removeSome(changing, those.slice(at, at + BATCH), rule)));
  return removed.sort();
}

async function removeSome(changing: Changing, items: readonly Item[], rule: string): Promise<string[]> {
  let left = items;
  const removed: string[] = [];
  for (let lost = 0; left.length > 0;) {
    const sent = await trySend(changing, { steps: left.flatMap(removeSeen), rule });
    if (sent.kind === 'done') return [...removed, ...left.map(({ path }) => path)];
    // Another writer has set this one again, or removed it.
    if (sent.kind === 'changed') left = left.filter(({ key }) => key !== sent.key);
    if (sent.kind !== 'unsure') continue;
    lost += 1;
    if (lost === TRIES) throw sent.error;
    await pause(changing.deps, lost, changing.signal);
    const { states, open } = await listStored(changing, '', 'write');
    const now = new Map([...states, ...open].map(({ key, index }) => [key, index]));
    removed.push(...left.filter(({ key }) => !now.has(key)).map(({ path }) => path));
    left = left.filter(({ key, index }) => now.get(key) === index);
  }
  return removed;
}
