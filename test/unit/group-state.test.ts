// The state of a group, in one word.
import { describe, expect, test } from 'vitest';
import { blockedGroups, groupState } from '../../src/view/state.ts';
import type { StateFacts } from '../../src/view/state.ts';
import type { SlotView, WaiterView } from '../../src/view/report.ts';

const now = Date.UTC(2026, 2, 1, 12);
const [second, hour] = [1_000, 3_600_000];
const ago = (ms: number) => new Date(now - ms).toISOString();

const free: SlotView = { slot: 0, state: 'free', alive: false };
const slot = (state: SlotView['state'], alive = false, changes: Partial<SlotView> = {}): SlotView => ({
  ...{ slot: 0, state, alive, node: 'web01', since: ago(hour), run: 'r1', command: 'sh', hold: 'forever' },
  ...changes,
});
const queue: WaiterView[] = [
  {
    place: 1,
    node: 'web02',
    since: ago(hour),
    waitedMs: hour,
    command: 'sh',
    pid: 1,
    session: 's',
    run: 'r9',
  },
];
const returning = [
  {
    ...{ node: 'web01', slot: 0, run: 'r2', since: ago(hour), waitedMs: hour, pid: 1, session: 's' },
    why: 'w',
  },
];
const frozen = { at: '', by: 'ops', reason: 'disks', since: ago(hour) };
const stateOf = (changes: Partial<StateFacts>) =>
  groupState({ group: 'g', slots: [free], queue: [], ...changes }, { now });

describe('a group is', () => {
  test.each<[string, string, Partial<StateFacts>]>([
    ['idle', 'all is free', {}],
    ['running', 'a run has a slot', { slots: [slot('running', true)] }],
    ['running', 'an evicted run still has it', { slots: [slot('evicted', true)] }],
    ['running', 'a run claims its slot again', { slots: [{ slot: 0, state: 'locked', alive: true }] }],
    ['running', 'a node reboots', { slots: [slot('rebooting')] }],
    ['running', 'a node holds it by acquire', { slots: [slot('held')] }],
    ['running', 'one of two slots is kept, the other free', { slots: [free, slot('failed')] }],
    ['running', 'a hold is over', { slots: [slot('failed', false, { heldUntil: ago(6 * second) })] }],
    ['waiting', 'a run waits behind another', { slots: [slot('running', true)], queue }],
    ['waiting', 'a run waits, and a slot is free', { queue }],
    ['waiting', 'a node waits for its own kept claim', { slots: [slot('failed')], returning }],
    ['waiting', 'one of two slots still moves', { slots: [slot('failed'), slot('running', true)], queue }],
    ['frozen', 'it is idle and frozen', { frozen }],
    ['frozen', 'a run is under way meanwhile', { frozen, slots: [slot('running', true)] }],
    ['frozen', 'a run waits for the thaw', { frozen, queue }],
    ['blocked', 'its run failed', { slots: [slot('failed')] }],
    ['blocked', 'its run failed, and a run waits', { slots: [slot('failed')], queue }],
    ['blocked', 'thawing would not help', { slots: [slot('failed')], frozen, queue }],
    ['blocked', 'its run was interrupted', { slots: [slot('interrupted')] }],
    ['blocked', 'its run is abandoned', { slots: [slot('abandoned')] }],
    ['blocked', 'its run has lost its session', { slots: [slot('running')] }],
    ['blocked', 'its evicted run has', { slots: [slot('evicted')] }],
    ['blocked', 'its claim can’t be read', { slots: [{ slot: 0, state: 'unreadable', alive: false }] }],
    ['blocked', 'a stranger has the lock of a kept slot', { slots: [slot('failed', true)] }],
    ['blocked', 'all slots are kept', { slots: [slot('failed'), slot('abandoned')] }],
    [
      'blocked',
      'the hold ends, but not within the allowed difference of clocks',
      { slots: [slot('failed', false, { heldUntil: ago(4 * second) })] },
    ],
  ])('%s when %s', (state, _, changes) => {
    expect(stateOf(changes)).toBe(state);
  });

  test('frozen by a freeze that can’t be read', () => {
    const facts = { group: 'g', slots: [free], queue };
    expect(groupState(facts, { now, unreadableFreeze: true })).toBe('frozen');
  });
});

describe('a run that has a slot here and waits elsewhere', () => {
  const waits = (group: string) => slot('running', true, { also: [{ group, place: 1 }] });
  const here: StateFacts = { group: 'a', slots: [waits('b')], queue: [] };
  const withOther = (b: Partial<StateFacts> | undefined) => {
    const there = b ? [{ group: 'b', slots: [], queue: [], ...b }] : [];
    return groupState(here, { now, blocked: blockedGroups([here, ...there], { now }) });
  };

  test('blocks this group as well where it waits behind kept slots alone', () => {
    expect(withOther({ slots: [slot('failed')] })).toBe('blocked');
    expect(withOther({ slots: [slot('failed'), slot('running', true)] })).toBe('running');
    expect(withOther(undefined)).toBe('running');
  });

  test('is looked at once, whatever a hand wrote: a circle blocks nothing', () => {
    expect(withOther({ slots: [waits('a')] })).toBe('running');
  });

  test('blocks it around however many groups; a node that is back blocks nothing', () => {
    const names = Array.from({ length: 50_000 }, (_, i) => `g${i}`);
    const chain = names.map((group, i) => ({ group, slots: [waits(`g${i + 1}`)], queue: [] }));
    const blockedWith = (last: Partial<StateFacts>) =>
      blockedGroups([...chain, { group: 'g50000', slots: [slot('failed')], queue: [], ...last }], { now })
        .size;
    expect(blockedWith({})).toBe(50_001);
    expect(blockedWith({ returning })).toBe(0);
  });

  test('of groups that all wait for each other each is looked at once', { timeout: 60_000 }, () => {
    const names = Array.from({ length: 300 }, (_, i) => `g${i}`);
    const also = names.map((group) => ({ group, place: 1 }));
    const all = names.map((group) => ({ group, slots: [slot('running', true, { also })], queue: [] }));
    expect(blockedGroups(all, { now }).size).toBe(0);
    const kept = { group: 'g0', slots: [slot('failed')], queue: [] };
    expect(blockedGroups([kept, ...all.slice(1)], { now }).size).toBe(300);
  });
});
