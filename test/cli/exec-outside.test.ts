// What others see, in Consul, of a run that waits without a slot.
import { describe, expect, test } from 'vitest';
import { startAgent } from '../support/consul.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { STEPS } from '../support/proxy-steps.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

const set = async (path: string, value: string) => {
  expect((await runlock(agent, ['state', 'set', path, value])).status).toBe(0);
};

const recordOf = async (group: string, node: string) => {
  const pair = await agent.kv.get(`runlock/${group}/.outside/${node}`);
  return pair && { ...(JSON.parse(pair.Value) as { run: string }), session: pair.Session };
};

const recorded = (group: string, node: string) =>
  eventually(async () => {
    const found = await recordOf(group, node);
    expect(found?.session).toBeTruthy();
    return found;
  });

const waits = async () =>
  ((await agent.http('GET', '/v1/session/list')).json() as { Name: string; TTL: string }[]).filter(
    ({ Name }) => Name === 'runlock waits',
  );

describe('the record of a run that waits outside', () => {
  test('is there for as long as it waits, in each of its groups, and says for what', async () => {
    const group = groupOf(agent, 'out/a', { args: ['-g', 'out/b'] });
    const when = ['--when', 'state:oa/a=1', '--when', 'not:frozen:out/none'];
    const run = group.start('web01', ...when, '--', 'sh', '-c', 'exit 0', 'secret');
    const record = await recorded('out/a', 'web01');
    expect(record).toMatchObject({
      ...{ v: 1, groups: ['out/a', 'out/b'], when: ['state:oa/a=1', 'not:frozen:out/none'] },
      ...{ publish: [], during: [], command: 'sh' },
    });
    expect(record?.run).toMatch(/^\S+$/);
    expect(record).not.toHaveProperty('gate');
    expect(JSON.stringify(record)).not.toContain('secret');
    expect(await recorded('out/b', 'web01')).toMatchObject({ run: record?.run });
    expect(await waits()).toMatchObject([{ TTL: '60s' }]);
    await set('oa/a', '1');
    expect(await run.ended).toEqual({ status: 0, stdout: '', stderr: '' });
    expect(await group.keys('.outside/')).toEqual([]);
    expect(await recordOf('out/b', 'web01')).toBeUndefined();
    expect(await waits()).toEqual([]);
  });

  test('is gone as soon as the run has its ticket', async () => {
    const group = groupOf(agent, 'out/ticket');
    const holder = await group.hold('web00');
    const run = group.start('web01', '--when', 'state:ot/a=1', '--', 'true');
    await recorded(group.name, 'web01');
    await set('ot/a', '1');
    await group.waiting(1);
    await eventually(async () => expect(await recordOf(group.name, 'web01')).toBeUndefined());
    await holder.end();
    expect((await run.ended).status).toBe(0);
  });

  test('is there at a closed gate too, without a condition', async () => {
    await agent.http('PUT', '/v1/catalog/register', {
      ...{ Node: 'elsewhere', Address: '127.0.0.9', Service: { Service: 'outshop', ID: 'outshop' } },
      Check: { Node: 'elsewhere', CheckID: 'x', Name: 'x', ServiceID: 'outshop', Status: 'critical' },
    });
    await agent.http('PUT', '/v1/agent/service/register', { Name: 'outshop', ID: 'outshop' });
    const group = groupOf(agent, 'out/gate');
    const gate = ['--service', 'auto', '--max-offline', '50%'];
    const run = group.start('node1', ...gate, '--', 'true');
    expect(await recorded(group.name, 'node1')).toMatchObject({
      ...{ when: [], gate: { services: ['outshop'], maxOffline: { percent: 50 } } },
    });
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(143);
    expect(await group.keys()).toEqual([]);
  });

  test('goes with a run that a signal ends, or that gives up', async () => {
    const group = groupOf(agent, 'out/end');
    const run = group.start('web01', '--when', 'state:oe/none', '--', 'true');
    await recorded(group.name, 'web01');
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(143);
    expect(await group.keys()).toEqual([]);
    expect((await group.exec('web01', '-w', '1s', '--when', 'state:oe/none', '--', 'true')).status).toBe(75);
    expect(await group.keys()).toEqual([]);
    expect(await waits()).toEqual([]);
  });

  test('goes with the session of a run that is killed', async () => {
    const group = groupOf(agent, 'out/kill');
    const run = group.start('web01', '--session-ttl', '10s', '--when', 'state:ok/none', '--', 'true');
    await recorded(group.name, 'web01');
    run.signal('SIGKILL');
    await eventually(async () => expect(await group.keys()).toEqual([]), 59_000);
  }, 70_000);

  test('comes back after its session is gone, and has one run of a node at a time', async () => {
    const group = groupOf(agent, 'out/again');
    const when = ['--session-ttl', '10s', '--when', 'state:og/none', '--', 'true'];
    const first = group.start('web01', ...when);
    const record = await recorded(group.name, 'web01');
    const second = group.start('web01', '-v', ...when);
    await second.says(/does not show that this run waits/);
    expect(await recordOf(group.name, 'web01')).toEqual(record);
    first.signal('SIGTERM');
    await first.ended;
    const next = await recorded(group.name, 'web01');
    expect(next?.run).not.toBe(record?.run);
    await agent.http('PUT', `/v1/session/destroy/${next?.session ?? ''}`);
    await eventually(async () => {
      const again = await recordOf(group.name, 'web01');
      expect(again).toMatchObject({ run: next?.run });
      expect(again?.session).not.toBe(next?.session);
    }, 20_000);
    second.signal('SIGTERM');
    expect((await second.ended).status).toBe(143);
    expect(await group.keys()).toEqual([]);
  });

  test('keeps the group from being forgotten', async () => {
    const group = groupOf(agent, 'out/forget');
    await group.exec('web00', '--', 'true');
    const run = group.start('web01', '--when', 'state:of/none', '--', 'true');
    await recorded(group.name, 'web01');
    const refused = await runlock(agent, ['forget', group.name]);
    expect(refused).toMatchObject({ status: 75 });
    expect(refused.stderr).toContain('web01 is waiting without a slot');
    run.signal('SIGTERM');
    await run.ended;
    expect(await runlock(agent, ['forget', group.name, '--force'])).toMatchObject({ status: 0, stderr: '' });
  });

  test.each([[], ['--force']])(
    'has release say that only its node can stop it: 75 (%s)',
    async (...force) => {
      const group = groupOf(agent, `out/release${force.length}`);
      const run = group.start('web01', '--when', 'state:ol/none', '--when', 'state:ol/b=1', '--', 'true');
      const record = await recorded(group.name, 'web01');
      const words = ['release', group.name, '--owner', 'web01', ...force];
      const { status, stdout, stderr } = await runlock(agent, words);
      expect({ status, stderr }).toEqual({ status: 75, stderr: '' });
      expect(stdout).toMatch(
        /^nothing was done: web01 has no claim in out\/release\d, but its run \S+ \(true\) has been waiting without a slot for \d+s, until state:ol\/none and state:ol\/b=1; to stop that run, end its runlock on web01; if that /,
      );
      const json = await runlock(agent, [...words, '--json']);
      expect(json.status).toBe(75);
      expect(JSON.parse(json.stdout)).toMatchObject({
        ...{ kind: 'outside', node: 'web01', group: group.name, run: record?.run, command: 'true' },
        when: ['state:ol/none', 'state:ol/b=1'],
      });
      expect(await recorded(group.name, 'web01')).toEqual(record);
      const own = await runlock(agent, ['release', group.name, '--node', 'web01']);
      expect(own).toMatchObject({
        status: 0,
        stdout: `nothing to release: web01 has no claim in ${group.name}\n`,
      });
      const key = `runlock/${group.name}/.outside/web07`;
      await agent.http('PUT', `/v1/kv/${key}?acquire=${record?.session ?? ''}`, { v: 1, run: 7 });
      expect((await agent.kv.get(key))?.Session).toBe(record?.session);
      const junk = await runlock(agent, ['release', group.name, '--owner', 'web07', '--force']);
      expect(junk).toMatchObject({
        status: 0,
        stdout: `nothing to release: web07 has no claim in ${group.name}\n`,
      });
      run.signal('SIGTERM');
      expect((await run.ended).status).toBe(143);
      expect(await group.keys()).toEqual([]);
    },
  );

  test('is not needed: a token that may open no session for it waits and runs all the same', async () => {
    const rules = [
      ...['key_prefix "runlock/g/.queue/"', 'key_prefix "runlock/g/.slot/"', 'key_prefix "runlock/g/.node/"'],
      ...['key_prefix "runlock/g/.runs/"', 'key_prefix "runlock/.state/"', 'session_prefix ""'],
      ...[
        'key "runlock/g/.tail"',
        'key "runlock/g/.last"',
        'key "runlock/g/.freeze"',
        'key "runlock/.freeze"',
      ],
    ];
    const token = await guarded.token(rules.map((rule) => `${rule} { policy = "write" }`).join('\n'));
    const as = { ...guarded, env: { ...guarded.env, CONSUL_HTTP_TOKEN: token } };
    const run = groupOf(as, 'g').start('n', '-v', '--when', 'state:on/a', '--', 'echo', 'ran');
    await run.says(/does not show that this run waits: .*key_prefix "runlock\/g\/" \{ policy = "write" \}/);
    await runlock(as, ['state', 'set', 'on/a', '1']);
    expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  });
});

