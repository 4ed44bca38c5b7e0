/**
 * A node's own claim comes first: its next run takes it back, or moves it to a slot that it uses, unless another run of the
 * node, or what is left of one, stands in the way (docs/protocol.md, "Acquire", step 1).
 */
import { isNobody, isSameBoot } from '../platform/deps.ts';
import type { Host, Waiting } from '../platform/deps.ts';
import type { RetryOptions } from '../consul/consul.ts';
import { emitQueued, nodeMark, trySend, goesOn, runningClaim, ask } from './context.ts';
import type { RunContext, Progress } from './context.ts';
import { decodeNodeMark } from './records.ts';
import type { Claim, Runner } from './records.ts';
import type { Session } from '../consul/session.ts';
import { isElsewhere, isLeft, isHeld, isOwn, observe, decideDown, judgeElsewhere } from './decide.ts';
import type { Owner, Sightings, Slot } from './decide.ts';
import { comeBack, markNode, moveDown } from './transactions.ts';
import { IMPATIENT_TRIES, tidy, watchSlots, sendGrant } from './head-of-queue.ts';
import { pause } from '../consul/retry.ts';
import type { Turned } from './head-of-queue.ts';
import { untilThawed } from './freeze.ts';
import { readSlotsNow } from './queue.ts';
import type { Turn } from './queue.ts';
import { assertNever } from '../errors.ts';

/** This node already runs or waits in the group. */
export type Busy =
  | { readonly kind: 'same-node'; readonly pid: number; readonly since: string }
  /** A run under this node's name may be under way on another machine. `host`: what that one is called. */
  | {
      readonly kind: 'elsewhere';
      readonly pid: number;
      readonly since: string;
      readonly host?: string;
      /** The slot that it holds by `acquire`: nothing of it runs. */
      readonly holds?: number;
    }
  /** Nothing of runlock watches these any more, and they still run. */
  | {
      readonly kind: 'orphan';
      readonly run: string;
      readonly pids: readonly number[];
      /** Where they are, when none of them has a pid here. */
      readonly cgroup?: string;
    }
  /** Nothing of its runlock is left, and what it started is another user's, so nobody but root can see whose it is. */
  | { readonly kind: 'another-user'; readonly uid: number }
  /** `acquire` holds a slot, and nothing of it runs. */
  | { readonly kind: 'held'; readonly slot: number; readonly owner: Owner };

/** `again`: all has to start anew, with another session. */
export type OwnTaken = Turned | { readonly kind: 'busy'; readonly why: Busy };

type Own = Slot & { readonly owner: Owner };

/** Takes this node's claim, wherever it stands, without queueing. Undefined: it has none here, and may queue. */
export async function takeOwn(
  context: RunContext,
  session: Session,
  { turn, progress }: { turn: Turn; progress: Progress },
): Promise<OwnTaken | undefined> {
  const { run } = context;
  const namesake = await findElsewhere(context, turn.slots, progress);
  if (namesake) return { kind: 'busy', why: namesake };
  const own = findOwn(context, turn.slots);
  if (!own) return undefined;
  const why = await findBusy(context, own, progress.signal);
  if (why) return { kind: 'busy', why };
  return own.slot < run.slots
    ? returnTo(context, session, { own, progress })
    : untilDown(context, session, { turn, seenIndex: own.owner.index, progress });
}

const findOwn = ({ run }: RunContext, slots: readonly Slot[]): Own | undefined =>
  slots.find((slot): slot is Own => slot.owner !== undefined && isOwn(run, slot.owner.claim));

async function returnTo(
  context: RunContext,
  session: Session,
  { own: { slot, owner }, progress }: { own: Own; progress: Progress },
): Promise<OwnTaken> {
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
  context.deps.emit({ event: 'near', group: context.keys.group });
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
      return { kind: 'busy', why: otherRun(context.run.runner, owner.claim) };
    case 'owner':
    case 'session':
    case 'ticket':
      return { kind: 'again' };
    default:
      return assertNever(result.obstacle);
  }
}

/**
 * Where the claim stands in a slot that this run, with a smaller N, does not use: watches the slots until it is in one that
 * it does, as soon as whoever is first in the queue might have that. It has no ticket: it does not queue behind anybody.
 * `seenIndex`: of the claim that was found to have no run behind it any more.
 */
