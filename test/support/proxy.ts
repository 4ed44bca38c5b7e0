// A proxy between runlock and its agent that makes the network misbehave, request by request, as a test tells it.
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { collect, endToEnd, send } from './proxy-forward.ts';
import type { Reply } from './proxy-forward.ts';

export interface ProxyRequest {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly body: string;
}

/**
 * drop-before: closed, and never reaches the agent. drop-after: takes effect, then closed without an answer.
 * cut: the answer stops in its middle. hang: never reaches the agent, never answered.
 * late: closed at once, and reaches the agent at `release()`. A delay is before the agent gets it, and so is a wait
 * until something is done; a status and body answer in the agent's place. `done` is called once it has taken effect; it is
 * never answered.
 */
export type Action =
  | 'drop-before'
  | 'drop-after'
  | 'cut'
  | 'hang'
  | 'late'
  | { readonly delayMs: number }
  | { readonly until: Promise<unknown> }
  | { readonly done: () => void }
  | {
      readonly status: number;
      readonly body: string;
      readonly headers?: Readonly<Record<string, string>>;
      /** Only once it has taken effect. */
      readonly after?: boolean;
    };

export type Match = (request: ProxyRequest) => boolean;

export interface Rule {
  /** Default: every request. */
  readonly match?: Match;
  /** How often it applies. Default: for good. */
  readonly times?: number;
  readonly do: Action;
}

export interface ProxyCounts {
  readonly requests: number;
  readonly connections: number;
  /** From the client and to the client, with all headers. */
  readonly bytesIn: number;
  readonly bytesOut: number;
}

