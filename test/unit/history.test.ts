import { describe, expect, test } from 'vitest';
import { forget, viewHistory } from '../../src/commands/history/history.ts';
import type { Entry } from '../../src/consul/consul.ts';
import { encode, lastGoodOf } from '../../src/lock/records.ts';
import type { RunRecord } from '../../src/lock/records.ts';
import { renderForget, renderHistory } from '../../src/output/history.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const now = Date.UTC(2026, 2, 10);
const HOUR = 3_600_000;
const ago = (hours: number) => new Date(now - hours * HOUR).toISOString();

const base: RunRecord = {
  ...{ node: 'web01', run: 'r', outcome: 'succeeded', exitCode: 0, command: 'chef-client', slot: 0 },
  ...{ endedAt: ago(1), waitedMs: 0, ranMs: 1_000 },
};
const stored = (record: Partial<RunRecord>, group = 'prod') => {
  const whole = { ...base, ...record };
  const key = `runlock/${group}/.runs/${whole.node}`;
  return { group, node: whole.node, entry: { key, value: encode(whole), createIndex: 1, modifyIndex: 1 } };
};
const view = (records: readonly ReturnType<typeof stored>[], silentForMs?: number) =>
  viewHistory(records, { prefix: 'runlock', now, ...(silentForMs !== undefined && { silentForMs }) });

describe('lastGoodOf', () => {
  test('a good run’s own end, else what its record kept', () => {
    expect(lastGoodOf({ ...base, lastGoodAt: ago(9) })).toBe(ago(1));
    expect(lastGoodOf({ ...base, outcome: 'failed', lastGoodAt: ago(9) })).toBe(ago(9));
    expect(lastGoodOf({ ...base, outcome: 'rebooting' })).toBeUndefined();
  });
});

describe('the order', () => {
  test('no good run known, then the longest without one; else by the last run, group and name', () => {
    const records = [
      stored({ node: 'b', endedAt: ago(5) }),
      stored({ node: 'a', endedAt: ago(5) }),
      stored({ node: 'a', endedAt: ago(5) }, 'beta'),
      stored({ node: 'c', outcome: 'failed', lastGoodAt: ago(7) }),
      stored({ node: 'd', outcome: 'lost', endedAt: ago(1) }),
      stored({ node: 'e', outcome: 'lost', endedAt: ago(2) }),
    ];
    const order = view(records).nodes.map(({ node, group }) => `${node}@${group}`);
    expect(order).toEqual(['e@prod', 'd@prod', 'c@prod', 'a@beta', 'a@prod', 'b@prod']);
  });
});

describe('silent', () => {
  test('from the very moment on; a clock that runs ahead makes nobody silent', () => {
    const records = [
      stored({ node: 'at', endedAt: ago(24) }),
      stored({ node: 'before', endedAt: ago(23.999) }),
      stored({ node: 'ahead', endedAt: ago(-1) }),
    ];
    expect(view(records, 24 * HOUR)).toMatchObject({ known: 3, nodes: [{ node: 'at' }] });
  });
});

describe('text', () => {
  test('a record without an exit code has an empty cell', () => {
    const bare: Record<string, unknown> = { ...base };
    delete bare['exitCode'];
    const one = stored({});
    const entry = { ...one.entry, value: encode(bare) };
    expect(renderHistory(view([{ ...one, entry }]), { color: false, now })).toMatch(
      /succeeded\s+1h\s+0s\s+1s/,
    );
  });

  test('what was forgotten, in each group', () => {
    const report = { v: 1, prefix: 'runlock', node: 'web01', forgotten: ['a', 'b'] } as const;
    expect(renderForget(report)).toBe('deleted the record of web01 in a\ndeleted the record of web01 in b\n');
    expect(renderForget({ ...report, forgotten: [] })).toBe(
      'no run of web01 is recorded in any group below runlock/; nothing was deleted\n',
    );
  });
});

test('forget deletes what it saw and nothing newer: a record that changed is looked at again', async () => {
  const { key, value } = stored({ node: 'web01' }).entry;
  const answers = ['refused', 'done'];
  const removed: number[] = [];
  let modifyIndex = 7;
  const entry = (): Entry => ({ key, value, createIndex: 1, modifyIndex });
  const consul = fakeConsul({
    get: () => Promise.resolve({ entry: undefined, index: modifyIndex }),
    list: () => Promise.resolve({ entries: removed.length === 2 ? [] : [entry()], index: modifyIndex }),
    transact: (operations) => {
      for (const operation of operations) if (operation.verb === 'delete-cas') removed.push(operation.index);
      if (answers.shift() === 'done') return Promise.resolve({ kind: 'done', entries: [] });
      modifyIndex += 1;
      return Promise.resolve({ kind: 'refused', at: 0, why: 'index is stale' });
    },
  });
  const { signal } = new AbortController();
  const request = { prefix: 'runlock', group: 'prod', node: 'web01' };
  expect((await forget(consul, request, signal)).forgotten).toEqual(['prod']);
  expect(removed).toEqual([7, 8]);
});
