// An instance that is registered anew under a running command: taken out again, as its gate says.
import { describe, expect, test } from 'vitest';
import type { ServiceEntry } from '../../src/consul/consul.ts';
import type { EnterEffects } from '../../src/gate/enter.ts';
import { keepOut } from '../../src/gate/keep-out.ts';
import type { Found, KeepOut } from '../../src/gate/keep-out.ts';
import { maintenanceReason } from '../../src/gate/reason.ts';
import { memoryNode } from '../support/memory-node.ts';
import type { MemoryNode } from '../support/memory-node.ts';

const RUN = '00000000-0000-4000-8000-00000000000a';
const REASON = maintenanceReason(RUN);

interface Now extends MemoryNode {
  /** Which services' gates are closed. */
  readonly closed: Set<string>;
}

/** What is found by each look, and the pauses between them; `steps`: what happens before each look. */
async function watch(
  services: readonly string[],
  steps: readonly ((now: Now) => void)[],
  others: readonly ServiceEntry[] = [],
) {
  const node = memoryNode(others);
  const now: Now = { ...node, closed: new Set() };
  for (const service of services) {
    node.register(`${service}-1`, service);
    node.maintain(`${service}-1`, REASON);
  }
  const shown = services.flatMap((service) => node.shown(service));
  const stop = new AbortController();
  const looks: string[][] = [[]];
  const pauses: number[] = [];
  const left = [...steps];
  const clock: Partial<EnterEffects['deps']['clock']> = {
    monotonicMs: () => 0,
    // All but the pauses are deadlines and renewals.
    sleep: (ms, { signal }) => {
      if (signal !== stop.signal) return new Promise(() => undefined);
      pauses.push(ms);
      const step = left.shift();
      if (!step) stop.abort();
      step?.(now);
      looks.push([]);
      return Promise.resolve();
    },
  };
  const deps = { clock, random: () => 1, emit: () => undefined } as unknown as EnterEffects['deps'];
  const { consul } = node;
  const agent = { consul, deps };
  const request: KeepOut['request'] = {
    prefix: 'runlock',
    node: 'web01',
    // Who asks for one of them names it, so this is never looked at.
    services,
    run: RUN,
    groups: ['prod'],
    scope: 'service',
    look: () => Promise.resolve(node.gates().some((service) => now.closed.has(service)) ? [] : undefined),
  };
  const told = (found: Found) => {
    const what = found.kind === 'again' ? found.taken.map((one) => one.serviceId).join() : found.service;
    looks.at(-1)?.push(`${found.kind} ${what}`);
  };
  const taken = shown.map(({ service, serviceId }) => {
    const mode = { scope: 'service', service, serviceId, reason: REASON, run: RUN } as const;
    return { ...mode, how: 'set' as const };
  });
  await keepOut({ consul, deps, agent }, { request, taken, shown, onFound: told }, stop.signal);
  return { looks: looks.slice(1, -1), pauses, out: node.out() };
}

const nothing = () => undefined;

describe('one that is registered anew', () => {
  test('is taken out again, and is known from then on: who puts it back after that is a hand', async () => {
    const { looks, out } = await watch(
      ['web'],
      [(now) => now.register('web-1'), nothing, (now) => now.maintain('web-1', undefined), nothing],
    );
    expect(looks).toEqual([['again web-1'], [], ['by-hand web'], []]);
    expect(out).toEqual([]);
  });

  test('and once more: once more it is taken out', async () => {
    const anew = (now: Now) => now.register('web-1');
    expect((await watch(['web'], [anew, anew])).looks).toEqual([['again web-1'], ['again web-1']]);
  });

  test('is told of alone, where others of its service are out already', async () => {
    expect((await watch(['web'], [(now) => now.register('web-2')])).looks).toEqual([['again web-2']]);
  });

  test('by hand back in service, each registration is told of once', async () => {
    const back = (now: Now) => now.maintain('web-1', undefined);
    const anew = (now: Now) => now.register('web-1');
    const { looks } = await watch(['web'], [back, nothing, anew, back, nothing]);
    expect(looks).toEqual([['by-hand web'], [], ['again web-1'], ['by-hand web'], []]);
  });
});

test('another node’s instance of the same name is none of this node’s', async () => {
  const other = {
    node: 'web02',
    serviceId: 'web-1',
    service: 'web',
    createIndex: 99,
    address: '',
    checks: [],
  };
  const { looks } = await watch(['web'], [(now) => now.maintain('web-1', undefined)], [other]);
  expect(looks).toEqual([['by-hand web']]);
});

describe('while its gate is closed it stays in service', () => {
  const close = (now: Now) => {
    now.closed.add('web');
    now.register('web-1');
  };
  const open = (now: Now) => void now.closed.delete('web');

  test('which is said once, and tried again less and less often, until it is out', async () => {
    const { looks, pauses, out } = await watch(['web'], [close, nothing, nothing, open, nothing]);
    expect(looks).toEqual([['closed web'], [], [], ['again web-1'], []]);
    expect(pauses).toEqual([2_000, 4_000, 8_000, 16_000, 2_000, 2_000]);
    expect(out).toEqual(['web-1']);
  });

  test('and is said anew the next time', async () => {
    const { looks } = await watch(['web'], [close, open, close]);
    expect(looks).toEqual([['closed web'], ['again web-1'], ['closed web']]);
  });

  test('and asks less and less often, also where another service is out again by then', async () => {
    const both = (now: Now) => {
      close(now);
      now.register('api-1', 'api');
    };
    const { looks, pauses } = await watch(['web', 'api'], [both, nothing]);
    expect(looks).toEqual([['closed web', 'again api-1'], []]);
    expect(pauses).toEqual([2_000, 4_000, 8_000]);
  });
});
