// Runs whose output goes into a file of their host, as the agent starts them.
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

function setUp() {
  const { folder } = stage();
  const file = `${folder}/run.log`;
  const { exec, start } = groupOf(agent);
  const words = (...script: string[]) => ['--log-file', file, '--', 'sh', '-c', ...script];
  return {
    file,
    start,
    run: (script: string) => exec('web01', ...words(script)),
    text: () => readFileSync(file, 'utf8'),
    words,
  };
}

test('stdout and stderr go into the file, and the exit code is the command’s', async () => {
  const { run, text } = setUp();
  const { status, stdout } = await run('echo out; echo err >&2; exit 3');
  expect({ status, stdout }).toEqual({ status: 3, stdout: '' });
  expect(text().split('\n').sort()).toEqual(['', 'err', 'out']);
});

test('a daemon that keeps the output open does not keep the run', async () => {
  const { run, text } = setUp();
  const startedMs = Date.now();
  expect((await run('sleep 20 & echo done')).status).toBe(0);
  expect(Date.now() - startedMs).toBeLessThan(10_000);
  expect(text()).toBe('done\n');
});

test('40 MB of output: 16 MiB are kept, the beginning and the end', async () => {
  const { run, file, text } = setUp();
  expect((await run('seq 1 5000000')).status).toBe(0);
  expect(statSync(file).size).toBeLessThan(16 * 1_048_576 + 100);
  expect(text().slice(0, 6)).toBe('1\n2\n3\n');
  expect(text().slice(-16)).toBe('4999999\n5000000\n');
  expect(text()).toMatch(/\n\[runlock: \d+ bytes (?:are left out|are missing) here/);
});

test('a run that is told to stop writes what its command still says', async () => {
  const { start, text, words } = setUp();
  const run = start(
    'web01',
    '-v',
    ...words('trap "echo stopping; exit 1" TERM; echo up; while :; do sleep 0.05; done'),
  );
  await run.says(/acquired slot/);
  await expect.poll(text).toBe('up\n');
  run.signal('SIGTERM');
  expect((await run.ended).status).toBe(1);
  expect(text()).toContain('stopping\n');
});

test('a file that others can write: 78, and nothing is started', async () => {
  const { run, file, text } = setUp();
  writeFileSync(file, '');
  chmodSync(file, 0o666);
  const { status, stderr } = await run('echo ran');
  expect(status).toBe(78);
  expect(stderr).toContain(`the log ${file} can't be written`);
  expect(text()).toBe('');
});
