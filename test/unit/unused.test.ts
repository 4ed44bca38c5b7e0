// What `forget` takes for the use of a group, and in which order the rest goes.
import { describe, expect, test } from 'vitest';
import type { Entry } from '../../src/consul/consul.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import { forgetKeys } from '../../src/lock/transactions.ts';
import { findUse } from '../../src/lock/unused.ts';

const now = Date.UTC(2026, 2, 1, 12);
const ago = (ms: number) => new Date(now - ms).toISOString();
const [minute, hour] = [60_000, 3_600_000];
const keys = groupKeys('runlock', 'prod/web');

let index = 10;
const entry = (key: string, record: object | string = '', session?: string): Entry => {
  index += 1;
  const value = typeof record === 'string' ? record : encode(record);
  return { key, value, createIndex: index, modifyIndex: index, ...(session !== undefined && { session }) };
};
const useOf = (...entries: Entry[]) => findUse(entries, { prefix: 'runlock', group: 'prod/web', now });

const runner = { run: 'r', since: ago(hour), pid: 1, startTime: '1', bootId: 'b' };
const mark = (awayMs?: number) => ({
  ...runner,
  ...(awayMs !== undefined && { away: { by: 'anna', at: ago(awayMs) } }),
});
const freeze = (until?: string) => ({ by: 'anna', reason: 'x', since: ago(hour), ...(until && { until }) });

describe('a group is unused', () => {
  test.each<[string, Entry]>([
    ['the record of a run', entry(keys.run('web01'), 'rubbish')],
    ['.tail', entry(keys.tail, 'rubbish')],
    ['.last', entry(keys.last)],
    ['a mark that no session holds', entry(keys.node('web01'), mark())],
    ['the mark of a run that was sent away long ago', entry(keys.node('web01'), mark(hour + 1))],
    ['the record of a wait whose session is gone', entry(keys.outside('web01'), 'rubbish')],
    ['a lock that no session holds', entry(keys.lock(3), { run: 'r' })],
    ['a freeze past its end', entry(`${keys.prefix}.freeze`, freeze(ago(0)))],
    ['a folder', entry(keys.prefix)],
    ['a folder of slots', entry(keys.slot(0))],
    ['a folder of tickets', entry(keys.queuePrefix)],
    ['a folder of marks', entry(keys.node(''))],
    ['a folder of last runs', entry(keys.run(''))],
  ])('with %s, which goes', (_, one) => {
    expect(useOf(one)).toMatchObject({ uses: [], leftovers: [one] });
  });

  test.each([
    `${keys.prefix}old/.slot/0/owner`,
    'runlock/prod/.freeze',
    'runlock/prod/web-2/.slot/0/owner',
    `${keys.prefix}old/`,
  ])('whatever is stored of another: %s', (key) => {
    expect(useOf(entry(key, 'x', 's'))).toMatchObject({ uses: [], leftovers: [] });
  });
});

describe('a group is in use', () => {
  test.each<[Entry, RegExp]>([
    [entry(keys.owner(2), 'rubbish'), /^slot 2 has an unreadable claim$/],
    [entry(keys.queue('s'), 'rubbish'), /^a run is waiting$/],
    [entry(keys.node('web01'), mark(), 's'), /^web01 is waiting or running$/],
    [entry(keys.outside('web01'), 'rubbish', 's'), /^web01 is waiting without a slot$/],
    [entry(keys.node('web01'), mark(59 * minute)), /^web01 was removed from the queue 59m ago/],
    [entry(keys.lock(1), 'x', 's'), /^a session holds slot 1$/],
    [entry(`${keys.prefix}.freeze`, freeze()), /^the group is frozen by anna \(x\)$/],
    [entry(`${keys.prefix}.freeze`, freeze(ago(-1))), /^the group is frozen by anna/],
    [entry(keys.run('web01'), 'x', 's'), /^a session holds .*\.runs\/web01$/],
    [entry(`${keys.prefix}.new`, 'x'), /\.new is unknown to this version of runlock$/],
    [entry(`${keys.prefix}.new`, '', 's'), /\.new is unknown to this version of runlock$/],
  ])('%#', (one, use) => {
    expect(useOf(entry(keys.tail, { session: 's' }), one).uses).toEqual([expect.stringMatching(use)]);
  });
});

test('what a claim or a ticket says is not said again by its mark and lock', () => {
  const claim = { ...runner, node: 'web01', state: 'running', command: 'c', hold: 'forever' };
  const ticket = { node: 'web02', run: 'r', since: ago(0), command: 'c', pid: 1 };
  const entries = [
    entry(keys.node('web01'), mark(), 's1'),
    entry(keys.node('web02'), mark(), 's2'),
    entry(keys.node('web03'), mark(), 's3'),
    entry(keys.queue('s2'), ticket, 's2'),
    entry(keys.lock(0), 'x', 's1'),
    entry(keys.owner(0), claim),
    entry(keys.lock(1), 'x', 's4'),
  ];
  expect(useOf(...entries).uses).toEqual([
    'web03 is waiting or running',
    'web02 is waiting',
    'web01 has a claim on slot 0 (running)',
    'a session holds slot 1',
  ]);
});

describe('its keys go', () => {
  const [tail, last, run, over] = [
    entry(keys.tail, { session: 's' }),
    entry(keys.last, { session: 's' }),
    entry(keys.run('web01'), 'x'),
    entry(`${keys.prefix}.freeze`, freeze(ago(1))),
  ] as const;

  test('an ended freeze first, and last .tail, which guards them all', () => {
    const use = useOf(tail, last, run, over);
    expect(use.leftovers).toEqual([over, run, last, tail]);
    expect(use).toMatchObject({ tailIndex: tail.modifyIndex, nodes: ['web01'] });
  });

  test('only as they were seen, below the same .tail, and not below a freeze', () => {
    const steps = forgetKeys(keys, 7, [{ key: run.key, index: 5 }]).map(({ operation }) => operation);
    expect(steps).toEqual([
      { verb: 'check-index', key: keys.tail, index: 7 },
      { verb: 'check-not-exists', key: `${keys.prefix}.freeze` },
      { verb: 'check-index', key: run.key, index: 5 },
      { verb: 'delete-cas', key: run.key, index: 5 },
    ]);
    const first = forgetKeys(keys, 0, [{ key: over.key, index: 6 }]).map(({ operation }) => operation);
    expect(first).toEqual([
      { verb: 'check-not-exists', key: keys.tail },
      { verb: 'check-index', key: over.key, index: 6 },
      { verb: 'delete-cas', key: over.key, index: 6 },
    ]);
  });
});
