/** Gets a slot: docs/protocol.md, "Acquire", steps 1 to 5. */
import { FIRST_CONTACT, isTransient } from '../consul/consul.ts';
import type { Consul, Entry } from '../consul/consul.ts';
import { endedBy } from '../platform/deps.ts';
import type { Deps, Waiting } from '../platform/deps.ts';
import { RunlockError, isRunlockError } from '../errors.ts';
import { ask, emitQueued, outOfTurn, trySend } from './context.ts';
import type { Blocked, NodeTurn, OutOfTurn, Progress, Run, RunContext, TurnBusy } from './context.ts';
import { isTaken, unnoticed, VANISHED_AFTER_MS } from './decide.ts';
import { findFreeze } from './freeze.ts';
import { clearOrBusy, takeOwn } from './own-claim.ts';
import { IMPATIENT_TRIES, asFirst, tidy, giveUp } from './head-of-queue.ts';
import { pause } from '../consul/retry.ts';
import type { Granted } from './head-of-queue.ts';
import { groupKeys } from './keys.ts';
import { isName } from '../text/words.ts';
import { join, readSlotsNow, untilFirst } from './queue.ts';
import type { Turn } from './queue.ts';
import type { Busy, OwnTaken } from './own-claim.ts';
import { openSession } from '../consul/session.ts';
import type { Session } from '../consul/session.ts';
import type { Slot } from './decide.ts';
import { readLeft, removeSeen } from './transactions.ts';
import { decodeNodeMark } from './records.ts';
import type { Away } from './records.ts';

export interface AcquireRequest {
  readonly prefix: string;
  readonly group: string;
  /** The node's name; the local agent's node name by default. */
  readonly node?: string;
  readonly run: Omit<Run, 'node'>;
  readonly ttlMs: number;
  /** Undefined: the run needs no turn of its node. */
  readonly turn?: NodeTurn;
  /** The run has slots of other groups: it does not wait for its node's turn with them. */
  readonly hasSlots?: true;
}

export type Acquired =
  | Granted
  | { readonly kind: 'busy'; readonly context: RunContext; readonly why: Busy | Blocked | TurnBusy }
  /** Only with `hasSlots`: the run has to give them up, and to ask anew. */
  | { readonly kind: 'out-of-turn' }
  /** An operator removed the run from the queue. */
  | { readonly kind: 'sent-away'; readonly context: RunContext; readonly by: string };

type Step1to5 = Exclude<Acquired, { kind: 'out-of-turn' }> | OutOfTurn | { readonly kind: 'again' };

const CLOSE_MS = 5_000;
const LAST_LOOK_MS = 3_000;

/**
 * Waits for a slot, first come, first served.
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
    if (result.kind === 'its-turn') continue;
    if (result.kind !== 'again') return result;
    const { context } = result;
    if (context && waiting.patience.aborted && tries >= IMPATIENT_TRIES)
      return { kind: 'busy', context, why: progress.blocked };
    await pause(effects.deps, tries, waiting.signal);
  }
}

type Tried =
  | Acquired
  | { readonly kind: 'again'; readonly context?: RunContext }
  /** The run has waited for its node's turn. */
  | { readonly kind: 'its-turn' };

/** One try with its own session. Unless the try gets a slot, it leaves nothing behind in Consul. */
async function tryOnce(
  effects: { consul: Consul; deps: Deps },
  request: AcquireRequest,
  { progress, isFirst }: { progress: Progress; isFirst: boolean },
): Promise<Tried> {
  const session = await newSession(effects, request, { waiting: progress, isFirst });
  if (!session) return { kind: 'again' };
  const context = await toContext(effects, request, session);
  const result = outOfTurn(context) ?? (await tryWith(context, session, progress));
  if (result.kind === 'granted') return result;
  await giveUp(context, session, progress.attempts);
  if (result.kind !== 'out-of-turn') return result.kind === 'again' ? { kind: 'again', context } : result;
  if (request.hasSlots) return { kind: 'out-of-turn' };
  // Nothing of the run may stay in Consul while it waits on its host.
  if (progress.attempts.length > 0) return { kind: 'again', context };
  const why = await result.wait(effects.deps, progress);
  return why ? { kind: 'busy', context, why } : { kind: 'its-turn' };
}

/**
 * Undefined: the session was lost as soon as it was made, or `--wait` ended meanwhile. The caller then tries again.
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
    // Consul is reachable as far as we know, so let the next try find out why no slot is available.
    const fault = effects.consul.fault();
    if (!fault) return undefined;
    throw fault;
  }
}

/** The error for a wait that ended before Consul told anything about the group: the cause is Consul, not the group. */
function noAnswer(consul: Consul, cause: unknown): RunlockError {
  const fault = consul.fault();
  const message = `Consul at ${consul.address} did not answer within --wait; is the agent healthy?`;
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
  const { prefix, group, run, turn, hasSlots } = request;
  const nodeTurn = turn && hasSlots ? { ...turn, keeps: () => true } : turn;
  return { ...effects, keys: groupKeys(prefix, group), run: { ...run, node }, nodeTurn };
}

