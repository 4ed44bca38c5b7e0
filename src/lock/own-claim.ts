/**
 * A node's own claim comes first: the node's next run takes the claim back, or moves it to a slot that the run uses,
 * unless another run of the node, or a process left over from one, is in the way (docs/protocol.md, "Acquire", step
 * 1).
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
import { IMPATIENT_TRIES, standBy, tidy, watchSlots, sendGrant } from './head-of-queue.ts';
import { pause } from '../consul/retry.ts';
import type { Turned } from './head-of-queue.ts';
import { untilThawed } from './freeze.ts';
import { readSlotsNow } from './queue.ts';
import type { Turn } from './queue.ts';
import { assertNever } from '../errors.ts';

/** Why a run of this node is busy: the node already runs, waits or holds a slot in the group. */
export type Busy =
  | { readonly kind: 'same-node'; readonly pid: number; readonly since: string }
  /** A run under this node's name may be under way on another machine. `host`: the name of that machine. */
  | {
      readonly kind: 'elsewhere';
      readonly pid: number;
      readonly since: string;
      readonly host?: string;
      /** The slot that the other machine holds by `acquire`, without a running command. */
      readonly holds?: number;
    }
  /** Processes of an earlier run are still running, and their runlock is dead. */
  | {
      readonly kind: 'orphan';
      readonly run: string;
      readonly pids: readonly number[];
      /** The cgroup of the processes, when none of them has a pid in this namespace. */
      readonly cgroup?: string;
    }
  /**
   * The runlock of an earlier run is dead. Another user started it, so only root or that user can see what still
   * runs.
   */
  | { readonly kind: 'another-user'; readonly uid: number }
  /** `acquire` holds a slot for this node, and no command is running. */
  | { readonly kind: 'held'; readonly slot: number; readonly owner: Owner };

/** `again`: acquire has to start again with a new session. */
export type OwnTaken = Turned | { readonly kind: 'busy'; readonly why: Busy };

type Own = Slot & { readonly owner: Owner };

/**
 * Takes this node's own claim, in whatever slot it is, without queueing. Undefined: the node has no claim and may
 * queue.
 */
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
  const claim = { ...runningClaim(context), ...goesOn(owner.claim, context.run.id) };
  const steps = comeBack(seat, claim, nodeMark(context), owner.index);
  // If the answer to an earlier try was lost, the claim may already name this run: then use the claim from before
  // that try.
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
      // Once the time to wait is over, do not mark the node: the run stops waiting.
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
 * This node's claim is in a slot that this run does not use, because the run allows fewer slots. Watches the slots,
 * and moves the claim to a slot that the run uses as soon as the first run in the queue could get one. Needs no
 * ticket, because a node does not queue for its own claim. `seenIndex`: index of the claim when it was found to have
 * no live run behind it.
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
    // The claim has changed: another run of this node may have taken it back and be under way, so start again.
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
      standBy(context, others);
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

/** Undefined: the caller has to read the slots again. */
async function move(
  context: RunContext,
  session: Session,
  { own, slot, progress }: { own: Own; slot: number; progress: Progress },
): Promise<OwnTaken | undefined> {
  const { claim: before, index } = own.owner;
  const seat = { keys: context.keys, session: session.id, slot };
  const claim = { ...runningClaim(context), ...goesOn(before, context.run.id) };
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
 * Marks the node of a run that waits for its own claim, outside the queue. The mark makes another run of the node
 * busy at once, shows the wait in `status`, and lets an operator send the run away.
 * `node`: another run has the mark; `again`: acquire has to start again.
 */
async function markWaiting(
  context: RunContext,
  session: Session,
  progress: Progress,
): Promise<'marked' | 'node' | 'again'> {
  const { keys, run } = context;
  // From now on a run that loses its mark checks whether an operator sent it away.
  progress.newest.sent = true;
  const { node, publish } = run;
  const mark = { ...nodeMark(context), node, ...(publish && { publish }) };
  const steps = markNode(keys, session.id, mark);
  const result = await trySend(context, steps, progress.signal);
  if (result?.kind === 'done') return 'marked';
  return result?.obstacle === 'node' ? 'node' : 'again';
}

/** Another run has this node's mark: the node is busy, unless the process that set the mark is dead. */
export async function clearOrBusy(context: RunContext, waiting: Waiting): Promise<OwnTaken> {
  const why = await clearDeadMark(context, ask(waiting));
  return why ? { kind: 'busy', why } : { kind: 'again' };
}

/** Why this node's own claim can't be taken back: `acquire` holds it, or a process of its run is still running. */
async function findBusy(
  context: RunContext,
  { slot, owner, lockedBy }: Own,
  signal: AbortSignal,
): Promise<Busy | undefined> {
  if (isHeld(owner.claim, context.deps.clock.earliest())) return { kind: 'held', slot, owner };
  return findOrphan(context, { claim: owner.claim, isLocked: lockedBy !== undefined }, signal);
}

/**
 * Finds a run under this node's name that may be under way on another machine. The node is then busy: it may take
 * that claim over no earlier than any other node may. The node does not wait in the queue meanwhile, because its mark
 * there would keep the other run from taking its lock back.
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

/** Another run is under way, of this node or of another machine with the same node name. */
function otherRun(me: Runner, other: Runner & { readonly since: string }): Busy {
  const { pid, since, host } = other;
  if (!isElsewhere(me, other)) return { kind: 'same-node', pid, since };
  return { kind: 'elsewhere', pid, since, ...(host !== undefined && { host }) };
}

/**
 * The guard kills what a dead runlock left within a second or so, several on a busy host. After this long it never
 * will.
 */
const GUARD_GRACE_MS = 10_000;
const LOOK_AGAIN_MS = 100;

/**
 * Whether the process is alive on this boot of this host. `unknown`: it ran on another boot or host. `elsewhere`: it
 * ran on this boot but in another namespace, so its pid and start time can't be compared with those seen here.
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
 * Which processes of the run that made this claim are still running after its guard had time to kill them.
 * `isLocked`: a session holds the slot's lock, so the runlock that made the claim may be alive.
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

/**
 * Another user's run can't be inspected: neither its files nor the marks of its processes are readable, except by
 * root.
 */
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
 * Checks which process set this node's mark. If that process and all that it started are provably dead, destroys its
 * session, which otherwise takes up to twice its TTL to expire. Undefined: nothing is in the way any more.
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
