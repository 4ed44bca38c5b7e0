// A bounded number of places.
import { expect, test } from 'vitest';
import { places } from '../../src/agent/places.ts';

const { signal } = new AbortController();

/** Work that goes on until it is told to end. */
function work() {
  const begun: string[] = [];
  const ends = new Map<string, () => void>();
  const named = (name: string) => async () => {
    begun.push(name);
    await new Promise<void>((resolve) => ends.set(name, resolve));
    return name;
  };
  return { begun, named, end: (name: string) => ends.get(name)?.() };
}
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('no more work than there are places goes on at once, and what waits follows in its order', async () => {
  const { begun, named, end } = work();
  const two = places(2);
  const all = ['a', 'b', 'c', 'd'].map((name) => two.inside(named(name), { signal }));
  await settled();
  expect(begun).toEqual(['a', 'b']);
  expect(two.take()).toBe(false);
  end('b');
  await settled();
  expect(begun).toEqual(['a', 'b', 'c']);
  for (const name of ['a', 'c']) end(name);
  await settled();
  end('d');
  expect(await Promise.all(all)).toEqual(['a', 'b', 'c', 'd']);
  expect([two.take(), two.take(), two.take()]).toEqual([true, true, false]);
});

test('work that fails gives its place back', async () => {
  const one = places(1);
  const fails = one.inside(() => Promise.reject(new Error('broken')), { signal });
  const next = one.inside(() => Promise.resolve('done'), { signal });
  await expect(fails).rejects.toThrow('broken');
  expect(await next).toBe('done');
});

test('who gives up waiting neither works nor keeps a place', async () => {
  const { begun, named, end } = work();
  const one = places(1);
  const first = one.inside(named('a'), { signal });
  const leaves = new AbortController();
  const second = one.inside(named('b'), { signal: leaves.signal });
  leaves.abort(new Error('enough'));
  await expect(second).rejects.toThrow('enough');
  await expect(one.inside(named('c'), { signal: leaves.signal })).rejects.toThrow('enough');
  end('a');
  await first;
  expect(await one.inside(() => Promise.resolve('d'), { signal })).toBe('d');
  expect(begun).toEqual(['a']);
});
