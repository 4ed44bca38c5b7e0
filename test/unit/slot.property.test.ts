// The pure decisions about slots: what holds for every slot, every hold and every time.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { keptClaim } from '../../src/lock/run-record.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { deadAfterMs } from '../../src/lock/lease-state.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim, ClaimState, Hold, RunRecord } from '../../src/lock/records.ts';
import {
  CLOCK_DIFFERENCE_MS,
  VANISHED_AFTER_MS,
  decide,
  decideDown,
  abandoned,
  isLeft,
  missing,
  observe,
  readSlots,
  standing,
} from '../../src/lock/decide.ts';
import type { Seen, Slot } from '../../src/lock/decide.ts';

const keys = groupKeys('runlock', 'prod/web');
const NOW_MS = Date.UTC(2026, 2, 1, 12);
const at = (ms: number) => new Date(ms).toISOString();
const TEN_DAYS_MS = 864_000_000;
const STATES: readonly ClaimState[] = [
  ...(['running', 'held', 'failed', 'interrupted', 'rebooting', 'abandoned', 'evicted'] as const),
];

const holdMs = fc.integer({ min: 1, max: 86_400_000 });
const hold = fc.oneof<fc.Arbitrary<Hold>[]>(fc.constant('forever'), fc.constant('none'), holdMs);
const name = (letter: string) => fc.integer({ min: 0, max: 3 }).map((n) => `${letter}${n}`);
const claim: fc.Arbitrary<Claim> = fc
  .record({
    ...{ node: name('web'), run: name('r'), state: fc.constantFrom(...STATES), hold },
    until: fc.option(fc.integer({ min: -200_000, max: 200_000 }), { nil: undefined }),
    missing: fc.option(fc.integer({ min: -200_000, max: 200_000 }), { nil: undefined }),
  })
  .map(({ until, missing, ...fields }) => ({
    ...{ ...fields, since: at(NOW_MS), command: 'chef-client', pid: 1, startTime: '1', bootId: 'b' },
    ...(until !== undefined && { heldUntil: at(NOW_MS + until) }),
    ...(missing !== undefined && { missingSince: at(NOW_MS + missing) }),
  }));
const slotOf = (slot: number): fc.Arbitrary<Slot> =>
  fc
    .record({
      lockedBy: fc.option(name('s'), { nil: undefined }),
      claim: fc.option(claim, { nil: undefined }),
      index: fc.integer({ min: 1, max: 4 }),
    })
    .map(({ lockedBy, claim: found, index }) => ({
      slot,
      ...(lockedBy !== undefined && { lockedBy }),
      ...(found && { owner: { claim: found, index } }),
    }));
const slots = fc.tuple(slotOf(0), slotOf(1), slotOf(2), slotOf(3));
const runner = { pid: 1, startTime: '1', bootId: 'b' };
const me = fc.record({
  runner: fc.constant(runner),
  ...{ node: name('web'), run: name('r'), session: name('s'), slots: fc.integer({ min: 1, max: 4 }) },
});

/** Some things are rare. */
const MANY = { numRuns: 2_000 };

function withoutMark(claim: Claim): Claim {
  const bare: Claim & { missingSince?: string } = { ...claim };
  delete bare.missingSince;
  return bare;
}

/** Whether it was marked so long ago that its run counts as vanished. */
const isMarked = ({ missingSince }: Claim): boolean =>
  missingSince !== undefined && Date.parse(missingSince) <= NOW_MS - VANISHED_AFTER_MS - CLOCK_DIFFERENCE_MS;

/** Whether it keeps others out at the first look. */
const stays = ({ owner, lockedBy }: Slot): boolean => {
  if (!owner) return lockedBy !== undefined;
  const { state, heldUntil = at(NOW_MS) } = owner.claim;
  const mayRun =
    (state === 'running' || state === 'evicted') && !(owner.claim.hold === 'none' && isMarked(owner.claim));
  if (!mayRun && lockedBy === undefined && (state === 'running' || state === 'evicted')) return false;
  return lockedBy !== undefined || mayRun || Date.parse(heldUntil) > NOW_MS - CLOCK_DIFFERENCE_MS;
};

/** What a watcher knows that has seen the same slots for so long. */
const seenFor = (all: readonly Slot[], ms: number, nowMs = NOW_MS): Seen => ({
  ...{ slots: all, sightings: observe(new Map(), all, 0), nowMs, monotonicMs: ms },
});

