// Who waits for a state, and who sets it, while agents restart or hang, servers are lost and a snapshot is restored.
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { endAgents, startAgent, startCluster } from '../support/consul.ts';
import type { Agent, Cluster } from '../support/consul.ts';
import { ownStage } from '../support/own-stage.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match } from '../support/proxy.ts';
import { allHear, startWaiters } from '../support/waiters.ts';

const LONG = { timeout: 240_000 };

afterAll(endAgents);

type Stage = ReturnType<typeof ownStage>;

const state = async (stage: Stage, agent: Pick<Agent, 'env'>, ...args: string[]) => {
  const { status, stderr } = await stage.start(agent, ['state', ...args]).ended;
  expect(status, stderr).toBe(0);
};

const isLook: Match = ({ path }) => path.startsWith('/v1/txn');
const reads =
  (path: string, isWatch: boolean): Match =>
  (request) =>
    decodeURIComponent(request.path).includes(`/.state/${path}/`) &&
    request.path.includes('index=') === isWatch;
const watches = (path: string) => reads(path, true);
const readsAtOnce = (path: string) => reads(path, false);

describe.concurrent('whoever waits for a state outlives', LONG, () => {
  test.for(['graceful', 'kill'] as const)(
    'its agent’s restart (%s), and hears what is set then',
    async (how) => {
      using stage = ownStage();
      await using agent = await startAgent({ durable: true });
      await state(stage, agent, 'set', 'a', '1');
      const waiters = await startWaiters(stage, agent, 'a');
      await agent.restart(how);
      await state(stage, agent, 'set', 'a', '2');
      await allHear(waiters);
    },
  );

  test('its agent stopped and continued; who sets or deletes a state meanwhile does it once', async () => {
    using stage = ownStage();
    await using agent = await startAgent({ durable: true });
    await using proxy = await startProxy(agent);
    for (const path of ['a', 'b']) await state(stage, agent, 'set', path, '1');
    const waiters = await startWaiters(stage, agent, 'a');
    agent.pause();
    const changes = [
      stage.start(proxy, ['state', 'set', 'a', '2']),
      stage.start(proxy, ['state', 'delete', 'b']),
    ];
    await proxy.seen(() => true, 2);
    agent.resume();
    for (const { ended } of changes) expect((await ended).status).toBe(0);
    await allHear(waiters);
    expect(await agent.kv.get('runlock/.state/b/.value')).toBeUndefined();
  });
});

describe('of three servers', () => {
  let cluster: Cluster;
  let client: Agent;
  beforeAll(async () => {
    cluster = await startCluster({ servers: 3, clients: 1, raftMultiplier: 1 });
    const [first] = cluster.clients;
    if (!first) throw new Error('no client');
    client = first;
  });

  test('the leader killed: all hear what is set after the election, by whichever agent', LONG, async () => {
    using stage = ownStage();
    const leader = await cluster.leader();
    const follower = cluster.servers.find((server) => server !== leader);
    if (!follower) throw new Error('no follower');
    await state(stage, client, 'set', 'led', '1');
    const waiters = [
      ...(await startWaiters(stage, client, 'led')),
      ...(await startWaiters(stage, follower, 'led')),
    ];
    await leader.kill();
    // Set while there is no leader: it waits for one.
    await state(stage, client, 'set', 'led', '2');
    await allHear(waiters);
    await leader.restart();
  });

  test(
    'too few for a leader: setting says so (69), all wait on, and hear what is set later',
    LONG,
    async () => {
      using stage = ownStage();
      const leader = await cluster.leader();
      const other = cluster.servers.find((server) => server !== leader);
      const lost = other ? [leader, other] : [];
      await state(stage, client, 'set', 'few', '1');
      const waiters = await startWaiters(stage, client, 'few');
      await Promise.all(lost.map((server) => server.kill()));
      const set = await stage.start(client, ['state', 'set', 'few', '0']).ended;
      expect(set).toMatchObject({ status: 69, stdout: '' });
      await Promise.all(lost.map((server) => server.restart()));
      await state(stage, client, 'set', 'few', '2');
      await allHear(waiters);
    },
  );
});

describe.concurrent('a snapshot restored', LONG, () => {
  const restorable = async () => {
    const agent = await startAgent({ durable: true });
    const file = join(agent.folder, 'snapshot');
    return {
      agent,
      save: () => agent.consul('snapshot', 'save', file),
      restore: () => agent.consul('snapshot', 'restore', file),
    };
  };

  test('under who waits: a value that comes back with it is heard, though nobody sets it', async () => {
    using stage = ownStage();
    const { agent, save, restore } = await restorable();
    await state(stage, agent, 'set', 'a', '2');
    await save();
    await state(stage, agent, 'set', 'a', '1');
    const waiters = await startWaiters(stage, agent, 'a');
    await restore();
    await allHear(waiters);
  });

  test('under who waits: a value that goes with it is no longer true, and the next one is heard', async () => {
    using stage = ownStage();
    const { agent, save, restore } = await restorable();
    await state(stage, agent, 'set', 'b', '1');
    await save();
    await state(stage, agent, 'set', 'b', '3');
    await state(stage, agent, 'set', 'a', '1');
    const waiting = stage.start(agent, [
      ...['wait', '-v', '--timeout', '120s', '--until', 'state:a=2', '--until', 'state:b=3'],
    ]);
    await waiting.says(/state:b=3 holds/);
    await restore();
    await waiting.says(/state:b=3 does not hold/, 60_000);
    await state(stage, agent, 'set', 'a', '2');
    await state(stage, agent, 'set', 'b', '3');
    expect((await waiting.ended).status).toBe(0);
  });

  test('under a wait for two states costs a look or two, however long a watch hears nothing of it', async () => {
    using stage = ownStage();
    const { agent, save, restore } = await restorable();
    await using proxy = await startProxy(agent);
    for (const path of ['a', 'b']) await state(stage, agent, 'set', path, '0');
    await save();
    const both = ['--until', 'state:a=2', '--until', 'state:b=2'];
    const waiting = stage.start(proxy, ['wait', '-v', '--timeout', '120s', ...both]);
    await proxy.seen(watches('b'));
    // So the watch of b has seen a value that the restored store does not have.
    await state(stage, agent, 'set', 'b', '1');
    await proxy.seen(watches('b'), 2);
    await eventually(() => expect(proxy.requests.filter(isLook)).toHaveLength(2));
    await restore();
    await state(stage, agent, 'set', 'a', '1');
    await proxy.seen(isLook, 3);
    // It hears that the index went back when its time is over.
    await proxy.seen(readsAtOnce('b'));
    expect(proxy.requests.filter(isLook).length).toBeLessThanOrEqual(5);
    for (const path of ['a', 'b']) await state(stage, agent, 'set', path, '2');
    expect((await waiting.ended).status).toBe(0);
  });
});

test('SIGKILL of whoever waits leaves nothing in Consul', LONG, async () => {
  using stage = ownStage();
  await using agent = await startAgent();
  await state(stage, agent, 'set', 'a', '1');
  const before = await agent.kv.keys();
  const waiters = await startWaiters(stage, agent, 'a');
  // What a run waits for is recorded for `status`.
  await eventually(async () => expect((await agent.kv.keys()).join()).toContain('/.outside/web01'));
  for (const { running } of waiters) running.signal('SIGKILL');
  await Promise.all(waiters.map(({ running }) => running.ended));
  await eventually(async () => {
    expect((await agent.http('GET', '/v1/session/list')).json()).toEqual([]);
    expect(await agent.kv.keys()).toEqual(before);
  }, 100_000);
});
