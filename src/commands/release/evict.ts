/** `runlock release --force`: ends a run that is alive. */
import { watchUntil } from '../../consul/watch.ts';
import type { Past } from '../../consul/watch.ts';
import { RunlockError } from '../../errors.ts';
import type { Claim } from '../../lock/records.ts';
import { isLeft, readSlots } from '../../lock/decide.ts';
import type { Owner } from '../../lock/decide.ts';
import { changeClaim } from '../../lock/transactions.ts';
import { send } from '../../consul/txn.ts';
import { forced } from './forced.ts';
import { refuseForeign } from './foreign-lock.ts';
import type { Released, Target } from './released.ts';

/** A run with a live session can only be evicted: its runlock then kills the command and releases the slot. */
export async function evict(
  target: Target,
  slot: number,
  { claim, index }: Owner,
): Promise<Released | undefined> {
  const { consul, deps, keys, options, signal } = target;
  if (!options.force) {
    throw new RunlockError(
      'refused',
      `${claim.node} is running ${claim.command} in slot ${slot} of ${options.group} (run ${claim.run}); wait for it to end, or evict it with '${forced(target, claim)}'`,
    );
  }
  if (claim.state !== 'evicted') {
    const evicted: Claim = {
      ...claim,
      state: 'evicted',
      by: options.by,
      since: new Date(deps.clock.now()).toISOString(),
    };
    const result = await send(consul, changeClaim(keys, slot, evicted, index), { signal, rule: keys.rule });
    if (result.kind === 'refused') return undefined;
  }
  deps.emit({ event: 'evicted', slot, detail: { node: claim.node } });
  const how = await untilGone(target, slot, claim);
  return { slot, node: claim.node, state: claim.state, how };
}

/**
 * Waits until the run has released the slot.
 * @throws RunlockError `refused` when its session ends first, or loses the lock: then the command may still be running.
 */
async function untilGone(target: Target, slot: number, claim: Claim): Promise<Released['how']> {
  const { consul, keys, options, signal } = target;
  const { run, node } = claim;
  const read = (past: Past) => consul.list(keys.slot(slot), { ...past, signal, rule: keys.rule });
  return watchUntil(read, (seen) => {
    const now = readSlots(keys.root, seen.entries)[0];
    if (now?.owner?.claim.run !== run) return 'evicted';
    if (now.lockedBy === undefined) {
      if (isLeft(now.owner.claim)) return 'evicted';
      throw new RunlockError(
        'refused',
        `the session of ${node}'s run ended before the run released slot ${slot} of ${options.group}; the command may still be running there; check ${node}, then run '${forced(target, claim)}' again`,
      );
    }
    const done = `told the run of ${node} to end, but it may not have ended`;
    refuseForeign(target, { entries: seen.entries, slot, claim, done });
    return undefined;
  });
}