describe('whatever the slots are, the first in the queue', () => {
  const seenMs = fc.integer({ min: 0, max: 120_000 });

  test('takes, marks, clears no slot that is locked or before its time; takes none beyond its own', () => {
    fc.assert(
      fc.property(me, slots, seenMs, (self, all, ms) => {
        const move = decide(self, seenFor(all, ms));
        if (move.kind === 'wait' || move.kind === 'return' || move.kind === 'adopt') return;
        const { lockedBy, owner } = all[move.slot] ?? {};
        expect(lockedBy).toBeUndefined();
        if (move.kind === 'grant' || move.kind === 'take-over') expect(move.slot).toBeLessThan(self.slots);
        expect(owner === undefined).toBe(move.kind === 'grant');
        if (!owner) return;
        const { node, state, heldUntil } = owner.claim;
        expect(node).not.toBe(self.node);
        if (move.kind === 'notice') expect(owner.claim.missingSince).toBeUndefined();
        if (state === 'running' || state === 'evicted')
          expect(move.kind === 'notice' || ms >= VANISHED_AFTER_MS || isMarked(owner.claim)).toBe(true);
        else expect(Date.parse(heldUntil ?? '')).toBeLessThanOrEqual(NOW_MS - CLOCK_DIFFERENCE_MS);
      }),
      MANY,
    );
  });

  test('takes a slot only while fewer than its N are taken, wherever they are', () => {
    fc.assert(
      fc.property(me, slots, seenMs, (self, all, ms) => {
        const move = decide(self, seenFor(all, ms));
        if (move.kind !== 'grant' && move.kind !== 'take-over') return;
        const others = all.filter(({ slot, owner, lockedBy }) => slot !== move.slot && (owner ?? lockedBy));
        expect(others.length).toBeLessThan(self.slots);
      }),
      MANY,
    );
  });

  test('gets a slot after as many moves as there are claims, if enough are past their holds', () => {
    fc.assert(
      fc.property(me, slots, (self, all) => {
        const foreign = all.filter(({ owner }) => owner?.claim.node !== self.node);
        const keeps = foreign.filter((slot) => stays(slot));
        let left: readonly Slot[] = foreign.filter(({ lockedBy }) => lockedBy !== self.session);
        fc.pre(left.length === foreign.length && keeps.length < self.slots);
        for (let moves = 0; moves <= all.length; moves++) {
          const move = decide(self, seenFor(left, 0));
          if (move.kind === 'grant' || move.kind === 'take-over') return;
          expect(move.kind).toBe('remove');
          left = left.filter(({ slot }) => move.kind === 'remove' && slot !== move.slot);
        }
        expect.unreachable('only removes');
      }),
      MANY,
    );
  });

  test('goes to its own claim or lock first of all, and adopts only what names run and session', () => {
    fc.assert(
      fc.property(me, slots, seenMs, (self, all, ms) => {
        const move = decide(self, seenFor(all, ms));
        const owns = all.some(
          ({ owner, lockedBy }) => owner?.claim.node === self.node || lockedBy === self.session,
        );
        expect(move.kind === 'return' || move.kind === 'adopt').toBe(owns);
        if (move.kind !== 'adopt') return;
        expect(all[move.slot]).toMatchObject({ lockedBy: self.session, owner: { claim: { run: self.run } } });
      }),
    );
  });

  test('that waits for a time has something to do when that time has come, and not before', () => {
    fc.assert(
      fc.property(me, slots, seenMs, (self, all, ms) => {
        const move = decide(self, seenFor(all, ms));
        if (move.kind !== 'wait') return;
        const after = (more: number) => decide(self, seenFor(all, ms + more, NOW_MS + more)).kind;
        const { forMs = Infinity } = move;
        expect(forMs).toBeGreaterThan(0);
        expect(after(Math.min(forMs, TEN_DAYS_MS) - 1)).toBe('wait');
        if (forMs < Infinity) expect(after(forMs)).not.toBe('wait');
      }),
      MANY,
    );
  });

  test('decides the same in whatever order the slots are listed', () => {
    fc.assert(
      fc.property(me, slots, seenMs, fc.nat({ max: 3 }), (self, all, ms, turn) => {
        // A node has one claim; with two, either is its own.
        fc.pre(all.filter(({ owner }) => owner?.claim.node === self.node).length < 2);
        const turned = [...all.slice(turn), ...all.slice(0, turn)];
        expect(decide(self, seenFor(turned, ms))).toEqual(decide(self, seenFor(all, ms)));
      }),
    );
  });
});

