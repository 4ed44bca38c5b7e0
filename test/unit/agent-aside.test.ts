// Which requests of an inbox are attended to, where some can't be read.
import { expect, test } from 'vitest';
import { chooser } from '../../src/agent/aside.ts';
import type { OpenRequest } from '../../src/agent/inbox.ts';

const NOW = 1_000_000;
const request = (id: string): OpenRequest => ({ ref: { principal: 'ops', id }, order: 1 });
const many = (count: number, name = 'r') => Array.from({ length: count }, (_, i) => request(`${name}${i}`));
const ids = (requests: readonly OpenRequest[]) => requests.map(({ ref }) => ref.id);

test('more than may be open are attended to only once those before them have been read', () => {
  const choice = chooser();
  const all = many(130);
  expect(ids(choice.chosen(all, NOW))).toEqual(ids(all.slice(0, 100)));
  for (const { ref } of all.slice(0, 99)) choice.read(ref.id);
  expect(choice.chosen(all, NOW)).toHaveLength(100);
  choice.read('r99');
  const chosen = choice.chosen(all, NOW);
  expect(ids(chosen)).toEqual(ids(all.slice(0, 120)));
  expect(chosen.map(({ older }) => older)).toEqual(chosen.map((_, i) => i));
});

test('those that can not be read keep no other waiting, and do not count as open', () => {
  const choice = chooser();
  const open = [...many(250, 'junk'), request('real')];
  for (let looks = 0; looks < 3; looks += 1) {
    const chosen = choice.chosen(open, NOW);
    expect(chosen.length).toBeLessThanOrEqual(100);
    for (const { ref } of chosen) if (ref.id !== 'real') expect(choice.setAside(ref.id, NOW)).toBe(true);
  }
  expect(choice.chosen(open, NOW)).toEqual([{ ...request('real'), older: 0 }]);
});

test('one that is set aside is looked at again after a while, and is news only once', () => {
  const choice = chooser();
  const open = [request('a')];
  expect(choice.dueMs()).toBe(Infinity);
  expect(choice.setAside('a', NOW)).toBe(true);
  expect([choice.chosen(open, NOW), choice.chosen(open, NOW + 59_999)]).toEqual([[], []]);
  expect(choice.dueMs()).toBe(NOW + 60_000);
  expect(ids(choice.chosen(open, NOW + 60_000))).toEqual(['a']);
  expect(choice.setAside('a', NOW + 60_000)).toBe(false);
  choice.keep(new Set());
  expect(choice.dueMs()).toBe(Infinity);
  expect(choice.setAside('a', NOW)).toBe(true);
});

test('a flood of them is read twenty times a second at most', () => {
  const choice = chooser();
  const flood = many(10_000);
  for (const { ref } of flood) choice.setAside(ref.id, NOW);
  expect(choice.chosen(flood, NOW + 400_000).length).toBeGreaterThan(0);
  expect(choice.chosen(flood.slice(9_000), NOW + 440_000)).toEqual([]);
});
