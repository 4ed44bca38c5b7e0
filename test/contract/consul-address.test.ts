// Every way that Consul's own environment variables lead to an agent, on real agents.
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { createTls } from '../support/consul-config.ts';
import type { TlsFiles } from '../support/consul-config.ts';
import { startAgent } from '../support/consul.ts';
import { useAgent } from '../support/use-agent.ts';
import type { Agent } from '../support/consul.ts';
import { consulBinary } from '../support/provision.ts';
import { startProxy } from '../support/proxy.ts';
import { serve } from '../support/serve.ts';

const folder = mkdtempSync(join(tmpdir(), 'runlock-tls-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

type Env = Readonly<Record<string, string>>;

function connected(env: Env): Consul {
  const clock = {
    now: () => Date.now(),
    monotonicMs: () => performance.now(),
    sleep: () => Promise.resolve(),
  };
  const consul = connect(consulSettings(env), { clock, emit: () => undefined });
  onTestFinished(() => consul.close());
  return consul;
}

const options = { signal: new AbortController().signal, retryForMs: 0 };

/** Whether all is well with Consul there. */
async function works(env: Env): Promise<void> {
  const consul = connected(env);
  const answer = await consul.transact([{ verb: 'set', key: 'runlock/a', value: '1' }], options);
  expect(answer.kind).toBe('done');
  expect((await consul.get('runlock/a', options)).entry?.value).toBe('1');
}

async function complaint(env: Env, code: string): Promise<string> {
  const error: unknown = await connected(env)
    // With time to try again: a wrong configuration is said at once all the same.
    .get('a', { ...options, retryForMs: 30_000 })
    .catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ name: 'RunlockError', code });
  expect((error as Error).message).not.toContain('\n');
  return (error as Error).message;
}