export interface Proxy {
  /** `host:port` */
  readonly address: string;
  /** The agent's own, but for the address: so a proxy can stand where an agent does. */
  readonly env: Readonly<Record<string, string>>;
  /** In the order of their arrival. */
  readonly requests: readonly ProxyRequest[];
  /** So far, on the client's side. */
  counts(): ProxyCounts;
  /** One connection more is closed silently, as Consul's own limit does. Default: no limit. */
  maxConnections: number;
  /** The oldest rule that matches applies. Returns what takes the rule away again. */
  rule(rule: Rule): () => void;
  /** Takes all rules away. Requests that hang go on hanging. */
  clear(): void;
  /** The n-th request of all that matches; waits for it if need be. */
  seen(match: Match, n?: number): Promise<ProxyRequest>;
  /** Sends what `late` kept back, in order; what the agent answered. */
  release(): Promise<{ status: number; body: string }[]>;
  /** Closes every connection that is open now. */
  sever(): void;
  readonly close: () => Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** One request on its way. */
interface Passage {
  /** Brings it to the agent. */
  readonly forward: (signal?: AbortSignal) => Promise<Reply>;
  readonly response: ServerResponse;
  /** The client's. */
  readonly socket: Socket;
}

interface Target {
  readonly address: string;
  /** Of an agent: by what it is reached, which may be a stand-in for a newer one. */
  readonly env?: Readonly<Record<string, string>>;
}

/** `target` is an agent, or its `host:port`. Plain HTTP only. */
export async function startProxy(target: string | Target): Promise<Proxy> {
  const url = `http://${typeof target === 'string' ? target : (target.env?.['CONSUL_HTTP_ADDR'] ?? target.address)}`;
  const log = createLog();
  const rules = createRules();
  const kept: Passage['forward'][] = [];
  const server = createServer((incoming, response) => {
    void pass(incoming, response).catch(() => incoming.socket.destroy());
  });
  const pass = async (incoming: IncomingMessage, response: ServerResponse) => {
    const { method = '', url: path = '', headers, socket } = incoming;
    const body = await collect(incoming);
    const request = { method, path, body: body.toString() };
    const forward: Passage['forward'] = (signal) => send(`${url}${path}`, { method, headers, signal }, body);
    const action = rules.take(request);
    log.add(request);
    if (action === 'late') kept.push(forward);
    await act(action, { forward, response, socket });
  };
  // As Consul, which keeps idle connections: no reset when a client uses one again.
  server.keepAliveTimeout = 0;
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const sockets = trackSockets(server, () => proxy.maxConnections);
  const proxy: Proxy = {
    address,
    env: { ...(typeof target !== 'string' && target.env), CONSUL_HTTP_ADDR: address },
    requests: log.entries,
    counts: () => ({ requests: log.entries.length, ...sockets.counts() }),
    maxConnections: Infinity,
    rule: rules.add,
    clear: rules.clear,
    seen: log.seen,
    release: () => releaseAll(kept),
    sever: sockets.sever,
    close: () => close(server, sockets.sever),
    [Symbol.asyncDispose]: () => close(server, sockets.sever),
  };
  return proxy;
}

async function act(action: Action | undefined, { forward, response, socket }: Passage): Promise<void> {
  if (action === 'hang') return;
  if (action === 'drop-before' || action === 'late') return void socket.destroy();
  if (action === 'drop-after') {
    await forward();
    return void socket.destroy();
  }
  if (typeof action === 'object' && 'done' in action) {
    await forward();
    action.done();
    return;
  }
  if (typeof action === 'object' && 'status' in action) {
    if (action.after === true) await forward();
    return void response.writeHead(action.status, action.headers).end(action.body);
  }
  if (typeof action === 'object') await ('until' in action ? action.until : sleep(action.delayMs));
  // Who went away waits for nothing: the agent sees it at once, as it would without a proxy.
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  if (socket.destroyed) return;
  const { status, headers, body } = await forward(gone.signal);
  response.writeHead(status, { ...endToEnd(headers), 'content-length': body.length });
  if (action !== 'cut') return void response.end(body);
  response.flushHeaders();
  response.write(body.subarray(0, Math.floor(body.length / 2)));
  socket.destroySoon();
}

async function releaseAll(kept: Passage['forward'][]): Promise<{ status: number; body: string }[]> {
  const replies = [];
  for (const forward of kept.splice(0)) {
    const { status, body } = await forward();
    replies.push({ status, body: body.toString() });
  }
  return replies;
}

function createRules() {
  const rules: { rule: Rule; left: number }[] = [];
  return {
    add: (rule: Rule) => {
      const entry = { rule, left: rule.times ?? Infinity };
      rules.push(entry);
      return () => void (entry.left = 0);
    },
    clear: () => void rules.splice(0),
    /** What to do with this request, counted as done. */
    take: (request: ProxyRequest): Action | undefined => {
      const entry = rules.find(({ rule, left }) => left > 0 && (rule.match?.(request) ?? true));
      if (entry !== undefined) entry.left -= 1;
      return entry?.rule.do;
    },
  };
}

function createLog() {
  const entries: ProxyRequest[] = [];
  const waiting = new Set<() => void>();
  return {
    entries,
    add: (request: ProxyRequest) => {
      entries.push(request);
      for (const look of waiting) look();
    },
    seen: (match: Match, n = 1) =>
      new Promise<ProxyRequest>((resolve) => {
        const look = () => {
          const request = entries.filter(match)[n - 1];
          if (request === undefined) return;
          waiting.delete(look);
          resolve(request);
        };
        waiting.add(look);
        look();
      }),
  };
}

function trackSockets(server: Server, limit: () => number) {
  const all = new Set<Socket>();
  let connections = 0;
  const past = { bytesIn: 0, bytesOut: 0 };
  server.on('connection', (socket: Socket) => {
    if (all.size >= limit()) return void socket.destroy();
    connections += 1;
    all.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => {
      all.delete(socket);
      past.bytesIn += socket.bytesRead;
      past.bytesOut += socket.bytesWritten;
    });
  });
  const sum = (pick: (socket: Socket) => number) => [...all].reduce((total, one) => total + pick(one), 0);
  return {
    counts: () => ({
      connections,
      bytesIn: past.bytesIn + sum((socket) => socket.bytesRead),
      bytesOut: past.bytesOut + sum((socket) => socket.bytesWritten),
    }),
    sever: () => {
      for (const socket of all) socket.destroy();
    },
  };
}

async function close(server: Server, sever: () => void): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  sever();
  await closed;
}
