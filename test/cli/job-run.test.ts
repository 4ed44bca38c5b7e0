// A run of a job, `task run --job`: how it starts, what its end is called, and when it starts nothing.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { jobFor } from '../support/job-runs.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { JOB_STEPS } from '../support/job-runs.ts';
import { writes } from '../support/proxy-steps.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

const UNTIL_TOLD = 'echo ran; touch FOLDER/started; until [ -e FOLDER/end ]; do sleep 0.05; done';
const hasStarted = (folder: string) =>
  eventually(() => expect(existsSync(join(folder, 'started'))).toBe(true));

describe('the end of a run is the end of its target', () => {
  test.each([
    ['good', 'echo $RUNLOCK_JOB', 'good', 0, undefined],
    ['failed', 'echo out; exit 3', 'failed', 3, 'failed'],
    ['timed-out', 'sleep 60', 'timed-out', 124, 'failed'],
    ['reboot', 'exit 35', 'rebooting', 35, 'rebooting'],
  ] as const)('%s', async (name, script, state, status, claim) => {
    const job = await jobFor(agent, `jr/${name}`, script, {
      options: 'reboot_codes = [35]\ntimeout = "1h"',
      spec: { timeoutMs: name === 'timed-out' ? 300 : 60_000 },
    });
    const run = await job.run().ended;
    expect(run).toMatchObject({ status });
    if (name === 'good') expect(run.stdout).toBe(`ops/${job.ref.id}\n`);
    const { spec, stage, tally, document } = await job.look();
    const isFinal = state !== 'rebooting';
    expect(document?.value).toMatchObject({ state, bootId: expect.any(String) as string });
    expect(tally.value.states).toEqual(isFinal ? { [state]: 1 } : {});
    expect(stage.value.kind).toBe(state === 'good' ? 'done' : isFinal ? 'stopped' : 'open');
    // The pointer goes with the final state.
    const pointer = await agent.kv.get(`runlock/.requests/ops/inbox/node1/${job.ref.id}`);
    expect(pointer === undefined).toBe(isFinal);
    const kept = claim === undefined ? undefined : (expect.objectContaining({ state: claim }) as object);
    expect(await job.group.claim()).toEqual(kept);
    // One transaction.
    const last = await agent.kv.get(job.group.key('.runs/node1'));
    const written = await agent.kv.get(job.group.key(`.jobs/ops/${job.ref.id}/nodes/node1`));
    expect(written?.ModifyIndex).toBe(last?.ModifyIndex);
    const { until } = spec.value;
    expect(job.ledger()).toMatchObject({ nonce: 'n1', run: document?.value.run, until, end: { state } });
  });

  test('that publishes in two groups, all of it at one index', async () => {
    const job = await jobFor(agent, 'jr/also', 'true', {
      also: 'jr/two',
      options: 'publish = ["jr/v=1"]\nduring = ["jr/d=1"]',
    });
    expect(await job.run().ended).toMatchObject({ status: 0 });
    const keys = ['jr/two/.runs/node1', 'jr/also/.runs/node1', '.state/jr/v/.value'];
    const of = [...keys, `jr/also/.jobs/ops/${job.ref.id}/tally`].map((key) =>
      agent.kv.get(`runlock/${key}`),
    );
    expect(new Set((await Promise.all(of)).map((pair) => pair?.ModifyIndex)).size).toBe(1);
    expect(await agent.kv.get('runlock/.state/jr/d/.value')).toBeUndefined();
  });

  test('marked lost meanwhile: its slot is released, its end is a remark, and counted once', async () => {
    const job = await jobFor(agent, 'jr/late', UNTIL_TOLD);
    const run = job.run();
    await hasStarted(job.folder);
    await job.end('node1', { end: () => ({ state: 'lost', endedAt: new Date().toISOString() }) });
    writeFileSync(join(job.folder, 'end'), '');
    expect(await run.ended).toMatchObject({ status: 0 });
    const { tally, document } = await job.look();
    expect(tally.value.states).toEqual({ lost: 1 });
    expect(document?.value).toMatchObject({
      state: 'lost',
      late: expect.stringMatching(/^good, exit 0/) as string,
    });
    expect(await job.group.claim()).toBeUndefined();
  });

  test.each([
    ['deleted', (key: string) => agent.http('DELETE', `/v1/kv/${key}?recurse`), 'is missing'],
    ['overwritten', (key: string) => agent.kv.put(`${key}/stage`, 'junk'), 'not a stage of a job'],
  ])('whose job is %s by hand: it is good in its group, and says so', async (name, change, said) => {
    const job = await jobFor(agent, `jr/${name}`, UNTIL_TOLD);
    const run = job.run();
    await hasStarted(job.folder);
    await change(`runlock/jr/${name}/.jobs/ops/${job.ref.id}`);
    writeFileSync(join(job.folder, 'end'), '');
    const { status, stderr } = await run.ended;
    expect(status).toBe(0);
    expect(stderr).toContain(`the end of this run is not recorded in job ops/${job.ref.id}: `);
    expect(stderr).toContain(said);
    expect(stderr.match(/is not recorded in job/g)).toHaveLength(1);
    expect(await job.group.claim()).toBeUndefined();
    const record = await agent.kv.get(job.group.key('.runs/node1'));
    expect(JSON.parse(record?.Value ?? '')).toMatchObject({ outcome: 'succeeded' });
    expect(job.ledger()).toMatchObject({ end: { state: 'good' } });
  });

  test('evicted: failed, alone, with who did it; each group as it is', async () => {
    const job = await jobFor(agent, 'jr/evicted', UNTIL_TOLD, { options: 'hold = "none"', also: 'jr/other' });
    const run = job.run();
    await hasStarted(job.folder);
    const claim = { ...(await job.group.claim()), state: 'evicted', by: 'ann' };
    await agent.kv.put(job.group.key('.slot/0/owner'), JSON.stringify(claim));
    expect(await run.ended).toMatchObject({ status: 79 });
    expect(await job.document()).toMatchObject({
      state: 'failed',
      why: 'ann evicted the run from jr/evicted',
    });
    expect(await job.group.claim()).toBeUndefined();
    expect(job.ledger()).toMatchObject({ end: { state: 'failed' } });
    expect(await job.group.lastRun('node1')).toMatchObject({ outcome: 'evicted' });
    const other = await agent.kv.get('runlock/jr/other/.runs/node1');
    expect(JSON.parse(other?.Value ?? '')).toMatchObject({ outcome: 'lost' });
  });

  test('with the last line of its output, where that goes into a file', async () => {
    const job = await jobFor(agent, 'jr/line', 'echo first; echo last');
    expect(await job.run({}, '--log-file', join(job.folder, 'log')).ended).toMatchObject({ status: 0 });
    expect(await job.document()).toMatchObject({ state: 'good', lastLine: 'last' });
  });
});

