// Every state of small jobs, with a fault of each kind at any moment; and what breaks where a check is left out.
import { readFileSync } from 'node:fs';
import { describe, expect, test, vi } from 'vitest';
import { checksOf } from './checks.ts';
import { configurations, toWorld } from './configurations.ts';
import type { Shape } from './configurations.ts';
import { explore } from './explore.ts';
import {
  CHANGES_HEAD,
  CHANGE_ROWS,
  ROWS,
  TABLE_HEAD,
  changeText,
  rowText,
  tryChange,
  tryRow,
} from './table.ts';
import { CHANGES } from './world.ts';

/** Seconds on a machine of its own; a busy one may take its time. */
vi.setConfig({ testTimeout: 600_000 });

const all: [string, Shape][] = Object.entries(configurations);

describe('in every state that a job can reach the promises are kept, and it ends', () => {
  test.each(all)('%s', (_, shape) => {
    const { outcome, ends } = explore(toWorld(shape));
    expect(outcome).toEqual({ kind: 'kept' });
    expect(ends).toBeGreaterThan(0);
  });
});

test('a broken promise comes with what led to it', () => {
  const { outcome } = explore({ ...toWorld({ stages: [1] }), change: 'pointer goes with accept' });
  expect(outcome).toEqual({
    ...{ kind: 'broken', promise: 'promise 6: a target has neither a pointer nor a final state' },
    trace: ['target 0: accept'],
  });
});

test('an exploration that is cut short promises nothing', () => {
  expect(explore(toWorld(configurations.others), { maxStates: 10 }).outcome).toEqual({ kind: 'unfinished' });
});

test('the table names every check that is sent', () => {
  const named = ROWS.flatMap(({ names, checks }) =>
    names.flatMap((tx) => checks.map((check) => `${tx}: ${check}`)),
  );
  const found = Object.entries(configurations).flatMap(([, shape]) => checksOf(toWorld(shape)));
  expect([...new Set(found)].sort().filter((check) => !named.includes(check))).toEqual([]);
});

test('every change is tried', () => {
  expect(CHANGE_ROWS.map(({ change }) => change).sort()).toEqual([...CHANGES].sort());
});

test('docs/model.md has the tables', () => {
  const text = readFileSync('docs/model.md', 'utf8');
  expect(text).toContain([TABLE_HEAD, ...ROWS.map(rowText)].join('\n'));
  expect(text).toContain([CHANGES_HEAD, ...CHANGE_ROWS.map(changeText)].join('\n'));
});

test.each(ROWS.map((row) => [row.tx, row.checks.join(' and '), row] as const))(
  'without its check, %s: %s',
  (_tx, _checks, row) => {
    expect(tryRow(row)).toBeUndefined();
  },
);

test.each(CHANGE_ROWS.map((row) => [row.change, row] as const))('if it were so: %s', (_, row) => {
  expect(tryChange(row)).toBeUndefined();
});