describe('whatever the slots are, a node whose claim stands in a slot beyond its own', () => {
  const own = fc.integer({ min: 1, max: 3 });
  const ms = fc.integer({ min: 0, max: 120_000 });
  const others = (all: readonly Slot[], slot: number) => all.filter((one) => one.slot !== slot);

  test('goes to a free slot below its N only while fewer than N others run, or are kept lower', () => {
    fc.assert(
      fc.property(own, slots, ms, fc.integer({ min: 1, max: 3 }), (mine, all, forMs, n) => {
        fc.pre(n <= mine);
        const rest = others(all, mine);
        const choice = decideDown({ own: mine, slots: n }, seenFor(rest, forMs));
        if (choice.kind !== 'grant') return;
        expect(choice.slot).toBeLessThan(n);
        expect(rest.find(({ slot }) => slot === choice.slot)?.owner).toBeUndefined();
        const lively = (slot: Slot) => {
          const state = slot.owner?.claim.state;
          if (slot.lockedBy !== undefined) return true;
          if (slot.slot < mine) return state !== undefined;
          if (state === 'held') return stays(slot);
          if (!slot.owner || isMarked(slot.owner.claim)) return false;
          return (state === 'running' || state === 'evicted') && forMs < VANISHED_AFTER_MS;
        };
        expect(rest.filter(lively).length).toBeLessThan(n);
      }),
      MANY,
    );
  });

  test('of several such nodes the lowest waits for none of the others', () => {
    fc.assert(
      fc.property(slots, fc.integer({ min: 1, max: 2 }), (all, n) => {
        const kept = all.filter(({ slot, owner, lockedBy }) => owner && lockedBy === undefined && slot >= n);
        const waiting = kept.filter(
          ({ owner }) => owner && (isLeft(owner.claim) || owner.claim.state === 'abandoned'),
        );
        const [lowest] = waiting;
        fc.pre(lowest !== undefined);
        const choice = decideDown({ own: lowest.slot, slots: n }, seenFor(others(waiting, lowest.slot), 0));
        expect(choice).toEqual({ kind: 'grant', slot: 0 });
      }),
      MANY,
    );
  });
});

test('what is seen of a claim lasts exactly as long as the claim stays as it is, without a lock', () => {
  const look = fc.record({ slot: slotOf(0), ms: fc.integer({ min: 0, max: 30_000 }) });
  fc.assert(
    fc.property(fc.array(look, { minLength: 1 }), (looks) => {
      let sightings: Seen['sightings'] = new Map();
      let nowMs = 0;
      let since: { index: number; sinceMs: number } | undefined;
      for (const { slot, ms } of looks) {
        nowMs += ms;
        sightings = observe(sightings, [slot], nowMs);
        const state = slot.owner?.claim.state;
        const counts = slot.lockedBy === undefined && (state === 'running' || state === 'evicted');
        if (!counts || !slot.owner) since = undefined;
        else if (since?.index !== slot.owner.index) since = { index: slot.owner.index, sinceMs: nowMs };
        expect(sightings.get(0)).toEqual(since);
      }
    }),
  );
});

