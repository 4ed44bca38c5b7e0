/** Leaving without a slot: nothing of the try stays in Consul. */
import { isRunlockError } from '../errors.ts';
import type { RunContext } from './context.ts';
import { lastWord, persist } from '../consul/retry.ts';
import type { Claim } from './records.ts';
import { readSlots } from './slot.ts';
import type { Session } from '../consul/session.ts';
import { changeClaim, removeSeen } from './transactions.ts';
import { send } from '../consul/txn.ts';

/** A grant that was sent and may have taken effect. */
export interface Attempt {
  readonly slot: number;
  /** This node's claim before, to be put back. */
  readonly before?: Claim;
}

/** With nothing to undo, an agent that does not answer is not worth waiting for: the session ends by itself. */
const LEAVE_MS = 2_000;
/** A claim that stays keeps others out, for good perhaps: longer than an election takes (12.7 to 17.5 s were measured). */
const UNDO_MS = 30_000;
const RETRY_MS = 100;

/**
 * Leaves the queue, by destroying the session: what arrives late can then do nothing. Then takes back what an
 * unanswered grant may have left. Has its own deadline; what stays behind is said, never thrown. False: something may stay.
 */
export async function giveUp(context: RunContext, session: Session, attempts: Attempt[]): Promise<boolean> {
  const { consul, deps, keys, run } = context;
  const signal = AbortSignal.timeout(attempts.length === 0 ? LEAVE_MS : UNDO_MS);
  try {
    const until = { signal, pauseMs: RETRY_MS };
    await persist(deps.clock, until, () => session.close({ signal }));
    for (const attempt of attempts)
      await persist(deps.clock, until, () => takeBackGrant(context, attempt, signal));
    attempts.length = 0;
    return true;
  } catch (error) {
    const stays =
      attempts.length === 0 ? 'ticket' : isRunlockError(error, 'incompatible') ? 'what-is-there' : 'claim';
    const who = { group: keys.group, node: run.node, run: run.id, prefix: keys.root };
    deps.emit({ event: 'left-behind', detail: { ...who, stays, fault: lastWord(consul, error) } });
    return false;
  }
}

async function takeBackGrant(
  { consul, deps, keys, run }: RunContext,
  attempt: Attempt,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const { entries } = await consul.list(keys.slot(attempt.slot), { signal, rule: keys.rule });
    const owner = readSlots(keys.root, entries)[0]?.owner;
    if (owner?.claim.run !== run.id) return;
    const steps = attempt.before
      ? changeClaim(keys, attempt.slot, attempt.before, owner.index)
      : removeSeen(keys.owner(attempt.slot), owner.index, 'owner');
    const result = await send(consul, steps, { signal, rule: keys.rule });
    if (result.kind === 'done') return;
    await deps.clock.sleep(RETRY_MS, { signal });
  }
}
