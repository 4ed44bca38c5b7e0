/** What Consul's HTTP API sends and expects, and what the rest of the code sees of it. */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

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

/* What `doctor` asks of the agent, and what the answer says beside its body: the agent's clock, its certificate. */

/** Paths below `/v1` that only read, and that nothing else needs. */
export type Question =
  '/status/leader' | '/agent/self' | '/agent/members' | '/catalog/nodes' | '/acl/token/self';

export interface Inspection {
  readonly body: unknown;
  /** The agent's wall clock, in whole seconds, as milliseconds since the epoch; undefined: it did not say. */
  readonly date?: number;
  /** Where the connection leads; undefined for a Unix socket. */
  readonly remote?: Remote;
  readonly certificate?: Certificate;
}

export interface Remote {
  readonly address: string;
  readonly port: number;
}

/** The agent's own certificate. */
export interface Certificate {
  /** Milliseconds since the epoch. */
  readonly validTo: number;
  /** Why it would be refused, where nothing is verified; undefined: it would not. */
  readonly distrust?: string;
}

/** Node takes the connection from an answer when it is whole, to use it again. */
const connections = new WeakMap<IncomingMessage, Socket>();

/** Remembers the connection that an answer has begun to come by. */
export function noteConnection(response: IncomingMessage): void {
  connections.set(response, response.socket);
}

export function toInspection(response: IncomingMessage & { body?: unknown }): Inspection {
  const { headers, body } = response;
  const socket = connections.get(response);
  const date = Date.parse(headers.date ?? '');
  const { remoteAddress, remotePort } = socket ?? {};
  const certificate = socket && isTls(socket) ? toCertificate(socket) : undefined;
  return {
    body,
    ...(!Number.isNaN(date) && { date }),
    ...(remoteAddress !== undefined &&
      remotePort !== undefined && { remote: { address: remoteAddress, port: remotePort } }),
    ...(certificate && { certificate }),
  };
}

/** By what it can do: to load node:tls takes a millisecond, and most runs need none of it. */
const isTls = (socket: Socket): socket is TLSSocket => 'getPeerCertificate' in socket;

function toCertificate(socket: TLSSocket): Certificate | undefined {
  const validTo = Date.parse(socket.getPeerCertificate().valid_to);
  if (Number.isNaN(validTo)) return undefined;
  // Typed as an error, and is its code or its text.
  const distrust = socket.authorized ? undefined : String(socket.authorizationError);
  return { validTo, ...(distrust !== undefined && { distrust }) };
}
