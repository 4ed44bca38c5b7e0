// The history of real runs: what the fault suite judges by.
import { expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { startFleet } from '../support/history/fleet.ts';
import { command } from '../support/history/checker.ts';

const agent = useAgent();

test('runs, their order and their claims are seen, and nothing is found wrong with them', async () => {
  await using fleet = startFleet(agent, { group: 'seen', slots: 2 });
  const first = [fleet.start('web01'), fleet.start('web02', { part: { grandchild: true } })];
  for (const node of first) await node.running();
  const waiting = [];
  for (const name of ['web03', 'web04', 'web05']) {
    const node = fleet.start(name, { part: { beats: 3 } });
    await node.waiting();
    waiting.push(node);
  }
  for (const node of first) node.tell();
  for (const node of [...first, ...waiting])
    expect(await node.ended).toMatchObject({ status: 0, stderr: '' });
  const history = await fleet.history();
  expect(history.runs.map(({ node }) => node).sort()).toEqual(['web01', 'web02', 'web03', 'web04', 'web05']);
  expect(history.runs.map((run) => command(run)?.exitCode)).toEqual([0, 0, 0, 0, 0]);
  expect(history.runs.flatMap(({ processes }) => processes.map(({ role }) => role)).sort()).toEqual([
    ...Array.from({ length: 5 }, () => 'command'),
    'grandchild',
  ]);
  const { broken, judged } = await fleet.verdict();
  expect(broken).toEqual([]);
  expect(judged.runs).toBe(5);
  expect(judged.inOrder).toBeGreaterThanOrEqual(2);
  expect(judged.claims).toBeGreaterThanOrEqual(3);
});

test('a failed run and its claim are seen', async () => {
  await using fleet = startFleet(agent, { group: 'failed' });
  expect((await fleet.run('web01', { part: { exitCode: 3 } })).status).toBe(3);
  expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'failed' });
  expect(await fleet.broken()).toEqual([]);
  expect((await fleet.run('web01')).status).toBe(0);
  expect(await fleet.keys()).toEqual(['.last', '.runs/web01', '.tail']);
  expect(await fleet.broken()).toEqual([]);
});

test('what the product does not prevent is found: a second run beside a claim deleted by hand', async () => {
  await using fleet = startFleet(agent, { group: 'torn' });
  const first = fleet.start('web01', { part: { deaf: true } });
  await first.running();
  // The orphan of a run whose runlock is stopped: only its own notes can tell.
  first.signal('SIGSTOP');
  await agent.kv.deleteTree('runlock/torn/');
  expect((await fleet.run('web02')).status).toBe(0);
  const { broken } = await fleet.verdict();
  expect(broken.map(({ promise }) => promise)).toEqual(expect.arrayContaining([1, 2]));
});
