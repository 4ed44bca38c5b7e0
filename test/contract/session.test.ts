// A Consul session as runlock keeps it, on a real agent.
import { request as httpRequest } from 'node:http';
import { describe, expect, onTestFinished, test } from 'vitest';
import { clock as realClock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { agentNode, openSession } from '../../src/consul/session.ts';
import { useAgent } from '../support/use-agent.ts';
import type { Agent } from '../support/consul.ts';
import { startProxy } from '../support/proxy.ts';
import { serve } from '../support/serve.ts';
import type { Match, Proxy, ProxyRequest } from '../support/proxy.ts';

const agent = useAgent({ name: 'web01' });
let proxy: Proxy;

const creations = ({ path }: ProxyRequest) => path.startsWith('/v1/session/create');
const readBacks = ({ path }: ProxyRequest) => path.startsWith('/v1/session/info/');
const renewals = ({ path }: ProxyRequest) => path.startsWith('/v1/session/renew/');
const open = { signal: new AbortController().signal };

/** A clock that stands still but for its sleeps, which end when the test says so, and for what the test lets pass. */
function steppedClock() {
  const sleeps: { ms: number; untilMs: number; wake: () => void }[] = [];
  let nowMs = 0;
  let fellAsleep = () => {};
  const sleep = (ms: number, { signal }: { signal: AbortSignal }) =>
    new Promise<void>((resolve, reject) => {
      const stop = () => reject(signal.reason as Error);
      signal.addEventListener('abort', stop, { once: true });
      const wake = () => {
        signal.removeEventListener('abort', stop);
        resolve();
      };
      sleeps.push({ ms, untilMs: nowMs + ms, wake });
      fellAsleep();
    });
  return {
    clock: { ...realClock, sleep, monotonicMs: () => nowMs },
    pass: (ms: number) => void (nowMs += ms),
    /** Ends the next sleep, as soon as there is one; how long it would have been. */
    step: async (): Promise<number> => {
      if (sleeps.length === 0) await new Promise<void>((resolve) => (fellAsleep = resolve));
      const [sleep] = sleeps.splice(0, 1);
      nowMs = Math.max(nowMs, sleep?.untilMs ?? 0);
      sleep?.wake();
      return sleep?.ms ?? NaN;
    },
    /** Resolves when somebody sleeps. */
    asleep: async (): Promise<void> => {
      if (sleeps.length === 0) await new Promise<void>((resolve) => (fellAsleep = resolve));
    },
  };
}

async function setUp(address?: string) {
  proxy = await startProxy(agent);
  const { clock, step, asleep, pass } = steppedClock();
  const emit = () => undefined;
  const env = address === undefined ? proxy.env : { CONSUL_HTTP_ADDR: address };
  const consul = connect(consulSettings({ ...agent.env, ...env }), { clock, emit });
  const host = { self: () => ({ pid: 1, startTime: '', bootId: '' }), bootId: '' };
  const deps: Deps = {
    ...{ clock, emit, random: () => 0.5 },
    host: {
      ...host,
      startTime: () => undefined,
      hidden: () => false,
      place: () => Promise.resolve({ host: 'h' }),
      survivors: () => ({ pids: [], guarded: false }),
    },
  };
  onTestFinished(async () => {
    consul.close();
    await proxy.close();
  });
  return { effects: { consul, deps }, step, asleep, pass };
}

async function stored(id: string): Promise<Record<string, unknown> | undefined> {
  const answer = await agent.http('GET', `/v1/session/info/${id}?consistent`);
  return (answer.json() as Record<string, unknown>[])[0];
}

const sessions = async () => (await agent.http('GET', '/v1/session/list')).json() as unknown[];

const aborted = (signal: AbortSignal): Promise<unknown> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve(signal.reason);
    signal.addEventListener('abort', () => resolve(signal.reason), { once: true });
  });

const request = { name: 'runlock prod/web', ttlMs: 30_000, ...open };

