// The benchmark's arithmetic, and how it writes figures down.
import { expect, test } from 'vitest';
import { ticksOf, toScale } from '../../scripts/bench/axis.ts';
import { figure, tables } from '../../scripts/bench/markdown.ts';
import { inTurns, median, pairsOf, pairsOutOfOrder, percentile } from '../../scripts/bench/pairs.ts';
import { atMost } from '../../scripts/bench/report.ts';
import { draw } from '../../scripts/bench/svg.ts';

test('turns are taken one after the other, never all of one first', async () => {
  const order: string[] = [];
  const results = await inTurns(['a', 'b'], 2, (name, round) =>
    Promise.resolve(order.push(`${name}${round}`)),
  );
  expect(order).toEqual(['a0', 'b0', 'a1', 'b1']);
  expect(results).toEqual({ a: [1, 3], b: [2, 4] });
});

test('the median is the one in the middle, or between the two in the middle', () => {
  expect(median([9, 1, 5])).toBe(5);
  expect(median([9, 1, 5, 3])).toBe(4);
  expect(() => median([])).toThrow('nothing was measured');
});

test('a percentile is the least value that so many do not exceed', () => {
  const values = Array.from({ length: 20 }, (_, i) => 20 - i);
  expect(percentile(values, 0.95)).toBe(19);
  expect(percentile(values, 1)).toBe(20);
  expect(percentile([7], 0.01)).toBe(7);
});

test('pairs out of order are counted, up to all of them', () => {
  expect(pairsOutOfOrder([1, 2, 3, 4])).toBe(0);
  expect(pairsOutOfOrder([2, 1, 3, 4])).toBe(1);
  expect(pairsOutOfOrder([4, 3, 2, 1])).toBe(pairsOf(4));
});

test('a target is met up to the very multiple', () => {
  expect(atMost(0.5, 'flock', { runlock: 5, others: { flock: 10 } })).toEqual({
    text: 'at most 0.5 × flock',
    met: true,
  });
  expect(atMost(0.5, 'flock', { runlock: 5.1, others: { flock: 10 } }).met).toBe(false);
});

test('figures have three digits that count and no exponent', () => {
  expect([0, 7, 1234567, 12.345, 0.012345, 123.45].map(figure)).toEqual([
    '0',
    '7',
    '1,234,567',
    '12.3',
    '0.0123',
    '123',
  ]);
});

test('a table has each other’s ratio, empty cells for the unmeasured, and what was reached', () => {
  const row = { section: 'S', unit: 'ms' };
  const text = tables([
    {
      how: 'Thus.',
      raw: {},
      rows: [
        { ...row, what: 'a', runlock: 5, others: { x: 10 }, reach: { text: 'most', met: true } },
        {
          ...row,
          what: 'b',
          runlock: 6,
          others: { x: 4, y: 0 },
          reach: { text: 'most', met: false },
          note: 'N.',
        },
      ],
    },
  ]);
  expect(text.split('\n')).toEqual([
    '## S',
    '',
    'Thus.',
    '',
    '|  | runlock | x | runlock / x | y | runlock / y | to reach |',
    '| --- | ---: | ---: | ---: | ---: | ---: | --- |',
    '| a | 5 ms | 10 ms | 0.5 |  |  | most: reached |',
    '| b | 6 ms | 4 ms | 1.5 | 0 ms |  | most: **not reached** |',
    '',
    'b: N.',
    '',
  ]);
});

test('an axis has round ends around the figures and keeps their order', () => {
  const log = { label: '', log: true };
  expect(ticksOf({ ...log, chosen: true }, [20, 300, 300])).toEqual([20, 300]);
  expect(ticksOf(log, [3, 90])).toEqual([2, 5, 10, 20, 50, 100]);
  const scale = toScale(log, [1, 10, 100], [0, 200]);
  expect([1, 10, 100].map(scale)).toEqual([0, 100, 200]);
  expect(ticksOf({ label: '', log: false }, [3, 100])).toEqual([0, 25, 50, 75, 100]);
});

test('the picture has a line with every point for each series, and their names', () => {
  const svg = draw([
    {
      chart: 'hand-over',
      name: 'a & b',
      points: [
        [1, 2],
        [50, 20],
        [100, 200],
      ],
    },
    {
      chart: 'requests',
      name: 'c',
      points: [
        [20, 7],
        [3000, 7],
      ],
    },
  ]);
  const lines = [...svg.matchAll(/<polyline [^>]*points="([^"]*)"/g)].map(([, points = '']) =>
    points.split(' '),
  );
  expect(lines.map((points) => points.length)).toEqual([3, 2]);
  expect(lines.flat().every((point) => /^\d+\.\d,\d+\.\d$/.test(point))).toBe(true);
  expect(svg).toContain('a &amp; b');
  expect(svg).toContain('prefers-color-scheme: dark');
});
