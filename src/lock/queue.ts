/** The queue: each ticket watches only the key of the ticket before it, as in a linked (MCS) queue lock. */
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { Entry } from '../consul/consul.ts';
import { ask, nodeMark, timestamp } from './context.ts';
import type { NodeTurn, RunContext } from './context.ts';
import { findFreeze } from './freeze.ts';
import type { Waiting } from '../platform/deps.ts';
import { readQueueMark } from './records.ts';
import { isBlocked, readSlots } from './decide.ts';
import type { Slot } from './decide.ts';
import { enqueue, readTurn } from './transactions.ts';
import { send } from '../consul/txn.ts';
import type { Obstacle } from './transactions.ts';

/** What one read of the group says about whose turn it is. */
export interface Turn {
  /** The session that was granted from the queue last. */
  readonly last?: string;
  readonly slots: Slot[];
  /** A watch on the slots from this index wakes for every change since this read. */
  readonly index: number;
}

export type Joined =
  | { readonly kind: 'joined'; readonly ticket: Place; readonly turn: Turn }
  | { readonly kind: 'refused'; readonly obstacle: Obstacle };

/** A ticket in the queue. */
export interface Place {
  readonly session: string;
  /** Orders the tickets: Consul's index never goes backwards. */
  readonly createIndex: number;
  /** The ticket just before this one; undefined: there never was one, or `.tail` can't be read. */
  readonly predecessor?: Predecessor;
}

interface Predecessor {
  readonly session: string;
  /** The index of that ticket when it was read: a watch from this index wakes for every change since. */
  readonly index: number;
}

/**
 * Joins the queue.
 * @throws RunlockError: after a transient fault destroy the session; joining again with the same one breaks the order.
 */
export async function join(context: RunContext, session: string, signal: AbortSignal): Promise<Joined> {
  const { consul, keys, run } = context;
  const ticket = {
    node: run.node,
    run: run.id,
    since: timestamp(context),
    command: run.command,
    pid: run.runner.pid,
    ...(run.groups && { groups: run.groups }),
    ...(run.publish && { publish: run.publish }),
  };
  const steps = enqueue(keys, session, ticket, nodeMark(context));
  const result = await send(consul, steps, { signal, rule: keys.rule });
  if (result.kind === 'refused') return { kind: 'refused', obstacle: result.obstacle };
  // The answer to `set .tail` has the same key but no value.
  const tail = result.entries.find((entry) => entry.key === keys.tail && entry.value !== '');
  const own = result.entries.find((entry) => entry.key === keys.queue(session));
  const place = { session, createIndex: own?.createIndex ?? 0 };
  // If `.tail` or `.last` is missing, `untilFirst` lists the queue instead.
  const before = tail && readQueueMark(tail)?.session;
  // The session in `.tail` wrote it in the transaction by which it joined, so its ticket has the same index.
  const predecessor = tail && before !== undefined ? { session: before, index: tail.modifyIndex } : undefined;
  return {
    kind: 'joined',
    ticket: { ...place, ...(predecessor && { predecessor }) },
    turn: toTurn(context, result.entries),
  };
}

/** Reads whose turn it is and the slots, in one transaction. */
export async function readSlotsNow(context: RunContext, waiting: Waiting, timeoutMs?: number): Promise<Turn> {
  const { consul, keys } = context;
  const entries = await consul.readAll(
    readTurn(keys).map((step) => step.operation),
    { ...ask(waiting), rule: keys.rule, ...(timeoutMs !== undefined && { timeoutMs }) },
  );
  return toTurn(context, entries);
}

function toTurn({ keys }: RunContext, entries: readonly Entry[]): Turn {
  const inSlots = entries.filter((entry) => entry.key.startsWith(keys.slotPrefix));
  const index = Math.max(0, ...inSlots.map((entry) => entry.modifyIndex));
  const turn = { slots: readSlots(keys.base, inSlots), index };
  const entry = entries.find(({ key }) => key === keys.last);
  const last = entry && readQueueMark(entry)?.session;
  return last === undefined ? turn : { ...turn, last };
}