describe('a session', () => {
  test('is deleted with its locks, has a TTL, and neither health checks nor lock-delay', async () => {
    const { effects } = await setUp();
    const session = await openSession(effects, request);
    expect(await stored(session.id)).toMatchObject({
      ...{ ID: session.id, Name: 'runlock prod/web', Node: 'web01', TTL: '30s' },
      ...{ Behavior: 'delete', LockDelay: 0, NodeChecks: [] },
    });
    expect((await stored(session.id))?.['ServiceChecks'] ?? []).toEqual([]);
    // Where they are named apart, Consul from 1.9 on gives it the node's own check unless it is told otherwise.
    const { body } = await proxy.seen(creations);
    expect(JSON.parse(body)).toMatchObject({ Checks: [], NodeChecks: [] });
    expect(session).toMatchObject({ node: 'web01', lost: { aborted: false } });
    await session.close(open);
  });

  test('is renewed every third of its TTL, for as long as it is open', async () => {
    const { effects, step } = await setUp();
    const session = await openSession(effects, request);
    for (let n = 1; n <= 20; n++) {
      expect(await step()).toBe(10_000);
      await proxy.seen(renewals, n);
    }
    expect(proxy.requests.filter(renewals).every(({ path }) => path.includes(session.id))).toBe(true);
    expect(session.lost.aborted).toBe(false);
    await session.close(open);
  });

  test('is renewed every third of its TTL since it was asked for, however slow the answers are', async () => {
    const { effects, step, pass } = await setUp();
    const slow = (match: Match, ms: number) =>
      proxy.rule({ match: (seen) => match(seen) && (pass(ms), false), do: 'hang' });
    slow(creations, 2_000);
    slow(readBacks, 5_000);
    slow(renewals, 4_000);
    const session = await openSession(effects, request);
    expect(await step()).toBe(8_000);
    for (let n = 1; n <= 3; n++) {
      await proxy.seen(renewals, n);
      expect(await step()).toBe(6_000);
    }
    await session.close(open);
  });

  test('is renewed before it was read back, so that it does not end meanwhile', async () => {
    const { effects, step } = await setUp();
    proxy.rule({ match: readBacks, do: 'hang' });
    const stop = new AbortController();
    const opening = openSession(effects, { ...request, signal: stop.signal });
    await proxy.seen(readBacks);
    expect(await step()).toBe(10_000);
    await proxy.seen(renewals);
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(opening).rejects.toBe(reason);
    expect(await sessions()).toEqual([]);
  });

  test('is lost when Consul does not know it any more', async () => {
    const { effects, step } = await setUp();
    const session = await openSession(effects, request);
    await agent.http('PUT', `/v1/session/destroy/${session.id}`);
    expect(session.lost.aborted).toBe(false);
    await step();
    expect(await aborted(session.lost)).toMatchObject({ code: 'session-lost' });
    await session.close(open);
  });

  // Half of chance on top of half: src/consul/retry.ts.
  const GROWING = [750, 1_500, 3_000];
  const STEADY = [10_000, 10_000, 10_000];
  test.each<[string, Parameters<Proxy['rule']>[0]['do'], readonly number[]]>([
    ['closed connections', 'drop-before', GROWING],
    ['lost answers', 'drop-after', GROWING],
    ['answers cut in their middle', 'cut', GROWING],
    ['an election', { status: 500, body: 'No cluster leader' }, GROWING],
    ['too many requests', { status: 429, body: 'limit' }, GROWING],
    ['a token without rights', { status: 403, body: 'Permission denied' }, STEADY],
    ['a leader that has not read its log yet', { status: 404, body: 'Session id "x" not found' }, GROWING],
    ["another server's pages", { status: 404, body: '<html>' }, GROWING],
  ])('is not lost by %s, and asked for again', async (_, fault, pausesMs) => {
    const { effects, step } = await setUp();
    const session = await openSession(effects, request);
    const heal = proxy.rule({ match: renewals, do: fault });
    await step();
    for (const [i, pauseMs] of pausesMs.entries()) {
      await proxy.seen(renewals, i + 1);
      if (i === 2) heal();
      expect(await step()).toBe(pauseMs);
    }
    await proxy.seen(renewals, 4);
    expect(await step()).toBe(10_000);
    expect(session.lost.aborted).toBe(false);
    expect(await stored(session.id)).toBeDefined();
    await session.close(open);
  });

  test('is not lost by a leader that has not read its log yet, nor by an answer lost after that', async () => {
    const { effects, step } = await setUp();
    const session = await openSession(effects, request);
    proxy.rule({ match: renewals, times: 1, do: { status: 404, body: 'Session id "x" not found' } });
    const heal = proxy.rule({ match: readBacks, do: 'drop-before' });
    expect(await step()).toBe(10_000);
    // The next renewal is what tells, not the same look again and again.
    expect(await step()).toBe(750);
    heal();
    await proxy.seen(renewals, 2);
    expect(await step()).toBe(10_000);
    expect(session.lost.aborted).toBe(false);
    await session.close(open);
  });

  test('asks no longer than a deadline for each renewal', async () => {
    const { effects, step } = await setUp();
    // A third of this TTL is shorter than any other deadline.
    const session = await openSession(effects, { ...request, ttlMs: 10_000 });
    proxy.rule({ match: renewals, times: 1, do: 'hang' });
    expect(await step()).toBeCloseTo(3_333, 0);
    expect(await step()).toBeCloseTo(750, 0);
    await proxy.seen(renewals, 2);
    expect(session.lost.aborted).toBe(false);
    await session.close(open);
  });

  test('is destroyed when it is closed, with what it locked, and not renewed any more', async () => {
    const { effects, asleep } = await setUp();
    const session = await openSession(effects, request);
    await agent.kv.put('locked', '', { acquire: session.id });
    await asleep();
    await session.close(open);
    expect(await stored(session.id)).toBeUndefined();
    expect(await agent.kv.get('locked')).toBeUndefined();
    expect(session.lost.aborted).toBe(true);
    expect(proxy.requests.filter(renewals)).toEqual([]);
    await session.close(open);
  });

  test('can be closed while a renewal hangs', async () => {
    const { effects, step } = await setUp();
    const session = await openSession(effects, request);
    proxy.rule({ match: renewals, do: 'hang' });
    await step();
    await proxy.seen(renewals);
    await session.close(open);
    expect(await stored(session.id)).toBeUndefined();
  });

  test('names the node of the local agent, and leaves nothing when only that was asked', async () => {
    const { effects } = await setUp();
    expect(await agentNode(effects, request)).toBe('web01');
    expect(await sessions()).toEqual([]);
  });
});

