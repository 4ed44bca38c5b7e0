/**
 * What the first run in the queue does: it takes a slot that is free or may be taken over (docs/protocol.md, "Acquire",
 * steps 4 and 5). Also has what every way to a slot needs: sending a grant, finding out whether the grant took effect,
 * and leaving without a slot.
 */
import { lookPast } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { assertNever, isRunlockError } from '../errors.ts';
import { outOfTurn, runningClaim, trySend, sendWithin } from './context.ts';
import type { RunContext, Progress, Attempt, OutOfTurn } from './context.ts';
import { untilThawed } from './freeze.ts';
import { pause, lastWord, untilDone } from '../consul/retry.ts';
import { readSlotsNow } from './queue.ts';
import type { Turn } from './queue.ts';
import type { Session } from '../consul/session.ts';
import { decide, abandoned, isBlocked, missing, observe, readSlots } from './decide.ts';
import type { Choice, Tidy, Sightings, Slot, Owner } from './decide.ts';
import { abandon, drop, grant, notice, takeOver, changeClaim, removeSeen } from './transactions.ts';
import type { Seat, Step, Result } from './transactions.ts';
import type { Claim } from './records.ts';
import { writtenIndex, send } from '../consul/txn.ts';

/** A try can fail by chance, so a run whose wait is over tries this often before it gives up. */
export const IMPATIENT_TRIES = 3;

/** `again`: acquire has to start again with a new session. */
export type Turned = Granted | OutOfTurn | { readonly kind: 'again' };

/**
 * What a read says is believed for this long, in milliseconds. A run that was stopped meanwhile may have lost its slot
 * since. Longer than a request may take.
 */
const FRESH_MS = 10_000;

/** Watches the slots until this run gets one. */
export async function asFirst(
  context: RunContext,
  session: Session,
  { turn, progress }: { turn: Turn; progress: Progress },
): Promise<Turned> {
  const { deps, run } = context;
  let { slots, index } = turn;
  let sightings: Sightings = new Map();
  let askedMs = deps.clock.monotonicMs();
  let failures = 0;
  for (;;) {
    const monotonicMs = deps.clock.monotonicMs();
    sightings = observe(sightings, slots, monotonicMs);
    progress.blocked = { kind: 'slots', slots };
    const seen = { slots, sightings, nowMs: deps.clock.earliest(), monotonicMs };
    const move = decide({ ...run, run: run.id, session: session.id }, seen);
    if (move.kind === 'return') return { kind: 'again' };
    const isFresh = monotonicMs - askedMs <= FRESH_MS;
    if (move.kind === 'adopt' && isFresh)
      return outOfTurn(context) ?? granted(context, session, { ...move, provedMs: askedMs });
    askedMs = monotonicMs;
    if (move.kind === 'adopt') {
      ({ slots, index } = await readSlotsNow(context, progress));
      continue;
    }
    if (move.kind === 'wait') {
      failures = 0;
      progress.patience.throwIfAborted();
      standBy(context, slots);
      const watched = watchSlots(context, progress.either, { after: index, forMs: move.forMs });
      deps.emit({ event: 'first', group: context.keys.group });
      ({ slots, index } = await watched);
      continue;
    }
    const done = await make(context, session, { move, progress });
    if (done) return done;
    if (++failures >= IMPATIENT_TRIES) progress.patience.throwIfAborted();
    await pause(deps, failures, progress.signal);
    askedMs = deps.clock.monotonicMs();
    ({ slots, index } = await readSlotsNow(context, progress));
  }
}

/**
 * A run whose turn in the queue it is asks for its node's turn, too, to have it by the time that a slot is free. Behind claims
 * that stay it would keep it for nothing.
 */
export function standBy({ nodeTurn, run }: RunContext, slots: readonly Slot[]): void {
  if (isBlocked(slots, run.slots)) nodeTurn?.lend();
  else nodeTurn?.ask(run.node);
}