/** Resolves when this ticket is first in the queue, or is no longer in the queue. */
export async function untilFirst(
  context: RunContext,
  { ticket, turn }: { ticket: Place; turn: Turn },
  waiting: Waiting,
): Promise<{ kind: 'first'; turn: Turn } | { kind: 'ticket-lost' }> {
  let { predecessor } = ticket;
  let now = turn;
  for (;;) {
    // If the predecessor was granted last, it was first in the queue then, so this ticket is first now.
    if (predecessor !== undefined && now.last === predecessor.session) return { kind: 'first', turn: now };
    if (predecessor !== undefined) {
      await untilGone(context, predecessor, waiting);
      now = await readSlotsNow(context, waiting);
      if (now.last === predecessor.session) continue;
    }
    // The predecessor gave up or died, or is not known, so list the queue to find out which ticket is next.
    const before = await findBefore(context, ticket, waiting);
    if (before.kind === 'ticket-lost') return { kind: 'ticket-lost' };
    if (before.kind === 'first') return { kind: 'first', turn: await readSlotsNow(context, waiting) };
    predecessor = before.predecessor;
    context.deps.emit({ event: 'moved-up', group: context.keys.group, tickets: before.ahead });
  }
}

/** Watches one ticket: a watch on an existing key wakes for that key alone. */
async function untilGone(
  context: RunContext,
  { session, index }: Predecessor,
  waiting: Waiting,
): Promise<void> {
  const { consul, keys } = context;
  const { nodeTurn } = context;
  // For a missing key Consul answers at once, with the index of the whole store.
  const read = (past: Past) => {
    const limits = waiting.patience.aborted ? ask(waiting) : { ...past, signal: waiting.either };
    return consul.get(keys.queue(session), { ...limits, rule: keys.rule });
  };
  const decide = async ({ entry }: Awaited<ReturnType<typeof read>>) => {
    // A ticket without a session (from a restored export, or written by hand) belongs to no run.
    if (entry?.session === undefined) return true;
    waiting.patience.throwIfAborted();
    if (nodeTurn?.isLent() === false) await letPass(context, nodeTurn, waiting);
    return undefined;
  };
  const waitMs = () => (nodeTurn?.isLent() === false ? LEND_AFTER_MS : undefined);
  await watchUntil(read, decide, { from: index, waitMs });
}

/** A run that has waited in the queue for this long lets others have its node's turn. */
const LEND_AFTER_MS = 10_000;
const LOOK_MS = 5_000;

/** Lends the node's turn, unless the run would lose too much by that and the queue can still move. */
async function letPass(context: RunContext, nodeTurn: NodeTurn, waiting: Waiting): Promise<void> {
  if (!nodeTurn.keeps() || (await isStuck(context, waiting))) nodeTurn.lend();
}

async function isStuck(context: RunContext, waiting: Waiting): Promise<boolean> {
  try {
    const [frozen, { slots }] = await Promise.all([
      findFreeze(context, waiting, LOOK_MS),
      readSlotsNow(context, waiting, LOOK_MS),
    ]);
    return frozen !== undefined || isBlocked(slots, context.run.slots);
  } catch {
    // Nobody knows: the next look may. What ends the wait ends the watch, too.
    return false;
  }
}

type Before =
  | { readonly kind: 'behind'; readonly predecessor: Predecessor; readonly ahead: readonly string[] }
  | { readonly kind: 'first' }
  | { readonly kind: 'ticket-lost' };

async function findBefore({ consul, keys }: RunContext, ticket: Place, waiting: Waiting): Promise<Before> {
  const { entries } = await consul.list(keys.queuePrefix, { ...ask(waiting), rule: keys.rule });
  const held = entries.filter((entry) => entry.session !== undefined);
  const order = held.sort((a, b) => a.createIndex - b.createIndex);
  const place = order.findIndex(({ key }) => key === keys.queue(ticket.session));
  if (place === -1) return { kind: 'ticket-lost' };
  const before = order[place - 1];
  if (before === undefined) return { kind: 'first' };
  const predecessor = { session: before.key.slice(keys.queuePrefix.length), index: before.modifyIndex };
  return { kind: 'behind', predecessor, ahead: order.slice(0, place).map(({ key }) => key) };
}
