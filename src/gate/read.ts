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
  /** The whole node goes offline: all that it offers is counted, named or not. */
  readonly whole?: boolean;
  /** The node's own agent, where that is not the one that is asked; undefined: the catalogue says what it offers. */
  readonly agent?: Consul | undefined;
  /** What is to be put back is found in whatever case it is named. */
  readonly anyCase?: boolean;
}

/** What a gate is about; each name once, sorted. */
export interface GateServices {
  /** Those that were asked for. */
  readonly services: readonly string[];
  /** Those that go offline with them: where the whole node does, all that it offers too. */
  readonly counted: readonly string[];
  /** Those of them that the node offers: the catalogue may not show them for a while. */
  readonly offered: readonly string[];
}

/** Services that were named one by one: what `auto` finds is offered by somebody. */
export const namedOf = (services: readonly string[]) => services.filter((name) => name !== AUTO);

/**
 * @throws RunlockError `forbidden` where the token may not see who offers them, or the peers: what is hidden looks like
 * what is not there, and the gate would open by that. `config`: the catalogue has no such node, and it was not allowed; the
 * node offers a service in another case alone. `usage`: too many services.
 */
export async function findServices(
  consul: Consul,
  wanted: Wanted,
  signal: AbortSignal,
): Promise<GateServices> {
  const { node, whole = false } = wanted;
  const named = namedOf(wanted.services);
  const isAuto = named.length < wanted.services.length;
  // Too many names ask nothing.
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
 * The whole node's services, with those that were registered meanwhile.
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

/** Consul's health answers take any case, and the agent does not: nothing would go out of service. */
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

/** The names of what the node offers. One that is not in the catalogue offers nothing, so it would look as if nothing went offline with it. */
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
  // What is hidden would go offline with the node all the same.
  const [all = true] = await consul.may([anyServiceOf(node)], limits);
  if (all) return offered;
  throw blind(
    consul,
    `${whole ? 'all services' : 'the services'} of ${node}`,
    'service_prefix "" { policy = "read" }',
  );
}

/** Nobody would call a service like its node; whoever may read this one may read any. */
export const anyServiceOf = (node: string): Right => ({
  resource: 'service',
  name: `${node}-services`,
  access: 'read',
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
