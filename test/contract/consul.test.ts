// The one way to Consul, on a real agent and through a proxy that breaks real connections.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import type { Sentence } from '../../src/events/events.ts';
import { useAgent } from '../support/use-agent.ts';
import { startProxy } from '../support/proxy.ts';
import type { Proxy, ProxyRequest } from '../support/proxy.ts';

const agent = useAgent();
let proxy: Proxy;
let consul: Consul;
let nowMs = 0;
let lines: Sentence[] = [];
/** Called with every line of the log. */
let heard: () => void;

const clock = { now: () => Date.now(), monotonicMs: () => nowMs, sleep: () => Promise.resolve() };

beforeEach(async () => {
  nowMs = 0;
  lines = [];
  heard = () => undefined;
  proxy = await startProxy(agent);
  consul = connect(consulSettings(proxy.env), {
    clock,
    emit: (event) => {
      lines.push(sentenceOf(event));
      heard();
    },
  });
});
afterEach(async () => {
  consul.close();
  await proxy.close();
  await agent.kv.deleteTree('');
});

const open = { signal: new AbortController().signal };
const once = { ...open, retryForMs: 0 };
const newSession = () => consul.createSession({ name: 'test', ttl: '600s' }, open);
const sent = (prefix: string) => proxy.requests.filter(({ path }) => path.startsWith(prefix));
const blocking = ({ path }: ProxyRequest) => path.includes('index=');

describe('what Consul has', () => {
  test('a key with its indexes, its session and every character of its value', async () => {
    const session = await newSession();
    // Newer versions take no such key.
    const key = process.env['RUNLOCK_TEST_CONSUL'] === 'newer' ? 'a/u,b' : 'a/ü b';
    await agent.kv.put(key, 'é\n"1"', { acquire: session });
    const pair = await agent.kv.get(key);
    const indexes = { createIndex: pair?.CreateIndex, modifyIndex: pair?.ModifyIndex };
    const found = await consul.get(key, open);
    expect(found.entry).toEqual({ key, value: 'é\n"1"', session, ...indexes });
    expect(found.index).toBe(pair?.ModifyIndex);
  });

  test('is nothing where there is no key', async () => {
    expect((await consul.get('none', open)).entry).toBeUndefined();
    expect((await consul.list('none/', open)).entries).toEqual([]);
    expect(await consul.keys('none/', open)).toEqual([]);
    expect(await consul.readAll([{ verb: 'get-tree', key: 'none/' }], open)).toEqual([]);
    expect(await consul.readSession(crypto.randomUUID(), open)).toBeUndefined();
  });

  test('an empty value is the empty string', async () => {
    await agent.kv.put('a', '');
    expect((await consul.get('a', open)).entry?.value).toBe('');
    expect((await consul.readAll([{ verb: 'get-tree', key: 'a' }], open))[0]?.value).toBe('');
  });

  test('every key below a prefix, and several prefixes at one moment', async () => {
    for (const key of ['a/1', 'a/2', 'b/1', 'c']) await agent.kv.put(key, key);
    const names = (entries: readonly { key: string }[]) => entries.map(({ key }) => key);
    expect(names((await consul.list('a/', open)).entries)).toEqual(['a/1', 'a/2']);
    const trees = ['b/', 'a/', 'c'].map((key) => ({ verb: 'get-tree' as const, key }));
    expect(names(await consul.readAll(trees, open))).toEqual(['b/1', 'a/1', 'a/2', 'c']);
  });

  test('is read consistently', async () => {
    const session = await newSession();
    await consul.get('a', open);
    await consul.list('a/', open);
    await consul.keys('a/', open);
    await consul.readAll([{ verb: 'get-tree', key: 'a/' }], open);
    await consul.readSession(session, open);
    const reads = proxy.requests.filter(({ method, path }) => method === 'GET' || path.startsWith('/v1/txn'));
    expect(reads).toHaveLength(5);
    for (const { path } of reads) expect(path).toMatch(/[?&]consistent/);
  });
});

describe('a transaction', () => {
  test('does all that was asked, and answers with what it wrote', async () => {
    const answer = await consul.transact(
      [
        { verb: 'set', key: 'a', value: 'ü' },
        { verb: 'get-tree', key: 'a' },
      ],
      open,
    );
    const pair = await agent.kv.get('a');
    expect(pair?.Value).toBe('ü');
    expect(answer).toMatchObject({
      kind: 'done',
      entries: [
        { key: 'a', modifyIndex: pair?.ModifyIndex },
        { key: 'a', value: 'ü' },
      ],
    });
  });

  test('that is refused says which operation refused it, and why', async () => {
    const answer = await consul.transact(
      [
        { verb: 'set', key: 'a', value: '1' },
        { verb: 'check-index', key: 'b', index: 7 },
      ],
      open,
    );
    expect(answer).toMatchObject({ kind: 'refused', at: 1, why: expect.stringContaining('b') as string });
    expect(await agent.kv.keys()).toEqual([]);
  });
});

