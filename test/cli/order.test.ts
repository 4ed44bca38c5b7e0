// Tickets are served in their order, by as many at once as there are slots, whoever dies in between.
import { writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';
import type { Running } from '../support/program.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const nodes = (count: number) =>
  Array.from({ length: count }, (_, i) => `web${String(i + 1).padStart(2, '0')}`);

const note = (folder: string, text: string) => ['--', 'sh', '-c', `echo ${text} >>${folder}/order`];

test('20 that wait are served in the order of their tickets', async () => {
  const here = stage();
  const { end } = await on('twenty').hold('web00');
  const runs = nodes(20).map((node) => on('twenty').start(node, ...note(here.folder, node)));
  const tickets = await on('twenty').waiting(20);
  await end();
  for (const run of runs) expect(await run.ended).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(here.lines('order')).toEqual(tickets.map(({ node }) => node));
  expect(await on('twenty').keys('.queue/')).toEqual([]);
});

test('with --wait 0 nobody passes those that wait, nor waits for them, although a slot is free', async () => {
  const here = stage();
  const { end } = await on('zero').hold('web00');
  const first = on('zero').start('web01', ...note(here.folder, 'web01'));
  await on('zero').waiting();
  // It is first, and can't take its turn.
  first.signal('SIGSTOP');
  await end();
  const impatient = await on('zero').start('web02', '-w', '0', ...note(here.folder, 'web02')).ended;
  expect(impatient).toEqual({
    ...{ status: 75, stdout: '' },
    stderr:
      "runlock: busy: no slot available in zero (slot 0: free, but others are ahead); see 'runlock status zero'\n",
  });
  first.signal('SIGCONT');
  expect((await first.ended).status).toBe(0);
  expect(here.lines('order')).toEqual(['web01']);
});

test('three slots hold three at once and never four', async () => {
  const { folder, lines } = stage();
  // Nobody ends before three run and nine wait, so three do overlap.
  const script = `echo start >>${folder}/log; while ! [ -e ${folder}/go ]; do sleep 0.05; done; sleep 0.1; echo end >>${folder}/log`;
  const runs = nodes(12).map((node) => on('three').start(node, '-n', '3', '--', 'sh', '-c', script));
  await on('three').waiting(9);
  await eventually(() => expect(lines('log')).toEqual(['start', 'start', 'start']));
  writeFileSync(`${folder}/go`, '');
  for (const run of runs) expect((await run.ended).status).toBe(0);
  let now = 0;
  const overlap = lines('log').map((line) => (now += line === 'start' ? 1 : -1));
  expect(overlap).toHaveLength(24);
  expect(Math.max(...overlap)).toBe(3);
  expect(now).toBe(0);
});

test('one slot never holds two, however many come at the same time, each more than once', async () => {
  const { folder, lines } = stage();
  const script = `echo start >>${folder}/log; sleep 0.02; echo end >>${folder}/log`;
  const again = async (node: string) => {
    for (let i = 0; i < 3; i++)
      expect((await on('crowd').start(node, '--', 'sh', '-c', script).ended).status).toBe(0);
  };
  await Promise.all(nodes(6).map(again));
  expect(lines('log')).toEqual(Array.from({ length: 18 }, () => ['start', 'end']).flat());
});

describe('whoever goes away does not stop those behind', () => {
  const four = async (group: string) => {
    const here = stage();
    const { end } = await on(group).hold('web00');
    const runs = new Map<string, Running>();
    for (const node of nodes(4)) {
      runs.set(node, on(group).start(node, ...note(here.folder, node)));
      await on(group).waiting(runs.size);
    }
    const run = (node: string) => {
      const found = runs.get(node);
      if (!found) throw new Error(`no ${node}`);
      return found;
    };
    return { ...here, end, run };
  };

  test.each([
    ['the first', 'web01', ['web02', 'web03', 'web04']],
    ['one in the middle', 'web02', ['web01', 'web03', 'web04']],
    ['the last', 'web04', ['web01', 'web02', 'web03']],
  ])('%s is killed and its session ends', async (_name, dead, others) => {
    const group = `killed-${dead}`;
    const { end, run, lines } = await four(group);
    const ticket = (await on(group).tickets()).find(({ node }) => node === dead);
    run(dead).signal('SIGKILL');
    await run(dead).ended;
    // It would end by itself, up to twice its TTL later.
    await agent.http('PUT', `/v1/session/destroy/${ticket?.session ?? ''}`);
    await on(group).waiting(3);
    await end();
    for (const node of others) expect((await run(node).ended).status).toBe(0);
    expect(lines('order')).toEqual(others);
  });

  test.each([
    ['the first', 'web01', ['web02', 'web03', 'web04']],
    ['one in the middle', 'web03', ['web01', 'web02', 'web04']],
  ])('%s gets TERM', async (_name, dead, others) => {
    const group = `told-${dead}`;
    const { end, run, lines } = await four(group);
    run(dead).signal('SIGTERM');
    expect((await run(dead).ended).status).toBe(143);
    await on(group).waiting(3);
    await end();
    for (const node of others) expect((await run(node).ended).status).toBe(0);
    expect(lines('order')).toEqual(others);
  });

  test('two neighbours go, and one who comes later goes behind those who stayed', async () => {
    const { end, run, lines, folder } = await four('gone');
    for (const node of ['web02', 'web03']) run(node).signal('SIGTERM');
    for (const node of ['web02', 'web03']) expect((await run(node).ended).status).toBe(143);
    const late = on('gone').start('web02', ...note(folder, 'web02'));
    await on('gone').waiting(3);
    await end();
    for (const one of [run('web01'), run('web04'), late]) expect((await one.ended).status).toBe(0);
    expect(lines('order')).toEqual(['web01', 'web04', 'web02']);
  });

  test('one who loses its patience: those behind keep their places', async () => {
    const here = stage();
    const { end } = await on('patience').hold('web00');
    const first = on('patience').start('web01', '-w', '1s', ...note(here.folder, 'web01'));
    await on('patience').waiting();
    const second = on('patience').start('web02', ...note(here.folder, 'web02'));
    await on('patience').waiting(2);
    expect((await first.ended).status).toBe(75);
    await end();
    expect((await second.ended).status).toBe(0);
    expect(here.lines('order')).toEqual(['web02']);
  });
});
