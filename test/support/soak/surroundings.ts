// Around every soak: a server, client agents, proxies before them, and what is wrong with these just now.
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { startCluster } from '../consul.ts';
import type { Agent, Cluster } from '../consul.ts';
import { startProxy } from '../proxy.ts';
import type { Proxy } from '../proxy.ts';
import type { SoakPlan } from './plan.ts';

export interface Surroundings {
  readonly server: Agent;
  readonly agents: readonly Agent[];
  /** By the number of their gate; none for the gates that are agents. */
  readonly proxies: readonly (Proxy | undefined)[];
  /** Aborted when no fault may last any longer. */
  readonly calm: AbortController;
  /** Which agent stands behind a gate. */
  agentOf(gate: number): number;
  /** What reaches Consul by a gate. */
  way(gate: number): Pick<Agent, 'env'>;
  /** Sleeps, until all has to be calm at the latest. */
  readonly lull: (ms: number) => Promise<void>;
  /** Remembers that something (`server`, `agent 0`, `gate 3`) is troubled meanwhile. */
  during(what: string, trouble: () => Promise<void>): Promise<void>;
  isTroubled(what: string): boolean;
  /** Nothing on the way through a gate is troubled, nor was just now. */
  isWell(gate: number): boolean;
  [Symbol.asyncDispose](): Promise<void>;
}

/** After a trouble it takes so long until every session was renewed again. */
const RECOVERY_MS = 5_000;

export async function startSurroundings(plan: Pick<SoakPlan, 'agents' | 'gates'>): Promise<Surroundings> {
  const cluster = await startCluster({ servers: 1, clients: plan.agents, raftMultiplier: 1 });
  const proxies = await Promise.all(
    Array.from({ length: plan.gates }, async (_, gate) => {
      const agent = cluster.clients[gate % plan.agents];
      return gate < plan.agents || !agent ? undefined : startProxy(agent);
    }),
  );
  return surroundingsOf(plan, cluster, proxies);
}

function surroundingsOf(
  plan: Pick<SoakPlan, 'agents'>,
  cluster: Cluster,
  proxies: Surroundings['proxies'],
): Surroundings {
  const [server] = cluster.servers;
  if (!server) throw new Error('a cluster without a server');
  const calm = new AbortController();
  // Each fault that lasts listens.
  setMaxListeners(0, calm.signal);
  const troubles = createTroubles();
  const agentOf: Surroundings['agentOf'] = (gate) => gate % plan.agents;
  return {
    ...{ server, agents: cluster.clients, proxies, calm, agentOf },
    way: (gate) => proxies[gate] ?? cluster.clients[agentOf(gate)] ?? server,
    lull: (ms) => sleep(ms, undefined, { signal: calm.signal }).then(undefined, () => undefined),
    during: troubles.during,
    isTroubled: (what) => !troubles.isOver(what, 0),
    isWell: (gate) =>
      ['server', `agent ${agentOf(gate)}`, `gate ${gate}`].every((what) =>
        troubles.isOver(what, RECOVERY_MS),
      ),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(proxies.flatMap((proxy) => proxy?.close() ?? []));
      await cluster[Symbol.asyncDispose]();
    },
  };
}

function createTroubles() {
  const troubles = new Map<string, { now: number; endMs: number }>();
  const find = (what: string) => troubles.get(what) ?? { now: 0, endMs: -Infinity };
  const during: Surroundings['during'] = async (what, trouble) => {
    troubles.set(what, { ...find(what), now: find(what).now + 1 });
    try {
      await trouble();
    } finally {
      troubles.set(what, { now: find(what).now - 1, endMs: performance.now() });
    }
  };
  const isOver = (what: string, forMs: number) =>
    find(what).now === 0 && performance.now() - find(what).endMs >= forMs;
  return { during, isOver };
}
