// Three servers with two clients: what happens to runs, and to those who wait, when servers die, hang or are too few.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { endAgents, startCluster } from '../support/consul.ts';
import type { Agent, Cluster } from '../support/consul.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet, Node } from '../support/history/fleet.ts';
import { HOLDS, LONG, SOON_MS } from '../support/history/steps.ts';
import { readRuns } from '../support/history/witness.ts';
import { eventually } from '../support/processes.ts';

// A watch that the stopped leader was asked for hangs until its connection is given up.

const fleets = new Set<Fleet>();
let cluster: Cluster;
let clients: [Agent, Agent];
beforeAll(async () => {
  cluster = await startCluster({ servers: 3, clients: 2, raftMultiplier: 1 });
  const [one, two] = cluster.clients;
  if (!one || !two) throw new Error('no clients');
  clients = [one, two];
});
afterEach(async () => {
  await Promise.all([...fleets].map((fleet) => fleet[Symbol.asyncDispose]()));
  fleets.clear();
});
afterAll(endAgents);

type Agents = readonly [Agent, Agent];

interface Scene {
  readonly fleet: Fleet;
  readonly run: Node;
  /** In the order of their tickets. */
  readonly waiters: readonly Node[];
  /** Who holds the lock, and who waits, by session. */
  readonly sessions: () => Promise<{ lock: string | undefined; tickets: readonly string[] }>;
}

/** A run by one agent, and who waits by both. */
async function scene(group: string, hold: string, [agent, other]: Agents): Promise<Scene> {
  const fleet = startFleet(agent, { group, hold });
  fleets.add(fleet);
  const run = fleet.start('web01');
  await run.running(SOON_MS);
  const waiters: Node[] = [];
  for (const [name, own] of [
    ['web02', other],
    ['web03', agent],
    ['web04', other],
  ] as const) {
    const waiter = fleet.start(name, { agent: own, part: { beats: 2 } });
    await waiter.waiting(SOON_MS);
    waiters.push(waiter);
  }
  const sessions = async () => {
    const lock = await agent.kv.get(`runlock/${group}/.slot/0/lock`);
    const queue = await agent.kv.keys(`runlock/${group}/.queue/`);
    return { lock: lock?.Session, tickets: queue };
  };
  return { fleet, run, waiters, sessions };
}

/** With every hold: the run and who waits live through `fault` with the sessions that they have, and all are served in order. */
async function liveThrough(
  name: string,
  fault: () => Promise<void>,
  agents: Agents = clients,
): Promise<void> {
  const scenes = await Promise.all(HOLDS.map((hold) => scene(`${name}-${hold}`, hold, agents)));
  const before = await Promise.all(scenes.map(({ sessions }) => sessions()));
  await fault();
  for (const [i, { sessions }] of scenes.entries()) {
    await eventually(async () => expect(await sessions()).toEqual(before[i]), 60_000);
  }
  await Promise.all(scenes.map(inOrder));
}

async function inOrder({ fleet, run, waiters }: Scene): Promise<void> {
  run.tell();
  for (const node of [run, ...waiters]) {
    const { status, stderr } = await node.ended;
    expect(status, stderr).toBe(0);
    expect(stderr).not.toMatch(/reacquired the lock/);
  }
  const { runs } = await fleet.history();
  expect(runs.map(({ node }) => node)).toEqual(['web01', 'web02', 'web03', 'web04']);
  const { broken, judged } = await fleet.verdict();
  expect(broken).toEqual([]);
  expect(judged.runs).toBe(4);
  expect(judged.claims).toBeGreaterThan(0);
}

test(
  'SIGKILL of the leader, with every hold: the runs go on, and who waits is served in order',
  LONG,
  async () => {
    const leader = await cluster.leader();
    await liveThrough('kill', async () => {
      await leader.kill();
      expect(await cluster.leader()).not.toBe(leader);
    });
    await leader.restart();
  },
);

test(
  'SIGSTOP of the leader, with every hold: the runs go on, and who waits is served in order',
  LONG,
  async () => {
    const leader = await cluster.leader();
    const [one, two] = cluster.servers.filter((server) => server !== leader);
    if (!one || !two) throw new Error('too few servers');
    const fault = async () => {
      leader.pause();
      expect(await cluster.leader()).not.toBe(leader);
    };
    // By the servers that are left: a client's agent goes on asking the stopped one for half a minute and more.
    await liveThrough('stop', fault, [one, two]);
    leader.resume();
    await leader.ready();
  },
);

test(
  'the quorum lost for longer than twice the TTL: nobody new starts, runs and places stay',
  LONG,
  async () => {
    const leader = await cluster.leader();
    const other = cluster.servers.find((server) => server !== leader);
    const lost = other ? [leader, other] : [];
    await liveThrough('quorum', async () => {
      await Promise.all(lost.map((server) => server.kill()));
      await using fleet = startFleet(clients[0], { group: 'quorum-new' });
      const newcomer = await fleet.run('web09', { args: ['-w', '3s'] });
      expect(newcomer).toMatchObject({ status: 69, stdout: '' });
      expect(newcomer.stderr).toMatch(/Consul at .* (has no leader|unreachable|failed|did not answer)/);
      expect(readRuns(fleet.folder)).toEqual([]);
      await sleep(21_000);
      await Promise.all(lost.map((server) => server.restart()));
      expect(await fleet.run('web09')).toMatchObject({ status: 0 });
      expect(await fleet.broken()).toEqual([]);
    });
  },
);
