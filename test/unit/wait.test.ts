// `runlock wait` on a clock of its own: how long conditions have held, when it is over, and what it asks meanwhile.
import { describe, expect, test } from 'vitest';
import { wait } from '../../src/commands/wait/wait.ts';
import type { WaitOptions } from '../../src/commands/wait/wait.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import type { Entry } from '../../src/consul/consul.ts';
import { encodeState } from '../../src/state/document.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { fakeConsul } from '../support/fake-consul.ts';

/** A minute before the fake clock begins. */
const SINCE = new Date(1_000_000_000_000 - 60_000).toISOString();

interface Sleeper {
  readonly atMs: number;
  readonly wake: () => void;
}

/** Time passes when all sleep: to the next that wakes. The wall clock is set by hand. */
function fakeClock() {
  const sleepers = new Set<Sleeper>();
  const clock = { monotonicMs: 0, wallMs: 1_000_000_000_000 };
  const wall = () => clock.wallMs + clock.monotonicMs;
  const deps = {
    monotonicMs: () => clock.monotonicMs,
    ...{ now: wall, earliest: wall, latest: wall },
    sleep: (ms: number, { signal }: { signal: AbortSignal }) =>
      new Promise<void>((resolve, reject) => {
        const sleeper = { atMs: clock.monotonicMs + Math.max(0, ms), wake: resolve };
        sleepers.add(sleeper);
        signal.addEventListener('abort', () => {
          sleepers.delete(sleeper);
          reject(signal.reason as Error);
        });
      }),
  };
  const step = () => {
    const [next] = [...sleepers].sort((a, b) => a.atMs - b.atMs);
    if (!next) return;
    sleepers.delete(next);
    clock.monotonicMs = Math.max(clock.monotonicMs, next.atMs);
    next.wake();
  };
  return { clock, deps, step };
}

const state = (path: string, value: string, change = value): Entry => ({
  ...{ key: `runlock/.state/${path}/.value`, createIndex: 1, modifyIndex: 1 },
  value: encodeState({ value, change, by: 'db01', at: new Date(0).toISOString() }),
});

/** Waits; `at` says what is in Consul at each look, by the milliseconds that have passed. */
async function waited(
  options: Partial<WaitOptions> & { readonly until: readonly string[] },
  at: (ms: number) => readonly Entry[],
  onLook: (clock: ReturnType<typeof fakeClock>['clock'], looks: number) => void = () => undefined,
) {
  const { clock, deps, step } = fakeClock();
  const never = new Promise<never>(() => undefined);
  const looks: number[] = [];
  const look = () => {
    looks.push(clock.monotonicMs);
    onLook(clock, looks.length);
    return at(clock.monotonicMs);
  };
  const consul = fakeConsul({
    readAll: () => Promise.resolve(look()),
    // A look at one state is a read of its key; with more, a key is read to prove that it is not there.
    get: (key, { index }) => {
      if (index !== undefined) return never;
      const entry = options.until.length === 1 ? look().find((one) => one.key === key) : undefined;
      return Promise.resolve({ entry, index: 1 });
    },
    indexOf: () => Promise.resolve({ names: [], index: 1 }),
    transact: () => Promise.resolve({ kind: 'done', entries: [] }),
    may: (rights) => Promise.resolve(rights.map(() => true)),
  });
  const { until, ...more } = options;
  const goals = until.map((text) => ({ option: 'until', condition: parseCondition(text) }) as const);
  const usual = { prefix: 'runlock', groups: ['default'], any: false, timeoutMs: 60_000, stableMs: 0 };
  const { signal } = new AbortController();
  const ended = wait(
    { consul, deps: { clock: deps } as Deps, looked: () => undefined },
    { ...usual, ...more, goals },
    signal,
  );
  const isOver = ended.then(
    () => true,
    () => true,
  );
  // All that can go on without time passing does so first.
  const settled = () => new Promise<boolean>((resolve) => setImmediate(() => resolve(false)));
  while (!(await Promise.race([isOver, settled()]))) step();
  return { result: await ended, looks, clock };
}

