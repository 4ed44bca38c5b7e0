// What an agent knows changes under those who wait for it: no change is missed, and none is heard twice.
import { expect, test } from 'vitest';
import { changing } from '../../src/agent/watched.ts';

const signal = new AbortController().signal;

test('a change before the wait began is heard at once, one after it when it comes', async () => {
  const value = changing('a');
  const { change } = value.look();
  value.set('b');
  await value.past(change, { signal });
  const later = value.past(value.look().change, { signal }).then(() => value.look().value);
  value.set('c');
  expect(await later).toBe('c');
});

test('everybody who waits hears of it, also of a value that is the same', async () => {
  const value = changing('a');
  const waits = [1, 2].map(() => value.past(0, { signal }));
  value.set('a');
  expect(await Promise.all(waits)).toHaveLength(2);
});

test('a wait ends with its signal, before and while it waits', async () => {
  const value = changing('a');
  const over = new AbortController();
  const waits = value.past(0, over);
  over.abort(new Error('over'));
  await expect(waits).rejects.toThrow('over');
  await expect(value.past(0, over)).rejects.toThrow('over');
  value.set('b');
  await expect(value.past(0, over)).rejects.toThrow('over');
});
