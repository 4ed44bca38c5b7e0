/** The instances of a service, as the health gate sees them. Pure. */
import type { HealthCheck, ServiceEntry } from '../consul/consul.ts';
import { runNamed } from './reason.ts';

export interface Instance {
  readonly node: string;
  readonly serviceId: string;
  readonly service: string;
  /**
   * `offline`: a check of the instance or of its node is critical; maintenance counts as critical, a warning does
   * not.
   */
  readonly state: 'healthy' | 'offline';
  /** Why it is offline, for people: the most informative of all reasons. */
  readonly why?: string;
  readonly maintenance: readonly InstanceMaintenance[];
}

export interface InstanceMaintenance {
  readonly scope: 'service' | 'node';
  readonly reason: string;
  /** The run that set it; undefined: runlock did not set it. */
  readonly run?: string;
}

/** The instances, sorted by node and then by id. */
export function instancesOf(entries: readonly ServiceEntry[]): readonly Instance[] {
  return entries.map(toInstance).sort((a, b) => compare(a.node, b.node) || compare(a.serviceId, b.serviceId));
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

function toInstance({ node, serviceId, service, checks }: ServiceEntry): Instance {
  const critical = checks.filter(({ status, id }) => status === 'critical' || scopeOf(id) !== undefined);
  const [first] = [...critical].sort((a, b) => rankOf(a) - rankOf(b));
  return {
    node,
    serviceId,
    service,
    maintenance: critical.flatMap(toMaintenance),
    ...(first ? { state: 'offline', why: describe(first) } : { state: 'healthy' }),
  };
}

const NODE_MAINTENANCE = '_node_maintenance';
const SERVICE_MAINTENANCE = '_service_maintenance:';

function scopeOf(checkId: string): InstanceMaintenance['scope'] | undefined {
  if (checkId === NODE_MAINTENANCE) return 'node';
  return checkId.startsWith(SERVICE_MAINTENANCE) ? 'service' : undefined;
}

function toMaintenance({ id, notes }: HealthCheck): InstanceMaintenance[] {
  const scope = scopeOf(id);
  const run = runNamed(notes);
  return scope === undefined ? [] : [{ scope, reason: notes, ...(run !== undefined && { run }) }];
}

/** Ranks the reasons, the most informative first: a dead node explains its other checks, and so does a maintenance. */
function rankOf({ id, serviceId }: HealthCheck): number {
  if (id === 'serfHealth') return 0;
  if (scopeOf(id) !== undefined) return 1;
  return serviceId === '' ? 2 : 3;
}

/** Cut the output of a check after this many characters, because it can be a page of HTML. */
const LONGEST = 80;

function describe({ id, name, notes, output }: HealthCheck): string {
  if (scopeOf(id) !== undefined) return `maintenance: ${oneLine(notes)}`;
  const said = oneLine(output);
  return said === '' ? `${oneLine(name)} is critical` : `${oneLine(name)}: ${said}`;
}

function oneLine(text: string): string {
  const [line = ''] = text.trim().split(/[\r\n]/);
  return line.length > LONGEST ? `${line.slice(0, LONGEST - 1)}…` : line;
}
