// Long random histories of a group: many nodes, several slots, every hold, every fault, and the promises after each event.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Hold } from '../../src/lock/records.ts';
import { walk } from '../model/walk.ts';
import type { Event } from '../model/walk.ts';
import { noFaults } from '../model/world.ts';
import type { Faults, World } from '../model/world.ts';

const EVENTS = 250;
const often: Faults = {
  ...{
    expire: EVENTS,
    crash: 5,
    lose: EVENTS,
    late: EVENTS,
    leave: 5,
    fail: EVENTS,
    stop: EVENTS,
    change: 0,
    second: 0,
    evict: 10,
  },
  ...{ clear: EVENTS, deleteClaim: 0, deleteLock: EVENTS, strayLock: EVENTS, freeze: 3, again: EVENTS },
};

const hold = fc.oneof<fc.Arbitrary<Hold>[]>(
  fc.constant('forever'),
  fc.constant('none'),
  fc.integer({ min: 1, max: 300_000 }),
);
const process = fc.record({
  node: fc.integer({ min: 0, max: 5 }).map((n) => `n${n}`),
  hold,
  slots: fc.integer({ min: 1, max: 4 }),
  aheadMs: fc.integer({ min: 0, max: 5_000 }),
  runs: fc.integer({ min: 5, max: 20 }),
  acquires: fc.boolean(),
});
type Drawn = World['processes'][number];

/** What is held has a hold, and one process of a node works in it. */
const mayAcquire = ({ node, hold, acquires }: Drawn, i: number, all: readonly Drawn[]): boolean =>
  acquires === true &&
  hold !== 'none' &&
  !all.slice(0, i).some((other) => other.node === node && other.acquires);
/** All processes of a node have one host's clock. */
const clockOf = ({ node, aheadMs }: Drawn, all: readonly Drawn[]) => ({
  aheadMs: all.find((other) => other.node === node)?.aheadMs ?? aheadMs,
});
const processes = fc
  .array(process, { minLength: 2, maxLength: 6 })
  .map((all) => all.map((one, i) => ({ ...one, ...clockOf(one, all), acquires: mayAcquire(one, i, all) })));

/** Most steps follow at once, some after a while, some after so long that others may follow. */
const ms = fc.oneof(
  { weight: 16, arbitrary: fc.constant(0) },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 5_000 }) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 70_000 }) },
);
const event: fc.Arbitrary<Event> = fc.record({
  // Two are quick, the others so slow that they are often believed dead.
  who: fc.oneof(
    { weight: 12, arbitrary: fc.nat({ max: 1 }) },
    { weight: 4, arbitrary: fc.nat({ max: 5 }) },
    { weight: 2, arbitrary: fc.constant(-1) },
  ),
  // The first step is the one without a fault: most runs should get somewhere.
  which: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, { weight: 2, arbitrary: fc.nat({ max: 30 }) }),
  ms,
});

const worldOf = (all: World['processes'], faults: Faults): World => ({ processes: all, faults, tickMs: 0 });

function expectKept(world: World, events: readonly Event[]): void {
  const { broken, labels } = walk(world, events);
  expect(broken, `after:\n  ${labels.join('\n  ')}`).toBeUndefined();
}

test('whatever fails, the promises are kept', () => {
  const events = fc.array(event, { minLength: 50, maxLength: EVENTS, size: 'max' });
  fc.assert(
    fc.property(processes, events, (all, happened) => expectKept(worldOf(all, often), happened)),
    { numRuns: 60 },
  );
});

test('without faults every run ends well, and leaves only its record and the queue’s marks', () => {
  const order = fc.array(fc.nat({ max: 6 }), { minLength: 1_000, maxLength: 1_000, size: 'max' });
  fc.assert(
    fc.property(fc.array(process, { minLength: 2, maxLength: 6 }), order, (all, turns) => {
      const once = all.map((one, i) => ({ ...one, node: `n${i}`, runs: 1 }));
      // A command that runs has two steps: it looks, and it ends. Everything else has one.
      const events = turns.map((who) => ({ who: who % once.length, which: 1, ms: 0 }));
      const { state } = walk(worldOf(once, noFaults), events);
      const left = ['.last', ...once.map(({ node }) => `.runs/${node}`), '.tail'];
      expect(state.store.entries.map(({ key }) => key).sort()).toEqual(left.map((key) => `p/g/${key}`));
    }),
    { numRuns: 15 },
  );
});
