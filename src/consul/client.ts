/**
 * Wraps the `consul` package and adds what it lacks (docs/adr/0003-consul-client.md). The only file that imports it.
 */
import http from 'node:http';
import https from 'node:https';
import { getBuiltinModule } from 'node:process';
import ConsulPackage from 'consul';
import type { ConsulSettings, TlsSettings, Token } from './env.ts';
import { bodyTooLarge } from './faults.ts';
import { noteConnection } from './codec.ts';

/** Types for the parts of the package that runlock uses, because the package's own types lack some of them. */
export interface Package {
  kv: Record<'get' | 'keys', (options: object) => Promise<unknown>>;
  session: Record<'create' | 'info' | 'renew' | 'destroy', (options: object) => Promise<unknown>>;
  transaction: { create(operations: object[], options: object): Promise<unknown> };
  /** `_get`, `_post` and `_put` resolve to the response. */
  _get(request: object): Promise<unknown>;
  _post(request: object): Promise<unknown>;
  _put(request: object): Promise<unknown>;
  _ext(event: 'onCreate' | 'onRequest', extension: (request: PackageRequest, next: () => void) => void): void;
  destroy(): void;
}

interface PackageRequest {
  opts: {
    name: string;
    query: Record<string, string>;
    headers?: Record<string, string>;
    body?: Record<string, unknown>;
  };
  transport: Pick<typeof http, 'request'>;
}

export function createClient({ tls, ...settings }: ConsulSettings, token: Token): Package {
  const secure = settings.baseUrl.startsWith('https:');
  const agent = secure
    ? new https.Agent({
        keepAlive: true,
        rejectUnauthorized: tls.verify,
        ...(tls.ca && { ca: [...tls.ca] }),
        ...(tls.systemCa && withSystem(tls, tls.systemCa)),
        ...(tls.cert && tls.key && { cert: tls.cert, key: tls.key }),
        ...(tls.serverName !== undefined && { servername: tls.serverName }),
      })
    : new http.Agent({ keepAlive: true });
  const options = {
    baseUrl: settings.baseUrl,
    agent,
    ...(settings.socketPath !== undefined && { socketPath: settings.socketPath }),
    decoders: { 'application/json': readJson },
    headers: {
      ...(settings.auth !== undefined && {
        authorization: `Basic ${Buffer.from(settings.auth).toString('base64')}`,
      }),
    },
  };
  const client = new ConsulPackage(options) as unknown as Package;
  const prepare = ({ opts }: PackageRequest) => {
    const secret = token.now();
    if (secret !== undefined) opts.headers = { ...opts.headers, 'x-consul-token': secret };
    if (!PLACED_BY_ITEM.includes(opts.name)) {
      if (settings.namespace !== undefined) opts.query['ns'] = settings.namespace;
      if (settings.partition !== undefined) opts.query['partition'] = settings.partition;
    }
    // No health check may end a session. In 1.8.7 an empty Checks covers both kinds; newer versions need NodeChecks
    // too.
    if (opts.name === 'session.create') opts.body = { ...opts.body, NodeChecks: [] };
  };
  client._ext('onCreate', (request, next) => {
    // Reread the token before a blocking query: a token revoked during the wait would be refused at its end.
    const reading = 'index' in request.opts.query ? token.reread() : undefined;
    const go = () => {
      prepare(request);
      next();
    };
    if (reading) void reading.then(go);
    else go();
  });
  client._ext('onRequest', (request, next) => {
    request.transport = noticingCuts(request.transport);
    next();
  });
  return client;
}

/** Requests that name namespace and partition in each item of their body, not in the query. */
const PLACED_BY_ITEM = ['Transaction.create', 'authorize'];

/**
 * Loads node:tls only here, because a run without TLS does not need it. Creates the context once, because Node.js would
 * otherwise take 20 ms for each connection to read a hundred authorities.
 */
function withSystem({ cert, key }: TlsSettings, ca: readonly Buffer[]): https.AgentOptions {
  try {
    const { createSecureContext } = getBuiltinModule('node:tls');
    return { secureContext: createSecureContext({ ca: [...ca], ...(cert && key && { cert, key }) }) };
  } catch {
    // The first request will report what is wrong.
    return { ca: [...ca] };
  }
}

/** Newer versions of Consul label some plain text as JSON. The package would then report no answer at all. */
function readJson(body: Buffer): unknown {
  try {
    const read: unknown = JSON.parse(body.toString());
    // The package would fail over an item that is nothing, in a place where nobody hears of it.
    return Array.isArray(read) && read.includes(null) ? body : read;
  } catch {
    return body;
  }
}

/**
 * The most to read of one response's body, in bytes: enough for tens of thousands of records. Uses several times that
 * in memory.
 */
const BODY_LIMIT = 67_108_864;

/** Reports responses that are cut off or too long, because the package waits for the end of a response for ever. */
function noticingCuts(transport: Pick<typeof http, 'request'>): Pick<typeof http, 'request'> {
  const request = (options: http.RequestOptions) => {
    // The package passes the host as written in the URL, but Node.js does not accept an IPv6 address in brackets.
    const hostname = options.hostname?.replace(/^\[(.*)\]$/, '$1');
    const sent = transport.request({ ...options, ...(typeof hostname === 'string' && { hostname }) });
    sent.on('response', (response) => {
      noteConnection(response);
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        length += chunk.length;
        if (length > BODY_LIMIT) response.destroy(bodyTooLarge(BODY_LIMIT));
      });
      response.on('error', (error) => sent.emit('error', error));
      response.on('close', () => {
        if (!response.complete)
          sent.emit('error', new Error('the connection was closed in the middle of a response'));
      });
    });
    return sent;
  };
  return { request: request as typeof http.request };
}
