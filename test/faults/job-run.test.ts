// The two transactions of a run of a job, through a proxy that breaks them, and a runlock that is killed around them.
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { JOB_STEPS, jobFor } from '../support/job-runs.ts';
import { eventually, untilGone } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { FAULTS } from '../support/proxy-steps.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });
const LONG = { timeout: 90_000 };
const UNTIL_TOLD = 'echo $$ >FOLDER/command.pid; until [ -e FOLDER/end ]; do sleep 0.05; done';

const held = () => {
  let open = () => {};
  const until = new Promise<void>((resolve) => (open = resolve));
  return { until, open: () => open() };
};

describe.each([
  ['start', JOB_STEPS.start],
  ['finish', JOB_STEPS.finish],
] as const)('the %s of a run', (step, match) => {
  test('however it is broken: its command runs once, and its target ends once', LONG, async () => {
    const runs = Object.entries(FAULTS).map(async ([name, fault]) => {
      const proxy = await startProxy(agent);
      const job = await jobFor(agent, `jf/${step}-${name}`, 'echo ran');
      proxy.rule({ match, times: 1, do: fault });
      const { status, stdout } = await job.run(proxy.env).ended;
      for (const { status: late } of await proxy.release()) expect([200, 409]).toContain(late);
      const { tally, document } = await job.look();
      const claim = await job.group.claim();
      await proxy.close();
      return [name, status, stdout, document?.value.state, tally.value.states, claim];
    });
    const good = Object.keys(FAULTS).map((name) => [name, 0, 'ran\n', 'good', { good: 1 }, undefined]);
    expect(await Promise.all(runs)).toEqual(good);
  });
});

