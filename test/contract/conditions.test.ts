// Waiters on a real Consul: what they ask, an agent that restarts, rights, tokens, a store that goes back.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { startAgent } from '../support/consul.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { ProxyRequest } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const isWatch = ({ path }: ProxyRequest) => /[?&]index=\d/.test(path);
const isLook = ({ path }: ProxyRequest) => path.startsWith('/v1/txn');
const state = (on: Parameters<typeof runlock>[0], ...args: string[]) => runlock(on, ['state', ...args]);

describe('what a waiter asks', () => {
  // Each had a watch of its own once: twenty connections, of 200 that Consul has for a host.
  test('twenty conditions are read by one transaction a look, and their folder is watched', async () => {
    await using proxy = await startProxy(agent);
    const paths = Array.from({ length: 20 }, (_, i) => `many/s${i}`);
    for (const path of paths) await state(agent, 'set', path, '0');
    const until = paths.flatMap((path) => ['--until', `state:${path}!=x`]);
    expect((await runlock(proxy, ['wait', '--timeout', '10s', ...until])).status).toBe(0);
    expect(proxy.requests.map(({ path }) => path.split('?')[0])).toEqual(['/v1/txn']);
    const waiting = startRunlock(proxy, [
      ...['wait', '-v', '--timeout', '30s', ...until, '--until', 'state:many/s0=1'],
    ]);
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(1));
    // The second look is for what changed before the watch began.
    expect(proxy.requests.filter(isLook)).toHaveLength(3);
    await state(agent, 'set', 'many/s0', '1');
    expect((await waiting.ended).status).toBe(0);
    expect(proxy.requests.filter(isLook)).toHaveLength(4);
    expect(proxy.requests.filter(isWatch).length).toBeLessThanOrEqual(2);
  });

  test('for one state is a read and a query, whose answer ends it; setting it is two requests', async () => {
    await using proxy = await startProxy(agent);
    await using setter = await startProxy(agent);
    await state(agent, 'set', 'one/a', '0');
    const waiting = startRunlock(proxy, ['wait', '--timeout', '30s', '--until', 'state:one/a=1']);
    await proxy.seen(isWatch);
    await state(setter, 'set', 'one/a', '1');
    expect((await waiting.ended).status).toBe(0);
    expect(proxy.requests).toHaveLength(2);
    expect(setter.requests).toHaveLength(2);
  });

  test('while nothing changes is one query of 25 s after the other; neighbours wake nobody', async () => {
    await using proxy = await startProxy(agent);
    await state(agent, 'set', 'quiet/a', '1');
    const waiting = startRunlock(proxy, ['wait', '--timeout', '60s', '--until', 'state:quiet/a=2']);
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(1));
    for (let i = 0; i < 5; i += 1) await state(agent, 'set', `quiet/b${i}`, String(i));
    expect(proxy.requests).toHaveLength(2);
    expect(proxy.requests[1]?.path).toMatch(/[?&]wait=25000ms/);
    await state(agent, 'set', 'quiet/a', '2');
    expect((await waiting.ended).status).toBe(0);
  });

  test('for a state that is not there makes a place of its own, so that neighbours wake nobody', async () => {
    await using proxy = await startProxy(agent);
    const waiting = startRunlock(proxy, ['wait', '--timeout', '60s', '--until', 'state:lone/a']);
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(1));
    await eventually(async () => {
      await agent.kv.put('runlock/other', String(Math.random()));
      expect(await agent.kv.get('runlock/.state/lone/a/.open')).toBeDefined();
    }, 20_000);
    // The index catches up once.
    await agent.kv.put('runlock/other', 'x');
    await eventually(() => expect(proxy.requests.filter(isWatch).length).toBeGreaterThan(2));
    const { length } = proxy.requests;
    for (let i = 0; i < 12; i += 1) await agent.kv.put('runlock/other', String(i));
    await state(agent, 'set', 'lone/a', '1');
    expect((await waiting.ended).status).toBe(0);
    expect(proxy.requests.length - length).toBeLessThanOrEqual(4);
  });
});