describe('a run that was cut off is dead before anybody may follow', () => {
  /** By how much two hosts' wall clocks may differ. */
  const difference = fc.integer({ min: -CLOCK_DIFFERENCE_MS, max: CLOCK_DIFFERENCE_MS });
  const cutOff = fc.record({ claim, holdMs, lostMs: fc.nat({ max: 1_000_000 }), difference });

  test('with a hold that ends: it is marked, and taken over by another host’s clock', () => {
    fc.assert(
      fc.property(cutOff, fc.nat({ max: 100_000 }), ({ claim: some, ...it }, lateMs) => {
        const running: Claim = { ...some, state: 'running', hold: it.holdMs, node: 'web9' };
        const markedMs = it.lostMs + VANISHED_AFTER_MS + lateMs;
        const marked = abandoned(running, NOW_MS + markedMs);
        const slot: Slot = { slot: 0, owner: { claim: marked, index: 1 } };
        const deadMs = it.lostMs + deadAfterMs(it.holdMs);
        const self = { node: 'web0', run: 'r9', session: 's9', slots: 1, runner };
        const sees = decide(self, seenFor([slot], 0, NOW_MS + deadMs + it.difference));
        expect(sees.kind).toBe('wait');
      }),
    );
  });

  test('without a hold', () => {
    fc.assert(
      fc.property(claim, (some) => {
        const slot: Slot = {
          slot: 0,
          owner: { claim: { ...some, state: 'running', hold: 'none', node: 'web9' }, index: 1 },
        };
        const self = { node: 'web0', run: 'r9', session: 's9', slots: 1, runner };
        const unmarked = withoutMark(slot.owner?.claim ?? some);
        const noted = missing(unmarked, NOW_MS);
        const seen = (claim: Claim, ms: number, nowMs?: number) =>
          decide(self, seenFor([{ slot: 0, owner: { claim, index: 1 } }], ms, nowMs)).kind;
        expect(seen(unmarked, deadAfterMs('none'))).toBe('notice');
        expect(seen(noted, deadAfterMs('none'))).toBe('wait');
        expect(seen(noted, VANISHED_AFTER_MS)).toBe('take-over');
      }),
    );
  });

  test('whoever marks its claim, by any clock allowed, and whoever judges the mark by another', () => {
    fc.assert(
      fc.property(cutOff, hold, fc.nat({ max: 100_000 }), ({ claim: some, ...it }, how, lateMs) => {
        const running = withoutMark({ ...some, state: 'running', hold: how, node: 'web9' });
        // The mark is written after the lock was seen gone, and so after the run's last proof.
        const noted = missing(running, NOW_MS + it.lostMs + lateMs);
        const slot: Slot = { slot: 0, owner: { claim: noted, index: 1 } };
        const deadMs = Math.min(it.lostMs + deadAfterMs(how), TEN_DAYS_MS);
        const self = { node: 'web0', run: 'r9', session: 's9', slots: 1, runner };
        const sees = (ms: number) => decide(self, seenFor([slot], 0, NOW_MS + ms + it.difference)).kind;
        if (how !== 'none' && how !== 'forever') expect(sees(deadMs)).not.toBe('take-over');
        else if (how === 'none') expect(sees(deadMs)).toBe('wait');
        expect(sees(it.lostMs + lateMs + VANISHED_AFTER_MS + 2 * CLOCK_DIFFERENCE_MS)).toBe(
          how === 'none' ? 'take-over' : 'abandon',
        );
      }),
    );
  });
});

test('slots are read as they were written', () => {
  fc.assert(
    fc.property(slots, (all) => {
      const entries = all.flatMap(({ slot, lockedBy, owner }) => [
        ...(lockedBy === undefined
          ? []
          : [
              {
                key: keys.lock(slot),
                value: encode({ run: 'r' }),
                session: lockedBy,
                createIndex: 1,
                modifyIndex: 1,
              },
            ]),
        ...(owner
          ? [{ key: keys.owner(slot), value: encode(owner.claim), createIndex: 1, modifyIndex: owner.index }]
          : []),
      ]);
      const read = readSlots('runlock', entries.reverse());
      expect(read).toMatchObject(all.filter(({ lockedBy, owner }) => lockedBy !== undefined || owner));
    }),
  );
});

test('a slot is its holder’s only while claim and lock both name it', () => {
  fc.assert(
    fc.property(me, slotOf(0), (self, slot) => {
      const { kind } = standing(self, slot);
      const claimed = slot.owner?.claim;
      const isMine = claimed?.node === self.node && claimed.run === self.run;
      expect(kind === 'gone').toBe(!claimed);
      expect(kind === 'foreign').toBe(claimed !== undefined && !isMine);
      expect(kind === 'evicted').toBe(isMine && claimed.state === 'evicted');
      const isWhole = isMine && claimed.state === 'running' && claimed.missingSince === undefined;
      expect(kind === 'mine').toBe(isWhole && slot.lockedBy === self.session);
    }),
  );
});

test('a claim that stays after a run keeps others out until its hold has passed, and no longer', () => {
  const outcome = fc.constantFrom('failed', 'interrupted', 'timed-out', 'lost', 'rebooting');
  fc.assert(
    fc.property(claim, outcome, (some, how) => {
      const record: RunRecord = {
        ...{ node: some.node, run: some.run, outcome: how, command: 'chef-client', slot: 0 },
        ...{ endedAt: at(NOW_MS), waitedMs: 0, ranMs: 0 },
      };
      const running: { -readonly [K in keyof Claim]: Claim[K] } = { ...some, state: 'running' };
      delete running.heldUntil;
      const kept = keptClaim(running, record, NOW_MS);
      expect(kept === undefined).toBe(some.hold === 'none');
      if (!kept) return;
      const self = { node: 'another', run: 'r9', session: 's9', slots: 1, runner };
      const slot: Slot = { slot: 0, owner: { claim: kept, index: 1 } };
      const seen = decide(self, seenFor([slot], 0));
      const forMs = typeof some.hold === 'number' ? { forMs: some.hold + CLOCK_DIFFERENCE_MS } : {};
      expect(seen).toEqual({ kind: 'wait', ...forMs });
    }),
  );
});
