// How often those who wait at a closed gate look, however many they are and whatever changes.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { pauseMs } from '../../src/gate/pace.ts';

const chance = fc.double({ min: 0, max: 0.999999, noNaN: true });

test('nobody looks more than once a second, nor waits for longer than twenty', () => {
  fc.assert(
    fc.property(fc.nat(100_000), chance, (waiters, random) => {
      const ms = pauseMs(waiters, random);
      expect(ms).toBeGreaterThanOrEqual(1_000);
      expect(ms).toBeLessThanOrEqual(20_000);
    }),
  );
});

test('the pause grows with those who wait, so that all look fifty times a second at most', () => {
  fc.assert(
    fc.property(fc.integer({ min: 50, max: 500 }), chance, (waiters, random) => {
      expect(waiters).toBeLessThanOrEqual(50 * (pauseMs(waiters, random) / 1_000) + 1e-9);
      expect(pauseMs(waiters + 1, random)).toBeGreaterThan(pauseMs(waiters, random) - 1e-9);
    }),
  );
});

test('two that saw the same change seldom look together again', () => {
  expect(pauseMs(100, 0)).toBe(2_000);
  expect(pauseMs(100, 0.5)).toBe(3_000);
  expect(new Set([0, 0.25, 0.5, 0.75].map((random) => pauseMs(1, random))).size).toBe(4);
});
