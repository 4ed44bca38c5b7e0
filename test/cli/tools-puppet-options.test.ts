// src/runner/outcome.ts says when puppet's 2 is a success: it must read puppet's options as the real puppet does.
import { expect, test } from 'vitest';
import { codeMeanings } from '../../src/runner/outcome.ts';
import { asPuppetReads } from '../support/puppet-options.ts';

const asRunlockReads = (words: readonly string[]) =>
  codeMeanings('puppet', words).ok.includes(2) ? 'detailed' : 'plain';

/** One line each: words that this has in it are split at blanks. */
const table = {
  detailed: [
    'agent -t|agent -tv|agent -vt|agent -dvt|agent -vvvt|agent -oDt|agent --test|agent --tes|agent --te',
    'agent --TEST|agent --detailed-exitcodes|agent --detailed-exit|agent --det|agent --detailed_exitcodes',
    'agent --noop -t|agent --no-noop --onetime --detailed-exitcodes --no-daemonize|agent --disable -t',
    'agent --disable why -t|agent -w 5 -t|agent --waitforcert 5 -t|agent --fqdn=x -t|agent --environment test -t',
    'apply -t x.pp|apply x.pp -t|apply -tv|apply -vtL|apply -tE foo|apply -te code|apply -test|apply - -t',
    'apply -e code --detailed-e|apply --debug --test|apply --execute=code -t|apply -l console -t|apply -lconsole -t',
    'device --detailed-exitcodes|device --det -v|device -t web01 --detailed-exitcodes',
  ],
  plain: [
    'agent -v|agent --verbose|agent -f -t|agent --fqdn -t|agent --job-id -t|agent --job_id -t|agent --job -t',
    'agent -w5t|agent -ft|agent -vf -t|agent --fqdn=-t|agent --onetime --environment test',
    'apply x.pp|apply -- -t|apply test|apply --environment test x.pp|apply -e -t|apply -et|apply -ve -t',
    'apply --cat -t|apply --catalog=-t|apply -c -t|apply -ct|apply --execute -t|apply --execute --test',
    'device -t web01|device -vt web01|device -t --detailed-exitcodes|device -p --detailed-exitcodes',
  ],
  // Puppet ends with 1 then, whatever runlock makes of it.
  refused: [
    'agent --t|agent --de|agent --no-test|agent --no-detailed-exitcodes|agent --test --no-detailed-exitcodes',
    'agent -test|agent t|agent --waitforcert -t|agent -x|apply --test=1|apply -t=1|apply --verbose=-t',
    'apply --environment -t|apply --logdest -t|apply -l -t|apply -lt|apply -t-|device --test',
  ],
};

const lines = Object.entries(table).flatMap(([said, rows]) =>
  rows.flatMap((row) => row.split('|').map((line) => ({ said, line, words: line.split(' ') }))),
);

test('puppet itself says of every line in this table what the table says', async () => {
  const said = await asPuppetReads(lines.map(({ words }) => words));
  expect(lines.map(({ line }, at) => `${line}: ${said[at] ?? ''}`)).toEqual(
    lines.map((row) => `${row.line}: ${row.said}`),
  );
});

test.each(lines.filter(({ said }) => said !== 'refused'))('puppet $line: $said', ({ words, said }) => {
  expect(asRunlockReads(words)).toBe(said);
});

/** Some take what follows for their value, or end the options: not all in every application. */
const FIRST = [
  ...['-l', '-f', '-e', '-w', '-c', '-p', '-vf', '-E', '-v', '--', 'x.pp'],
  ...[
    '--fqdn',
    '--execute',
    '--cat',
    '--target',
    '--libdir',
    '--disable',
    '--job-id',
    '--noop',
    '--digest=md5',
  ],
];
const SECOND = ['-t', '-vt', '--te', '--Detailed_Exit', 'test'];

test('whatever puppet takes of any two of these words, runlock reads as puppet does', async () => {
  const all = ['agent', 'apply', 'device'].flatMap((application) =>
    FIRST.flatMap((one) => SECOND.map((two) => [application, one, two])),
  );
  const said = await asPuppetReads(all);
  const taken = all.flatMap((words, at) => (said[at] === 'refused' ? [] : [{ words, said: said[at] }]));
  expect(taken.length).toBeGreaterThan(100);
  expect(taken.filter((row) => asRunlockReads(row.words) !== row.said)).toEqual([]);
});
