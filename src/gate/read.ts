/** What the health gate decides by, read from Consul. */
import { FIRST_CONTACT } from '../consul.ts';
import type { Consul, Entry, ReadOptions } from '../consul.ts';
import { RunlockError } from '../errors.ts';
import { parseKey } from '../lock/layout.ts';
import type { GroupKeys } from '../lock/layout.ts';
import { decodeClaim } from '../lock/records.ts';
import type { ClaimState } from '../lock/records.ts';
import { instancesOf } from './instances.ts';
import type { Instance } from './instances.ts';

/** `auto` among the names: every service that the node offers. */
export const AUTO = 'auto';

export interface Wanted {
  /** Names, and `AUTO`. */
  readonly services: readonly string[];
  readonly node: string;
  /** Whether `node` is that of the agent that is asked. */
  readonly local: boolean;
}

/**
 * The services' names, each once, sorted.
 * @throws RunlockError `forbidden` where the token may not see who offers them, or the peers: what is hidden looks like
 * what is not there, and the gate would open by that. `config`: the catalogue has no such node.
 */
export async function findServices(consul: Consul, wanted: Wanted, signal: AbortSignal): Promise<string[]> {
  const named = wanted.services.filter((name) => name !== AUTO);
  const own = named.length < wanted.services.length ? await offeredBy(consul, wanted, signal) : [];
  const services = [...new Set([...named, ...own])].sort();
  await checkRights(consul, { services, node: wanted.node }, signal);
  return services;
}

async function offeredBy(consul: Consul, { node, local }: Wanted, signal: AbortSignal): Promise<string[]> {
  const limits = { ...FIRST_CONTACT, signal };
  const offered = local ? await consul.agentServices(limits) : await consul.nodeServices(node, limits);
  if (!offered)
    throw new RunlockError(
      'config',
      `--service auto: Consul's catalogue has no node '${node}', or the token may not read it; correct --node, or give the token the rule: ${nodeRule(node)}`,
    );
  if (offered.length > 0) return offered.map(({ service }) => service);
  // Nobody would call a service like its node; whoever may read this one may read any.
  const [all = true] = await consul.mayRead([{ resource: 'service', name: `${node}-services` }], limits);
  if (all) return [];
  throw blind(consul, `what ${node} offers`, 'service_prefix "" { policy = "read" }');
}

async function checkRights(
  consul: Consul,
  { services, node }: { services: readonly string[]; node: string },
  signal: AbortSignal,
): Promise<void> {
  if (services.length === 0) return;
  const names = [
    ...services.map((name) => ({ resource: 'service', name }) as const),
    // A rule for this node alone is common, and hides every peer: a name that only begins like its own tells.
    ...[node, `${node}-peer`].map((name) => ({ resource: 'node', name }) as const),
  ];
  const may = await consul.mayRead(names, { ...FIRST_CONTACT, signal });
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

/** Nodes with a run under way in a group; `before`: the only ones that got their slots before `node` got its own. */
export interface Running {
  readonly nodes: readonly string[];
  readonly before: readonly string[];
}

/** Who runs in the group beside `node`; with `index` when that has changed. */
export async function readRunning(
  consul: Consul,
  { keys, node }: { keys: GroupKeys; node: string },
  options: ReadOptions,
): Promise<{ value: Running; index: number }> {
  const { entries, index } = await consul.list(keys.slotPrefix, { ...options, rule: keys.rule });
  return { value: runningOf(entries, { root: keys.root, node }), index };
}

/** Of these a command may be running: each can take its node down at any moment. */
const UNDER_WAY: readonly ClaimState[] = ['running', 'held', 'rebooting', 'evicted'];

/** Pure. */
export function runningOf(
  entries: readonly Entry[],
  { root, node }: { root: string; node: string },
): Running {
  const claims = entries
    .filter(({ key }) => parseKey(root, key)?.key.kind === 'owner')
    .map((entry) => ({ ...decodeClaim(entry), grantedAt: grantIndex(entry) }));
  const own = claims.find((claim) => claim.node === node);
  const others = claims.filter((claim) => claim.node !== node && UNDER_WAY.includes(claim.state));
  const before = others.filter(
    ({ state, grantedAt }) => own === undefined || state !== 'running' || grantedAt < own.grantedAt,
  );
  return { nodes: others.map((claim) => claim.node), before: before.map((claim) => claim.node) };
}

/**
 * When a running claim was granted, by Consul's index. One that its run took back is as old as its key: it was written
 * anew, and is no younger for that. A node that comes back to a claim that it kept has a new grant, in an old key.
 */
function grantIndex(entry: Entry): number {
  return (decodeClaim(entry).returns ?? 0) > 0 ? entry.createIndex : entry.modifyIndex;
}
