// A good run of a task serves every request for the same that was there before it began, and no other.
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { observeJob } from '../support/history/job-observer.ts';
import { judgeJob } from '../support/history/jobs.ts';
import { jobFor } from '../support/job-runs.ts';
import { eventually } from '../support/processes.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { turnsOf } from '../support/turns.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

type Job = Awaited<ReturnType<typeof jobFor>>;

/** Both runs wait for the node's turn, which another run has; then they go. */
async function together(name: string, jobs: readonly Job[]) {
  const env = turnsOf();
  const held = await groupOf(agent, `${name}/other`, { env }).hold('node1');
  const runs = jobs.map((job) => job.run(env, '-v'));
  const record = () => agent.kv.get(`runlock/${name}/.outside/node1`);
  await eventually(async () => expect((await record())?.Value).toContain('"turn":{'), 20_000);
  await held.end();
  return Promise.all(runs.map(({ ended }) => ended));
}

const recordOf = async (job: Job) =>
  JSON.parse((await agent.kv.get(job.group.key('.runs/node1')))?.Value ?? '{}') as {
    run: string;
    task: { from: number; job?: string };
  };

test('two jobs wait for the turn of their node: one runs, and serves both', async () => {
  const first = await jobFor(agent, 'js/both', 'echo ran', { options: 'publish = ["js/v=1"]' });
  const second = await jobFor(agent, 'js/both', 'echo ran', { like: first, options: 'publish = ["js/v=1"]' });
  const observers = [first, second].map(({ ref }) =>
    observeJob(agent, `runlock/js/both/.jobs/ops/${ref.id}/`),
  );
  const ended = await together('js/both', [first, second]);
  expect(ended.map(({ stdout }) => stdout).sort()).toEqual(['', 'ran\n']);
  expect(ended.map(({ status }) => status).sort()).toEqual([0, 81]);
  const [ran, served] = ended[0]?.status === 0 ? [first, second] : [second, first];
  const { run, task } = await recordOf(first);
  expect(task.job).toBe(`ops/${ran.ref.id}`);
  expect(await ran.document()).toMatchObject({ state: 'good', run });
  const why = `served by the run of job ops/${ran.ref.id}`;
  expect(await served.document()).toMatchObject({ state: 'good', run, served: true, why });
  const left = ended.find(({ status }) => status === 81);
  expect(left?.stderr).toContain(`job ops/${served.ref.id} was ${why}`);
  // It was not started: nothing is noted of a start, and nothing of it stays.
  expect(existsSync(served.ledgerFile)).toBe(false);
  expect(await agent.kv.get(`runlock/.requests/ops/inbox/node1/${served.ref.id}`)).toBeUndefined();
  expect((await served.look()).stage.value.kind).toBe('done');
  expect(await first.group.claim()).toBeUndefined();
  const shown = await runlock(agent, ['job', 'show', `ops/${served.ref.id}`]);
  expect(shown.stdout).toMatch(new RegExp(`node1 +good .*${why}$`, 'm'));
  const looks = await observers[[first, second].indexOf(served)]?.seen();
  await Promise.all(observers.map((observer) => observer.stop()));
  const others = [{ node: 'node1', run, isGood: true, claimIndex: task.from }];
  const named = ['node1'];
  expect(judgeJob({ commands: [], looks: looks ?? [], named, allowing: named, others })).toEqual([]);
});

