// Whose run is gone: without a lock, and unchanged, for a whole minute under one look.
import { describe, expect, test } from 'vitest';
import type { Entry } from '../../src/consul/consul.ts';
import { goneRuns, rebootEnded, watchRuns } from '../../src/jobs/gone.ts';
import type { Watched } from '../../src/jobs/gone.ts';
import type { TargetState } from '../../src/jobs/documents.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import type { ClaimState } from '../../src/lock/records.ts';
import { at } from '../support/jobs.ts';

const keys = groupKeys('p', 'prod/web');
const entry = (key: string, value: object, { index = 1, session = '' } = {}): Entry => ({
  ...{ key, value: encode(value), createIndex: 1, modifyIndex: index },
  ...(session !== '' && { session }),
});
const claim = (state: ClaimState = 'running', run = 'r1') => ({
  ...{ node: 'web01', state, run, since: at, command: 'chef', hold: 'forever' },
  ...{ pid: 1, startTime: '1', bootId: 'b' },
});
const owner = (index = 1, state?: ClaimState) => entry(keys.owner(0), claim(state), { index });
const lock = entry(keys.lock(0), { run: 'r1' }, { session: 's' });
const target = (state: TargetState = 'running', run = 'r1') => ({
  ...{ node: 'web01', stage: 0, state, index: 1 },
  document: { rev: 1, state, run },
});
const look = (before: Watched, entries: Entry[], ms: number, targets = [target()]) =>
  watchRuns(before, { targets, keys, entries }, ms);
const never: Watched = new Map();
const MINUTE = 60_000;

describe('a run is gone', () => {
  test('when its claim was without a lock and unchanged for a minute', () => {
    const first = look(never, [owner()], 0);
    const later = look(first, [owner()], MINUTE);
    expect([...goneRuns(later, MINUTE - 1)]).toEqual([]);
    expect([...goneRuns(later, MINUTE)]).toEqual([
      ['web01', { run: 'r1', evidence: { key: keys.owner(0), index: 1 }, sinceMs: 0 }],
    ]);
  });

  test('when it has no claim either, and its node no mark of a run', () => {
    const later = look(look(never, [], 0), [], MINUTE);
    expect(goneRuns(later, MINUTE).get('web01')?.evidence).toEqual({ key: keys.node('web01'), index: 0 });
  });

  test('when its claim says that it ended, and nobody has ended its target', () => {
    for (const state of ['failed', 'abandoned', 'interrupted', 'evicted'] as const)
      expect(goneRuns(look(never, [owner(1, state)], 0), MINUTE).size).toBe(1);
  });
});

describe('the reboot that a run asked for is over', () => {
  const last = (run: string, { index = 5, endedAt = at } = {}) =>
    entry(
      keys.run('web01'),
      {
        ...{ node: 'web01', run, outcome: run === 'r1' ? 'rebooting' : 'succeeded', command: 'chef' },
        ...{ slot: 0, endedAt, waitedMs: 0, ranMs: 0 },
      },
      { index },
    );
  const LATER = '2026-03-01T13:00:00.000Z';
  const taken = entry(keys.owner(0), claim('running', 'r2'), { index: 9 });
  const reboots = (entries: Entry[], holds: boolean) =>
    rebootEnded({ state: 'rebooting', run: 'r1', endedAt: at, ...(holds && { holds }) }, 'web01', {
      keys,
      entries,
    });

  test.each<[string, boolean, Entry[], object | undefined]>([
    ['its claim stands', true, [owner(1, 'rebooting'), last('r1')], undefined],
    ['its claim stands, and its end is not recorded', true, [owner(), last('r0')], undefined],
    ['its claim was cleared', true, [last('r1')], { key: keys.owner(0), index: 0 }],
    ['another run took it', true, [taken, last('r1')], { key: keys.owner(0), index: 9 }],
    [
      'another run took it, and ended',
      true,
      [last('r2', { endedAt: LATER })],
      { key: keys.run('web01'), index: 5 },
    ],
    ['its claim was cleared, and its node forgotten', true, [], { key: keys.run('web01'), index: 0 }],
    ['it kept no claim', false, [last('r1')], undefined],
    ['it kept no claim, its hold is over, another took it', false, [taken, last('r1')], undefined],
    ['it kept no claim, and its end is not recorded', false, [last('r0')], undefined],
    [
      'it kept no claim, and another run of the node has ended',
      false,
      [last('r2', { endedAt: LATER })],
      { key: keys.run('web01'), index: 5 },
    ],
  ])('%s', (_, holds, entries, evidence) => {
    expect(reboots(entries, holds)).toEqual(evidence);
  });

  test('for who looks, after a minute in which nothing changed', () => {
    const rebooting = {
      ...target('rebooting'),
      document: { rev: 1, state: 'rebooting' as const, run: 'r1', holds: true as const },
    };
    const first = look(never, [last('r1')], 0, [rebooting]);
    expect(goneRuns(look(first, [last('r1')], MINUTE - 1, [rebooting]), MINUTE - 1).size).toBe(0);
    expect(goneRuns(look(first, [last('r1')], MINUTE, [rebooting]), MINUTE).get('web01')?.evidence).toEqual({
      key: keys.owner(0),
      index: 0,
    });
  });
});

describe('a run is not gone', () => {
  const isGone = (...looks: [entries: Entry[], ms: number][]) => {
    const watched = looks.reduce((before, [entries, ms]) => look(before, entries, ms), never);
    return goneRuns(watched, MINUTE).has('web01');
  };

  test('while it has its lock, or had it meanwhile', () => {
    expect(isGone([[owner(), lock], 0])).toBe(false);
    expect(isGone([[owner()], 0], [[owner(), lock], 30_000], [[owner()], 40_000])).toBe(false);
  });

  test('once its claim has changed', () => {
    expect(isGone([[owner(1)], 0], [[owner(2)], 30_000])).toBe(false);
  });

  test('while its host reboots', () => {
    expect(isGone([[owner(1, 'rebooting')], 0])).toBe(false);
    expect(goneRuns(look(never, [owner()], 0, [target('rebooting')]), MINUTE).size).toBe(0);
  });

  test('while another run of its node is under way', () => {
    expect(isGone([[entry(keys.node('web01'), { run: 'r2' }, { session: 's' })], 0])).toBe(false);
  });

  test('when its target does not run, or runs another', () => {
    expect(goneRuns(look(never, [owner()], 0, [target('accepted')]), MINUTE).size).toBe(0);
    const before = look(never, [owner()], 0);
    const other = look(before, [owner()], 30_000, [target('running', 'r2')]);
    expect(goneRuns(other, MINUTE).size).toBe(0);
  });
});
