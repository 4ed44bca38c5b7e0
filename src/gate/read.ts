/** Reads from Consul what the health gate needs for its decision. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul, ReadOptions, Right } from '../consul/consul.ts';
import { RunlockError } from '../errors.ts';
import { instancesOf } from './instances.ts';
import type { Instance } from './instances.ts';
import { refuseNode } from './unknown.ts';

/** A service name that stands for every service that the node offers. */
export const AUTO = 'auto';

/** The locks of all services are taken in one transaction, which can have at most 64 operations. */
const MOST_SERVICES = 60;

export interface Wanted {
  /** Service names; may include `AUTO`. */
  readonly services: readonly string[];
  readonly node: string;
  /** Whether `node` is the node of the agent behind `consul`. */
  readonly local: boolean;
  /** Accept a node that is not in the catalogue. */
  readonly allowUnknown?: boolean;
  /** The whole node goes offline, so all its services count, named or not. */
  readonly whole?: boolean;
  /**
   * The node's own agent, if it is not the one behind `consul`. Without either, the catalogue says what the node
   * offers.
   */
  readonly agent?: Consul | undefined;
  /** Accept service names in any case: used when the node goes back into service. */
  readonly anyCase?: boolean;
}

/** The services of a gate. Each list is sorted, without duplicates. */
export interface GateServices {
  /** The services that were asked for. */
  readonly services: readonly string[];
  /** The services that go offline: those above, and every other service of the node if the whole node goes offline. */
  readonly counted: readonly string[];
  /** Those of `counted` that the node offers. Kept, because the catalogue may stop showing them for a while. */
  readonly offered: readonly string[];
}

/** The services that were named explicitly. Only these can be wrong: `auto` finds existing services. */
export const namedOf = (services: readonly string[]) => services.filter((name) => name !== AUTO);

/**
 * @throws RunlockError `forbidden`: the token may not see the instances or the peers. Hidden instances look like
 * missing ones, and the gate would open wrongly. `config`: the catalogue has no such node and `allowUnknown` is not
 * set, or the node offers a service only in another case. `usage`: too many services.
 */
export async function findServices(
  consul: Consul,
  wanted: Wanted,
  signal: AbortSignal,
): Promise<GateServices> {
  const { node, whole = false } = wanted;
  const named = namedOf(wanted.services);
  const isAuto = named.length < wanted.services.length;
  // Check the number first, so that too many names cause no request.
  checkNumber(named, whole);
  const own = await offeredBy(consul, { ...wanted, isAuto }, signal);
  if (!wanted.anyCase) checkCase(named, { node, own });
  const services = sorted([...named, ...(isAuto ? own : [])]);
  const counted = whole ? sorted([...services, ...own]) : services;
  checkNumber(counted, whole);
  await checkRights(consul, { services: counted, node }, signal);
  return { services, counted, offered: counted.filter((service) => own.includes(service)) };
}

const sorted = (names: readonly string[]) => [...new Set(names)].sort();

/**
 * The services of the whole node, including `more`, which were registered meanwhile.
 * @throws RunlockError `forbidden`, `usage`, as `findServices` has them.
 */
export async function withMore(
  consul: Consul,
  { services, node, more }: { services: readonly string[]; node: string; more: readonly string[] },
  signal: AbortSignal,
): Promise<string[]> {
  const all = sorted([...services, ...more]);
  checkNumber(all, true);
  await checkRights(consul, { services: all, node }, signal);
  return all;
}

function checkNumber({ length }: readonly string[], whole: boolean): void {
  if (length <= MOST_SERVICES) return;
  const instead = whole
    ? 'use --maintenance service instead of the whole node'
    : 'name fewer services with --service';
  throw new RunlockError(
    'usage',
    `too many services for one gate (${length}); at most ${MOST_SERVICES} are allowed; ${instead}`,
  );
}

/**
 * Rejects a name in the wrong case: Consul's health answers ignore case, but the agent would take nothing out of
 * service.
 */
function checkCase(named: readonly string[], { node, own }: { node: string; own: readonly string[] }): void {
  for (const name of named) {
    const other = own.find((one) => one.toLowerCase() === name.toLowerCase());
    if (other !== undefined && !own.includes(name))
      throw new RunlockError(
        'config',
        `${node} has no instance of ${name} (did you mean '${other}'?); correct --service (names are case-sensitive)`,
      );
  }
}

/**
 * The names of the services that the node offers. An unknown node is an error unless allowed: it would look like a node
 * without services, which opens every gate.
 */
async function offeredBy(
  consul: Consul,
  wanted: Wanted & { readonly isAuto: boolean },
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { node, local, isAuto, allowUnknown = false, whole = false } = wanted;
  const limits = { ...FIRST_CONTACT, signal };
  const agent = wanted.agent ?? (local ? consul : undefined);
  const known = agent ? await agent.agentServices(limits) : await consul.nodeServices(node, limits);
  if (!known) {
    if (allowUnknown) return [];
    return refuseNode(consul, { node, ...((isAuto || whole) && { rule: nodeRule(node) }) }, signal);
  }
  const offered = known.map(({ service }) => service);
  if (!whole && (!isAuto || offered.length > 0)) return offered;
  // Services that the token can't see would still go offline with the node, so check that it can see all.
  const [all = true] = await consul.may([anyServiceOf(node)], limits);
  if (all) return offered;
  throw blind(
    consul,
    `${whole ? 'all services' : 'the services'} of ${node}`,
    'service_prefix "" { policy = "read" }',
  );
}

/** A service name that nobody uses: a token that may read this service may read any service. */
export const anyServiceOf = (node: string): Right => ({
  resource: 'service',
  name: `${node}-services`,
  access: 'read',
});

const readNode = (name: string): Right => ({ resource: 'node', name, access: 'read' });

/**
 * The right to read a node whose name only begins like this one. A token with rules for single nodes, which are
 * common, may not read it, so asking for it shows whether the peers are hidden.
 */
export const peersOf = (node: string) => readNode(`${node}-peer`);

export const nodeAndPeers = (node: string) => [readNode(node), peersOf(node)];

async function checkRights(
  consul: Consul,
  { services, node }: { services: readonly string[]; node: string },
  signal: AbortSignal,
): Promise<void> {
  if (services.length === 0) return;
  const names = [
    ...services.map((name) => ({ resource: 'service', name, access: 'read' }) as const),
    ...nodeAndPeers(node),
  ];
  const may = await consul.may(names, { ...FIRST_CONTACT, signal });
  const hidden = names.find((_, i) => may[i] === false);
  if (!hidden) return;
  const { resource, name } = hidden;
  if (resource === 'service')
    throw blind(consul, `the instances of ${name}`, `service "${name}" { policy = "read" }`);
  throw blind(consul, 'the health of all nodes', 'node_prefix "" { policy = "read" }');
}

const nodeRule = (node: string) => `node "${node}" { policy = "read" }`;

function blind({ address }: Consul, what: string, rule: string): RunlockError {
  return new RunlockError(
    'forbidden',
    `the token may not see ${what} in Consul at ${address}, so runlock can't tell what is offline; the token needs the rule: ${rule}`,
  );
}

/** Reads every instance of a service; with `index`, waits for a change first. */
export async function readInstances(
  consul: Consul,
  service: string,
  options: ReadOptions,
): Promise<{ value: readonly Instance[]; index: number }> {
  const rule = `service "${service}" { policy = "read" }`;
  const { entries, index } = await consul.health(service, { ...options, rule });
  return { value: instancesOf(entries), index };
}
