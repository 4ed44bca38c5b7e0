/** `runlock release --force` of a waiting run: removes the run from the queue for good (docs/adr/0019). */
import { watchUntil } from '../../consul/watch.ts';
import { RunlockError, isRunlockError } from '../../errors.ts';
import { decodeNodeMark, decodeTicket } from '../../lock/records.ts';
import type { Claim, NodeMark } from '../../lock/records.ts';
import { lifeOf } from '../../lock/own-claim.ts';
import { readSlots } from '../../lock/decide.ts';
import { send, writtenIndex } from '../../consul/txn.ts';
import { sendAway } from '../../lock/transactions.ts';
import { formatAge } from '../../text/age.ts';
import { forced } from './forced.ts';
import type { ReleaseResult, Target } from './released.ts';

type SentAway = Extract<ReleaseResult, { kind: 'sent-away' }>;

/**
 * Undefined: the node is not waiting, or the node itself asks without --force.
 * @throws RunlockError `refused`: --force was not given, or the run got its slot at that very moment.
 */
export async function sendWaiterAway(target: Target): Promise<SentAway | undefined> {
  const { deps, options } = target;
  const { owner: node, group, force } = options;
  const waiter = await findWaiter(target);
  if (!waiter || (target.itself && !force)) return undefined;
  const { session, mark, ticket } = waiter;
  if (!force) {
    const since = formatAge(deps.clock.now() - Date.parse(ticket.since));
    const what = `${node} has no claim in ${group}, but has been waiting there for ${since} to run ${ticket.command} (run ${ticket.run})`;
    throw new RunlockError('refused', `${what}; to remove it from the queue: '${forced(target, { node })}'`);
  }
  const done = { kind: 'sent-away', node, group, run: mark.run } as const;
  if (lifeOf(deps.host, mark) === 'dead') {
    // The runlock is dead, so nothing would read a mark.
    await endSession(target, session);
    return { ...done, how: 'dead' };
  }
  const answerMs = await longestAnswerMs(target, session);
  const written = await putMark(target, { session, mark });
  const hears = await endSession(target, session);
  return { ...done, how: await howLeft(target, { written, answerMs, hears }) };
}

/** A run that waits outside the queue for its node's own claim. */
export interface Returner {
  readonly session: string;
  readonly mark: NodeMark;
}

/** Undefined: no run waits for that claim, or the operator asked to clear only the claim. */
export async function findReturner(target: Target, claim: Claim): Promise<Returner | undefined> {
  const { consul, keys, options, signal } = target;
  if (!options.force || options.slot !== undefined) return undefined;
  const { entry } = await consul.get(keys.node(claim.node), { signal, rule: keys.rule });
  if (entry?.session === undefined) return undefined;
  const mark = decodeNodeMark(entry);
  return mark.run === claim.run ? undefined : { session: entry.session, mark };
}

/** The new mark, which tells the run to leave for good. */
export function awayMark({ deps, options }: Target, { mark }: Returner): NodeMark & { node: string } {
  const away = { by: options.by, at: new Date(deps.clock.now()).toISOString() };
  return { ...mark, node: options.owner, away };
}

/** Ends the run's wait, after its mark was written at the index `written`. */
export async function untilAway(
  target: Target,
  { session, mark }: Returner,
  written: number,
): Promise<Pick<SentAway, 'run' | 'how'>> {
  const { run } = mark;
  const isDead = lifeOf(target.deps.host, mark) === 'dead';
  const answerMs = isDead ? 0 : await longestAnswerMs(target, session);
  const hears = await endSession(target, session);
  if (isDead) return { run, how: 'dead' };
  return { run, how: await howLeft(target, { written, answerMs, hears }) };
}

interface Waiter {
  readonly session: string;
  readonly mark: NodeMark;
  readonly ticket: ReturnType<typeof decodeTicket>;
}

async function findWaiter(target: Target): Promise<Waiter | undefined> {
  const { consul, keys, options, signal } = target;
  const limits = { signal, rule: keys.rule };
  const { entry } = await consul.get(keys.node(options.owner), limits);
  if (entry?.session === undefined) return undefined;
  const { session } = entry;
  const ticket = (await consul.get(keys.queue(session), limits)).entry;
  if (ticket?.session !== session) return undefined;
  return { session, mark: decodeNodeMark(entry), ticket: decodeTicket(ticket) };
}

/**
 * Removes the ticket and changes the node's mark in one transaction, so that no grant can follow. Returns its index.
 */
async function putMark(target: Target, { session, mark }: Omit<Waiter, 'ticket'>): Promise<number> {
  const { consul, keys, options, signal } = target;
  const steps = sendAway(keys, session, awayMark(target, { session, mark }));
  const result = await send(consul, steps, { signal, rule: keys.rule });
  if (result.kind === 'done') return writtenIndex(result.entries, keys.node(options.owner));
  throw await justGranted(target);
}

async function justGranted(target: Target): Promise<RunlockError> {
  const { consul, keys, options, signal } = target;
  const { owner: node, group } = options;
  const { entries } = await consul.list(keys.slotPrefix, { signal, rule: keys.rule });
  const now = readSlots(keys.root, entries).find(({ owner }) => owner?.claim.node === node);
  if (!now?.owner)
    return new RunlockError('refused', `${node} has just left the queue of ${group}; nothing was done`);
  const { command, run } = now.owner.claim;
  return new RunlockError(
    'refused',
    `${node} has just acquired slot ${now.slot} of ${group} and is running ${command} (run ${run}); nothing was done; to evict it: '${forced(target, { node })}'`,
  );
}

/** Ends the session, so that its runlock notices at the next renewal. Without that right (false), only when its turn comes. */
async function endSession({ consul, deps, signal }: Target, session: string): Promise<boolean> {
  try {
    await consul.destroySession(session, { signal, rule: 'session_prefix "" { policy = "write" }' });
    return true;
  } catch (error) {
    if (!isRunlockError(error, 'forbidden')) throw error;
    deps.emit({ event: 'session-left', detail: { fault: error.message, isOthers: true } });
    return false;
  }
}

interface Marked {
  /** The index of the mark. */
  readonly written: number;
  readonly answerMs: number;
  /** Whether its session was ended. */
  readonly hears: boolean;
}

async function howLeft(
  target: Target,
  { written, answerMs, hears }: Marked,
): Promise<'left' | 'silent' | 'later'> {
  if (await hasAnswered(target, written, answerMs)) return 'left';
  return hears ? 'silent' : 'later';
}

/** Time for the run to renew, make a new session and look at its mark. */
const MARGIN_MS = 10_000;

async function longestAnswerMs({ consul, signal }: Target, session: string): Promise<number> {
  const stored = await consul.readSession(session, { signal });
  const ttlMs = stored ? parseFloat(stored.ttl) * 1_000 : 0;
  return ttlMs / 3 + MARGIN_MS;
}

/** Whether the run has read the mark, which it removes after reading. */
async function hasAnswered(target: Target, written: number, withinMs: number): Promise<boolean> {
  const { consul, deps, keys, options, signal } = target;
  const { clock } = deps;
  const untilMs = clock.monotonicMs() + withinMs;
  const key = keys.node(options.owner);
  deps.emit({ event: 'sending-away', detail: { node: options.owner, group: keys.group } });
  const leftMs = () => untilMs - clock.monotonicMs();
  return watchUntil(
    (past) => consul.get(key, { ...past, signal, rule: keys.rule }),
    ({ entry }) => {
      if (entry?.modifyIndex !== written) return true;
      return leftMs() > 0 ? undefined : false;
    },
    { from: written, waitMs: leftMs },
  );
}
