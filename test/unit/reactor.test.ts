// What a trigger or a hook does next, and what it writes for others to see.
import { expect, test } from 'vitest';
import { nameOf } from '../../src/conditions/marks.ts';
import type { Sight } from '../../src/conditions/marks.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import { step } from '../../src/agent/reactor.ts';
import type { Standing } from '../../src/agent/reactor.ts';
import type { Cursor, ReadCursor } from '../../src/jobs/cursor.ts';
import type { Rules } from '../../src/jobs/trigger.ts';

const NOW_MS = Date.UTC(2026, 2, 1, 12);
const HOUR_MS = 3_600_000;
const at = (ms: number) => new Date(NOW_MS + ms).toISOString();
const on = [parseCondition('state:a'), parseCondition('state:b')];
const clock = { now: () => NOW_MS, monotonicMs: () => 1e9 } as Parameters<typeof step>[2]['clock'];

interface Case {
  readonly cursor?: Partial<Cursor>;
  readonly read?: ReadCursor;
  readonly failures?: number;
  readonly why?: string;
  readonly rules?: Partial<Rules>;
  /** Marks of `a`, `b`; undefined: false. */
  readonly marks?: readonly (string | undefined)[];
}

function after({ cursor, read, failures = 0, why, rules, marks = ['1', undefined] }: Case) {
  const own = { since: at(-HOUR_MS), marks: { 'state:b': {} }, ...cursor };
  const standing: Standing = {
    stored: { key: 'k', index: 1, read: read ?? { kind: 'cursor', cursor: own } },
    settling: undefined,
    turned: undefined,
    failures,
    why,
    retryMs: 0,
    writtenMs: 0,
    waits: { kind: 'quiet' },
  };
  const sights = marks.flatMap((mark, i): [string, Sight][] => {
    const name = on[i] ? nameOf(on[i]) : '';
    return [[name, { name, holds: mark !== undefined, mark: mark ?? '', changes: [], is: '' }]];
  });
  const all = { minIntervalMs: 0, onFirst: 'run', perHour: 6, debounceMs: 0, ...rules } as const;
  const next = step({ on, rules: all }, standing, { sights: new Map(sights), clock });
  return next.kind === 'write' ? next.cursor : next.kind;
}

test('starts that come to nothing are noted, once', () => {
  expect(after({ failures: 2 })).toBe('act');
  expect(after({ failures: 3 })).toMatchObject({ stalledAt: at(0), marks: { 'state:b': {} } });
  expect(after({ failures: 3, why: 'no Consul'.repeat(50) })).toMatchObject({
    stalledWhy: expect.stringMatching(/^(no Consul){33}no $/) as string,
  });
  expect(after({ failures: 4, cursor: { stalledAt: at(-1) } })).toBe('act');
});

test('but not where the note would take away what asks', () => {
  const aged = { failures: 3, marks: [undefined, undefined], rules: { maxAgeMs: 2 * HOUR_MS } };
  expect(after({ ...aged, cursor: { goodAt: at(-3 * HOUR_MS) } })).toMatchObject({ stalledAt: at(0) });
  expect(after({ ...aged, read: { kind: 'none' } })).toBe('act');
  const garbage = { failures: 3, read: { kind: 'garbage' } } as const;
  expect(after({ ...garbage, rules: { onFirst: 'skip' } })).toBe('act');
  expect(after({ ...garbage, rules: { onFirst: 'run' } })).toMatchObject({ stalledAt: at(0) });
});

test('the note goes when nothing asks any more, as far as all has been looked at', () => {
  const quiet = { cursor: { stalledAt: at(-1), stalledWhy: 'x' }, marks: [undefined, undefined] };
  const known = { marks: { 'state:a': {}, 'state:b': {} } };
  expect(after({ ...quiet, cursor: { ...quiet.cursor, ...known } })).toEqual({
    since: at(-HOUR_MS),
    ...known,
  });
  expect(after({ ...quiet, cursor: known })).toBe('wait');
  expect(after({ cursor: { ...quiet.cursor, ...known }, marks: [undefined] })).toBe('wait');
});

test('too many starts are noted, once, with their end', () => {
  const empty = { left: 0, filledAt: at(0) };
  expect(after({ cursor: empty })).toMatchObject({ trippedAt: at(0), tripEndsAt: at(HOUR_MS) });
  expect(after({ cursor: { ...empty, trippedAt: at(0) } })).toBe('wait');
  expect(after({ cursor: { backOffUntil: at(5) } })).toBe('wait');
});
