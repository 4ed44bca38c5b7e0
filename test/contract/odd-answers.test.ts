// Answers that come in Consul's place, once: of a proxy that is reloaded, or of an agent in a bad moment.
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { acquire } from '../../src/lock/acquire.ts';
import type { Acquired } from '../../src/lock/acquire.ts';
import { holdLease } from '../../src/lock/lease.ts';
import { useAgent } from '../support/use-agent.ts';
import { startProxy } from '../support/proxy.ts';
import type { Action, Proxy } from '../support/proxy.ts';
import { STEPS } from '../support/proxy-steps.ts';
import { serve } from '../support/serve.ts';

const agent = useAgent();
let proxy: Proxy;
let consul: Consul;
beforeAll(async () => {
  proxy = await startProxy(agent);
  consul = connect(consulSettings(proxy.env), { clock, emit: () => undefined });
});
beforeEach(() => proxy.clear());
afterAll(async () => {
  consul.close();
  await proxy.close();
});

const { signal } = new AbortController();
const json = { 'content-type': 'application/json', 'x-consul-index': '9' };
const html = { 'content-type': 'text/html' };

/** What no Consul says: it passes by itself, or is believed after a while. */
const ODD: Record<string, Action> = {
  '200 with a page': { status: 200, body: '<html>log in</html>', headers: html },
  '200 {}': { status: 200, body: '{}', headers: json },
  '200 []': { status: 200, body: '[]', headers: json },
  '200 null': { status: 200, body: 'null', headers: json },
  '204': { status: 204, body: '' },
  '301': { status: 301, body: '', headers: { location: '/elsewhere' } },
  '307': { status: 307, body: '<a href=x>there</a>', headers: { ...html, location: '/elsewhere' } },
  '400 with nothing': { status: 400, body: '' },
  '404 with a page': { status: 404, body: '<html>not found</html>', headers: html },
  '408': { status: 408, body: 'Request timeout' },
  '503': { status: 503, body: '<html>503</html>', headers: html },
};

/** What Consul may say for good: before anything is held it is believed at once, at the end it is tried again. */
const REFUSALS: Record<string, Action> = {
  '400': { status: 400, body: 'Bad request: thing' },
  '403': { status: 403, body: 'Permission denied' },
  '403 with nothing': { status: 403, body: '' },
  '413': { status: 413, body: 'Request body too large, max allowed is 524288 bytes.' },
  '401': { status: 401, body: 'Unauthorized' },
};

/** web01 asks for a slot, for as long as `patience` says. */
async function ask(group: string, patience: AbortSignal = signal): Promise<Acquired> {
  const runner = { pid: process.pid, startTime: '1', bootId: 'boot' };
  const deps: Deps = {
    ...{ clock, random: Math.random, emit: () => undefined },
    host: {
      ...{ self: () => runner, bootId: runner.bootId, startTime: () => undefined, hidden: () => false },
      place: () => Promise.resolve({ host: 'h' }),
      survivors: () => ({ pids: [], guarded: false }),
    },
  };
  const run = { id: randomUUID(), command: 'true', runner, hold: 'forever', slots: 1 } as const;
  const request = { prefix: 'runlock', group, node: 'web01', run, ttlMs: 10_000 };
  return acquire({ consul, deps }, request, { signal, patience, either: patience });
}

/** A good run of web01, which ends after `until`; its keys that are left. */
async function runOnce(group: string, until?: () => Promise<unknown>): Promise<string[]> {
  const acquired = await ask(group);
  if (acquired.kind !== 'granted') throw new Error(`not granted: ${acquired.kind}`);
  const lease = holdLease(acquired.grant, { ttlMs: 10_000, killAfterMs: 1_000 });
  await until?.();
  expect(lease.over.aborted).toBe(false);
  expect(await lease.release({ outcome: 'succeeded', exitCode: 0, waitedMs: 0, ranMs: 0 })).toEqual({
    kind: 'released',
  });
  const keys = await agent.kv.keys(`runlock/${group}/`);
  return keys.map((key) => key.slice(`runlock/${group}/`.length));
}

const LEFT = ['.last', '.runs/web01', '.tail'];
let groups = 0;

