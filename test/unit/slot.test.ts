import { describe, expect, test } from 'vitest';
import type { Entry } from '../../src/consul/consul.ts';
import { encode } from '../../src/lock/records.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import type { Claim, ClaimState, Hold, Runner } from '../../src/lock/records.ts';
import {
  CLOCK_DIFFERENCE_MS,
  VANISHED_AFTER_MS,
  abandoned,
  isElsewhere,
  isLeft,
  isOwn,
  observe,
  readSlots,
  standing,
  decide,
  decideDown,
} from '../../src/lock/decide.ts';
import type { Choice, Move, Sightings, Slot } from '../../src/lock/decide.ts';

const keys = groupKeys('runlock', 'prod/web');
const now = Date.UTC(2026, 2, 1, 12);
const at = (ms: number) => new Date(ms).toISOString();
const me = {
  node: 'web01',
  run: 'r1',
  session: 's1',
  slots: 1,
  runner: { pid: 1, startTime: '1', bootId: 'b' },
};

function claim(changes: Partial<Claim> = {}): Claim {
  const runner = { pid: 4711, startTime: '1', bootId: 'b' };
  const running = { node: 'web02', state: 'running', run: 'r2', since: at(now - 1_000) } as const;
  return { ...runner, ...running, command: 'chef-client', hold: 'forever', ...changes };
}

function owned(changes: Partial<Claim> = {}, rest: Partial<Slot> & { index?: number } = {}): Slot {
  const { index = 7, ...others } = rest;
  return { slot: 0, owner: { claim: claim(changes), index }, ...others };
}

