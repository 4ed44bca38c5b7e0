// Asking again: the pauses between tries, and what ends them.
import { describe, expect, test } from 'vitest';
import { growingMs, untilDone } from '../../src/consul/retry.ts';
import { RunlockError } from '../../src/errors.ts';
import type { Clock } from '../../src/platform/deps.ts';

const growth = { shortestMs: 1_000, longestMs: 30_000 };

test('they grow with each failure, and never beyond the longest', () => {
  const longest = Array.from({ length: 40 }, (_, failures) => growingMs(failures, growth, () => 0.999));
  expect(longest.slice(0, 5).map(Math.round)).toEqual([1_000, 1_999, 3_998, 7_996, 15_992]);
  expect(Math.max(...longest)).toBeLessThanOrEqual(30_000);
  expect(growingMs(2_000, growth, () => 0)).toBe(15_000);
});

test('they are spread: no two of a fleet need be the same', () => {
  expect(growingMs(0, growth, () => 0)).toBe(500);
  expect(growingMs(0, growth, () => 0.5)).toBe(750);
});

describe('until it is done', () => {
  const SILENT = new RunlockError('unreachable', 'no answer');
  const REFUSED = new RunlockError('forbidden', 'denied');
  const RUBBISH = new RunlockError('incompatible', 'rubbish');
  const OVER = new DOMException('over', 'TimeoutError');

  /** Tries that end so, one after the other: undefined is none. After `pauses` of them the time is over. */
  function tries(ends: readonly (string | Error | undefined)[], pauses = Infinity) {
    const over = new AbortController();
    const slept: number[] = [];
    const clock: Partial<Clock> = {
      sleep: (ms) => {
        slept.push(ms);
        if (slept.length >= pauses) over.abort(OVER);
        return over.signal.aborted ? Promise.reject(OVER) : Promise.resolve();
      },
    };
    const left = [...ends];
    const tryOnce = () => {
      const end = left.shift();
      return end instanceof Error ? Promise.reject(end) : Promise.resolve(end);
    };
    const pauseMs = () => 100 * slept.length;
    return { slept, done: untilDone(clock as Clock, { signal: over.signal, pauseMs }, tryOnce) };
  }

  test('it is tried again where nothing came of it, and after what is worth it', async () => {
    const { slept, done } = tries([undefined, SILENT, REFUSED, undefined, 'done']);
    expect(await done).toBe('done');
    expect(slept).toEqual([0, 100, 200, 300]);
  });

  test('what is not worth it ends it at once', async () => {
    const { slept, done } = tries([SILENT, RUBBISH, 'done']);
    await expect(done).rejects.toBe(RUBBISH);
    expect(slept).toHaveLength(1);
  });

  test('once the time is over it says what was met last, also where nothing was met since', async () => {
    await expect(tries([SILENT, REFUSED, undefined], 3).done).rejects.toBe(REFUSED);
    await expect(tries([undefined, undefined], 2).done).rejects.toBe(OVER);
  });

  test('a try that the end of the time has ended says nothing of its own', async () => {
    const over = new AbortController();
    const ends = [SILENT, OVER];
    const tryOnce = () => {
      if (ends.length === 1) over.abort(OVER);
      return Promise.reject(ends.shift() ?? OVER);
    };
    const clock: Partial<Clock> = { sleep: () => Promise.resolve() };
    const options = { signal: over.signal, pauseMs: () => 0 };
    await expect(untilDone(clock as Clock, options, tryOnce)).rejects.toBe(SILENT);
  });
});