describe.each(Object.entries(ODD))('one answer that is %s', (_, action) => {
  test.each(['session create', 'session info', 'look', 'enqueue', 'grant', 'release'] as const)(
    'to %s throws nobody out, and leaves nothing behind',
    async (step) => {
      proxy.rule({ match: STEPS[step], times: 1, do: action });
      expect(await runOnce(`odd${(groups += 1)}`)).toEqual(LEFT);
    },
  );
});

describe.each(Object.entries({ ...ODD, ...REFUSALS }))('one answer that is %s', (_, action) => {
  test.each([false, true])('to the release leaves no claim, also once it took effect (%s)', async (after) => {
    if (typeof action !== 'object' || !('status' in action)) throw new Error('no answer');
    proxy.rule({ match: STEPS.release, times: 1, do: { ...action, after } });
    expect(await runOnce(`end${(groups += 1)}`)).toEqual(LEFT);
  });
});

test.each(Object.entries(ODD).filter(([name]) => name.startsWith('200')))(
  'one look at the slot that is answered with %s is not taken for a loss',
  async (_, action) => {
    const looks = ({ path }: { path: string }) => decodeURIComponent(path).includes('/.slot/0/');
    proxy.rule({ match: looks, times: 1, do: action });
    const before = proxy.requests.filter(looks).length;
    expect(await runOnce(`watch${(groups += 1)}`, () => proxy.seen(looks, before + 2))).toEqual(LEFT);
  },
);

test('a look that misses a claim that is there is no loss: claimed again, and looked at again', async () => {
  const looks = ({ path }: { path: string }) => decodeURIComponent(path).includes('/.slot/0/');
  const missing = { status: 404, body: '', headers: { 'x-consul-index': '3' } };
  proxy.rule({ match: looks, times: 1, do: missing });
  const before = proxy.requests.filter(looks).length;
  expect(await runOnce(`missing${(groups += 1)}`, () => proxy.seen(looks, before + 2))).toEqual(LEFT);
});

describe.each<[string, Action, RegExp]>([
  ['503', { status: 503, body: 'no' }, /failed \(HTTP 503: no\)/],
  ['429', { status: 429, body: 'slow down' }, /takes no more requests \(HTTP 429: slow down\)/],
  ['500', { status: 500, body: 'No cluster leader' }, /has no leader/],
  ['a connection that is closed', 'drop-before', /unreachable/],
  ['hang', 'hang', /did not answer|timed out/],
])('answered with %s until the end of --wait', (_, action, words) => {
  const queue = ({ path }: { path: string }) => decodeURIComponent(path).includes('/.queue/?');
  test.each([
    ['the look at the queue', queue],
    ['the grant', STEPS.grant],
  ])('%s: Consul is what is wrong, nobody came first, and nothing stays', async (_what, match) => {
    proxy.rule({ match, do: action });
    const group = `wait${(groups += 1)}`;
    const startedMs = performance.now();
    const asked = ask(group, AbortSignal.timeout(2_000));
    await expect(asked).rejects.toMatchObject({
      name: 'RunlockError',
      message: expect.stringMatching(words) as string,
    });
    // Not long after that, too: a grant may have to be undone first.
    expect(performance.now() - startedMs).toBeLessThan(15_000);
    proxy.clear();
    expect((await agent.kv.keys(`runlock/${group}/`)).filter((key) => key.includes('.slot'))).toEqual([]);
  });
});

test('an answer without an end is read to 64 MiB, and no further', async () => {
  let sent = 0;
  const address = await serve((_, response) => {
    response.writeHead(200, json);
    const more = () => {
      while (!response.destroyed && response.write(MEBIBYTE)) sent += 1;
      sent += 1;
    };
    response.on('drain', more);
    more();
  });
  const own = connect(consulSettings({ CONSUL_HTTP_ADDR: address }), { clock, emit: () => undefined });
  try {
    await expect(own.get('a', { signal, retryForMs: 0 })).rejects.toMatchObject({
      code: 'not-consul',
      message: `the server at ${address} sent more than 64 MiB in one response, too much for runlock's keys; correct CONSUL_HTTP_ADDR or --prefix`,
    });
    expect(sent).toBeLessThan(128);
  } finally {
    own.close();
  }
});

const MEBIBYTE = Buffer.alloc(1_048_576, ' ');
