// What led to a run: chains of tasks, and where they end. Pure.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  MOST_DEPTH,
  MOST_LINKS,
  causesBy,
  causesIn,
  causesOf,
  linkOf,
  loopIn,
  toCauseVariables,
} from '../../src/lock/causes.ts';
import type { Causes } from '../../src/lock/causes.ts';

describe('a run by several changes', () => {
  test('takes the links of the newest, and is one start behind the deepest', () => {
    const old = { index: 5, cause: ['a@n', 'b@n', 'c@n'], depth: 3 };
    const newest = { index: 9, cause: ['d@n'], depth: 1 };
    expect(causesBy([newest, old], 'e@n')).toEqual({ cause: ['d@n', 'e@n'], depth: 4 });
  });

  test('has its own link alone where nothing is known of the changes', () => {
    expect(causesBy([], 'a@n')).toEqual({ cause: ['a@n'], depth: 1 });
    expect(causesBy([{ index: 3 }], 'a@n')).toEqual({ cause: ['a@n'], depth: 1 });
  });
});

describe('a trigger does not start', () => {
  test('a task that is among the causes of the change', () => {
    const first = causesBy([{ index: 1 }], 'ping@n');
    const second = causesBy([{ index: 2, ...first }], 'pong@n');
    expect(loopIn(second)).toBeUndefined();
    expect(loopIn(causesBy([{ index: 3, ...second }], 'ping@n'))).toBe('loop');
  });

  test('behind more starts than 8, whatever its links say', () => {
    let chain: Causes | undefined;
    const refused = Array.from({ length: 30 }, (_, i) => {
      chain = causesBy([{ index: i, ...chain }], `step-${i}@n`);
      return loopIn(chain);
    });
    expect(refused.slice(0, MOST_DEPTH)).toEqual(Array(MOST_DEPTH).fill(undefined));
    expect(refused.slice(MOST_DEPTH)).toEqual(Array(30 - MOST_DEPTH).fill('deep'));
  });

  test('the same task on another node is another link', () => {
    expect(loopIn(causesBy([{ index: 1, cause: ['a@n1'], depth: 1 }], linkOf('a', 'n2')))).toBeUndefined();
  });
});

describe('whatever a document says', () => {
  const link = fc.oneof(fc.string(), fc.stringMatching(/^[a-z]{1,5}@[a-z0-9.-]{1,9}$/));
  const caused = fc.record({ cause: fc.array(link, { maxLength: 20 }), depth: fc.nat() });

  test('links and depth stay within their bounds, and survive the way through the environment', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ index: fc.nat(), what: caused })), (all) => {
        const causes = causesBy(
          all.map(({ index, what }) => ({ index, ...what })),
          'task@node',
        );
        expect(causes.cause.length).toBeLessThanOrEqual(MOST_LINKS);
        expect(causes.depth).toBeGreaterThanOrEqual(causes.cause.length);
        expect(causes.cause.at(-1)).toBe('task@node');
        if (causes.depth < 1e6) expect(causesIn(toCauseVariables(causes))).toEqual(causes);
      }),
    );
  });

  test('what is no link counts for nothing', () => {
    expect(causesOf({ cause: ['', 'a', 'a@b@c', 'a b@c', `${'x'.repeat(65)}@n`], depth: 0 })).toBeUndefined();
    expect(causesOf({})).toBeUndefined();
    expect(causesIn({ RUNLOCK_RUN_CAUSE: '$(reboot)', RUNLOCK_RUN_DEPTH: '-1' })).toBeUndefined();
    expect(toCauseVariables(undefined)).toEqual({});
  });
});
