/** Tickets in order: each waits for its predecessor's key alone, as in a linked (MCS) queue lock. */
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import type { Entry } from '../consul/consul.ts';
import { ask, nodeMark, timestamp } from './context.ts';
import type { RunContext } from './context.ts';
import type { Waiting } from '../platform/deps.ts';
import { readQueueMark } from './records.ts';
import { readSlots } from './decide.ts';
import type { Slot } from './decide.ts';
import { enqueue, readTurn } from './transactions.ts';
import { send } from '../consul/txn.ts';
import type { Obstacle } from './transactions.ts';

/** What one read of the group says about whose turn it is. */
export interface Turn {
  /** The session that was granted from the queue last. */
  readonly last?: string;
  readonly slots: Slot[];
  /** A watch on the slots from this index on wakes for what has changed since. */
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
  /** Who joined just before; undefined where nobody ever did, or nobody can tell. */
  readonly predecessor?: Predecessor;
}

interface Predecessor {
  readonly session: string;
  /** Of its ticket as it was seen: a watch from here on waits for what happened since. */
  readonly index: number;
}

/**
 * Joins the queue.
 * @throws RunlockError: after a transient fault the session must be destroyed; joining again with it breaks the order.
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
  };
  const steps = enqueue(keys, session, ticket, nodeMark(context));
  const result = await send(consul, steps, { signal, rule: keys.rule });
  if (result.kind === 'refused') return { kind: 'refused', obstacle: result.obstacle };
  // The answer to `set .tail` has the same key, and no value.
  const tail = result.entries.find((entry) => entry.key === keys.tail && entry.value !== '');
  const own = result.entries.find((entry) => entry.key === keys.queue(session));
  const place = { session, createIndex: own?.createIndex ?? 0 };
  // Without either of the two marks, the queue is listed.
  const before = tail && readQueueMark(tail)?.session;
  // Whoever wrote the mark joined by the same transaction.
  const predecessor = tail && before !== undefined ? { session: before, index: tail.modifyIndex } : undefined;
  return {
    kind: 'joined',
    ticket: { ...place, ...(predecessor && { predecessor }) },
    turn: toTurn(context, result.entries),
  };
}

/** Reads whose turn it is, and the slots, as they are at one moment. */
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
  const turn = { slots: readSlots(keys.root, inSlots), index };
  const entry = entries.find(({ key }) => key === keys.last);
  const last = entry && readQueueMark(entry)?.session;
  return last === undefined ? turn : { ...turn, last };
}

/** Resolves when this ticket is the first in the queue, or no longer in it. */
export async function untilFirst(
  context: RunContext,
  { ticket, turn }: { ticket: Place; turn: Turn },
  waiting: Waiting,
): Promise<{ kind: 'first'; turn: Turn } | { kind: 'ticket-lost' }> {
  let { predecessor } = ticket;
  let now = turn;
  for (;;) {
    // Whoever was granted last was first then; its successor is first now.
    if (predecessor !== undefined && now.last === predecessor.session) return { kind: 'first', turn: now };
    if (predecessor !== undefined) {
      await untilGone(context, predecessor, waiting);
      now = await readSlotsNow(context, waiting);
      if (now.last === predecessor.session) continue;
    }
    // It gave up or died, so the queue has to be listed.
    const before = await findBefore(context, ticket, waiting);
    if (before.kind === 'ticket-lost') return { kind: 'ticket-lost' };
    if (before.kind === 'first') return { kind: 'first', turn: await readSlotsNow(context, waiting) };
    predecessor = before.predecessor;
    context.deps.emit({ event: 'moved-up', group: context.keys.group, tickets: before.ahead });
  }
}

/** Watches one ticket: a watch on an existing key wakes for that key alone. */
async function untilGone(
  { consul, keys }: RunContext,
  { session, index }: Predecessor,
  waiting: Waiting,
): Promise<void> {
  // A missing key answers at once, with the index of the whole store.
  const read = (past: Past) => {
    const limits = waiting.patience.aborted ? ask(waiting) : { ...past, signal: waiting.either };
    return consul.get(keys.queue(session), { ...limits, rule: keys.rule });
  };
  const decide = ({ entry }: Awaited<ReturnType<typeof read>>) => {
    // One that no session holds (a restored export, a hand) is nobody's.
    if (entry?.session === undefined) return true;
    waiting.patience.throwIfAborted();
    return undefined;
  };
  await watchUntil(read, decide, { from: index });
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
