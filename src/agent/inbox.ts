/** The inbox of one principal: which requests are open on this node, oldest first, followed by one blocking query of names. */
import type { Consul } from '../consul/consul.ts';
import { send } from '../consul/txn.ts';
import { lookPast } from '../consul/watch.ts';
import type { JobRef } from '../jobs/keys.ts';
import { isJobId, requestKeys } from '../jobs/keys.ts';
import { requestRule } from '../jobs/read.ts';
import type { Clock } from '../platform/deps.ts';

export interface Inbox {
  readonly consul: Consul;
  readonly clock: Clock;
  readonly prefix: string;
  readonly node: string;
  readonly principal: string;
}

/** A request that is open on this node. */
export interface OpenRequest {
  readonly ref: JobRef;
  /** Consul's index when its pointer was written: the order of requests. */
  readonly order: number;
  /** That of the pointer's last change: one that was set again is another. */
  readonly change: number;
  /** How many of the same principal came before it. */
  readonly older: number;
}

/** A flood of requests is read at most this often. */
const PAUSE_MS = 100;
/** The larger the inbox, the more each read of it costs everybody. */
const PAUSE_EACH_MS = 0.02;

/** Calls `changed` with what is open, at first and after each change, until `signal` aborts. @throws RunlockError when the rights are missing. */
export async function followInbox(
  inbox: Inbox,
  changed: (open: readonly OpenRequest[]) => void,
  signal: AbortSignal,
): Promise<never> {
  const { consul, clock, prefix, node, principal } = inbox;
  const folder = requestKeys(prefix, principal).inboxPrefix(node);
  const rule = requestRule(prefix);
  await openInbox(inbox, signal);
  for (let index = 0; ;) {
    // Names only: a flood of large values would travel at each wake.
    const seen = await lookPast((past) => consul.indexOf(folder, { ...past, signal, rule }), index);
    const isNews = seen.index !== index;
    ({ index } = seen);
    if (!isNews) continue;
    const { entries } = await consul.list(folder, { signal, rule });
    changed(toOpen(principal, folder, entries));
    await clock.sleep(PAUSE_MS + entries.length * PAUSE_EACH_MS, { signal });
  }
}

/**
 * A watch on a folder without a key wakes for every neighbour of it, so there is one. It is tried even where it is
 * there: without the right to write here, the end of a run could not be recorded, and Consul says so before any run.
 */
async function openInbox({ consul, prefix, node, principal }: Inbox, signal: AbortSignal): Promise<void> {
  const key = requestKeys(prefix, principal).open(node);
  const rule = `key_prefix "${requestKeys(prefix, principal).inboxPrefix(node)}" { policy = "write" }`;
  await send(consul, [{ operation: { verb: 'cas', key, value: '', index: 0 }, means: 'there' }], {
    signal,
    rule,
  });
}

interface Pointing {
  readonly key: string;
  readonly createIndex: number;
  readonly modifyIndex: number;
}

/** Oldest first. Other keys in the folder are nobody's request. Pure. */
export function toOpen(
  principal: string,
  folder: string,
  entries: readonly Pointing[],
): readonly OpenRequest[] {
  return entries
    .map(({ key, createIndex, modifyIndex }) => ({
      id: key.slice(folder.length),
      order: createIndex,
      change: modifyIndex,
    }))
    .filter(({ id }) => isJobId(id))
    .sort((a, b) => a.order - b.order || (a.id < b.id ? -1 : 1))
    .map(({ id, order, change }, older) => ({ ref: { principal, id }, order, change, older }));
}
