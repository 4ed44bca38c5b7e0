// Every state of small worlds: two or three processes, one fault of each kind at any moment.
import { describe, expect, test, vi } from 'vitest';
import { configurations, toWorld } from './configurations.ts';
import type { Shape } from './configurations.ts';
import { STUCK, explore } from './explore.ts';

/** Seconds on a machine of its own; a busy one may take its time. */
vi.setConfig({ testTimeout: 600_000 });

const all: [string, Shape][] = Object.entries(configurations);

describe('in every state that can be reached the promises are kept, and a quiet end can be reached', () => {
  test.each(all)('%s', (_, shape) => {
    const { outcome, quiet } = explore(toWorld(shape));
    expect(outcome).toEqual({ kind: 'kept' });
    expect(quiet).toBeGreaterThan(0);
  });
});

test('a broken promise comes with what led to it, by the names of the transactions', () => {
  const { outcome } = explore(toWorld({ nodes: ['n0', 'n1'], faults: { deleteClaim: 1, deleteLock: 1 } }));
  expect(outcome).toMatchObject({ kind: 'broken', promise: 'promise 1: more runs at once than slots' });
  const trace = outcome.kind === 'broken' ? outcome.trace : [];
  expect(trace).toContain('a hand deletes p/g/.slot/0/lock');
  expect(trace.at(-1)).toMatch(
    /^n1 \(r1\) grant slot 0: done; n1 \(r1\) is granted: its command starts in slot 0/,
  );
});

test('an operator who clears a claim without a look at its node can let two runs overlap', () => {
  const shape = { nodes: ['n0', 'n1'], trusting: true, faults: { clear: 1, expire: 1 } };
  expect(explore(toWorld(shape)).outcome).toMatchObject({
    kind: 'broken',
    promise: 'promise 1: more runs at once than slots',
  });
});

test('a wait that nothing ends is found', () => {
  // Nobody ever looks after the claim of a node that fails and does not come again.
  const world = toWorld({ nodes: ['n0', 'n1'] });
  const mutate: typeof world.mutate = (name, steps) =>
    name === 'release' ? steps.filter(({ operation }) => !operation.key.endsWith('owner')) : steps;
  const { outcome } = explore({ ...world, mutate, trusting: true });
  expect(outcome).toMatchObject({ kind: 'broken', promise: STUCK });
});

test('an exploration that is cut short says so, and promises nothing', () => {
  expect(explore(toWorld(configurations.sessions), { maxStates: 100 }).outcome).toEqual({
    kind: 'unfinished',
  });
});