describe('a session', () => {
  test('is read, renewed and destroyed', async () => {
    const id = await newSession();
    const stored = { id, node: agent.name, ttl: '600s', behavior: 'delete', lockDelayMs: 0, checks: [] };
    expect(await consul.readSession(id, open)).toEqual(stored);
    expect(await consul.renewSession(id, open)).toBe(true);
    await consul.destroySession(id, open);
    expect(await consul.renewSession(id, open)).toBe(false);
    await consul.destroySession(id, open);
  });
});

describe('a blocking query', () => {
  test.each(['get', 'list'] as const)('(%s) wakes on the change', async (read) => {
    await agent.kv.put('a', '1');
    const { index } = await consul[read]('a', open);
    const waiting = consul[read]('a', { ...open, index });
    await proxy.seen(blocking);
    await agent.kv.put('a', '2');
    const after = await waiting;
    expect('entry' in after ? after.entry?.value : after.entries[0]?.value).toBe('2');
    expect(after.index).toBeGreaterThan(index);
  });

  test('ends without a change when its time is up, later than the deadline of other requests', async () => {
    await agent.kv.put('a', '1');
    const { index } = await consul.get('a', open);
    const after = await consul.get('a', { ...once, index, waitMs: 300, timeoutMs: 200 });
    expect(after).toMatchObject({ index, entry: { value: '1' } });
    expect(proxy.requests.at(-1)?.path).toContain('wait=300ms');
  });

  test.each([undefined, 0, -1])('of index %s waits for nothing', async (index) => {
    await consul.get('a', { ...once, index, waitMs: 60_000 });
    expect(proxy.requests.some(blocking)).toBe(false);
  });

  test.each([
    [undefined, '25000ms'],
    [3_600_000, '25000ms'],
    [0.2, '1ms'],
    [1_500.4, '1501ms'],
  ])('for %s ms asks Consul to wait %s', async (waitMs, wait) => {
    const stop = new AbortController();
    const limit = waitMs === undefined ? {} : { waitMs };
    const waiting = consul.get('a', { signal: stop.signal, index: 999_999, ...limit });
    expect((await proxy.seen(blocking)).path).toContain(`wait=${wait}`);
    stop.abort();
    await waiting.catch(() => undefined);
  });
});

describe('what may be sent twice', () => {
  test.each<[string, (id: string) => Promise<unknown>]>([
    ['a key', () => consul.get('a', open)],
    ['a list', () => consul.list('a/', open)],
    ['several prefixes', () => consul.readAll([{ verb: 'get-tree', key: 'a' }], open)],
    ['a session', (id) => consul.readSession(id, open)],
    ['making a session', () => newSession()],
    ['destroying one', (id) => consul.destroySession(id, open)],
  ])('is sent again after a fault: %s', async (_, call) => {
    const id = await newSession();
    const before = proxy.requests.length;
    proxy.rule({ times: 1, do: 'drop-before' });
    proxy.rule({ times: 1, do: 'drop-after' });
    await call(id);
    expect(proxy.requests.length - before).toBe(3);
  });

  test('is not sent again after a fault that stays', async () => {
    proxy.rule({ do: { status: 403, body: 'Permission denied' } });
    await expect(consul.get('a', open)).rejects.toMatchObject({ code: 'forbidden' });
    expect(proxy.requests).toHaveLength(1);
  });

  test('is not sent again when its time for that is over', async () => {
    proxy.rule({ do: 'drop-before' });
    const read = consul.get('a', { ...open, retryForMs: 5_000 });
    await proxy.seen(() => true, 2);
    nowMs = 5_000;
    await expect(read).rejects.toMatchObject({ code: 'unreachable' });
  });

  test('is sent again for longer while there is no leader, where the caller says so', async () => {
    proxy.rule({ times: 2, do: { status: 500, body: 'No cluster leader' } });
    await consul.get('a', { ...once, electionMs: 5_000 });
    expect(proxy.requests).toHaveLength(3);
  });
});

test('one request after the other goes over one connection', async () => {
  for (const key of ['a', 'b', 'c']) await consul.get(key, open);
  await consul.transact([{ verb: 'set', key: 'a', value: '1' }], open);
  expect(proxy.counts()).toMatchObject({ requests: 4, connections: 1 });
});

