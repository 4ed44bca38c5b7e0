// What happens to a run, and to those who wait, when Consul goes away under them for long.
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { expect, test } from 'vitest';
import { startCluster } from '../support/consul.ts';
import type { Agent, Cluster } from '../support/consul.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet } from '../support/history/fleet.ts';
import { SOON_MS, untilDead } from '../support/history/steps.ts';
import { readRuns } from '../support/history/witness.ts';
import { eventually } from '../support/processes.ts';

const LONG = { timeout: 200_000 };

/** A client whose agent a test can do without, and a server that looks on. */
async function startPair() {
  const cluster = await startCluster({ servers: 1, clients: 1, raftMultiplier: 1 });
  const [server] = cluster.servers;
  const [client] = cluster.clients;
  if (!server || !client) throw new Error('no cluster');
  return { server, client, [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose]() };
}

const order = (fleet: Fleet) => readRuns(fleet.folder).map(({ node }) => node);

test.concurrent(
  'the local agent restarted gracefully under a run: it goes on, and holds its lock again',
  LONG,
  async () => {
    await using pair = await startPair();
    const { server, client } = pair;
    await using fleet = startFleet(server, { group: 'restart' });
    const run = fleet.start('web01', { agent: client });
    const { run: id } = await run.running(SOON_MS);
    const session = await fleet.lockedBy();
    expect(session).toBeDefined();
    await client.stop();
    expect(await fleet.claim()).toMatchObject({ state: 'running', run: id });
    expect((await fleet.run('web02', { args: ['-w', '0'] })).status).toBe(75);
    await client.restart();
    await run.says(/reacquired the lock of restart; the run continues/, 30_000);
    await eventually(async () => {
      const now = await fleet.lockedBy();
      expect(now).toBeDefined();
      expect(now).not.toBe(session);
    }, 30_000);
    expect(await fleet.claim()).toMatchObject({ state: 'running', run: id });
    run.tell();
    expect((await run.ended).status).toBe(0);
    expect(await fleet.keys()).toEqual(['.last', '.runs/web01', '.tail']);
    expect(await fleet.broken()).toEqual([]);
    expect(order(fleet)).toEqual(['web01']);
  },
);

test.concurrent(
  'hold none, the agent stopped: the whole tree of the run is dead before another is granted',
  LONG,
  async () => {
    await using pair = await startPair();
    const { server, client } = pair;
    await using fleet = startFleet(server, { group: 'cut', hold: 'none' });
    const run = fleet.start('web01', { agent: client, part: { deaf: true, grandchild: true } });
    const trace = await run.running(SOON_MS);
    const next = fleet.start('web02', { part: { beats: 3 } });
    await next.waiting(SOON_MS);
    client.pause();
    await untilDead(trace, 90_000);
    expect(await next.ended).toMatchObject({ status: 0, stderr: '' });
    client.resume();
    expect((await run.ended).status).toBe(79);
    expect(order(fleet)).toEqual(['web01', 'web02']);
    // Its own session may have to end by itself.
    await eventually(async () => expect(await fleet.broken()).toEqual([]), 40_000);
    expect((await fleet.verdict()).judged.claims).toBeGreaterThan(0);
  },
);

test.concurrent(
  'Consul stops answering while a run waits: at the end of --wait it is Consul that is named',
  LONG,
  async () => {
    await using pair = await startPair();
    const { server, client } = pair;
    await using fleet = startFleet(server, { group: 'mute' });
    const holder = fleet.start('web01');
    await holder.running(SOON_MS);
    const run = fleet.start('web02', { agent: client, args: ['-w', '5s'] });
    await run.waiting(SOON_MS);
    client.pause();
    const { status, stderr } = await run.ended;
    client.resume();
    expect(status).toBe(69);
    expect(stderr).toMatch(/Consul at .* (did not answer|unreachable)/);
    expect(stderr).not.toContain('web01');
    holder.tell();
    expect((await holder.ended).status).toBe(0);
    expect(order(fleet)).toEqual(['web01']);
    await eventually(async () => expect(await fleet.broken()).toEqual([]), 40_000);
  },
);

/** The quorum of three servers is lost. Returns what brings it back. */
async function loseQuorum({ servers }: Cluster): Promise<() => Promise<void>> {
  const lost = servers.slice(1);
  await Promise.all(lost.map((server) => server.kill()));
  return async () => {
    await Promise.all(lost.map((server) => server.restart()));
  };
}

