// Pauses between tries.
import { expect, test } from 'vitest';
import { growingMs } from '../../src/consul/retry.ts';

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
