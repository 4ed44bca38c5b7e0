// How a call to Consul is tried again: against a Consul that gives no answer, on timers that the test moves.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { FIRST_CONTACT } from '../../src/consul/consul.ts';
import { caller } from '../../src/consul/request.ts';
import type { RetryOptions } from '../../src/consul/request.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const REFUSED = Object.assign(new Error('refused'), { code: 'ECONNREFUSED' });
const LEADERLESS = Object.assign(new Error('leaderless'), {
  response: { complete: true, statusCode: 500, headers: {}, body: 'No cluster leader' },
});

/** A call that fails so for five minutes: when each try was sent, and how long it might take, in milliseconds. */
async function call(error: Error, options: Omit<RetryOptions, 'signal'> = {}) {
  const tries: { atMs: number; timeoutMs: number }[] = [];
  const clock = { now: () => Date.now(), monotonicMs: () => Date.now(), sleep: () => Promise.resolve() };
  const trouble = {
    ...{ seen: () => undefined, remember: () => undefined, left: () => undefined },
    ...{ over: () => undefined, now: () => undefined },
  };
  const token = { now: () => undefined, reread: () => undefined, replaced: () => Promise.resolve(false) };
  const stop = new AbortController();
  const startedMs = Date.now();
  const calling = caller('consul', { clock, trouble, token })(
    { ...options, kind: 'a', signal: stop.signal },
    ({ timeout }) => {
      tries.push({ atMs: Date.now() - startedMs, timeoutMs: timeout });
      return Promise.reject(error);
    },
  );
  calling.catch(() => undefined);
  await vi.advanceTimersByTimeAsync(300_000);
  stop.abort(new Error('enough'));
  await calling.catch(() => undefined);
  return tries;
}

const lastOf = (tries: Awaited<ReturnType<typeof call>>): number => tries.at(-1)?.atMs ?? NaN;

/** The pauses between the tries, with this chance. */
async function pauses(chance: number): Promise<number[]> {
  vi.spyOn(Math, 'random').mockReturnValue(chance);
  const tries = await call(REFUSED);
  return tries.slice(1).map(({ atMs }, i) => atMs - (tries[i]?.atMs ?? 0));
}

describe('what nobody answers', () => {
  test.each([0, 0.5, 0.999])(
    'is asked ever more seldom, and every five seconds after any time (chance %d)',
    async (chance) => {
      const all = await pauses(chance);
      expect(all[0]).toBeLessThan(500);
      expect(all).toEqual([...all].sort((a, b) => a - b));
      expect(all.at(-1)).toBe(5_000);
    },
  );

  test('is not asked again by many at one moment, though they lost their answers at one moment', async () => {
    const [early = NaN] = await pauses(0);
    const [late = NaN] = await pauses(0.999);
    expect(late - early).toBeGreaterThan(50);
  });

  test('is given up after ten seconds, each time, unless a call says otherwise', async () => {
    expect(new Set((await call(REFUSED)).map(({ timeoutMs }) => timeoutMs))).toEqual(new Set([10_000]));
    expect((await call(REFUSED, { timeoutMs: 0.5, retryForMs: 0 }))[0]?.timeoutMs).toBe(1);
  });
});

test('the first contact waits for an election, and not for an agent that nobody started', async () => {
  // Elections took up to 17.5 s; a pause can be 5 s.
  expect(lastOf(await call(LEADERLESS, FIRST_CONTACT))).toBeGreaterThan(25_000);
  expect(lastOf(await call(REFUSED, FIRST_CONTACT))).toBeLessThan(8_000);
});
