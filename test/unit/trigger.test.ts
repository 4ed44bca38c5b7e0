// When a task starts by itself, and what it remembers: decisions on a cursor. Pure.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Sight } from '../../src/conditions/marks.ts';
import { encodeCursor, readCursor } from '../../src/jobs/cursor.ts';
import type { Cursor } from '../../src/jobs/cursor.ts';
import {
  failed,
  observed,
  refused,
  reset,
  started,
  succeeded,
  tripped,
} from '../../src/jobs/trigger-cursor.ts';
import { admit, asks, bucketOf, next, placeOf, settle } from '../../src/jobs/trigger.ts';
import type { Place, Rules } from '../../src/jobs/trigger.ts';

const NOW_MS = Date.UTC(2026, 2, 1, 12);
const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const at = (ms: number) => new Date(NOW_MS + ms).toISOString();
const rules = (more: Partial<Rules> = {}): Rules => ({
  minIntervalMs: 0,
  onFirst: 'run',
  perHour: 6,
  ...more,
});
const sight = (mark: string | undefined, more: Partial<Sight> = {}): Sight => ({
  ...{ name: 'state:a', holds: mark !== undefined, mark: mark ?? '', changes: [], is: '' },
  ...more,
});
const round = (low: number, high: number, holds = true): Sight =>
  sight('', { name: 'good:*@db', holds, round: { low, high } });
const cursor = (more: Partial<Cursor> = {}): Cursor => ({ since: at(-HOUR), marks: {}, ...more });
const place = (more: Partial<Cursor> = {}, asksAnew = true): Place => ({
  ...{ cursor: cursor(more), asksAnew, isWritten: true },
});
const unwritten = (onFirst: Rules['onFirst']) => placeOf({ kind: 'none' }, rules({ onFirst }), NOW_MS);
/** A good run, from its last look before the command to its end. */
function run(sights: readonly Sight[], from: Place, now?: (cursor: Cursor) => Cursor): Place {
  const begun = { run: 'r', sights, place: from };
  const during = started(begun, rules(), NOW_MS);
  return { ...from, isWritten: true, cursor: succeeded(begun, now ? now(during) : during, NOW_MS) };
}

describe('a condition asks for a run', () => {
  test('if it is true with another mark than the last good run has seen', () => {
    const seen = place({ marks: { 'state:a': { mark: 'c1' } } });
    expect([sight('c1'), sight('c2'), sight(undefined)].map((one) => asks(one, seen))).toEqual([
      ...[false, true, false],
    ]);
  });

  test('after it was seen to be false, whatever its mark', () => {
    const seen = place({ marks: { 'state:a': { mark: 'c1' } } });
    const after = observed([sight(undefined)], seen);
    expect(after).toEqual(cursor({ marks: { 'state:a': { flips: 1 } } }));
    expect(asks(sight('c1'), { ...seen, cursor: after ?? cursor() })).toBe(true);
  });

  test('a round asks only if each of its runs began after what is known', () => {
    const seen = place({ marks: { 'good:*@db': { point: 10 } } });
    expect([round(10, 20), round(11, 20), round(11, 20, false)].map((one) => asks(one, seen))).toEqual([
      ...[false, true, false],
    ]);
  });

  test('at the first look as the file says', () => {
    expect(asks(sight('c1'), unwritten('run'))).toBe(true);
    expect(asks(sight('c1'), unwritten('skip'))).toBe(false);
    expect(asks(round(1, 2), unwritten('skip'))).toBe(false);
  });

  test('skip takes what is true then for seen, and what is false then for news to come', () => {
    const first = unwritten('skip');
    const after = observed([sight('c1'), sight(undefined, { name: 'state:b' }), round(1, 7)], first);
    expect(after?.marks).toEqual({ 'state:a': { mark: 'c1' }, 'state:b': {}, 'good:*@db': { point: 7 } });
    const next = { ...first, cursor: after ?? cursor() };
    expect(asks(sight('c9', { name: 'state:b' }), next)).toBe(true);
    expect(asks(sight('c1'), next)).toBe(false);
  });

  test('a condition that is new in the file is one at its first look', () => {
    const seen = place({ marks: { 'state:b': { mark: 'c1' } } });
    expect(asks(sight('c1'), seen)).toBe(true);
    expect(asks(sight('c1'), { ...seen, asksAnew: false })).toBe(false);
  });
});

