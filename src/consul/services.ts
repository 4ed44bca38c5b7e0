/** Consul's HTTP API for services, the health of their instances, and maintenance. */
import type { Call, RetryOptions } from './request.ts';
import type { Package } from './client.ts';
import { placeFields } from './codec.ts';
import type { Place } from './codec.ts';
import { isConsuls, isDone, isUnknownService, isWithoutAcls, notConsul } from './faults.ts';

/** One check of a service or of a whole node. */
export interface HealthCheck {
  readonly node: string;
  /** Consul's own are `serfHealth`, `_node_maintenance` and `_service_maintenance:<service id>`. */
  readonly id: string;
  readonly name: string;
  readonly status: 'passing' | 'warning' | 'critical';
  /** For a maintenance: its reason. */
  readonly notes: string;
  readonly output: string;
  /** The service's id on its node; empty for a check of the node. */
  readonly serviceId: string;
}

/** One instance of a service, with its own checks and those of its node. */
export interface ServiceEntry {
  readonly node: string;
  readonly serviceId: string;
  readonly service: string;
  /** A different value means that the instance was removed from the catalogue and re-registered. */
  readonly createIndex: number;
  /** The service's own address, or its node's if it has none. */
  readonly address: string;
  readonly checks: readonly HealthCheck[];
}

/** An instance of a service that a node offers. */
export interface OfferedService {
  readonly id: string;
  readonly service: string;
}

/** @property filter an expression of Consul, on the instances of the service or else on the nodes. */
export interface CatalogueQuestion {
  readonly service?: string | undefined;
  readonly filter?: string | undefined;
}

/** A node of the catalogue, with its own metadata. `tags`: of one instance; without a service there are none. */
export interface CatalogueNode {
  readonly node: string;
  readonly meta: Readonly<Record<string, string>>;
  readonly tags: readonly string[];
}

/** A right, as an ACL rule grants it. */
export interface Right {
  readonly resource: 'service' | 'node' | 'key';
  readonly name: string;
  readonly access: 'read' | 'write';
}

export interface Maintenance {
  readonly on: boolean;
  /** For people, with `on`; Consul keeps it as the check's notes. */
  readonly reason?: string;
}

export interface ServiceCalls {
  /** Consistent read of every instance of a service, in whatever state. Without rights the list is empty. */
  health(
    service: string,
    options: QueryOptions,
  ): Promise<{ entries: readonly ServiceEntry[]; index: number }>;
  /**
   * What the node offers, from the catalogue; undefined: it has no node of exactly this name, or the token may not
   * see it.
   */
  nodeServices(node: string, options: RetryOptions): Promise<readonly OfferedService[] | undefined>;
  /** The names of all services, or of all nodes, that the catalogue has and the token may see. */
  catalogueNames(of: 'services' | 'nodes', options: RetryOptions): Promise<readonly string[]>;
  /**
   * The nodes that the catalogue has, or those that have the service: once for each instance. Without rights the list is
   * empty. @throws RunlockError `config`: Consul does not understand the filter; with what it says.
   */
  catalogueNodes(question: CatalogueQuestion, options: RetryOptions): Promise<readonly CatalogueNode[]>;
  /** The services that this agent itself reports, without those that the token may not read. */
  agentServices(options: RetryOptions): Promise<readonly OfferedService[]>;
  /** The checks that this agent itself reports, including maintenance, without those that the token may not read. */
  agentChecks(options: RetryOptions): Promise<readonly HealthCheck[]>;
  /**
   * Whether the token has each of these rights, by Consul's word: nothing is read or changed. All of them where there
   * are no ACLs; undefined: Consul does not know the question.
   */
  may(rights: readonly Right[], options: RetryOptions): Promise<readonly (boolean | undefined)[]>;
  /** This agent's node name. Needs the agent's `read`. */
  agentSelf(options: RetryOptions): Promise<{ readonly node: string }>;
  /** Of a service of this agent. May be sent twice; on, it takes the place of no other. False: no such service. */
  serviceMaintenance(serviceId: string, change: Maintenance, options: RetryOptions): Promise<boolean>;
  /** Of this agent's whole node. May be sent twice. */
  nodeMaintenance(change: Maintenance, options: RetryOptions): Promise<void>;
}

