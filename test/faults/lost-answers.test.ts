// Requests that are lost before or after they took effect, or arrive late: through a proxy that breaks real connections.
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
