// The README's first run: its lines as they stand, each terminal a shell of its own on one host with one agent.
import { execFile } from 'node:child_process';
import { readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { eventually, scene } from '../support/processes.ts';
import type { Scene } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const readme = readFileSync('README.md', 'utf8');
const [, block = ''] = /<!-- two terminals: .*?-->\n```sh\n(.*?)```/s.exec(readme) ?? [];
const [first = '', second = ''] = block.split(/^(?=# second terminal)/m);

const agent = useAgent({ name: 'host01' });
let made: Scene;
beforeAll(() => {
  made = scene();
  symlinkSync(RUNLOCK, join(made.folder, 'runlock'));
  return () => made.clean();
});

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** As a shell runs it that finds this build first. */
function terminal(lines: string): Promise<Ended> {
  const { PATH = '' } = process.env;
  const env = { ...agent.env, PATH: `${made.folder}:${PATH}`, RUNLOCK_CONFIG: '/dev/null' };
  return new Promise((resolve) => {
    execFile('sh', ['-ec', lines], { env }, (error, stdout, stderr) => {
      resolve({ status: Number(error?.code ?? 0), stdout, stderr });
    });
  });
}

const owner = async () => (await agent.kv.get('runlock/demo/.slot/0/owner'))?.Value ?? '';

describe('two terminals on one host', () => {
  test('the second waits for the first, and status shows why', async () => {
    expect(first).toMatch(/^# first terminal\nrunlock exec /);
    const sleeping = terminal(first);
    await eventually(async () => expect(await owner()).toContain('"node":"web01"'), 15_000);
    const waited = await terminal(second);
    expect(waited).toMatchObject({ status: 0, stderr: '' });
    expect(waited.stdout).toMatch(/web01[^]*sleep[^]*\nmy turn\n$/);
    // The first run's end is in Consul before the second one's start.
    const ended = await agent.kv.get('runlock/demo/.runs/web01');
    expect(ended?.Value).toContain('"outcome":"succeeded"');
    expect(await sleeping).toMatchObject({ status: 0, stdout: '', stderr: '' });
  });

  test('without --node the two are one node, and the second is refused', async () => {
    expect(readme).toMatch(/name each with `--node`:\*\* a second run of the same node is refused \(75\)/);
    const nested = ['exec', '-g', 'demo', '--', RUNLOCK, 'exec', '-g', 'demo', '--', 'true'];
    expect((await runlock(agent, nested)).status).toBe(75);
  });
});