test('a run that waits outside outlives a restart of Consul, its record too, and then starts', async () => {
  await using own = await startAgent({ durable: true });
  const group = groupOf(own, 'g');
  const run = group.start('web01', '-v', '--session-ttl', '10s', '--when', 'state:or/a', '--', 'echo', 'ran');
  const key = 'runlock/g/.outside/web01';
  await eventually(async () => expect(await own.kv.get(key)).toBeDefined());
  await own.restart('kill');
  await eventually(async () => expect((await own.kv.get(key))?.Session).toBeTruthy(), 40_000);
  expect(run.stdout()).toBe('');
  await runlock(own, ['state', 'set', 'or/a', '1']);
  expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  expect(await group.keys('.outside/')).toEqual([]);
});

test('an idle wait sends one query for each thing that it watches, and renews the record', async () => {
  await using proxy = await startProxy(agent);
  const group = groupOf({ ...agent, env: proxy.env }, 'out/idle');
  const run = group.start('web01', '--session-ttl', '10s', '--when', 'state:oi/none', '--', 'true');
  await recorded(group.name, 'web01');
  const settled = proxy.requests.length;
  await eventually(() => expect(proxy.requests.filter(STEPS.renew).length).toBeGreaterThanOrEqual(3), 40_000);
  // Three renewals are 20 s here; the query of the state may have been renewed once, after 25 s.
  const idle = proxy.requests.slice(settled);
  expect(idle.filter((request) => !STEPS.renew(request)).length).toBeLessThanOrEqual(2);
  run.signal('SIGTERM');
  await run.ended;
});

const guarded = useAgent({ acl: true });
