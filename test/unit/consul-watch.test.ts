// The one rule for the index of a blocking query.
import { describe, expect, test } from 'vitest';
import { lookPast, watchUntil } from '../../src/consul/watch.ts';
import type { Past } from '../../src/consul/watch.ts';

/** Answers with these indexes in turn, and keeps what each look was asked with. */
function store(...indexes: readonly number[]) {
  const asked: Past[] = [];
  const read = (past: Past) => {
    asked.push(past);
    const index = indexes[asked.length - 1];
    if (index === undefined) throw new Error('one look too many');
    return Promise.resolve({ index, look: asked.length });
  };
  return { asked, read };
}

describe('a look', () => {
  test('past an index waits for a change, for as long as it is told', async () => {
    const { asked, read } = store(8);
    expect(await lookPast(read, 7, 500)).toEqual({ index: 8, look: 1 });
    expect(asked).toEqual([{ index: 7, waitMs: 500 }]);
  });

  test('past nothing answers at once, however long it might wait', async () => {
    const { asked, read } = store(8);
    await lookPast(read, 0, 500);
    expect(asked).toEqual([{}]);
  });

  test('that finds an index before its own is followed by one that waits for nothing', async () => {
    const { read } = store(3);
    expect(await lookPast(read, 7)).toEqual({ index: 0, look: 1 });
  });
});

describe('a watch', () => {
  test('looks at once, then past what it saw, until it has what it looks for', async () => {
    const { asked, read } = store(5, 6, 9);
    expect(await watchUntil(read, ({ look }) => (look === 3 ? 'done' : undefined))).toBe('done');
    expect(asked).toEqual([{}, { index: 5 }, { index: 6 }]);
  });

  test('starts anew in a store that is another one', async () => {
    const { asked, read } = store(90, 4, 5);
    await watchUntil(read, ({ look }) => look === 3 || undefined);
    expect(asked).toEqual([{}, { index: 90 }, {}]);
  });

  test('begins past what its caller has seen, and asks for the longest wait before each look', async () => {
    const { asked, read } = store(7, 8);
    let leftMs = 300;
    const decide = ({ look }: { look: number }) => look === 2 || undefined;
    await watchUntil(read, decide, { from: 7, waitMs: () => (leftMs -= 100) });
    expect(asked).toEqual([
      { index: 7, waitMs: 200 },
      { index: 7, waitMs: 100 },
    ]);
  });

  test('takes false for an answer, and rests while its caller works', async () => {
    const { asked, read } = store(1, 2);
    const order: string[] = [];
    const watched = watchUntil(read, async ({ look }) => {
      await Promise.resolve();
      order.push(`${asked.length} asked, ${look} seen`);
      return look === 2 ? false : undefined;
    });
    expect(await watched).toBe(false);
    expect(order).toEqual(['1 asked, 1 seen', '2 asked, 2 seen']);
  });

  test('ends with what its read, or its caller, throws', async () => {
    const broken = new Error('no');
    await expect(
      watchUntil(
        () => Promise.reject(broken),
        () => true,
      ),
    ).rejects.toBe(broken);
    const { read } = store(1);
    const decide = () => {
      throw broken;
    };
    await expect(watchUntil(read, decide)).rejects.toBe(broken);
  });
});