test('from the folder of another node’s agent, it starts nothing: 78', async () => {
  const job = await jobFor(agent, 'jr/others', 'touch FOLDER/started');
  mkdirSync(job.state, { recursive: true });
  writeFileSync(join(job.state, 'node'), JSON.stringify({ v: 1, node: 'node2' }));
  const { status, stderr } = await job.run().ended;
  expect(status).toBe(78);
  expect(stderr).toContain(`${job.state} belongs to node node2, and this is node node1; give`);
  expect(existsSync(join(job.folder, 'started'))).toBe(false);
  expect(await job.document()).toMatchObject({ state: 'accepted' });
});

describe('its last line of output', () => {
  type Job = Awaited<ReturnType<typeof jobFor>>;
  const keyOf = (job: Job, key: string) => job.group.key(`.jobs/ops/${job.ref.id}/${key}`);
  const watch = (job: Job) => {
    const until = new Date(Date.now() + 60_000).toISOString();
    return agent.kv.put(keyOf(job, 'stage/watched/w'), JSON.stringify({ v: 1, until }));
  };
  const tail = async (job: Job) => (await agent.kv.get(keyOf(job, 'tail/node1')))?.Value;
  const logged = (job: Job, env: Readonly<Record<string, string>> = {}) =>
    job.run(env, '--log-file', join(job.folder, 'log'));

  test.each(['before', 'later'])(
    'stands in Consul for who watches, and goes with its end: %s',
    async (when) => {
      const job = await jobFor(agent, `jt/${when}`, UNTIL_TOLD);
      if (when === 'before') await watch(job);
      const run = logged(job);
      await hasStarted(job.folder);
      if (when === 'later') {
        expect(await tail(job)).toBeUndefined();
        await watch(job);
      }
      await eventually(async () => expect(await tail(job)).toBe('{"v":1,"line":"ran"}'));
      writeFileSync(join(job.folder, 'end'), '');
      expect(await run.ended).toMatchObject({ status: 0 });
      expect(await tail(job)).toBeUndefined();
      expect(await job.document()).toMatchObject({ state: 'good', lastLine: 'ran' });
    },
  );

  test('stays on the node with tail = false', async () => {
    await using proxy = await startProxy(agent);
    const job = await jobFor(agent, 'jt/none', 'echo secret; sleep 0.2', { options: 'tail = false' });
    await watch(job);
    expect(await logged(job, proxy.env).ended).toMatchObject({ status: 0 });
    expect(await job.document()).not.toHaveProperty('lastLine');
    expect(proxy.requests.filter(writes('set', '/tail/'))).toEqual([]);
  });
});