test('an agent that sees nothing new writes nothing', () => {
  const seen = place({
    marks: { 'state:a': { mark: 'c1' }, 'state:b': { flips: 2 }, 'good:*@db': { point: 3 } },
  });
  const looks = [
    sight('c2'),
    sight(undefined, { name: 'state:b' }),
    round(1, 2, false),
    sight('new', { name: 'state:c' }),
  ];
  expect(observed(looks, seen)).toBeUndefined();
  expect(observed([sight('c1')], unwritten('run'))).toBeUndefined();
  expect(observed([], unwritten('skip'))).toEqual({ since: at(0), marks: {} });
});

describe('a good run', () => {
  test('has seen what was true before its command, and asks no more', () => {
    const after = run([sight('c2'), round(11, 20)], place());
    expect(after.cursor.marks).toEqual({ 'state:a': { mark: 'c2' }, 'good:*@db': { point: 20 } });
    expect(next([sight('c2'), round(11, 20)], after, rules(), NOW_MS)).toEqual({
      kind: 'quiet',
      dueInMs: Infinity,
    });
    expect(after.cursor).not.toHaveProperty('run');
    expect(after.cursor.goodAt).toBe(at(0));
  });

  test('leaves a round that is not complete as news', () => {
    const before = place({ marks: { 'good:*@db': { point: 10 } } });
    const after = run([sight('c2'), round(8, 12)], before);
    expect(after.cursor.marks['good:*@db']).toEqual({ point: 10 });
    expect(asks(round(11, 14), after)).toBe(true);
  });

  test('leaves what turned false meanwhile as news, though its mark is the same', () => {
    const healthy = sight('', { holds: true, name: 'healthy:web' });
    const before = run([healthy], place());
    const after = run(
      [healthy],
      before,
      (during) => observed([{ ...healthy, holds: false }], { ...before, cursor: during }) ?? during,
    );
    expect(asks(healthy, after)).toBe(true);
    expect(asks(healthy, run([healthy], after))).toBe(false);
  });

  test('forgets conditions that the file has no more', () => {
    const after = run([sight('c2')], place({ marks: { 'state:old': { mark: 'x' } } }));
    expect(Object.keys(after.cursor.marks)).toEqual(['state:a']);
  });

  test('writes a whole cursor where that is gone or overwritten', () => {
    const begun = { run: 'r', sights: [sight('c2')], place: place({ failures: 2 }) };
    expect(succeeded(begun, undefined, NOW_MS)).toEqual(
      cursor({ marks: { 'state:a': { mark: 'c2' } }, goodAt: at(0) }),
    );
  });
});

describe('a run that failed', () => {
  test('leaves the change as news, and the next waits 1 m, 2 m, …, 1 h', () => {
    let now = place();
    const waits = Array.from({ length: 9 }, () => {
      now = { ...now, cursor: failed(now.cursor, 'failed', NOW_MS) };
      const held = next([sight('c1')], now, rules(), NOW_MS);
      return held.kind === 'held' && held.by === 'back-off' ? held.dueInMs / MINUTE : held.kind;
    });
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60]);
    expect(next([sight('c1')], now, rules(), NOW_MS + HOUR)).toMatchObject({ kind: 'start' });
  });

  test('is no failure where the node reboots', () => {
    expect(failed(cursor({ run: 'r' }), 'rebooting', NOW_MS)).toEqual(cursor());
  });

  test('a good one ends the count', () => {
    const after = run([sight('c1')], place({ failures: 4, backOffUntil: at(-1) }));
    expect(after.cursor).not.toHaveProperty('failures');
    expect(after.cursor).not.toHaveProperty('backOffUntil');
  });
});

test('that starts came to nothing is forgotten at a start, a refusal and a reset', () => {
  const seen = [sight('c1')];
  const stalledBefore = place({ stalledAt: at(0), trippedAt: at(0), tripEndsAt: at(1) });
  const begun = { run: 'r', sights: seen, place: stalledBefore };
  const loop = { why: 'loop', cause: ['x@n'], depth: 1 } as const;
  for (const after of [
    started(begun, rules(), NOW_MS),
    succeeded(begun, undefined, NOW_MS),
    refused(begun, loop, NOW_MS),
    reset(stalledBefore.cursor),
  ])
    expect(after).not.toHaveProperty('stalledAt');
  expect(reset(stalledBefore.cursor)).not.toHaveProperty('tripEndsAt');
});