/** Reads the slots when they have changed since index `after`, or after `forMs`. */
export async function watchSlots(
  { consul, keys }: RunContext,
  signal: AbortSignal,
  { after, forMs }: { after: number; forMs: number | undefined },
): Promise<{ slots: Slot[]; index: number }> {
  const read = (past: Past) => consul.list(keys.slotPrefix, { ...past, signal, rule: keys.rule });
  const { entries, index } = await lookPast(read, after, forMs);
  return { slots: readSlots(keys.base, entries), index };
}

type Act = Exclude<Choice, { kind: 'wait' }>;

/** Makes a move. Undefined: the caller has to read the slots again. */
async function make(
  context: RunContext,
  session: Session,
  { move, progress }: { move: Act; progress: Progress },
): Promise<Turned | undefined> {
  if (move.kind !== 'grant' && move.kind !== 'take-over') {
    await tidy(context, move, progress.signal);
    return undefined;
  }
  const { slot } = move;
  const seat: Seat = { keys: context.keys, session: session.id, slot };
  const claim = runningClaim(context);
  const steps = move.kind === 'grant' ? grant(seat, claim) : takeOver(seat, claim, move.owner.index);
  const result = await sendGrant(context, { session, steps, slot, claim, progress });
  if (result.kind === 'again') return undefined; // The answer was lost; the next read shows the result.
  if (result.kind !== 'refused') return result;
  if (result.obstacle === 'ticket') return adoptLate(context, session, progress);
  if (result.obstacle === 'session') return { kind: 'again' };
  if (result.obstacle === 'freeze') await untilThawed(context, result.key, progress);
  return undefined;
}

/**
 * Moves another run's claim forward, if the claim has not changed since it was read. The next read shows the result.
 */
export async function tidy(context: RunContext, move: Tidy, signal: AbortSignal): Promise<void> {
  await trySend(context, tidying(context, move), signal);
}

function tidying({ deps, keys }: RunContext, { kind, owner, slot, strayLock }: Tidy): Step[] {
  const seen = { keys, slot, strayLock };
  switch (kind) {
    case 'notice':
      return notice(seen, missing(owner.claim, deps.clock.latest()), owner.index);
    case 'abandon':
      return abandon(seen, abandoned(owner.claim, deps.clock.latest()), owner.index);
    case 'remove':
      return drop(seen, owner.index);
    default:
      return assertNever(kind);
  }
}

/**
 * The ticket is gone, perhaps because an earlier grant without an answer took effect late: look for a slot of this
 * run.
 */
async function adoptLate(context: RunContext, session: Session, progress: Progress): Promise<Turned> {
  const { clock } = context.deps;
  let provedMs: number;
  let slots: readonly Slot[];
  do {
    provedMs = clock.monotonicMs();
    ({ slots } = await readSlotsNow(context, progress));
  } while (clock.monotonicMs() - provedMs > FRESH_MS);
  const mine = slots.find(
    ({ owner, lockedBy }) => owner?.claim.run === context.run.id && lockedBy === session.id,
  );
  if (!mine?.owner) return { kind: 'again' };
  return outOfTurn(context) ?? granted(context, session, { slot: mine.slot, owner: mine.owner, provedMs });
}

/** A slot that this run holds. */
export interface Grant {
  readonly context: RunContext;
  readonly session: Session;
  readonly slot: number;
  readonly owner: Owner;
  /** Grows with every grant of the slot. */
  readonly fencingToken: number;
  /** When the request was sent that proved that this run has the lock, in monotonic milliseconds. */
  readonly provedMs: number;
  /** This node's earlier claim, if the run took one back. */
  readonly before?: Claim;
}

export interface Granted {
  readonly kind: 'granted';
  readonly grant: Grant;
}

export interface GrantTry {
  readonly session: Session;
  readonly steps: readonly Step[];
  readonly slot: number;
  readonly claim: Claim;
  readonly progress: Progress;
  /** This node's earlier claim, which is restored if nothing is started after all. */
  readonly before?: Claim;
}

export type GrantResult =
  | Granted
  | OutOfTurn
  /** The answer was lost, so the grant may have taken effect. */
  | { readonly kind: 'again' }
  | Extract<Result, { kind: 'refused' }>;

