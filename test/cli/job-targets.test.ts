// `runlock job start`: nodes found by the catalogue, a group or another job, in stages; and `job retry`. Agents are played.
import { describe, expect, test } from 'vitest';
import { aTask, playAgent, playTarget } from '../support/played-agent.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true });

const job = (...words: readonly string[]) => runlock(agent, ['job', ...words]);
const start = (id: string, ...words: readonly string[]) =>
  job('start', 'chef', '--id', id, '--wait', '0', ...words);

interface Shown {
  readonly targets: readonly { readonly node: string; readonly stage: number; readonly state: string }[];
  readonly stages: readonly number[];
  readonly selection?: object;
  readonly of?: string;
  readonly state: string;
}
const show = async (id: string) => JSON.parse((await job('show', id, '--json')).stdout) as Shown;
const stagesOf = async (id: string) =>
  (await show(id)).targets.map(({ node, stage }) => `${node} ${stage}`).join(', ');

/** A node of the catalogue that offers `web`. */
async function register(node: string, { rack, tags = [] }: { rack: string; tags?: readonly string[] }) {
  await agent.http('PUT', '/v1/catalog/register', {
    ...{ Node: node, Address: '127.0.0.1', NodeMeta: { rack } },
    Service: { ID: `web-${node}`, Service: 'web', Tags: tags },
  });
}

describe('nodes are found', () => {
  test('by service, tag, metadata, filter, group and job, all of it together', async () => {
    for (const [node, rack, tag] of [
      ['f1', 'r1', 'blue'],
      ['f2', 'r1', 'green'],
      ['f3', 'r2', 'blue'],
    ] as const) {
      await register(node, { rack, tags: [tag, 'v1'] });
      await playAgent(agent, node);
    }
    await agent.http('PUT', '/v1/catalog/register', {
      Node: 'f4',
      Address: '127.0.0.1',
      NodeMeta: { rack: 'r1' },
    });
    await playAgent(agent, 'f4');
    await agent.kv.put('runlock/prod/rec/.runs/f1', '{}');
    await agent.kv.put('runlock/prod/rec/.runs/f4', '{}');
    const found = async (...words: readonly string[]) => {
      const { status, stdout, stderr } = await job('start', 'chef', '--dry-run', '--json', ...words);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      return (JSON.parse(stdout) as { nodes: { node: string }[] }).nodes.map(({ node }) => node).join();
    };
    expect(await found('--service', 'web')).toBe('f1,f2,f3');
    expect(await found('--service', 'web', '--tag', 'blue', '--tag', 'v1')).toBe('f1,f3');
    expect(await found('--meta', 'rack=r1')).toBe('f1,f2,f4');
    expect(await found('--meta', 'rack=r1', '--service', 'web')).toBe('f1,f2');
    expect(await found('--filter', 'Meta.rack == r1 and Node != f2')).toBe('f1,f4');
    expect(await found('--service', 'web', '--filter', 'green in ServiceTags')).toBe('f2');
    expect(await found('--group', 'prod/rec')).toBe('f1,f4');
    expect(await found('--group', 'prod/rec', '--service', 'web')).toBe('f1');
    expect(await found('--node', 'f2,f3', '--tag', 'blue', '--service', 'web')).toBe('f3');

    expect((await start('first', '--service', 'web', '--canary', '1')).status).toBe(0);
    expect(await stagesOf('first')).toBe('f1 0, f2 1, f3 1');
    expect((await show('first')).selection).toEqual({ service: 'web' });
    await playTarget(agent, 'ops/first', 'f1').end('refused');
    expect(await found('--from-job', 'first:refused')).toBe('f1');
    expect(await found('--from-job', 'ops/first:not-started,refused', '--meta', 'rack=r1')).toBe('f1,f2');

    const none = await job('start', 'chef', '--service', 'web', '--tag', 'red');
    expect(none).toMatchObject({ status: 78, stdout: '' });
    expect(none.stderr).toContain('no node found: service web, tag red');
    const odd = await job('start', 'chef', '--filter', 'Meta.rack ==');
    expect(odd).toMatchObject({ status: 64, stdout: '' });
    expect(odd.stderr).toContain("--filter 'Meta.rack ==': Consul at ");
    const away = await job('start', 'chef', '--from-job', 'nothing');
    expect(away.stderr).toContain('there is no job ops/nothing');
    expect(away.status).toBe(78);
  });

  test('a token that sees nothing of the catalogue or the group is told which rule it lacks (77)', async () => {
    await register('f1', { rack: 'r1' });
    const env = {
      ...agent.env,
      CONSUL_HTTP_TOKEN: await agent.token('key_prefix "runlock/.agents/" { policy = "read" }'),
    };
    const lacks = async (rule: string, ...words: readonly string[]) => {
      const { status, stderr } = await runlock({ env }, ['job', 'start', 'chef', ...words]);
      expect(stderr).toContain(rule);
      expect(status).toBe(77);
    };
    await lacks('node_prefix "" { policy = "read" }', '--service', 'web');
    await lacks('node_prefix "" { policy = "read" }', '--meta', 'rack=r1');
    await lacks('key_prefix "runlock/prod/rec/" { policy = "read" }', '--group', 'prod/rec');
    await lacks('key_prefix "runlock/.requests/" { policy = "read" }', '--from-job', 'first');
  });
});

