// Where a soak with agents happens: its surroundings, the hosts of its nodes, and the agent that each of them has.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../../processes.ts';
import type { Result, Spawned } from '../../program.ts';
import { spawnRunlock } from '../../program.ts';
import { startSurroundings } from '../surroundings.ts';
import type { Surroundings } from '../surroundings.ts';
import { createHost, removeHosts } from './host.ts';
import type { SoakHost } from './host.ts';
import { observeAgents } from './observed.ts';
import type { Observing } from './observed.ts';
import type { AgentsPlan, JobPlan } from './plan.ts';

/** What was done to a node on purpose, and explains how a run of it ended. Milliseconds since boot. */
export interface Hit {
  readonly kind: string;
  readonly node: string;
  readonly fromMs: number;
  readonly untilMs: number;
}

export interface SoakNode extends SoakHost {
  /** None: it was ended. */
  agent: Spawned | undefined;
  /** Something is being done to its agent, and nothing else should be. */
  busy: boolean;
}

/** A job, and the exit statuses of those who started it. */
export interface Asked {
  readonly job: JobPlan;
  readonly name: string;
  readonly args: readonly string[];
  readonly statuses: number[];
}

export interface AgentsWorld extends Surroundings {
  readonly nodes: readonly SoakNode[];
  readonly asked: Asked[];
  readonly hits: Hit[];
  readonly surprises: string[];
  readonly observing: Observing;
  /** Where the hosts' folders are, until the soak is over. */
  readonly root: string;
  node(name: string): SoakNode;
  /** Starts the agent of a node that has none. */
  startAgent(node: SoakNode): void;
  /** Ends it on purpose. */
  endAgent(node: SoakNode, signal: 'SIGKILL' | 'SIGTERM'): Promise<void>;
  /** Runs `runlock <args>` through a gate, or the server's own agent; for `limitMs` at most. */
  run(args: readonly string[], how?: { gate?: number; limitMs?: number }): Promise<Result>;
  /** Of a process that was started elsewhere: it ends with the soak. */
  adopt(spawned: Spawned, limitMs?: number): Promise<Result>;
  /** What agents have said so far that have ended. */
  readonly said: { readonly node: string; readonly status: number; readonly stderr: string }[];
}

const ENDED_MS = 90_000;

export async function startAgentsWorld(plan: AgentsPlan): Promise<AgentsWorld> {
  if (process.geteuid?.() !== 0)
    throw new Error('a soak with agents takes root, for the boot ids of its hosts; run it as root');
  const around = await startSurroundings(plan);
  const root = mkdtempSync(join(tmpdir(), 'runlock-agents-'));
  const observing = observeAgents(around.server);
  const nodes = plan.nodes.map((each): SoakNode => {
    const host = createHost(root, each, around.way(each.gate));
    return { ...host, agent: undefined, busy: false };
  });
  const commands = new Set<Spawned>();
  const world: AgentsWorld = {
    ...around,
    ...{ root, nodes, observing, asked: [], hits: [], surprises: [], said: [] },
    node: (name) => {
      const found = nodes.find((each) => each.plan.name === name);
      if (!found) throw new Error(`no node ${name}`);
      return found;
    },
    startAgent: (node) => {
      const agent = node.spawn(['agent']);
      node.agent = agent;
      void agent.ended.then(({ status, stderr }) => {
        world.said.push({ node: node.plan.name, status, stderr });
        if (node.agent !== agent) return;
        node.agent = undefined;
        world.surprises.push(
          `the agent of ${node.plan.name} ended by itself (${status}); it said:\n${stderr}`,
        );
      });
    },
    endAgent: async (node, signal) => {
      const { agent } = node;
      node.agent = undefined;
      if (!agent) return;
      agent.signal(signal);
      const late = setTimeout(() => {
        world.surprises.push(`the agent of ${node.plan.name} did not end; it said:\n${agent.stderr()}`);
        agent.end();
      }, ENDED_MS);
      await agent.ended;
      clearTimeout(late);
    },
    run: (args, { gate, limitMs } = {}) =>
      world.adopt(spawnRunlock(gate === undefined ? around.server : around.way(gate), args), limitMs),
    adopt: async (spawned, limitMs = 60_000) => {
      commands.add(spawned);
      const late = setTimeout(() => spawned.end(), limitMs);
      const result = await spawned.ended;
      clearTimeout(late);
      commands.delete(spawned);
      return result;
    },
    [Symbol.asyncDispose]: async () => {
      around.calm.abort();
      for (const node of nodes) node.agent = undefined;
      for (const each of commands) each.end();
      for (const node of nodes) await node.crash();
      await observing.stop();
      await around[Symbol.asyncDispose]();
      removeHosts(root);
    },
  };
  for (const node of nodes) world.startAgent(node);
  await Promise.all(
    nodes.map((node) =>
      eventually(() => {
        if (node.agent?.stderr().includes('is ready') !== true)
          throw new Error(`${node.plan.name} is not ready`);
      }, 120_000),
    ),
  ).catch(async (error: unknown) => {
    await world[Symbol.asyncDispose]();
    throw error;
  });
  return world;
}