describe('SIGKILL of runlock', () => {
  test('before its start is sent: nothing has begun, and another run may start', LONG, async () => {
    await using proxy = await startProxy(agent);
    const job = await jobFor(agent, 'jk/before', 'echo ran');
    proxy.rule({ match: JOB_STEPS.start, do: 'hang' });
    const run = job.run(proxy.env);
    await proxy.seen(JOB_STEPS.start);
    run.signal('SIGKILL');
    await run.ended;
    expect(await job.document()).toMatchObject({ state: 'accepted' });
    expect(existsSync(job.ledgerFile)).toBe(false);
    expect(await job.run().ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  });

  test('with its start on the way: running, and no command; nothing starts a second time', LONG, async () => {
    await using proxy = await startProxy(agent);
    const job = await jobFor(agent, 'jk/answer', 'echo ran');
    let seen = () => {};
    const taken = new Promise<void>((resolve) => (seen = resolve));
    proxy.rule({ match: JOB_STEPS.start, do: { done: seen } });
    const run = job.run(proxy.env);
    await taken;
    run.signal('SIGKILL');
    expect(await run.ended).toMatchObject({ stdout: '' });
    expect(await job.document()).toMatchObject({ state: 'running' });
    expect(existsSync(job.ledgerFile)).toBe(false);
    expect(await job.run().ended).toMatchObject({ status: 81, stdout: '' });
  });

  test('while its command runs: the command ends, and the disk knows of the start', LONG, async () => {
    const job = await jobFor(agent, 'jk/runs', UNTIL_TOLD);
    const run = job.run();
    const command = await job.pid('command');
    run.signal('SIGKILL');
    await run.ended;
    await untilGone(command);
    const document = await job.document();
    expect(document).toMatchObject({ state: 'running' });
    expect(job.ledger()).toMatchObject({ run: document?.run, nonce: 'n1' });
    expect(job.ledger()['end']).toBeUndefined();
    expect(await job.run().ended).toMatchObject({ status: 81, stdout: '' });
  });

  test('after the command, before its end is written: the disk knows how it ended', LONG, async () => {
    await using proxy = await startProxy(agent);
    const job = await jobFor(agent, 'jk/end', 'exit 3');
    proxy.rule({ match: JOB_STEPS.finish, do: 'hang' });
    const run = job.run(proxy.env);
    await proxy.seen(JOB_STEPS.finish);
    run.signal('SIGKILL');
    await run.ended;
    expect(await job.document()).toMatchObject({ state: 'running' });
    expect(job.ledger()).toMatchObject({ end: { state: 'failed', exitCode: 3 } });
  });
});

test(
  'the session lost just before the start: the lock is taken back first, then it starts',
  LONG,
  async () => {
    await using proxy = await startProxy(agent);
    const job = await jobFor(agent, 'jk/session', 'echo ran');
    const { until, open } = held();
    proxy.rule({ match: JOB_STEPS.start, times: 1, do: { until } });
    const run = job.run(proxy.env);
    await proxy.seen(JOB_STEPS.start);
    const [session] = await job.group.sessions();
    await agent.http('PUT', `/v1/session/destroy/${session}`);
    await eventually(async () => expect(await job.group.lockedBy()).not.toBe(session));
    open();
    expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
    expect(await job.document()).toMatchObject({ state: 'good' });
  },
);

test('its slot goes to another node just before the start: nothing starts', LONG, async () => {
  await using proxy = await startProxy(agent);
  const job = await jobFor(agent, 'jk/over', 'echo ran');
  const { until, open } = held();
  proxy.rule({ match: JOB_STEPS.start, do: { until } });
  const run = job.run(proxy.env);
  await proxy.seen(JOB_STEPS.start);
  const claim = await job.group.claim();
  await agent.kv.put(job.group.key('.slot/0/owner'), JSON.stringify({ ...claim, node: 'web02', run: 'r2' }));
  open();
  expect(await run.ended).toMatchObject({ status: 79, stdout: '' });
  expect(await job.document()).toMatchObject({ state: 'accepted' });
});

test(
  'a stop that comes with the start on the way: the start that took effect is cancelled',
  LONG,
  async () => {
    await using proxy = await startProxy(agent);
    const job = await jobFor(agent, 'jk/stop', 'echo ran');
    let seen = () => {};
    const taken = new Promise<void>((resolve) => (seen = resolve));
    proxy.rule({ match: JOB_STEPS.start, times: 1, do: { done: seen } });
    const run = job.run(proxy.env);
    await taken;
    await job.stop({ why: 'cancelled', by: 'ann' });
    expect(await run.ended).toMatchObject({ status: 81, stdout: '' });
    expect(await job.document()).toMatchObject({ state: 'cancelled', why: 'the command never began' });
    expect((await job.look()).tally.value.states).toEqual({ cancelled: 1 });
  },
);

test(
  'Consul is gone for longer than the session lasts as the command ends: the end is written',
  LONG,
  async () => {
    await using proxy = await startProxy(agent);
    const job = await jobFor(agent, 'jk/gone', UNTIL_TOLD, { options: 'session_ttl = "10s"' });
    const run = job.run(proxy.env);
    await job.pid('command');
    proxy.rule({ match: () => true, do: 'drop-before' });
    proxy.sever();
    writeFileSync(join(job.folder, 'end'), '');
    const [session] = await job.group.sessions();
    await eventually(() => expect(job.ledger()).toMatchObject({ end: { state: 'good' } }));
    // As its TTL would, without the wait for it.
    await agent.http('PUT', `/v1/session/destroy/${session}`);
    proxy.clear();
    expect(await run.ended).toMatchObject({ status: 0 });
    expect(await job.document()).toMatchObject({ state: 'good' });
    expect(await job.group.claim()).toBeUndefined();
  },
);

test('its slot is another’s when it ends: lost, alone, though its command succeeded', LONG, async () => {
  await using proxy = await startProxy(agent);
  const job = await jobFor(agent, 'jk/foreign', 'true');
  const { until, open } = held();
  proxy.rule({ match: JOB_STEPS.finish, do: { until } });
  const run = job.run(proxy.env);
  await proxy.seen(JOB_STEPS.finish);
  const claim = await job.group.claim();
  await agent.kv.put(job.group.key('.slot/0/owner'), JSON.stringify({ ...claim, node: 'web02', run: 'r2' }));
  open();
  const ended = await run.ended;
  expect(ended).toMatchObject({ status: 79 });
  expect(ended.stderr).toContain('before its success could be recorded');
  expect(await job.document()).toMatchObject({ state: 'lost', exitCode: 0 });
  expect((await job.look()).tally.value.states).toEqual({ lost: 1 });
  expect(job.ledger()).toMatchObject({ end: { state: 'lost' } });
});