describe('opening a session', () => {
  test('tries again after faults for as long as it may', async () => {
    const { effects } = await setUp();
    proxy.rule({ times: 2, do: 'drop-before' });
    const session = await openSession(effects, { ...request, retryForMs: 60_000 });
    expect(proxy.requests.filter(creations)).toHaveLength(3);
    await session.close(open);
  });

  test('fails with the fault when it may not', async () => {
    const { effects } = await setUp();
    proxy.rule({ do: 'drop-before' });
    await expect(openSession(effects, { ...request, retryForMs: 0 })).rejects.toMatchObject({
      code: 'unreachable',
    });
    expect(proxy.requests).toHaveLength(1);
  });

  test('ends at once with the reason of its signal', async () => {
    const { effects } = await setUp();
    proxy.rule({ do: 'hang' });
    const stop = new AbortController();
    const opening = openSession(effects, { ...request, signal: stop.signal });
    await proxy.seen(() => true);
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(opening).rejects.toBe(reason);
  });

  test('fails loudly when a proxy drops the body, and leaves no session without an end', async () => {
    const { effects } = await setUp(await startBodyDropper(agent));
    await expect(openSession(effects, request)).rejects.toMatchObject({
      code: 'not-consul',
      message: expect.stringMatching(/TTL ''.*requested TTL '30s'.*dropping request bodies\?$/) as string,
    });
    expect(await sessions()).toEqual([]);
  });
});

/** A proxy that hands everything on but the bodies of requests. */
function startBodyDropper(target: Agent): Promise<string> {
  return serve((incoming, response) => {
    const onward = { method: incoming.method, agent: false, headers: { 'content-length': 0 } };
    const outgoing = httpRequest(`${target.url}${incoming.url ?? ''}`, onward, (answer) => {
      response.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.pipe(response);
    });
    outgoing.end();
  });
}