async function untilDown(
  context: RunContext,
  session: Session,
  { turn, seenIndex, progress }: { turn: Turn; seenIndex: number; progress: Progress },
): Promise<OwnTaken> {
  const { deps, run } = context;
  const marked = await markWaiting(context, session, progress);
  if (marked === 'again') return { kind: 'again' };
  if (marked === 'node') return clearOrBusy(context, progress);
  let { slots, index } = turn;
  let sightings: Sightings = new Map();
  let failures = 0;
  for (let looks = 0; ; looks++) {
    const monotonicMs = deps.clock.monotonicMs();
    const own = findOwn(context, slots);
    // Another run of this node may have come back to it meanwhile, and be under way: that has to be looked at again.
    if (own?.owner.index !== seenIndex || own.slot < run.slots) return { kind: 'again' };
    if (own.lockedBy !== undefined) return { kind: 'busy', why: otherRun(run.runner, own.owner.claim) };
    if (isHeld(own.owner.claim, deps.clock.earliest())) return { kind: 'again' };
    const others = slots.filter((slot) => slot !== own);
    sightings = observe(sightings, others, monotonicMs);
    progress.blocked = { kind: 'slots', slots: others };
    const seen = { slots: others, sightings, nowMs: deps.clock.earliest(), monotonicMs };
    const choice = decideDown({ own: own.slot, slots: run.slots }, seen);
    if (choice.kind === 'wait') {
      failures = 0;
      progress.patience.throwIfAborted();
      const watched = watchSlots(context, progress.either, { after: index, forMs: choice.forMs });
      if (looks === 0) emitQueued(context, session.id, { behind: false, slots: others });
      deps.emit({ event: 'first', group: context.keys.group });
      ({ slots, index } = await watched);
      continue;
    }
    if (choice.kind === 'grant') {
      const moved = await move(context, session, { own, slot: choice.slot, progress });
      if (moved) return moved;
    } else await tidy(context, choice, progress.signal);
    if (++failures >= IMPATIENT_TRIES) progress.patience.throwIfAborted();
    await pause(deps, failures, progress.signal);
    ({ slots, index } = await readSlotsNow(context, progress));
  }
}

/** Undefined: the slots have to be looked at again. */
async function move(
  context: RunContext,
  session: Session,
  { own, slot, progress }: { own: Own; slot: number; progress: Progress },
): Promise<OwnTaken | undefined> {
  const { claim: before, index } = own.owner;
  const seat = { keys: context.keys, session: session.id, slot };
  const claim = { ...runningClaim(context), ...goesOn(before) };
  const from = { slot: own.slot, index, strayLock: own.strayLock };
  const steps = moveDown(seat, claim, nodeMark(context), from);
  const result = await sendGrant(context, { session, steps, slot, claim, progress, before });
  if (result.kind !== 'refused') return result;
  if (result.obstacle === 'node') return clearOrBusy(context, progress);
  if (result.obstacle === 'session') return { kind: 'again' };
  if (result.obstacle === 'freeze') await untilThawed(context, result.key, progress);
  return undefined;
}

/**
 * Whoever waits outside the queue, for its own claim, marks its node: another run of it is busy at once, `status` shows that
 * it waits, and an operator can send it away. `node`: another run has the mark; `again`: all has to start anew.
 */
async function markWaiting(
  context: RunContext,
  session: Session,
  progress: Progress,
): Promise<'marked' | 'node' | 'again'> {
  const { keys, run } = context;
  // Who loses its mark looks whether an operator took it.
  progress.newest.sent = true;
  const steps = markNode(keys, session.id, { ...nodeMark(context), node: run.node });
  const result = await trySend(context, steps, progress.signal);
  if (result?.kind === 'done') return 'marked';
  return result?.obstacle === 'node' ? 'node' : 'again';
}

/** This node's mark stands in the way: it is busy here, unless whoever set it is dead. */
export async function clearOrBusy(context: RunContext, waiting: Waiting): Promise<OwnTaken> {
  const why = await clearDeadMark(context, ask(waiting));
  return why ? { kind: 'busy', why } : { kind: 'again' };
}