describe('a start', () => {
  test('says its stages and limits, and job show too', async () => {
    for (const node of ['s1', 's2', 's3', 's4'])
      await playAgent(agent, node, { tasks: [aTask({ keptSlots: 3 })] });
    const words = ['--node', 's1,s2,s3,s4', '--canary', '1', '--steps', '50%', '--pause', '10m'];
    const limits = ['--max-failures', '2', '--max-running', '50%', '--splay', '1m'];
    const started = await start('staged', ...words, ...limits);
    expect(started.status).toBe(0);
    expect(started.stdout).toContain('ops/staged: chef on 4 nodes in prod/web: 1, then 1, then 2\n');
    expect(await show('staged')).toMatchObject({
      ...{ stages: [1, 1, 2], stage: 0, canary: '1', steps: ['50%'], pauseMs: 600_000, maxFailures: 2 },
      ...{ maxRunning: 2, splayMs: 60_000, offline: 'wait', selection: { named: { count: 4 } } },
    });
    expect((await job('show', 'staged')).stdout).toContain(
      'stages of 1, then 1, then 2 (now stage 1); 10m between them; at most 2 at once; starts spread over 1m; stops after 3 failures\n',
    );
    const { accept, run, end } = playTarget(agent, 'ops/staged', 's1');
    await accept();
    await run('run-s1');
    await end('good');
    expect(await show('staged')).toMatchObject({ stage: 1, notBefore: expect.any(String) as string });
  });

  test('with as many failures as slots is refused, because each failure keeps one (64)', async () => {
    await playAgent(agent, 's5', { tasks: [aTask({ keptSlots: 2 })] });
    await playAgent(agent, 's6', { tasks: [aTask({ slots: 1 })] });
    const refused = await start('many', '--node', 's5,s6', '--max-failures', '2');
    expect(refused).toMatchObject({ status: 64, stdout: '' });
    expect(refused.stderr).toContain(
      '--max-failures 2 needs more than 2 slots, because each failed run keeps its slot; task chef of s5 has 2',
    );
    expect((await start('few', '--node', 's5,s6', '--max-failures', '1')).status).toBe(0);
    expect((await start('free', '--node', 's6', '--max-failures', '9')).status).toBe(0);
  });

  test('--offline says what becomes of nodes without an agent', async () => {
    await playAgent(agent, 's7');
    const nodes = ['--node', 's7,s8', '--canary', '1'];
    const none = await start('none', ...nodes);
    expect(none.status).toBe(78);
    expect(none.stderr).toContain('or say with --offline what is to become of it');
    const waits = await start('waits', ...nodes, '--offline', 'wait');
    expect(waits).toMatchObject({ status: 0 });
    expect(waits.stderr).toContain(
      's8: no runlock agent is running there; the job waits for them until its end',
    );
    expect(await stagesOf('waits')).toBe('s7 0, s8 1');
    await start('skips', ...nodes, '--offline', 'skip');
    expect((await show('skips')).targets).toMatchObject([
      { stage: 0 },
      { node: 's8', stage: -1, state: 'offline' },
    ]);
    await start('fails', ...nodes, '--offline', 'fail');
    expect(await show('fails')).toMatchObject({ state: 'stopped', stopped: { why: 'failures' } });
    const alone = await start('alone', '--node', 's8', '--offline', 'wait');
    expect(alone.status).toBe(78);
    expect(alone.stderr).toContain('no runlock agent is running on any of the 1 nodes');
  });

  test('that is repeated goes on with the nodes of the first, whatever is found now', async () => {
    await register('s9', { rack: 'r9' });
    await playAgent(agent, 's9');
    const words = ['--meta', 'rack=r9', '--canary', '1'];
    expect((await start('ci', ...words)).status).toBe(0);
    await register('s10', { rack: 'r9' });
    const again = await start('ci', ...words, '-v');
    expect(again).toMatchObject({ status: 0 });
    expect(again.stderr).toContain('job ops/ci is there already, from the same start');
    expect(await stagesOf('ci')).toBe('s9 0');
    const other = await start('ci', '--meta', 'rack=r8');
    expect(other.status).toBe(64);
    expect(other.stderr).toContain('job ops/ci exists already, with other ');
  });

  test('--noop needs a noop command in the file of each node', async () => {
    await playAgent(agent, 's11');
    await playAgent(agent, 's12', { tasks: [aTask({ noop: true })] });
    const refused = await start('tried', '--node', 's11,s12', '--noop');
    expect(refused.status).toBe(78);
    expect(refused.stderr).toContain("s11: its task chef can't be tried: write noop = ");
    expect((await start('tries', '--node', 's12', '--noop')).status).toBe(0);
  });
});