/** One try with one session. After an error nothing of the try is left in Consul. */
async function tryWith(context: RunContext, session: Session, progress: Progress): Promise<Step1to5> {
  const own = { ...progress, ...endedBy(progress, session.lost) };
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

/** What blocks the run at the end of the wait. Reads again, because the runs seen at its start may be long gone. */
async function blockedNow(context: RunContext, session: Session, progress: Progress): Promise<Blocked> {
  if (progress.blocked.kind === 'frozen') return progress.blocked;
  try {
    const [frozen, { slots }] = await Promise.all([
      // Only the first run in the queue notices a freeze, so check for one here.
      findFreeze(context, progress, LAST_LOOK_MS),
      readSlotsNow(context, progress, LAST_LOOK_MS),
    ]);
    if (frozen) return frozen;
    // A slot is free, so the slots do not explain the wait. If Consul had a fault, the fault does.
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
  const { emit } = context.deps;
  const away = await lookBack(context, progress);
  if (away) return { kind: 'sent-away', context, by: away.by };
  const turn = await readSlotsNow(context, progress);
  const own = await takeOwn(context, session, { turn, progress });
  if (own) return inContext(own, context);
  progress.newest.sent = true;
  const joining = join(context, session.id, progress.signal);
  // A slot is free, so a grant is likely: let listeners prepare for it while Consul answers.
  if (hasFree(turn.slots, context.run.slots)) emit({ event: 'near', group: context.keys.group });
  const joined = await joining;
  if (joined.kind === 'refused') {
    if (joined.obstacle !== 'node') return { kind: 'again' };
    return inContext(await clearOrBusy(context, progress), context);
  }
  progress.blocked = { kind: 'slots', slots: joined.turn.slots };
  progress.newest.index = joined.ticket.createIndex;
  const behind =
    joined.ticket.predecessor !== undefined && joined.ticket.predecessor.session !== joined.turn.last;
  emitQueued(context, session.id, { behind, slots: joined.turn.slots });
  const seen = await noticeMissing(context, joined.turn, progress);
  const first = await untilFirst(context, { ticket: joined.ticket, turn: seen }, progress);
  return first.kind === 'ticket-lost'
    ? { kind: 'again' }
    : asFirst(context, session, { turn: first.turn, progress });
}

const inContext = (taken: OwnTaken, context: RunContext): Step1to5 =>
  taken.kind === 'busy' ? { ...taken, context } : taken;

/**
 * Records which runs have lost their locks. Every run does this when it joins, even if it is not first in the queue:
 * it may give up soon, and later runs can then count the time since this record.
 */
async function noticeMissing(context: RunContext, turn: Turn, progress: Progress): Promise<Turn> {
  const found = unnoticed(turn.slots);
  for (const slot of found) await tidy(context, { kind: 'notice', ...slot }, progress.signal);
  return found.length === 0 ? turn : readSlotsNow(context, progress);
}

/**
 * Checks, before a run that lost its place in the queue rejoins, whether an operator sent it away and whether
 * Consul's data went back in time. Returns who sent it away; undefined: it may join. A run that never lost its place
 * makes no request.
 */
async function lookBack(context: RunContext, progress: Progress): Promise<Away | undefined> {
  const { consul, keys, run } = context;
  if (!progress.newest.sent) return undefined;
  const entries = await consul.readAll(
    readLeft(keys, run.node).map((step) => step.operation),
    { ...ask(progress), rule: keys.rule },
  );
  const away = await sentAway(context, entries, progress.signal);
  if (!away) await untilClaimedAgain(context, progress, entries);
  return away;
}

/** Returns the operator who sent this run away, and removes the mark that says so, because it has been read. */
async function sentAway(
  context: RunContext,
  entries: readonly Entry[],
  signal: AbortSignal,
): Promise<Away | undefined> {
  const { keys, run } = context;
  const key = keys.node(run.node);
  const entry = entries.find((each) => each.key === key);
  const mark = entry?.session === undefined ? readMark(entry) : undefined;
  if (!entry || !mark?.away || mark.run !== run.id) return undefined;
  // If this fails, the node's next run overwrites the mark.
  await trySend(context, removeSeen(key, entry.modifyIndex, 'node'), signal);
  return mark.away;
}

/** Ignores a value that runlock did not write: the next mark overwrites it. */
function readMark(entry: Entry | undefined) {
  try {
    return entry && decodeNodeMark(entry);
  } catch {
    return undefined;
  }
}

/**
 * After a snapshot was restored, or the group was deleted by hand, runs may be under way whose claims are gone. Each
 * of them notices, at its next renewal at the latest, and claims its slot again. A run that rejoins the queue before
 * that would start beside them. A run that has queued before can detect this: every ticket leaves its index in
 * `.tail`, and the index only grows. If `.tail` is older than its own ticket, it waits for as long as a run without a
 * lock is believed alive.
 */
async function untilClaimedAgain(
  { deps, keys }: RunContext,
  { newest, either }: Progress,
  entries: readonly Entry[],
): Promise<void> {
  if (newest.index === 0) return;
  const tail = entries.find(({ key }) => key === keys.tail);
  if (tail !== undefined && tail.modifyIndex >= newest.index) return;
  deps.emit({ event: 'went-back', group: keys.group, detail: { pauseMs: VANISHED_AFTER_MS } });
  await deps.clock.sleep(VANISHED_AFTER_MS, { signal: either });
  newest.index = 0;
}
