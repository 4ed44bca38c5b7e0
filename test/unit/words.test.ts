// What src says to people keeps to plain words: phrases that had to be read twice stay out.
import { readFileSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';

const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((name) =>
  name.endsWith('.ts'),
);

/** Lines of code, without comments. */
const lines = files.flatMap((name) =>
  readFileSync(`src/${name}`, 'utf8')
    .split('\n')
    .flatMap((line, i) =>
      /^\s*(?:\/\/|\*|\/\*)/.test(line) ? [] : [`src/${name}:${i + 1}: ${line.trim()}`],
    ),
);

test.each([
  'stands still',
  'nobody knows',
  'someone clears it',
  'someone thaws',
  'its next good run',
  'is free again',
  'is about to be granted',
  'others may be before',
  'no time at all',
  'all is well',
  'to be had',
  'longest run of the command',
  'from TERM to KILL',
  'does CONSUL_HTTP_ADDR name',
  'is no command',
  'is no log format',
  'in none of the folders',
  'trying again: ',
])('nothing says %j', (phrase) => {
  expect(lines.filter((line) => line.includes(phrase))).toEqual([]);
});
