// Requests that are lost before or after they took effect, or arrive late: through a proxy that breaks real connections.
import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { endAgents, startAgent } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';
import { eventually, scene } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Action, Match, Proxy } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';

let agent: Agent;
beforeAll(async () => {
  agent = await startAgent();
});
afterAll(endAgents);

async function through(): Promise<Proxy & { agent: Pick<Agent, 'env'> }> {
  const proxy = await startProxy(agent);
  onTestFinished(() => proxy.close());
  return Object.assign(proxy, { agent: { env: { ...agent.env, ...proxy.env } } });
}

/** A transaction that writes this key: each step of the protocol writes one that no other does. */
const writes =
  (verb: string, key: string): Match =>
  ({ path, body }) =>
    path.startsWith('/v1/txn') &&
    (JSON.parse(body) as { KV: { Verb: string; Key: string } }[]).some(
      ({ KV }) => KV.Verb === verb && KV.Key.includes(key),
    );

const steps: Record<string, Match> = {
  'session create': ({ path }) => path.startsWith('/v1/session/create'),
  enqueue: writes('set', '/.tail'),
  grant: writes('set', '/.last'),
  release: writes('set', '/.runs/'),
  'session destroy': ({ path }) => path.startsWith('/v1/session/destroy'),
};

const actions: Action[] = [
  'drop-before',
  'drop-after',
  'late',
  'cut',
  { delayMs: 300 },
  { status: 429, body: 'slow down' },
  { status: 500, body: 'No cluster leader' },
];

const cases = Object.keys(steps).flatMap((step) =>
  actions.map((action) => ({
    step,
    action,
    name: typeof action === 'string' ? action : Object.values(action).join(' '),
  })),
);

test.for(cases)(
  '$step, $name: the command runs once, under the lock, and nothing stays behind',
  async ({ step, action }) => {
    const proxy = await through();
    const { folder, lines, clean } = scene();
    onTestFinished(clean);
    const group = `lost-${step.replace(' ', '-')}-${cases.findIndex((it) => it.step === step && it.action === action)}`;
    proxy.rule({ match: steps[step] ?? (() => false), times: 1, do: action });
    const note = `echo "$RUNLOCK_FENCING_TOKEN $RUNLOCK_RUN_ID" >>${folder}/runs`;
    const result = await runlock(proxy.agent, [
      'exec',
      '-g',
      group,
      '--node',
      'web01',
      '--',
      'sh',
      '-c',
      note,
    ]);
    await proxy.release();
    expect(result, result.stderr).toMatchObject({ status: 0 });
    expect(lines('runs')).toHaveLength(1);
    expect(lines('runs')[0]).toMatch(/^[1-9]\d* [0-9a-f-]{36}$/);
    const base = `runlock/${group}`;
    expect(await agent.kv.keys(`${base}/`)).toEqual([
      `${base}/.last`,
      `${base}/.runs/web01`,
      `${base}/.tail`,
    ]);
    const next = await runlock(agent, ['exec', '-g', group, '--node', 'web02', '-w', '0', '--', 'true']);
    expect(next.status).toBe(0);
  },
);

test('a grant that arrives after its run gave up starts nothing and leaves no claim', async () => {
  const proxy = await through();
  const { folder, lines, clean } = scene();
  onTestFinished(clean);
  proxy.rule({ match: writes('set', '/.last'), do: 'late' });
  const run = startRunlock(proxy.agent, [
    'exec',
    '-g',
    'late',
    '--node',
    'web01',
    '--',
    'sh',
    '-c',
    `echo ran >>${folder}/runs`,
  ]);
  await proxy.seen(writes('set', '/.last'));
  run.signal('SIGTERM');
  expect((await run.ended).status).toBe(143);
  await proxy.release();
  expect(lines('runs')).toEqual([]);
  expect(await agent.kv.keys('runlock/late/')).toEqual(['runlock/late/.tail']);
});

test('a grant that took effect unseen, before its run was told to stop, is undone', async () => {
  const proxy = await through();
  proxy.rule({ match: writes('set', '/.last'), times: 1, do: 'drop-after' });
  // The look that would find the grant never comes back, so the run does not know of it when the signal comes.
  const looks: Match = ({ path, body }) =>
    path.startsWith('/v1/txn') &&
    !body.includes('.tail') &&
    body.includes('get-tree') &&
    body.includes('.last');
  const run = startRunlock(proxy.agent, ['exec', '-g', 'unseen', '--node', 'web01', '--', 'true']);
  await proxy.seen(writes('set', '/.last'));
  proxy.rule({ match: looks, do: 'hang' });
  await eventually(async () => expect(await agent.kv.keys('runlock/unseen/.slot/')).toHaveLength(2));
  run.signal('SIGTERM');
  expect([143, 0]).toContain((await run.ended).status);
  expect(await agent.kv.keys('runlock/unseen/.slot/')).toEqual([]);
});

