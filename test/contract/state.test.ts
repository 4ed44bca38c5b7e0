// States on a real Consul: whoever is quicker, answers that are lost, rights, an agent that restarts.
import { describe, expect, test } from 'vitest';
import { startAgent } from '../support/consul.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Action, Match } from '../support/proxy.ts';
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
const isDelete = writes('delete-cas', '/.value');
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

  /** The lost write does what `fault` says; then somebody else writes before the writer looks again. */
  const withOther = async (fault: Action, match: Match, args: readonly string[]) => {
    const path = args[2] ?? '';
    await using proxy = await startProxy(agent);
    await runlock(agent, ['state', 'set', path, '0']);
    const other = proxy.seen(match).then(async () => {
      if (fault === 'drop-after') await eventually(async () => expect(await valueOf(path)).not.toBe('0'));
      await agent.kv.put(keyOf(path), document('other'));
    });
    proxy.rule({ match, times: 1, do: fault });
    // The look before the write; the one after it waits until another writer was there.
    proxy.rule({ match: isRead, times: 1, do: { delayMs: 0 } });
    proxy.rule({ match: isRead, times: 1, do: { until: other } });
    const ended = await runlock(proxy, args);
    return { ...ended, value: await valueOf(path), writes: proxy.requests.filter(match).length };
  };

  test.each([
    ['set', 'drop-after', isWrite, ['1']],
    ['set', 'drop-before', isWrite, ['1']],
    ['set', 'drop-after', isWrite, ['1', '--if-value', '0']],
    ['delete', 'drop-after', isDelete, []],
    ['delete', 'drop-before', isDelete, []],
  ] as const)(
    'to state %s (%s), and then another writer: nobody is sure, and the newer value stays',
    async (action, fault, match, more) => {
      const path = `lost/${action}-${fault}-${more.length}`;
      const { status, stdout, stderr, value, writes } = await withOther(fault, match, [
        ...['state', action, path],
        ...more,
      ]);
      expect({ status, stdout, value, writes }).toEqual({
        status: 69,
        stdout: '',
        value: 'other',
        writes: 1,
      });
      expect(stderr).toContain(
        `whether ${path} was changed is unknown: check with 'runlock state get ${path}'`,
      );
    },
  );

  test.each([
    ['drop-after', 1],
    ['drop-before', 2],
  ] as const)('(%s) to a longer --ttl: the state lasts longer, as is said', async (fault, count) => {
    await using proxy = await startProxy(agent);
    await runlock(agent, ['state', 'set', 'lost/ttl', '1', '--ttl', '1h']);
    proxy.rule({ match: isWrite, times: 1, do: fault });
    const { status, stdout } = await runlock(proxy, [
      'state',
      'set',
      'lost/ttl',
      '1',
      '--ttl',
      '9h',
      '--json',
    ]);
    expect({ status, kind: (JSON.parse(stdout) as { kind: string }).kind }).toEqual({
      status: 0,
      kind: 'extended',
    });
    const kept = JSON.parse((await agent.kv.get(keyOf('lost/ttl')))?.Value ?? '{}') as { until: string };
    expect(Date.parse(kept.until) - Date.now()).toBeGreaterThan(8 * 3_600_000);
    expect(proxy.requests.filter(isWrite)).toHaveLength(count);
  });

  test.each([
    ['drop-after', 1],
    ['drop-before', 2],
  ] as const)('(%s) to a delete ends the state and says what it was', async (fault, count) => {
    await using proxy = await startProxy(agent);
    await runlock(agent, ['state', 'set', 'lost/delete', '1']);
    proxy.rule({ match: isDelete, times: 1, do: fault });
    const { status, stdout } = await runlock(proxy, ['state', 'delete', 'lost/delete']);
    expect({ status, stdout }).toEqual({
      status: 0,
      stdout: expect.stringMatching(/^deleted lost\/delete \(was 1, /) as string,
    });
    expect(proxy.requests.filter(isDelete)).toHaveLength(count);
    expect(await valueOf('lost/delete')).toBeUndefined();
  });

  test('to a delete that comes late removes nothing that was set meanwhile', async () => {
    await using proxy = await startProxy(agent);
    await runlock(agent, ['state', 'set', 'lost/late-delete', '1']);
    proxy.rule({ match: isDelete, times: 1, do: 'late' });
    expect((await runlock(proxy, ['state', 'delete', 'lost/late-delete'])).status).toBe(0);
    await runlock(agent, ['state', 'set', 'lost/late-delete', '2']);
    await proxy.release();
    expect(await valueOf('lost/late-delete')).toBe('2');
  });
});