describe('job start --dry-run', () => {
  test('says when the turn of each would come, what it would wait for, and writes nothing', async () => {
    const tasks = [aTask({ groups: ['dry/web'], slots: 1 })];
    for (const node of ['d1', 'd2']) await playAgent(agent, node, { tasks });
    const record = {
      ...{
        v: 1,
        node: 'd1',
        run: 'r',
        outcome: 'succeeded',
        exitCode: 0,
        command: 'c',
        slot: 0,
        waitedMs: 0,
      },
      ...{ endedAt: new Date().toISOString(), ranMs: 120_000 },
    };
    await agent.kv.put('runlock/dry/web/.runs/d1', JSON.stringify(record));
    const before = (await agent.kv.tree('runlock/')).length;
    const words = ['start', 'chef', '--node', 'd1,d2,d9', '--canary', '1', '--pause', '1m', '--dry-run'];
    const told = await job(...words, '--offline', 'skip');
    expect(told).toEqual({
      status: 0,
      stderr: '',
      stdout: [
        'd1: would take chef, in dry/web, stage 1 of 2, at once',
        'd2: would take chef, in dry/web, stage 2 of 2, in about 3m (behind 1 other)',
        'd9: offline, and left out: no runlock agent is running there',
        '',
      ].join('\n'),
    });
    expect((await agent.kv.tree('runlock/')).length).toBe(before);
    await runlock(agent, ['freeze', 'dry/web', '--reason', 'upgrade']);
    const frozen = await job(...words, '--offline', 'skip', '--json');
    expect(JSON.parse(frozen.stdout)).toMatchObject({
      ...{ kind: 'dry-run', stages: 2 },
      nodes: [
        { node: 'd1', ok: true, stage: 0, waits: [expect.stringContaining('dry/web is frozen by')] },
        { node: 'd2', ok: true, stage: 1 },
        { node: 'd9', ok: false, stage: -1 },
      ],
    });
    const asks = ['.agents/', '.requests/'].map((name) => `key_prefix "runlock/${name}" { policy = "read" }`);
    const env = { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(asks.join('\n')) };
    const blind = await runlock({ env }, ['job', ...words, '--offline', 'skip']);
    expect(blind.status).toBe(0);
    expect(blind.stdout).toMatch(
      /^d1: would take chef.*\n[^]*what the nodes would wait for is unknown: .*dry\/web/,
    );
  });
});

