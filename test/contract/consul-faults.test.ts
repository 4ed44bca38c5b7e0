// What can go wrong between runlock and Consul, each as a fault of its class: real agents, real broken connections.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import type { Consul, Operation } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { ErrorCode } from '../../src/errors.ts';
import { startCluster } from '../support/consul.ts';
import { useAgent } from '../support/use-agent.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Action, Proxy } from '../support/proxy.ts';
import { serve } from '../support/serve.ts';

const agent = useAgent({ acl: true });

beforeAll(async () => {
  await agent.kv.put('runlock/a', '1');
});

const rule = 'key_prefix "runlock/" { policy = "write" }';
const options = { signal: new AbortController().signal, retryForMs: 0, rule };
const set: Operation = { verb: 'set', key: 'runlock/a', value: '1' };
const id = crypto.randomUUID();

/** Every call there is. */
const calls: [string, (consul: Consul) => Promise<unknown>][] = [
  ['get', (consul) => consul.get('runlock/a', options)],
  ['list', (consul) => consul.list('runlock/', options)],
  ['keys', (consul) => consul.keys('runlock/', options)],
  ['readAll', (consul) => consul.readAll([{ verb: 'get-tree', key: 'runlock/' }], options)],
  ['transact', (consul) => consul.transact([set], options)],
  ['createSession', (consul) => consul.createSession({ name: 'a', ttl: '10s' }, options)],
  ['readSession', (consul) => consul.readSession(id, options)],
  ['renewSession', (consul) => consul.renewSession(id, options)],
  ['destroySession', (consul) => consul.destroySession(id, options)],
];

function connected(env: Record<string, string>): Consul {
  const clock = {
    now: () => Date.now(),
    monotonicMs: () => performance.now(),
    sleep: () => Promise.resolve(),
  };
  const consul = connect(consulSettings(env), { clock, emit: () => undefined });
  onTestFinished(() => consul.close());
  return consul;
}

async function broken(action?: Action): Promise<{ consul: Consul; proxy: Proxy }> {
  const proxy = await startProxy(agent);
  onTestFinished(() => proxy.close());
  if (action !== undefined) proxy.rule({ do: action });
  return { consul: connected(proxy.env), proxy };
}

/** The fault's message, which is one line; and how long it took to come. */
async function fault(call: Promise<unknown>, code: ErrorCode): Promise<{ message: string; ms: number }> {
  const startedMs = performance.now();
  const error: unknown = await call.then(
    () => new Error('it succeeded'),
    (thrown: unknown) => thrown,
  );
  expect(error).toMatchObject({ name: 'RunlockError', code });
  const { message } = error as Error;
  expect(message).not.toContain('\n');
  return { message, ms: performance.now() - startedMs };
}

/** A caller that sends these again by itself takes an odd answer for a lost one, for a little while. */
const SENT_ONCE = ['transact', 'renewSession'];

describe.each(calls)('%s', (name, call) => {
  test('has a deadline when nothing answers', async () => {
    const { consul } = await broken('hang');
    const limited = { ...consul, ...withTimeout(consul, 150) };
    const { message, ms } = await fault(call(limited), 'unreachable');
    expect(message).toContain('unreachable (request timed out (150ms))');
    expect(ms).toBeGreaterThan(100);
    expect(ms).toBeLessThan(2_000);
  });

  test.each<[string, Action, ErrorCode, RegExp]>([
    ['a connection that is closed', 'drop-before', 'unreachable', /\(the connection was closed\)/],
    ['too many requests', { status: 429, body: 'rate limit' }, 'overloaded', /no more requests.*rate limit/],
    ['an election', { status: 500, body: 'No cluster leader' }, 'no-leader', /has no leader/],
    ['a gateway', { status: 502, body: '<html>\nBad gateway' }, 'unreachable', /failed \(HTTP 502: <html>\)/],
    [
      "another server's missing page",
      { status: 404, body: '<html>\nno' },
      'not-consul',
      /correct CONSUL_HTTP_ADDR/,
    ],
    [
      "another server's page",
      { status: 200, body: '<html>\nhello' },
      'not-consul',
      /correct CONSUL_HTTP_ADDR/,
    ],
    ['an empty page', { status: 200, body: '' }, 'not-consul', /correct CONSUL_HTTP_ADDR/],
    ['a redirection', { status: 302, body: '' }, 'not-consul', /HTTP 302/],
  ])('calls %s by its name', async (_, action, code, words) => {
    const { consul, proxy } = await broken(action);
    const isLost = code === 'not-consul' && SENT_ONCE.includes(name);
    const { message, ms } = await fault(call(consul), isLost ? 'unreachable' : code);
    expect(message).toMatch(words);
    expect(message).toContain(proxy.address);
    expect(ms).toBeLessThan(2_000);
  });

  test('says at once that an answer was cut in its middle', async () => {
    const { consul } = await broken('cut');
    const { ms } = await fault(call(consul), 'unreachable');
    expect(ms).toBeLessThan(2_000);
  });

  test('says when Consul closes one connection too many', async () => {
    const { consul, proxy } = await broken();
    proxy.maxConnections = 0;
    expect((await fault(call(consul), 'unreachable')).message).toContain('the connection was closed');
  });

  test('says when nothing listens', async () => {
    const consul = connected({ CONSUL_HTTP_ADDR: await closedPort() });
    expect((await fault(call(consul), 'unreachable')).message).toMatch(
      /\(connection refused\); is the agent running, and is CONSUL_HTTP_ADDR correct\?$/,
    );
  });

  test('says that Consul does not know the token', async () => {
    const consul = connected({ ...agent.env, CONSUL_HTTP_TOKEN: crypto.randomUUID() });
    expect((await fault(call(consul), 'forbidden')).message).toMatch(
      /does not know the token; check CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE$/,
    );
  });
});