describe('nothing is started, exit 81, where', () => {
  const past = new Date(Date.now() - 1_000).toISOString();
  test.each([
    ['the request names another parameter', { spec: { params: { v: 'y' } } }, /asks for something else/],
    ['it names another task', { spec: { task: 'u' } }, /asks for something else: task u/],
    ['its home is none of the task’s groups', { spec: { home: 'jl/other' } }, /is in jl\/other/],
    ['it only tries', { spec: { noop: true } }, /only tries, and this is the real run/],
    ['it lets others run at once', { spec: { maxRunning: 2 } }, /has another limit of runs at once/],
    ['its end is past', { spec: { until: past }, accepts: false }, /is past its end/],
    ['the node has not accepted', { accepts: false }, /has not come to this node/],
    [
      'its stage is not open',
      {
        targets: [
          ['web09', 0],
          ['node1', 1],
        ],
      },
      /has not come to this node/,
    ],
    ['it does not name the node', { targets: [['web09', 0]] }, /does not name this node/],
  ] as const)('%s', async (_, options, why) => {
    const job = await jobFor(agent, 'jl/g', 'echo ran', options);
    const run = await job.run({}, '-v').ended;
    expect(run).toMatchObject({ status: 81, stdout: '' });
    expect(run.stderr).toMatch(why);
    expect(existsSync(job.ledgerFile)).toBe(false);
  });

  test('its end would not fit into one transaction: 64', async () => {
    const also = Array.from({ length: 9 }, (_, i) => `jl/s${i}`).join(',');
    const run = await (await jobFor(agent, 'jl/s', 'echo ran', { also })).run().ended;
    expect(run).toMatchObject({ status: 64, stdout: '' });
    expect(run.stderr).toContain('more than the 64 operations of one transaction');
  });

  test('the job is stopped, gone, or was started here before', async () => {
    const [stopped, gone, before] = await Promise.all(
      ['stopped', 'gone', 'before'].map((name) => jobFor(agent, `jl/${name}`, 'echo ran')),
    );
    if (!stopped || !gone || !before) throw new Error('no jobs');
    await stopped.stop({ why: 'cancelled', by: 'ann', reason: 'wrong' });
    await agent.kv.deleteTree(`runlock/.requests/ops/spec/${gone.ref.id}`);
    mkdirSync(dirname(before.ledgerFile), { recursive: true });
    writeFileSync(before.ledgerFile, 'rubbish');
    const says = await Promise.all([stopped, gone, before].map((job) => job.run({}, '-v').ended));
    expect(says.map(({ status, stdout }) => [status, stdout])).toEqual(Array(3).fill([81, '']));
    expect(says[0]?.stderr).toContain(`ann cancelled job ops/${stopped.ref.id} (wrong)`);
    expect(says[1]?.stderr).toContain('is gone');
    expect(says[2]?.stderr).toContain('was started here before');
    expect(await before.document()).toMatchObject({ state: 'accepted' });
  });
});

