// A session whose creation was given up, and which Consul makes all the same: nothing of it stays.
import { describe, expect, onTestFinished, test } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { clock } from '../../src/platform/deps.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match } from '../support/proxy.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { turnsOf } from '../support/turns.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();
const creations: Match = ({ path }) => path.startsWith('/v1/session/create');
const endings: Match = ({ path }) => path.startsWith('/v1/session/destroy');

/** A proxy that holds the first creation of a session with this name back, until `release`. */
async function setUp(name: string) {
  const proxy = await startProxy(agent);
  onTestFinished(() => proxy.close());
  let release = (): void => undefined;
  const until = new Promise<void>((resolve) => (release = resolve));
  const held: Match = (request) => creations(request) && request.body.includes(`"${name}"`);
  proxy.rule({ match: held, times: 1, do: { until } });
  const sessions = async () => {
    const all = (await agent.http('GET', '/v1/session/list')).json() as { Name: string }[];
    return all.filter((each) => each.Name === name);
  };
  return { proxy, release, held, sessions };
}

describe('the client', () => {
  async function client(name: string) {
    const { proxy, ...all } = await setUp(name);
    const consul = connect(consulSettings({ ...agent.env, ...proxy.env }), { clock, emit: () => undefined });
    onTestFinished(() => consul.close());
    const stop = new AbortController();
    const asked = { signal: stop.signal, retryForMs: 0 };
    const create = (timeoutMs = 10_000) =>
      consul.createSession({ name, ttl: '600s' }, { ...asked, timeoutMs });
    return { ...all, proxy, consul, stop, create };
  }

  test('ends it when the answer comes after its signal', async () => {
    const { proxy, consul, stop, create, held, release, sessions } = await client('late signal');
    // Its deadline is not what ends it.
    const made = create(600_000);
    await proxy.seen(held);
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(made).rejects.toBe(reason);
    release();
    await consul.settled();
    expect(proxy.requests.filter(endings)).toHaveLength(1);
    expect(await sessions()).toEqual([]);
  });

  test('ends it when the answer comes after its deadline', async () => {
    const { proxy, consul, create, release, sessions } = await client('late answer');
    await expect(create(100)).rejects.toMatchObject({
      message: expect.stringContaining('request timed out (100ms)') as string,
    });
    release();
    await consul.settled();
    expect(proxy.requests.filter(endings)).toHaveLength(1);
    expect(await sessions()).toEqual([]);
  });

  test('waits a few seconds for an answer that never comes, and then closes the connection', async () => {
    const { consul, create, proxy, sessions } = await client('never');
    await expect(create(100)).rejects.toMatchObject({ code: 'unreachable' });
    await consul.settled();
    expect(proxy.requests.filter(endings)).toEqual([]);
    expect(await sessions()).toEqual([]);
  });

  test('ends none that was not given up', async () => {
    const { proxy, consul, create, release, sessions } = await client('in time');
    release();
    const id = await create();
    await consul.settled();
    expect(await sessions()).toHaveLength(1);
    expect(proxy.requests.filter(endings)).toEqual([]);
    await consul.destroySession(id, { signal: AbortSignal.timeout(10_000) });
  });
});

test('a run that is told to end while it asks for its session', async () => {
  const group = groupOf(agent, 'late/signal');
  const { proxy, held, release, sessions } = await setUp('runlock late/signal');
  const late = startRunlock(proxy, group.words('web01', '--', 'true'), { env: turnsOf('late') });
  await proxy.seen(held);
  late.signal('SIGTERM');
  release();
  expect((await late.ended).status).toBe(143);
  expect(await sessions()).toEqual([]);
});

test('a run that waits outside, and has no need to show that any more', async () => {
  const { proxy, held, release, sessions } = await setUp('runlock waits');
  const group = groupOf(agent, 'late/outside');
  const words = group.words('web01', '--when', 'state:late/go', '--', 'echo', 'ran');
  const late = startRunlock(proxy, words, { env: turnsOf('late') });
  await proxy.seen(held);
  await runlock(agent, ['state', 'set', 'late/go', '1']);
  await eventually(async () => expect(await group.lastRun('web01')).toBeDefined(), 20_000);
  release();
  expect(await late.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  expect(await sessions()).toEqual([]);
});

test('an agent that is told to end while it asks for its session', async () => {
  const { proxy, held, release, sessions } = await setUp('runlock agent');
  const late = agentOn(agent, 'late1', { through: proxy, env: turnsOf('late') }).start();
  await proxy.seen(held);
  late.signal('SIGTERM');
  release();
  await late.ended;
  expect(await sessions()).toEqual([]);
});
