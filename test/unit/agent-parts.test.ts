// The parts of an agent: each tries again by itself, and none ends another.
import { expect, test } from 'vitest';
import { keepRunning } from '../../src/agent/parts.ts';
import type { RunEvent } from '../../src/events/events.ts';
import type { Deps } from '../../src/platform/deps.ts';

function setUp() {
  const events: RunEvent[] = [];
  const told: (string | undefined)[] = [];
  const slept: number[] = [];
  let nowMs = 0;
  const clock = {
    now: () => nowMs,
    monotonicMs: () => nowMs,
    earliest: () => nowMs,
    latest: () => nowMs,
    sleep: (ms: number, { signal }: { signal: AbortSignal }) => {
      slept.push(ms);
      nowMs += ms;
      signal.throwIfAborted();
      return Promise.resolve();
    },
  };
  const deps = { clock, random: () => 1, emit: (event: RunEvent) => events.push(event) } as unknown as Deps;
  const failing = (_: string, fault: string | undefined) => told.push(fault);
  return { events, told, slept, effects: { deps, failing }, works: (ms: number) => (nowMs += ms) };
}

test('it tries again after growing pauses, at most a minute, and says why', async () => {
  const { effects, slept, told, events } = setUp();
  const over = new AbortController();
  let tries = 0;
  const run = () => {
    tries += 1;
    if (tries < 10) return Promise.reject(new Error(`fault ${tries}`));
    over.abort();
    return Promise.resolve();
  };
  await keepRunning(effects, { name: 'requests', run }, over.signal);
  expect(slept).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60].map((s) => s * 1_000));
  expect(told.slice(0, 3)).toEqual(['fault 1', undefined, 'fault 2']);
  expect(events[0]).toMatchObject({
    event: 'agent-part-failed',
    part: 'requests',
    detail: { fault: 'fault 1' },
  });
  expect(events).toHaveLength(9);
});

test('one that worked for a while begins with the shortest pause again', async () => {
  const { effects, slept, works } = setUp();
  const over = new AbortController();
  let tries = 0;
  const run = () => {
    tries += 1;
    if (tries === 4) works(120_001);
    if (tries === 6) over.abort();
    return Promise.reject(new Error('no'));
  };
  await keepRunning(effects, { name: 'x', run }, over.signal);
  expect(slept).toEqual([1_000, 2_000, 4_000, 1_000, 2_000]);
});

test('one that ends by itself has failed; the end of all is no failure', async () => {
  const { effects, events } = setUp();
  const over = new AbortController();
  let tries = 0;
  const run = () => {
    tries += 1;
    if (tries === 1) return Promise.resolve();
    over.abort(new Error('over'));
    return Promise.reject(over.signal.reason as Error);
  };
  await keepRunning(effects, { name: 'x', run }, over.signal);
  expect(events).toMatchObject([{ detail: { fault: 'it ended by itself' } }]);
});
