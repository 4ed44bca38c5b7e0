/** What Consul's HTTP API sends and expects, and what the rest of the code sees of it. Pure. */
/** One key, as Consul stores it. */
export interface Entry {
  readonly key: string;
  readonly value: string;
  /** The session that holds the key's lock. */
  readonly session?: string;
  readonly createIndex: number;
  readonly modifyIndex: number;
}

export interface SessionInfo {
  readonly id: string;
  readonly node: string;
  readonly ttl: string;
  readonly behavior: string;
  /** Milliseconds. */
  readonly lockDelayMs: number;
  readonly checks: readonly string[];
}

/** One operation of a transaction (https://developer.hashicorp.com/consul/api-docs/txn). */
export type Operation =
  | { readonly verb: 'set'; readonly key: string; readonly value: string }
  | { readonly verb: 'cas'; readonly key: string; readonly value: string; readonly index: number }
  | {
      readonly verb: 'lock' | 'unlock';
      readonly key: string;
      readonly value: string;
      readonly session: string;
    }
  | { readonly verb: 'check-session'; readonly key: string; readonly session: string }
  | { readonly verb: 'check-index' | 'delete-cas'; readonly key: string; readonly index: number }
  | { readonly verb: 'check-not-exists' | 'delete' | 'get-tree'; readonly key: string };

/** What a transaction did: everything or nothing. A refusal names the operation (from 0) that refused it. */
export type Answer =
  | { readonly kind: 'done'; readonly entries: readonly Entry[] }
  | { readonly kind: 'refused'; readonly at: number; readonly why: string };

export interface StoredEntry {
  Key: string;
  Value: string | null;
  Session?: string;
  CreateIndex: number;
  ModifyIndex: number;
}

export function toEntry(stored: StoredEntry): Entry {
  return {
    key: stored.Key,
    value: stored.Value ?? '',
    ...(stored.Session !== undefined && { session: stored.Session }),
    createIndex: stored.CreateIndex,
    modifyIndex: stored.ModifyIndex,
  };
}

export interface StoredSession {
  ID: string;
  Node: string;
  TTL: string;
  Behavior: string;
  LockDelay: number;
  NodeChecks?: string[] | null;
  ServiceChecks?: unknown[] | null;
}

export function toSession(stored: StoredSession): SessionInfo {
  return {
    id: stored.ID,
    node: stored.Node,
    ttl: stored.TTL,
    behavior: stored.Behavior,
    lockDelayMs: stored.LockDelay / 1e6,
    checks: [...(stored.NodeChecks ?? []), ...(stored.ServiceChecks ?? []).map(String)],
  };
}

/** Where keys and rights are, in Consul Enterprise. */
export interface Place {
  readonly namespace?: string | undefined;
  readonly partition?: string | undefined;
}

/** As each operation of a transaction and each right that is asked for names it: Consul takes neither from the query there. */
export const placeFields = ({ namespace, partition }: Place) => ({
  ...(namespace !== undefined && { Namespace: namespace }),
  ...(partition !== undefined && { Partition: partition }),
});

export function toWire({ verb, key, ...rest }: Operation, place: Place = {}): object {
  const value = 'value' in rest ? { Value: Buffer.from(rest.value).toString('base64') } : {};
  const index = 'index' in rest ? { Index: rest.index } : {};
  const session = 'session' in rest ? { Session: rest.session } : {};
  return { KV: { Verb: verb, Key: key, ...value, ...index, ...session, ...placeFields(place) } };
}

export interface WireAnswer {
  Results?: { KV: StoredEntry }[] | null;
  Errors?: { OpIndex: number; What: string }[] | null;
}

export function isWireAnswer(body: unknown): body is WireAnswer {
  return typeof body === 'object' && body !== null && 'Results' in body && 'Errors' in body;
}

export function toAnswer({ Results, Errors }: WireAnswer): Answer {
  const [error] = Errors ?? [];
  if (error) return { kind: 'refused', at: error.OpIndex, why: error.What };
  return {
    kind: 'done',
    entries: (Results ?? []).map(({ KV }) =>
      toEntry({ ...KV, Value: Buffer.from(KV.Value ?? '', 'base64').toString('utf8') }),
    ),
  };
}
