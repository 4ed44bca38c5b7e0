// What can never come true of itself, and because of which circles.
import { describe, expect, test } from 'vitest';
import { findCircles, findStuck, wayAround } from '../../src/view/stuck.ts';
import type { Node } from '../../src/view/stuck.ts';

const all = (...parts: number[]): Node => ({ kind: 'all', parts });
const any = (...parts: number[]): Node => ({ kind: 'any', parts });
const stuckIn = (...nodes: Node[]) => findStuck(nodes).flatMap((stuck, i) => (stuck ? [i] : []));
const circlesIn = (...nodes: Node[]) =>
  findCircles(nodes, findStuck(nodes)).map((circle) => [...circle].sort((a, b) => a - b));

describe('what may come true', () => {
  test('is what has no parts, all that is made of it, and any that has it as a part', () => {
    expect(stuckIn(any(), all(0), any(0, 4), all(0, 4), any(4))).toEqual([3, 4]);
  });

  test('is a circle with a way out of it, and no other', () => {
    // 0 and 1 need each other; 1 also could have 2, which is open.
    expect(stuckIn(all(1), any(0, 2), any())).toEqual([]);
    expect(stuckIn(all(1), all(0, 2), any())).toEqual([0, 1]);
    expect(stuckIn(all(1), any(0))).toEqual([0, 1]);
  });

  test('is not what waits for a circle, and is what a circle could do without', () => {
    expect(stuckIn(all(1), all(0), all(0), any(0, 4), any())).toEqual([0, 1, 2]);
  });
});

describe('a circle', () => {
  test('is what is stuck on itself, without those that only wait for it', () => {
    expect(circlesIn(all(1), all(0), all(0))).toEqual([[0, 1]]);
    expect(circlesIn(all(0), all(1))).toEqual([[0], [1]]);
    expect(circlesIn(all(1), all())).toEqual([]);
  });

  test('is one for all that are in it, and two where no way leads back', () => {
    expect(circlesIn(all(1), all(2), all(0, 3), all(4), all(3))).toEqual([
      [3, 4],
      [0, 1, 2],
    ]);
    expect(circlesIn(all(1), all(0, 2), all(1))).toEqual([[0, 1, 2]]);
  });

  test('is walked around the shortest way, from its start', () => {
    const nodes = [all(1, 2), all(3), all(0), all(4), all(0)];
    expect(wayAround(nodes, [0, 1, 2, 3, 4], 0)).toEqual([0, 2]);
    expect(wayAround(nodes, [0, 1, 2, 3, 4], 3)).toEqual([3, 4, 0, 1]);
    expect(wayAround([all(0)], [0], 0)).toEqual([0]);
    // Not outside of the circle, though it would be shorter.
    expect(wayAround([all(1, 3), all(2), all(0), all(0)], [0, 1, 2], 0)).toEqual([0, 1, 2]);
  });

  test('of a hundred thousand, in a row or all with all, takes linear time', { timeout: 60_000 }, () => {
    const long = Array.from({ length: 100_000 }, (_, i) => all((i + 1) % 100_000));
    expect(circlesIn(...long)).toHaveLength(1);
    expect(wayAround(long, [...long.keys()], 0)).toHaveLength(100_000);
    const hub = [any(...Array.from({ length: 100_000 }, (_, i) => i + 1))];
    const [circle, ...more] = circlesIn(...hub, ...Array.from({ length: 100_000 }, () => all(0)));
    expect([circle?.length, more]).toEqual([100_001, []]);
  });
});
