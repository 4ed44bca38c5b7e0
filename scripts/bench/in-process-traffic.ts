/** What goes over HTTP, counted at this process's own sockets: a proxy in between would slow what is measured. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

export interface Traffic {
  /** All but those that go with time and not with runs: the two below. */
  readonly requests: number;
  /** Of sessions. */
  readonly renewals: number;
  /** Blocking queries whose time was over without a change. */
  readonly watches: number;
  /** Bodies of these requests and of their responses, in bytes. */
  readonly bodies: number;
  /** Everything at the sockets, HTTP's headers and the renewals too, in bytes. */
  readonly wire: number;
}

export interface TrafficCounter {
  now(): Traffic;
  stop(): void;
}

const CHANNEL = 'http.client.request.start';

/** Counts every HTTP request of this process, whichever client sends it. */
export function countTraffic(): TrafficCounter {
  const seen = { requests: 0, renewals: 0, watches: 0, bodies: 0 };
  const sockets = trackSockets();
  const onStart = (message: unknown) => {
    const { request } = message as { request: ClientRequest };
    if (request.path.startsWith('/v1/session/renew/')) {
      seen.renewals += 1;
    } else {
      seen.requests += 1;
      seen.bodies += Number(request.getHeader('content-length') ?? 0);
      request.once('response', (response: IncomingMessage) => {
        if (hasEndedUnchanged(request, response)) {
          seen.requests -= 1;
          seen.watches += 1;
          return;
        }
        response.on('data', (chunk: Buffer | string) => (seen.bodies += Buffer.byteLength(chunk)));
      });
    }
    if (request.socket) sockets.add(request.socket);
    else request.once('socket', sockets.add);
  };
  subscribe(CHANNEL, onStart);
  return {
    now: () => ({ ...seen, wire: sockets.bytes() }),
    stop: () => void unsubscribe(CHANNEL, onStart),
  };
}

/** Counts all requests that this process sends, and those of them that wait for a change. */
export function countQueries() {
  let all = 0;
  let blocking = 0;
  const onStart = (message: unknown) => {
    all += 1;
    if (/[?&]index=/.test((message as { request: ClientRequest }).request.path)) blocking += 1;
  };
  subscribe(CHANNEL, onStart);
  return { all: () => all, blocking: () => blocking, stop: () => void unsubscribe(CHANNEL, onStart) };
}

/** It was asked to wait past the very index that it answers with. */
function hasEndedUnchanged({ path }: ClientRequest, { headers }: IncomingMessage): boolean {
  const [, index] = /[?&]index=(\d+)/.exec(path) ?? [];
  return index !== undefined && headers['x-consul-index'] === index;
}

function trackSockets() {
  const open = new Set<Socket>();
  let past = 0;
  const bytesOf = (socket: Socket) => socket.bytesRead + socket.bytesWritten;
  return {
    add: (socket: Socket) => {
      if (open.has(socket)) return;
      open.add(socket);
      socket.once('close', () => {
        past += bytesOf(socket);
        open.delete(socket);
      });
    },
    bytes: () => [...open].reduce((total, socket) => total + bytesOf(socket), past),
  };
}

/** What came between two counts, for each of `runs`. */
export function perRun(before: Traffic, after: Traffic, runs: number): Traffic {
  const each = (name: keyof Traffic) => (after[name] - before[name]) / runs;
  return {
    requests: each('requests'),
    renewals: each('renewals'),
    watches: each('watches'),
    bodies: each('bodies'),
    wire: each('wire'),
  };
}