/** Somebody has marked it just now. */
const noted = { missingSince: at(now) };

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
          expect(move([owned({ state, hold, ...noted })], seen)).toEqual({ kind: 'wait', forMs });
      });

      test.each<[Hold, 'take-over' | 'abandon']>([
        ['none', 'take-over'],
        ['forever', 'abandon'],
        [3_600_000, 'abandon'],
      ])('seen for 60 s, hold %s: %s', (hold, kind) => {
        const slot = owned({ state, hold });
        expect(move([slot], { seenMs: 60_000 })).toEqual({ kind, slot: 0, owner: slot.owner });
      });

      test('that nobody has marked, marks it, once', () => {
        const slot = owned({ state });
        expect(move([slot], { seenMs: 30_000 })).toEqual({ kind: 'notice', slot: 0, owner: slot.owner });
        expect(move([owned({ state, ...noted })], { seenMs: 30_000 })).toMatchObject({ kind: 'wait' });
        // Where another slot is to be had, that comes first.
        expect(move([slot], { n: 2 })).toEqual({ kind: 'grant', slot: 1 });
      });

      test('that was marked 60 s ago, and 5 s for the clocks, need not have seen it itself', () => {
        const since = (ms: number) => ({ state, hold: 'none', missingSince: at(now - ms) }) as const;
        expect(move([owned(since(64_999))])).toEqual({ kind: 'wait', forMs: 1 });
        expect(move([owned(since(65_000))])).toMatchObject({ kind: 'take-over' });
        expect(move([owned({ ...since(65_000), hold: 'forever' })])).toMatchObject({ kind: 'abandon' });
      });

      test('that was marked by a clock far ahead, goes by its own', () => {
        const ahead = owned({ state, hold: 'none', missingSince: at(now + 3_600_000) });
        expect(move([ahead], { seenMs: 59_999 })).toEqual({ kind: 'wait', forMs: 1 });
        expect(move([ahead], { seenMs: 60_000 })).toMatchObject({ kind: 'take-over' });
      });

      test('seen for 60 s, beside a lock key that no session holds: that is named, so it goes too', () => {
        expect(move([owned({ state }, { strayLock: 5 })], { seenMs: 60_000 })).toMatchObject({
          ...{ kind: 'abandon', strayLock: 5 },
        });
      });

      test('a sighting of another index counts for nothing', () => {
        expect(move([owned({ state, ...noted })], { seenMs: 90_000, index: 6 })).toEqual({
          kind: 'wait',
          forMs: 60_000,
        });
      });

      test('`held until` decides nothing: the run may still be alive', () => {
        const slot = owned({ state, hold: 1_000, heldUntil: at(now - 3_600_000), ...noted });
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

describe('which machine a run is on', () => {
  const [a, b] = ['a'.repeat(32), 'b'.repeat(32)];
  const on = (changes: Partial<Runner>): Runner => ({
    pid: 1,
    startTime: '1',
    bootId: 'x pid:[1]',
    ...changes,
  });

  test.each<[boolean, string, Partial<Runner>, Partial<Runner>]>([
    // Two containers of one host: they are as far apart as two hosts.
    [true, 'two machine-ids of one boot', { machine: a, host: 'h' }, { machine: b, bootId: 'x pid:[2]' }],
    [false, 'two machine-ids where one pid namespace is seen', { machine: a }, { machine: b }],
    [
      false,
      'one boot, in two namespaces',
      { machine: a, host: 'h' },
      { machine: a, host: 'i', bootId: 'x pid:[2]' },
    ],
    [false, 'one boot, without machine-ids', { host: 'h' }, { host: 'i', bootId: 'x pid:[2]' }],
    [true, 'two machine-ids', { machine: a, host: 'h' }, { machine: b, host: 'h', bootId: 'y' }],
    [
      false,
      'one machine-id, booted again under another name',
      { machine: a, host: 'h' },
      { machine: a, host: 'i', bootId: 'y' },
    ],
    [true, 'a machine-id on one side, two host names', { machine: a, host: 'h' }, { host: 'i', bootId: 'y' }],
    [false, 'a machine-id on one side, one host name', { machine: a, host: 'h' }, { host: 'h', bootId: 'y' }],
    [false, 'an older version on one side', { machine: a, host: 'h' }, { bootId: 'y' }],
  ])('elsewhere: %s, for %s', (elsewhere, _, me, other) => {
    expect(isElsewhere(on(me), on(other))).toBe(elsewhere);
    expect(isElsewhere(on(other), on(me))).toBe(elsewhere);
  });

  const there = { node: 'web01', bootId: 'y', machine: b };
  const here = { node: 'web01', runner: on({ machine: a }) };

  test('decides whose claim it is while somebody may be at work, and not when that has ended', () => {
    const own = STATES.filter((state) => isOwn(here, claim({ ...there, state })));
    // What was held there counted as its own too: `acquire` then gave 0 on both machines.
    expect(own).toEqual(['failed', 'interrupted', 'rebooting']);
    for (const state of STATES) {
      expect(isOwn(here, claim({ ...there, state, machine: a }))).toBe(true);
      expect(isOwn(here, claim({ ...there, state, node: 'web02' }))).toBe(false);
    }
  });

  test('the first in the queue follows such a run as it follows any other', () => {
    const since = { hold: 'none', missingSince: at(now - 65_000) } as const;
    const me1 = { ...me, runner: on({ machine: a }) };
    const sees = (changes: Partial<Claim>) =>
      decide(me1, {
        slots: [owned({ ...there, ...changes })],
        sightings: new Map(),
        nowMs: now,
        monotonicMs: 0,
      }).kind;
    expect(sees(since)).toBe('take-over');
    expect(sees(noted)).toBe('wait');
    expect(sees({ machine: a })).toBe('return');
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
    // A smaller N does not pass what stands beyond it, whether it runs or is kept.
    expect(move([busy(1)], { n: 1 })).toEqual({ kind: 'wait' });
    expect(move([owned({ state: 'failed' }, { slot: 1 })], { n: 1 })).toEqual({ kind: 'wait' });
    expect(move([busy(1), busy(7)], { n: 2 })).toEqual({ kind: 'wait' });
    expect(move([busy(1), busy(7)], { n: 3 })).toEqual({ kind: 'grant', slot: 0 });
  });

  test('clears what is past its hold beyond its own N, one at a time, and only what it has to', () => {
    const [over, taken] = [until(1, -5_000), busy(0)];
    expect(move([over], { n: 1 })).toEqual({ kind: 'remove', slot: 1, owner: over.owner });
    expect(move([over, until(4, -5_000)], { n: 1 })).toMatchObject({ kind: 'remove', slot: 4 });
    expect(move([over], { n: 2 })).toEqual({ kind: 'grant', slot: 0 });
    expect(move([taken, over], { n: 1 })).toEqual({ kind: 'wait' });
    const stray = { ...over, strayLock: 5 };
    expect(move([stray], { n: 1 })).toEqual({ kind: 'remove', slot: 1, owner: over.owner, strayLock: 5 });
  });

  test('marks what has vanished beyond its own N too, so that its hold begins', () => {
    expect(move([owned({}, { slot: 3 })], { n: 1, seenMs: 60_000 })).toMatchObject({
      kind: 'abandon',
      slot: 3,
    });
  });

  test('waits until so many can become due that fewer than its N are left', () => {
    expect(move([until(0, 1_000), until(1, 2_000), until(2, 3_000)], { n: 2 })).toEqual({
      kind: 'wait',
      forMs: 7_000,
    });
  });

  test('waits no longer than until the first can become due', () => {
    expect(move([until(0, 60_000), busy(1), until(2, 1_000)], { n: 3 })).toEqual({
      kind: 'wait',
      forMs: 6_000,
    });
    expect(move([busy(0), owned(noted, { slot: 1 })], { n: 2, seenMs: 50_000 })).toEqual({
      kind: 'wait',
      forMs: 10_000,
    });
  });
});

describe('a node whose claim stands in slot 2, and that uses fewer slots now', () => {
  /** What it does about the others. */
  function down(others: Slot[], { n = 1, seenMs = 0 } = {}): Choice {
    const monotonicMs = 1_000_000;
    const sightings: Sightings = new Map(
      others.map(({ slot }) => [slot, { index: 7, sinceMs: monotonicMs - seenMs }]),
    );
    return decideDown({ own: 2, slots: n }, { slots: others, sightings, nowMs: now, monotonicMs });
  }
  const failed = (slot: number, changes: Partial<Claim> = {}) =>
    owned({ state: 'failed', ...changes }, { slot });

  test('moves to the lowest free slot that it uses', () => {
    expect(down([])).toEqual({ kind: 'grant', slot: 0 });
    expect(down([failed(0)], { n: 2 })).toEqual({ kind: 'grant', slot: 1 });
  });

  test('waits for all who run, wherever, and for all who are kept below it', () => {
    for (const slot of [0, 1, 3, 9])
      expect(down([owned({}, { slot, lockedBy: 's2' })])).toEqual({ kind: 'wait' });
    expect(down([failed(1)])).toEqual({ kind: 'wait' });
    expect(down([owned({ state: 'held' }, { slot: 3 })])).toEqual({ kind: 'wait' });
  });

  test('waits for nobody who is kept above it: each would wait for the other', () => {
    for (const state of ['failed', 'interrupted', 'rebooting', 'abandoned'] as const)
      expect(down([failed(3, { state })])).toEqual({ kind: 'grant', slot: 0 });
  });

  test.each<ClaimState>(['running', 'evicted'])(
    'waits 60 s for one above it that says %s without a lock',
    (state) => {
      expect(down([failed(3, { state, ...noted })], { seenMs: 59_999 })).toEqual({ kind: 'wait', forMs: 1 });
      expect(down([failed(3, { state })], { seenMs: 60_000 })).toEqual({ kind: 'grant', slot: 0 });
    },
  );

  test('clears what is past its hold, and takes nothing over', () => {
    const over = failed(0, { hold: 1, heldUntil: at(now - 5_000) });
    expect(down([over])).toEqual({ kind: 'remove', slot: 0, owner: over.owner });
  });
});

describe('a claim that is marked abandoned', () => {
  test('keeps whose it is, and keeps others out for its hold from now on', () => {
    const marked = abandoned(claim({ hold: 3_600_000 }), now);
    const changes = { state: 'abandoned', since: at(now), heldUntil: at(now + 3_600_000) } as const;
    expect(marked).toEqual(claim({ hold: 3_600_000, ...changes }));
  });

  test('says no more since when its lock was missing', () => {
    expect(abandoned(claim(noted), now)).not.toHaveProperty('missingSince');
  });

  test('has no end with hold forever', () => {
    expect(abandoned(claim(), now)).toEqual(claim({ state: 'abandoned', since: at(now) }));
    expect(abandoned(claim({ publish: ['a'] }), now)).toEqual(abandoned(claim(), now));
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
    ['unlocked', 'a hand marked it as missing', owned({ ...own, ...noted }, { lockedBy: 's1' })],
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
