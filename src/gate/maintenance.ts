/**
 * Takes a node's instances out of service at the node's own agent, and puts them back. A maintenance that runlock set
 * has the id of its run in its reason. runlock never changes any other maintenance.
 */
import type { Consul, HealthCheck, OfferedService } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import { reasonOf } from '../errors.ts';
import { maintenanceReason, runNamed } from './reason.ts';

export type Scope = 'service' | 'node';

/** A maintenance, as the agent reports it. */
export interface Mode {
  readonly scope: Scope;
  /** The service and its id at the agent; both are empty for the whole node. */
  readonly service: string;
  readonly serviceId: string;
  readonly reason: string;
  /** The run that the reason names; undefined: runlock did not set it. */
  readonly run?: string;
}

/** The result for one instance, or the node, that was to be taken out of service. */
export interface TakenOut extends Mode {
  /**
   * `set`: this call set it. `adopted`: runlock had set it before. `foreign`: runlock did not set it and leaves it
   * alone.
   */
  readonly how: 'set' | 'adopted' | 'foreign';
}

/** A node's own agent. */
export interface NodeAgent {
  readonly consul: Consul;
  readonly deps: Deps;
}

export interface Out {
  readonly services: readonly string[];
  readonly scope: Scope;
  readonly run: string;
  /** Called right before each change; throws if the change may no longer be made. */
  readonly check?: () => void;
}

export interface Limits {
  readonly signal: AbortSignal;
  /** How long to retry after transient faults, in milliseconds; by default until `signal` aborts. */
  readonly retryForMs?: number;
}

/**
 * Takes every instance of the services that the agent offers, or its whole node, out of service. May be called twice.
 * @returns one result for each instance, or for the node; none if the agent offers none of the services.
 * @throws RunlockError `forbidden`: the token lacks the rights.
 */
export async function takeOut(
  { consul }: NodeAgent,
  { services, scope, run, check }: Out,
  limits: Limits,
): Promise<readonly TakenOut[]> {
  const offered = await consul.agentServices(limits);
  const places = scope === 'node' ? [NODE] : offered.filter(({ service }) => services.includes(service));
  const before = await readModes(consul, offered, limits);
  const missing = places.filter((place) => !before.some((mode) => isAt(mode, place)));
  for (const place of missing) {
    check?.();
    await change(consul, place, { on: true, reason: maintenanceReason(run) }, limits);
  }
  // Read again: if another maintenance was set just before, Consul kept that one without an error.
  const now = missing.length === 0 ? before : await readModes(consul, offered, limits);
  return now
    .filter((mode) => places.some((place) => isAt(mode, place)))
    .map((mode) => ({ ...mode, how: howOf(mode, { run, before }) }));
}

function howOf(mode: Mode, { run, before }: { run: string; before: readonly Mode[] }): TakenOut['how'] {
  if (mode.run === undefined) return 'foreign';
  return mode.run === run && !before.some((one) => isAt(one, mode)) ? 'set' : 'adopted';
}

/** Ends these maintenances, except those whose reason has changed since they were read. */
export async function endModes(
  { consul }: NodeAgent,
  modes: readonly Mode[],
  limits: Limits,
): Promise<readonly Mode[]> {
  const ours = modes.filter(({ run }) => run !== undefined);
  if (ours.length === 0) return [];
  const now = await readModes(consul, await consul.agentServices(limits), limits);
  const there = ours.filter((mode) => now.some((one) => isAt(one, mode) && one.reason === mode.reason));
  for (const mode of there) await change(consul, mode, { on: false }, limits);
  return there;
}

/** All maintenances of these services and of the node, except those that the token may not read. */
export async function modesOf(
  { consul }: NodeAgent,
  services: readonly string[] | 'all',
  limits: Limits,
): Promise<readonly Mode[]> {
  const all = await readModes(consul, await consul.agentServices(limits), limits);
  if (services === 'all') return all;
  return all.filter(({ scope, service }) => scope === 'node' || services.includes(service));
}

/** The instances of these services that are not in maintenance, neither their own nor that of the node. */
export async function instancesInService(
  { consul }: NodeAgent,
  services: readonly string[],
  limits: Limits,
): Promise<readonly OfferedService[]> {
  const offered = await consul.agentServices(limits);
  const modes = await readModes(consul, offered, limits);
  if (modes.some(({ scope }) => scope === 'node')) return [];
  return offered.filter((one) => services.includes(one.service) && !modes.some((mode) => isAt(mode, one)));
}

/** Longer than a restart of an agent, or an election, takes. */
export const END_MS = 30_000;
export const LAST_TRY_MS = 5_000;

/** Ends these maintenances, with its own deadline. Never throws: returns those that it could not end, and why. */
export async function endModesAtLast(
  agent: NodeAgent,
  modes: readonly Mode[],
  retryForMs = END_MS,
): Promise<{ readonly stays: readonly Mode[]; readonly why: string }> {
  const signal = AbortSignal.timeout(retryForMs + LAST_TRY_MS);
  try {
    await endModes(agent, modes, { signal, retryForMs });
    return { stays: [], why: '' };
  } catch (error) {
    return { stays: modes.filter(({ run }) => run !== undefined), why: reasonOf(error) };
  }
}

const NODE = { id: '', service: '' };
const NODE_CHECK = '_node_maintenance';
const SERVICE_CHECK = '_service_maintenance:';

type Place = OfferedService | Mode;
const idOf = (place: Place) => ('serviceId' in place ? place.serviceId : place.id);
const isAt = (mode: Mode, place: Place) => mode.serviceId === idOf(place);

async function readModes(
  consul: Consul,
  offered: readonly OfferedService[],
  limits: Limits,
): Promise<Mode[]> {
  const checks = await consul.agentChecks(limits);
  return checks.flatMap((check) => toMode(check, offered));
}

function toMode({ id, serviceId, notes }: HealthCheck, offered: readonly OfferedService[]): Mode[] {
  const run = runNamed(notes);
  const why = { reason: notes, ...(run !== undefined && { run }) };
  if (id === NODE_CHECK) return [{ scope: 'node', service: '', serviceId: '', ...why }];
  if (!id.startsWith(SERVICE_CHECK)) return [];
  const service = offered.find((one) => one.id === serviceId)?.service ?? serviceId;
  return [{ scope: 'service', service, serviceId, ...why }];
}

async function change(
  consul: Consul,
  place: Place,
  to: { on: boolean; reason?: string },
  limits: Limits,
): Promise<void> {
  const id = idOf(place);
  if (id === '') {
    await consul.nodeMaintenance(to, { ...limits, rule: 'node "NODE" { policy = "write" }' });
    return;
  }
  // Ignore a missing service, because its maintenance is gone with it.
  await consul.serviceMaintenance(id, to, {
    ...limits,
    rule: `service "${place.service}" { policy = "write" }`,
  });
}