test(
  'a release that can not be sent says what stays behind, and the exit code is the command’s',
  { timeout: 90_000 },
  async () => {
    const proxy = await through();
    proxy.rule({ match: writes('set', '/.runs/'), do: 'drop-before' });
    const run = await runlock(proxy.agent, [
      'exec',
      '-g',
      'stays',
      '--node',
      'web01',
      '--',
      'sh',
      '-c',
      'exit 7',
    ]);
    expect(run.status).toBe(7);
    expect(run.stderr).toContain('runlock/stays/.slot/0/owner stays and keeps others out');
    expect(run.stderr).toContain("its next run or 'runlock release stays --owner web01");
    const owner = await agent.kv.get('runlock/stays/.slot/0/owner');
    expect(JSON.parse(owner?.Value ?? '{}')).toMatchObject({ node: 'web01', state: 'running' });
    expect(
      await runlock(agent, ['exec', '-g', 'stays', '--node', 'web01', '-w', '0', '--', 'true']),
    ).toMatchObject({ status: 0 });
  },
);

test('renewals that are lost for a while lose nothing', async () => {
  const proxy = await through();
  const { folder, clean, pid } = scene();
  onTestFinished(clean);
  const renews: Match = ({ path }) => path.startsWith('/v1/session/renew');
  proxy.rule({ match: renews, times: 2, do: 'drop-before' });
  const command = `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
  const run = startRunlock(proxy.agent, [
    'exec',
    '-g',
    'renew',
    '--node',
    'web01',
    '--session-ttl',
    '10s',
    '--',
    'sh',
    '-c',
    command,
  ]);
  await pid('command');
  const before = await agent.kv.get('runlock/renew/.slot/0/lock');
  await proxy.seen(renews, 3);
  await agent.kv.put('unrelated', '');
  expect((await agent.kv.get('runlock/renew/.slot/0/lock'))?.Session).toBe(before?.Session);
  run.signal('SIGTERM');
  await run.ended;
});

test('a lost session at the end of a run, and a lost answer on the way back to it: the slot is given back all the same', async () => {
  const proxy = await through();
  const { folder, clean, pid } = scene();
  onTestFinished(clean);
  const command = `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
  const args = ['exec', '-g', 'twice', '--node', 'web01', '--session-ttl', '10s', '--', 'sh', '-c', command];
  const run = startRunlock(proxy.agent, args);
  await pid('command');
  // Nothing of the watch comes through, so that the loss is only met when the run ends.
  const watches: Match = ({ path }) => path.startsWith('/v1/kv/') && path.includes('index=');
  proxy.rule({ match: watches, do: 'hang' });
  proxy.sever();
  const session = (await agent.kv.get('runlock/twice/.slot/0/lock'))?.Session;
  await agent.http('PUT', `/v1/session/destroy/${session ?? ''}`);
  proxy.rule({ match: writes('lock', '/.slot/0/lock'), times: 1, do: 'drop-after' });
  writeFileSync(`${folder}/end`, '');
  expect(await run.ended).toMatchObject({ status: 0 });
  const base = 'runlock/twice';
  expect(await agent.kv.keys(`${base}/`)).toEqual([`${base}/.last`, `${base}/.runs/web01`, `${base}/.tail`]);
});

test('a return whose answer was lost, and that starts nothing after all, leaves the failed claim as it was', async () => {
  const failed = await runlock(agent, ['exec', '-g', 'undo', '--node', 'web01', '--', 'sh', '-c', 'exit 3']);
  expect(failed.status).toBe(3);
  const before = await agent.kv.get('runlock/undo/.slot/0/owner');
  const proxy = await through();
  const { folder, clean } = scene();
  onTestFinished(clean);
  writeFileSync(`${folder}/broken`, '#!/no/such/interpreter\n', { mode: 0o755 });
  proxy.rule({ match: writes('lock', '/.slot/0/lock'), times: 1, do: 'drop-after' });
  const run = await runlock(proxy.agent, ['exec', '-g', 'undo', '--node', 'web01', '--', `${folder}/broken`]);
  expect(run.status).toBe(126);
  expect((await agent.kv.get('runlock/undo/.slot/0/owner'))?.Value).toBe(before?.Value);
  expect(proxy.counts().requests).toBeLessThan(40);
});

test('a grant that is refused for a while is asked for ever more seldom', async () => {
  const proxy = await through();
  proxy.rule({ match: writes('set', '/.last'), do: { status: 429, body: 'slow down' } });
  const run = await runlock(proxy.agent, ['exec', '-g', 'slow', '--node', 'web01', '-w', '3s', '--', 'true']);
  expect(run.status).toBe(75);
  expect(proxy.counts().requests).toBeLessThan(60);
  expect(await agent.kv.keys('runlock/slow/.slot/')).toEqual([]);
});

test('tickets and locks that no session holds, as a restored export leaves them, stand in nobody’s way', async () => {
  const ticket = {
    v: 1,
    node: 'web09',
    run: 'old',
    since: new Date(0).toISOString(),
    command: 'true',
    pid: 1,
  };
  await agent.kv.put('runlock/stray/.queue/11111111-2222-3333-4444-555555555555', JSON.stringify(ticket));
  const run = await runlock(agent, [
    'exec',
    '-g',
    'stray',
    '--node',
    'web01',
    '-w',
    '10s',
    '--',
    'sh',
    '-c',
    'exit 3',
  ]);
  expect(run.status).toBe(3);
  await agent.kv.put('runlock/stray/.slot/0/lock', JSON.stringify({ v: 1, run: 'old' }));
  const released = await runlock(agent, ['release', 'stray', '--owner', 'web01']);
  expect(released.stdout).toContain('cleared the failed claim of web01');
  expect(await agent.kv.keys('runlock/stray/.slot/')).toEqual([]);
});
