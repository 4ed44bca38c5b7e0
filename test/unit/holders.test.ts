// Who has the slots of a group, from one look of a waiting run to the next.
import { expect, test } from 'vitest';
import { changesOf, observeSlots, toHolders } from '../../src/view/holders.ts';
import type { SlotView } from '../../src/view/report.ts';

const slot = (fields: Partial<SlotView> = {}): SlotView => ({
  ...{ slot: 0, state: 'running', alive: true, node: 'web01', run: 'r1', command: 'sh', hold: 'forever' },
  since: new Date(0).toISOString(),
  ...fields,
});
const now = { nowMs: 5_000, monotonicMs: 100_000 };

test('a lost session counts from when it was first seen, and anew for another run', () => {
  const first = observeSlots([], [slot({ alive: false })], 70_000);
  const later = observeSlots(first, [slot({ alive: false })], 100_000);
  expect(toHolders(later, now)).toEqual([
    {
      ...{ node: 'web01', state: 'running', command: 'sh', ageMs: 5_000 },
      gone: { forMs: 30_000, leftMs: 30_000, then: 'abandoned' },
    },
  ]);
  const other = observeSlots(later, [slot({ alive: false, run: 'r2', hold: 'none' })], 100_000);
  expect(toHolders(other, now)[0]?.gone).toEqual({ forMs: 0, leftMs: 60_000, then: 'next' });
});

test('who saw it first wrote that down: it counts from then, give or take clocks’ five seconds', () => {
  const slots = [slot({ alive: false, missingSince: new Date(-35_000).toISOString() })];
  const seen = observeSlots([], slots, 98_000);
  expect(toHolders(seen, now)[0]?.gone).toEqual({ forMs: 40_000, leftMs: 25_000, then: 'abandoned' });
});

test('a session that came back is forgotten', () => {
  const gone = observeSlots([], [slot({ alive: false })], 0);
  const back = observeSlots(gone, [slot()], 10_000);
  expect(toHolders(back, now)[0]).not.toHaveProperty('gone');
  expect(observeSlots(back, [slot({ alive: false })], 20_000)[0]?.goneSinceMs).toBe(20_000);
});

test('who has failed has no session, and has not lost one', () => {
  expect(observeSlots([], [slot({ state: 'failed', alive: false })], 0)[0]).not.toHaveProperty('goneSinceMs');
});

test.each<[string, Partial<SlotView>[], Partial<SlotView>[], string[]]>([
  ['nothing has changed', [{}], [{}], []],
  ['a claim that was written anew', [{}], [{ since: 'later' }], []],
  ['another run', [{}], [{ run: 'r2', node: 'web02' }], ['web02 is running sh']],
  ['a failure', [{}], [{ state: 'failed', alive: false, exitCode: 3 }], ['web01 failed (sh, exit 3)']],
  [
    'a lost session',
    [{}],
    [{ alive: false }],
    ['web01 lost its session, and sh may still be running there; the claim counts as abandoned in 1m'],
  ],
  [
    'a lost session of one without a hold',
    [{}],
    [{ alive: false, hold: 'none' }],
    ['web01 lost its session, and sh may still be running there; the next run may take the slot in 1m'],
  ],
  ['a session that came back', [{ alive: false }], [{}], ['web01 is running sh']],
  ['a mark on it', [{ alive: false }], [{ alive: false, state: 'abandoned' }], ['web01 abandoned (sh)']],
  ['its end', [{}], [], ['free']],
  ['its end, seen with slot 0 as it is shown', [{}], [{ state: 'free', alive: false }], ['free']],
  ['a free slot that is still free', [], [{ state: 'free', alive: false }], []],
  ['one more', [{}], [{}, { slot: 1, node: 'web02', run: 'r2' }], ['web02 is running sh']],
])('%s', (_, before, after, texts) => {
  const seen = [before, after].map((slots) => observeSlots([], slots.map(slot), 0));
  expect(changesOf(seen[0] ?? [], seen[1] ?? []).map(({ text }) => text)).toEqual(texts);
});
