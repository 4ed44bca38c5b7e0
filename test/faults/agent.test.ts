// What happens to a run, and to those who wait behind it, when the run's Consul agent dies, restarts or stops answering.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { endAgents, startAgent, startCluster } from '../support/consul.ts';
import type { Agent, Cluster } from '../support/consul.ts';
import { grants, servedBehind, startScene, survivors, IN_ORDER } from '../support/history/behind.ts';
import type { Scene, SceneOptions } from '../support/history/behind.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet } from '../support/history/fleet.ts';
import { eventually } from '../support/processes.ts';
import { spawnRunlock } from '../support/program.ts';
import { HOLDS, stubborn } from '../support/history/steps.ts';

/** As many tests of a file as go on at once: each breaks an agent of its own. */
const AT_ONCE = 8;

let cluster: Cluster;
let server: Agent;
let others: Agent;
let idle: Agent[];
beforeAll(async () => {
  cluster = await startCluster({ servers: 1, clients: AT_ONCE + 1, raftMultiplier: 1 });
  const [client, ...rest] = cluster.clients;
  const [only] = cluster.servers;
  if (!client || !only) throw new Error('no cluster');
  server = only;
  others = client;
  idle = rest;
});
afterAll(endAgents);

/** An agent to break; it is whole again when the test is over. */
function takeAgent(): { readonly agent: Agent; [Symbol.asyncDispose](): Promise<void> } {
  const agent = idle.pop();
  if (!agent) throw new Error(`more than ${AT_ONCE} tests at once, and no agent is left`);
  return {
    agent,
    [Symbol.asyncDispose]: async () => {
      agent.resume();
      if (!agent.running()) await agent.restart();
      idle.push(agent);
    },
  };
}

/** One fault at a time happens to a fleet, so each has a group of its own. */
let count = 0;
const fleetOf = (hold: string, agent = server) => startFleet(agent, { group: `agent-${count++}`, hold });

/** The run asks the agent that will be broken; the others have one that is well. */
const through = (agent: Agent, run: SceneOptions['run'] = {}): SceneOptions => ({
  run: { ...run, agent },
  behind: { agent: others },
});

const untilUnlocked = (fleet: Fleet) =>
  eventually(async () => expect(await fleet.lockedBy()).toBeUndefined(), 60_000);

/** Lock and claim are the run's again, with another session, while nobody else was served. */
async function takesItBack(fleet: Fleet, { run, trace }: Scene, session: string | undefined): Promise<void> {
  await run.says(/reacquired the lock of .*; the run continues/, 45_000);
  const now = await eventually(async () => {
    const holder = await fleet.lockedBy();
    expect(holder).toBeDefined();
    return holder;
  }, 30_000);
  expect(now).not.toBe(session);
  expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'running', run: trace.run });
  expect(await grants(fleet)).toEqual(['web01']);
}

/** The run ends as if nothing had happened, then the others have their turn in order, and nothing is left. */
async function endsWell(fleet: Fleet, scene: Scene): Promise<void> {
  scene.run.tell();
  const { status, stderr } = await scene.run.ended;
  expect(status, stderr).toBe(0);
  expect(await servedBehind(fleet, scene)).toEqual(IN_ORDER);
  expect(await fleet.keys()).toEqual(['.last', ...IN_ORDER.map((node) => `.runs/${node}`), '.tail']);
  expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
}

describe.concurrent('the agent is away for good', { timeout: 240_000 }, () => {
  const ways = [
    ['killed', (agent: Agent) => agent.kill()],
    ['stopped', (agent: Agent) => agent.pause()],
  ] as const;
  const finite = ways.flatMap(([way, deed]) => ['5s', 'none'].map((hold) => [way, hold, deed] as const));

  test.for(finite)(
    '%s, hold %s: the whole tree is dead before the next is served; the run ends with 79',
    async ([, hold, deed]) => {
      await using broken = takeAgent();
      await using fleet = fleetOf(hold);
      const scene = await startScene(fleet, through(broken.agent, stubborn));
      await deed(broken.agent);
      const order = await servedBehind(fleet, scene);
      expect(survivors(scene)).toEqual([]);
      expect(order).toEqual(IN_ORDER);
      const { status, stderr } = await scene.run.ended;
      expect(status, stderr).toBe(79);
      expect(stderr).toContain('could not confirm the lock in time');
      expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
    },
  );

  test('killed, hold forever: the run goes on, and nobody follows before an operator clears it', async () => {
    await using broken = takeAgent();
    await using fleet = fleetOf('forever');
    const scene = await startScene(fleet, through(broken.agent));
    await broken.agent.kill();
    await untilUnlocked(fleet);
    expect(survivors(scene)).toHaveLength(1);
    scene.run.tell();
    const { status, stderr } = await scene.run.ended;
    expect(status).toBe(0);
    const stays = `runlock/${fleet.group}/.slot/0/owner; the next run of web01 clears this; to clear by hand: 'runlock release ${fleet.group} --owner web01' (asks for confirmation)`;
    expect(stderr).toContain(stays);
    await eventually(
      async () => expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'abandoned' }),
      120_000,
    );
    expect(await grants(fleet)).toEqual(['web01']);
    fleet.act('clear', 'web01');
    const release = ['release', fleet.group, '--owner', 'web01', '--force'];
    expect(await spawnRunlock(server, release).ended).toMatchObject({ status: 0 });
    expect(await servedBehind(fleet, scene)).toEqual(IN_ORDER);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
  });
});

