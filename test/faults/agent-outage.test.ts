// The agent of a node loses its session or its Consul, is stopped, replaced, or has its data go back: each request runs once,
// each change has its run.
import { renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { agentHost } from '../support/agent-host.ts';
import type { AgentHost } from '../support/agent-host.ts';
import { startAgent } from '../support/consul.ts';
import { end, eventually, untilGone } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { startProxy } from '../support/proxy.ts';
import { useAgent } from '../support/use-agent.ts';

const consul = useAgent({ name: 'node1' });
const LONG = { timeout: 150_000 };
const on = (path: string) => `on = ["state:${path}"]`;

const sessionEnds = (host: AgentHost) =>
  eventually(async () => expect(await host.session()).toBeUndefined(), 60_000);
/** A change's run is over, and known to be good. */
const covered = (host: AgentHost, runs: number) =>
  eventually(async () => {
    const cursor = await host.cursor();
    expect([host.triggered(), cursor?.run, typeof cursor?.goodAt]).toEqual([runs, undefined, 'string']);
  }, 45_000);

describe.concurrent('with a run under way, requests and a change', LONG, () => {
  test('the agent is stopped for longer than its session lasts, then continued', async () => {
    await using host = agentHost(consul, 'o-stop', { more: on('o/stop') });
    const agent = await host.start();
    const first = await host.ask();
    await first.begun();
    agent.signal('SIGSTOP');
    const second = await host.ask();
    await host.change('o/stop', '1');
    await sessionEnds(host);
    host.finish();
    await first.becomes('good');
    expect(await second.document()).toBeUndefined();
    agent.signal('SIGCONT');
    await second.becomes('good', host.node, 45_000);
    await covered(host, 1);
    expect([first.runs(), second.runs()]).toEqual([1, 1]);
    expect(await host.shown()).toMatchObject({ pid: agent.pid });
    await host.keepsPromises();
  });

  test('Consul is gone for longer than sessions last', async () => {
    await using proxy = await startProxy(consul);
    await using host = agentHost(consul, 'o-gone', {
      through: proxy,
      more: `${on('o/gone')}\nsession_ttl = "10s"`,
    });
    const agent = await host.start();
    const first = await host.ask();
    await first.begun();
    const before = await host.ask();
    await before.becomes('accepted');
    proxy.rule({ do: 'drop-before' });
    proxy.sever();
    const during = await host.ask();
    await host.change('o/gone', '1');
    await sessionEnds(host);
    host.finish();
    // The run of before ends meanwhile, and can tell nobody yet.
    await untilGone((await first.begun()).pid, 45_000);
    proxy.clear();
    const after = await host.ask();
    for (const job of [first, before, during, after]) await job.becomes('good', host.node, 60_000);
    await covered(host, 1);
    expect([first, before, during, after].map((job) => job.runs())).toEqual([1, 1, 1, 1]);
    expect(await host.shown()).toMatchObject({ pid: agent.pid });
    await host.keepsPromises();
  });

  test('the agent’s session, and the run’s, are destroyed by hand', async () => {
    await using host = agentHost(consul, 'o-session', { more: on('o/session') });
    const agent = await host.start();
    const job = await host.ask();
    await job.begun();
    const session = await host.session();
    await consul.http('PUT', `/v1/session/destroy/${session}`);
    await host.expire();
    await host.change('o/session', '1');
    await eventually(async () => {
      const now = await host.session();
      expect(now).toBeDefined();
      expect(now).not.toBe(session);
    }, 45_000);
    host.finish();
    await job.becomes('good', host.node, 45_000);
    await covered(host, 1);
    expect(job.runs()).toBe(1);
    expect(agent.stderr()).toMatch(/o-session/);
    await host.keepsPromises();
  });

  test('the program is updated, and the agent restarted: the run is found, not repeated', async () => {
    await using host = agentHost(consul, 'o-update', { program: 'runlock', more: on('o/update') });
    const program = `${host.folder}/runlock`;
    symlinkSync(RUNLOCK, program);
    const old = await host.start();
    const first = await host.ask();
    const run = await first.begun();
    writeFileSync(`${program}.sh`, `#!/bin/sh\necho "$@" >> ${host.folder}/new\nexec ${RUNLOCK} "$@"\n`, {
      mode: 0o755,
    });
    renameSync(`${program}.sh`, program);
    old.signal('SIGTERM');
    expect(await old.ended).toMatchObject({ status: 0 });
    const second = await host.ask();
    await host.change('o/update', '1');
    const agent = await host.start();
    await eventually(() => expect(agent.stderr()).toMatch(/accepted/), 45_000);
    expect(await first.document()).toMatchObject({ state: 'running', run: run.run });
    host.finish();
    await first.becomes('good');
    await second.becomes('good', host.node, 45_000);
    await covered(host, 1);
    expect([first.runs(), second.runs()]).toEqual([1, 1]);
    expect(host.lines('new')).toEqual(['agent']);
    await host.keepsPromises();
  });

  test('a second agent of the node is refused, and serves what is open when the first is killed', async () => {
    await using host = agentHost(consul, 'o-two', { more: on('o/two') });
    const first = await host.start();
    const job = await host.ask();
    const run = await job.begun();
    const refused = await host.startIn(host.folder).ended;
    expect(refused).toMatchObject({ status: 75 });
    expect(refused.stderr).toContain('an agent for node o-two is already running');
    first.signal('SIGKILL');
    await first.ended;
    await host.change('o/two', '1');
    const next = await host.ask();
    const second = await host.start();
    expect(await host.shown()).toMatchObject({ pid: second.pid });
    expect(await job.document()).toMatchObject({ state: 'running', run: run.run });
    host.finish();
    await next.becomes('good', host.node, 45_000);
    await covered(host, 1);
    expect([job.runs(), next.runs()]).toEqual([1, 1]);
    await host.keepsPromises();
  });

  test('the agent is killed, and then its run: lost, not run again, and the next agent goes on', async () => {
    await using host = agentHost(consul, 'o-both', { more: on('o/both') });
    const first = await host.start();
    const job = await host.ask();
    const { pid } = await job.begun();
    first.signal('SIGKILL');
    await first.ended;
    await host.change('o/both', '1');
    end((await host.owner())?.pid ?? 0);
    await untilGone(pid, 45_000);
    await host.start();
    expect((await job.becomes('lost')).why).toMatch(/does not know its end/);
    host.finish();
    await covered(host, 1);
    expect(job.runs()).toBe(1);
    await host.keepsPromises();
  });
});

test.concurrent('a real snapshot is restored: nothing that has begun starts again', LONG, async () => {
  await using own = await startAgent();
  await using host = agentHost(own, 'o-back', { more: on('o/back') });
  const agent = await host.start();
  host.finish();
  await host.change('o/back', '0');
  await covered(host, 1);
  await host.run('pause');
  const [first, second] = [await host.ask({ id: 'first' }), await host.ask({ id: 'second' })];
  await own.consul('snapshot', 'save', `${host.folder}/snapshot`);
  const before = await host.cursor();
  await host.run('resume');
  for (const job of [first, second]) await job.becomes('good', host.node, 45_000);
  await host.change('o/back', '1');
  await covered(host, 2);
  const session = await host.session();
  await own.consul('snapshot', 'restore', `${host.folder}/snapshot`);
  for (const job of [first, second]) {
    await job.becomes('good', host.node, 60_000);
    expect(job.runs()).toBe(1);
    expect((await job.look()).tally.value.states).toEqual({ good: 1 });
  }
  await eventually(async () => expect(await host.shown()).toMatchObject({ pid: agent.pid }), 45_000);
  expect(await host.session()).toBe(session);
  // State and cursor are of one moment again: nothing asks for a run, and the next change does.
  expect(await host.cursor()).toEqual(before);
  expect(host.triggered()).toBe(2);
  await host.change('o/back', '1');
  await covered(host, 3);
  const third = await host.ask({ id: 'third' });
  await third.becomes('good');
});

test.concurrent('a snapshot without the agent’s key is restored: it registers again', LONG, async () => {
  await using own = await startAgent();
  await using host = agentHost(own, 'o-key');
  await own.consul('snapshot', 'save', `${host.folder}/snapshot`);
  const agent = await host.start();
  const job = await host.ask();
  await job.begun();
  const session = await host.session();
  await own.consul('snapshot', 'restore', `${host.folder}/snapshot`);
  await eventually(async () => {
    const now = await host.session();
    expect([typeof now, now === session]).toEqual(['string', false]);
  }, 45_000);
  expect(await host.shown()).toMatchObject({ pid: agent.pid });
  host.finish();
  const next = await host.ask();
  await next.becomes('good', host.node, 60_000);
  expect([job.runs(), next.runs()]).toEqual([1, 1]);
});
