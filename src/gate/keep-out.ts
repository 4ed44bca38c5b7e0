/**
 * Keeps a node out of service during its run. An instance that is re-registered loses its maintenance, and would be in
 * service while the command is running (docs/adr/0020-last-one-out.md).
 */
import { reasonOf } from '../errors.ts';
import { growingMs } from '../consul/retry.ts';
import type { HealthCheck, ServiceEntry } from '../consul/consul.ts';
import type { Growth } from '../consul/retry.ts';
import type { Verdict } from './decide.ts';
import { enter } from './enter.ts';
import type { EnterEffects, EnterRequest } from './enter.ts';
import { instancesInService } from './maintenance.ts';
import type { TakenOut } from './maintenance.ts';

export interface KeepOut {
  readonly request: EnterRequest<readonly Verdict[]>;
  /** What the run has taken out of service. */
  readonly taken: readonly TakenOut[];
  readonly shown: readonly ServiceEntry[];
  /** Called once for each instance found in service. `closed`: the instance stays in service until its gate is open. */
  readonly onFound: (found: Found) => void;
}

export type Found =
  | { readonly kind: 'again'; readonly taken: readonly TakenOut[] }
  | { readonly kind: 'closed'; readonly service: string; readonly closed: readonly Verdict[] }
  /** The instance was not re-registered, so somebody has ended its maintenance. */
  | { readonly kind: 'by-hand'; readonly service: string };

/** A look costs two small requests to the node's own agent. Consul's servers are asked only if something is found. */
const LOOK_MS = 2_000;
const AGAIN: Growth = { shortestMs: LOOK_MS, longestMs: 30_000 };
const LIMIT_MS = 10_000;

/** Keeps looking until the signal aborts; never throws. */
export async function keepOut(effects: EnterEffects, asked: KeepOut, signal: AbortSignal): Promise<void> {
  const { clock, emit, random } = effects.deps;
  const services = [...new Set(asked.taken.flatMap(({ service }) => (service === '' ? [] : [service])))];
  if (services.length === 0) return;
  const look = createLook(effects, { ...asked, services });
  const isOver = () => signal.aborted;
  for (let failures = 0; !isOver();) {
    try {
      failures = (await look(signal)) ? 0 : failures + 1;
    } catch (error) {
      // The run has ended, which aborted the current look.
      if (isOver()) return;
      failures++;
      emit({ event: 'out-unwatched', detail: { fault: reasonOf(error) } });
    }
    const pauseMs = failures === 0 ? LOOK_MS : growingMs(failures, AGAIN, random);
    await clock.sleep(pauseMs, { signal }).catch(() => undefined);
  }
}

/** An instance of the node, as the catalogue shows it. */
interface Own {
  readonly createIndex: number;
  readonly inService: boolean;
}

const isOut = (serviceId: string, checks: readonly HealthCheck[]) =>
  checks.some(({ id }) => id === `_service_maintenance:${serviceId}`);

/**
 * @returns a function that looks once, and resolves to whether every re-registered instance is out of service again.
 */
function createLook(
  effects: EnterEffects,
  { request, services, shown, onFound }: KeepOut & { readonly services: readonly string[] },
): (signal: AbortSignal) => Promise<boolean> {
  const { consul, agent } = effects;
  /** The registrations that were seen out of service, by service and id. */
  const known = new Map<string, number>();
  const told = new Set<string>();
  const once = (key: string, found: Found) => {
    if (told.has(key)) return;
    told.add(key);
    onFound(found);
  };
  const read = async (service: string, signal: AbortSignal): Promise<ReadonlyMap<string, Own>> => {
    const { entries } = await consul.health(service, { signal, retryForMs: LIMIT_MS });
    const own = entries.filter(({ node }) => node === request.node);
    return new Map(
      own.map(({ serviceId, createIndex, checks }) => {
        return [serviceId, { createIndex, inService: !isOut(serviceId, checks) }];
      }),
    );
  };
  const note = (entries: readonly ServiceEntry[]) => {
    for (const { service, serviceId, createIndex, checks } of entries)
      if (isOut(serviceId, checks)) known.set(`${service} ${serviceId}`, createIndex);
  };
  note(shown);
  const putOut = async (service: string, signal: AbortSignal): Promise<boolean> => {
    const entered = await enter(effects, { ...request, services: [service], inside: true }, signal);
    if (entered.kind === 'entered') {
      told.delete(`closed ${service}`);
      onFound({ kind: 'again', taken: entered.taken.filter(({ how }) => how === 'set') });
      note(entered.shown);
      return true;
    }
    if (entered.kind === 'closed')
      once(`closed ${service}`, { kind: 'closed', service, closed: entered.closed });
    return false;
  };
  return async (signal) => {
    const limits = { signal, retryForMs: LIMIT_MS };
    const found = await instancesInService(agent, services, limits);
    let done = true;
    for (const service of new Set(found.map((one) => one.service))) {
      const own = await read(service, signal);
      // If the catalogue does not show an instance yet, the next look will find it.
      const inService = found.filter((one) => one.service === service && own.get(one.id)?.inService);
      const anew = inService.filter(({ id }) => known.get(`${service} ${id}`) !== own.get(id)?.createIndex);
      for (const { id } of inService.filter((one) => !anew.includes(one)))
        once(`hand ${service} ${id} ${known.get(`${service} ${id}`)}`, { kind: 'by-hand', service });
      if (anew.length > 0) done = (await putOut(service, signal)) && done;
    }
    return done;
  };
}