test('in two groups, and with a limit of runs of its own', async () => {
  const options = { also: 'js/z', spec: { maxRunning: 1 } };
  const first = await jobFor(agent, 'js/two', 'echo ran', options);
  const second = await jobFor(agent, 'js/two', 'echo ran', { ...options, like: first });
  expect(await first.run({}, '--max-running', '1').ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  expect(await second.run({}, '--max-running', '1').ended).toMatchObject({ status: 81, stdout: '' });
  expect(await second.document()).toMatchObject({ state: 'good', served: true });
});

test('with other parameters each job has its run', async () => {
  const first = await jobFor(agent, 'js/params', 'echo ran');
  const second = await jobFor(agent, 'js/params', 'echo ran', { like: first, param: 'y' });
  const ended = await together('js/params', [first, second]);
  expect(ended).toMatchObject([
    { status: 0, stdout: 'ran\n' },
    { status: 0, stdout: 'ran\n' },
  ]);
});

test('a run that failed serves nobody: the second job has its own', async () => {
  const script = 'echo ran; [ -e FOLDER/tried ] || { touch FOLDER/tried; exit 3; }';
  const first = await jobFor(agent, 'js/failed', script);
  const second = await jobFor(agent, 'js/failed', script, { like: first });
  const ended = await together('js/failed', [first, second]);
  expect(ended.map(({ stdout }) => stdout)).toEqual(['ran\n', 'ran\n']);
  expect(ended.map(({ status }) => status).sort()).toEqual([0, 3]);
});

test('a run that began before the request does not serve it', async () => {
  const script = 'echo ran; touch FOLDER/started; until [ -e FOLDER/end ]; do sleep 0.05; done';
  const first = await jobFor(agent, 'js/before', script);
  const run = first.run();
  await eventually(() => expect(existsSync(join(first.folder, 'started'))).toBe(true));
  const second = await jobFor(agent, 'js/before', script, { like: first });
  writeFileSync(join(first.folder, 'end'), '');
  expect(await run.ended).toMatchObject({ status: 0 });
  expect(await second.run().ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  expect(await second.document()).not.toHaveProperty('served');
});

test('the job is stopped while its run leaves: it is cancelled, not good', async () => {
  const job = await jobFor(agent, 'js/stopped', 'echo ran');
  expect(await job.byHand().ended).toMatchObject({ status: 0 });
  await job.stop({ why: 'cancelled' });
  expect(await job.run().ended).toMatchObject({ status: 81, stdout: '' });
  expect(await job.document()).toMatchObject({ state: 'accepted' });
});

test('a run by hand serves a job, also after a restored snapshot, and never twice', async () => {
  const job = await jobFor(agent, 'js/hand', 'echo ran');
  const [before, after] = [join(job.folder, 'before'), join(job.folder, 'after')];
  await agent.consul('snapshot', 'save', before);
  expect(await job.byHand().ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  await agent.consul('snapshot', 'save', after);
  const served = { state: 'good', served: true, why: 'served by a run by hand' };
  expect(await job.run().ended).toMatchObject({ status: 81, stdout: '' });
  expect(await job.document()).toMatchObject(served);
  await agent.consul('snapshot', 'restore', after);
  expect(await job.document()).toMatchObject({ state: 'accepted' });
  expect(await job.run().ended).toMatchObject({ status: 81, stdout: '' });
  expect(await job.document()).toMatchObject(served);
  // Consul has forgotten the run by hand, so the job has its own, once.
  await agent.consul('snapshot', 'restore', before);
  expect(await job.run().ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  expect(await job.document()).not.toHaveProperty('served');
  expect(await job.run().ended).toMatchObject({ status: 81, stdout: '' });
});

test('the agent starts no process for a request that a run by hand has served', async () => {
  const { folder } = stage();
  const node = agentOn(agent, 'js1', {
    tasks: {
      'work.toml': `command = ["/bin/sh", "-c", "echo ran >> ${folder}/ran"]\ngroup = "js/agent"\nallow = ["ops"]\n`,
    },
    env: { RUNLOCK_REQUESTS: 'trust-everybody' },
  });
  const running = node.start();
  await running.says(/is ready/);
  expect(await node.run('pause')).toMatchObject({ status: 0 });
  const watching = startRunlock(agent, ['job', 'start', 'work', '--node', 'js1', '--id', 'hand', '--watch']);
  await eventually(async () =>
    expect((await agent.kv.get('runlock/js/agent/.jobs/ops/hand/stage'))?.Value).toContain('"open"'),
  );
  const byHand = startRunlock(agent, ['task', 'run', 'work', '--tasks-dir', node.tasks], {
    env: { RUNLOCK_NODE: 'js1' },
  });
  expect(await byHand.ended).toMatchObject({ status: 0 });
  expect(await node.run('resume')).toMatchObject({ status: 0 });
  const { status, stdout } = await watching.ended;
  expect({ status, stdout }).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/js1: good.*: served by a run by hand\n/) as string,
  });
  expect(running.stderr()).toContain('job ops/hand: good on this node: served by a run by hand\n');
  expect(running.stderr()).not.toContain('job ops/hand: started a run');
});
