// What happens to a run, and to those who wait, when Consul goes away under them.
import { writeFileSync } from 'node:fs';
import { afterAll, expect, test } from 'vitest';
import { endAgents, startCluster } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';
import { eventually, untilGone } from '../support/processes.ts';
import { stage } from '../support/stage.ts';
import { runlock, startRunlock } from '../support/runlock.ts';

afterAll(endAgents);

/** Runs until `<folder>/end` is there. */
const untilTold = (folder: string) => [
  'sh',
  '-c',
  `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`,
];

const slotOf = async (agent: Agent, group: string) => {
  const owner = await agent.kv.get(`runlock/${group}/.slot/0/owner`);
  const lock = await agent.kv.get(`runlock/${group}/.slot/0/lock`);
  return {
    claim: JSON.parse(owner?.Value ?? '{}') as { state?: string; run?: string; node?: string },
    session: lock?.Session,
  };
};

test('the local agent restarted gracefully under a run, which ends its session: the run goes on and holds its lock again', async () => {
  const { folder, pid } = stage();
  await using cluster = await startCluster({ servers: 1, clients: 1, raftMultiplier: 1 });
  const [server] = cluster.servers;
  const [client] = cluster.clients;
  if (!server || !client) throw new Error('no cluster');
  const run = startRunlock(client, [
    'exec',
    '-g',
    'restart',
    '--session-ttl',
    '10s',
    '--',
    ...untilTold(folder),
  ]);
  await pid('command');
  const before = await slotOf(server, 'restart');
  expect(before.session).toBeDefined();
  await client.stop();
  expect((await slotOf(server, 'restart')).claim).toMatchObject({ state: 'running', run: before.claim.run });
  const other = await runlock(server, ['exec', '-g', 'restart', '--node', 'web02', '-w', '0', '--', 'true']);
  expect(other.status).toBe(75);
  await client.restart();
  await run.says(/took the lock of restart back; the run goes on/, 30_000);
  const after = await eventually(async () => {
    const now = await slotOf(server, 'restart');
    expect(now.session).toBeDefined();
    expect(now.session).not.toBe(before.session);
    return now;
  }, 30_000);
  expect(after.claim).toMatchObject({ state: 'running', run: before.claim.run });
  tell(folder);
  expect((await run.ended).status).toBe(0);
  expect(await server.kv.keys('runlock/restart/.slot/')).toEqual([]);
});

function tell(folder: string): void {
  writeFileSync(`${folder}/end`, '');
}

test('the leader killed in a cluster of three servers: the run goes on, and the waiters stay in their order', async () => {
  const { folder, pid, lines } = stage();
  await using cluster = await startCluster({ servers: 3, clients: 1, raftMultiplier: 1 });
  const [client] = cluster.clients;
  if (!client) throw new Error('no client');
  const run = startRunlock(client, ['exec', '-g', 'elect', '--node', 'web00', '--', ...untilTold(folder)]);
  await pid('command');
  const waiters = [];
  for (const node of ['web01', 'web02', 'web03', 'web04', 'web05']) {
    waiters.push(
      startRunlock(client, [
        'exec',
        '-g',
        'elect',
        '--node',
        node,
        '--',
        'sh',
        '-c',
        `echo ${node} >>${folder}/order`,
      ]),
    );
    await eventually(async () =>
      expect(await client.kv.keys('runlock/elect/.queue/')).toHaveLength(waiters.length),
    );
  }
  const before = await slotOf(client, 'elect');
  const tickets = await client.kv.keys('runlock/elect/.queue/');
  const leader = await cluster.leader();
  await leader.kill();
  await cluster.leader(60_000);
  await eventually(async () => expect(await slotOf(client, 'elect')).toEqual(before), 30_000);
  expect(await client.kv.keys('runlock/elect/.queue/')).toEqual(tickets);
  tell(folder);
  expect((await run.ended).status).toBe(0);
  for (const waiter of waiters) expect((await waiter.ended).status).toBe(0);
  expect(lines('order')).toEqual(['web01', 'web02', 'web03', 'web04', 'web05']);
});

test(
  'hold none, the agent stopped: the whole tree of the run is dead before another is granted',
  { timeout: 180_000 },
  async () => {
    const { folder, pid, lines } = stage();
    await using cluster = await startCluster({ servers: 1, clients: 1, raftMultiplier: 1 });
    const [server] = cluster.servers;
    const [client] = cluster.clients;
    if (!server || !client) throw new Error('no cluster');
    const beats = (name: string) =>
      `while :; do echo "${name} $(date +%s%N)" >>${folder}/beats; sleep 0.1; done`;
    const stubborn = `trap '' TERM; setsid sh -c 'echo $$ >${folder}/grandchild.pid; ${beats('grandchild')}' & echo $$ >${folder}/command.pid; ${beats('command')}`;
    const args = ['exec', '-g', 'cut', '--hold', 'none', '--session-ttl', '10s', '--kill-after', '2s'];
    const run = startRunlock(client, [...args, '--node', 'web01', '--', 'sh', '-c', stubborn]);
    const tree = await Promise.all(['command', 'grandchild'].map((name) => pid(name)));
    const next = startRunlock(server, [
      ...args,
      '--node',
      'web02',
      '--',
      'sh',
      '-c',
      `echo "next $(date +%s%N)" >>${folder}/beats`,
    ]);
    await eventually(async () => expect(await server.kv.keys('runlock/cut/.queue/')).toHaveLength(1));
    client.pause();
    await Promise.all(tree.map((member) => untilGone(member, 90_000)));
    expect((await next.ended).status).toBe(0);
    client.resume();
    expect((await run.ended).status).toBe(79);
    const order = lines('beats').map((line) => line.split(' '));
    const start = BigInt(order.find(([name]) => name === 'next')?.[1] ?? '0');
    const last = order.filter(([name]) => name !== 'next').map(([, at]) => BigInt(at ?? '0'));
    expect(start).toBeGreaterThan(0n);
    expect(last.length).toBeGreaterThan(100);
    expect(last.every((at) => at < start)).toBe(true);
  },
);

test('Consul stops answering while a run waits: at the end of --wait it is Consul that is named, not a holder of long ago', async () => {
  const { folder, pid } = stage();
  await using cluster = await startCluster({ servers: 1, clients: 1, raftMultiplier: 1 });
  const [server] = cluster.servers;
  const [client] = cluster.clients;
  if (!server || !client) throw new Error('no cluster');
  startRunlock(server, ['exec', '-g', 'mute', '--node', 'web01', '--', ...untilTold(folder)]);
  await pid('command');
  const run = startRunlock(client, ['exec', '-g', 'mute', '--node', 'web02', '-w', '5s', '--', 'true']);
  await eventually(async () => expect(await server.kv.keys('runlock/mute/.queue/')).toHaveLength(1));
  client.pause();
  const { status, stderr } = await run.ended;
  client.resume();
  expect(status).toBe(69);
  expect(stderr).toMatch(/Consul at .* (did not answer|can't be reached)/);
  expect(stderr).not.toContain('web01');
});