/** How long to wait for the answer to a grant. If the grant takes effect later, the next read finds it. */
const GRANT_MS = 5_000;
/** The same once `--wait` is over. */
const IMPATIENT_MS = 3_000;

/** Sends a transaction that may grant the slot, if the run has its node's turn. */
export async function sendGrant(context: RunContext, it: GrantTry): Promise<GrantResult> {
  const { session, slot, claim, progress } = it;
  const late = outOfTurn(context);
  if (late) return late;
  const { clock } = context.deps;
  const provedMs = clock.monotonicMs();
  // Remember the claim from before the first attempt at this slot: a later attempt may read what the first one wrote.
  const isFirst = !progress.attempts.some((attempt) => attempt.slot === slot);
  if (isFirst) progress.attempts.push({ slot, ...(it.before && { before: it.before }) });
  const timeoutMs = progress.patience.aborted ? IMPATIENT_MS : GRANT_MS;
  const result = await sendWithin(context, it.steps, { signal: progress.signal, timeoutMs });
  // A process that was stopped may hear the answer before the timer, when another run may have the slot by then.
  const isLate = clock.monotonicMs() - provedMs > timeoutMs;
  if (result === undefined || (isLate && result.kind === 'done')) return { kind: 'again' };
  if (result.kind === 'refused') {
    if (isFirst) progress.attempts.pop();
    return result;
  }
  const index = writtenIndex(result.entries, context.keys.owner(slot));
  const before = it.before && { before: it.before };
  return granted(context, session, { slot, owner: { claim, index }, provedMs, ...before });
}

export function granted(
  context: RunContext,
  session: Session,
  it: Pick<Grant, 'slot' | 'owner' | 'provedMs' | 'before'>,
): Granted {
  return { kind: 'granted', grant: { context, session, ...it, fencingToken: it.owner.index } };
}

/**
 * Gives up a granted slot before anything was started in it, and restores the state before the grant. False: see
 * `giveUp`.
 */
export async function decline({ context, session, slot, before }: Grant): Promise<boolean> {
  return giveUp(context, session, [{ slot, ...(before && { before }) }]);
}

/** With nothing to undo, do not wait long for an agent that does not answer: the session expires by itself. */
const LEAVE_MS = 2_000;
/**
 * A claim left behind may block the slot for good, so try for longer than an election takes (12.7 to 17.5 s
 * measured).
 */
const UNDO_MS = 30_000;
const RETRY_MS = 100;

/**
 * Leaves the queue by destroying the session, after which late requests have no effect. Then undoes any grant that
 * may have taken effect without an answer. Has its own deadline. Never throws; logs what could not be undone. False:
 * something may be left behind.
 */
export async function giveUp(context: RunContext, session: Session, attempts: Attempt[]): Promise<boolean> {
  const { consul, deps, keys, run } = context;
  const signal = AbortSignal.timeout(attempts.length === 0 ? LEAVE_MS : UNDO_MS);
  try {
    const until = { signal, pauseMs: () => RETRY_MS };
    await untilDone(deps.clock, until, () => session.close({ signal }).then(() => true));
    for (const attempt of attempts)
      await untilDone(deps.clock, until, () => takeBackGrant(context, attempt, signal));
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

/** Undefined: the claim changed meanwhile, so try again. */
async function takeBackGrant(
  { consul, keys, run }: RunContext,
  { slot, before }: Attempt,
  signal: AbortSignal,
): Promise<true | undefined> {
  const { entries } = await consul.list(keys.slot(slot), { signal, rule: keys.rule });
  const owner = readSlots(keys.base, entries)[0]?.owner;
  if (owner?.claim.run !== run.id) return true;
  const steps = before
    ? changeClaim(keys, slot, before, owner.index)
    : removeSeen(keys.owner(slot), owner.index, 'owner');
  const result = await send(consul, steps, { signal, rule: keys.rule });
  return result.kind === 'done' ? true : undefined;
}
