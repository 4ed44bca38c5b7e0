/** From nothing to a granted slot: docs/protocol.md, "Acquire", steps 1 to 5. */
import { FIRST_CONTACT, isTransient } from '../consul/consul.ts';
import type { Consul } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import { RunlockError, assertNever, isRunlockError } from '../errors.ts';
import { goesOn, nodeMark, runningClaim } from './context.ts';
import type { Run, RunContext } from './context.ts';
import { isTaken, judgeElsewhere } from './decide.ts';
import { findFreeze, untilThawed } from './freeze.ts';
import { untilDown } from './down.ts';
import { IMPATIENT_TRIES, asFirst, tidy } from './head-of-queue.ts';
import { pause } from '../consul/retry.ts';
import { giveUp } from './roll-back.ts';
import { sendGrant } from './grant.ts';
import type { Blocked, Granted, Progress } from './grant.ts';
import { groupKeys, isName } from './keys.ts';
import { lookBack } from './look-back.ts';
import { ask, join, readSlotsNow, untilFirst } from './queue.ts';
import type { Turn, Waiting } from './queue.ts';
import { clearDeadMark, findOrphan, markWaiting, otherRun } from './local-conflict.ts';
import type { Busy } from './local-conflict.ts';
import { openSession } from '../consul/session.ts';
import type { Session } from '../consul/session.ts';
import { isHeld, isOwn, unnoticed } from './slot.ts';
import type { Owner, Slot } from './slot.ts';
import { comeBack } from './transactions.ts';

export interface AcquireRequest {
  readonly prefix: string;
  readonly group: string;
  /** The node's name; the agent's own unless given. */
  readonly node?: string;
  readonly run: Omit<Run, 'node'>;
  readonly ttlMs: number;
}

export type Acquired =
  | Granted
  | { readonly kind: 'busy'; readonly context: RunContext; readonly why: Busy | Blocked }
  /** An operator took it out of the queue. */
  | { readonly kind: 'sent-away'; readonly context: RunContext; readonly by: string };

type Step1to5 = Acquired | { readonly kind: 'again' };

const CLOSE_MS = 5_000;
const LAST_LOOK_MS = 3_000;

/**
 * Waits for a slot, in order.
 * @throws the signal's reason when `signal` aborts; the queue is left and nothing was started.
 */
export async function acquire(
  effects: { consul: Consul; deps: Deps },
  request: AcquireRequest,
  waiting: Waiting,
): Promise<Acquired> {
  const progress: Progress = {
    ...waiting,
    attempts: [],
    newest: { index: 0 },
    blocked: { kind: 'slots', slots: [] },
  };
  for (let tries = 1; ; tries++) {
    const result = await tryOnce(effects, request, { progress, isFirst: tries === 1 });
    if (result.kind !== 'again') return result;
    const { context } = result;
    if (context && waiting.patience.aborted && tries >= IMPATIENT_TRIES)
      return { kind: 'busy', context, why: progress.blocked };
    await pause(effects.deps, tries, waiting.signal);
  }
}

type Tried = Acquired | { readonly kind: 'again'; readonly context?: RunContext };

/** One try with a session of its own, of which nothing is left unless it got a slot. */
async function tryOnce(
  effects: { consul: Consul; deps: Deps },
  request: AcquireRequest,
  { progress, isFirst }: { progress: Progress; isFirst: boolean },
): Promise<Tried> {
  const session = await newSession(effects, request, { waiting: progress, isFirst });
  if (!session) return { kind: 'again' };
  const context = await toContext(effects, request, session);
  const result = await tryWith(context, session, progress);
  if (result.kind === 'granted') return result;
  await giveUp(context, session, progress.attempts);
  return result.kind === 'again' ? { kind: 'again', context } : result;
}

/**
 * Undefined: the session was lost as soon as it was made, or `--wait` ended just then: everything is still asked once.
 * @throws RunlockError `unreachable` when Consul does not answer in time.
 */
async function newSession(
  effects: { consul: Consul; deps: Deps },
  { group, ttlMs }: AcquireRequest,
  { waiting, isFirst }: { waiting: Waiting; isFirst: boolean },
): Promise<Session | undefined> {
  const asked = { ...(isFirst && !waiting.patience.aborted && FIRST_CONTACT), ...ask(waiting) };
  try {
    return await openSession(effects, { name: `runlock ${group}`, ttlMs, ...asked });
  } catch (error) {
    if (isRunlockError(error, 'session-lost') && !waiting.patience.aborted) return undefined;
    if (error !== waiting.patience.reason) throw error;
    // Consul answers, as far as is known: the next try tells what stands in the way.
    const fault = effects.consul.fault();
    if (!fault) return undefined;
    throw fault;
  }
}

