// What a session asks of Consul, and for how long: against a Consul that notes what it is asked, on a clock that stands.
import { expect, test } from 'vitest';
import type { CallOptions } from '../../src/consul/consul.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { RunlockError } from '../../src/errors.ts';
import { leastTtlMs, openSession } from '../../src/consul/session.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const { signal } = new AbortController();

/** A session, the deadline of each request that it has sent, and what lets the time between two renewals pass. */
async function open(ttlMs: number) {
  const deadlines: [call: string, timeoutMs: number | undefined][] = [];
  const note = (call: string, { timeoutMs }: CallOptions) => void deadlines.push([call, timeoutMs]);
  let wake = (): void => undefined;
  let asleep = (): void => undefined;
  const sleeps = () => new Promise<void>((resolve) => (asleep = resolve));
  const first = sleeps();
  const consul = fakeConsul({
    renewSession: (_: string, options: CallOptions) => (note('renew', options), Promise.resolve(true)),
    destroySession: (_: string, options: CallOptions) => (note('destroy', options), Promise.resolve()),
  });
  const clock = {
    ...{ now: () => 0, monotonicMs: () => 0, earliest: () => 0, latest: () => 0 },
    sleep: () => {
      asleep();
      return new Promise<void>((resolve) => (wake = resolve));
    },
  };
  const deps = { clock, random: () => 0.5, emit: () => undefined } as Partial<Deps> as Deps;
  const session = await openSession({ consul, deps }, { name: 'runlock', ttlMs, signal });
  await first;
  return {
    session,
    deadlines,
    renew: async () => {
      const next = sleeps();
      wake();
      await next;
    },
  };
}

test.each([
  [10_000, 10_000 / 3],
  [30_000, 5_000],
  [3_600_000, 5_000],
])(
  'TTL of %d ms: a renewal’s or the end’s answer is waited for a few seconds at most',
  async (ttlMs, renewMs) => {
    const { session, deadlines, renew } = await open(ttlMs);
    await renew();
    await session.close({ signal });
    expect(deadlines).toEqual([
      ['renew', renewMs],
      ['destroy', 5_000],
    ]);
  },
);

const asked = { id: 's', node: 'web01', ttl: '30s', behavior: 'delete', lockDelayMs: 0, checks: [] };

test.each([
  [{ ttl: '' }, /TTL ''/],
  [{ ttl: '60s' }, /TTL '60s'/],
  [{ behavior: 'release' }, /behaviour 'release'/],
  [{ lockDelayMs: 15_000 }, /lock-delay 15000 ms/],
  [{ checks: ['serfHealth'] }, /1 checks/],
])('a session that is made as %j instead is refused, and ended at once', async (other, says) => {
  const order: string[] = [];
  const consul = fakeConsul({
    readSession: () => Promise.resolve({ ...asked, ...other }),
    destroySession: (id: string) => (order.push(`destroy ${id}`), Promise.resolve()),
  });
  const clock = { monotonicMs: () => 0, sleep: () => new Promise(() => undefined) };
  const deps = { clock, emit: () => undefined } as unknown as Deps;
  const opening = openSession({ consul, deps }, { name: 'runlock', ttlMs: 30_000, signal });
  await expect(opening).rejects.toMatchObject({
    code: 'not-consul',
    message: expect.stringMatching(says) as string,
  });
  expect(order).toEqual(['destroy s']);
});

test.each([
  ["Invalid Session TTL '10000000000', must be between [15s=24h0m0s]", 15_000],
  ["rpc error making call: Invalid Session TTL '1', must be between [1m30s=24h0m0s]", 90_000],
  ["Invalid Session TTL '1', must be between [1h0m0s=24h0m0s]", 3_600_000],
  ["Invalid Session TTL '1', must be between [10.5s=24h0m0s]", 11_000],
  ['Invalid Behavior', undefined],
])('the shortest TTL that Consul takes: %s', (message, leastMs) => {
  expect(leastTtlMs(message)).toBe(leastMs);
});

test('a renewal without an answer is sent less and less often, and soon again after an answer', async () => {
  const pauses: number[] = [];
  const over = new AbortController();
  let tries = 0;
  const done = new Promise<void>((resolve) => over.signal.addEventListener('abort', () => resolve()));
  const consul = fakeConsul({
    renewSession: () => {
      tries++;
      if (tries === 9) over.abort();
      return tries === 6
        ? Promise.resolve(true)
        : Promise.reject(new RunlockError('unreachable', 'no answer'));
    },
  });
  const clock = {
    ...{ now: () => 0, monotonicMs: () => 0, earliest: () => 0, latest: () => 0 },
    sleep: (ms: number) => {
      pauses.push(ms);
      return over.signal.aborted ? new Promise<void>(() => undefined) : Promise.resolve();
    },
  };
  const deps = { clock, random: () => 0, emit: () => undefined } as Partial<Deps> as Deps;
  await openSession({ consul, deps }, { name: 'runlock', ttlMs: 30_000, signal });
  await done;
  // The first, and that after a good one, are a third of the TTL.
  expect(pauses.slice(0, 9)).toEqual([10_000, 500, 1_000, 2_000, 2_500, 2_500, 10_000, 500, 1_000]);
});
