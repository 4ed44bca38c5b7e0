// docs/operating.md: its commands as they stand, in their order, and what it says that they print.
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { RUNLOCK } from '../support/program.ts';

interface Step {
  readonly command: string;
  readonly status: number;
  /** Lines that it prints, among others. */
  readonly prints: string[];
}

const steps: Step[] = [];
for (const [, block = ''] of readFileSync('docs/operating.md', 'utf8').matchAll(/```console\n(.*?)```/gs)) {
  for (const line of block.trimEnd().split('\n')) {
    const [, command, status = '0'] = /^\$ (.+?)(?: {3}# (\d+))?$/.exec(line) ?? [];
    if (command === undefined) steps.at(-1)?.prints.push(line);
    else steps.push({ command, status: Number(status), prints: [] });
  }
}

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

/** Ages differ from one time to the next. */
const ageless = (text: string) => text.replaceAll(/\b\d+(?:s|m\d*s?)\b/g, '0s').replaceAll(/ +/g, ' ');

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
