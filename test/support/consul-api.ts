// Consul's HTTP API for tests: no retries, no cleverness, and nothing shared with the code under test.
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';

/** Where an agent listens, and what it takes to be let in. */
export interface Endpoint {
  readonly protocol: 'http:' | 'https:';
  readonly host: string;
  readonly port: number;
  readonly token?: string;
  /** PEM text; certificate and key go together. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** The body, parsed. Throws when it is no JSON. */
  json(): unknown;
}

export interface HttpOptions {
  /** Sent instead of the endpoint's own token; the empty string sends none. */
  readonly token?: string;
  /** Default 10 s. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** One request. `body` goes out as it is when it is a string, else as JSON. Rejects only when no whole answer came. */
export type Http = (method: string, path: string, body?: unknown, options?: HttpOptions) => Promise<Answer>;

/** As Consul names them; `Value` is decoded. */
export interface KvPair {
  readonly Key: string;
  readonly Value: string;
  readonly Flags: number;
  readonly Session?: string;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
  readonly LockIndex: number;
}

export interface Kv {
  get(key: string): Promise<KvPair | undefined>;
  /** `query` holds `cas`, `acquire`, `release`, `flags`. Whether Consul did it. */
  put(key: string, value: string, query?: Readonly<Record<string, string | number>>): Promise<boolean>;
  delete(key: string, query?: Readonly<Record<string, string | number>>): Promise<boolean>;
  deleteTree(prefix: string): Promise<void>;
  /** Names of all keys that start with `prefix`, sorted. */
  keys(prefix?: string): Promise<string[]>;
  tree(prefix?: string): Promise<KvPair[]>;
  /** PUT /v1/txn. Status 200, or 409 when it was rolled back. */
  txn(operations: readonly unknown[]): Promise<Answer>;
}

export function createHttp(endpoint: Endpoint): Http {
  return (method, path, body, options = {}) => {
    const payload = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
    const token = options.token ?? endpoint.token ?? '';
    const timeoutMs = options.timeoutMs ?? 10_000;
    const send = endpoint.protocol === 'https:' ? httpsRequest : httpRequest;
    return new Promise((resolve, reject) => {
      const outgoing = send({
        ...endpoint.tls,
        protocol: endpoint.protocol,
        host: endpoint.host,
        port: endpoint.port,
        method,
        path,
        agent: false,
        ...(options.signal && { signal: options.signal }),
        // Consul ignores a chunked body of session/create, so the length is always said.
        headers: {
          'content-length': Buffer.byteLength(payload),
          ...(token === '' ? {} : { 'x-consul-token': token }),
        },
      });
      // A timer of its own: Node may collect AbortSignal.any() of a timeout before that comes.
      const timer = setTimeout(() => outgoing.destroy(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
      outgoing.on('close', () => clearTimeout(timer));
      outgoing.on('error', (cause) => reject(new Error(`${method} ${path}: ${cause.message}`, { cause })));
      outgoing.on('response', (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
        incoming.on('error', reject);
        incoming.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          const json = (): unknown => JSON.parse(text);
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text, json });
        });
      });
      outgoing.end(payload);
    });
  };
}

/** Throws unless Consul answered 200. */
export function succeeded(answer: Answer, what: string): Answer {
  if (answer.status !== 200) throw new Error(`${what}: status ${answer.status}, ${answer.text.trim()}`);
  return answer;
}

function decode(pair: Omit<KvPair, 'Value'> & { Value: string | null }): KvPair {
  return { ...pair, Value: Buffer.from(pair.Value ?? '', 'base64').toString() };
}

export function createKv(http: Http): Kv {
  const url = (key: string, query: Readonly<Record<string, string | number>> = {}) => {
    const words = Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
    return `/v1/kv/${key.split('/').map(encodeURIComponent).join('/')}?${words.join('&')}`;
  };
  const list = async (path: string): Promise<unknown[]> => {
    const answer = await http('GET', path);
    return answer.status === 404 ? [] : (succeeded(answer, `GET ${path}`).json() as unknown[]);
  };
  const tree = async (path: string) => ((await list(path)) as Parameters<typeof decode>[0][]).map(decode);
  const change = async (method: string, path: string, body?: string) =>
    succeeded(await http(method, path, body), `${method} ${path}`).json() === true;
  return {
    get: async (key) => (await tree(`${url(key)}consistent`))[0],
    put: (key, value, query) => change('PUT', url(key, query), value),
    delete: (key, query) => change('DELETE', url(key, query)),
    deleteTree: async (prefix) => {
      await change('DELETE', `${url(prefix)}recurse`);
    },
    keys: async (prefix = '') => ((await list(`${url(prefix)}keys&consistent`)) as string[]).sort(),
    tree: (prefix = '') => tree(`${url(prefix)}recurse&consistent`),
    txn: (operations) => http('PUT', '/v1/txn', operations),
  };
}

/** A new token with one new policy of these rules: its secret. */
export async function createToken(http: Http, rules: string): Promise<string> {
  const name = `test-${crypto.randomUUID()}`;
  succeeded(await http('PUT', '/v1/acl/policy', { Name: name, Rules: rules }), 'creating a policy');
  const answer = await http('PUT', '/v1/acl/token', { Policies: [{ Name: name }] });
  return (succeeded(answer, 'creating a token').json() as { SecretID: string }).SecretID;
}