describe('a stop', () => {
  const cancel = { why: 'cancelled', by: 'ann' } as const;

  test('while the run is in the queue: it leaves at once', async () => {
    const job = await jobFor(agent, 'js/queue', 'echo ran');
    const holder = await job.group.hold('web09');
    const run = job.run();
    await job.group.waiting();
    await job.stop(cancel);
    expect(await run.ended).toMatchObject({ status: 81, stdout: '' });
    expect(await job.group.tickets()).toEqual([]);
    expect(await job.document()).toMatchObject({ state: 'accepted' });
    await holder.end();
  });

  test('by deleting the job, while the run is in the queue: it leaves at once', async () => {
    const job = await jobFor(agent, 'js/gone', 'echo ran');
    const holder = await job.group.hold('web09');
    const run = job.run();
    await job.group.waiting();
    await agent.http('DELETE', `/v1/kv/runlock/js/gone/.jobs/ops/${job.ref.id}/?recurse`);
    expect(await run.ended).toMatchObject({ status: 81, stdout: '' });
    expect(await job.group.tickets()).toEqual([]);
    await holder.end();
  });

  test('while the run has its slot, and settles: it gives the slot back at once', async () => {
    await agent.http('PUT', '/v1/agent/service/register', JSON.stringify({ Name: 'js', Port: 1 }));
    const options =
      'service = "js"\nmaintenance = "service"\nsettle = "1h"\ngate_stable = "1ms"\nallow_unknown_service = true';
    const job = await jobFor(agent, 'js/settle', 'echo ran', { options });
    const run = job.run();
    await eventually(async () => expect(await job.group.claim()).toMatchObject({ state: 'running' }));
    await job.stop(cancel);
    expect(await run.ended).toMatchObject({ status: 81, stdout: '' });
    expect(await job.group.claim()).toBeUndefined();
    await agent.http('PUT', '/v1/agent/service/deregister/js');
  });

  test('just before the start: the start is refused', async () => {
    await using proxy = await startProxy(agent);
    const job = await jobFor(agent, 'js/race', 'echo ran');
    let open = () => {};
    proxy.rule({ match: JOB_STEPS.start, do: { until: new Promise<void>((resolve) => (open = resolve)) } });
    // The run does not hear of the stop by its watch.
    proxy.rule({ match: ({ path }) => path.includes('/stage?') && path.includes('index='), do: 'hang' });
    const run = job.run(proxy.env);
    await proxy.seen(JOB_STEPS.start);
    await job.stop(cancel);
    open();
    expect(await run.ended).toMatchObject({ status: 81, stdout: '' });
    expect(await job.document()).toMatchObject({ state: 'accepted' });
    expect(existsSync(job.ledgerFile)).toBe(false);
  });

  test('while the command runs does not end it; with kill it does, and its claim stays', async () => {
    const job = await jobFor(agent, 'js/kill', `trap 'echo told; exit 0' TERM; ${UNTIL_TOLD}`);
    const run = job.run();
    await hasStarted(job.folder);
    await job.stop(cancel);
    await eventually(async () => expect((await job.look()).stage.value).toMatchObject({ kind: 'stopped' }));
    expect(run.stdout()).toBe('ran\n');
    await job.stop({ ...cancel, kill: true });
    const ended = await run.ended;
    expect(ended).toMatchObject({ status: 81, stdout: 'ran\ntold\n' });
    expect(ended.stderr).toContain(`ann cancelled job ops/${job.ref.id}; killed the command`);
    const { tally, document } = await job.look();
    expect(document?.value).toMatchObject({ state: 'cancelled', why: `ann cancelled job ops/${job.ref.id}` });
    expect(tally.value.states).toEqual({ cancelled: 1 });
    expect(await job.group.claim()).toMatchObject({ state: 'failed' });
  });
});

describe('what the node has started', () => {
  test('can’t be noted: nothing starts, and its target is refused', async () => {
    const job = await jobFor(agent, 'jn/full', 'echo ran');
    writeFileSync(job.state, 'a file where the folder has to be');
    const run = await job.run().ended;
    expect(run).toMatchObject({ status: 74, stdout: '' });
    expect(run.stderr).toContain('without which a job might start twice');
    const { tally, document } = await job.look();
    expect(document?.value).toMatchObject({
      state: 'refused',
      why: expect.stringContaining('twice') as string,
    });
    expect(tally.value.states).toEqual({ refused: 1 });
    expect(await job.group.claim()).toBeUndefined();
  });

  test('two processes for one target: one starts, the other leaves', async () => {
    const job = await jobFor(agent, 'jn/double', 'echo ran; sleep 0.2', { options: 'slots = 2' });
    const runs = await Promise.all([job.run().ended, job.run().ended]);
    expect(runs.map(({ stdout }) => stdout).sort()).toEqual(['', 'ran\n']);
    expect(await job.document()).toMatchObject({ state: 'good' });
    expect((await job.look()).tally.value.states).toEqual({ good: 1 });
  });

  test('is known after a restored snapshot: nothing starts a second time', async () => {
    const job = await jobFor(agent, 'jn/restored', 'echo ran');
    const file = join(job.folder, 'snapshot');
    await agent.consul('snapshot', 'save', file);
    expect(await job.run().ended).toMatchObject({ status: 0, stdout: 'ran\n' });
    await agent.consul('snapshot', 'restore', file);
    expect(await job.document()).toMatchObject({ state: 'accepted' });
    expect(await job.run().ended).toMatchObject({ status: 81, stdout: '' });
    expect(job.ledger()).toMatchObject({ end: { state: 'good' } });
  });

  test('a pause between stages is waited for without a slot', async () => {
    const job = await jobFor(agent, 'jn/pause', 'echo ran', {
      ...{
        targets: [
          ['node1', 1],
          ['web09', 0],
        ],
        accepts: false,
        spec: { pauseMs: 700 },
      },
    });
    await job.accept('web09');
    const beforeMs = Date.now();
    await job.end('web09', { end: () => ({ state: 'good', endedAt: new Date().toISOString() }) });
    await job.accept();
    expect(await job.run().ended).toMatchObject({ status: 0, stdout: 'ran\n' });
    expect(Date.parse((await job.document())?.startedAt ?? '') - beforeMs).toBeGreaterThan(690);
  });
});