describe('starts are held back', () => {
  test('by the interval since the last start', () => {
    const recent = place({ startedAt: at(-20 * SECOND) });
    const held = next([sight('c1')], recent, rules({ minIntervalMs: MINUTE }), NOW_MS);
    expect(held).toEqual({ kind: 'held', by: 'min-interval', dueInMs: 40 * SECOND });
  });

  test('by the bucket: 6 at once, then none until all 6 are left again', () => {
    let now = place();
    let starts = 0;
    while (next([sight('c1')], now, rules(), NOW_MS).kind === 'start') {
      now = { ...now, cursor: started({ run: 'r', sights: [sight('c1')], place: now }, rules(), NOW_MS) };
      starts += 1;
    }
    expect(starts).toBe(6);
    expect(next([sight('c1')], now, rules(), NOW_MS)).toEqual({
      kind: 'held',
      by: 'tripped',
      dueInMs: 10 * MINUTE,
    });
    const trippedNow = { ...now, cursor: tripped(now.cursor, rules(), NOW_MS) };
    expect(trippedNow.cursor.tripEndsAt).toBe(at(HOUR));
    expect(next([sight('c1')], trippedNow, rules(), NOW_MS + 59 * MINUTE)).toMatchObject({
      kind: 'held',
      dueInMs: MINUTE,
    });
    expect(next([sight('c1')], trippedNow, rules(), NOW_MS + HOUR)).toMatchObject({ kind: 'start' });
    const cleared = { ...now, cursor: reset(trippedNow.cursor) };
    expect(next([sight('c1')], cleared, rules(), NOW_MS)).toMatchObject({ kind: 'start' });
  });

  test('a start after a tripped bucket is full again is no longer tripped', () => {
    const full = place({ trippedAt: at(-HOUR), tripEndsAt: at(0), left: 0, filledAt: at(-HOUR) });
    const after = started({ run: 'r', sights: [sight('c1')], place: full }, rules(), NOW_MS);
    expect(after).not.toHaveProperty('trippedAt');
    expect(after).not.toHaveProperty('tripEndsAt');
    expect(after.left).toBe(5);
  });

  test('by times of a clock that is right, and by no others', () => {
    const odd = place({ startedAt: '8999-01-01T00:00:00Z', backOffUntil: '8999-01-01T00:00:00Z' });
    expect(next([sight('c1')], odd, rules({ minIntervalMs: MINUTE }), NOW_MS)).toMatchObject({
      kind: 'start',
    });
    const later = place({ left: 0, filledAt: '8999-01-01T00:00:00Z' });
    expect(bucketOf(later.cursor, rules(), NOW_MS)).toEqual({ left: 6, isTripped: false, dueInMs: 0 });
  });
});

describe('a run is due by its age', () => {
  const aged = rules({ maxAgeMs: HOUR });
  test('when the last good one is so long ago, and without a change', () => {
    expect(next([], place({ goodAt: at(-50 * MINUTE) }), aged, NOW_MS)).toEqual({
      kind: 'quiet',
      dueInMs: 10 * MINUTE,
    });
    expect(next([], place({ goodAt: at(-HOUR) }), aged, NOW_MS)).toEqual({ kind: 'start', asking: [] });
  });

  test('also while the bucket is empty, and costs it nothing', () => {
    const empty = place({ goodAt: at(-HOUR), left: 0.5, filledAt: at(0), trippedAt: at(0) });
    expect(next([sight('c1')], empty, aged, NOW_MS)).toMatchObject({ kind: 'start' });
    const after = started({ run: 'r', sights: [sight('c1')], place: empty }, aged, NOW_MS);
    expect(after).toMatchObject({ left: 0.5, trippedAt: at(0) });
  });

  test('but not before a failing one may be tried again', () => {
    const failing = place({ goodAt: at(-HOUR), backOffUntil: at(MINUTE) });
    expect(next([], failing, aged, NOW_MS)).toEqual({ kind: 'held', by: 'back-off', dueInMs: MINUTE });
  });

  test('on a new node at once, or counted from its first look', () => {
    const first = (onFirst: Rules['onFirst']) => next([], unwritten(onFirst), { ...aged, onFirst }, NOW_MS);
    expect(first('run')).toEqual({ kind: 'start', asking: [] });
    expect(first('skip')).toEqual({ kind: 'quiet', dueInMs: HOUR });
  });

  test('of a time in the future, it waits no longer than once more', () => {
    expect(next([], place({ goodAt: at(HOUR / 2) }), aged, NOW_MS)).toEqual({
      kind: 'quiet',
      dueInMs: 1.5 * HOUR,
    });
    expect(next([], place({ goodAt: at(2 * HOUR) }), aged, NOW_MS)).toMatchObject({ kind: 'start' });
  });
});

