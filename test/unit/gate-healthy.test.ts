// Whether a node is healthy again after its run: against a Consul that answers from a script, on a clock that it moves.
import { expect, test } from 'vitest';
import type { Consul, HealthCheck } from '../../src/consul/consul.ts';
import { untilHealthy } from '../../src/gate/healthy.ts';
import type { Health } from '../../src/gate/healthy.ts';
import { fakeConsul } from '../support/fake-consul.ts';

type Status = HealthCheck['status'];

const check = (status: Status, id = 'service:web-1'): HealthCheck => ({
  ...{
    node: 'web01',
    id,
    name: 'web answers',
    status,
    notes: '',
    output: 'HTTP 500\nbody',
    serviceId: 'web-1',
  },
});

/** What Consul shows from a moment on, in milliseconds; undefined: the node does not offer the service. */
type Script = readonly (readonly [fromMs: number, shown: readonly HealthCheck[] | undefined])[];

const never = () => new Promise<void>(() => undefined);
const NEVER = new AbortController().signal;
const asked = { services: ['web'], offered: ['web'], node: 'web01', withinMs: 10_000, stableMs: 2_000 };

/** What it says, and after how long. */
async function ask(
  script: Script,
  more: Partial<Parameters<typeof untilHealthy>[1]> = {},
): Promise<Health & { afterMs: number }> {
  let nowMs = 0;
  const health: Consul['health'] = (service, { index, waitMs = 0 }) => {
    if (index !== undefined) nowMs += Math.max(1, waitMs);
    const [, checks] = script.findLast(([fromMs]) => fromMs <= nowMs) ?? [];
    const entry = { node: 'web01', serviceId: 'web-1', service, createIndex: 1, address: '' };
    const other = { ...entry, node: 'web02', checks: [check('critical')] };
    return Promise.resolve({ entries: [other, ...(checks ? [{ ...entry, checks }] : [])], index: 7 });
  };
  const clock = { now: () => nowMs, monotonicMs: () => nowMs, sleep: never };
  const result = await untilHealthy({ consul: fakeConsul({ health }), clock }, { ...asked, ...more }, NEVER);
  return { ...result, afterMs: nowMs };
}

const WELL = [check('passing')];
const ILL = [check('critical')];

test('healthy all along: after --gate-stable, and not before', async () => {
  expect(await ask([[0, WELL]])).toEqual({ kind: 'healthy', afterMs: 2_000 });
});

test('healthy again within the time: --gate-stable after that', async () => {
  expect(
    await ask([
      [0, ILL],
      [4_000, WELL],
    ]),
  ).toEqual({ kind: 'healthy', afterMs: 6_000 });
});

test('a check that flaps starts the time anew', async () => {
  const flapping: Script = [
    [0, WELL],
    [1_000, ILL],
    [3_000, WELL],
  ];
  expect(await ask(flapping)).toMatchObject({ kind: 'healthy', afterMs: 5_000 });
});

test('healthy at the end of the time is enough, ill is not: it says which check', async () => {
  expect(
    await ask([
      [0, ILL],
      [9_500, WELL],
    ]),
  ).toMatchObject({ kind: 'healthy', afterMs: 10_000 });
  const why = 'web: web answers is critical (HTTP 500)';
  expect(await ask([[0, ILL]])).toEqual({ kind: 'unhealthy', why, afterMs: 10_000 });
});

test('what is not well is said once, at the first look that finds it', async () => {
  const said: string[] = [];
  const onSick = (why: string) => void said.push(why);
  await ask([[0, WELL]], { onSick });
  expect(said).toEqual([]);
  const flapping: Script = [
    [0, WELL],
    [1_000, ILL],
    [2_000, WELL],
    [3_000, undefined],
    [4_000, WELL],
  ];
  expect(await ask(flapping, { onSick })).toMatchObject({ kind: 'healthy' });
  expect(said).toEqual(['web: web answers is critical (HTTP 500)']);
});

test('maintenance and warnings are no illness', async () => {
  const aside = [check('critical', '_service_maintenance:web-1'), check('critical', '_node_maintenance')];
  expect(await ask([[0, [...aside, check('warning')]]])).toMatchObject({ kind: 'healthy' });
});

test('what the node offered before it has to offer again; what it never did, not', async () => {
  const gone = { kind: 'unhealthy', why: 'web is no longer registered' };
  expect(await ask([[0, undefined]])).toMatchObject(gone);
  expect(await ask([[0, undefined]], { offered: [] })).toMatchObject({ kind: 'healthy' });
});

test('where Consul does not answer, nobody knows that the node is well', async () => {
  const health: Consul['health'] = (_, { signal }) =>
    new Promise((_resolve, reject) => {
      if (signal.aborted) reject(signal.reason as Error);
      signal.addEventListener('abort', () => reject(signal.reason as Error));
    });
  const slept: number[] = [];
  const sleep = (ms: number) => Promise.resolve(void slept.push(ms));
  const clock = { now: () => 0, monotonicMs: () => 0, sleep };
  const consul = fakeConsul({ health, address: 'here:8500', fault: () => undefined });
  const result = await untilHealthy({ consul, clock }, asked, NEVER);
  expect(result).toEqual({ kind: 'unhealthy', why: 'Consul at here:8500 did not answer' });
  expect(slept).toEqual([30_000]);
});

test('told to stop, it stops', async () => {
  const stop = new AbortController();
  const health: Consul['health'] = () => {
    stop.abort(new Error('told to stop'));
    return Promise.reject(stop.signal.reason as Error);
  };
  const sleep = () => new Promise<void>(() => undefined);
  const clock = { now: () => 0, monotonicMs: () => 0, sleep };
  const consul = fakeConsul({ health });
  await expect(untilHealthy({ consul, clock }, asked, stop.signal)).rejects.toThrow('told to stop');
});

test('a watch that returns at once, changed or not, is no storm of requests', async () => {
  let nowMs = 0;
  let requests = 0;
  const health: Consul['health'] = (service) => {
    requests += 1;
    nowMs += 1;
    const entry = { node: 'web01', serviceId: 'web-1', service, createIndex: 1, address: '', checks: WELL };
    return Promise.resolve({ entries: [entry], index: 7 });
  };
  const sleep = (ms: number) => {
    if (ms > 1_000) return never();
    nowMs += ms;
    return Promise.resolve();
  };
  const clock = { now: () => nowMs, monotonicMs: () => nowMs, sleep };
  const result = await untilHealthy(
    { consul: fakeConsul({ health }), clock },
    { ...asked, stableMs: 3_000 },
    NEVER,
  );
  expect(result.kind).toBe('healthy');
  // Two a round.
  expect(requests).toBeLessThan(70);
});
