import { describe, expect, test } from 'vitest';
import type { Entry } from '../../src/consul.ts';
import { encode } from '../../src/lock/records.ts';
import { groupKeys } from '../../src/lock/layout.ts';
import type { Claim, ClaimState, Hold } from '../../src/lock/records.ts';
import {
  CLOCK_DIFFERENCE_MS,
  VANISHED_AFTER_MS,
  abandoned,
  decide,
  isLeft,
  observe,
  readSlots,
  standing,
} from '../../src/lock/slot.ts';
import type { Move, Sightings, Slot } from '../../src/lock/slot.ts';

const keys = groupKeys('runlock', 'prod/web');
const now = Date.UTC(2026, 2, 1, 12);
const at = (ms: number) => new Date(ms).toISOString();
const me = { node: 'web01', run: 'r1', session: 's1', slots: 1 };

function claim(changes: Partial<Claim> = {}): Claim {
  const runner = { pid: 4711, startTime: '1', bootId: 'b' };
  const running = { node: 'web02', state: 'running', run: 'r2', since: at(now - 1_000) } as const;
  return { ...runner, ...running, command: 'chef-client', hold: 'forever', ...changes };
}

function owned(changes: Partial<Claim> = {}, rest: Partial<Slot> & { index?: number } = {}): Slot {
  const { index = 7, ...others } = rest;
  return { slot: 0, owner: { claim: claim(changes), index }, ...others };
}

/** What `me` does about these slots; each sighting says for how long the claim was seen without a lock. */
function move(slots: Slot[], options: { n?: number; seenMs?: number; index?: number } = {}): Move {
  const { n = 1, seenMs, index = 7 } = options;
  const monotonicMs = 1_000_000;
  const sightings: Sightings = new Map(
    seenMs === undefined ? [] : slots.map(({ slot }) => [slot, { index, sinceMs: monotonicMs - seenMs }]),
  );
  return decide({ ...me, slots: n }, { slots, sightings, nowMs: now, monotonicMs });
}

describe('reading the slots', () => {
  const entry = (key: string, rest: Partial<Entry> = {}): Entry => ({
    ...{ key, value: encode(claim()), createIndex: 1, modifyIndex: 9 },
    ...rest,
  });

  test('joins lock and claim of each slot, in the order of their numbers', () => {
    const entries = [
      entry(keys.owner(10)),
      entry(keys.lock(2), { session: 's2' }),
      entry(keys.owner(2), { modifyIndex: 12 }),
      entry(keys.lock(0), { session: 's0' }),
    ];
    expect(readSlots('runlock', entries)).toEqual([
      { slot: 0, lockedBy: 's0' },
      { slot: 2, lockedBy: 's2', owner: { claim: { v: 1, ...claim() }, index: 12 } },
      { slot: 10, owner: { claim: { v: 1, ...claim() }, index: 9 } },
    ]);
  });

  test('a lock key that no session holds locks nothing, and is known by its index', () => {
    expect(readSlots('runlock', [entry(keys.lock(0))])).toEqual([{ slot: 0, strayLock: 9 }]);
  });

  test('keys that are of no slot are passed over', () => {
    const others = [keys.tail, keys.last, keys.queue('s'), `${keys.slotPrefix}0/notes`, 'elsewhere/x'];
    expect(
      readSlots(
        'runlock',
        others.map((key) => entry(key, { value: 'no record' })),
      ),
    ).toEqual([]);
  });

  test('a claim that cannot be read is an error, never an empty slot', () => {
    expect(() => readSlots('runlock', [entry(keys.owner(0), { value: 'x' })])).toThrow(/not a claim/);
  });
});

describe('what is seen of a claim without a lock', () => {
  test.each<ClaimState>(['running', 'evicted'])('%s: is remembered from the first sighting on', (state) => {
    const first = observe(new Map(), [owned({ state })], 100);
    expect(first).toEqual(new Map([[0, { index: 7, sinceMs: 100 }]]));
    expect(observe(first, [owned({ state })], 900)).toEqual(first);
  });

  test('starts anew when the claim has changed', () => {
    const before = new Map([[0, { index: 7, sinceMs: 100 }]]);
    expect(observe(before, [owned({}, { index: 8 })], 900)).toEqual(
      new Map([[0, { index: 8, sinceMs: 900 }]]),
    );
  });

  test.each<[string, Slot[]]>([
    ['its lock is back', [owned({}, { lockedBy: 's2' })]],
    ['it is gone', []],
    ['only its lock is left', [{ slot: 0, lockedBy: 's2' }]],
    ['its run has failed', [owned({ state: 'failed' })]],
    ['a signal ended its run', [owned({ state: 'interrupted' })]],
    ['it will reboot', [owned({ state: 'rebooting' })]],
    ['it is held', [owned({ state: 'held' })]],
    ['it was abandoned', [owned({ state: 'abandoned' })]],
  ])('is forgotten when %s', (_, slots) => {
    expect(observe(new Map([[0, { index: 7, sinceMs: 100 }]]), slots, 900)).toEqual(new Map());
  });

  test('each slot is remembered by itself', () => {
    const before = new Map([[0, { index: 7, sinceMs: 100 }]]);
    expect(observe(before, [owned(), owned({}, { slot: 1 })], 900)).toEqual(
      new Map([
        [0, { index: 7, sinceMs: 100 }],
        [1, { index: 7, sinceMs: 900 }],
      ]),
    );
  });
});

