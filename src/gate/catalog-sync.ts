/** Waits until a maintenance has reached the catalogue, because other nodes decide by the catalogue. */
import type { Consul, ServiceEntry } from '../consul/consul.ts';
import { watchUntil } from '../consul/watch.ts';
import type { Past } from '../consul/watch.ts';
import { startWaiting } from '../platform/deps.ts';
import type { Clock } from '../platform/deps.ts';
import { RunlockError } from '../errors.ts';
import type { Mode, TakenOut } from './maintenance.ts';

/** How long to wait. An agent updates the servers at once, but retries only after a while if it can't reach them. */
const SHOWN_MS = 30_000;
const PAUSE_MS = 100;

interface Effects {
  readonly consul: Consul;
  readonly clock: Clock;
}

/**
 * Resolves when the catalogue shows each of these maintenances.
 * @returns the node's instances that are out of service, as the catalogue shows them.
 * @throws RunlockError `unreachable` when it does not in time; the signal's reason when it aborts.
 */
export async function untilShown(
  effects: Effects,
  { node, services, taken }: { node: string; services: readonly string[]; taken: readonly TakenOut[] },
  signal: AbortSignal,
): Promise<readonly ServiceEntry[]> {
  const late = startWaiting(effects.clock, SHOWN_MS, signal);
  const shown: ServiceEntry[] = [];
  try {
    for (const service of services) {
      const own = taken.filter((mode) => mode.scope === 'node' || mode.service === service);
      if (own.length > 0)
        shown.push(...(await untilServiceShown(effects, { node, service, taken: own }, late.either)));
    }
    return shown;
  } catch (error) {
    if (!late.isOver(error)) throw error;
    const message = `the maintenance of ${node} did not reach the catalogue within ${SHOWN_MS / 1000} s; can its agent reach Consul's servers?`;
    throw new RunlockError('unreachable', message, { cause: error });
  } finally {
    late.end();
  }
}

async function untilServiceShown(
  { consul, clock }: Effects,
  { node, service, taken }: { node: string; service: string; taken: readonly TakenOut[] },
  signal: AbortSignal,
): Promise<readonly ServiceEntry[]> {
  const read = async (past: Past) => {
    const rule = `service "${service}" { policy = "read" }`;
    const { entries, index } = await consul.health(service, { ...past, signal, rule });
    const own = entries.filter((entry) => entry.node === node);
    const isWatch = past.index !== undefined;
    // If the answer to a watch lists no instance of the node, it may come from a view that is still empty: read again.
    const isBlind = own.length === 0 && isWatch;
    return { own, isWatch, isBlind, index: isBlind ? 0 : index };
  };
  return watchUntil(read, async ({ own, isWatch, isBlind }) => {
    const shown = own.every((entry) =>
      taken.every(
        (mode) =>
          (mode.scope === 'service' && mode.serviceId !== entry.serviceId) ||
          entry.checks.some((check) => check.id === checkId(mode)),
      ),
    );
    if (shown && !isBlind) return own;
    if (isWatch) await clock.sleep(PAUSE_MS, { signal });
    return undefined;
  });
}

const checkId = ({ scope, serviceId }: Mode) =>
  scope === 'node' ? '_node_maintenance' : `_service_maintenance:${serviceId}`;
