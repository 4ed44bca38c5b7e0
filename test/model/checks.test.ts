// Each check of each transaction is left out in turn: a promise breaks, or the table says why none does.
import { readFileSync } from 'node:fs';
import { describe, expect, test, vi } from 'vitest';
import { allChecks } from './checks.ts';
import { TABLE_HEAD, allRows, rowText, tryRow } from './table.ts';

/** Seconds on a machine of its own; a busy one may take its time. */
vi.setConfig({ testTimeout: 600_000 });

test('the table names every check of src/lock/transactions.ts, and no other', () => {
  const named = new Set(allRows().flatMap(({ tx, checks }) => checks.map((check) => `${tx}: ${check}`)));
  const found = [...allChecks()].flatMap(([tx, checks]) => checks.map((check) => `${tx}: ${check}`));
  expect([...named].sort()).toEqual(found.sort());
});

test('docs/model.md has the table', () => {
  const text = readFileSync('docs/model.md', 'utf8');
  expect(text).toContain([TABLE_HEAD, ...allRows().map(rowText)].join('\n'));
});

describe('without', () => {
  test.each(
    allRows().map((row) => [row.tx, row.checks.join(' and '), row.breaks ?? 'nothing', row] as const),
  )('%s’s %s, what breaks is: %s', (_tx, _checks, _breaks, row) => {
    expect(tryRow(row)).toBeUndefined();
  });
});
