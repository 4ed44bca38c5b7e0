// How long a run waits for its node's turn, and for what a dead run has left.
import { expect, test } from 'vitest';
import type { Consul } from '../../src/consul/consul.ts';
import type { RunEvent } from '../../src/events/events.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import { startWaiting } from '../../src/platform/deps.ts';
import type { Deps } from '../../src/platform/deps.ts';
import type { TurnLook } from '../../src/process/turn.ts';
import { waitForTurn } from '../../src/runner/turn-wait.ts';

const by = {
  ...{ run: 'r1', pid: 7, startTime: '1', bootId: 'b', command: 'sleep', groups: ['prod/db'] },
  since: '1970-01-01T00:00:00.000Z',
};
const HELD: TurnLook = { kind: 'held', by };
const LEFT: TurnLook = { kind: 'left-over', by, pids: [8, 9] };
const BUSY = { kind: 'turn', pid: 7, command: 'sleep', groups: ['prod/db'], since: by.since };

/** `looks` by the second; the last one stays. */
function setUp(looks: readonly TurnLook[]) {
  let nowMs = 0;
  const said: RunEvent[] = [];
  const left: number[] = [];
  const sleepers: { atMs: number; wake: () => void }[] = [];
  const clock = {
    ...{ now: () => nowMs, monotonicMs: () => nowMs, earliest: () => nowMs, latest: () => nowMs },
    sleep: (ms: number, { signal }: { signal: AbortSignal }) =>
      new Promise<void>((resolve, reject) => {
        const end = () => reject(signal.reason as Error);
        if (signal.aborted) {
          end();
          return;
        }
        signal.addEventListener('abort', end);
        sleepers.push({ atMs: nowMs + ms, wake: resolve });
      }),
  };
  const deps = {
    clock,
    random: () => 0,
    emit: (event: RunEvent) => void said.push(event),
  } as unknown as Deps;
  const turn = {
    look: () => looks[Math.min(looks.length - 1, Math.floor(nowMs / 1_000))] ?? HELD,
    ...{ folder: () => undefined, lend: () => undefined, outOfQueue: () => undefined },
    leave: () => void left.push(nowMs),
  };
  const consul = new Proxy({}, { get: () => () => new Promise(() => undefined) }) as Consul;
  const of = { prefix: 'runlock', groups: ['prod/web'], run: 'r2', sessionTtlMs: 30_000, command: 'true' };
  const stop = new AbortController();
  /** Lets the time pass, from one sleeper to the next, until the wait has ended. */
  const wait = async (limitMs: number | 'forever', leftQueue = false) => {
    const waiting = startWaiting(clock, limitMs, stop.signal);
    const over = new AbortController();
    const later = () => undefined;
    const waited = waitForTurn({ consul, turn, node: 'web01', of, leftQueue, later }, deps, waiting);
    void waited.catch(() => undefined).finally(() => over.abort());
    for (;;) {
      for (let turns = 0; turns < 20; turns++) await Promise.resolve();
      if (over.signal.aborted) return waited;
      const next = sleepers.sort((a, b) => a.atMs - b.atMs).shift();
      if (!next) throw new Error('nobody sleeps');
      nowMs = Math.max(nowMs, next.atMs);
      next.wake();
    }
  };
  return {
    wait,
    said: () => said.map(({ event }) => event),
    events: () => said,
    left,
    stop,
    nowMs: () => nowMs,
  };
}

test('it waits until the turn is its own, and says so once', async () => {
  const { wait, said, left } = setUp([HELD, HELD, HELD, { kind: 'mine' }]);
  expect(await wait('forever')).toBeUndefined();
  expect(said()).toEqual(['turn-waits']);
  expect(left).toEqual([]);
});

test('a run that has left a queue for it says that as well', async () => {
  const { wait, events } = setUp([HELD, HELD, { kind: 'mine' }]);
  await wait('forever', true);
  expect(events()).toMatchObject([{ event: 'turn-waits', leftQueue: true }]);
  expect(events().map((event) => sentenceOf(event).message)).toEqual([
    'left the queue of prod/web, and queues again later: web01 is already running or queued in prod/db (pid 7, sleep, for 0s)',
  ]);
});

test('a wait that is shorter than the eye can see is not said', async () => {
  const { wait, said } = setUp([{ kind: 'mine' }]);
  expect(await wait('forever')).toBeUndefined();
  expect(said()).toEqual([]);
});

test('when patience ends it leaves the line, and names who has the turn', async () => {
  const { wait, left, nowMs } = setUp([HELD]);
  expect(await wait(5_000)).toEqual(BUSY);
  expect(left).toHaveLength(1);
  expect(nowMs()).toBe(5_000);
});

test('without patience it does not wait at all', async () => {
  const { wait, nowMs } = setUp([HELD]);
  expect(await wait(0)).toEqual(BUSY);
  expect(nowMs()).toBe(0);
});

test.each([0, 'forever'] as const)('what a dead run left has 10 s to end, with --wait %s', async (limit) => {
  const { wait, nowMs } = setUp([LEFT]);
  expect(await wait(limit)).toEqual({ ...BUSY, left: { pids: [8, 9] } });
  expect(nowMs()).toBeGreaterThanOrEqual(10_000);
  expect(nowMs()).toBeLessThan(12_000);
});

test('what a dead run left, and has ended in time, keeps nobody out', async () => {
  const { wait } = setUp([LEFT, LEFT, { kind: 'mine' }]);
  expect(await wait(0)).toBeUndefined();
});

test('a signal ends the wait with its reason', async () => {
  const { wait, stop } = setUp([HELD]);
  const waited = wait('forever');
  stop.abort(new Error('told to stop'));
  await expect(waited).rejects.toThrow('told to stop');
});
