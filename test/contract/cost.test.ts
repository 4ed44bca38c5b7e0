// Promise 7: requests and bytes per run do not grow with the number of waiters.
import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test } from 'vitest';
import type { Emit } from '../../src/events/events.ts';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { acquire } from '../../src/lock/acquire.ts';
import { giveBack } from '../../src/lock/release.ts';
import { startAgent } from '../support/consul.ts';
import { startProxy } from '../support/proxy.ts';

const self = { pid: process.pid, startTime: '1', bootId: 'boot' };
const deps: Deps = {
  clock,
  random: Math.random,
  host: {
    self: () => self,
    bootId: self.bootId,
    startTime: () => self.startTime,
    hidden: () => false,
    place: () => Promise.resolve({ host: 'h' }),
    survivors: () => ({ pids: [], guarded: false }),
  },
  emit: () => undefined,
};

interface Cost {
  readonly requests: number;
  readonly bytes: number;
  readonly order: readonly number[];
}

/** `waiters` runs, all waiting at once behind a holder, then granted one after the other. */
async function queueUp(waiters: number): Promise<Cost> {
  await using agent = await startAgent({ config: { limits: { http_max_conns_per_client: 1000 } } });
  await using proxy = await startProxy(agent);
  const consul = connect(consulSettings(proxy.env), { clock, emit: deps.emit });
  onTestFinished(() => consul.close());
  const { signal } = new AbortController();
  const order: number[] = [];
  const start = (number: number, joined: () => void) => {
    const run = { id: randomUUID(), command: 'true', runner: self, hold: 'forever', slots: 1 } as const;
    const request = {
      prefix: 'runlock',
      group: 'prod/web',
      node: `web${number}`,
      run,
      ttlMs: 600_000,
    };
    const emit: Emit = ({ event }) => {
      if (event === 'queued') joined();
    };
    const waiting = { signal, patience: signal, either: signal };
    return acquire({ consul, deps: { ...deps, emit } }, request, waiting);
  };
  const finish = async (acquired: Awaited<ReturnType<typeof start>>, number: number) => {
    if (acquired.kind !== 'granted') throw new Error('not granted');
    order.push(number);
    const ending = { outcome: 'succeeded', exitCode: 0, waitedMs: 0, ranMs: 0, ttlMs: 600_000 } as const;
    expect(await giveBack(acquired.grant, ending)).toEqual({ kind: 'released' });
  };
  const holder = await start(0, () => undefined);
  const before = proxy.counts();
  const runs: Promise<void>[] = [];
  for (let number = 1; number <= waiters; number++) {
    await new Promise<void>((joined) =>
      runs.push(start(number, joined).then((acquired) => finish(acquired, number))),
    );
  }
  await finish(holder, 0);
  await Promise.all(runs);
  const after = proxy.counts();
  return {
    requests: (after.requests - before.requests) / waiters,
    bytes: (after.bytesIn + after.bytesOut - before.bytesIn - before.bytesOut) / waiters,
    order,
  };
}

test('a run costs the same requests and bytes whether 10 or 80 wait, and all are served in order', async () => {
  const few = await queueUp(10);
  const many = await queueUp(80);
  expect(few.order).toEqual(Array.from({ length: 11 }, (_, index) => index));
  expect(many.order).toEqual(Array.from({ length: 81 }, (_, index) => index));
  expect(few.requests).toBeLessThanOrEqual(12);
  expect(many.requests).toBeLessThanOrEqual(12);
  expect(many.requests / few.requests).toBeLessThan(1.1);
  expect(many.bytes / few.bytes).toBeLessThan(1.1);
});
