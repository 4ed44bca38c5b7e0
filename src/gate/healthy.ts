/** Whether a node's services are healthy again after its run. */
import type { Consul, HealthCheck } from '../consul/consul.ts';
import { lookPast } from '../consul/watch.ts';
import type { Clock } from '../platform/deps.ts';

export interface Healthy {
  readonly services: readonly string[];
  /** Those of them that the node offered before: it has to offer them again. */
  readonly offered: readonly string[];
  readonly node: string;
  /** Milliseconds. */
  readonly withinMs: number;
  /** Healthy for so long is enough: a check's last answer can be older than the run's end. */
  readonly stableMs: number;
  /** Hears, once, of the first that is not well. */
  readonly onSick?: (why: string) => void;
}

export type Health =
  | { readonly kind: 'healthy' }
  /** Why not, when the time was over. */
  | { readonly kind: 'unhealthy'; readonly why: string };

/** @throws the signal's reason when it aborts; RunlockError for what is no transient fault. */
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

/** The last answer may come later by an election. Where none comes, nobody knows that the node is well. */
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

/** A service, and the index from which a watch on it sees what has changed. */
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

/** Maintenance says nothing of health. A warning is none that a gate would close for. */
const isBad = ({ id, status }: HealthCheck) =>
  status === 'critical' && id !== '_node_maintenance' && !id.startsWith('_service_maintenance:');

function describe({ name, output }: HealthCheck): string {
  const [line = ''] = output.trim().split(/[\r\n]/);
  return line === '' ? `${name} is critical` : `${name} is critical (${line.slice(0, 80)})`;
}

/** A change of another service is seen a little later. */
const LONGEST_WAIT_MS = 1_000;
/** A watch that returns at once, changed or not, must not become a storm of requests. */
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
