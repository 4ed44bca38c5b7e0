// States on a real Consul: whoever is quicker, answers that are lost, rights, an agent that restarts.
import { describe, expect, test } from 'vitest';
import { startAgent } from '../support/consul.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match } from '../support/proxy.ts';
import { writes } from '../support/proxy-steps.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const keyOf = (path: string) => `runlock/.state/${path}/.value`;
const valueOf = async (path: string) =>
  (JSON.parse((await agent.kv.get(keyOf(path)))?.Value ?? '{}') as { value?: string }).value;
const document = (value: string) =>
  JSON.stringify({ v: 1, value, change: value, by: 'b', at: '2026-01-01T00:00:00Z' });
const isWrite = writes('cas', '/.value');
const isRead: Match = ({ method, path }) => method === 'GET' && path.includes('.value');

describe('a lost answer', () => {
  test.each(['drop-after', 'cut'] as const)(
    '(%s) to a write that took effect is no second change',
    async (fault) => {
      await using proxy = await startProxy(agent);
      proxy.rule({ match: isWrite, times: 1, do: fault });
      const set = await runlock(proxy, ['state', 'set', `lost/${fault}`, '1', '--if-absent']);
      expect(set).toMatchObject({ status: 0, stdout: `set lost/${fault} to 1\n` });
      expect(proxy.requests.filter(isWrite)).toHaveLength(1);
    },
  );

  test('to a write that took no effect is followed by another', async () => {
    await using proxy = await startProxy(agent);
    proxy.rule({ match: isWrite, times: 1, do: 'drop-before' });
    expect((await runlock(proxy, ['state', 'set', 'lost/before', '1', '--if-absent'])).status).toBe(0);
    expect(await valueOf('lost/before')).toBe('1');
  });

  test('to a write that comes late changes nothing that was set meanwhile', async () => {
    await using proxy = await startProxy(agent);
    await runlock(agent, ['state', 'set', 'lost/late', '0']);
    proxy.rule({ match: isWrite, times: 1, do: 'late' });
    expect((await runlock(proxy, ['state', 'set', 'lost/late', '1'])).status).toBe(0);
    await runlock(agent, ['state', 'set', 'lost/late', '2']);
    await proxy.release();
    expect(await valueOf('lost/late')).toBe('2');
  });

  test('after which somebody else has set it leaves nobody sure with --if-value, and that is said', async () => {
    await using proxy = await startProxy(agent);
    await runlock(agent, ['state', 'set', 'lost/other', '0']);
    const other = proxy.seen(isWrite).then(async () => {
      await eventually(async () => expect(await valueOf('lost/other')).toBe('1'));
      await agent.kv.put(keyOf('lost/other'), document('other'));
    });
    proxy.rule({ match: isWrite, times: 1, do: 'drop-after' });
    // The look before the write; the one after it waits until another writer was there.
    proxy.rule({ match: isRead, times: 1, do: { delayMs: 0 } });
    proxy.rule({ match: isRead, times: 1, do: { until: other } });
    const set = ['state', 'set', 'lost/other', '1', '--if-value', '0'];
    const { status, stderr } = await runlock(proxy, set);
    expect(status).toBe(69);
    expect(stderr).toContain("whether lost/other was changed is unknown: check with 'runlock state get");
  });
});

test('a write that another one was quicker than is looked at anew', async () => {
  await using proxy = await startProxy(agent);
  const quicker = proxy.seen(isWrite).then(() => agent.kv.put(keyOf('quick'), document('7')));
  proxy.rule({ match: isWrite, times: 1, do: { until: quicker } });
  const { status, stdout } = await runlock(proxy, ['state', 'set', 'quick', '1']);
  expect({ status, stdout }).toEqual({ status: 0, stdout: 'set quick to 1 (was 7)\n' });
});

test('a watch outlives an agent that restarts, and then shows what changed meanwhile', async () => {
  await using own = await startAgent({ durable: true });
  await runlock(own, ['state', 'set', 'watch/one', '1']);
  const watching = startRunlock(own, ['state', 'watch', 'watch/one', '--json']);
  await eventually(() => expect(watching.stdout()).toContain('"value":"1"'));
  await own.restart();
  await runlock(own, ['state', 'set', 'watch/one', '2']);
  await eventually(() => expect(watching.stdout()).toContain('"value":"2"'), 40_000);
  watching.signal('SIGINT');
  expect((await watching.ended).status).toBe(0);
});

describe('with ACLs', () => {
  const guarded = useAgent({ acl: true });
  const as = async (...rules: string[]) => ({
    env: { ...guarded.env, CONSUL_HTTP_TOKEN: await guarded.token(rules.join('\n')) },
  });
  const WRITE = 'key_prefix "runlock/.state/db/" { policy = "write" }';
  const READ = 'key_prefix "runlock/.state/db/" { policy = "read" }';

  test('the rule that is named is enough for its folder, and for no other', async () => {
    const writer = await as(WRITE);
    expect((await runlock(writer, ['state', 'set', 'db/schema', '42'])).status).toBe(0);
    expect((await runlock(writer, ['state', 'list', 'db'])).status).toBe(0);
    const elsewhere = await runlock(writer, ['state', 'set', 'web/version', '1']);
    expect(elsewhere.status).toBe(77);
    expect(elsewhere.stderr).toContain('key_prefix "runlock/.state/web/" { policy = "write" }');
  });

  test('a reader reads, and is told what it lacks to write', async () => {
    await runlock(await as(WRITE), ['state', 'set', 'db/schema', '42']);
    const reader = await as(READ);
    expect(await runlock(reader, ['state', 'get', 'db/schema'])).toMatchObject({ status: 0, stdout: '42\n' });
    for (const args of [
      ['set', 'db/schema', '43'],
      ['delete', 'db/schema'],
    ]) {
      const { status, stderr } = await runlock(reader, ['state', ...args]);
      expect(status).toBe(77);
      expect(stderr).toContain(WRITE);
    }
  });

  test('what may not be read is never taken for what is not set', async () => {
    const nobody = await as('node "x" { policy = "read" }');
    for (const args of [['get', 'db/schema'], ['list', 'db'], ['list'], ['watch', 'db/schema'], ['watch']]) {
      const { status, stdout, stderr } = await runlock(nobody, ['state', ...args]);
      expect({ args, status, stdout }).toEqual({ args, status: 77, stdout: '' });
      expect(stderr).toContain('{ policy = "read" }');
    }
  });
});

test('a watch of all states whose token loses the right ends with 77, and calls no state unset', async () => {
  await using own = await startAgent({ acl: true });
  const set = (value: string) => runlock(own, ['state', 'set', 'lose/a', value]);
  expect((await set('1')).status).toBe(0);
  const token = await own.token('key_prefix "runlock/.state/" { policy = "read" }');
  const watching = startRunlock({ env: { ...own.env, CONSUL_HTTP_TOKEN: token } }, ['state', 'watch']);
  await eventually(() => expect(watching.stdout()).toContain('lose/a is 1'));
  const self = await own.http('GET', '/v1/acl/token/self', undefined, { token });
  const [policy] = (self.json() as { Policies: { ID: string; Name: string }[] }).Policies;
  const less = { ...policy, Rules: 'key_prefix "elsewhere/" { policy = "read" }' };
  await own.http('PUT', `/v1/acl/policy/${policy?.ID ?? ''}`, less);
  expect((await set('2')).status).toBe(0);
  const { status, stdout } = await watching.ended;
  expect({ status, stdout }).toEqual({
    status: 77,
    stdout: expect.not.stringContaining('not set') as string,
  });
}, 60_000);