function file(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

describe('an agent with TLS', () => {
  const agent = useAgent({ tls: { verifyIncoming: true } });
  let foreign: TlsFiles;

  beforeAll(async () => {
    foreign = await createTls(await consulBinary(), folder, '127.0.0.1');
  });

  test('is reached with its own authority and a client certificate', async () => {
    await works(agent.env);
  });

  test('is reached with a folder of authorities', async () => {
    const { CONSUL_CACERT, ...env } = agent.env;
    expect(CONSUL_CACERT).toBeDefined();
    const authorities = join(folder, 'authorities');
    mkdirSync(authorities);
    copyFileSync(CONSUL_CACERT ?? '', join(authorities, 'ca.pem'));
    await works({ ...env, CONSUL_CAPATH: authorities });
  });

  test('is reached with an authority of the system, in a file or a folder', async () => {
    const { CONSUL_CACERT: own = '', ...env } = agent.env;
    const bundle = file('bundle.pem', readFileSync(foreign.ca, 'utf8') + readFileSync(own, 'utf8'));
    await works({ ...env, SSL_CERT_FILE: bundle });
    await works({ ...env, SSL_CERT_FILE: foreign.ca, SSL_CERT_DIR: `/nowhere:${agent.folder}` });
    await works({ ...env, SSL_CERT_FILE: foreign.ca, NODE_EXTRA_CA_CERTS: own });
    const words = /unable to verify the first certificate/;
    expect(await complaint({ ...env, SSL_CERT_FILE: foreign.ca }, 'config')).toMatch(words);
    // An authority of Consul's own is the only one, as for the consul program.
    const both = { ...env, CONSUL_CACERT: foreign.ca, SSL_CERT_FILE: bundle };
    expect(await complaint(both, 'config')).toMatch(words);
    const mixed = { ...env, SSL_CERT_FILE: bundle, CONSUL_CLIENT_KEY: foreign.key };
    expect(await complaint(mixed, 'config')).toMatch(/\(key values mismatch\)/);
  });

  test('is reached with TLS turned on by its own variable', async () => {
    const address = agent.env['CONSUL_HTTP_ADDR']?.replace('https://', '') ?? '';
    await works({ ...agent.env, CONSUL_HTTP_ADDR: address, CONSUL_HTTP_SSL: 'true' });
  });

  test('is reached without an authority where nothing is verified', async () => {
    await works({ ...agent.env, CONSUL_CACERT: '', CONSUL_HTTP_SSL_VERIFY: 'false' });
  });

  test('is reached when it has the name that is expected', async () => {
    await works({ ...agent.env, CONSUL_TLS_SERVER_NAME: 'server.dc1.consul' });
  });

  // What is no PEM at all is refused before (unit/consul-env).
  const garbage = () => file('garbage.pem', '-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n');
  test.each<[string, () => Env, RegExp]>([
    ['another authority', () => ({ CONSUL_CACERT: foreign.ca }), /unable to verify the first certificate/],
    ['no authority', () => ({ CONSUL_CACERT: '' }), /unable to verify the first certificate/],
    ['an authority that is none', () => ({ CONSUL_CACERT: garbage() }), /unable to verify/],
    ['another name', () => ({ CONSUL_TLS_SERVER_NAME: 'x.example' }), /x\.example\. is not in the cert's/],
    [
      'no client certificate',
      () => ({ CONSUL_CLIENT_CERT: '', CONSUL_CLIENT_KEY: '' }),
      /\([^:]*certificate[^:]*\)/,
    ],
    [
      "another authority's client certificate",
      () => ({ CONSUL_CLIENT_CERT: foreign.cert, CONSUL_CLIENT_KEY: foreign.key }),
      /\([^:]*certificate[^:]*\)/,
    ],
    ["another certificate's key", () => ({ CONSUL_CLIENT_KEY: foreign.key }), /\(key values mismatch\)/],
    ['a certificate that is none', () => ({ CONSUL_CLIENT_CERT: garbage() }), /\(bad base64 decode\)/],
    ['the plain port', () => ({ CONSUL_HTTP_ADDR: `https://${agent.address}` }), /\(wrong version number\)/],
  ])('with %s is wrong configuration, said in one line', async (_, env, words) => {
    const message = await complaint({ ...agent.env, ...env() }, 'config');
    expect(message).toMatch(/^TLS with Consul at https:\/\/.* failed \(.*\); check CONSUL_CACERT, /);
    expect(message).toMatch(words);
  });

  test('asked without TLS says so', async () => {
    const address = agent.env['CONSUL_HTTP_ADDR']?.replace('https', 'http') ?? '';
    expect(await complaint({ CONSUL_HTTP_ADDR: address }, 'config')).toMatch(
      /refused the request: Client sent an HTTP request to an HTTPS server.*; use https:/,
    );
  });
});

describe('a Unix socket', () => {
  test('leads to its agent', async () => {
    await using agent = await startAgent({ unixSocket: true });
    expect(agent.env['CONSUL_HTTP_ADDR']).toMatch(/^unix:/);
    await works(agent.env);
  });

  test('that is not there is unreachable', async () => {
    const consul = connected({ CONSUL_HTTP_ADDR: `unix://${folder}/none.sock` });
    await expect(consul.get('a', options)).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('no such socket') as string,
    });
  });
});

