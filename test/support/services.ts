// Nodes that offer services: client agents of one small cluster, each with real HTTP checks against servers of the test's own.
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { succeeded } from './consul-api.ts';
import { startCluster } from './consul.ts';
import type { Agent } from './consul.ts';
import { eventually } from './processes.ts';

/** `hang`: takes the connection and never answers. `stopped`: nothing listens. */
export type Health = 200 | 500 | 'hang' | 'stopped';

/** One instance of a service, as its health check sees it. */
export interface Instance {
  readonly service: string;
  /** Its id at the agent. */
  readonly id: string;
  /** What the check gets from now on. */
  answer(health: Health): Promise<void>;
}

export interface ServiceNode {
  readonly name: string;
  readonly agent: Agent;
  readonly instance: (service: string) => Instance;
  /** Turns maintenance on, or off, as an operator would: a service's, or the node's where none is named. */
  maintain(on: boolean, options?: { service?: string; reason?: string }): Promise<void>;
  /** The reasons of the maintenances that the agent itself knows: of one service and the node, or all; by their checks' names. */
  maintenances(service?: string): Promise<string[]>;
}

export interface Services {
  readonly server: Agent;
  readonly nodes: readonly ServiceNode[];
  readonly node: (name: string) => ServiceNode;
  /** One more service, on these nodes, or on all of them: resolves when all instances pass. */
  offer(service: string, names?: readonly string[]): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ServicesOptions {
  /** How many; they are called web01, web02, … */
  readonly nodes: number;
  /** What each of them offers; `web` unless given. */
  readonly services?: readonly string[];
  readonly acl?: boolean;
}

/** Longer than any check takes to be seen, also on a busy machine. */
export const SEEN_MS = 30_000;
/** Whoever answers late is on a busy machine, not ill: only a check that gets nothing at all ends so. */
const CHECK = { Interval: '300ms', Timeout: '5s' };

/** All are up, and every check passes: by its own word, not for want of one. */
export async function startServices(options: ServicesOptions): Promise<Services> {
  const { nodes: count, services = ['web'], acl = false } = options;
  const names = Array.from({ length: count }, (_, i) => `web${String(i + 1).padStart(2, '0')}`);
  const cluster = await startCluster({
    servers: 1,
    clients: count,
    clientNames: names,
    raftMultiplier: 1,
    acl,
  });
  const [server] = cluster.servers;
  if (!server) throw new Error('no server');
  const small: SmallServer[] = [];
  const offered = new Map<Agent, Instance[]>(cluster.clients.map((agent) => [agent, []]));
  const offer = async (service: string, on = names) => {
    const chosen = [...offered].filter(([agent]) => on.includes(agent.name));
    const start = async ([agent, instances]: [Agent, Instance[]]) =>
      void instances.push(await startInstance(agent, service, small));
    await Promise.all(chosen.map(start));
    await untilAllPass(server, service, on.length);
  };
  await Promise.all(services.map((service) => offer(service)));
  const nodes = [...offered].map(([agent, instances]) => toNode(agent, instances));
  return {
    ...{ server, nodes, offer },
    node: (name) => named(nodes, ({ name: one }) => one === name),
    [Symbol.asyncDispose]: async () => {
      await cluster[Symbol.asyncDispose]();
      await Promise.all(small.map((one) => one.stop()));
    },
  };
}

function named<T>(all: readonly T[], is: (one: T) => boolean): T {
  const found = all.find(is);
  if (found === undefined) throw new Error('there is no such one');
  return found;
}

function toNode(agent: Agent, instances: readonly Instance[]): ServiceNode {
  return {
    ...{ name: agent.name, agent },
    instance: (service) => named(instances, (one) => one.service === service),
    maintain: async (on, { service, reason = 'by hand' } = {}) => {
      const of = service === undefined ? '' : `/service/maintenance/${service}-1`;
      const path = `/v1/agent${of === '' ? '/maintenance' : of}`;
      const query = `enable=${on}&reason=${encodeURIComponent(reason)}`;
      succeeded(await agent.http('PUT', `${path}?${query}`), 'maintenance');
    },
    maintenances: async (service) => {
      const checks = succeeded(await agent.http('GET', '/v1/agent/checks'), 'checks').json();
      return Object.entries(checks as Record<string, { Notes: string }>)
        .filter(([id]) => id.startsWith('_'))
        .filter(([id]) => service === undefined || id === '_node_maintenance' || id.endsWith(`:${service}-1`))
        .sort(([a], [b]) => a.localeCompare(b))
        .map(([, { Notes }]) => Notes);
    },
  };
}

async function startInstance(agent: Agent, service: string, small: SmallServer[]): Promise<Instance> {
  const server = await startSmallServer();
  small.push(server);
  const id = `${service}-1`;
  const Check = { ...CHECK, Name: `${service} answers`, HTTP: server.url };
  const body = { ID: id, Name: service, Address: '127.0.0.1', Port: server.port, Check };
  succeeded(await agent.http('PUT', '/v1/agent/service/register', body), `registering ${service}`);
  return { service, id, answer: (health) => server.answer(health) };
}

async function untilAllPass(server: Agent, service: string, count: number): Promise<void> {
  await eventually(async () => {
    const seen = await readHealth(server, service);
    const well = seen.instances.filter((one) => one.critical.length === 0);
    if (well.length !== count) throw new Error(`${well.length} of ${count} instances of ${service} pass`);
  }, SEEN_MS);
}

interface SmallServer {
  readonly url: string;
  readonly port: number;
  answer(health: Health): Promise<void>;
  stop(): Promise<void>;
}

async function startSmallServer(): Promise<SmallServer> {
  let health: Health = 200;
  const respond = (response: ServerResponse) => {
    if (health !== 'hang') response.writeHead(health === 500 ? 500 : 200).end(`${health}\n`);
  };
  const listen = async (port: number): Promise<Server> => {
    const server = createServer((_, response) => respond(response)).listen(port, '127.0.0.1');
    await once(server, 'listening');
    return server;
  };
  let server: Server | undefined = await listen(0);
  const { port } = server.address() as AddressInfo;
  const stop = async () => {
    const old = server;
    server = undefined;
    if (!old) return;
    const closed = once(old, 'close');
    old.close();
    old.closeAllConnections();
    await closed;
  };
  return {
    ...{ port, stop, url: `http://127.0.0.1:${port}/` },
    answer: async (now) => {
      // Whoever waits for an answer must not get a later one. Nobody else is cut off: a check would call that its reason.
      if (health === 'hang') server?.closeAllConnections();
      health = now;
      if (now === 'stopped') await stop();
      else server ??= await listen(port);
    },
  };
}

/** One instance, as the catalog shows it. */
export interface Seen {
  readonly node: string;
  /** The ids of its checks, and its node's, that are critical; maintenance is one of them. */
  readonly critical: readonly string[];
  /** The reasons of its maintenances. */
  readonly maintenance: readonly string[];
}

interface HealthEntry {
  readonly Node: { readonly Node: string };
  readonly Checks: readonly { readonly CheckID: string; readonly Status: string; readonly Notes: string }[];
}

/** What Consul says of a service, past `index` if one is given. */
export async function readHealth(
  { http }: Pick<Agent, 'http'>,
  service: string,
  { index = 0, signal }: { index?: number; signal?: AbortSignal } = {},
): Promise<{ instances: readonly Seen[]; index: number }> {
  const query = index > 0 ? `index=${index}&wait=10s` : 'consistent';
  const options = { timeoutMs: 15_000, ...(signal && { signal }) };
  const answer = await http('GET', `/v1/health/service/${service}?${query}`, undefined, options);
  const entries = succeeded(answer, `the health of ${service}`).json() as HealthEntry[];
  const instances = entries.map(({ Node, Checks }) => {
    const critical = Checks.filter(({ Status }) => Status === 'critical');
    const maintenance = critical.filter(({ CheckID }) => CheckID.startsWith('_')).map(({ Notes }) => Notes);
    return { node: Node.Node, critical: critical.map(({ CheckID }) => CheckID), maintenance };
  });
  return { instances, index: Number(answer.headers['x-consul-index']) };
}
