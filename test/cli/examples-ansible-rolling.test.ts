// examples/ansible/rolling.yml: a rolling change behind the health gate, run by the real ansible-playbook.
import { existsSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { RUNLOCK } from '../support/program.ts';
import { startServices } from '../support/services.ts';
import type { Services } from '../support/services.ts';
import { watchService } from '../support/services-watcher.ts';
import { runPlain, toolbox } from '../support/tools.ts';

const ROLLING = resolve(import.meta.dirname, '../../examples/ansible/rolling.yml');

let services: Services;
beforeAll(async () => {
  services = await startServices({ nodes: 3 });
});
afterAll(() => services[Symbol.asyncDispose]());

/** The example's playbook for hosts that are all this machine, each with the Consul agent of its own node. */
function rolling() {
  const { folder, env, write, ansiblePlaybook } = toolbox();
  const hosts = services.nodes.map(
    ({ name, agent }) => `${name} ansible_connection=local consul=${agent.address}\n`,
  );
  const inventory = write('inventory', hosts.join(''));
  return {
    spoil: () => write('broken', ''),
    fix: () => rmSync(join(folder, 'broken')),
    changed: () =>
      services.nodes.map(({ name }) => name).filter((name) => existsSync(join(folder, `${name}.conf`))),
    play: async (limit: string, set: object) => {
      const values = JSON.stringify({ runlock: RUNLOCK, folder, stable: '200ms', delay: 1, ...set });
      const command = await ansiblePlaybook('-i', inventory, '-l', limit, '-e', values, ROLLING);
      const { status, stdout } = await runPlain(command, { env });
      return { status, stdout: stdout.toString() };
    },
  };
}

function watch() {
  const watcher = watchService(services.server, 'web');
  onTestFinished(() => watcher.stop());
  return watcher;
}

const ALL = ['web01', 'web02', 'web03'];
/** The toolbox has an inventory of its own, with this machine in it. */
const EVERYONE = ALL.join();
/** Several plays, each with several starts of Python and of runlock a task. */
const LONG = { timeout: 180_000 };
const maintenances = async () =>
  (await Promise.all(services.nodes.map((node) => node.maintenances()))).flat();

test('every node has its turn out of service, and never two at once', LONG, async () => {
  const { changed, play } = rolling();
  const watcher = watch();
  const { status, stdout } = await play(EVERYONE, { retries: 60 });
  expect({ status, failed: /failed=[1-9]/.test(stdout) }).toEqual({ status: 0, failed: false });
  expect(changed()).toEqual(ALL);
  expect((await watcher.everOffline()).sort()).toEqual(ALL);
  expect(await watcher.most()).toBe(1);
  expect(await maintenances()).toEqual([]);
});

test('a node whose change fails stays out of service, and the change stops there', LONG, async () => {
  const { spoil, fix, changed, play } = rolling();
  const watcher = watch();
  spoil();
  const first = await play('web02', { retries: 60 });
  expect(first.status).toBe(2);
  expect(first.stdout).toContain('web02 does not work with this change');
  await watcher.untilOffline('web02');
  const others = await play('web01,web03', { retries: 1 });
  expect(others.status).toBe(2);
  expect(others.stdout).toMatch(/FAILED - RETRYING[^]*maintenance: runlock /);
  expect(changed()).toEqual(['web02']);
  expect(await maintenances()).toEqual([expect.stringMatching(/^runlock /)]);
  fix();
  expect((await play(EVERYONE, { retries: 60 })).status).toBe(0);
  expect(changed()).toEqual(ALL);
  expect(await watcher.most()).toBe(1);
  expect(await maintenances()).toEqual([]);
});
