/** The `consul` package, made to do what it leaves out (docs/adr/0003-consul-client.md). Its only importer. */
import http from 'node:http';
import https from 'node:https';
import { getBuiltinModule } from 'node:process';
import ConsulPackage from 'consul';
import type { ConsulSettings, TlsSettings, Token } from './env.ts';
import { bodyTooLarge } from './faults.ts';
import { noteConnection } from './codec.ts';

/** The parts of the package that are used, as they are: its own types leave some of them out. */
export interface Package {
  kv: Record<'get' | 'keys', (options: object) => Promise<unknown>>;
  session: Record<'create' | 'info' | 'renew' | 'destroy', (options: object) => Promise<unknown>>;
  transaction: { create(operations: object[], options: object): Promise<unknown> };
  /** All three answer with the response. */
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
    // No health check ends a session. 1.8.7 takes an empty Checks for both kinds; newer versions name them apart.
    if (opts.name === 'session.create') opts.body = { ...opts.body, NodeChecks: [] };
  };
  client._ext('onCreate', (request, next) => {
    // One that is revoked while the answer is waited for would be refused at its end.
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

/** What names namespace and partition in each item of its body. */
const PLACED_BY_ITEM = ['Transaction.create', 'authorize'];

/** node:tls is loaded here alone: without TLS a run can do without it. Made once: Node.js takes 20 ms to read a hundred authorities, and would do so for each connection. */
function withSystem({ cert, key }: TlsSettings, ca: readonly Buffer[]): https.AgentOptions {
  try {
    const { createSecureContext } = getBuiltinModule('node:tls');
    return { secureContext: createSecureContext({ ca: [...ca], ...(cert && key && { cert, key }) }) };
  } catch {
    // What is wrong with it is said with the first request.
    return { ca: [...ca] };
  }
}

/** Newer versions send some of their lines of text as JSON. The package would take that for no answer at all. */
function readJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString());
  } catch {
    return body;
  }
}

/** The most that is read of one response's body, in bytes: tens of thousands of records are less. It takes several times that in memory. */
const BODY_LIMIT = 67_108_864;

/** The package waits for the end of a response for ever; one that is cut in its middle has none, nor may one without end. */
function noticingCuts(transport: Pick<typeof http, 'request'>): Pick<typeof http, 'request'> {
  const request = (options: http.RequestOptions) => {
    // The package gives the host as a URL has it; an IPv6 address in brackets is no address.
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
