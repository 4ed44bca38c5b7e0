// The secret that marks a run's processes, and the public id that is made from it.
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { MARK_VARIABLE, markValue, newRun, noncesOf, runIdOf } from '../../src/process/process-tree.ts';

const environment = (...entries: string[]) => Buffer.from(entries.map((entry) => `${entry}\0`).join(''));
const [a, b] = ['a'.repeat(32), 'b'.repeat(32)];

test('the id is made from the nonce, shows nothing of it, and no two runs share one', async () => {
  const runs = await Promise.all(Array.from({ length: 100 }, newRun));
  for (const { id, nonce } of runs) {
    expect(nonce).toMatch(/^[0-9a-f]{32}$/);
    expect(id).toMatch(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    expect(createHash('sha256').update(nonce).digest('hex')).toContain(id.replaceAll('-', ''));
    expect(id.replaceAll('-', '')).not.toBe(nonce);
    expect(runIdOf(nonce)).toBe(id);
  }
  expect(new Set(runs.map(({ nonce }) => nonce)).size).toBe(100);
});

test('a run inside another carries the marks of both, the outer one first', () => {
  expect(markValue(b, undefined)).toBe(b);
  expect(markValue(b, a)).toBe(`${a}:${b}`);
});

test('what a hand wrote into the variable is not handed on', () => {
  expect(markValue(b, `rubbish:${a}::../x`)).toBe(`${a}:${b}`);
});

test.each([
  ['alone', [`${MARK_VARIABLE}=${a}`], [a]],
  ['among others', ['PATH=/bin', `${MARK_VARIABLE}=${a}:${b}`, 'X=y'], [a, b]],
  ['as the end of another name', [`X${MARK_VARIABLE}=${a}`], []],
  ['inside a value', [`X=1 ${MARK_VARIABLE}=${a}`], []],
  ['after such a value', [`X=${MARK_VARIABLE}=${a}`, `${MARK_VARIABLE}=${b}`], [b]],
  ['cut short', [`${MARK_VARIABLE}=${a.slice(1)}`], []],
  ['with more behind it', [`${MARK_VARIABLE}=${a}0`], []],
  ['nowhere', ['PATH=/bin'], []],
])('the mark is read %s', (_, entries, nonces) => {
  expect(noncesOf(environment(...entries))).toEqual(nonces);
});

test('an environment whose last entry has no end is read as well', () => {
  expect(noncesOf(Buffer.from(`${MARK_VARIABLE}=${a}`))).toEqual([a]);
});
