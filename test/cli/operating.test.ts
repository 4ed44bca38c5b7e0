// docs/operating.md: its commands as they stand, in their order, and what it says that they print.
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ageless, consoleSteps } from '../support/console-blocks.ts';
import { useAgent } from '../support/use-agent.ts';
import { RUNLOCK } from '../support/program.ts';

const steps = consoleSteps(readFileSync('docs/operating.md', 'utf8'));

const agent = useAgent({ name: 'web01' });
const folder = mkdtempSync(join(tmpdir(), 'runlock-operating-'));
beforeAll(() => {
  symlinkSync(RUNLOCK, join(folder, 'runlock'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** As a shell runs it that finds this build first. */
function run(command: string) {
  const { PATH = '' } = process.env;
  const env = { ...agent.env, PATH: `${folder}:${PATH}`, HOME: folder, RUNLOCK_CONFIG: '/dev/null' };
  return execa('sh', ['-c', command], { env, extendEnv: false, all: true, reject: false });
}

test('the page has the commands that it is about', () => {
  const words = new Set(steps.map(({ command }) => command.split(' ')[1]));
  expect([...words]).toEqual(['exec', 'status', 'release', 'history', 'freeze', 'thaw', 'doctor']);
});

test('every command ends as the page says, and prints what it says', { timeout: 120_000 }, async () => {
  for (const { command, status, prints } of steps) {
    const done = await run(command);
    expect({ command, status: done.exitCode, text: done.all }).toEqual({ command, status, text: done.all });
    for (const line of prints) expect(ageless(done.all), command).toContain(ageless(line));
  }
});
