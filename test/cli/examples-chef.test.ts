// examples/chef: the handlers in a real Ruby (the one that puppet brings), with a stand-in for Chef.
import { mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { chefClient } from '../support/chef.ts';
import { useAgent } from '../support/use-agent.ts';
import { DONE, NODES, fourNodes } from '../support/four-nodes.ts';
import { groupOf } from '../support/group.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock } from '../support/runlock.ts';
import { runPlain, toolbox } from '../support/tools.ts';

const CHEF = resolve(import.meta.dirname, '../../examples/chef');

const agent = useAgent({ name: 'web01' });

const on = (group: string) => groupOf(agent, group);

function chef() {
  const box = toolbox();
  const { folder, env, write } = box;
  mkdirSync(join(folder, 'bin'));
  symlinkSync(RUNLOCK, join(folder, 'bin/runlock'));
  const made = chefClient(box);
  const run = async (command: readonly string[], more: Record<string, string> = {}) => {
    const PATH = `${join(folder, 'bin')}:${process.env['PATH'] ?? ''}`;
    const done = await runPlain(command, { env: { ...agent.env, ...env, PATH, ...more } });
    return { status: done.status, output: `${done.stdout.toString()}${done.stderr.toString()}` };
  };
  return {
    converge: async (group: string, recipe: 'succeeds' | 'fails') => {
      const command = (await made).converge(join(CHEF, 'files/client.d/runlock.rb'), recipe);
      return run(command, { RUNLOCK_GROUP: group, RUNLOCK_WAIT: '0' });
    },
    compile: async (path: string) => run([...(await made).ruby, '-c', path]),
    broken: () => write('broken.rb', 'def x('),
  };
}

test('every file of the example is Ruby', async () => {
  const { compile, broken } = chef();
  const files = readdirSync(CHEF, { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.rb'),
  );
  expect(files).toHaveLength(6);
  for (const file of files)
    expect(await compile(join(CHEF, file))).toMatchObject({ status: 0, output: 'Syntax OK\n' });
  expect((await compile(broken())).status).toBe(1);
});

test('a good run gives its slot back; a failed one keeps it until the next good run', async () => {
  const { converge } = chef();
  const good = await converge('chef', 'succeeds');
  expect(good.output).toContain('the recipe runs');
  expect(good.output).toContain('released slot 0 of chef');
  expect(await on('chef').lastRun('web01')).toMatchObject({ outcome: 'succeeded' });
  const bad = await converge('chef', 'fails');
  expect(bad.output).toContain('web01 failed after');
  expect(await on('chef').claim()).toMatchObject({ state: 'failed', node: 'web01' });
  expect((await converge('chef', 'succeeds')).output).toContain('the recipe runs');
  expect(await on('chef').claim()).toBeUndefined();
});

test('without a slot the recipe does not run, and what the other node holds stays', async () => {
  const { converge } = chef();
  await runlock(agent, ['acquire', 'taken', '--node', 'web02']);
  const refused = await converge('taken', 'succeeds');
  expect(refused.output).toMatch(/busy: no slot available in taken .*web02 held/);
  expect(refused.output).toContain('start handler: runlock acquire taken --wait 0: exit status 75');
  expect(refused.output).not.toContain('the recipe runs');
  expect(refused.output).toContain('nothing to release: web01 has no claim in taken');
  expect(await on('taken').claim()).toMatchObject({ state: 'held', node: 'web02' });
});

describe('four nodes', () => {
  /** The example's handlers and recipe, on the nodes of docs/waiting.md. */
  async function chefNodes(prefix: string) {
    const shop = await fourNodes(agent, 'stand-in', prefix);
    const { converge } = await chefClient(shop.box);
    const words = converge(join(CHEF, 'files/client.d/four_nodes.rb'), join(CHEF, 'recipes/four_nodes.rb'));
    return { ...shop, start: (node: string) => shop.run(node, `CHEF_NODE_NAME=${node} ${words.join(' ')}`) };
  }

  test('all at once: the database, one migration, the applications, then the balancer', async () => {
    const shop = await chefNodes('chef/well');
    const all = [...NODES].reverse().map((node) => shop.start(node));
    for (const { ended, output } of all) expect(await ended, output()).toBe(0);
    expect(shop.log()).toMatch(DONE);
  });

  test('a run that fails says so in its state, and the balancer waits until it is repaired', async () => {
    const shop = await chefNodes('chef/fails');
    shop.break();
    const haproxy = shop.start('haproxy');
    const started = ['mysql', 'django1'].map((node) => shop.start(node));
    expect(await Promise.all(started.map(({ ended }) => ended))).toEqual([0, 1]);
    expect(await shop.state('app/django1')).toBe('failed');
    expect(await shop.state('db/schema')).toBeUndefined();
    shop.repair();
    for (const node of ['django1', 'django2']) {
      const { ended, output } = shop.start(node);
      expect(await ended, output()).toBe(0);
    }
    expect(await haproxy.ended, haproxy.output()).toBe(0);
    expect(shop.log().replace('django1 migrates\n', '')).toMatch(DONE);
  });
});