describe('services and states together', () => {
  const register = (status: 'passing' | 'critical') =>
    agent.http('PUT', '/v1/agent/service/register', {
      ...{ Name: 'web', ID: 'web' },
      Check: { CheckID: 'web', TTL: '10m', Status: status },
    });

  test('are judged between two reads of the states that are equal; else it reads again', async () => {
    await register('passing');
    await state(agent, 'set', 'mix/a', '0');
    await using proxy = await startProxy(agent);
    const isHealth = ({ path }: ProxyRequest) => path.startsWith('/v1/health/');
    // Changed between the first read of the states and that of the service.
    proxy.rule({
      match: isHealth,
      times: 1,
      do: { until: proxy.seen(isHealth).then(() => state(agent, 'set', 'mix/a', '1')) },
    });
    const { status, stdout } = await runlock(proxy, [
      ...['wait', '--timeout', '0', '--json', '--until', 'healthy:web', '--until', 'state:mix/a=1'],
    ]);
    expect({ status, said: JSON.parse(stdout) as object }).toMatchObject({
      status: 0,
      said: { atOnce: true },
    });
    expect(proxy.requests.filter(isHealth)).toHaveLength(2);
    expect(proxy.requests.filter(isLook)).toHaveLength(3);
  });

  test('several that were never well at once are not taken for well together', async () => {
    const offer = (name: string) =>
      agent.http('PUT', '/v1/agent/service/register', {
        ...{ Name: name, ID: name },
        Check: { CheckID: name, TTL: '10m', Status: 'critical' },
      });
    const read = (name: string) => agent.http('GET', `/v1/health/service/${name}?consistent`);
    const set = async (name: string, how: 'pass' | 'fail', Status: string) => {
      await agent.http('PUT', `/v1/agent/check/${how}/${name}`);
      const check: unknown = expect.objectContaining({ CheckID: name, Status });
      const shown = { Checks: expect.arrayContaining([check]) as unknown };
      await eventually(async () => expect((await read(name)).json()).toMatchObject([shown]));
    };
    await Promise.all([offer('first'), offer('second')]);
    await set('first', 'pass', 'passing');
    const { text: body } = await read('first');
    await set('first', 'fail', 'critical');
    await set('second', 'pass', 'passing');
    await using proxy = await startProxy(agent);
    // As if it had been read before the other one was well.
    proxy.rule({
      match: ({ path }) => path.startsWith('/v1/health/service/first'),
      times: 1,
      do: {
        status: 200,
        body,
        headers: { 'content-type': 'application/json', 'x-consul-index': '5' },
      },
    });
    const until = ['--until', 'healthy:first', '--until', 'healthy:second'];
    const { status, stdout } = await runlock(proxy, ['wait', '--timeout', '0', '--json', ...until]);
    expect({ status, said: JSON.parse(stdout) as object }).toMatchObject({
      status: 75,
      said: { atOnce: true, conditions: [{ asWanted: false }, { asWanted: true }] },
    });
  });

  test('that change at every read are judged all the same, and that is said', async () => {
    await register('passing');
    await using proxy = await startProxy(agent);
    const isHealth = ({ path }: ProxyRequest) => path.startsWith('/v1/health/');
    for (let i = 1; i <= 8; i += 1) {
      const changed = proxy.seen(isHealth, i).then(() => state(agent, 'set', 'mix/b', String(i)));
      proxy.rule({ match: isHealth, times: 1, do: { until: changed } });
    }
    const { stdout } = await runlock(proxy, [
      ...['wait', '--timeout', '0', '--json', '--until', 'healthy:web', '--until', 'state:mix/b!=x'],
    ]);
    expect(JSON.parse(stdout)).toMatchObject({ met: true, atOnce: false });
    expect(proxy.requests.filter(isHealth)).toHaveLength(5);
  });
});

describe('a waiter outlives', () => {
  test('its agent’s restart, and hears of what changes after it', async () => {
    await using own = await startAgent({ durable: true });
    const waiting = startRunlock(own, ['wait', '-v', '--timeout', '60s', '--until', 'state:a=1']);
    await waiting.says(/state:a=1 does not hold/);
    await own.restart();
    expect((await state(own, 'set', 'a', '1')).status).toBe(0);
    expect((await waiting.ended).status).toBe(0);
  });

  test('an agent that is away at its start, and the time counts from there', async () => {
    await using proxy = await startProxy(agent);
    await state(agent, 'set', 'away/a', '1');
    const back = proxy.rule({ do: 'drop-before' });
    const waiting = startRunlock(proxy, ['wait', '--timeout', '30s', '--until', 'state:away/a']);
    await proxy.seen(() => true, 3);
    back();
    expect((await waiting.ended).status).toBe(0);
  });

  test('a token that is replaced in its file, and one that is revoked without another ends it (77)', async () => {
    await using own = await startAgent({ acl: true });
    const file = join(stage().folder, 'token');
    const rules = 'key_prefix "runlock/.state/" { policy = "read" }';
    const revoke = async (token: string) => {
      const self = await own.http('GET', '/v1/acl/token/self', undefined, { token });
      await own.http('DELETE', `/v1/acl/token/${(self.json() as { AccessorID: string }).AccessorID}`);
    };
    const [first, second] = [await own.token(rules), await own.token(rules)];
    writeFileSync(file, first);
    const as = { env: { ...own.env, CONSUL_HTTP_TOKEN: undefined, CONSUL_HTTP_TOKEN_FILE: file } } as never;
    const waiting = startRunlock(as, ['wait', '-v', '--timeout', '50s', '--until', 'state:t/a=1']);
    await waiting.says(/state:t\/a=1 does not hold/);
    writeFileSync(file, second);
    await revoke(first);
    await state(own, 'set', 't/a', '1');
    expect((await waiting.ended).status).toBe(0);
    const other = startRunlock(as, ['wait', '-v', '--timeout', '50s', '--until', 'state:t/a=2']);
    await other.says(/state:t\/a=2 does not hold/);
    await revoke(second);
    await state(own, 'set', 't/a', '3');
    expect((await other.ended).status).toBe(77);
  });
});

