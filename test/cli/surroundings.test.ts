// What the host does not give, and what nobody wants to read of the runtime.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, renameSync } from 'node:fs';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { IS_BINARY, clean } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { startServices } from '../support/services.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent();

const exec = (group: string, ...more: string[]) => groupOf(agent, group).words('web01', ...more);

describe('a dozen groups, deep ones', () => {
  const deep = Array.from({ length: 14 }, (_, n) => `level${n}`).join('/');
  const groups = Array.from({ length: 12 }, (_, n) => ['-g', `${deep}/${n}`]).flat();

  test('nothing but runlock’s own lines is said, also while it waits', async () => {
    const { folder, lines } = stage();
    const script = `echo >>${folder}/started; until [ -e ${folder}/go ]; do sleep 0.05; done`;
    const words = (node: string) => ['exec', ...groups, '--node', node, '--', 'sh', '-c', script];
    const holder = startRunlock(agent, words('web01'));
    await eventually(() => expect(lines('started')).toHaveLength(1));
    const waiter = startRunlock(agent, words('web02'));
    await eventually(async () => expect(await agent.kv.keys(`runlock/${deep}/0/.queue/`)).toHaveLength(1));
    expect(await runlock(agent, ['status'])).toMatchObject({ status: 0, stderr: '' });
    execFileSync('touch', [`${folder}/go`]);
    for (const { ended } of [holder, waiter])
      expect(await ended).toEqual({ status: 0, stdout: '', stderr: '' });
  });
});

describe.skipIf(process.getuid?.() !== 0)('/proc', () => {
  const inNamespaces = (script: string, flags: string[], args: readonly string[]) =>
    runlock(agent, args, { through: ['unshare', ...flags, 'sh', '-c', `${script}; exec "$@"`, 'sh'] });

  // What runs the single file ends by itself there, before runlock begins.
  test.skipIf(IS_BINARY).each([
    ['exec', exec('proc', '--', 'true')],
    ['acquire', ['acquire', 'proc', '--node', 'web01']],
  ])('that is not mounted: 78, and why (%s)', async (_, args) => {
    const { status, stderr } = await inNamespaces('umount -l /proc', ['-m'], args);
    expect(stderr).toMatch(/^runlock: \/proc can't be read \(ENOENT\).*mount it[^\n]*\n$/);
    expect(status).toBe(78);
  });

  test.each([
    ['exec', exec('proc', '--', 'true')],
    ['acquire', ['acquire', 'proc', '--node', 'web01']],
  ])('of another pid namespace: 78, and why (%s)', async (_, args) => {
    const { status, stderr } = await inNamespaces(':', ['--pid', '--fork'], args);
    expect(stderr).toMatch(/^runlock: \/proc shows another pid namespace[^\n]*\n$/);
    expect(status).toBe(78);
  });
});

describe('what runs short', () => {
  test.each([16, 20, 24, 28, 32, 40])('no more than %d open files: says so, and is no bug', async (limit) => {
    const through = ['sh', '-c', `ulimit -n ${limit}; exec "$@"`, 'sh'];
    const words = exec(`short/${limit}`, '-w', '5s', '--', 'true');
    const { status, stderr } = await runlock(agent, words, { through });
    // With too few for the runtime itself, runlock does not even begin; with enough all is well.
    if (status === 0 || !stderr.startsWith('runlock: ')) return;
    expect(stderr).toMatch(/ulimit -n/);
    expect(stderr).not.toMatch(/report|check the file|install/);
    expect([69, 78, 126]).toContain(status);
  });
});

describe.skipIf(IS_BINARY)('the npm package’s files, replaced while a run waits', () => {
  test('the run starts, and ends, as it would', async () => {
    const { folder } = stage();
    for (const part of ['bin', 'dist', 'package.json'])
      cpSync(part, `${folder}/${part}`, { recursive: true });
    const holder = startRunlock(
      agent,
      exec('replaced', '--', 'sh', '-c', `until [ -e ${folder}/go ]; do sleep 0.05; done`),
    );
    await eventually(async () => expect(await agent.kv.get('runlock/replaced/.slot/0/owner')).toBeDefined());
    const args = ['exec', '-g', 'replaced', '--node', 'web02', '--metrics-file', `${folder}/runlock.prom`];
    const waiter = execa(`${folder}/bin/runlock.js`, [...args, '--', 'sh', '-c', 'exit 0'], {
      ...{ env: { ...clean, ...agent.env }, extendEnv: false, stdin: 'ignore' },
    });
    await eventually(async () => expect(await agent.kv.keys('runlock/replaced/.queue/')).toHaveLength(1));
    renameSync(`${folder}/dist`, `${folder}/gone`);
    execFileSync('touch', [`${folder}/go`]);
    expect(await waiter).toMatchObject({ exitCode: 0, stderr: '' });
    await holder.ended;
  });

  test('a run that waits at a gate says for whom it waited', async () => {
    const { folder } = stage();
    await using services = await startServices({ nodes: 2, services: ['web'] });
    await services.node('web02').instance('web').answer(500);
    for (const part of ['bin', 'dist', 'package.json'])
      cpSync(part, `${folder}/${part}`, { recursive: true });
    const child = spawn(
      `${folder}/bin/runlock.js`,
      ['exec', '-g', 'gated', '--service', 'web', '-w', '5s', '--log-format', 'json', '-v', '--', 'true'],
      { env: { ...clean, ...services.node('web01').agent.env }, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (part: string) => (stderr += part));
    const ended = once(child, 'close');
    await eventually(() => expect(stderr).toMatch(/gate/));
    renameSync(`${folder}/dist`, `${folder}/gone`);
    expect((await ended)[0]).toBe(75);
    expect(stderr).not.toMatch(/bug/);
  });
});
