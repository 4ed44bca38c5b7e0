/**
 * Consul's key-value store with sessions, as far as the protocol uses it: what its transactions do, all or nothing.
 * Pure: every change gives another store. Sessions are deleted with what they hold (`Behavior delete`, no lock-delay).
 */
import type { Answer, Entry, Operation } from '../../src/consul/consul.ts';

export interface Store {
  readonly entries: readonly Entry[];
  /** The sessions that live. */
  readonly sessions: readonly string[];
  /** The index of the last change. */
  readonly index: number;
}

/** `seize` is `lock` without its refusal: only a model of broken code sends it. */
export type Request =
  | Operation
  | { readonly verb: 'seize'; readonly key: string; readonly value: string; readonly session: string };

export const emptyStore: Store = { entries: [], sessions: [], index: 0 };

export const get = (store: Store, key: string): Entry | undefined =>
  store.entries.find((entry) => entry.key === key);

export const list = (store: Store, prefix: string): Entry[] =>
  store.entries.filter((entry) => entry.key.startsWith(prefix));

export const openSession = (store: Store, session: string): Store => ({
  ...store,
  sessions: [...store.sessions, session],
});

/** Expired or destroyed: the keys that it holds go with it. */
export function endSession(store: Store, session: string | undefined): Store {
  if (session === undefined || !store.sessions.includes(session)) return store;
  const sessions = store.sessions.filter((other) => other !== session);
  const entries = store.entries.filter((entry) => entry.session !== session);
  const index = entries.length === store.entries.length ? store.index : store.index + 1;
  return { entries, sessions, index };
}

interface Draft {
  readonly entries: Entry[];
  readonly sessions: readonly string[];
  /** The index that every change of this transaction gets. */
  readonly index: number;
}

/** Sends the operations as one transaction. */
export function transact(
  store: Store,
  operations: readonly Request[],
): { readonly answer: Answer; readonly store: Store } {
  const draft: Draft = { entries: [...store.entries], sessions: store.sessions, index: store.index + 1 };
  const entries: Entry[] = [];
  for (const [at, operation] of operations.entries()) {
    const done = operate(draft, operation);
    if (typeof done === 'string') return { answer: { kind: 'refused', at, why: done }, store };
    entries.push(...done);
  }
  return { answer: { kind: 'done', entries }, store: draft };
}

/** What the operation answers with, or why it is refused. */
function operate(draft: Draft, operation: Request): Entry[] | string {
  const { key } = operation;
  if (operation.verb === 'get-tree') return draft.entries.filter((entry) => entry.key.startsWith(key));
  const found = draft.entries.find((entry) => entry.key === key);
  switch (operation.verb) {
    case 'get':
      return found ? [found] : `key "${key}" doesn't exist`;
    case 'check-not-exists':
      return found ? `key "${key}" exists` : [];
    case 'check-index':
      return found?.modifyIndex === operation.index ? [blank(found)] : `index mismatch for key "${key}"`;
    case 'check-session':
      return found && found.session === operation.session
        ? [blank(found)]
        : `session mismatch for key "${key}"`;
    case 'delete':
      return remove(draft, found);
    case 'delete-tree':
      for (const entry of draft.entries.filter((each) => each.key.startsWith(key))) remove(draft, entry);
      return [];
    case 'delete-cas':
      // Consul calls a key that is not there deleted.
      if (!found || found.modifyIndex === operation.index) return remove(draft, found);
      return `failed to delete key "${key}", index is stale`;
    case 'set':
      return write(draft, operation, found?.session);
    case 'cas':
      if ((found?.modifyIndex ?? 0) === operation.index) return write(draft, operation, found?.session);
      return `failed to set key "${key}", index is stale`;
    case 'unlock':
      if (found?.session !== operation.session)
        return `failed to unlock key "${key}", lock isn't held, or is held by another session`;
      return write(draft, operation, undefined);
    case 'lock':
    case 'seize':
      return lock(draft, operation, found);
  }
}

function lock(
  draft: Draft,
  operation: {
    readonly verb: Request['verb'];
    readonly key: string;
    readonly value: string;
    readonly session: string;
  },
  found: Entry | undefined,
): Entry[] | string {
  const { verb, key, session } = operation;
  if (!draft.sessions.includes(session)) return `invalid session "${session}"`;
  const isHeld = found?.session !== undefined && found.session !== session;
  if (isHeld && verb === 'lock') return `failed to lock key "${key}", lock is already held`;
  return write(draft, operation, session);
}

/** Writing what is there already leaves the key's index as it is (docs/adr/0010). */
function write(
  draft: Draft,
  { key, value }: { readonly key: string; readonly value: string },
  session: string | undefined,
): Entry[] {
  const at = draft.entries.findIndex((entry) => entry.key === key);
  const found = draft.entries[at];
  if (found && found.value === value && found.session === session) return [blank(found)];
  const createIndex = found?.createIndex ?? draft.index;
  const held = session === undefined ? {} : { session };
  const written: Entry = { key, value, ...held, createIndex, modifyIndex: draft.index };
  if (found) draft.entries[at] = written;
  else draft.entries.push(written);
  return [blank(written)];
}

function remove(draft: Draft, found: Entry | undefined): Entry[] {
  if (found) draft.entries.splice(draft.entries.indexOf(found), 1);
  return [];
}

/** Everything but a read is answered without the value. */
const blank = (entry: Entry): Entry => ({ ...entry, value: '' });
