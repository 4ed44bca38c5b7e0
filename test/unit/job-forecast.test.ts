// What the nodes of a job would wait for, and when their turn would come, by what stands in Consul now.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { forecast, typicalOf } from '../../src/view/forecast.ts';
import type { ForecastTarget, Forecasting } from '../../src/view/forecast.ts';
import type { GroupView, SlotView } from '../../src/view/report.ts';

const NOW = Date.parse('2026-03-01T12:00:00Z');
const MINUTE = 60_000;
const ago = (ms: number) => new Date(NOW - ms).toISOString();
const group = (more: Partial<GroupView> = {}): GroupView => ({
  ...{ group: 'g', known: true, state: 'idle', slots: [], queue: [], problems: [], why: 'w' },
  ...more,
});
const slot = (more: Partial<SlotView>): SlotView => ({ slot: 0, state: 'running', alive: true, ...more });
const waiter = {
  place: 1,
  node: 'x',
  run: 'r',
  since: ago(0),
  waitedMs: 0,
  command: 'c',
  pid: 1,
  session: 's',
};
const target = (node: string, more: Partial<ForecastTarget> = {}): ForecastTarget => ({
  ...{ node, stage: 0, groups: ['g'], slots: 1, delayMs: 0, noop: false },
  ...more,
});
const told = (targets: readonly ForecastTarget[], view = group(), more: Partial<Forecasting> = {}) =>
  forecast({
    ...{ targets, groups: new Map([['g', view]]), typicalMs: new Map([['g', 2 * MINUTE]]) },
    ...{ pauseMs: 0, nowMs: NOW },
    ...more,
  }).map(({ node, startsInMs, ahead, waits }) =>
    waits.length > 0 ? `${node} ${waits.join()}` : `${node} ${startsInMs ?? '?'} after ${ahead}`,
  );

describe('the turn of a node', () => {
  test('comes after those before it, a typical run each', () => {
    expect(told([target('a'), target('b'), target('c')])).toEqual([
      'a 0 after 0',
      'b 120000 after 1',
      'c 240000 after 2',
    ]);
    const two = ['a', 'b', 'c'].map((node) => target(node, { slots: 2 }));
    expect(told(two)).toEqual(['a 0 after 0', 'b 0 after 0', 'c 120000 after 2']);
  });

  test('comes after what runs and waits there now', () => {
    const busy = group({
      state: 'waiting',
      slots: [slot({ node: 'y', since: ago(MINUTE) })],
      queue: [waiter],
    });
    expect(told([target('a')], busy)).toEqual(['a 180000 after 1']);
    // A run that takes longer than usual may end at any moment.
    const late = group({ slots: [slot({ node: 'y', since: ago(9 * MINUTE) })] });
    expect(told([target('a')], late)).toEqual(['a 0 after 0']);
  });

  test('comes with its stage: when the one before has ended, after the pause; and with its splay', () => {
    const staged = [
      target('a'),
      target('b', { stage: 1, slots: 9 }),
      target('c', { stage: 1, slots: 9, delayMs: 7 }),
    ];
    expect(
      told(
        staged.map((each) => ({ ...each, slots: 9 })),
        group(),
        { pauseMs: MINUTE },
      ),
    ).toEqual(['a 0 after 0', 'b 180000 after 1', 'c 180007 after 2']);
  });

  test('waits for the limit of the job, too', () => {
    const three = ['a', 'b', 'c'].map((node) => target(node, { slots: 9 }));
    expect(told(three, group(), { maxRunning: 2 })).toEqual([
      'a 0 after 0',
      'b 0 after 0',
      'c 120000 after 2',
    ]);
  });

  test('is unknown behind others while no run is recorded', () => {
    expect(told([target('a'), target('b')], group(), { typicalMs: new Map() })).toEqual([
      'a 0 after 0',
      'b ? after 1',
    ]);
  });

  test('never comes while the group is frozen, or blocked by a claim of another node', () => {
    const freeze = { at: '/g', by: 'ann', reason: 'upgrade', since: ago(0) };
    expect(told([target('a')], group({ state: 'frozen', frozen: freeze }))).toEqual([
      'a g is frozen by ann (upgrade)',
    ]);
    const kept = group({ state: 'blocked', slots: [slot({ state: 'failed', alive: false, node: 'b' })] });
    expect(told([target('a'), target('b')], kept)).toEqual(['a g is blocked: w', 'b 0 after 0']);
    expect(told([target('a', { noop: true })], kept)).toEqual(['a 0 after 0']);
  });
});

test('no more nodes are under way at a time than slots and the limit allow', () => {
  const jobs = fc.record({
    slots: fc.integer({ min: 1, max: 4 }),
    limit: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }),
    stages: fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 20 }),
  });
  fc.assert(
    fc.property(jobs, ({ slots, limit, stages }) => {
      const targets = [...stages].sort().map((stage, i) => target(`n${i}`, { stage, slots }));
      const found = forecast({
        ...{ targets, groups: new Map([['g', group()]]), typicalMs: new Map([['g', 100]]) },
        ...{ maxRunning: limit, pauseMs: 5, nowMs: NOW },
      });
      const starts = found.map(({ startsInMs = NaN }) => startsInMs);
      for (const at of starts) {
        const under = starts.filter((start) => start <= at && at < start + 100).length;
        expect(under).toBeLessThanOrEqual(Math.min(slots, limit ?? Infinity));
      }
      targets.forEach(({ stage }, i) =>
        targets.forEach((other, j) => {
          if (other.stage < stage) expect(starts[i]).toBeGreaterThanOrEqual((starts[j] ?? NaN) + 105);
        }),
      );
    }),
  );
});

test('what is typical is the middle of the good runs', () => {
  expect(typicalOf([])).toBeUndefined();
  expect([typicalOf([5]), typicalOf([9, 1, 2]), typicalOf([4, 1, 2, 100])]).toEqual([5, 2, 2]);
});
