/** Whether a node's services are healthy again after its run. */
import type { Consul, HealthCheck } from '../consul/consul.ts';
import { lookPast } from '../consul/watch.ts';
import type { Clock } from '../platform/deps.ts';

export interface Healthy {
  readonly services: readonly string[];
  /** Those of `services` that the node offered before the run, so it has to offer them again. */
  readonly offered: readonly string[];
  readonly node: string;
  /** Milliseconds. */
  readonly withinMs: number;
  /** How long the services must be healthy, because a check's last result can be older than the end of the run. */
  readonly stableMs: number;
  /** Called once, with the first reason why a service is not healthy. */
  readonly onSick?: (why: string) => void;
}

export type Health =
  | { readonly kind: 'healthy' }
  /** `why`: the reason at the end of the time. */
  | { readonly kind: 'unhealthy'; readonly why: string };

/** @throws the signal's reason when it aborts; RunlockError for a fault that is not transient. */
export async function untilHealthy(effects: Effects, asked: Healthy, signal: AbortSignal): Promise<Health> {
  const { consul, clock } = effects;
  const late = new AbortController();
  const over = new AbortController();
  void clock.sleep(asked.withinMs + ANSWER_MS, { signal: over.signal }).then(
    () => late.abort(),
    () => undefined,
  );
  try {
    return await lookOn(effects, asked, AbortSignal.any([signal, late.signal]));
  } catch (error) {
    if (signal.aborted || !late.signal.aborted) throw error;
    return {
      kind: 'unhealthy',
      why: consul.fault()?.message ?? `Consul at ${consul.address} did not answer`,
    };
  } finally {
    over.abort();
  }
}

interface Effects {
  readonly consul: Consul;
  readonly clock: Clock;
}

/** Extra time for the last answer, because of an election. If none comes, the node does not count as healthy. */
const ANSWER_MS = 20_000;

async function lookOn({ consul, clock }: Effects, asked: Healthy, signal: AbortSignal): Promise<Health> {
  const startedMs = clock.monotonicMs();
  let { onSick } = asked;
  let sinceMs: number | undefined;
  for (;;) {
    const { sick, watch } = await look(consul, asked, signal);
    const nowMs = clock.monotonicMs();
    const leftMs = startedMs + asked.withinMs - nowMs;
    if (sick === undefined) {
      sinceMs ??= nowMs;
      if (leftMs <= 0 || nowMs - sinceMs >= asked.stableMs) return { kind: 'healthy' };
      const waitMs = Math.min(leftMs, sinceMs + asked.stableMs - nowMs);
      await change({ consul, clock }, watch, { waitMs, signal });
      continue;
    }
    sinceMs = undefined;
    onSick?.(sick);
    onSick = undefined;
    if (leftMs <= 0) return { kind: 'unhealthy', why: sick };
    await change({ consul, clock }, watch, { waitMs: leftMs, signal });
  }
}

/** A service, and the index from which to watch it for changes. */
interface Watch {
  readonly service: string;
  readonly index: number;
}

async function look(
  consul: Consul,
  { services, offered, node }: Healthy,
  signal: AbortSignal,
): Promise<{ sick: string | undefined; watch: Watch | undefined }> {
  let watch: Watch | undefined;
  for (const service of services) {
    const { entries, index } = await consul.health(service, { signal, rule: ruleFor(service) });
    watch = { service, index };
    const own = entries.filter((entry) => entry.node === node);
    if (own.length === 0 && offered.includes(service))
      return { sick: `${service} is no longer registered`, watch };
    const bad = own.flatMap(({ checks }) => checks).find(isBad);
    if (bad) return { sick: `${service}: ${describe(bad)}`, watch };
  }
  return { sick: undefined, watch };
}

const ruleFor = (service: string) => `service "${service}" { policy = "read" }`;

/** Ignores maintenance, which says nothing about health, and warnings, for which a gate would not close either. */
const isBad = ({ id, status }: HealthCheck) =>
  status === 'critical' && id !== '_node_maintenance' && !id.startsWith('_service_maintenance:');

function describe({ name, output }: HealthCheck): string {
  const [line = ''] = output.trim().split(/[\r\n]/);
  return line === '' ? `${name} is critical` : `${name} is critical (${line.slice(0, 80)})`;
}

/** Wait no longer than this: the watch covers one service, and changes of the others are only seen by the next look. */
const LONGEST_WAIT_MS = 1_000;
/**
 * The shortest pause between looks, so that a watch that always returns at once does not flood Consul with requests.
 */
const PAUSE_MS = 100;

async function change(
  { consul, clock }: Effects,
  watch: Watch | undefined,
  { waitMs, signal }: { waitMs: number; signal: AbortSignal },
): Promise<void> {
  if (!watch) return;
  const limit = Math.min(waitMs, LONGEST_WAIT_MS);
  const startedMs = clock.monotonicMs();
  const { service, index } = watch;
  await lookPast((past) => consul.health(service, { ...past, signal, rule: ruleFor(service) }), index, limit);
  const restMs = startedMs + Math.min(limit, PAUSE_MS) - clock.monotonicMs();
  if (restMs > 0) await clock.sleep(restMs, { signal });
}
