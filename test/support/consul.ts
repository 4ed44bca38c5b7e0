// Starts real Consul agents for tests and for the quick start: the only module that does.
import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { execa } from 'execa';
import { createHttp, createKv, createToken } from './consul-api.ts';
import type { Http, Kv } from './consul-api.ts';
import {
  configuration,
  createTls,
  endpointOf,
  environment,
  freePorts,
  randomBlock,
} from './consul-config.ts';
import type { AgentOptions, Plan, TlsFiles } from './consul-config.ts';
import {
  configFile,
  createFolder,
  readLog,
  removeFolder,
  spawnAgent,
  withoutConsul,
} from './consul-process.ts';
import type { AgentProcess } from './consul-process.ts';
import { findLeader, waitUntilReady } from './consul-ready.ts';
import { startNewerConsul } from './newer-consul.ts';
import { consulBinary } from './provision.ts';

export interface Agent {
  /** The node's name in Consul. */
  readonly name: string;
  /** `host:port` of HTTP, or of HTTPS when that is all there is. */
  readonly address: string;
  readonly url: string;
  /** What the consul program, and runlock, needs to reach it; with ACLs the management token too. */
  readonly env: Readonly<Record<string, string>>;
  /** Of the process that runs now, or ran last. */
  readonly pid: number;
  /** Data, log and certificates; removed in the end. */
  readonly folder: string;
  readonly managementToken: string | undefined;
  readonly tls: TlsFiles | undefined;
  readonly http: Http;
  readonly kv: Kv;
  running: () => boolean;
  /** SIGTERM, and waits for the end: a client leaves the cluster then, a server does not. */
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** SIGSTOP; when it returns, it answers nothing any more. */
  pause(): void;
  /** SIGCONT. */
  resume(): void;
  /** Ends it, if it still runs, and starts it with the same ports and data; resolves when it is ready. */
  restart(how?: 'graceful' | 'kill'): Promise<void>;
  /** Resolves when there is a leader, a key can be written and a session of this node be created. */
  ready(timeoutMs?: number): Promise<void>;
  /** A new token with these rules: its secret. Needs `acl`. */
  token(rules: string): Promise<string>;
  /** Runs the consul program against it: its standard output. */
  consul(...args: string[]): Promise<string>;
  /** What it has logged so far. */
  log(): string;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ClusterOptions extends Pick<AgentOptions, 'acl' | 'raftMultiplier' | 'config'> {
  readonly servers: number;
  readonly clients: number;
  /** Default: `client-1`, `client-2`, … */
  readonly clientNames?: readonly string[];
}

export interface Cluster {
  readonly servers: readonly Agent[];
  readonly clients: readonly Agent[];
  /** The server that leads, once it and every other server that answers say so. */
  leader(timeoutMs?: number): Promise<Agent>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Started here and not yet disposed of. */
const living = new Set<Agent>();
let count = 0;

/** One agent, ready. */
export function startAgent(options: AgentOptions = {}): Promise<Agent> {
  return retryTakenPorts(async () => {
    const host = `${randomBlock()}.1`;
    const plan = await createPlan({
      role: options.durable ? 'server' : 'dev',
      name: options.name ?? `node-${(count += 1)}`,
      host,
      ports: await freePorts(host),
      // It elects itself, so nothing is gained by waiting longer.
      options: { raftMultiplier: 1, ...options },
      managementToken: options.acl ? randomUUID() : undefined,
      join: [],
      servers: 1,
    });
    const agent = await createAgent(plan);
    await readyOrEnd([agent], 30_000);
    return agent;
  });
}

/** Servers and clients that found each other, all ready. Every one keeps its data over a restart. */
export function startCluster(options: ClusterOptions): Promise<Cluster> {
  return retryTakenPorts(async () => {
    const plans = await createPlans(options);
    const agents = await Promise.all(plans.map(createAgent));
    await readyOrEnd(agents, 90_000);
    const servers = agents.slice(0, options.servers);
    const rpc = plans.map(({ host, ports }) => `${host}:${ports.server}`);
    return {
      servers,
      clients: agents.slice(options.servers),
      leader: (timeoutMs = 60_000) => findLeader(servers, rpc, timeoutMs),
      [Symbol.asyncDispose]: async () => {
        await Promise.all(agents.map((agent) => agent[Symbol.asyncDispose]()));
      },
    };
  });
}

/** Ends every agent that this process started: for `afterAll`. */
export async function endAgents(): Promise<void> {
  await Promise.all([...living].map((agent) => agent[Symbol.asyncDispose]()));
}

async function createPlans({
  servers,
  clients,
  clientNames = [],
  ...options
}: ClusterOptions): Promise<Plan[]> {
  const block = randomBlock();
  const hosts = Array.from({ length: servers + clients }, (_, i) => `${block}.${i + 1}`);
  const places = await Promise.all(hosts.map(async (host) => ({ host, ports: await freePorts(host) })));
  const gossip = places.slice(0, servers).map(({ host, ports }) => `${host}:${ports.serf}`);
  const managementToken = options.acl ? randomUUID() : undefined;
  return Promise.all(
    places.map((place, i) => {
      const kind = i < servers ? 'server' : 'client';
      const given = i < servers ? undefined : clientNames[i - servers];
      const name = given ?? `${kind}-${i < servers ? i + 1 : i - servers + 1}`;
      return createPlan({ ...place, role: kind, name, options, managementToken, join: gossip, servers });
    }),
  );
}

async function createPlan(wanted: Omit<Plan, 'folder' | 'tls'>): Promise<Plan> {
  const folder = createFolder();
  const tls = wanted.options.tls ? await createTls(await consulBinary(), folder, wanted.host) : undefined;
  const plan = { ...wanted, folder, tls };
  await writeFile(configFile(folder), configuration(plan));
  return plan;
}

async function createAgent(plan: Plan): Promise<Agent> {
  const binary = await consulBinary();
  const endpoint = endpointOf(plan);
  const http = createHttp(endpoint);
  const own = environment(plan, endpoint);
  let current = await spawnAgent(binary, plan);
  const isPlain = endpoint.protocol === 'http:' && !plan.options.unixSocket && plan.tls === undefined;
  const newer =
    process.env['RUNLOCK_TEST_CONSUL'] === 'newer' && isPlain
      ? await startNewerConsul(`${endpoint.host}:${endpoint.port}`)
      : undefined;
  const env = newer ? { ...own, CONSUL_HTTP_ADDR: newer.address } : own;
  const agent: Agent = {
    name: plan.name,
    address: `${endpoint.host}:${endpoint.port}`,
    url: `${endpoint.protocol}//${endpoint.host}:${endpoint.port}`,
    env,
    get pid() {
      return current.pid;
    },
    folder: plan.folder,
    managementToken: plan.managementToken,
    tls: plan.tls,
    http,
    kv: createKv(http),
    running: () => current.running(),
    stop: () => endProcess(current, 'SIGTERM'),
    kill: () => endProcess(current, 'SIGKILL'),
    pause: () => current.pause(),
    resume: () => current.signal('SIGCONT'),
    restart: async (how = 'graceful') => {
      await endProcess(current, how === 'kill' ? 'SIGKILL' : 'SIGTERM');
      current = await spawnAgent(binary, plan);
      await agent.ready();
    },
    ready: (timeoutMs = 60_000) => waitUntilReady(agent, timeoutMs),
    token: (rules) => createToken(http, rules),
    consul: async (...args) =>
      (await execa(binary, args, { env: { ...withoutConsul(process.env), ...env }, extendEnv: false }))
        .stdout,
    log: () => readLog(plan.folder),
    [Symbol.asyncDispose]: async () => {
      await dispose(agent);
      await newer?.close();
    },
  };
  living.add(agent);
  return agent;
}

/** A paused process gets no signal but KILL, so it is woken first. */
async function endProcess(current: AgentProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  if (!current.running()) return;
  current.signal(signal);
  current.signal('SIGCONT');
  const late = setTimeout(() => current.signal('SIGKILL'), 20_000);
  await current.ended;
  clearTimeout(late);
}

async function dispose(agent: Agent): Promise<void> {
  await agent.kill();
  living.delete(agent);
  removeFolder(agent.folder);
}

async function readyOrEnd(agents: readonly Agent[], timeoutMs: number): Promise<void> {
  try {
    await Promise.all(agents.map((agent) => agent.ready(timeoutMs)));
  } catch (error) {
    await Promise.all(agents.map(dispose));
    throw error;
  }
}

/** The kernel's free ports can be taken before the agent has them. */
async function retryTakenPorts<T>(start: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await start();
    } catch (error) {
      if (attempt === 5 || !String(error).includes('address already in use')) throw error;
    }
  }
}