describe('state prune', () => {
  const putEnded = (path: string) =>
    agent.kv.put(
      keyOf(path),
      JSON.stringify({ ...(JSON.parse(document('x')) as object), until: '2026-01-01T00:00:01Z' }),
    );
  const prune = async (through: Parameters<typeof runlock>[0]) => {
    const { status, stdout } = await runlock(through, ['state', 'prune', '--json']);
    return { status, ...(JSON.parse(stdout) as { pruned: string[]; open: string[] }) };
  };

  test.each(['drop-after', 'drop-before'] as const)(
    '(%s) whose answer is lost names what it removed once',
    async (fault) => {
      await using proxy = await startProxy(agent);
      const paths = ['prune/a', 'prune/b'];
      await Promise.all(paths.map(putEnded));
      proxy.rule({ match: isDelete, times: 1, do: fault });
      expect(await prune(proxy)).toMatchObject({ status: 0, pruned: paths });
      expect(await Promise.all(paths.map(valueOf))).toEqual([undefined, undefined]);
    },
  );

  test('removes more than one transaction can', async () => {
    const paths = Array.from({ length: 70 }, (_, i) => `prune/many/s${String(i).padStart(2, '0')}`);
    for (const path of paths) await putEnded(path);
    expect((await prune(agent)).pruned).toEqual(paths);
    expect(await agent.kv.keys('runlock/.state/prune/many/')).toEqual([]);
  });

  test('leaves one that is set again meanwhile, and removes the others', async () => {
    await using proxy = await startProxy(agent);
    await Promise.all(['prune/a', 'prune/b', 'prune/c'].map(putEnded));
    const again = proxy.seen(isDelete).then(() => agent.kv.put(keyOf('prune/b'), document('new')));
    proxy.rule({ match: isDelete, times: 1, do: { until: again } });
    expect(await prune(proxy)).toMatchObject({ pruned: ['prune/a', 'prune/c'] });
    expect(await valueOf('prune/b')).toBe('new');
  });

  test('removes the .open of a wait for what is not set, and no other', async () => {
    const openOf = (path: string) => `runlock/.state/${path}/.open`;
    await putEnded('prune/ended');
    await agent.kv.put(keyOf('prune/set'), document('1'));
    const beside = ['prune/unset', 'prune/ended', 'prune/set'];
    await Promise.all(beside.map((path) => agent.kv.put(openOf(path), '')));
    expect(await prune(agent)).toMatchObject({
      pruned: ['prune/ended'],
      open: ['prune/ended', 'prune/unset'],
    });
    expect(await agent.kv.keys('runlock/.state/prune/')).not.toContain(openOf('prune/unset'));
    expect(await agent.kv.get(openOf('prune/set'))).toBeDefined();
  });
});

test('a write that another one was quicker than is looked at anew', async () => {
  await using proxy = await startProxy(agent);
  const quicker = proxy.seen(isWrite).then(() => agent.kv.put(keyOf('quick'), document('7')));
  proxy.rule({ match: isWrite, times: 1, do: { until: quicker } });
  const { status, stdout } = await runlock(proxy, ['state', 'set', 'quick', '1']);
  expect({ status, stdout }).toEqual({ status: 0, stdout: 'set quick to 1 (was 7)\n' });
});

test('of two writers that have both seen the value of --if-value, one wins', async () => {
  await using proxy = await startProxy(agent);
  await runlock(agent, ['state', 'set', 'race', '0']);
  const set = (through: Parameters<typeof runlock>[0], value: string) =>
    runlock(through, ['state', 'set', 'race', value, '--if-value', '0']);
  // The slower one has looked already when the other one starts.
  const faster = proxy.seen(isWrite).then(() => set(agent, 'fast'));
  proxy.rule({ match: isWrite, times: 1, do: { until: faster } });
  const slower = await set(proxy, 'slow');
  expect(await faster).toMatchObject({ status: 0, stdout: 'set race to fast (was 0)\n' });
  expect(slower.status).toBe(1);
  expect(slower.stdout).toMatch(/^race is fast, set by .* ago; nothing was changed\n$/);
  expect(await valueOf('race')).toBe('fast');
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

  test.each([
    [['set', 'web/version', '1'], 'web/', 'write'],
    [['set', 'version', '1'], 'version/', 'write'],
    [['set', 'a/b/c', '1', '--if-absent'], 'a/b/', 'write'],
    [['delete', 'web/version'], 'web/', 'write'],
    [['get', 'web/version'], 'web/', 'read'],
    [['list', 'web'], 'web/', 'read'],
    [['list', 'web/'], 'web/', 'read'],
    [['list'], '', 'read'],
    [['watch', 'web/version'], 'web/', 'read'],
    [['watch'], '', 'read'],
    [['prune'], '', 'write'],
  ] as const)('state %j names the one rule that it needs, which is enough', async (args, below, policy) => {
    const rule = `key_prefix "runlock/.state/${below}" { policy = "${policy}" }`;
    const without = await runlock(await as(WRITE), ['state', ...args]);
    expect({ status: without.status, stdout: without.stdout }).toEqual({ status: 77, stdout: '' });
    expect(without.stderr).toMatch(/^runlock: [^\n]*\n$/);
    expect(without.stderr).toContain(`the token needs the rule: ${rule}\n`);
    const running = startRunlock(await as(rule), ['state', ...args]);
    if (args[0] === 'watch') await eventually(() => expect(running.stdout()).not.toBe(''));
    if (args[0] === 'watch') running.signal('SIGINT');
    expect([0, 1]).toContain((await running.ended).status);
  });

  test('prune that may read all names the folder in which it may not delete', async () => {
    const ended = { ...(JSON.parse(document('x')) as object), until: '2026-01-01T00:00:01Z' };
    await guarded.kv.put(keyOf('web/ended'), JSON.stringify(ended));
    const reader = await as(WRITE, 'key_prefix "runlock/.state/" { policy = "read" }');
    const { status, stderr } = await runlock(reader, ['state', 'prune']);
    expect(status).toBe(77);
    expect(stderr).toContain('key_prefix "runlock/.state/web/" { policy = "write" }');
    expect(await guarded.kv.get(keyOf('web/ended'))).toBeDefined();
    await guarded.kv.delete(keyOf('web/ended'));
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