/** Where nothing is known of the group at the end of the wait, Consul is what is wrong. */
function noAnswer(consul: Consul, cause: unknown): RunlockError {
  const fault = consul.fault();
  const message = `Consul at ${consul.address} did not answer within --wait; is the agent well?`;
  return fault ?? new RunlockError('unreachable', message, { cause });
}

async function toContext(
  effects: { consul: Consul; deps: Deps },
  request: AcquireRequest,
  session: Session,
): Promise<RunContext> {
  const node = request.node ?? session.node;
  if (!isName(node)) {
    await session.close({ signal: AbortSignal.timeout(CLOSE_MS) }).catch(() => undefined);
    throw new RunlockError(
      'usage',
      `the node's name '${node}' can't be part of a key; give another with --node`,
    );
  }
  return { ...effects, keys: groupKeys(request.prefix, request.group), run: { ...request.run, node } };
}

/** One try with one session. Whatever else happens, an error leaves nothing of it behind. */
async function tryWith(context: RunContext, session: Session, progress: Progress): Promise<Step1to5> {
  const either = AbortSignal.any([progress.either, session.lost]);
  const signal = AbortSignal.any([progress.signal, session.lost]);
  const own = { ...progress, either, signal };
  try {
    const result = await takeSteps(context, session, own);
    progress.blocked = own.blocked;
    return result;
  } catch (error) {
    if (progress.signal.aborted) {
      await giveUp(context, session, progress.attempts);
      throw error;
    }
    if (session.lost.aborted) return { kind: 'again' };
    if (progress.patience.aborted && error === progress.patience.reason)
      return { kind: 'busy', context, why: await blockedNow(context, session, own) };
    if (isTransient(error) && !progress.patience.aborted) return { kind: 'again' };
    await giveUp(context, session, progress.attempts);
    throw error;
  }
}

/** What stands in the way at the end of the wait: who was there when it began may be long gone. */
async function blockedNow(context: RunContext, session: Session, progress: Progress): Promise<Blocked> {
  if (progress.blocked.kind === 'frozen') return progress.blocked;
  try {
    const [frozen, { slots }] = await Promise.all([
      // Only the first in the queue would have met it.
      findFreeze(context, progress, LAST_LOOK_MS),
      readSlotsNow(context, progress, LAST_LOOK_MS),
    ]);
    if (frozen) return frozen;
    // Nobody is known to have been in the way, and Consul gave no answer to what would have told.
    const fault = hasFree(slots, context.run.slots) ? context.consul.fault() : undefined;
    if (fault) throw fault;
    return { kind: 'slots', slots };
  } catch (error) {
    await giveUp(context, session, progress.attempts);
    throw isTransient(error) ? noAnswer(context.consul, error) : error;
  }
}

const hasFree = (slots: readonly Slot[], own: number): boolean => slots.filter(isTaken).length < own;

async function takeSteps(context: RunContext, session: Session, progress: Progress): Promise<Step1to5> {
  const away = await lookBack(context, progress);
  if (away) return { kind: 'sent-away', context, by: away.by };
  const turn = await readSlotsNow(context, progress);
  const namesake = await findElsewhere(context, turn.slots, progress);
  if (namesake) return { kind: 'busy', context, why: namesake };
  const own = turn.slots.find(({ owner }) => owner && isOwn(context.run, owner.claim));
  if (own?.owner) {
    const { slot, owner, lockedBy } = own;
    const why = await findBusy(context, { slot, owner, isLocked: lockedBy !== undefined }, progress.signal);
    if (why) return { kind: 'busy', context, why };
    if (slot < context.run.slots) return returnTo(context, session, { slot, owner, progress });
    const moved = await untilDown(context, session, { turn, seenIndex: owner.index, progress });
    if (moved.kind === 'locked')
      return { kind: 'busy', context, why: otherRun(context.run.runner, owner.claim) };
    return moved.kind === 'node' ? clearOrBusy(context, progress) : moved;
  }
  progress.newest.sent = true;
  const joining = join(context, session.id, progress.signal);
  // Hardly anybody can be in the way: what a grant needs is made ready while Consul answers.
  if (hasFree(turn.slots, context.run.slots)) progress.onNext?.();
  const joined = await joining;
  if (joined.kind === 'refused') {
    return joined.obstacle === 'node' ? clearOrBusy(context, progress) : { kind: 'again' };
  }
  progress.blocked = { kind: 'slots', slots: joined.turn.slots };
  progress.newest.index = joined.ticket.createIndex;
  const behind = joined.ticket.predecessor !== undefined && joined.ticket.predecessor !== joined.turn.last;
  progress.onJoined?.(session.id, { node: context.run.node, behind, slots: joined.turn.slots });
  const seen = await noticeMissing(context, joined.turn, progress);
  const first = await untilFirst(context, { ticket: joined.ticket, turn: seen }, progress);
  return first.kind === 'ticket-lost'
    ? { kind: 'again' }
    : asFirst(context, session, { turn: first.turn, progress });
}

