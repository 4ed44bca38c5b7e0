// Where a soak happens: a server, client agents, proxies before them, and the groups with all their processes.
import { setTimeout as sleep } from 'node:timers/promises';
import { startTime } from '../../../src/process/process-tree.ts';
import { startCluster } from '../consul.ts';
import type { Agent, Cluster } from '../consul.ts';
import { startFleet } from '../history/fleet.ts';
import type { Fleet, Node, NodeOptions } from '../history/fleet.ts';
import { startHalves } from '../history/halves.ts';
import { tell } from '../history/witness.ts';
import { isAlive } from '../processes.ts';
import { spawnRunlock } from '../program.ts';
import type { Result, Spawned } from '../program.ts';
import { startProxy } from '../proxy.ts';
import type { Proxy } from '../proxy.ts';
import type { GroupPlan, Halves, SoakPlan } from './plan.ts';

/** What was done to a process on purpose, and explains how it ended. */
export type Mark = 'killed' | 'stopped' | 'asked' | 'evicted' | 'crashed';

/** One `runlock exec` that is under way, or an `acquire` with what follows it. */
export interface Live {
  /** The process id is that of the first half. */
  readonly node: Pick<Node, 'name' | 'pid' | 'stderr' | 'tell'>;
  readonly gate: number;
  /** Its command waits to be told. */
  readonly isTold: boolean;
  /** By the two halves of exec. */
  readonly isHalves: boolean;
  readonly marks: Set<Mark>;
  readonly isAlive: () => boolean;
  /** Something is being done to it; nothing else should be. */
  busy: boolean;
}

/** One that has ended. `run`: the run that it was granted. */
export interface Ended {
  readonly node: string;
  readonly status: number;
  readonly run?: string;
  readonly isHalves: boolean;
  readonly marks: ReadonlySet<Mark>;
  readonly stderr: string;
}

export interface Group {
  readonly plan: GroupPlan;
  readonly fleet: Fleet;
  readonly living: Set<Live>;
  readonly ended: Ended[];
  /** Nodes whose claim an operator is about to clear: they start nothing meanwhile. */
  readonly reserved: Set<string>;
  /** Until when nodes stay away, in milliseconds of performance.now(). */
  readonly away: Map<string, number>;
}

export interface Launch {
  readonly name: string;
  readonly gate: number;
  readonly part: NonNullable<NodeOptions['part']>;
  /** When its command is told, after its start. */
  readonly lengthMs?: number;
  /** Acquires and releases, or crashes in between, instead of exec. */
  readonly halves?: Halves;
}

export interface World {
  readonly server: Agent;
  readonly agents: readonly Agent[];
  /** By the number of their gate; none for the gates that are agents. */
  readonly proxies: readonly (Proxy | undefined)[];
  readonly groups: ReadonlyMap<string, Group>;
  /** Aborted when no fault may last any longer. */
  readonly calm: AbortController;
  /** Which agent stands behind a gate. */
  agentOf(gate: number): number;
  launch(group: Group, launch: Launch): Live;
  /** Runs `runlock <args>` by the server's own agent, for `limitMs` at most. */
  operate(args: readonly string[], limitMs?: number): Promise<Result>;
  /** Sleeps, until all has to be calm at the latest. */
  lull(ms: number): Promise<void>;
  /** Remembers that something (`server`, `agent 0`, `gate 3`) is troubled meanwhile. */
  during(what: string, trouble: () => Promise<void>): Promise<void>;
  isTroubled(what: string): boolean;
  /** Nothing on the way to Consul is troubled, nor was just now. */
  isWell(live: Live): boolean;
  [Symbol.asyncDispose](): Promise<void>;
}

/** After a trouble it takes so long until every session was renewed again. */
const RECOVERY_MS = 5_000;

export async function startWorld(plan: SoakPlan): Promise<World> {
  const cluster = await startCluster({ servers: 1, clients: plan.agents, raftMultiplier: 1 });
  const proxies = await Promise.all(
    Array.from({ length: plan.gates }, async (_, gate) => {
      const agent = cluster.clients[gate % plan.agents];
      return gate < plan.agents || !agent ? undefined : startProxy(agent);
    }),
  );
  return createWorld(plan, { cluster, proxies });
}

