/** Translates between Consul's HTTP API and the types that the rest of the code uses. */
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
  | {
      readonly verb: 'check-not-exists' | 'delete' | 'delete-tree' | 'get' | 'get-tree';
      readonly key: string;
    };

/** The result of a transaction, which does everything or nothing. `at`: the refused operation, counted from 0. */
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

/** Another server's JSON may be a list too. */
export function isStoredEntry(found: unknown): found is StoredEntry {
  return typeof found === 'object' && found !== null && 'Key' in found && 'ModifyIndex' in found;
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

/**
 * The fields for operations of a transaction and for rights, where Consul ignores namespace and partition in the
 * query.
 */
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
  if (typeof body !== 'object' || body === null || !('Results' in body && 'Errors' in body)) return false;
  const { Results } = body;
  return Results === null || (Array.isArray(Results) && Results.every(isResult));
}

const isResult = (found: unknown) =>
  typeof found === 'object' && found !== null && 'KV' in found && isStoredEntry(found.KV);

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

/* What `doctor` asks the agent, and what the answers show beside the body: the agent's clock and certificate. */

/** Read-only paths below `/v1` that only `doctor` needs. */
export type Question =
  '/status/leader' | '/agent/self' | '/agent/members' | '/catalog/nodes' | '/acl/token/self';

export interface Inspection {
  readonly body: unknown;
  /** The agent's wall clock in milliseconds since the epoch, to the second; undefined: the answer has no date. */
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
  /** Why verification would refuse the certificate, even if it is switched off; undefined: it would not. */
  readonly distrust?: string;
}

/** Remembers each answer's connection, because Node.js detaches it from a complete answer in order to reuse it. */
const connections = new WeakMap<IncomingMessage, Socket>();

/** Remembers the connection of an answer that has begun to arrive. */
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

/**
 * Checks for a method instead of the class, because loading node:tls takes a millisecond and most runs do not need
 * it.
 */
const isTls = (socket: Socket): socket is TLSSocket => 'getPeerCertificate' in socket;

function toCertificate(socket: TLSSocket): Certificate | undefined {
  const validTo = Date.parse(socket.getPeerCertificate().valid_to);
  if (Number.isNaN(validTo)) return undefined;
  // `authorizationError` has the type Error, but is really a code or a text.
  const distrust = socket.authorized ? undefined : String(socket.authorizationError);
  return { validTo, ...(distrust !== undefined && { distrust }) };
}
