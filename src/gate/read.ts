/** What the health gate decides by, read from Consul. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul, ReadOptions, Right } from '../consul/consul.ts';
import { RunlockError } from '../errors.ts';
import { instancesOf } from './instances.ts';
import type { Instance } from './instances.ts';
import { refuseNode } from './unknown.ts';

/** `auto` among the names: every service that the node offers. */
export const AUTO = 'auto';

/** Their locks are taken in one transaction, which has 64 operations at most. */
const MOST_SERVICES = 60;

export interface Wanted {
  /** Names, and `AUTO`. */
  readonly services: readonly string[];
  readonly node: string;
  /** Whether `node` is that of the agent that is asked. */
  readonly local: boolean;
  /** Whether the catalogue need not know the node. */
  readonly allowUnknown?: boolean;
}

/** Services that were named one by one: what `auto` finds is offered by somebody. */
export const namedOf = (services: readonly string[]) => services.filter((name) => name !== AUTO);

/**
 * The services' names, each once, sorted.
 * @throws RunlockError `forbidden` where the token may not see who offers them, or the peers: what is hidden looks like
 * what is not there, and the gate would open by that. `config`: the catalogue has no such node, and it was not allowed. `usage`: too many services.
 */
export async function findServices(consul: Consul, wanted: Wanted, signal: AbortSignal): Promise<string[]> {
  const named = namedOf(wanted.services);
  const own = named.length < wanted.services.length ? await offeredBy(consul, wanted, signal) : [];
  const services = [...new Set([...named, ...own])].sort();
  if (services.length > MOST_SERVICES)
    throw new RunlockError(
      'usage',
      `${services.length} services are more than one gate can have (${MOST_SERVICES}); name fewer with --service`,
    );
  await checkRights(consul, { services, node: wanted.node }, signal);
  if (named.length === wanted.services.length) await checkNode(consul, wanted, signal);
  return services;
}

/** One that is not in the catalogue offers nothing, so it would look as if nothing went offline with it. */
async function checkNode(
  consul: Consul,
  { node, local, allowUnknown = false }: Wanted,
  signal: AbortSignal,
): Promise<void> {
  // An agent's own node is there: a session was made on it.
  if (local || allowUnknown) return;
  if (!(await consul.nodeServices(node, { ...FIRST_CONTACT, signal })))
    await refuseNode(consul, { node }, signal);
}

async function offeredBy(
  consul: Consul,
  { node, local, allowUnknown = false }: Wanted,
  signal: AbortSignal,
): Promise<string[]> {
  const limits = { ...FIRST_CONTACT, signal };
  const offered = local ? await consul.agentServices(limits) : await consul.nodeServices(node, limits);
  if (!offered) {
    if (allowUnknown) return [];
    return refuseNode(consul, { node, rule: nodeRule(node) }, signal);
  }
  if (offered.length > 0) return offered.map(({ service }) => service);
  const [all = true] = await consul.may([anyServiceOf(node)], limits);
  if (all) return [];
  throw blind(consul, `what ${node} offers`, 'service_prefix "" { policy = "read" }');
}

/** Nobody would call a service like its node; whoever may read this one may read any. */
export const anyServiceOf = (node: string): Right => ({
  ...{ resource: 'service', name: `${node}-services`, access: 'read' },
});

const readNode = (name: string): Right => ({ resource: 'node', name, access: 'read' });

/** A rule for single nodes is common, and hides their peers: a name that only begins like one of theirs tells. */
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
    throw blind(consul, `who offers ${name}`, `service "${name}" { policy = "read" }`);
  throw blind(consul, 'the health of all nodes', 'node_prefix "" { policy = "read" }');
}

const nodeRule = (node: string) => `node "${node}" { policy = "read" }`;

function blind({ address }: Consul, what: string, rule: string): RunlockError {
  return new RunlockError(
    'forbidden',
    `Consul at ${address} does not show this token ${what}, so nobody knows who is offline; the token needs the rule: ${rule}`,
  );
}

/** Every instance of a service; with `index` when that has changed. */
export async function readInstances(
  consul: Consul,
  service: string,
  options: ReadOptions,
): Promise<{ value: readonly Instance[]; index: number }> {
  const rule = `service "${service}" { policy = "read" }`;
  const { entries, index } = await consul.health(service, { ...options, rule });
  return { value: instancesOf(entries), index };
}
