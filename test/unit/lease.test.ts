import { describe, expect, test } from 'vitest';
import { keptClaim } from '../../src/lock/run-record.ts';
import { deadAfterMs } from '../../src/lock/lease-state.ts';
import type { Claim, Hold, Outcome, RunRecord } from '../../src/lock/records.ts';
import { CLOCK_DIFFERENCE_MS, VANISHED_AFTER_MS } from '../../src/lock/decide.ts';

const now = Date.UTC(2026, 2, 1, 12);
const hour = 3_600_000;
const at = (ms: number) => new Date(ms).toISOString();

describe('after its last proof a run must be dead', () => {
  test('never, with hold forever: nobody follows', () => {
    expect(deadAfterMs('forever')).toBe(Infinity);
  });

  // It was 2 s: now that others go by the clock of whoever saw first that its lock is gone, hosts' clocks count here too.
  test('7 s before anybody can be granted the slot, with hold none', () => {
    expect(deadAfterMs('none')).toBe(53_000);
  });

  test.each([
    [1, 53_001],
    [10 * 60_000, 653_000],
    [hour, 3_653_000],
  ])('7 s before 60 s and a hold of %d ms have passed', (hold, ms) => {
    expect(deadAfterMs(hold)).toBe(ms);
  });

  test('always before others may follow, even when the clocks differ', () => {
    expect(deadAfterMs('none')).toBeLessThan(VANISHED_AFTER_MS - CLOCK_DIFFERENCE_MS);
    for (const hold of [1, 1_000, hour])
      expect(deadAfterMs(hold)).toBeLessThan(VANISHED_AFTER_MS + hold - CLOCK_DIFFERENCE_MS);
  });
});

describe('the claim after a run', () => {
  const claim = (hold: Hold): Claim => ({
    ...{ node: 'web01', state: 'running', run: 'r1', since: at(now - hour), command: 'chef-client', hold },
    ...{ pid: 4711, startTime: '1', bootId: 'b' },
  });
  const record = (outcome: Outcome, exitCode?: number): RunRecord => ({
    ...{ node: 'web01', run: 'r1', outcome, command: 'chef-client', slot: 0, endedAt: at(now) },
    ...{ waitedMs: 0, ranMs: 1, ...(exitCode !== undefined && { exitCode }) },
  });
  const holds: Hold[] = ['forever', 'none', hour];

  describe.each(['succeeded', 'evicted'] as const)('that %s', (outcome) => {
    test.each(holds)('goes, with hold %s', (hold) => {
      expect(keptClaim(claim(hold), record(outcome, 0), now)).toBeUndefined();
    });
  });

  describe.each(['failed', 'timed-out', 'lost'] as const)('that %s', (outcome) => {
    test('keeps others out for good, with hold forever', () => {
      const kept = { ...claim('forever'), state: 'failed', since: at(now), exitCode: 1 };
      expect(keptClaim(claim('forever'), record(outcome, 1), now)).toEqual(kept);
    });

    test('keeps others out until the hold has passed', () => {
      const kept = { ...claim(hour), state: 'failed', since: at(now), heldUntil: at(now + hour) };
      expect(keptClaim(claim(hour), record(outcome), now)).toEqual(kept);
    });

    test('goes, with hold none', () => {
      expect(keptClaim(claim('none'), record(outcome, 1), now)).toBeUndefined();
    });
  });

  test.each<[Hold, object]>([
    ['forever', {}],
    [hour, { heldUntil: at(now + hour) }],
  ])('that a signal ended stays, with hold %s', (hold, until) => {
    const kept = { ...claim(hold), state: 'interrupted', since: at(now), exitCode: 143, ...until };
    expect(keptClaim(claim(hold), record('interrupted', 143), now)).toEqual(kept);
  });

  test('that a signal ended goes, with hold none', () => {
    expect(keptClaim(claim('none'), record('interrupted', 143), now)).toBeUndefined();
  });

  test.each<[Hold, object]>([
    ['forever', {}],
    [hour, { heldUntil: at(now + hour) }],
  ])('that will reboot stays, with hold %s', (hold, until) => {
    const kept = { ...claim(hold), state: 'rebooting', since: at(now), exitCode: 35, ...until };
    expect(keptClaim(claim(hold), record('rebooting', 35), now)).toEqual(kept);
  });

  test('that will reboot goes, with hold none: nothing would ever end it', () => {
    expect(keptClaim(claim('none'), record('rebooting', 35), now)).toBeUndefined();
  });
});