const STATES = [
  ...(['running', 'held', 'failed', 'interrupted', 'rebooting', 'abandoned', 'evicted'] as const),
];

test('the claim of a run that has given its slot back says so', () => {
  expect(STATES.filter((state) => isLeft(claim({ state })))).toEqual([
    ...['failed', 'interrupted', 'rebooting'],
  ]);
});

describe('the first in the queue', () => {
  test('takes a slot that has neither lock nor claim', () => {
    expect(move([])).toEqual({ kind: 'grant', slot: 0 });
    expect(move([{ slot: 0 }])).toEqual({ kind: 'grant', slot: 0 });
  });

  test('waits for a change while a lock is held, with a claim or without', () => {
    expect(move([{ slot: 0, lockedBy: 's2' }])).toEqual({ kind: 'wait' });
    expect(move([owned({}, { lockedBy: 's2' })], { seenMs: VANISHED_AFTER_MS })).toEqual({ kind: 'wait' });
    const past = { state: 'failed', hold: 1, heldUntil: at(now - 3_600_000) } as const;
    expect(move([owned(past, { lockedBy: 's2' })])).toEqual({ kind: 'wait' });
  });

  describe.each<ClaimState>(['running', 'evicted'])(
    'before a claim that says %s, without a lock,',
    (state) => {
      test.each<[number | undefined, number]>([
        [undefined, 60_000],
        [0, 60_000],
        [59_999, 1],
      ])('seen for %s ms, waits %d ms more', (seenMs, forMs) => {
        const seen = seenMs === undefined ? {} : { seenMs };
        for (const hold of ['forever', 'none', 3_600_000] as const)
          expect(move([owned({ state, hold })], seen)).toEqual({ kind: 'wait', forMs });
      });

      test.each<[Hold, 'take-over' | 'abandon']>([
        ['none', 'take-over'],
        ['forever', 'abandon'],
        [3_600_000, 'abandon'],
      ])('seen for 60 s, hold %s: %s', (hold, kind) => {
        const slot = owned({ state, hold });
        expect(move([slot], { seenMs: 60_000 })).toEqual({ kind, slot: 0, owner: slot.owner });
      });

      test('seen for 60 s, beside a lock key that no session holds: that one is named, so that it goes too', () => {
        expect(move([owned({ state }, { strayLock: 5 })], { seenMs: 60_000 })).toMatchObject({
          ...{ kind: 'abandon', strayLock: 5 },
        });
      });

      test('a sighting of another index counts for nothing', () => {
        expect(move([owned({ state })], { seenMs: 90_000, index: 6 })).toEqual({
          kind: 'wait',
          forMs: 60_000,
        });
      });

      test('`held until` decides nothing: the run may still be alive', () => {
        const slot = owned({ state, hold: 1_000, heldUntil: at(now - 3_600_000) });
        expect(move([slot])).toEqual({ kind: 'wait', forMs: 60_000 });
      });
    },
  );

  describe.each<ClaimState>(['failed', 'interrupted', 'rebooting', 'held', 'abandoned'])(
    'before a claim that says %s',
    (state) => {
      test('without an end waits for a change, however long it was seen', () => {
        expect(move([owned({ state })], { seenMs: 3_600_000 })).toEqual({ kind: 'wait' });
      });

      test('waits until the end, and 5 s for the difference of the clocks', () => {
        const until = (ms: number) => owned({ state, hold: 1_000, heldUntil: at(now + ms) });
        expect(move([until(0)])).toEqual({ kind: 'wait', forMs: CLOCK_DIFFERENCE_MS });
        expect(move([until(60_000)])).toEqual({ kind: 'wait', forMs: 65_000 });
        expect(move([until(-4_999)])).toEqual({ kind: 'wait', forMs: 1 });
      });

      test('takes over 5 s after the end', () => {
        const slot = owned({ state, hold: 1_000, heldUntil: at(now - 5_000) });
        expect(move([slot])).toEqual({ kind: 'take-over', slot: 0, owner: slot.owner });
      });
    },
  );

  test('goes back to its own claim, in any state, locked or not, and beyond its own slots', () => {
    for (const state of STATES) {
      const own = { node: 'web01', state, run: 'earlier' };
      expect(move([owned(own)])).toEqual({ kind: 'return' });
      expect(move([owned(own, { lockedBy: 's9' })])).toEqual({ kind: 'return' });
      expect(move([owned(own, { slot: 5 })])).toEqual({ kind: 'return' });
    }
  });

  test('adopts the slot when claim and lock name this very run and session', () => {
    const own = owned({ node: 'web01', run: 'r1' }, { lockedBy: 's1', slot: 2 });
    expect(move([own], { n: 3 })).toEqual({ kind: 'adopt', slot: 2, owner: own.owner });
  });

  test('its own lock without a claim is no reason to wait: it starts anew', () => {
    expect(move([{ slot: 0, lockedBy: 's1' }])).toEqual({ kind: 'return' });
    expect(move([{ slot: 0, lockedBy: 's9' }])).toEqual({ kind: 'wait' });
  });

  test.each<[string, Slot]>([
    ['the lock is another session’s', owned({ node: 'web01', run: 'r1' }, { lockedBy: 's9' })],
    ['there is no lock', owned({ node: 'web01', run: 'r1' })],
    ['the run is another', owned({ node: 'web01', run: 'r9' }, { lockedBy: 's1' })],
  ])('adopts nothing when %s', (_, slot) => {
    expect(move([slot])).toEqual({ kind: 'return' });
  });
});