describe.concurrent.each(HOLDS)(
  'hold %s, and those behind it are served in order',
  { timeout: 120_000 },
  (hold) => {
    test('the agent stopped for longer than the TTL, then continued: the run takes its lock back', async () => {
      await using broken = takeAgent();
      await using fleet = fleetOf(hold);
      const scene = await startScene(fleet, through(broken.agent));
      const session = await fleet.lockedBy();
      broken.agent.pause();
      await untilUnlocked(fleet);
      broken.agent.resume();
      await takesItBack(fleet, scene, session);
      await endsWell(fleet, scene);
    });

    test('the agent killed, and back after the end of the session: the run takes its lock back', async () => {
      await using broken = takeAgent();
      await using fleet = fleetOf(hold);
      const scene = await startScene(fleet, through(broken.agent));
      const session = await fleet.lockedBy();
      await broken.agent.kill();
      await untilUnlocked(fleet);
      await broken.agent.restart();
      await takesItBack(fleet, scene, session);
      await endsWell(fleet, scene);
    });

    test('the agent killed, and back at once: the run keeps its session', async () => {
      await using broken = takeAgent();
      await using fleet = fleetOf(hold);
      const scene = await startScene(fleet, through(broken.agent));
      const session = await fleet.lockedBy();
      await broken.agent.restart('kill');
      await longerThanUnrenewed();
      expect(await fleet.lockedBy()).toBe(session);
      await endsWell(fleet, scene);
      expect(scene.run.stderr()).toBe('');
    });

    test('the agent restarted gracefully, which ends its sessions: the run takes its lock back', async () => {
      await using broken = takeAgent();
      await using fleet = fleetOf(hold);
      const scene = await startScene(fleet, through(broken.agent));
      const session = await fleet.lockedBy();
      await broken.agent.stop();
      // On a busy machine its farewell may not get through; then the session ends with its TTL.
      await untilUnlocked(fleet);
      await broken.agent.restart();
      await takesItBack(fleet, scene, session);
      await endsWell(fleet, scene);
    });

    test('the only agent killed and started again on its data, then gracefully: nobody loses a place', async () => {
      await using only = await startAgent({ durable: true });
      await using fleet = fleetOf(hold, only);
      const scene = await startScene(fleet);
      const before = await only.kv.tree(`runlock/${fleet.group}/.queue/`);
      const held = await only.kv.get(`runlock/${fleet.group}/.slot/0/lock`);
      await only.restart('kill');
      await only.restart('graceful');
      expect(await only.kv.tree(`runlock/${fleet.group}/.queue/`)).toEqual(before);
      expect(await only.kv.get(`runlock/${fleet.group}/.slot/0/lock`)).toEqual(held);
      await endsWell(fleet, scene);
    });
  },
);

/** Resolves when another session of the same TTL, which nobody renews, has come to its end. */
async function longerThanUnrenewed(): Promise<void> {
  const created = await server.http('PUT', '/v1/session/create', { TTL: '10s', Checks: [] });
  const { ID } = created.json() as { ID: string };
  await eventually(async () => {
    const info = await server.http('GET', `/v1/session/info/${ID}?consistent`);
    expect(info.json()).toEqual([]);
  }, 40_000);
}

test.concurrent(
  'a waiter’s agent killed: those behind it move up, and it joins again as the last',
  { timeout: 120_000 },
  async () => {
    await using broken = takeAgent();
    await using fleet = fleetOf('forever');
    const run = fleet.start('web01', { agent: others });
    await run.running(20_000);
    const cut = fleet.start('web02', { agent: broken.agent, part: { beats: 3 } });
    const session = await cut.waiting(20_000);
    const last = fleet.start('web03', { agent: others, part: { beats: 3 } });
    await last.waiting(20_000);
    await broken.agent.kill();
    await eventually(async () => expect(await fleet.keys()).not.toContain(`.queue/${session}`), 60_000);
    await broken.agent.restart();
    await cut.waiting(30_000);
    run.tell();
    for (const node of [run, last, cut]) {
      const { status, stderr } = await node.ended;
      expect(status, `${node.name}: ${stderr}`).toBe(0);
    }
    expect(await grants(fleet)).toEqual(['web01', 'web03', 'web02']);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
  },
);
