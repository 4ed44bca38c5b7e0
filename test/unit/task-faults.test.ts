// What an agent publishes of files that it can't use.
import { expect, test } from 'vitest';
import { documentOf } from '../../src/agent/known.ts';
import type { Self } from '../../src/agent/known.ts';
import { publishedFaults } from '../../src/agent/task/faults.ts';

test.each([
  [
    '/etc/r/t.d/a.toml:2:9: not TOML: invalid value; a text needs quotes: SECRET = "hunter2"',
    { file: 'a.toml', why: 'line 2: not TOML: invalid value' },
  ],
  [
    "/etc/r/t.d/a.toml:7: unknown key 'x'; did you mean 'y'?",
    { file: 'a.toml', why: "line 7: unknown key 'x'" },
  ],
  ['/etc/r/t.d/a.toml: a task needs a command', { file: 'a.toml', why: 'a task needs a command' }],
  ['/etc/r: its group can write it; run chmod', { file: '/etc/r', why: 'its group can write it' }],
  ['anything else', { file: '', why: 'anything else' }],
])('%j: its name, its line and the reason, without the advice', (text, fault) => {
  expect(publishedFaults([text])).toEqual({ faults: [fault] });
});

test('their number and their length have bounds', () => {
  expect(publishedFaults([])).toEqual({});
  const many = Array.from({ length: 25 }, (_, i) => `/t/${'n'.repeat(300)}${i}.toml: ${'y'.repeat(999)}`);
  const { faults = [], moreFaults } = publishedFaults(many);
  expect([faults.length, moreFaults]).toEqual([20, 5]);
  for (const { file, why } of faults) expect([file.length, why.length]).toEqual([200, 200]);
});

test('they are in the document that an agent publishes, and not where all files can be used', () => {
  const published = (faults: readonly string[]) =>
    documentOf({} as Self, 'web01', {
      ...{ place: { kind: 'registered', node: 'web01' }, pause: undefined, failing: {} },
      ...{ serving: { kind: 'served' }, files: { tasks: [], faults } },
    });
  expect(published(['/t/a.toml: no; advice'])).toMatchObject({ faults: [{ file: 'a.toml', why: 'no' }] });
  expect(published([])).not.toHaveProperty('faults');
});