describe('job retry', () => {
  test('is a new job for what is not good, once the first is over; and once only', async () => {
    for (const node of ['r1', 'r2', 'r3', 'r4']) await playAgent(agent, node);
    const asked = ['--node', 'r1,r2,r3,r4', '--param', 'recipe=x', '--pause', '1m'];
    await start('release', ...asked);
    const early = await job('retry', 'release');
    expect(early).toMatchObject({ status: 75, stdout: '' });
    expect(early.stderr).toContain('job ops/release is not over yet');
    const play = (node: string) => playTarget(agent, 'ops/release', node);
    for (const [node, state] of [
      ['r1', 'good'],
      ['r2', 'lost'],
    ] as const) {
      await play(node).accept();
      await play(node).run(`run-${node}`);
      if (state === 'good') await play(node).end(state);
    }
    const running = await job('retry', 'release');
    expect(running.stderr).toContain('job ops/release is not over yet');
    await play('r3').accept();
    await play('r3').run('run-r3');
    await play('r3').end('failed', { exitCode: 3 });
    expect((await job('retry', 'release')).stderr).toContain('is not over yet');
    await play('r2').end('lost');

    const some = await job('retry', 'release', '--lost', '--not-started', '--id', 'some', '--wait', '0');
    expect(some.status).toBe(0);
    expect(await show('some')).toMatchObject({
      ...{ of: 'release', params: { recipe: 'x' }, pauseMs: 60_000 },
      targets: [{ node: 'r2' }, { node: 'r4' }],
    });
    expect((await job('retry', 'release', '--failed', '--dry-run')).stdout).toMatch(/^r3: /);
    const all = await job('retry', 'release', '--wait', '0');
    expect(all.status).toBe(0);
    expect((await show('release-r2')).targets.map(({ node }) => node)).toEqual(['r2', 'r3', 'r4']);
    const twice = await job('retry', 'release');
    expect(twice.status).toBe(75);
    expect(twice.stderr).toContain('job ops/release was retried already, as ops/release-r2');
    await job('cancel', 'release-r2', '--reason', 'enough');
    await job('retry', 'release-r2', '--wait', '0');
    expect(await show('release-r3')).toMatchObject({ of: 'release-r2' });
  });

  test('of a job where all is good, or that is not there, is refused (78)', async () => {
    await playAgent(agent, 'r5');
    await start('fine', '--node', 'r5');
    const { accept, run, end } = playTarget(agent, 'ops/fine', 'r5');
    await accept();
    await run('run-r5');
    await end('good');
    expect(await job('retry', 'fine')).toMatchObject({ status: 78 });
    expect((await job('retry', 'fine')).stderr).toContain(
      'nothing to retry: all nodes of job ops/fine are good',
    );
    expect(await job('retry', 'never')).toMatchObject({ status: 78 });
  });
});

test.each([
  ['--tag needs --service', 'start', 'chef', '--node', 'a', '--tag', 'x'],
  ['say which nodes, with --node, --service', 'start', 'chef'],
  ['--canary 0: must be a whole number from 1', 'start', 'chef', '--node', 'a', '--canary', '0'],
  ['each step has to be larger', 'start', 'chef', '--node', 'a', '--steps', '50%,10%'],
  ['--offline never: write wait, skip or fail', 'start', 'chef', '--node', 'a', '--offline', 'never'],
  ["'bad' is not a state of a target", 'start', 'chef', '--from-job', 'x:bad'],
  ["--failed is for 'job retry' only", 'start', 'chef', '--node', 'a', '--failed'],
  ["--service is for 'job start' only", 'retry', 'x', '--service', 'web'],
  ["--canary is for 'job start' and 'job retry' only", 'show', 'x', '--canary', '1'],
])('wrong usage: %s', async (said, ...words) => {
  const { status, stdout, stderr } = await job(...words);
  expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
  expect(stderr).toContain(said);
});
