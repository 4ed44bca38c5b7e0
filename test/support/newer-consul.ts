// A stand-in for newer versions of Consul, and for Consul Enterprise: it passes everything on to a real 1.8.7, and answers
// as those do where they differ, by their source and notes (never compared with a real one).
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { collect, endToEnd, send } from './proxy-forward.ts';
import type { Reply } from './proxy-forward.ts';

export interface NewerConsul {
  /** `host:port` */
  readonly address: string;
  /** What Consul would have refused, or answered with nothing: why, in the order of the requests. */
  readonly odd: readonly string[];
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface NewerOptions {
  /**
   * As Consul Enterprise: keys, sessions and rights are in the namespace that the request names, each where Consul looks
   * for it. The one in which every token has all rights; it has none elsewhere.
   */
  readonly enterprise?: string;
  /** How long an idle connection is kept, in milliseconds; Consul's two minutes unless given. */
  readonly idleMs?: number;
}

/** An answer that comes later after its question is lost (`http_config.write_timeout`, 1.22). */
const WRITE_TIMEOUT_MS = 30_000;
const MOST_CONNECTIONS = 200;
const MOST_RIGHTS = 64;
/** 1.21.5, the strictest of all. */
const KEY = /^[a-zA-Z0-9,_./\-?&=]+$/;
/** How soon a health view that is not filled yet gives up, in place of the end of the wait. */
const VIEW_MS = 50;

interface Asked {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** As it came: a snapshot is no text. */
  readonly body: Buffer;
}

const text = (status: number, line: string): Reply => ({
  status,
  // Since 1.20.1 such a line can come as JSON, which it is not.
  headers: { 'content-type': 'application/json' },
  body: Buffer.from(line),
});

const json = (status: number, value: unknown, headers: IncomingHttpHeaders = {}): Reply => ({
  status,
  headers: { ...headers, 'content-type': 'application/json' },
  body: Buffer.from(JSON.stringify(value)),
});

const parse = (body: Buffer): unknown => JSON.parse(body.toString());

/** `target`: `host:port` of an agent, by plain HTTP. */
export async function startNewerConsul(target: string, options: NewerOptions = {}): Promise<NewerConsul> {
  const odd: string[] = [];
  const idle = new WeakMap<Socket, NodeJS.Timeout>();
  const sockets = new Set<Socket>();
  const enterprise = options.enterprise === undefined ? undefined : createEnterprise(options.enterprise);
  const toAgent = async (asked: Asked, signal: AbortSignal): Promise<Reply> => {
    const { method, path, query, headers, body } = enterprise?.inward(asked) ?? asked;
    const url = `http://${target}${path}${query.size === 0 ? '' : `?${query.toString()}`}`;
    const length = headers['content-length'] === undefined ? {} : { 'content-length': String(body.length) };
    return send(url, { method, headers: { ...headers, ...length }, signal }, body);
  };
  const answer = async (asked: Asked, signal: AbortSignal): Promise<Reply | undefined> => {
    const early = refuse(asked, odd) ?? enterprise?.refuse(asked);
    if (early !== undefined) return early === 'cut' ? undefined : early;
    if (isOfView(asked)) {
      odd.push(`from a view: ${asked.path}`);
      await sleep(VIEW_MS);
      return json(200, [], { 'x-consul-index': '1' });
    }
    const reply = await toAgent(asked, signal);
    return inNewWords(enterprise?.outward(asked, reply) ?? reply, asked);
  };
  const pass = async (incoming: IncomingMessage, response: ServerResponse) => {
    const body = await collect(incoming);
    const { pathname: path, searchParams: query } = new URL(incoming.url ?? '', 'http://x');
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const asked = { method: incoming.method ?? '', path, query, headers: incoming.headers, body };
    const reply = await answer(asked, gone.signal);
    if (!reply) return void incoming.socket.destroy();
    response.writeHead(reply.status, { ...endToEnd(reply.headers), 'content-length': reply.body.length });
    response.end(reply.body);
  };
  const server = createServer((incoming, response) => {
    void pass(incoming, response).catch(() => incoming.socket.destroy());
  });
  // Node.js would tell the client, and Consul does not: so its own timer is off.
  server.keepAliveTimeout = 0;
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    if (sockets.size <= MOST_CONNECTIONS) return;
    odd.push('too many connections');
    const line = 'Your IP is issuing too many concurrent connections, please rate limit your calls\n';
    socket.end(
      `HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: ${line.length}\r\nConnection: close\r\n\r\n${line}`,
    );
  });
  server.on('request', (_, response: ServerResponse) => {
    const { socket } = response;
    if (!socket) return;
    clearTimeout(idle.get(socket));
    response.once('close', () => {
      const timer = setTimeout(() => socket.destroy(), options.idleMs ?? 120_000);
      idle.set(socket, timer.unref());
    });
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const close = async () => {
    const closed = once(server, 'close');
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { address, odd, close, [Symbol.asyncDispose]: close };
}

/** What newer versions do not do. `cut`: the answer is lost. */
function refuse({ path, query, body }: Asked, odd: string[]): Reply | 'cut' | undefined {
  const [, amount = '', unit = ''] = /^(\d+)(ms|s|m)$/.exec(query.get('wait') ?? '') ?? [];
  const waitMs = Number(amount) * (unit === 'm' ? 60_000 : unit === 's' ? 1_000 : 1);
  if (query.has('index') && waitMs * (17 / 16) >= WRITE_TIMEOUT_MS) {
    odd.push(`a wait of ${waitMs} ms`);
    return 'cut';
  }
  const [, key = ''] = /^\/v1\/kv\/(.*)$/.exec(decodeURIComponent(path)) ?? [];
  if (key !== '' && !KEY.test(key)) {
    odd.push(`the key ${key}`);
    return text(500, 'invalid key name, keys should respect the "^[a-zA-Z0-9,_./\\-?&=]+$" format');
  }
  if (path === '/v1/internal/acl/authorize' && (parse(body) as unknown[]).length > MOST_RIGHTS) {
    odd.push('too many rights at once');
    return text(400, `Refusing to process more than ${MOST_RIGHTS} authorizations at once`);
  }
  return undefined;
}

/** Streaming (1.10): a health read that waits is answered by the agent's own view, unless it is sorted by distance. */
const isOfView = ({ path, query }: Asked) =>
  path.startsWith('/v1/health/service/') && query.has('index') && !query.has('near');

/** The same refusals and pages, as newer versions word and label them. */
function inNewWords(reply: Reply, { path }: Asked): Reply {
  const line = reply.body.toString();
  if (reply.status === 403 && /^(?:rpc error making call: )?Permission denied\s*$/.test(line))
    return text(403, PERMISSION_DENIED);
  if (/^(?:No service registered|Unknown service) /.test(line))
    return text(
      404,
      `Unknown service ID ${JSON.stringify(path.split('/').at(-1))}. Ensure that the service ID is passed, not the service name.`,
    );
  if (reply.status === 409 && /Permission denied/.test(line))
    return { ...reply, body: Buffer.from(line.replaceAll('Permission denied', PERMISSION_DENIED)) };
  const { 'content-type': type = 'application/json' } = reply.headers;
  return {
    ...reply,
    headers: {
      ...reply.headers,
      'content-type': type === 'application/json' ? 'application/json; charset=utf-8' : type,
    },
  };
}

const PERMISSION_DENIED =
  "Permission denied: token with AccessorID '00000000-0000-0000-0000-000000000002' lacks permission 'key:write' on the resource";

interface Placed {
  readonly Namespace?: string;
}

/** Namespaces as prefixes of the keys of a Consul that has none. */
function createEnterprise(own: string) {
  /** By id: where it was made. */
  const sessions = new Map<string, string>();
  const inside = (namespace: string, key: string) =>
    namespace === 'default' ? key : `__${namespace}/${key}`;
  const placeOf = ({ query }: Asked) => query.get('ns') ?? 'default';
  const operations = (body: Buffer) =>
    parse(body) as { KV: Placed & { Verb: string; Key: string; Session?: string } }[];
  const rights = (body: Buffer) => parse(body) as (Placed & { Resource: string })[];
  return {
    refuse: (asked: Asked): Reply | undefined => {
      const { path, body } = asked;
      if (path === '/v1/txn') {
        for (const [OpIndex, { KV }] of operations(body).entries()) {
          // A session of another namespace is none of this one.
          if (KV.Session === undefined || KV.Verb !== 'lock') continue;
          if (sessions.get(KV.Session) === (KV.Namespace ?? 'default')) continue;
          const What = `invalid session ${JSON.stringify(KV.Session)}`;
          return json(409, { Results: null, Errors: [{ OpIndex, What }] });
        }
      }
      if (path === '/v1/internal/acl/authorize')
        return json(
          200,
          rights(body).map((one) => ({ ...one, Allow: one.Resource === 'node' || one.Namespace === own })),
        );
      const [, id] = /^\/v1\/session\/(?:info|renew|destroy)\/(.*)$/.exec(path) ?? [];
      if (id === undefined || sessions.get(id) === placeOf(asked)) return undefined;
      if (path.includes('/renew/')) return text(404, `Session id '${id}' not found`);
      return path.includes('/info/') ? json(200, [], { 'x-consul-index': '1' }) : json(200, true);
    },
    inward: (asked: Asked): Asked => {
      const query = new URLSearchParams(asked.query);
      query.delete('ns');
      query.delete('partition');
      const { path } = asked;
      if (path.startsWith('/v1/kv/'))
        return { ...asked, query, path: `/v1/kv/${inside(placeOf(asked), path.slice('/v1/kv/'.length))}` };
      if (path !== '/v1/txn') return { ...asked, query };
      const body = operations(asked.body).map(({ KV: { Namespace = 'default', ...KV } }) => ({
        KV: { ...KV, Partition: undefined, Key: inside(Namespace, KV.Key) },
      }));
      return { ...asked, query, body: Buffer.from(JSON.stringify(body)) };
    },
    outward: (asked: Asked, reply: Reply): Reply => {
      const line = reply.body.toString();
      if (asked.path === '/v1/session/create' && reply.status === 200)
        sessions.set((JSON.parse(line) as { ID: string }).ID, placeOf(asked));
      return { ...reply, body: Buffer.from(line.replaceAll(/"__[^/"]+\//g, '"')) };
    },
  };
}
