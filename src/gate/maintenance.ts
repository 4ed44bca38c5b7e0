/**
 * Taking a node's instances out of service at the node's own agent, and putting them back. A maintenance that runlock set
 * carries its run's name as its reason; any other is somebody else's, and is never touched.
 */
import type { Consul, HealthCheck, OfferedService } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import { reasonOf } from '../errors.ts';
import { maintenanceReason, runNamed } from './reason.ts';

export type Scope = 'service' | 'node';

/** A maintenance, as the agent has it. */
export interface Mode {
  readonly scope: Scope;
  /** The service and its id at the agent; of a node both are empty. */
  readonly service: string;
  readonly serviceId: string;
  readonly reason: string;
  /** The run that its reason names; undefined: it is somebody else's. */
  readonly run?: string;
}

/** What became of one place that was to be taken out of service. */
export interface TakenOut extends Mode {
  /** `set`: by this call. `adopted`: an earlier run of runlock left it. `foreign`: somebody else's, left alone. */
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
  /** Throws if it may no longer be done; asked right before each change. */
  readonly check?: () => void;
}

export interface Limits {
  readonly signal: AbortSignal;
  /** How long transient faults are tried again, in milliseconds; until `signal` unless given. */
  readonly retryForMs?: number;
}

/**
 * Takes every instance of the services that the agent offers, or its whole node, out of service. May be called twice.
 * @returns one for each place; none where the agent offers none of the services.
 * @throws RunlockError `forbidden` where the token may not.
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
  // Somebody may have been quicker: then Consul keeps theirs, and says nothing.
  const now = missing.length === 0 ? before : await readModes(consul, offered, limits);
  return now
    .filter((mode) => places.some((place) => isAt(mode, place)))
    .map((mode) => ({ ...mode, how: howOf(mode, { run, before }) }));
}

function howOf(mode: Mode, { run, before }: { run: string; before: readonly Mode[] }): TakenOut['how'] {
  if (mode.run === undefined) return 'foreign';
  return mode.run === run && !before.some((one) => isAt(one, mode)) ? 'set' : 'adopted';
}

/** Ends these maintenances, where they are still the run's that they name. */
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

/** All maintenances of these services and of the node. What the token may not read is not among them. */
export async function modesOf(
  { consul }: NodeAgent,
  services: readonly string[] | 'all',
  limits: Limits,
): Promise<readonly Mode[]> {
  const all = await readModes(consul, await consul.agentServices(limits), limits);
  if (services === 'all') return all;
  return all.filter(({ scope, service }) => scope === 'node' || services.includes(service));
}

/** The instances of these services that the agent has in no maintenance, of their own or of the node. */
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

/** Longer than a restart of an agent takes, and than an election. */
export const END_MS = 30_000;
export const LAST_TRY_MS = 5_000;

/** Ends these maintenances, with a deadline of its own; never throws: what it could not end comes back, with why. */
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
  // A service that is gone takes its maintenance along.
  await consul.serviceMaintenance(id, to, {
    ...limits,
    rule: `service "${place.service}" { policy = "write" }`,
  });
}