describe('what may not be sent twice', () => {
  const set = [{ verb: 'set' as const, key: 'a', value: '1' }];

  test.each<['drop-before' | 'drop-after' | 'cut', boolean]>([
    ['drop-before', false],
    ['drop-after', true],
    ['cut', true],
  ])('a transaction is sent once, whatever becomes of it: %s', async (fault, done) => {
    proxy.rule({ times: 1, do: fault });
    await expect(consul.transact(set, open)).rejects.toMatchObject({ code: 'unreachable' });
    expect(sent('/v1/txn')).toHaveLength(1);
    expect((await agent.kv.get('a')) !== undefined).toBe(done);
  });

  test.each(['drop-before', 'drop-after', 'cut'] as const)('a renewal is sent once: %s', async (fault) => {
    const id = await newSession();
    proxy.rule({ times: 1, do: fault });
    await expect(consul.renewSession(id, open)).rejects.toMatchObject({ code: 'unreachable' });
    expect(sent('/v1/session/renew')).toHaveLength(1);
  });

  test('a refusal that was cut in its middle is no refusal', async () => {
    proxy.rule({ times: 1, do: 'cut' });
    const refused = [{ verb: 'check-index' as const, key: 'a', index: 7 }];
    await expect(consul.transact(refused, open)).rejects.toMatchObject({ code: 'unreachable' });
  });
});

describe('a signal that aborts', () => {
  /** Rejects with the very reason, long before any deadline or pause. */
  async function expectEnd(call: Promise<unknown>, stop: AbortController): Promise<void> {
    const reason = new Error('enough');
    const startedMs = performance.now();
    stop.abort(reason);
    await expect(call).rejects.toBe(reason);
    expect(performance.now() - startedMs).toBeLessThan(1_000);
  }

  test.each<[string, (signal: AbortSignal) => Promise<unknown>]>([
    ['a read', (signal) => consul.get('a', { signal })],
    ['a transaction', (signal) => consul.transact([{ verb: 'set', key: 'a', value: '' }], { signal })],
    ['a renewal', (signal) => consul.renewSession(crypto.randomUUID(), { signal })],
  ])('ends %s that hangs', async (_, call) => {
    proxy.rule({ do: 'hang' });
    const stop = new AbortController();
    const calling = call(stop.signal);
    await proxy.seen(() => true);
    await expectEnd(calling, stop);
  });

  test('ends a blocking query', async () => {
    const stop = new AbortController();
    const waiting = consul.list('a', { signal: stop.signal, index: 999_999 });
    await proxy.seen(blocking);
    await expectEnd(waiting, stop);
  });

  test('ends the pause before the next try', async () => {
    proxy.rule({ do: 'drop-before' });
    const stop = new AbortController();
    let faults = 0;
    // The pauses grow: the sixth is at least 3 s.
    const inPause = new Promise<void>(
      (resolve) => (heard = () => (faults += 1) === 6 && setImmediate(resolve)),
    );
    const reading = consul.get('a', { signal: stop.signal });
    await inPause;
    await expectEnd(reading, stop);
    expect(proxy.requests).toHaveLength(6);
  });

  test('before the call sends nothing', async () => {
    const reason = new Error('too late');
    const signal = AbortSignal.abort(reason);
    await expect(consul.get('a', { signal })).rejects.toBe(reason);
    await expect(consul.transact([], { signal })).rejects.toBe(reason);
    expect(proxy.requests).toEqual([]);
  });
});

describe('trouble with Consul', () => {
  const warnings = () => lines.filter(({ level }) => level === 'warning').map(({ message }) => message);

  test('is said once after 10 s, and once that it is over', async () => {
    const heal = proxy.rule({ do: 'drop-before' });
    heard = () => (nowMs += 4_000);
    const reading = consul.get('a', open);
    await proxy.seen(() => true, 5);
    heal();
    await reading;
    expect(warnings()).toEqual([
      expect.stringMatching(/^Consul at .* unreachable \(the connection was closed\).*Retrying$/),
      `Consul at ${proxy.address} is reachable again`,
    ]);
  });

  test('that is short is no line for cron to mail', async () => {
    proxy.rule({ times: 2, do: 'drop-before' });
    await consul.get('a', open);
    expect(warnings()).toEqual([]);
  });

  test('is over with any answer of Consul, a refusal too', async () => {
    const fail = async (at: number) => {
      nowMs = at;
      proxy.rule({ times: 1, do: 'drop-before' });
      await expect(consul.get('a', once)).rejects.toMatchObject({ code: 'unreachable' });
    };
    await fail(0);
    await consul.transact([{ verb: 'check-index', key: 'a', index: 7 }], open);
    await fail(20_000);
    expect(warnings()).toEqual([]);
  });
});