/** A read that may wait for a change: `wait` and `index` as Consul takes them. */
export type QueryOptions = RetryOptions & { readonly index?: number | undefined; readonly waitMs?: number };

export interface Wires {
  readonly client: Package;
  readonly call: Call;
  readonly address: string;
  readonly place: Place;
  /** What makes a read wait for a change, and its deadline. */
  readonly limits: (options: QueryOptions) => { query: object; timeoutMs: number };
}

export function serviceCalls({ client, call, address, place, limits }: Wires): ServiceCalls {
  const get = async (request: Request, options: RetryOptions) => {
    const isWatch = 'index' in request.query;
    const [response] = await call({ ...options, kind: kindOf(request), isWatch }, async (ctx) => [
      await client._get({ ...request, ...ctx }),
    ]);
    return { response, body: response.body };
  };
  const put = async (request: Request, options: RetryOptions) => {
    const [response] = await call({ ...options, kind: kindOf(request), answers: isChange }, async (ctx) => [
      await client._put({ ...request, ...ctx }),
    ]);
    return response.statusCode === 200;
  };
  const authorize = async (rights: readonly Right[], options: RetryOptions) => {
    const body = rights.map(({ resource, name, access }) => ({
      Resource: resource,
      Segment: name,
      Access: access,
      // A node is in a partition, and in no namespace.
      ...placeFields(resource === 'node' ? { ...place, namespace: undefined } : place),
    }));
    const request = { name: 'authorize', path: '/internal/acl/authorize', type: 'json', body };
    const [response] = await call({ ...options, kind: request.path, answers: isAuthorized }, async (ctx) => [
      await client._post({ ...request, ...ctx }),
    ]);
    if (response.statusCode !== 200)
      return rights.map(() => (response.statusCode === 401 ? true : undefined));
    return (response.body as { Allow: boolean }[]).map(({ Allow }) => Allow);
  };
  return {
    health: async (service, options) => {
      const { query, timeoutMs } = limits(options);
      const request = { name: 'health', path: '/health/service/{service}', params: { service } };
      const { response, body } = await get(
        { ...request, query: { consistent: '', ...atServer(query) } },
        { ...options, timeoutMs },
      );
      const index = response.headers['x-consul-index'];
      if (index === undefined) throw notConsul(address);
      return { entries: ((body ?? []) as StoredInstance[]).map(toServiceEntry), index: Number(index) };
    },
    nodeServices: async (node, options) => {
      const request = { name: 'node', path: '/catalog/node/{node}', params: { node } };
      const found = (await get({ ...request, query: { consistent: '' } }, options)).body as StoredNode | null;
      // Consul finds web01 for WEB01 too, but instances have the node's exact name, so require it.
      return found?.Node.Node === node ? toOffered(found.Services ?? {}) : undefined;
    },
    catalogueNames: async (of, options) => {
      const { body } = await get({ name: of, path: `/catalog/${of}`, query: { consistent: '' } }, options);
      return of === 'nodes'
        ? (body as { Node: string }[]).map(({ Node }) => Node)
        : Object.keys(body as object);
    },
    catalogueNodes: async ({ service, filter }, options) => {
      const query = { consistent: '', ...(filter !== undefined && { filter }) };
      const request =
        service === undefined
          ? { name: 'nodes', path: '/catalog/nodes', query }
          : { name: 'service', path: '/catalog/service/{service}', params: { service }, query };
      return ((await get(request, options)).body as StoredPlace[]).map((found) => ({
        node: found.Node,
        meta: (service === undefined ? found.Meta : found.NodeMeta) ?? {},
        tags: found.ServiceTags ?? [],
      }));
    },
    agentServices: async (options) => {
      const request = { name: 'services', path: '/agent/services', query: {} };
      return toOffered((await get(request, options)).body as Record<string, StoredService>);
    },
    agentChecks: async (options) => {
      const request = { name: 'checks', path: '/agent/checks', query: {} };
      const found = (await get(request, options)).body as Record<string, StoredCheck>;
      return Object.values(found).map(toCheck);
    },
    may: async (rights, options) => {
      const answers: (boolean | undefined)[] = [];
      for (let i = 0; i < rights.length; i += MOST_RIGHTS)
        answers.push(...(await authorize(rights.slice(i, i + MOST_RIGHTS), options)));
      return answers;
    },
    agentSelf: async (options) => {
      const request = { name: 'self', path: '/agent/self', query: {} };
      const self = (await get(request, options)).body as { Config?: { NodeName?: unknown } };
      const node = self.Config?.NodeName;
      if (typeof node !== 'string') throw notConsul(address);
      return { node };
    },
    serviceMaintenance: (id, change, options) => {
      const path = '/agent/service/maintenance/{id}';
      return put({ name: 'maintenance', path, params: { id }, query: toQuery(change) }, options);
    },
    nodeMaintenance: async (change, options) => {
      const request = { name: 'maintenance', path: '/agent/maintenance', query: toQuery(change) };
      if (!(await put(request, options))) throw notConsul(address);
    },
  };
}

