// Tickets are served in their order, by as many at once as there are slots, whoever dies in between.
import { writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';
import type { Scene } from '../support/processes.ts';
import { startRunlock } from '../support/runlock.ts';
import type { Running } from '../support/program.ts';

const agent = useAgent();

const start = (group: string, node: string, args: readonly string[]) =>
  startRunlock(agent, ['exec', '-g', group, '--node', node, ...args]);

const nodes = (count: number) =>
  Array.from({ length: count }, (_, i) => `web${String(i + 1).padStart(2, '0')}`);

/** Who waits, by the CreateIndex of the tickets. */
async function queue(group: string) {
  const tickets = await agent.kv.tree(`runlock/${group}/.queue/`);
  return tickets
    .sort((a, b) => a.CreateIndex - b.CreateIndex)
    .map((ticket) => ({
      node: (JSON.parse(ticket.Value) as { node: string }).node,
      session: ticket.Session ?? '',
    }));
}

const waiting = (group: string, count: number) =>
  eventually(async () => {
    const tickets = await queue(group);
    expect(tickets).toHaveLength(count);
    return tickets;
  }, 30_000);

/** A run that has the slot until it is told. */
async function holder(group: string, { folder, pid }: Scene): Promise<() => Promise<void>> {
  const script = `echo $$ >${folder}/holder.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
  const run = start(group, 'web00', ['--', 'sh', '-c', script]);
  await pid('holder');
  return async () => {
    writeFileSync(`${folder}/end`, '');
    expect((await run.ended).status).toBe(0);
  };
}

const note = (folder: string, text: string) => ['--', 'sh', '-c', `echo ${text} >>${folder}/order`];

test('20 that wait are served in the order of their tickets', async () => {
  const here = stage();
  const end = await holder('twenty', here);
  const runs = nodes(20).map((node) => start('twenty', node, note(here.folder, node)));
  const tickets = await waiting('twenty', 20);
  await end();
  for (const run of runs) expect(await run.ended).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(here.lines('order')).toEqual(tickets.map(({ node }) => node));
  expect(await agent.kv.keys('runlock/twenty/.queue/')).toEqual([]);
});

test('with --wait 0 nobody passes those that wait, and nobody waits for them, although a slot is free', async () => {
  const here = stage();
  const end = await holder('zero', here);
  const first = start('zero', 'web01', note(here.folder, 'web01'));
  await waiting('zero', 1);
  // It is first, and can't take its turn.
  first.signal('SIGSTOP');
  await end();
  const impatient = await start('zero', 'web02', ['-w', '0', ...note(here.folder, 'web02')]).ended;
  expect(impatient).toEqual({
    ...{ status: 75, stdout: '' },
    stderr:
      "runlock: busy: no slot in zero now (slot 0 is free: others came first); see 'runlock status zero'\n",
  });
  first.signal('SIGCONT');
  expect((await first.ended).status).toBe(0);
  expect(here.lines('order')).toEqual(['web01']);
});

test('three slots hold three at once and never four', async () => {
  const { folder, lines } = stage();
  // Nobody ends before three run and nine wait, so three do overlap.
  const script = `echo start >>${folder}/log; while ! [ -e ${folder}/go ]; do sleep 0.05; done; sleep 0.1; echo end >>${folder}/log`;
  const runs = nodes(12).map((node) => start('three', node, ['-n', '3', '--', 'sh', '-c', script]));
  await waiting('three', 9);
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
      expect((await start('crowd', node, ['--', 'sh', '-c', script]).ended).status).toBe(0);
  };
  await Promise.all(nodes(6).map(again));
  expect(lines('log')).toEqual(Array.from({ length: 18 }, () => ['start', 'end']).flat());
});

describe('whoever goes away does not stop those behind', () => {
  const four = async (group: string) => {
    const here = stage();
    const end = await holder(group, here);
    const runs = new Map<string, Running>();
    for (const node of nodes(4)) {
      runs.set(node, start(group, node, note(here.folder, node)));
      await waiting(group, runs.size);
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
    const ticket = (await queue(group)).find(({ node }) => node === dead);
    run(dead).signal('SIGKILL');
    await run(dead).ended;
    // It would end by itself, up to twice its TTL later.
    await agent.http('PUT', `/v1/session/destroy/${ticket?.session ?? ''}`);
    await waiting(group, 3);
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
    await waiting(group, 3);
    await end();
    for (const node of others) expect((await run(node).ended).status).toBe(0);
    expect(lines('order')).toEqual(others);
  });

  test('two neighbours go, and one who comes later goes behind those who stayed', async () => {
    const { end, run, lines, folder } = await four('gone');
    for (const node of ['web02', 'web03']) run(node).signal('SIGTERM');
    for (const node of ['web02', 'web03']) expect((await run(node).ended).status).toBe(143);
    const late = start('gone', 'web02', note(folder, 'web02'));
    await waiting('gone', 3);
    await end();
    for (const one of [run('web01'), run('web04'), late]) expect((await one.ended).status).toBe(0);
    expect(lines('order')).toEqual(['web01', 'web04', 'web02']);
  });

  test('one who loses its patience: those behind keep their places', async () => {
    const here = stage();
    const end = await holder('patience', here);
    const first = start('patience', 'web01', ['-w', '1s', ...note(here.folder, 'web01')]);
    await waiting('patience', 1);
    const second = start('patience', 'web02', note(here.folder, 'web02'));
    await waiting('patience', 2);
    expect((await first.ended).status).toBe(75);
    await end();
    expect((await second.ended).status).toBe(0);
    expect(here.lines('order')).toEqual(['web02']);
  });
});