/** Why this node's own claim can't be taken back: it is held, or something of its run still runs. */
async function findBusy(
  context: RunContext,
  { slot, owner, lockedBy }: Own,
  signal: AbortSignal,
): Promise<Busy | undefined> {
  if (isHeld(owner.claim, context.deps.clock.earliest())) return { kind: 'held', slot, owner };
  return findOrphan(context, { claim: owner.claim, isLocked: lockedBy !== undefined }, signal);
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

/** Another run of this node, or of a namesake, is under way. */
function otherRun(me: Runner, other: Runner & { readonly since: string }): Busy {
  const { pid, since, host } = other;
  if (!isElsewhere(me, other)) return { kind: 'same-node', pid, since };
  return { kind: 'elsewhere', pid, since, ...(host !== undefined && { host }) };
}

/** The guard needs about a second to kill what a dead runlock left, on a busy host several; after this long it never will. */
const GUARD_GRACE_MS = 10_000;
const LOOK_AGAIN_MS = 100;

/**
 * Whether the process is alive on this boot of this host. `unknown`: it ran on another one. `elsewhere`: on this one, in
 * another namespace, where its pid or its start time are not those that are seen here.
 */
export function lifeOf(host: Host, runner: Runner): 'alive' | 'dead' | 'elsewhere' | 'unknown' {
  const { bootId } = host;
  if (!isSameBoot(runner.bootId, bootId)) return 'unknown';
  if (runner.bootId !== bootId) return 'elsewhere';
  const born = host.startTime(runner.pid);
  if (born === undefined && host.hidden(runner.pid)) return 'alive';
  return born === runner.startTime ? 'alive' : 'dead';
}

/**
 * What still runs of the run that made this claim, once its guard has had its time. `isLocked`: a session holds its slot,
 * so whoever made it may be alive.
 */
async function findOrphan(
  context: RunContext,
  { claim, isLocked }: { readonly claim: Claim; readonly isLocked: boolean },
  signal: AbortSignal,
): Promise<Busy | undefined> {
  const ended = isLeft(claim) || claim.state === 'held';
  if (ended || claim.run === context.run.id) return undefined;
  const runner = lifeOf(context.deps.host, claim);
  if (runner === 'unknown') return undefined;
  if (runner === 'alive') return { kind: 'same-node', pid: claim.pid, since: claim.since };
  if (runner === 'elsewhere' && isLocked) return undefined;
  return (runner === 'dead' && unseen(context, claim)) || orphans(context, claim, signal);
}

/** Of another user's run nothing can be read: neither what it wrote down nor its marks. Root reads all. */
function unseen({ run }: RunContext, { uid }: Runner): Busy | undefined {
  const own = run.runner.uid;
  if (uid === undefined || own === undefined || uid === own || own === 0) return undefined;
  return { kind: 'another-user', uid };
}

async function orphans(
  { deps }: RunContext,
  { run, uid }: Pick<Claim, 'run' | 'uid'>,
  signal: AbortSignal,
): Promise<Busy | undefined> {
  const until = deps.clock.monotonicMs() + GUARD_GRACE_MS;
  for (;;) {
    const found = deps.host.survivors(run, deps.emit, uid);
    const { pids, cgroup, guarded } = found;
    if (isNobody(found) && (!guarded || deps.clock.monotonicMs() >= until)) return undefined;
    if (deps.clock.monotonicMs() >= until)
      return { kind: 'orphan', run, pids, ...(cgroup !== undefined && { cgroup }) };
    await deps.clock.sleep(LOOK_AGAIN_MS, { signal });
  }
}

/**
 * Looks at who has this node's mark. If that process is provably dead, with all it had started, its session is
 * destroyed: it would end by itself, up to twice its TTL later. Undefined: nothing stands in the way any more.
 */
async function clearDeadMark(context: RunContext, options: RetryOptions): Promise<Busy | undefined> {
  const { consul, keys, run } = context;
  const { entry } = await consul.get(keys.node(run.node), { ...options, rule: keys.rule });
  if (entry?.session === undefined) return undefined;
  const mark = decodeNodeMark(entry);
  if (mark.run !== run.id) {
    if (lifeOf(context.deps.host, mark) !== 'dead') return otherRun(run.runner, mark);
    const left = unseen(context, mark) ?? (await orphans(context, mark, options.signal));
    if (left) return left;
  }
  await consul.destroySession(entry.session, options);
  return undefined;
}
