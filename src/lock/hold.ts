/**
 * How `acquire` holds a slot: after the grant, the claim alone holds it, without a process or a session, until
 * `release` ends it (release.ts).
 */
import { RunlockError, assertNever, isRunlockError } from '../errors.ts';
import { hint } from '../text/suggested-command.ts';
import { goesOn, runningClaim, sendWithin, trySend } from './context.ts';
import type { RunContext } from './context.ts';
import { LEAVE, limits, untilAnswered } from './release.ts';
import type { Limits } from './release.ts';
import { decline } from './head-of-queue.ts';
import type { Grant } from './head-of-queue.ts';
import { lastWord } from '../consul/retry.ts';
import type { Claim } from './records.ts';
import { holdFrom, isHeld, readSlots, standing } from './decide.ts';
import type { Owner, Standing } from './decide.ts';
import { changeClaim, keep, removeSeen, stillHold } from './transactions.ts';
import { writtenIndex } from '../consul/txn.ts';
import type { RunStep, SeenKey } from './transactions.ts';
import { leaveSession } from '../consul/session.ts';

/** The claim in state `held`, with a hold that begins now. */
export function heldClaim(context: RunContext, waitedMs: number): Claim {
  const { deps, run } = context;
  const held = { state: 'held', waitedMs: Math.round(waitedMs) } as const;
  return { ...runningClaim(context), ...held, ...holdFrom(run.hold, deps.clock.latest()) };
}

/**
 * The claim when `acquire` is run again for a slot that is already held: a limited hold begins again. The value always
 * differs, so that the index changes: a release that arrives late, or is based on the old claim, must not end this one.
 */
export function heldAgain({ deps, run }: RunContext, before: Claim): Claim {
  const returns = (before.returns ?? 0) + 1;
  const claim: Claim & { heldUntil?: string } = { ...before, hold: run.hold, returns };
  delete claim.heldUntil;
  return { ...claim, ...holdFrom(run.hold, deps.clock.latest()) };
}

/** Whether the hold still lasts. An answer can arrive so late that the hold has ended meanwhile. */
const lasts = ({ deps }: RunContext, { claim }: Owner): boolean => isHeld(claim, deps.clock.latest());

export type Kept =
  | { readonly kind: 'held'; readonly owner: Owner }
  /** An operator, or another run after the end of the hold, was quicker. */
  | { readonly kind: 'lost'; readonly why: string }
  /** What a condition rests on has changed since it was read; the grant was given up. */
  | { readonly kind: 'changed'; readonly key: string };

/**
 * The last step of `acquire`: from here on the claim alone holds the granted slot. Has its own deadline.
 * @param conditions what conditions on states rest on, as they were read last.
 * @throws RunlockError when Consul can't be reached, or refuses: the claim then looks like that of a vanished run.
 */
export async function keepGrant(
  grant: Grant,
  waitedMs: number,
  conditions: readonly SeenKey[] = [],
): Promise<Kept> {
  const { context, slot } = grant;
  const asked = limits(context.keys);
  let known: Standing | undefined = { kind: 'mine', owner: grant.owner };
  try {
    const kept = await untilAnswered(context.deps, asked, async () => {
      const now = known ?? (await lookAt(grant, asked));
      known = undefined;
      const kept = await keepOnce(grant, now, { waitedMs, asked, conditions });
      return kept && (kept.kind !== 'held' || lasts(context, kept.owner)) ? kept : undefined;
    });
    if (kept.kind === 'changed') await decline(grant);
    return kept;
  } catch (error) {
    const { group, root } = context.keys;
    const { node } = context.run;
    // An unreadable key stops both suggested commands too; the fault itself says what to do.
    const clear = isRunlockError(error, 'incompatible')
      ? ''
      : `; its claim still blocks the slot; run '${hint(root, 'acquire', group)}' again, or clear the claim: '${hint(root, 'release', group, '--owner', node)}' (asks for confirmation)`;
    throw new RunlockError(
      isRunlockError(error) ? error.code : 'unreachable',
      `${node} was granted slot ${slot} of ${group}, but could not hold it (${lastWord(context.consul, error)})${clear}`,
      { cause: error },
    );
  } finally {
    await leaveSession(context, grant.session, LEAVE);
  }
}

async function lookAt({ context, session, slot }: Grant, asked: Limits): Promise<Standing> {
  const { consul, keys, run } = context;
  const { entries } = await consul.list(keys.slot(slot), asked);
  const me = { node: run.node, run: run.id, session: session.id };
  return standing(me, readSlots(keys.base, entries)[0]);
}

/** Undefined: the request was refused, or its answer was lost; the caller has to read the slot again. */
async function keepOnce(
  grant: Grant,
  now: Standing,
  { waitedMs, asked, conditions }: { waitedMs: number; asked: Limits; conditions: readonly SeenKey[] },
): Promise<Kept | undefined> {
  const { context, session, slot } = grant;
  const { keys } = context;
  const claim = { ...heldClaim(context, waitedMs), ...goesOn(grant.owner.claim, context.run.id) };
  const sendKept = async (steps: readonly RunStep[]): Promise<Kept | undefined> => {
    const result = await sendWithin(context, [...steps, ...stillHold(conditions)], asked);
    if (result?.kind === 'refused' && result.obstacle === 'condition')
      return { kind: 'changed', key: result.key };
    if (result?.kind !== 'done') return undefined;
    return { kind: 'held', owner: { claim, index: writtenIndex(result.entries, keys.owner(slot)) } };
  };
  switch (now.kind) {
    case 'mine':
      return sendKept(keep({ keys, session: session.id, slot }, claim, now.owner.index));
    case 'unlocked':
      // Either an earlier answer was lost and the claim is held already, or the session is gone and only the claim is
      // left.
      if (lasts(context, now.owner)) return { kind: 'held', owner: now.owner };
      return sendKept(changeClaim(keys, slot, claim, now.owner.index));
    case 'evicted': {
      // Remove the claim before the session ends: this tells the operator that nothing is running.
      const steps = removeSeen(keys.owner(slot), now.owner.index, 'owner');
      const result = await sendWithin(context, steps, asked);
      if (result?.kind !== 'done') return undefined;
      return { kind: 'lost', why: `${now.owner.claim.by ?? 'an operator'} evicted it` };
    }
    case 'gone':
      return { kind: 'lost', why: 'somebody deleted its claim' };
    case 'foreign':
      return { kind: 'lost', why: `its claim names ${now.owner?.claim.node ?? 'somebody else'}` };
    default:
      return assertNever(now);
  }
}

/**
 * Renews the hold when `acquire` is run again while the slot is held. Undefined: the claim has changed meanwhile, its
 * hold has ended, or the answer was lost.
 */
export async function holdOn(
  context: RunContext,
  { slot, owner }: { slot: number; owner: Owner },
  signal: AbortSignal,
): Promise<Owner | undefined> {
  const { consul, keys } = context;
  let seen: Owner | undefined = owner;
  // A refusal means that another process of this node was quicker. Try again, so that each of them succeeds in turn.
  while (seen?.claim.run === owner.claim.run && seen.claim.state === 'held') {
    const claim = heldAgain(context, seen.claim);
    const result = await trySend(context, changeClaim(keys, slot, claim, seen.index), signal);
    if (result === undefined) return undefined;
    if (result.kind === 'done') {
      const again = { claim, index: writtenIndex(result.entries, keys.owner(slot)) };
      return lasts(context, again) ? again : undefined;
    }
    const { entries } = await consul.list(keys.slot(slot), { signal, rule: keys.rule });
    seen = readSlots(keys.base, entries)[0]?.owner;
  }
  return undefined;
}
