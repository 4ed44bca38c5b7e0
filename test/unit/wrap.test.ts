// Text broken at words: what a hand wrote into Consul may be long.
import { expect, test } from 'vitest';
import { wrapLines } from '../../src/text/wrap.ts';

test('a line of very many words takes no longer than its length', () => {
  const text = 'word '.repeat(40_000).trim();
  const startedMs = performance.now();
  expect(wrapLines(text, undefined)).toEqual([text]);
  expect(performance.now() - startedMs).toBeLessThan(3_000);
});

test('a word that no longer fits begins the next line', () => {
  expect(wrapLines('one two three', 9, { lead: '- ', hang: 2 })).toEqual(['- one two', '  three']);
  expect(wrapLines('日本 日本', 8, { lead: '- ' })).toEqual(['- 日本', '日本']);
});