/**
 * Newer agents answer a waiting health read from their own view, which may be old or empty, even if a consistent read
 * was requested. Sorting by distance (`near`) makes them ask the servers. The order itself does not matter.
 */
const atServer = (query: object) => ('index' in query ? { ...query, near: '_agent' } : query);

const isChange = (response: Response) => isDone(response) || isUnknownService(response);

/** The most rights that Consul accepts in one request. */
const MOST_RIGHTS = 64;

/** Also accepts Consul's answers without ACLs, and a 404 from a version that does not know the request. */
const isAuthorized = (response: Response) =>
  isConsuls(response) || isWithoutAcls(response) || response.statusCode === 404;

type Response = Parameters<typeof isConsuls>[0];

interface Request {
  readonly name: string;
  readonly path: string;
  readonly params?: Readonly<Record<string, string>>;
  readonly query: object;
}

const kindOf = ({ path, params = {} }: Request): string => [path, ...Object.values(params)].join(' ');

const toQuery = ({ on, reason }: Maintenance) => ({
  enable: String(on),
  ...(on && reason !== undefined && { reason }),
});

interface StoredCheck {
  Node: string;
  CheckID: string;
  Name: string;
  Status: string;
  Notes?: string;
  Output?: string;
  ServiceID?: string;
}

interface StoredService {
  ID: string;
  Service: string;
}

interface StoredInstance {
  Node: { Node: string; Address: string };
  Service: StoredService & { Address?: string; CreateIndex: number };
  Checks: StoredCheck[] | null;
}

interface StoredNode {
  Node: { Node: string };
  Services?: Record<string, StoredService> | null;
}

/** A node, or an instance on a node. */
interface StoredPlace {
  Node: string;
  Meta?: Record<string, string> | null;
  NodeMeta?: Record<string, string> | null;
  ServiceTags?: string[] | null;
}

function toCheck(stored: StoredCheck): HealthCheck {
  const { Status: status } = stored;
  return {
    node: stored.Node,
    id: stored.CheckID,
    name: stored.Name,
    // Treat an unknown state as critical.
    status: status === 'passing' || status === 'warning' ? status : 'critical',
    notes: stored.Notes ?? '',
    output: stored.Output ?? '',
    serviceId: stored.ServiceID ?? '',
  };
}

function toServiceEntry({ Node, Service, Checks }: StoredInstance): ServiceEntry {
  return {
    node: Node.Node,
    serviceId: Service.ID,
    service: Service.Service,
    createIndex: Service.CreateIndex,
    address: Service.Address === undefined || Service.Address === '' ? Node.Address : Service.Address,
    checks: (Checks ?? []).map(toCheck),
  };
}

/**
 * Leaves out a server's own entry, `consul`, which is in the catalogue but not in the agent's list, and never goes
 * offline.
 */
function toOffered(services: Record<string, StoredService>): OfferedService[] {
  return Object.values(services)
    .map(({ ID, Service }) => ({ id: ID, service: Service }))
    .filter(({ service }) => service !== 'consul');
}