describe('the time of a wait', () => {
  test.each([-86_400_000, 86_400_000])(
    'runs on a clock that only moves forward: the other one is set by %i ms',
    async (jumpMs) => {
      const { result } = await waited(
        { until: ['state:a'], timeoutMs: 30_000 },
        () => [],
        (clock) => (clock.wallMs += jumpMs),
      );
      expect(result).toMatchObject({ kind: 'timed-out', waitedMs: 30_000 });
    },
  );

  test.each([-86_400_000, 86_400_000])('so does that of --stable: set by %i ms', async (jumpMs) => {
    const { result } = await waited(
      { until: ['state:a'], stableMs: 20_000 },
      () => [state('a', '1')],
      (clock) => (clock.wallMs += jumpMs),
    );
    expect(result).toMatchObject({ kind: 'met' });
    expect(result.waitedMs).toBeGreaterThanOrEqual(20_000);
    expect(result.waitedMs).toBeLessThan(21_000);
  });

  test('has passed for what is missing as well, at its end', async () => {
    const { result } = await waited({ until: ['state:a=2'], timeoutMs: 180_000 }, () => [
      { ...state('a', '1'), value: encodeState({ value: '1', change: 'c', by: 'db01', at: SINCE }) },
    ]);
    expect(result.judged[0]?.is).toBe('a is 1, set by db01 4m ago');
  });

  test('a right that was lost without a trace shows within four minutes: it looks again', async () => {
    const { looks } = await waited({ until: ['state:a'], timeoutMs: 1_000_000 }, () => []);
    expect(looks.length).toBeGreaterThanOrEqual(4);
    expect(Math.max(...looks.slice(1).map((ms, i) => ms - (looks[i] ?? 0)))).toBeLessThanOrEqual(241_000);
    // And no more often than that.
    expect(looks.length).toBeLessThanOrEqual(5);
  });
});

describe('--stable', () => {
  test('with --any is the time of one condition: others may come and go', async () => {
    let flips = 0;
    const { result } = await waited(
      { until: ['state:a', 'not:state:b'], any: true, stableMs: 20_000, timeoutMs: 600_000 },
      () => {
        flips += 1;
        // The other one is looked at again after each change, which no watch tells here: a state that ends does.
        return [state('a', '1'), ...(flips % 2 ? [state('b', String(flips))] : [])];
      },
    );
    expect(result).toMatchObject({ kind: 'met' });
    expect(result.waitedMs).toBeLessThan(21_000);
  });

  test('begins anew where a condition holds for another reason', async () => {
    const { result } = await waited({ until: ['state:a'], stableMs: 20_000, timeoutMs: 600_000 }, (ms) => [
      state('a', '1', ms < 20_000 ? 'first' : 'second'),
    ]);
    expect(result.waitedMs).toBeGreaterThanOrEqual(40_000);
  });

  test('with all is the time of the one that changed last', async () => {
    const ends = (path: string, ms: number): Entry => ({
      ...state(path, '1'),
      value: encodeState({
        ...{ value: '1', change: 'c', by: 'db01', at: new Date(0).toISOString() },
        until: new Date(1_000_000_000_000 + ms).toISOString(),
      }),
    });
    // `b` ends after 10 s (and 5 s for clocks), which makes `not:state:b` hold only then.
    const { result } = await waited(
      { until: ['state:a', 'not:state:b'], stableMs: 20_000, timeoutMs: 600_000 },
      () => [state('a', '1'), ends('b', 10_000)],
    );
    expect(result).toMatchObject({ kind: 'met' });
    expect(result.waitedMs).toBeGreaterThanOrEqual(35_000);
    expect(result.waitedMs).toBeLessThan(37_000);
  });
});
