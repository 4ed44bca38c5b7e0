// When the catalogue shows a maintenance: against answers from a script, in the order in which they are asked for.
import { expect, test } from 'vitest';
import type { Consul, HealthCheck, ServiceEntry } from '../../src/consul/consul.ts';
import type { TakenOut } from '../../src/gate/maintenance.ts';
import { untilShown } from '../../src/gate/catalog-sync.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const NEVER = new AbortController().signal;
const check = (id: string): HealthCheck => ({
  ...{ node: 'web01', id, name: id, status: 'critical', notes: '', output: '', serviceId: 'web-1' },
});
const listed = (...ids: string[]): ServiceEntry => ({
  ...{
    node: 'web01',
    serviceId: 'web-1',
    service: 'web',
    createIndex: 1,
    address: '',
    checks: ids.map(check),
  },
});
const SHOWN = listed('_service_maintenance:web-1');
const taken: TakenOut[] = [
  { scope: 'service', serviceId: 'web-1', service: 'web', reason: 'runlock a', run: 'a', how: 'set' },
];

/** The index of each question. */
async function ask(answers: readonly (readonly [index: number, entries: readonly ServiceEntry[]])[]) {
  const left = [...answers];
  const asked: (number | undefined)[] = [];
  const health: Consul['health'] = (_, { index }) => {
    asked.push(index);
    const [next, entries] = left.shift() ?? [];
    if (next === undefined || !entries) return Promise.reject(new Error('asked once too often'));
    return Promise.resolve({ entries, index: next });
  };
  const clock = { now: () => 0, monotonicMs: () => 0, sleep: () => Promise.resolve() };
  await untilShown(
    { consul: fakeConsul({ health }), clock },
    { node: 'web01', services: ['web'], taken },
    NEVER,
  );
  expect(left).toEqual([]);
  return asked;
}

test('a watch is waited with until the maintenance is there', async () => {
  expect(
    await ask([
      [5, [listed()]],
      [5, [listed()]],
      [6, [SHOWN]],
    ]),
  ).toEqual([undefined, 5, 5]);
});

test('the empty answer of a view that is not filled yet shows nothing: it is asked anew', async () => {
  expect(
    await ask([
      [5, [listed()]],
      [1, []],
      [5, [listed()]],
      [6, [SHOWN]],
    ]),
  ).toEqual([...[undefined, 5], ...[undefined, 5]]);
  expect(
    await ask([
      [5, [listed()]],
      [6, []],
      [6, [SHOWN]],
    ]),
  ).toEqual([undefined, 5, undefined]);
});

test('an instance that is gone by a consistent read has nothing to show', async () => {
  expect(
    await ask([
      [5, [listed()]],
      [6, []],
      [6, []],
    ]),
  ).toEqual([undefined, 5, undefined]);
});

test('a catalogue that never shows it is not waited for without an end', async () => {
  let end: () => void = () => undefined;
  const over = new Promise<void>((resolve) => (end = resolve));
  const asked: number[] = [];
  const health: Consul['health'] = (_, { signal }) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
      end();
    });
  const clock = {
    ...{ now: () => 0, monotonicMs: () => 0 },
    sleep: (ms: number) => {
      asked.push(ms);
      return over;
    },
  };
  const consul = fakeConsul({ health });
  const waiting = untilShown({ consul, clock }, { node: 'web01', services: ['web'], taken }, NEVER);
  await expect(waiting).rejects.toMatchObject({
    code: 'unreachable',
    message: expect.stringContaining('did not reach the catalogue within 30 s') as string,
  });
  expect(asked).toEqual([30_000]);
});