describe('a token', () => {
  const agent = useAgent({ acl: true });

  test('lets in, from its variable or from its file', async () => {
    const token = await agent.token('key_prefix "runlock/" { policy = "write" }');
    await works({ ...agent.env, CONSUL_HTTP_TOKEN: token });
    const env = { CONSUL_HTTP_TOKEN_FILE: file('token', `${token}\n`), CONSUL_HTTP_TOKEN: 'wrong' };
    await works({ ...agent.env, ...env });
  });

  test('that was rotated is read again when Consul refuses the old one, by every call', async () => {
    const rules = 'key_prefix "runlock/" { policy = "write" } session_prefix "" { policy = "write" }';
    const path = file('rotated', '');
    let old = '';
    const rotate = async () => {
      const token = await agent.token(rules);
      writeFileSync(path, `${token}\n`);
      if (old !== '') await revoke(agent, old);
      old = token;
    };
    await rotate();
    const consul = connected({ ...agent.env, CONSUL_HTTP_TOKEN_FILE: path });
    const id = await consul.createSession({ name: 'a', ttl: '60s' }, options);
    const set = { verb: 'set', key: 'runlock/a', value: '2' } as const;
    const calls: (() => Promise<unknown>)[] = [
      () => consul.transact([set], options),
      () => consul.get('runlock/a', options),
      () => consul.renewSession(id, options),
      () => consul.may([{ resource: 'service', name: 'web', access: 'read' }], options),
      () => Promise.all([consul.keys('runlock/', options), consul.list('runlock/', options)]),
      () => consul.destroySession(id, options),
    ];
    for (const call of calls) {
      await rotate();
      await call();
    }
  });

  test('with too few rights, and one with more in its file by now: the transaction is sent again', async () => {
    const path = file('poor', await agent.token('key_prefix "runlock/" { policy = "read" }'));
    const consul = connected({ ...agent.env, CONSUL_HTTP_TOKEN_FILE: path });
    const set = { verb: 'set', key: 'runlock/a', value: '3' } as const;
    await expect(consul.transact([set], options)).rejects.toMatchObject({ code: 'forbidden' });
    // Written just now, or gone: what it had before counts.
    writeFileSync(path, '');
    await expect(consul.transact([set], options)).rejects.toMatchObject({ code: 'forbidden' });
    writeFileSync(path, await agent.token('key_prefix "runlock/" { policy = "write" }'));
    expect((await consul.transact([set], options)).kind).toBe('done');
  });

  test('is read again at the start of a long wait', async () => {
    const first = await agent.token('key_prefix "runlock/" { policy = "write" }');
    const path = file('waiting', first);
    const consul = connected({ ...agent.env, CONSUL_HTTP_TOKEN_FILE: path });
    await works({ ...agent.env, CONSUL_HTTP_TOKEN_FILE: path });
    const { index } = await consul.get('runlock/a', options);
    writeFileSync(path, await agent.token('key_prefix "runlock/" { policy = "write" }'));
    await consul.get('runlock/a', { ...options, index, waitMs: 10 });
    rmSync(path);
    await revoke(agent, first);
    expect((await consul.get('runlock/a', options)).entry?.value).toBe('1');
  });

  test('never shows in a message', async () => {
    const secret = crypto.randomUUID();
    const message = await complaint({ ...agent.env, CONSUL_HTTP_TOKEN: secret }, 'forbidden');
    expect(message).not.toContain(secret);
  });
});

async function revoke(agent: Agent, token: string): Promise<void> {
  const own = await agent.http('GET', '/v1/acl/token/self', undefined, { token });
  const { AccessorID } = own.json() as { AccessorID: string };
  await agent.http('DELETE', `/v1/acl/token/${AccessorID}`);
}

