/**
 * What `acquire` holds: from then on a slot is held by its claim alone, without a process or a session, until `release`
 * ends that (release.ts).
 */
import { RunlockError, assertNever, isRunlockError } from '../errors.ts';
import { hint } from '../text/suggested-command.ts';
import { goesOn, runningClaim, sendWithin, trySend } from './context.ts';
import type { RunContext } from './context.ts';
import { LEAVE, limits, untilAnswered } from './release.ts';
import type { Limits } from './release.ts';
import type { Grant } from './head-of-queue.ts';
import { lastWord } from '../consul/retry.ts';
import type { Claim } from './records.ts';
import { holdFrom, isHeld, readSlots, standing } from './decide.ts';
import type { Owner, Standing } from './decide.ts';
import { changeClaim, keep, removeSeen } from './transactions.ts';
import { writtenIndex } from '../consul/txn.ts';
import type { Step } from './transactions.ts';
import { leaveSession } from '../consul/session.ts';

/** The claim that says `held`, from now on. */
export function heldClaim(context: RunContext, waitedMs: number): Claim {
  const { deps, run } = context;
  const held = { state: 'held', waitedMs: Math.round(waitedMs) } as const;
  return { ...runningClaim(context), ...held, ...holdFrom(run.hold, deps.clock.latest()) };
}

/**
 * The claim of what is asked for again while it is held: a hold that ends begins anew. Always another value, so that its
 * index changes: an operator who saw it before, or a release that arrives late, must not end it.
 */
export function heldAgain({ deps, run }: RunContext, before: Claim): Claim {
  const returns = (before.returns ?? 0) + 1;
  const claim: Claim & { heldUntil?: string } = { ...before, hold: run.hold, returns };
  delete claim.heldUntil;
  return { ...claim, ...holdFrom(run.hold, deps.clock.latest()) };
}

/** Whether nobody else may follow yet: an answer can come so late that its hold has ended meanwhile. */
const lasts = ({ deps }: RunContext, { claim }: Owner): boolean => isHeld(claim, deps.clock.latest());

export type Kept =
  | { readonly kind: 'held'; readonly owner: Owner }
  /** An operator, or whoever followed after the hold, was quicker. */
  | { readonly kind: 'lost'; readonly why: string };

/**
 * The first half's end: a granted slot goes on by its claim alone. Has its own deadline.
 * @throws RunlockError when Consul can't be reached, or refuses: the claim stays as that of a run that has vanished.
 */
export async function keepGrant(grant: Grant, waitedMs: number): Promise<Kept> {
  const { context, slot } = grant;
  const asked = limits(context.keys);
  let known: Standing | undefined = { kind: 'mine', owner: grant.owner };
  try {
    return await untilAnswered(context.deps, asked, async () => {
      const now = known ?? (await lookAt(grant, asked));
      known = undefined;
      const kept = await keepOnce(grant, now, { waitedMs, asked });
      return kept && (kept.kind === 'lost' || lasts(context, kept.owner)) ? kept : undefined;
    });
  } catch (error) {
    const { group, root } = context.keys;
    const { node } = context.run;
    // What can't be read stops both as well; why it can't says what to do.
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
  return standing(me, readSlots(keys.root, entries)[0]);
}

/** Undefined: it was refused, or its answer was lost; a look tells. */
async function keepOnce(
  grant: Grant,
  now: Standing,
  { waitedMs, asked }: { waitedMs: number; asked: Limits },
): Promise<Kept | undefined> {
  const { context, session, slot } = grant;
  const { keys } = context;
  const claim = { ...heldClaim(context, waitedMs), ...goesOn(grant.owner.claim) };
  const sendKept = async (steps: readonly Step[]): Promise<Kept | undefined> => {
    const result = await sendWithin(context, steps, asked);
    if (result?.kind !== 'done') return undefined;
    return { kind: 'held', owner: { claim, index: writtenIndex(result.entries, keys.owner(slot)) } };
  };
  switch (now.kind) {
    case 'mine':
      return sendKept(keep({ keys, session: session.id, slot }, claim, now.owner.index));
    case 'unlocked':
      // An answer was lost: it is held already. Else the session is gone, and nothing else has to go.
      if (lasts(context, now.owner)) return { kind: 'held', owner: now.owner };
      return sendKept(changeClaim(keys, slot, claim, now.owner.index));
    case 'evicted': {
      // The claim goes before the session does: that tells the operator that nothing runs.
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
 * The first half asked again while it is held. Undefined: the claim has changed meanwhile, its hold has ended, or nobody
 * knows.
 */
export async function holdOn(
  context: RunContext,
  { slot, owner }: { slot: number; owner: Owner },
  signal: AbortSignal,
): Promise<Owner | undefined> {
  const { consul, keys } = context;
  let seen: Owner | undefined = owner;
  // Each time that it is refused, another process of this node was quicker: all of them come to their turn.
  while (seen?.claim.run === owner.claim.run && seen.claim.state === 'held') {
    const claim = heldAgain(context, seen.claim);
    const result = await trySend(context, changeClaim(keys, slot, claim, seen.index), signal);
    if (result === undefined) return undefined;
    if (result.kind === 'done') {
      const again = { claim, index: writtenIndex(result.entries, keys.owner(slot)) };
      return lasts(context, again) ? again : undefined;
    }
    const { entries } = await consul.list(keys.slot(slot), { signal, rule: keys.rule });
    seen = readSlots(keys.root, entries)[0]?.owner;
  }
  return undefined;
}