/**
 * Whoever joins says which runs have lost their locks, wherever it stands in the queue: it may not wait for long, and the
 * next one goes on counting from there.
 */
async function noticeMissing(context: RunContext, turn: Turn, progress: Progress): Promise<Turn> {
  const found = unnoticed(turn.slots);
  for (const slot of found) await tidy(context, { kind: 'notice', ...slot }, progress.signal);
  return found.length === 0 ? turn : readSlotsNow(context, progress);
}

/** This node's mark stands in the way: it is busy here, unless whoever set it is dead. */
async function clearOrBusy(context: RunContext, waiting: Waiting): Promise<Step1to5> {
  const busy = await clearDeadMark(context, ask(waiting));
  return busy ? { kind: 'busy', context, why: busy } : { kind: 'again' };
}

/** Why this node's own claim can't be taken back: it is held, or something of its run still runs. */
async function findBusy(
  context: RunContext,
  { slot, owner, isLocked }: { slot: number; owner: Owner; isLocked: boolean },
  signal: AbortSignal,
): Promise<Busy | undefined> {
  if (isHeld(owner.claim, context.deps.clock.earliest())) return { kind: 'held', slot, owner };
  return findOrphan(context, { claim: owner.claim, isLocked }, signal);
}

/**
 * A run under this node's name that may be under way on another machine: it is busy, and not taken over before anybody
 * may. It does not wait for that in the queue: with the node's mark it would keep that run from taking its lock back.
 */
async function findElsewhere(
  context: RunContext,
  slots: readonly Slot[],
  progress: Progress,
): Promise<Busy | undefined> {
  const { deps, run } = context;
  const found = slots.find(({ owner }) => owner?.claim.node === run.node && !isOwn(run, owner.claim));
  if (!found?.owner) return undefined;
  const nowMs = deps.clock.earliest();
  const verdict = judgeElsewhere(found, { slots, sightings: new Map(), nowMs, monotonicMs: 0 });
  if (verdict === 'take-over') return undefined;
  if (verdict !== 'wait') await tidy(context, verdict, progress.signal);
  const isHolding = found.owner.claim.state === 'held' && { holds: found.slot };
  return { ...otherRun(run.runner, found.owner.claim), ...isHolding };
}

/** Step 1: my own claim first. */
async function returnTo(
  context: RunContext,
  session: Session,
  { slot, owner, progress }: { slot: number; owner: Owner; progress: Progress },
): Promise<Step1to5> {
  const seat = { keys: context.keys, session: session.id, slot };
  const claim = { ...runningClaim(context), ...goesOn(owner.claim) };
  const steps = comeBack(seat, claim, nodeMark(context), owner.index);
  // After an answer that was lost the claim may name this very run: what counts is what was there before that.
  const sent = progress.attempts.find((attempt) => attempt.slot === slot);
  const before = owner.claim.run === context.run.id ? sent?.before : owner.claim;
  const sending = sendGrant(context, {
    session,
    steps,
    slot,
    claim,
    progress,
    ...(before && { before }),
  });
  progress.onNext?.();
  const result = await sending;
  if (result.kind !== 'refused') return result;
  switch (result.obstacle) {
    case 'freeze': {
      // Without patience it does not wait.
      const marked = progress.patience.aborted ? 'marked' : await markWaiting(context, session, progress);
      if (marked === 'node') return clearOrBusy(context, progress);
      if (marked === 'marked') await untilThawed(context, result.key, progress);
      return { kind: 'again' };
    }
    case 'node':
      return clearOrBusy(context, progress);
    case 'lock':
      return { kind: 'busy', context, why: otherRun(context.run.runner, owner.claim) };
    case 'owner':
    case 'session':
    case 'ticket':
      return { kind: 'again' };
    default:
      return assertNever(result.obstacle);
  }
}