describe('every request', () => {
  const agent = useAgent();

  /** One of each kind. Consul without the enterprise licence refuses namespaces, so what it answers does not matter. */
  async function askAll(consul: Consul): Promise<void> {
    const id = crypto.randomUUID();
    await Promise.allSettled([
      consul.get('a', options),
      consul.list('a', options),
      consul.readAll([{ verb: 'get-tree', key: 'a' }], options),
      consul.transact([{ verb: 'set', key: 'a', value: '' }], options),
      consul.createSession({ name: 'a', ttl: '10s' }, options),
      consul.readSession(id, options),
      consul.renewSession(id, options),
      consul.destroySession(id, options),
      consul.may(
        [
          { resource: 'service', name: 'a', access: 'read' },
          { resource: 'node', name: 'a', access: 'read' },
        ],
        options,
      ),
    ]);
  }

  test('names namespace and partition', async () => {
    await using proxy = await startProxy(agent);
    await askAll(connected({ ...proxy.env, CONSUL_NAMESPACE: 'team a', CONSUL_PARTITION: 'east' }));
    expect(proxy.requests).toHaveLength(9);
    const place = { Namespace: 'team a', Partition: 'east' };
    for (const { path, body } of proxy.requests) {
      const { pathname, searchParams: query } = new URL(path, 'http://x');
      const isByItem = /^\/v1\/(?:txn|internal\/acl\/authorize)$/.test(pathname);
      const [ns, partition] = isByItem ? [null, null] : [place.Namespace, place.Partition];
      expect({ ns: query.get('ns'), partition: query.get('partition') }).toEqual({ ns, partition });
      if (pathname === '/v1/txn') expect(JSON.parse(body)).toMatchObject([{ KV: place }]);
    }
    const asked = proxy.requests.find(({ path }) => path.startsWith('/v1/internal/acl/authorize'));
    // A node is in no namespace.
    expect(JSON.parse(asked?.body ?? '')).toEqual([
      { Resource: 'service', Segment: 'a', Access: 'read', ...place },
      { Resource: 'node', Segment: 'a', Access: 'read', Partition: 'east' },
    ]);
  });

  test('names neither where neither is given', async () => {
    await using proxy = await startProxy(agent);
    await askAll(connected(proxy.env));
    const named = proxy.requests.filter(
      ({ path, body }) => /[?&](?:ns|partition)=/.test(path) || /"(?:Namespace|Partition)"/.test(body),
    );
    expect(named).toEqual([]);
  });

  test('goes below the path of the address, with the user and password that a gateway asks for', async () => {
    const gateway = await startGateway(agent, '/ops', 'me:pass:word');
    const env = { CONSUL_HTTP_ADDR: `${gateway}/ops/` };
    await works({ ...env, CONSUL_HTTP_AUTH: 'me:pass:word' });
    await works({ CONSUL_HTTP_ADDR: `http://me:pass%3aword@${gateway}/ops/` });
    await works({ CONSUL_HTTP_ADDR: `http://me:wrong@${gateway}/ops/`, CONSUL_HTTP_AUTH: 'me:pass:word' });
    const wrong = { CONSUL_HTTP_ADDR: `http://me:wrong@${gateway}/ops/` };
    for (const refused of [{ ...env, CONSUL_HTTP_AUTH: 'me:wrong' }, wrong]) {
      const message = await complaint(refused, 'config');
      expect(message).not.toContain('wrong');
      expect(message).toMatch(/needs a user and password, or rejected those given/);
      // A right that nobody refused is none that is missing, and none that is there.
      const right = { resource: 'service', name: 'web', access: 'read' } as const;
      await expect(connected(refused).may([right], options)).rejects.toMatchObject({ code: 'config' });
    }
    await complaint(env, 'config');
    await complaint({ CONSUL_HTTP_ADDR: gateway, CONSUL_HTTP_AUTH: 'me:pass:word' }, 'not-consul');
  });

  test('says how long it is: Consul ignores a body without a length', async () => {
    await using proxy = await startProxy(agent);
    const consul = connected(proxy.env);
    const id = await consul.createSession({ name: 'a', ttl: '600s' }, options);
    expect(await consul.readSession(id, options)).toMatchObject({
      ttl: '600s',
      behavior: 'delete',
      checks: [],
    });
  });
});

test.each(['', 'http://'])('an IPv6 address, written %s[::1]:port, leads to its agent', async (scheme) => {
  await using agent = await startAgent();
  const gateway = await startGateway(agent, '', '', '::1');
  await works({ CONSUL_HTTP_ADDR: `${scheme}${gateway}` });
});

/** Before an agent: lets in whoever knows the password, below a path. */
function startGateway(target: Agent, path: string, auth: string, host = '127.0.0.1'): Promise<string> {
  return serve((incoming, response) => {
    const { method, headers, url = '' } = incoming;
    const expected = `Basic ${Buffer.from(auth).toString('base64')}`;
    const status =
      auth !== '' && headers.authorization !== expected ? 401 : url.startsWith(`${path}/`) ? 200 : 404;
    if (status !== 200) return void response.writeHead(status).end();
    const onward = { method, headers, agent: false };
    const outgoing = httpRequest(`${target.url}${url.slice(path.length)}`, onward, (answer) => {
      response.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.pipe(response);
    });
    incoming.pipe(outgoing);
  }, host);
}
