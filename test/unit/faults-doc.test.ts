// docs/faults.md names a test for each fault, and leaves no file of faults out.
import { readFileSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';

const page = readFileSync('docs/faults.md', 'utf8');
const rows = page.split('\n').filter((line) => /^\| (?!fault|---)/.test(line));

const named = rows.map((row) => {
  const cells = row.split(' | ');
  const tests = (cells.at(-1) ?? '').replace(/ \|$/, '').split('<br>');
  return { fault: cells[0] ?? '', tests: tests.filter((one) => !one.startsWith('and, by hand')) };
});

const sourceOf = (file: string) =>
  readFileSync(file.includes('/') ? `test/${file}.test.ts` : `test/faults/${file}.test.ts`, 'utf8');

/** `describe › test`, or a test alone: each where the file has it, in that order. */
function isThere(source: string, name: string): boolean {
  let at = 0;
  return name.split(' › ').every((part) => (at = source.indexOf(part, at) + 1) > 0);
}

test.each(named)('$fault: its tests are there', ({ tests }) => {
  expect(tests.length).toBeGreaterThan(0);
  for (const one of tests) {
    const [, file, name] = /^`([\w/-]+)`: (.+)$/.exec(one) ?? [];
    if (file === undefined || name === undefined) throw new Error(`names no test: ${one}`);
    expect(isThere(sourceOf(file), name), one).toBe(true);
  }
});

test('every file of faults is named', () => {
  for (const file of readdirSync('test/faults'))
    expect(page).toContain(`\`${file.replace('.test.ts', '')}\`:`);
});
