// What a trigger sees of a condition: by which mark it tells news from what it knows. Pure.
import { describe, expect, test } from 'vitest';
import { judge } from '../../src/conditions/judge.ts';
import { endsNeeded, sightOf } from '../../src/conditions/marks.ts';
import type { Ends } from '../../src/conditions/marks.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import type { Entry } from '../../src/consul/consul.ts';
import { encode, encodeRun } from '../../src/lock/records.ts';
import type { RunRecord } from '../../src/lock/records.ts';
import { encodeState } from '../../src/state/document.ts';
import type { StateDocument } from '../../src/state/document.ts';

const NOW_MS = Date.UTC(2026, 2, 1, 12);
const at = (ms: number) => new Date(NOW_MS + ms).toISOString();
const entry = (key: string, value: string, modifyIndex: number): Entry => ({
  ...{ key: `runlock/${key}`, value, createIndex: 1, modifyIndex },
});
const stateAt = (modifyIndex: number, more: Partial<StateDocument> = {}) =>
  entry(
    '.state/a/.value',
    encodeState({ value: '1', change: 'c1', by: 'n', at: at(-1), ...more }),
    modifyIndex,
  );
const runOf = (node: string, modifyIndex: number, more: Partial<RunRecord> = {}) =>
  entry(
    `db/.runs/${node}`,
    encodeRun({
      ...{ node, run: `r-${node}`, outcome: 'succeeded', command: 'chef', slot: 0, endedAt: at(-1) },
      ...{ waitedMs: 0, ranMs: 0, ...more },
    }),
    modifyIndex,
  );
function sight(text: string, entries: readonly Entry[], ends: [string, Ends][] = []) {
  const judging = { prefix: 'runlock', groups: [], nowMs: NOW_MS };
  const [judged] = judge([parseCondition(text)], { entries, instances: new Map() }, judging);
  if (!judged) throw new Error('nothing was judged');
  return sightOf(judged, new Map(ends));
}

describe('a state', () => {
  test('is told by its change, its end and its absence, in each form', () => {
    for (const text of ['state:a', 'state:a=1', 'state:a!=1', 'not:state:a'])
      expect([stateAt(7), stateAt(8, { until: at(-60_000) })].map((one) => sight(text, [one]).mark)).toEqual([
        ...['c1', 'ended c1'],
      ]);
    expect(sight('not:state:a', [])).toMatchObject({ holds: true, mark: 'absent' });
  });

  test('brings along what led to it', () => {
    const causes = { cause: ['x@n'], depth: 4 };
    expect(sight('state:a', [stateAt(7, causes)]).changes).toEqual([{ index: 7, ...causes }]);
    expect(sight('state:a', []).changes).toEqual([]);
  });
});

describe('good runs', () => {
  const runs = [
    runOf('n1', 20, { claimIndex: 11 }),
    runOf('n2', 30, { claimIndex: 17, cause: ['x@n'], depth: 1 }),
  ];
  test('are a round, from the first claim to the last', () => {
    const seen = sight('good:*@db', runs);
    expect(seen).toMatchObject({ holds: true, round: { low: 11, high: 17 } });
    expect(seen.changes).toEqual([{ index: 20 }, { index: 30, cause: ['x@n'], depth: 1 }]);
  });

  test('of an older version, without a claim, count from their record', () => {
    expect(sight('good:n1@db', [runOf('n1', 20)]).round).toMatchObject({ low: 20, high: 20 });
  });

  test('the opposite is told by the runs that were not good', () => {
    const bad = runOf('n3', 40, { outcome: 'failed', run: 'r-bad' });
    expect(sight('not:good:*@db', [...runs, bad])).toMatchObject({ holds: true, mark: 'r-bad' });
    expect(sight('not:good:*@db', [...runs, bad]).round).toBeUndefined();
    expect(sight('not:good:n9@db', [])).toMatchObject({ holds: true, mark: 'none' });
  });
});

describe('a group', () => {
  const claim = encode({
    ...{ node: 'n1', state: 'running', run: 'r1', since: at(-1), command: 'chef', hold: 'forever' },
    ...{ pid: 1, startTime: '1', bootId: 'b' },
  });
  const busy = [entry('db/.slot/0/owner', claim, 50)];

  test('that is idle is told by the last end of a run in it', () => {
    const ends = (index: number): [string, Ends] => [
      'db',
      { index, changes: [{ index, cause: ['x@n'], depth: 1 }] },
    ];
    expect(sight('idle:db', [], [ends(30)])).toMatchObject({ holds: true, mark: 'ended 30' });
    expect(sight('idle:db', [], [ends(31)]).mark).toBe('ended 31');
    expect(sight('idle:db', [], [ends(31)]).changes).toEqual([{ index: 31, cause: ['x@n'], depth: 1 }]);
    expect(endsNeeded(['idle:db', 'not:idle:web', 'idle:db', 'state:a'].map(parseCondition))).toEqual([
      'db',
      'web',
    ]);
  });

  test('that is not, by who runs in it', () => {
    expect(sight('not:idle:db', busy)).toMatchObject({ holds: true, mark: '0 r1 50' });
    expect(sight('active:n1@db', busy)).toMatchObject({ holds: true, mark: 'r1' });
  });
});

test('health and agents have no mark: only that they turned is news', () => {
  expect(sight('not:healthy:web', []).mark).toBe('');
  const agent = { ...entry('.agents/n1', '{}', 7), session: 's1' };
  expect(sight('agent:n1', [agent])).toMatchObject({ holds: true, mark: '' });
});

test('long conditions and long lists are known by a short name of their own', () => {
  const [one, other] = ['x', 'y'].map((end) => sight(`state:a=${'v'.repeat(4_000)}${end}`, []));
  expect(one?.name.length).toBeLessThanOrEqual(120);
  expect(one?.name).not.toBe(other?.name);
});