/** The same calls with a short deadline for each request. */
function withTimeout(consul: Consul, timeoutMs: number): Partial<Consul> {
  return {
    get: (key, given) => consul.get(key, { ...given, timeoutMs }),
    list: (key, given) => consul.list(key, { ...given, timeoutMs }),
    keys: (prefix, given) => consul.keys(prefix, { ...given, timeoutMs }),
    readAll: (steps, given) => consul.readAll(steps, { ...given, timeoutMs }),
    transact: (steps, given) => consul.transact(steps, { ...given, timeoutMs }),
    createSession: (request, given) => consul.createSession(request, { ...given, timeoutMs }),
    readSession: (session, given) => consul.readSession(session, { ...given, timeoutMs }),
    renewSession: (session, given) => consul.renewSession(session, { ...given, timeoutMs }),
    destroySession: (session, given) => consul.destroySession(session, { ...given, timeoutMs }),
  };
}

async function closedPort(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}

test.each(calls.filter(([name]) => ['get', 'list', 'readAll', 'transact', 'createSession'].includes(name)))(
  "%s takes another server's JSON neither for a yes nor for a missing key",
  async (name, call) => {
    const address = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"ok":true}');
    });
    const code = SENT_ONCE.includes(name) ? 'unreachable' : 'not-consul';
    await fault(call(connected({ CONSUL_HTTP_ADDR: address })), code);
  },
);

describe('a token without rights', () => {
  test.each(calls.filter(([name]) => ['get', 'transact', 'createSession'].includes(name)))(
    'is told the rule that %s needs',
    async (_, call) => {
      const weak = await agent.token('key_prefix "elsewhere/" { policy = "write" }');
      for (const token of [weak, '']) {
        const consul = connected({ ...agent.env, CONSUL_HTTP_TOKEN: token });
        const { message } = await fault(call(consul), 'forbidden');
        expect(message).toMatch(/refused \(Permission denied/);
        expect(message).toContain(`the token needs the rule: ${rule}`);
        expect(message.includes('no token is set')).toBe(token === '');
      }
    },
  );

  test('that may only read is refused the whole transaction', async () => {
    const reader = await agent.token('key_prefix "runlock/" { policy = "read" }');
    const consul = connected({ ...agent.env, CONSUL_HTTP_TOKEN: reader });
    await consul.get('runlock/a', options);
    const read: Operation = { verb: 'get-tree', key: 'runlock/' };
    const write: Operation = { verb: 'set', key: 'runlock/b', value: '1' };
    expect((await fault(consul.transact([read, write], options), 'forbidden')).message).toContain(rule);
    expect(await agent.kv.get('runlock/b')).toBeUndefined();
  });
});

test('a server without a quorum has no leader', async () => {
  const config = { performance: { raft_multiplier: 1, rpc_hold_timeout: '500ms' } };
  await using cluster = await startCluster({ servers: 2, clients: 0, raftMultiplier: 1, config });
  const leader = await cluster.leader();
  const other = cluster.servers.find((server) => server !== leader);
  await leader.kill();
  await eventually(async () => {
    expect((await other?.http('GET', '/v1/status/leader'))?.json()).toBe('');
  });
  const consul = connected({ ...other?.env });
  const { message } = await fault(consul.get('a', options), 'no-leader');
  expect(message).toMatch(/has no leader \(HTTP 500: No cluster leader\)/);
  await fault(consul.transact([set], options), 'no-leader');
});

describe('what Consul itself refuses is said as Consul says it, and not tried again', () => {
  const patient = { ...options, retryForMs: 60_000 };

  test('a TTL that its configuration does not allow', async () => {
    const made = connected(agent.env).createSession({ name: 'a', ttl: '5s' }, patient);
    expect((await fault(made, 'config')).message).toMatch(
      /^Consul at \S+ refused the request: .*Invalid Session TTL '5000000000'.*; raise --session-ttl, or lower session_ttl_min in the agents' configuration$/,
    );
  });

  test('a namespace, without the enterprise licence', async () => {
    const consul = connected({ ...agent.env, CONSUL_NAMESPACE: 'team' });
    expect((await fault(consul.get('runlock/a', patient), 'config')).message).toMatch(
      /refused the request: .*"ns".*; unset CONSUL_NAMESPACE and CONSUL_PARTITION$/,
    );
  });

  test('a transaction of too many operations', async () => {
    const many = Array.from({ length: 65 }, () => set);
    expect((await fault(connected(agent.env).transact(many, patient), 'config')).message).toMatch(
      /refused the request: Transaction contains too many operations \(65 > 64\)/,
    );
  });
});
