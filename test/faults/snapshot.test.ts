// `consul snapshot restore` under runs: all of Consul's data is again what it was, the runs are not.
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { endAgents, startCluster } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet, Node } from '../support/history/fleet.ts';
import { HOLDS, SOON_MS } from '../support/history/steps.ts';
import { readRuns } from '../support/history/witness.ts';
import { eventually } from '../support/processes.ts';

const LONG = { timeout: 200_000 };

/** One group that goes through the same snapshot as all others. */
interface Scene {
  readonly fleet: Fleet;
  /** web01 runs when the data comes back; the others wait, in this order. */
  readonly nodes: readonly Node[];
}

const scenes = new Map<string, Scene>();

/** Their claims, tickets and sessions are younger than the snapshot. */
async function newer(agent: Agent, group: string, hold: string): Promise<void> {
  const fleet = startFleet(agent, { group, hold });
  scenes.set(group, { fleet, nodes: await lineUp(fleet, ['web01', 'web02', 'web03']) });
}

async function lineUp(fleet: Fleet, names: readonly string[]): Promise<Node[]> {
  const nodes: Node[] = [];
  for (const name of names) {
    const node = fleet.start(name);
    await (nodes.length === 0 ? node.running(SOON_MS) : node.waiting(SOON_MS));
    nodes.push(node);
  }
  return nodes;
}

const everyScene = async (scene: (hold: string) => Promise<void>) => {
  await Promise.all(HOLDS.map(scene));
};

beforeAll(async () => {
  const cluster = await startCluster({ servers: 3, clients: 2, raftMultiplier: 1 });
  const [server] = cluster.servers;
  const [agent] = cluster.clients;
  if (!server || !agent) throw new Error('no cluster');
  const file = join(server.folder, 'snapshot');
  // In these groups the holder of the snapshot is web00, and everybody else waits.
  const older = new Map<string, Scene>();
  await everyScene(async (hold) => {
    const fleet = startFleet(agent, { group: `older-${hold}`, hold });
    older.set(hold, { fleet, nodes: await lineUp(fleet, ['web00', 'web01', 'web02']) });
  });
  await agent.consul('snapshot', 'save', file);
  await everyScene((hold) => newer(agent, `newer-${hold}`, hold));
  for (const { fleet, nodes } of older.values()) {
    const [first, second, third] = nodes;
    if (!first || !second || !third) throw new Error('nobody');
    first.tell();
    expect((await first.ended).status).toBe(0);
    await second.running(SOON_MS);
    scenes.set(fleet.group, { fleet, nodes: [second, third] });
  }
  for (const { fleet } of scenes.values()) fleet.act('by-hand');
  await agent.consul('snapshot', 'restore', file);
}, 120_000);

afterAll(async () => {
  await Promise.all([...scenes.values()].map(({ fleet }) => fleet[Symbol.asyncDispose]()));
  await endAgents();
});

const sceneOf = (group: string): Scene => {
  const scene = scenes.get(group);
  if (!scene) throw new Error(`no scene ${group}`);
  return scene;
};

describe.concurrent.each(HOLDS)('hold %s', (hold) => {
  test(
    'a snapshot from before the run: it claims its slot again before anybody who waits has it',
    LONG,
    async () => {
      const { fleet, nodes } = sceneOf(`newer-${hold}`);
      const [run, ...waiters] = nodes;
      await run?.says(/reacquired the lock of .*; the run continues/, 30_000);
      expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'running' });
      for (const waiter of waiters)
        await waiter.says(/deleted or restored from a snapshot; waiting \d+s for active runs/, 30_000);
      run?.tell();
      expect((await run?.ended)?.status).toBe(0);
      // Their old places are gone with the newer data: who queues again first is served first.
      for (const waiter of waiters) waiter.tell();
      for (const waiter of waiters) expect((await waiter.ended).status).toBe(0);
      expect(readRuns(fleet.folder)).toHaveLength(3);
      expect(await fleet.keys()).toEqual(['.last', '.runs/web01', '.runs/web02', '.runs/web03', '.tail']);
      const { broken, judged } = await fleet.verdict();
      expect(broken).toEqual([]);
      expect(judged.runs).toBe(3);
    },
  );

  test(
    'a snapshot in which another had the slot: the run is killed before anybody follows',
    LONG,
    async () => {
      const { fleet, nodes } = sceneOf(`older-${hold}`);
      const [run, waiter] = nodes;
      const ended = await run?.ended;
      expect(ended?.status).toBe(79);
      expect(ended?.stderr).toMatch(/lost the lock of \S+ \(its claim names web00/);
      waiter?.tell();
      if (hold === 'forever') {
        expect(await fleet.claim()).toMatchObject({ node: 'web00', state: 'running' });
        expect(await fleet.run('web00', { args: ['-w', '0'] })).toMatchObject({ status: 0 });
      }
      expect((await waiter?.ended)?.status).toBe(0);
      await eventually(async () => expect(await fleet.broken()).toEqual([]), 30_000);
    },
  );
});
