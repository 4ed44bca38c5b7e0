// examples/ansible: the lock inside a playbook, run by the real ansible-playbook.
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';
import { runPlain, toolbox } from '../support/tools.ts';

const SITE = resolve(import.meta.dirname, '../../examples/ansible/site.yml');

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

/** The example's playbook for hosts that are all this machine, with a folder in the place of /etc/web. */
function site(group: string) {
  const { folder, env, write, ansiblePlaybook } = toolbox();
  return {
    spoil: () => write('broken', ''),
    fix: () => rmSync(join(folder, 'broken')),
    conf: (host: string) => {
      const path = join(folder, `${host}.conf`);
      return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
    },
    play: async (hosts: string, wait: string) => {
      const set = JSON.stringify({ runlock: RUNLOCK, group, wait, folder });
      const hostsHere = ['-i', `${hosts},`, '-l', 'all:!localhost', '-c', 'local'];
      const command = await ansiblePlaybook(...hostsHere, '-e', set, SITE);
      const { status, stdout } = await runPlain(command, { env: { ...agent.env, ...env } });
      return { status, stdout: stdout.toString() };
    },
  };
}

const grantOf = (conf: string | undefined) => Number(/grant (\d+)/.exec(conf ?? '')?.[1]);

test('each host of a play gets its turn, and nothing is held in the end', async () => {
  const { conf, play } = site('prod/fine');
  const { status, stdout } = await play('web01,web02', '1m');
  expect({ status, failed: /failed=[1-9]/.test(stdout) }).toEqual({ status: 0, failed: false });
  const grants = ['web01', 'web02'].map((host) => grantOf(conf(host)));
  expect(grants.every((grant) => grant > 0)).toBe(true);
  expect(new Set(grants).size).toBe(2);
  expect(await on('prod/fine').claim()).toBeUndefined();
  for (const host of ['web01', 'web02'])
    expect(await on('prod/fine').lastRun(host)).toMatchObject({ outcome: 'succeeded' });
});

test('a host that fails keeps the slot: no other gets the change until its next run succeeds', async () => {
  const { spoil, fix, conf, play } = site('prod/web');
  spoil();
  const first = await play('web01', '1m');
  expect(first.status).toBe(2);
  expect(first.stdout).toContain('web01 does not work with this change');
  expect(await on('prod/web').claim()).toMatchObject({ state: 'failed', node: 'web01' });
  expect(await on('prod/web').lastRun('web01')).toMatchObject({ outcome: 'failed' });
  const other = await play('web02', '0');
  expect(other.status).toBe(2);
  expect(other.stdout).toMatch(
    /busy: no slot available in prod\/web \(slot 0: web01 failed \d+s ago \(acquire/,
  );
  expect(conf('web02')).toBeUndefined();
  fix();
  const again = await play('web01,web02', '1m');
  expect(again.status).toBe(0);
  expect(grantOf(conf('web02'))).toBeGreaterThan(grantOf(conf('web01')));
  expect(await on('prod/web').claim()).toBeUndefined();
});

test('a play after one that was broken off goes on with what is held', async () => {
  const { conf, play } = site('prod/broken-off');
  const held = await runlock(agent, ['acquire', 'prod/broken-off', '--node', 'web01', '--json']);
  const { fencingToken } = JSON.parse(held.stdout) as { fencingToken: number };
  const { status, stdout } = await play('web01', '0');
  expect(status).toBe(0);
  expect(stdout).toMatch(/hold it\] \*+\nok: \[web01\]/);
  // Asked for again, what is held has a new token: who knew the old one is behind.
  expect(grantOf(conf('web01'))).toBeGreaterThan(fencingToken);
  expect(await on('prod/broken-off').claim()).toBeUndefined();
});
