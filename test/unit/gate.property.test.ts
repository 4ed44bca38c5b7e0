// The health gate, for any fleet: never more taken out than the service bears.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decideGate, limitOf } from '../../src/gate/decide.ts';
import type { Bounds } from '../../src/gate/decide.ts';
import type { Instance } from '../../src/gate/instances.ts';

const nodes = Array.from({ length: 8 }, (_, i) => `web0${i}`);
const state = fc.constantFrom('healthy' as const, 'offline' as const);
const instance = fc.record({ node: fc.constantFrom(...nodes), state });
const fleet = fc
  .array(instance, { maxLength: 12 })
  .map((all) =>
    all.map((one, i): Instance => ({ ...one, serviceId: `${i}`, service: 'web', maintenance: [] })),
  );
const bounds: fc.Arbitrary<Bounds> = fc
  .record({
    maxOffline: fc.oneof(
      fc.integer({ min: 1, max: 12 }),
      fc.record({ percent: fc.integer({ min: 1, max: 100 }) }),
    ),
    minHealthy: fc.option(fc.integer({ min: 0, max: 12 }), { nil: undefined }),
  })
  .map(({ maxOffline, minHealthy }) => ({ maxOffline, ...(minHealthy !== undefined && { minHealthy }) }));

const offlineOf = (all: readonly Instance[]) => all.filter((one) => one.state === 'offline').length;
const without = (all: readonly Instance[], node: string) =>
  all.map((one): Instance => (one.node === node ? { ...one, state: 'offline' } : one));

describe('for any fleet', () => {
  test('nodes that go out one by one, each through the gate, never take out more than the limit', () => {
    fc.assert(
      fc.property(fleet, bounds, fc.shuffledSubarray(nodes), (all, bound, order) => {
        const limit = limitOf(bound.maxOffline, all.length);
        let now: readonly Instance[] = all;
        for (const node of order) {
          const verdict = decideGate({ service: 'web', instances: now, node, ...bound });
          if (!verdict.open) continue;
          const after = without(now, node);
          // A node that is ill already, or offers nothing, opens the gate whatever the others are.
          if (verdict.because === 'room') {
            expect(offlineOf(after)).toBeLessThanOrEqual(limit);
            expect(after.length - offlineOf(after)).toBeGreaterThanOrEqual(bound.minHealthy ?? 0);
          }
          now = after;
        }
      }),
    );
  });

  test('nodes that run count as much as nodes that are offline', () => {
    fc.assert(
      fc.property(fleet, bounds, fc.subarray(nodes.slice(1)), (all, bound, running) => {
        const question = { service: 'web', node: 'web00', ...bound };
        const counted = decideGate({ ...question, instances: all, running });
        const seen = decideGate({ ...question, instances: running.reduce(without, all) });
        expect(counted.because).toBe(seen.because);
        expect(counted.offline.length).toBe(seen.offline.length);
      }),
    );
  });

  test('no gate opens because one more is offline', () => {
    fc.assert(
      fc.property(fleet, bounds, fc.constantFrom(...nodes.slice(1)), (all, bound, peer) => {
        const question = { service: 'web', node: 'web00', ...bound };
        const before = decideGate({ ...question, instances: all });
        const after = decideGate({ ...question, instances: without(all, peer) });
        if (!before.open) expect(after.open).toBe(false);
      }),
    );
  });

  test('where somebody offers the service, a node that does not, or is ill itself, always passes', () => {
    fc.assert(
      fc.property(fleet, bounds, (all, bound) => {
        const own = all.filter(({ node }) => node === 'web00');
        const { open } = decideGate({ service: 'web', node: 'web00', instances: all, ...bound });
        // Nobody at all is no fleet: that may be a name that is wrong.
        if (all.length === 0) expect(open).toBe(false);
        else if (own.length === 0 || own.some((one) => one.state === 'offline')) expect(open).toBe(true);
      }),
    );
  });

  test('what nobody offers is closed unless allowed, and allowing it opens nothing else', () => {
    fc.assert(
      fc.property(fleet, bounds, fc.constantFrom(...nodes), (all, bound, node) => {
        const question = { service: 'web', node, instances: all, ...bound };
        const { open, because } = decideGate(question);
        expect(because === 'nowhere').toBe(all.length === 0);
        expect(decideGate({ ...question, allowUnknown: true }).open).toBe(open || all.length === 0);
      }),
    );
  });
});
