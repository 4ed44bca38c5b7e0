// What is found in service under a running command, and how often it is looked for.
import { expect, test } from 'vitest';
import type { HealthCheck, ServiceEntry } from '../../src/consul/consul.ts';
import { RunlockError } from '../../src/errors.ts';
import type { EnterEffects } from '../../src/gate/enter.ts';
import { keepOut } from '../../src/gate/keep-out.ts';
import type { KeepOut } from '../../src/gate/keep-out.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const away = () => Promise.reject(new RunlockError('unreachable', 'away'));
const check = (id: string): HealthCheck => ({
  ...{ node: 'web01', id, name: id, status: 'critical', notes: 'runlock r1', output: '', serviceId: 'web-1' },
});
const OUT = check('_service_maintenance:web-1');
const entry = (createIndex: number, checks: readonly HealthCheck[]): ServiceEntry => ({
  ...{ node: 'web01', serviceId: 'web-1', service: 'web', address: '', createIndex, checks },
});

interface World {
  /** As the agent has them. */
  readonly checks: readonly HealthCheck[] | 'away';
  /** When the run went out, and now. */
  readonly shown: ServiceEntry;
  readonly now: ServiceEntry;
}

/** Four looks: the pauses after them, what was found, and whether anything else was asked for. */
async function look({ checks, shown, now }: World) {
  const stop = new AbortController();
  const pauses: number[] = [];
  const found: string[] = [];
  const asked = new Set<string>();
  const consul = fakeConsul({
    agentServices: () => Promise.resolve([{ id: 'web-1', service: 'web' }]),
    agentChecks: () => (checks === 'away' ? away() : Promise.resolve(checks)),
    health: () => {
      asked.add('health');
      return Promise.resolve({ entries: [now], index: 1 });
    },
    // The first thing that is done to go out of service again.
    createSession: () => {
      asked.add('session');
      return away();
    },
  });
  const clock: Partial<EnterEffects['deps']['clock']> = {
    monotonicMs: () => 0,
    sleep: (ms) => {
      // The deadline of an entry.
      if (ms > 60_000) return new Promise(() => undefined);
      if (pauses.push(ms) === 4) stop.abort();
      return Promise.resolve();
    },
  };
  const deps = { clock, random: () => 1, emit: () => undefined } as unknown as EnterEffects['deps'];
  const effects = { consul, deps, agent: { consul, deps } };
  const request: KeepOut['request'] = {
    ...{ prefix: 'runlock', node: 'web01', services: ['web'], run: 'r1', groups: ['prod'] },
    ...{ scope: 'service', look: () => Promise.resolve(undefined) },
  };
  const mode = {
    scope: 'service',
    service: 'web',
    serviceId: 'web-1',
    reason: 'runlock r1',
    run: 'r1',
  } as const;
  await keepOut(
    effects,
    {
      ...{ request, taken: [{ ...mode, how: 'set' }], shown: [shown] },
      onFound: ({ kind }) => void found.push(kind),
    },
    stop.signal,
  );
  return { pauses, found, asked: [...asked] };
}

const EVERY = [2_000, 2_000, 2_000, 2_000];

test('what is out, or on a node that is, asks nobody but the agent', async () => {
  const shown = entry(7, [OUT]);
  const quiet = { pauses: EVERY, found: [], asked: [] };
  expect(await look({ checks: [OUT], shown, now: shown })).toEqual(quiet);
  const node = { ...check('_node_maintenance'), serviceId: '' };
  expect(await look({ checks: [node], shown, now: shown })).toEqual(quiet);
});

test('the same instance without its maintenance was put back: said once, and nothing else', async () => {
  const put = { checks: [], shown: entry(7, [OUT]), now: entry(7, []) };
  expect(await look(put)).toEqual({ pauses: EVERY, found: ['by-hand'], asked: ['health'] });
});

test.each([
  ['registered anew', entry(7, [OUT]), entry(8, [])],
  ['registered while the run went out', entry(7, []), entry(7, [])],
])('one that was %s is to be taken out', async (_, shown, now) => {
  const { found, asked } = await look({ checks: [], shown, now });
  expect(found).toEqual([]);
  expect(asked).toEqual(['health', 'session']);
});

test('what the catalogue does not show yet waits for the next look', async () => {
  const late = { checks: [], shown: entry(7, [OUT]), now: entry(7, [OUT]) };
  expect(await look(late)).toEqual({ pauses: EVERY, found: [], asked: ['health'] });
});

test('an agent that is away is asked less and less often', async () => {
  const shown = entry(7, [OUT]);
  const { pauses } = await look({ checks: 'away', shown, now: shown });
  expect(pauses).toEqual([4_000, 8_000, 16_000, 30_000]);
});

test('the end of the run cuts a look short, and nothing is said of that', async () => {
  const stop = new AbortController();
  const cut = () => {
    stop.abort();
    return Promise.reject(stop.signal.reason as Error);
  };
  const consul = fakeConsul({ agentServices: cut, agentChecks: cut });
  const said: string[] = [];
  const deps = {
    clock: { sleep: () => Promise.resolve() },
    random: () => 1,
    emit: ({ event }: { event: string }) => void said.push(event),
  } as unknown as EnterEffects['deps'];
  const request: KeepOut['request'] = {
    ...{ prefix: 'runlock', node: 'web01', services: ['web'], run: 'r1', groups: ['prod'] },
    ...{ scope: 'service', look: () => Promise.resolve(undefined) },
  };
  const mode = { scope: 'service', service: 'web', serviceId: 'web-1', reason: '', run: 'r1' } as const;
  const taken = [{ ...mode, how: 'set' as const }];
  const asked = { request, taken, shown: [], onFound: () => undefined };
  await keepOut({ consul, deps, agent: { consul, deps } }, asked, stop.signal);
  expect(said).toEqual([]);
});
