// What happens to a run, and to those who wait, when runlock itself is killed.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endAgents, startAgent } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';
import { eventually, guardOf, isAlive, untilGone } from '../support/processes.ts';
import { stage } from '../support/stage.ts';
import { runlock, startRunlock } from '../support/runlock.ts';

let agent: Agent;
beforeAll(async () => {
  agent = await startAgent();
});
afterAll(endAgents);

/** A command whose tree has a child in its group, one in a session of its own, and ignores TERM. */
const stubborn = (folder: string) => [
  'sh',
  '-c',
  `trap '' TERM; sleep 300 & echo $! >${folder}/child.pid; setsid sh -c 'echo $$ >${folder}/grandchild.pid; exec sleep 301' & echo $$ >${folder}/command.pid; while :; do wait; done`,
];

const claim = async (group: string) =>
  JSON.parse((await agent.kv.get(`runlock/${group}/.slot/0/owner`))?.Value ?? '{}') as {
    state?: string;
    node?: string;
    run?: string;
  };

test('SIGKILL of runlock ends the whole tree within about a second, and the claim stays', async () => {
  const { folder, pid } = stage();
  const run = startRunlock(agent, ['exec', '-g', 'kill', '--node', 'web01', '--', ...stubborn(folder)]);
  const tree = await Promise.all(['command', 'child', 'grandchild'].map((name) => pid(name)));
  run.signal('SIGKILL');
  const killedAt = performance.now();
  await Promise.all(tree.map((member) => untilGone(member)));
  expect(performance.now() - killedAt).toBeLessThan(3_000);
  expect(await claim('kill')).toMatchObject({ state: 'running', node: 'web01' });
  const other = await runlock(agent, ['exec', '-g', 'kill', '--node', 'web02', '-w', '0', '--', 'true']);
  expect(other.status).toBe(75);
});

test("the same node's next run takes the claim of a killed run back at once, before those who wait", async () => {
  const { folder, pid, lines } = stage();
  const write = (name: string) => ['sh', '-c', `echo ${name} >>${folder}/order`];
  const run = startRunlock(agent, ['exec', '-g', 'back', '--node', 'web01', '--', ...stubborn(folder)]);
  await pid('grandchild');
  const waiter = startRunlock(agent, ['exec', '-g', 'back', '--node', 'web02', '--', ...write('web02')]);
  await eventually(async () => expect(await agent.kv.keys('runlock/back/.queue/')).toHaveLength(1));
  run.signal('SIGKILL');
  await run.ended;
  const next = await runlock(agent, [
    'exec',
    '-g',
    'back',
    '--node',
    'web01',
    '-w',
    '0',
    '--',
    ...write('web01'),
  ]);
  expect(next).toMatchObject({ status: 0, stderr: '' });
  expect((await waiter.ended).status).toBe(0);
  expect(lines('order')).toEqual(['web01', 'web02']);
});

test('a stopped runlock is not dead: its node stays busy', async () => {
  const { folder, pid } = stage();
  const run = startRunlock(agent, ['exec', '-g', 'stop', '--node', 'web01', '--', ...stubborn(folder)]);
  await pid('grandchild');
  run.signal('SIGSTOP');
  const next = await runlock(agent, ['exec', '-g', 'stop', '--node', 'web01', '-v', '--', 'true']);
  expect(next.status).toBe(75);
  expect(next.stderr).toContain(`web01 already runs or waits in stop (pid ${run.pid}`);
  run.signal('SIGCONT');
  run.signal('SIGTERM');
  await run.ended;
});

test('runlock and its guard both killed: the next run sees the orphan, says so and stays away until it is gone', async () => {
  const { folder, pid } = stage();
  const run = startRunlock(agent, [
    'exec',
    '-g',
    'orphan',
    '--node',
    'web01',
    '--kill-after',
    '1s',
    '--',
    ...stubborn(folder),
  ]);
  const tree = await Promise.all(['command', 'child', 'grandchild'].map((name) => pid(name)));
  const guard = guardOf(run.pid);
  // Stopped first, so that it can't put a new guard in the place of the one that dies.
  run.signal('SIGSTOP');
  process.kill(guard, 'SIGKILL');
  run.signal('SIGKILL');
  // The orphans keep its pipes open.
  await untilGone(run.pid);
  const next = await runlock(agent, ['exec', '-g', 'orphan', '--node', 'web01', '--', 'true']);
  expect(next.status).toBe(75);
  expect(next.stderr).toContain('lost its runlock and its processes still run');
  expect(tree.every(isAlive)).toBe(true);
  for (const member of tree) process.kill(member, 'SIGKILL');
  await Promise.all(tree.map((member) => untilGone(member)));
  expect(await runlock(agent, ['exec', '-g', 'orphan', '--node', 'web01', '--', 'true'])).toMatchObject({
    status: 0,
    stderr: '',
  });
});

test('the guard killed alone: the run goes on, under a new guard', async () => {
  const { folder, pid } = stage();
  const run = startRunlock(agent, ['exec', '-g', 'guard', '--node', 'web01', '--', ...stubborn(folder)]);
  const tree = await Promise.all(['command', 'child', 'grandchild'].map((name) => pid(name)));
  const first = guardOf(run.pid);
  process.kill(first, 'SIGKILL');
  await eventually(() => expect(guardOf(run.pid)).not.toBe(first));
  expect(tree.every(isAlive)).toBe(true);
  run.signal('SIGKILL');
  await Promise.all(tree.map((member) => untilGone(member)));
});

test('a waiting runlock that is killed does not stop those behind it', async () => {
  const { folder, pid, lines } = stage();
  const holder = startRunlock(agent, [
    'exec',
    '-g',
    'gap',
    '--node',
    'web01',
    '--kill-after',
    '0s',
    '--',
    ...stubborn(folder),
  ]);
  await pid('grandchild');
  const names = ['web02', 'web03', 'web04'];
  const waiters = [];
  for (const name of names) {
    waiters.push(
      startRunlock(agent, [
        'exec',
        '-g',
        'gap',
        '--node',
        name,
        '--session-ttl',
        '10s',
        '--',
        'sh',
        '-c',
        `echo ${name} >>${folder}/order`,
      ]),
    );
    await eventually(async () =>
      expect(await agent.kv.keys('runlock/gap/.queue/')).toHaveLength(waiters.length),
    );
  }
  const [first, dead, last] = waiters;
  dead?.signal('SIGKILL');
  const ticket = (await agent.kv.tree('runlock/gap/.queue/')).find((pair) => pair.Value.includes('web03'));
  // Its session would end by itself after up to twice its TTL.
  await agent.http('PUT', `/v1/session/destroy/${ticket?.Session ?? ''}`);
  holder.signal('SIGTERM');
  expect((await first?.ended)?.status).toBe(0);
  expect((await last?.ended)?.status).toBe(0);
  expect(lines('order')).toEqual(['web02', 'web04']);
});