test('without Consul for the whole time exits 69, and says why', async () => {
  const nowhere = { env: { CONSUL_HTTP_ADDR: '127.0.0.1:1' } };
  const { status, stdout, stderr } = await runlock(nowhere, [
    ...['wait', '--timeout', '1s', '--on-timeout', 'pass', '--until', 'state:a'],
  ]);
  expect({ status, stdout }).toEqual({ status: 69, stdout: '' });
  expect(stderr).toMatch(/connection refused/);
});

describe('what the token may not read is never taken for what is not there', () => {
  const guarded = useAgent({ acl: true });
  test.each([
    ['not:state:db/schema', 'key_prefix "runlock/.state/db/" { policy = "read" }'],
    ['state:db/schema!=1', 'key_prefix "runlock/.state/db/" { policy = "read" }'],
    ['idle:prod/db', 'key_prefix "runlock/prod/db/.slot/" { policy = "read" }'],
    ['not:blocked:prod/db', 'key_prefix "runlock/prod/db/.slot/" { policy = "read" }'],
    ['not:active:n@prod/db', 'key_prefix "runlock/prod/db/.slot/" { policy = "read" }'],
    ['not:good:n@prod/db', 'key "runlock/prod/db/.runs/n" { policy = "read" }'],
    ['not:good:*@prod/db', 'key_prefix "runlock/prod/db/.runs/" { policy = "read" }'],
    ['not:frozen:prod', 'key "runlock/prod/.freeze" { policy = "read" }'],
    ['not:agent:n', 'key "runlock/.agents/n" { policy = "read" }'],
    ['not:healthy:web', 'service "web" { policy = "read" }'],
  ])('%s exits 77 and names the rule; with it, it holds', async (condition, rule) => {
    const as = async (rules: string) => ({
      env: { ...guarded.env, CONSUL_HTTP_TOKEN: await guarded.token(rules) },
    });
    const look = ['wait', '--timeout', '5s', '--until', condition];
    const refused = await runlock(await as('key_prefix "elsewhere/" { policy = "read" }'), look);
    expect({ status: refused.status, stdout: refused.stdout }).toEqual({ status: 77, stdout: '' });
    const others = ['key "runlock/.freeze" { policy = "read" }', 'node_prefix "" { policy = "read" }'];
    if (!condition.includes('frozen')) expect(refused.stderr).toContain(rule);
    expect(await runlock(await as([rule, ...others].join('\n')), look)).toMatchObject({ status: 0 });
  });

  test.each(['0', '1s', '3s'])(
    'also with --timeout %s, less than a refusal needs to be believed',
    async (timeout) => {
      const token = await guarded.token('key_prefix "elsewhere/" { policy = "read" }');
      const as = { env: { ...guarded.env, CONSUL_HTTP_TOKEN: token } };
      const { status, stderr } = await runlock(as, ['wait', '--timeout', timeout, '--until', 'idle:prod/db']);
      expect(status).toBe(77);
      expect(stderr).toContain('key_prefix "runlock/prod/db/.slot/" { policy = "read" }');
    },
  );

  test('also where the token loses the right while it waits', async () => {
    const group = groupOf(guarded, 'lose/db');
    expect((await group.exec('n', '--', 'false')).status).toBe(1);
    const token = await guarded.token('key_prefix "runlock/" { policy = "read" }');
    const as = { env: { ...guarded.env, CONSUL_HTTP_TOKEN: token } };
    const words = ['wait', '-v', '--timeout', '50s', '--until', 'idle:lose/db'];
    const waiting = startRunlock(as, words);
    await waiting.says(/idle:lose\/db does not hold/);
    const self = await guarded.http('GET', '/v1/acl/token/self', undefined, { token });
    const [policy] = (self.json() as { Policies: { ID: string; Name: string }[] }).Policies;
    const less = { ...policy, Rules: 'key_prefix "elsewhere/" { policy = "read" }' };
    await guarded.http('PUT', `/v1/acl/policy/${policy?.ID ?? ''}`, less);
    // Wakes the watch, whose listing has nothing in it now.
    expect((await group.exec('n', '--', 'false')).status).toBe(1);
    const { status, stderr } = await waiting.ended;
    expect({ status, stderr }).toEqual({
      status: 77,
      stderr: expect.stringContaining('key_prefix "runlock/lose/db/.slot/" { policy = "read" }') as string,
    });
  }, 60_000);

  test('also where only single keys of a listing may be read', async () => {
    await guarded.kv.put('runlock/prod/web/.slot/0/owner', '{}');
    const token = await guarded.token('key "runlock/prod/web/.slot/1/owner" { policy = "read" }');
    const { status } = await runlock({ env: { ...guarded.env, CONSUL_HTTP_TOKEN: token } }, [
      ...['wait', '--timeout', '5s', '--until', 'idle:prod/web'],
    ]);
    expect(status).toBe(77);
  });
});
