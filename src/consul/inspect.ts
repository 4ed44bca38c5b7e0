/** What `doctor` asks of the agent, and what the answer says beside its body: the agent's clock, its certificate. */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

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