test.concurrent(
  'the quorum lost for longer than a run with a short hold may live: that one alone is killed',
  LONG,
  async () => {
    await using cluster = await startCluster({ servers: 3, clients: 2, raftMultiplier: 1 });
    const [client, other] = cluster.clients;
    if (!client || !other) throw new Error('no clients');
    const scenes = ['forever', '10m', '5s', 'none'].map((hold) => ({
      hold,
      fleet: startFleet(client, { group: `quorum-${hold}`, hold }),
    }));
    const lines = [];
    try {
      for (const { fleet, hold } of scenes) {
        const run = fleet.start('web01', { part: { deaf: true, grandchild: true } });
        const trace = await run.running(SOON_MS);
        const waiters = [];
        for (const name of ['web02', 'web03']) {
          const waiter = fleet.start(name, { agent: other, part: { beats: 3 } });
          await waiter.waiting(SOON_MS);
          waiters.push(waiter);
        }
        lines.push({ fleet, run, trace, waiters, survives: hold === 'forever' || hold === '10m' });
      }
      const back = await loseQuorum(cluster);
      const mortal = lines.filter(({ survives }) => !survives);
      await Promise.all(mortal.map(({ trace }) => untilDead(trace, 90_000)));
      await back();
      for (const { run, survives } of lines) {
        if (survives) run.tell();
        expect((await run.ended).status).toBe(survives ? 0 : 79);
      }
      for (const { fleet, waiters } of lines) {
        for (const waiter of waiters) expect((await waiter.ended).status).toBe(0);
        expect(order(fleet)).toEqual(['web01', 'web02', 'web03']);
        await eventually(async () => expect(await fleet.broken()).toEqual([]), 40_000);
        expect((await fleet.verdict()).judged.runs).toBe(3);
      }
    } finally {
      for (const { fleet } of scenes) await fleet[Symbol.asyncDispose]();
    }
  },
);

/** What Consul allows one address, unless it is told otherwise. */
const LIMIT = 200;

/** Takes connections of the agent until only `left` more are accepted. */
async function takeConnections(agent: Agent, left: number) {
  const [host, port] = agent.address.split(':');
  const sockets: Socket[] = [];
  for (let i = left; i < LIMIT; i++) {
    const socket = connect(Number(port), host).on('error', () => undefined);
    await new Promise((resolve) => socket.once('connect', resolve));
    sockets.push(socket);
  }
  return { free: () => sockets.forEach((socket) => socket.destroy()) };
}

test.concurrent(
  'the agent’s own limit of connections is met: nobody starts until some are free',
  LONG,
  async () => {
    await using pair = await startPair();
    const { server, client } = pair;
    await using fleet = startFleet(server, { group: 'connections' });
    const taken = await takeConnections(client, 0);
    const refused = await fleet.run('web01', { agent: client });
    expect(refused).toMatchObject({ status: 69, stdout: '' });
    expect(refused.stderr).toMatch(/^runlock: Consul at .* unreachable \(.*\n$/);
    expect(order(fleet)).toEqual([]);
    taken.free();
    expect(await fleet.run('web01', { agent: client })).toMatchObject({ status: 0 });
    expect(order(fleet)).toEqual(['web01']);
    expect(await fleet.keys()).toEqual(['.last', '.runs/web01', '.tail']);
    expect(await fleet.broken()).toEqual([]);
  },
);

test.concurrent.each(['forever', '5s', 'none'])(
  'hold %s, the agent’s own limit leaves a run one connection: nobody runs beside it',
  LONG,
  async (hold) => {
    await using pair = await startPair();
    const { server, client } = pair;
    await using fleet = startFleet(server, { group: `connections-${hold}`, hold });
    const taken = await takeConnections(client, 1);
    const run = fleet.start('web01', { agent: client });
    const { run: id } = await run.running(SOON_MS);
    const session = await fleet.lockedBy();
    const waiter = fleet.start('web02', { part: { beats: 3 } });
    await waiter.waiting(SOON_MS);
    if (hold === 'forever') {
      // Its watch has the connection, so no renewal gets through.
      await eventually(async () => expect(await fleet.lockedBy()).not.toBe(session), 60_000);
    }
    expect(await fleet.claim()).toMatchObject({ run: id, state: 'running' });
    taken.free();
    await eventually(async () => expect(await fleet.lockedBy()).toBeDefined(), 60_000);
    run.tell();
    expect((await run.ended).status).toBe(0);
    expect(await waiter.ended).toMatchObject({ status: 0, stderr: '' });
    expect(order(fleet)).toEqual(['web01', 'web02']);
    await eventually(async () => expect(await fleet.broken()).toEqual([]), 40_000);
  },
);