function createWorld(
  plan: SoakPlan,
  { cluster, proxies }: { cluster: Cluster; proxies: readonly (Proxy | undefined)[] },
): World {
  const [server] = cluster.servers;
  if (!server) throw new Error('a cluster without a server');
  const calm = new AbortController();
  const groups = new Map(plan.groups.map((group) => [group.name, createGroup(server, group)]));
  const troubles = createTroubles();
  const operators = createOperators(server);
  const lull: World['lull'] = (ms) =>
    sleep(ms, undefined, { signal: calm.signal }).then(undefined, () => undefined);
  const agentOf: World['agentOf'] = (gate) => gate % plan.agents;
  return {
    server,
    agents: cluster.clients,
    proxies,
    groups,
    calm,
    agentOf,
    lull,
    launch: (group, wanted) => {
      const agent = proxies[wanted.gate] ?? cluster.clients[agentOf(wanted.gate)] ?? server;
      return launch(group, { ...wanted, agent, lull });
    },
    operate: operators.run,
    during: troubles.during,
    isTroubled: (what) => !troubles.isOver(what, 0),
    isWell: ({ gate }) =>
      ['server', `agent ${agentOf(gate)}`, `gate ${gate}`].every((what) =>
        troubles.isOver(what, RECOVERY_MS),
      ),
    [Symbol.asyncDispose]: async () => {
      calm.abort();
      operators.end();
      await Promise.all([...groups.values()].map(({ fleet }) => fleet[Symbol.asyncDispose]()));
      await Promise.all(proxies.flatMap((proxy) => proxy?.close() ?? []));
      await cluster[Symbol.asyncDispose]();
    },
  };
}

const LOGS = ['--verbose', '--log-format', 'json'];

function createGroup(server: Agent, plan: GroupPlan): Group {
  const { name: group, slots, hold } = plan;
  const fleet = startFleet(server, { group, slots, hold, args: LOGS });
  return { plan, fleet, living: new Set(), ended: [], reserved: new Set(), away: new Map() };
}

function createOperators(server: Agent) {
  const all = new Set<Spawned>();
  return {
    run: async (args: readonly string[], limitMs = 30_000): Promise<Result> => {
      const spawned = spawnRunlock(server, args);
      all.add(spawned);
      const late = setTimeout(() => spawned.end(), limitMs);
      const result = await spawned.ended;
      clearTimeout(late);
      all.delete(spawned);
      return result;
    },
    end: () => {
      for (const one of all) one.end();
    },
  };
}

function createTroubles() {
  const troubles = new Map<string, { now: number; endMs: number }>();
  const find = (what: string) => troubles.get(what) ?? { now: 0, endMs: -Infinity };
  const during: World['during'] = async (what, trouble) => {
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

interface Launching extends Launch {
  readonly agent: Pick<Agent, 'env'>;
  readonly lull: World['lull'];
}

function launch(group: Group, launching: Launching): Live {
  const { name, gate, part, lengthMs, halves, lull } = launching;
  const isHalves = halves !== undefined;
  const node = isHalves ? acquire(group, launching) : group.fleet.start(name, launching);
  const is = identify(node.pid);
  const isTold = lengthMs !== undefined;
  const marks = new Set<Mark>(halves === 'crash' ? ['crashed'] : []);
  const live: Live = { node, gate, isTold, isHalves, marks, isAlive: is.alive, busy: false };
  group.living.add(live);
  if (isTold) void tellInTime(group, live, { exitCode: part.exitCode ?? 0, length: () => lull(lengthMs) });
  void node.ended.then(({ status, stderr }) => {
    group.living.delete(live);
    const run = grantedRun(stderr);
    group.ended.push({ node: name, status, isHalves, marks, stderr, ...(run !== undefined && { run }) });
  });
  return live;
}

function acquire({ plan, fleet }: Group, { name, agent, part, halves }: Launching) {
  const { name: group, slots, hold } = plan;
  const { beats = 2 } = part;
  const options = { part: { ...part, beats }, crash: halves === 'crash', agent, slots, hold, args: LOGS };
  const both = startHalves({ group, folder: fleet.folder }, name, options);
  fleet.adopt(both);
  const { acquiring, ended, stderr } = both;
  return { name, pid: acquiring.pid, ended, stderr, tell: () => tell(fleet.folder, name, 0) };
}

async function tellInTime(
  group: Group,
  live: Live,
  { exitCode, length }: { exitCode: number; length: () => Promise<void> },
): Promise<void> {
  while (grantedRun(live.node.stderr()) === undefined) {
    if (!group.living.has(live)) return;
    await sleep(100);
  }
  await length();
  // Nobody tells it after its end: that would be told to the node's next run.
  if (group.living.has(live)) live.node.tell(exitCode);
}

/** The run that it says it was granted. */
function grantedRun(stderr: string): string | undefined {
  return /"event":"(?:granted|already-held)".*"run":"([^"]+)"/.exec(stderr)?.[1];
}

/** A process that is known by more than its pid, which may be another's by now. */
export function identify(pid: number) {
  const born = startTime(pid);
  const alive = () => born !== undefined && startTime(pid) === born && isAlive(pid);
  return {
    alive,
    /** Whether it was there to get it. */
    signal: (signal: NodeJS.Signals): boolean => {
      if (!alive()) return false;
      process.kill(pid, signal);
      return true;
    },
  };
}
