// What stands behind the mark of a run that went out of service: whether its maintenance is still needed.
import { describe, expect, test } from 'vitest';
import type { Deps } from '../../src/platform/deps.ts';
import { covers, judge, setMark } from '../../src/gate/marks.ts';
import { outKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim, OutMark } from '../../src/lock/records.ts';
import { memoryNode } from '../support/memory-node.ts';

const claim = (more: Partial<Claim> = {}): Claim => ({
  ...{ node: 'web01', state: 'running', run: 'r1', since: '2026-01-01T00:00:00.000Z', command: 'true' },
  ...{ hold: 'forever', pid: 1, startTime: '1', bootId: 'b' },
  ...more,
});
const mark = (more: Partial<OutMark> = {}): OutMark => ({ services: ['web'], groups: ['prod/a'], ...more });
const seen = (one: Claim, locked = false) => [{ claim: one, locked }];
const ask = (one: OutMark | undefined, claims: ReturnType<typeof seen> | undefined, run = 'r2') =>
  judge(
    { run: 'r1', key: 'runlock/.gate/.out/web01/r1', index: 1, mark: one },
    { run, claims: new Map([['prod/a', claims]]) },
  );

describe('behind a mark stands', () => {
  test.each(['running', 'failed', 'interrupted', 'rebooting', 'abandoned', 'evicted', 'held'] as const)(
    'its run’s claim, whatever it says: %s',
    (state) => {
      expect(ask(mark(), seen(claim({ state })))).toMatchObject({ kind: 'claimed', group: 'prod/a' });
    },
  );

  test('the claim of a later run that has its maintenance from it, unless that is who asks', () => {
    const later = claim({ run: 'r3', maintenance: { services: ['web'] } });
    expect(ask(mark(), seen(later))).toMatchObject({ kind: 'claimed' });
    expect(ask(mark(), seen(later), 'r3')).toEqual({ kind: 'none' });
    expect(ask(mark(), seen(claim({ run: 'r3', maintenance: { services: ['db'] } })))).toEqual({
      kind: 'none',
    });
    expect(
      ask(
        mark({ services: [], node: true }),
        seen(claim({ run: 'r3', maintenance: { services: [], node: true } })),
      ),
    ).toMatchObject({ kind: 'claimed' });
  });

  test('a hand, where it names no group', () => {
    expect(ask(mark({ groups: [] }), [])).toEqual({ kind: 'by-hand' });
  });

  test('nobody knows what, where it or its claims can’t be read', () => {
    expect(ask(undefined, [])).toEqual({ kind: 'unknown' });
    expect(ask(mark(), undefined)).toEqual({ kind: 'unknown' });
  });

  test('nothing, where its claim is gone or another run’s, and once it is leaving or has left', () => {
    expect(ask(mark(), [])).toEqual({ kind: 'none' });
    expect(ask(mark(), seen(claim({ run: 'r3' })))).toEqual({ kind: 'none' });
    expect(ask(mark({ state: 'leaving' }), seen(claim()))).toEqual({ kind: 'none' });
    expect(ask(mark({ state: 'left', groups: [] }), [])).toEqual({ kind: 'none' });
  });
});

test('a mark is of its services, or of the node, and one that can’t be read of everything', () => {
  const of = (one: OutMark | undefined) =>
    [
      { scope: 'service', service: 'web' } as const,
      { scope: 'service', service: 'db' } as const,
      { scope: 'node', service: '' } as const,
    ].map((mode) => covers({ run: 'r1', key: 'runlock/.gate/.out/web01/r1', index: 1, mark: one }, mode));
  expect(of(mark())).toEqual([true, false, false]);
  expect(of(mark({ services: [], node: true }))).toEqual([false, false, true]);
  expect(of(undefined)).toEqual([true, true, true]);
});

describe('a run that goes out once more, by hand inside it,', () => {
  const key = outKeys('runlock', 'web01').mark('r1');
  const clock = { monotonicMs: () => 0 };

  /** What its mark is then; `before`: what it was. */
  async function again(before: OutMark, inside = true) {
    const { consul, put, at } = memoryNode();
    put(key, encode(before));
    const marker = { prefix: 'runlock', node: 'web01', run: 'r1' };
    const { signal } = new AbortController();
    const asked = { mark: mark({ services: ['db'], groups: [] }), inside, signal };
    const set = await setMark({ consul, deps: { clock } as Deps }, marker, asked);
    return { set, is: at(key) };
  }

  test('needs both from then on', async () => {
    const { set, is } = await again(mark());
    expect(is).toMatchObject({ services: ['db', 'web'], groups: ['prod/a'] });
    expect(set.before).toMatchObject({ services: ['web'] });
  });

  test.each(['left', 'leaving'] as const)(
    'needs that alone where its first one is over: %s',
    async (state) => {
      const { is } = await again(mark({ state }));
      expect(is).toMatchObject({ services: ['db'], groups: [] });
      expect(is).not.toHaveProperty('state');
    },
  );

  test('is not looked for where the run is not inside itself', async () => {
    expect((await again(mark(), false)).is).toMatchObject({ services: ['db'], groups: [] });
  });
});
