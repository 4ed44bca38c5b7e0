/**
 * `runlock release`: releases a slot held by `acquire`, clears a claim that blocks a group, or evicts the run behind
 * it.
 */
import { FIRST_CONTACT } from '../../consul/consul.ts';
import type { Consul, Entry } from '../../consul/consul.ts';
import type { Deps } from '../../platform/deps.ts';
import { RunlockError } from '../../errors.ts';
import { giveHeldBack } from '../../lock/release.ts';
import { groupKeys } from '../../lock/keys.ts';
import { hint } from '../../text/suggested-command.ts';
import { agentNode } from '../../consul/session.ts';
import { mayStillRun, readSlots } from '../../lock/decide.ts';
import type { Owner, Slot } from '../../lock/decide.ts';
import { clearClaim, sendReturnerAway } from '../../lock/transactions.ts';
import { send, writtenIndex } from '../../consul/txn.ts';
import { askFirst } from './ask-first.ts';
import { evict } from './evict.ts';
import { refuseForeign } from './foreign-lock.ts';
import { findOutside } from './outside.ts';
import { awayMark, findReturner, sendWaiterAway, untilAway } from './send-away.ts';
import type { Confirm, ReleaseOptions, ReleaseResult, Released, Target } from './released.ts';

/** Give up after so many tries: so many concurrent changes of the claim are no longer chance. */
const TRIES = 10;
const SESSION_TTL_MS = 30_000;

/** @throws RunlockError `refused`: a run is under way, or may be, and `--force` was not given. */
export async function release(
  { consul, deps, confirm }: { consul: Consul; deps: Deps; confirm: Confirm },
  options: ReleaseOptions,
  signal: AbortSignal,
): Promise<ReleaseResult> {
  const keys = groupKeys(options.prefix, options.group);
  const asked = { name: 'runlock release', ttlMs: SESSION_TTL_MS, signal, ...FIRST_CONTACT };
  const node = options.owner ?? (await agentNode({ consul, deps }, asked));
  const { group } = options;
  const target: Target = {
    consul,
    deps,
    keys,
    options: { ...options, owner: node },
    itself: isAskedByNode(options),
    signal,
    confirm,
    confirmed: new Set<string>(),
  };
  const mine = readSlots(keys.root, await readAll(target)).filter(
    ({ slot, owner }) => owner?.claim.node === node && (options.slot === undefined || options.slot === slot),
  );
  const held = options.failed ? mine.filter(({ owner }) => owner?.claim.state === 'held') : mine;
  if (held.length === 0) {
    const claim = mine[0]?.owner?.claim.state;
    // --slot and --failed can't mean a waiting run, which has neither a slot nor failed work.
    const asks = mine.length === 0 && options.slot === undefined && !options.failed;
    const away = asks ? ((await sendWaiterAway(target)) ?? (await findOutside(target))) : undefined;
    if (away) return away;
    return { kind: 'nothing', node, group, ...(claim && { claim }) };
  }
  const claims: Released[] = [];
  for (const { slot } of held) {
    const done = await releaseSlot(target, slot);
    if (done) claims.push(done);
  }
  return claims.length === 0 ? { kind: 'nothing', node, group } : { kind: 'released', node, group, claims };
}

/** Whether the node itself asks, and not an operator. */
export const isAskedByNode = ({ owner, node }: Pick<ReleaseOptions, 'owner' | 'node'>): boolean =>
  owner === undefined || owner === node;

async function readAll({ consul, keys, options: { slot = 0 }, signal }: Target): Promise<Entry[]> {
  // A listing hides keys that the token may not read, but reading a single key is refused.
  await consul.get(keys.owner(slot), { ...FIRST_CONTACT, signal, rule: keys.rule });
  const { entries } = await consul.list(keys.slotPrefix, { ...FIRST_CONTACT, signal, rule: keys.rule });
  return entries;
}

/** Undefined: the claim was gone already. */
async function releaseSlot(target: Target, slot: number): Promise<Released | undefined> {
  const { keys } = target;
  for (let tries = 0; tries < TRIES; tries++) {
    const entries = await readAll(target);
    const now = readSlots(keys.root, entries).find((candidate) => candidate.slot === slot);
    if (now?.owner?.claim.node !== target.options.owner) return undefined;
    const { owner } = now;
    refuseForeign(target, { entries, slot, claim: owner.claim });
    if (target.itself && owner.claim.state === 'held') return endOwn(target, slot);
    if (target.options.failed) return undefined;
    const done =
      now.lockedBy === undefined ? await clear(target, now, owner) : await evict(target, slot, owner);
    if (done) return done;
  }
  throw new RunlockError(
    'refused',
    `the claim on slot ${slot} keeps changing; check '${hint(keys.root, 'status', keys.group)}' and try again`,
  );
}

/** Ends this node's own `acquire`. Undefined: another process changed the claim first. */
async function endOwn(target: Target, slot: number): Promise<Released | undefined> {
  const { consul, deps, keys, options } = target;
  const { owner: node, failed } = options;
  const ending = failed ? { outcome: 'failed' as const, ...failed } : { outcome: 'succeeded' as const };
  const ended = await giveHeldBack({ consul, deps, keys, node, slot }, ending);
  if (!ended) return undefined;
  const { kept, heldMs } = ended;
  const until = kept?.heldUntil === undefined ? {} : { heldUntil: kept.heldUntil };
  return { slot, node, state: 'held', how: kept ? 'kept' : 'given-back', heldMs, ...until };
}

/** Undefined: the claim changed meanwhile. */
async function clear(
  target: Target,
  { slot, strayLock }: Slot,
  { claim, index }: Owner,
): Promise<Released | undefined> {
  const { consul, keys, signal } = target;
  askFirst(target, slot, claim);
  const returner = await findReturner(target, claim);
  const seen = { keys, slot, strayLock, seenIndex: index };
  const steps = returner
    ? sendReturnerAway(seen, returner.session, awayMark(target, returner))
    : clearClaim(seen, index);
  const result = await send(consul, steps, { signal, rule: keys.rule });
  if (result.kind === 'refused') return undefined;
  const marked = returner && writtenIndex(result.entries, keys.node(claim.node));
  const sentAway = returner && marked !== undefined && (await untilAway(target, returner, marked));
  const how = mayStillRun(claim.state) || claim.state === 'held' ? 'unwatched' : 'cleared';
  return { slot, node: claim.node, state: claim.state, how, ...(sentAway && { sentAway }) };
}
