// Each check of each transaction is left out in turn: a promise breaks, or the table says why none does.
import { readFileSync } from 'node:fs';
import { describe, expect, test, vi } from 'vitest';
import { allChecks } from './checks.ts';
import {
  CHANGES,
  CHANGES_HEAD,
  TABLE_HEAD,
  allRows,
  changeText,
  rowText,
  tryChange,
  tryRow,
} from './table.ts';

/** Seconds on a machine of its own; a busy one may take its time. */
vi.setConfig({ testTimeout: 600_000 });

test('the table names every check of src/lock/transactions.ts, and no other', () => {
  const named = new Set(allRows().flatMap(({ tx, checks }) => checks.map((check) => `${tx}: ${check}`)));
  const found = [...allChecks()].flatMap(([tx, checks]) => checks.map((check) => `${tx}: ${check}`));
  expect([...named].sort()).toEqual(found.sort());
});

test('docs/model.md has the tables', () => {
  const text = readFileSync('docs/model.md', 'utf8');
  expect(text).toContain([TABLE_HEAD, ...allRows().map(rowText)].join('\n'));
  expect(text).toContain([CHANGES_HEAD, ...CHANGES.map(changeText)].join('\n'));
});

describe('without', () => {
  test.each(
    allRows().map((row) => [row.tx, row.checks.join(' and '), row.breaks ?? 'nothing', row] as const),
  )('%s’s %s, what breaks is: %s', (_tx, _checks, _breaks, row) => {
    expect(tryRow(row)).toBeUndefined();
  });
});

test.each(CHANGES.map((change) => [change.tx, change.what, change.breaks, change] as const))(
  'if %s were otherwise (%s), what breaks is: %s',
  (_tx, _what, _breaks, change) => {
    expect(tryChange(change)).toBeUndefined();
  },
);