describe('with several slots the first in the queue', () => {
  const busy = (slot: number) => owned({ node: `web1${slot}` }, { slot, lockedBy: 'other' });
  const until = (slot: number, ms: number) =>
    owned({ state: 'failed', hold: 1_000, heldUntil: at(now + ms) }, { slot });

  test('takes the lowest that is to be had', () => {
    expect(move([busy(0)], { n: 3 })).toEqual({ kind: 'grant', slot: 1 });
    expect(move([busy(0), busy(1)], { n: 3 })).toEqual({ kind: 'grant', slot: 2 });
    expect(move([busy(0), until(1, -5_000)], { n: 3 })).toMatchObject({ kind: 'take-over', slot: 1 });
  });

  test('takes none from its own N on', () => {
    expect(move([busy(0), busy(1)], { n: 2 })).toEqual({ kind: 'wait' });
    expect(move([busy(0), until(1, -5_000)], { n: 1 })).toEqual({ kind: 'wait' });
  });

  test('waits no longer than until the first can become due', () => {
    expect(move([until(0, 60_000), busy(1), until(2, 1_000)], { n: 3 })).toEqual({
      kind: 'wait',
      forMs: 6_000,
    });
    expect(move([busy(0), owned({}, { slot: 1 })], { n: 2, seenMs: 50_000 })).toEqual({
      kind: 'wait',
      forMs: 10_000,
    });
  });
});

describe('a claim that is marked abandoned', () => {
  test('keeps whose it is, and keeps others out for its hold from now on', () => {
    const marked = abandoned(claim({ hold: 3_600_000 }), now);
    const changes = { state: 'abandoned', since: at(now), heldUntil: at(now + 3_600_000) } as const;
    expect(marked).toEqual(claim({ hold: 3_600_000, ...changes }));
  });

  test('has no end with hold forever', () => {
    expect(abandoned(claim(), now)).toEqual(claim({ state: 'abandoned', since: at(now) }));
  });
});

describe('a slot looks to the run that holds it', () => {
  const own = { node: 'web01', run: 'r1' };

  test.each<[string, string, Slot | undefined]>([
    ['gone', 'nothing of it is there', undefined],
    ['gone', 'only its lock is there', { slot: 0, lockedBy: 's1' }],
    ['mine', 'claim and lock are mine', owned(own, { lockedBy: 's1' })],
    ['unlocked', 'there is no lock', owned(own)],
    ['unlocked', 'the lock is another session’s', owned(own, { lockedBy: 's9' })],
    ['unlocked', 'it was marked abandoned', owned({ ...own, state: 'abandoned' }, { lockedBy: 's1' })],
    ['unlocked', 'it was marked abandoned and has no lock', owned({ ...own, state: 'abandoned' })],
    ['unlocked', 'it says failed', owned({ ...own, state: 'failed' }, { lockedBy: 's1' })],
    ['evicted', 'an operator evicted it', owned({ ...own, state: 'evicted' }, { lockedBy: 's1' })],
    ['evicted', 'it was evicted and has no lock', owned({ ...own, state: 'evicted' })],
    ['foreign', 'another node has it', owned({ ...own, node: 'web02' }, { lockedBy: 's1' })],
    ['foreign', 'another run of this node has it', owned({ ...own, run: 'r9' }, { lockedBy: 's1' })],
    ['foreign', 'another run was evicted', owned({ state: 'evicted' })],
  ])('%s: %s', (kind, _, slot) => {
    const owner = slot?.owner;
    expect(standing(me, slot)).toEqual({ kind, ...(owner && { owner }) });
  });
});