describe('a change that the task itself led to', () => {
  const own = sight('c1', { changes: [{ index: 9, cause: ['chef@n', 'other@n'], depth: 2 }] });
  test('starts nothing, and is as good as seen', () => {
    const admission = admit([own], 'chef@n');
    expect(admission).toMatchObject({ kind: 'refused', why: 'loop' });
    const after = refused({ sights: [own], place: place() }, { why: 'loop', ...admission.causes }, NOW_MS);
    expect(after.refused).toMatchObject({ why: 'loop', depth: 3 });
    expect(asks(own, { ...place(), cursor: after })).toBe(false);
  });

  test('does not hide one of another origin, which the run has as its cause', () => {
    const other = sight('c2', { name: 'state:b', changes: [{ index: 3 }] });
    expect(admit([own, other], 'chef@n')).toEqual({
      kind: 'admitted',
      causes: { cause: ['chef@n'], depth: 1 },
    });
  });

  test('a run by several changes of other origins has the newest as its cause', () => {
    const newer = sight('c2', { name: 'state:b', changes: [{ index: 12, cause: ['b@n'], depth: 1 }] });
    expect(admit([own, newer], 'x@n')).toEqual({
      kind: 'admitted',
      causes: { cause: ['b@n', 'x@n'], depth: 3 },
    });
  });
});

describe('debounce', () => {
  const settleAll = (marks: readonly [ms: number, mark: string][]) => {
    let settling: Parameters<typeof settle>[0];
    return marks.map(([nowMs, mark]) => {
      const step = settle(settling, [sight(mark)], { debounceMs: 10, nowMs });
      ({ settling } = step);
      return step.dueInMs;
    });
  };
  test('begins anew with each change, and counts no look without one', () => {
    expect(
      settleAll([
        [0, 'a'],
        [4, 'a'],
        [6, 'b'],
        [16, 'b'],
      ]),
    ).toEqual([10, 6, 10, 0]);
  });

  test('lasts four times as long at most', () => {
    const due = settleAll([0, 9, 18, 27, 36, 40].map((ms) => [ms, `c${ms}`]));
    expect(due).toEqual([10, 10, 10, 10, 4, 0]);
  });
});

describe('a cursor from Consul', () => {
  const stored = (value: string) => ({ key: 'runlock/.triggers/n/chef', value });
  test('comes back as it was written', () => {
    const full = run([sight('c2'), round(1, 2)], place({ failures: 1 })).cursor;
    expect(readCursor(stored(encodeCursor(full)))).toEqual({ kind: 'cursor', cursor: full });
  });

  test('that is garbage counts as lost: what is true asks for a run, also under skip', () => {
    const kinds = [
      '',
      '{}',
      'null',
      '{"v":1}',
      '{"v":1,"since":"x","marks":{}}',
      '{"v":1,"since":"2026-01-01","marks":{"a":3}}',
      '{"v":1,"since":"2026-01-01","marks":[]}',
    ];
    for (const value of kinds) {
      const read = readCursor(stored(value));
      if (read.kind !== 'garbage') throw new Error(`${value} is ${read.kind}`);
      expect(asks(sight('c1'), placeOf(read, rules({ onFirst: 'skip' }), NOW_MS))).toBe(true);
    }
  });

  test('of a newer runlock is left alone', () => {
    expect(readCursor(stored('{"v":2}'))).toMatchObject({ kind: 'newer' });
  });

  test('names like those of objects mean nothing', () => {
    const odd = place({ marks: JSON.parse('{"__proto__":{"mark":"c1"}}') as Cursor['marks'] });
    expect(asks(sight('c1', { name: 'toString' }), odd)).toBe(true);
  });
});

describe('whatever happens', () => {
  type Event = 'set' | 'clear' | 'look' | 'run' | 'fail';
  const events = fc.array(fc.constantFrom<Event>('set', 'clear', 'look', 'run', 'fail'), { maxLength: 30 });
  test('after a look there is either a run that began after the last change, or one is asked for', () => {
    fc.assert(
      fc.property(events, fc.boolean(), (all, hasMark) => {
        let now = place();
        let state: Sight = sight(undefined);
        let change = 0;
        let ran = 0;
        for (const event of [...all, 'look']) {
          if (event === 'set' || event === 'clear') {
            change += 1;
            // Without a mark only a change that the agent has seen counts.
            state = event === 'set' ? sight(hasMark ? `c${change}` : '') : sight(undefined);
            if (!hasMark) now = { ...now, cursor: observed([sight(undefined)], now) ?? now.cursor };
          } else if (event === 'look') now = { ...now, cursor: observed([state], now) ?? now.cursor };
          else if (event === 'fail') now = { ...now, cursor: failed(now.cursor, 'failed', NOW_MS) };
          else if (asks(state, now)) {
            now = run([state], now);
            ran = change;
          }
        }
        if (state.holds) expect(asks(state, now)).toBe(ran !== change || change === 0);
      }),
    );
  });
});
