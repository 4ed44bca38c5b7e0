/** The inbox of one principal: which requests are open on this node, oldest first, followed by one blocking query of names. */
import type { Consul, Entry, RetryOptions } from '../consul/consul.ts';
import { send } from '../consul/txn.ts';
import { lookPast } from '../consul/watch.ts';
import type { JobRef } from '../jobs/keys.ts';
import { isJobId, isReader, requestKeys } from '../jobs/keys.ts';
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
}

/**
 * All that is open, by the job's id, oldest first. Whoever is done with one removes it: if its name stands there again, that
 * is another request.
 */
export type OpenRequests = Map<string, OpenRequest>;

/** Somebody reads a log of this node. */
export interface SeenReader {
  readonly reader: string;
  readonly key: string;
  /** Consul's index when it came, and of what it asked for last. */
  readonly order: number;
  readonly index: number;
  readonly value: string;
}

export interface Following {
  readonly open: OpenRequests;
  /** The same for all who read logs now. */
  readonly read: (readers: readonly SeenReader[]) => void;
  /** Hears, at first and after each change, which names stand there; new ones are in `open` by then. */
  readonly changed: (named: ReadonlySet<string>) => void;
}

/** A flood of requests is read at most this often. */
const PAUSE_MS = 100;
/** The larger the inbox, the more each read of it costs everybody. */
const PAUSE_EACH_MS = 0.1;

/** Until `signal` aborts. @throws RunlockError when the rights are missing. */
export async function followInbox(
  inbox: Inbox,
  { open, read, changed }: Following,
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
    const named = new Set(seen.names.map((key) => key.slice(folder.length)).filter(isJobId));
    const found: OpenRequest[] = [];
    for (const ids of pages([...named].filter((id) => !open.has(id)))) {
      const keys = ids.map((id) => folder + id);
      const entries = await readThere(consul, keys, { signal, rule });
      found.push(...toOpen(principal, folder, entries));
    }
    for (const request of oldestFirst(found)) open.set(request.ref.id, request);
    changed(named);
    const logs = requestKeys(prefix, principal).logsPrefix(node);
    const isRead = seen.names.includes(logs);
    read(isRead ? toReaders(logs, (await consul.list(logs, { signal, rule })).entries) : []);
    await clock.sleep(PAUSE_MS + named.size * PAUSE_EACH_MS, { signal });
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

/** Of pointers, read at once: their values come along, each as large as Consul takes. */
const PAGE = 16;

const pages = (ids: readonly string[]): readonly (readonly string[])[] =>
  Array.from({ length: Math.ceil(ids.length / PAGE) }, (_, at) => ids.slice(at * PAGE, (at + 1) * PAGE));

/** Those of these keys that are there. */
async function readThere(
  consul: Consul,
  keys: readonly string[],
  options: RetryOptions,
): Promise<readonly Entry[]> {
  for (let left = keys; left.length > 0;) {
    const answer = await consul.tryRead(
      left.map((key) => ({ verb: 'get', key })),
      options,
    );
    if (answer.kind === 'done') return answer.entries;
    // It was removed meanwhile.
    left = left.filter((_, at) => at !== answer.at);
  }
  return [];
}

const toOpen = (principal: string, folder: string, entries: readonly Entry[]): readonly OpenRequest[] =>
  entries.map(({ key, createIndex }) => ({
    ref: { principal, id: key.slice(folder.length) },
    order: createIndex,
  }));

const oldestFirst = (requests: readonly OpenRequest[]): readonly OpenRequest[] =>
  [...requests].sort((a, b) => a.order - b.order || (a.ref.id < b.ref.id ? -1 : 1));

/** The first one that came comes first. Pure. */
export function toReaders(
  folder: string,
  entries: readonly Pick<Entry, 'key' | 'createIndex' | 'modifyIndex' | 'value'>[],
): readonly SeenReader[] {
  return entries
    .map(({ key, createIndex, modifyIndex, value }) => ({
      reader: key.slice(folder.length),
      key,
      value,
      order: createIndex,
      index: modifyIndex,
    }))
    .filter(({ key, reader }) => key.startsWith(folder) && isReader(reader))
    .sort((a, b) => a.order - b.order || (a.key < b.key ? -1 : 1));
}
