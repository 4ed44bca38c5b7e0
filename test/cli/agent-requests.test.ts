// What an agent does about requests: what it runs, what it refuses and why, and whom it trusts.
import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { askFor } from '../support/asked-jobs.ts';
import type { Agent } from '../support/consul.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { ProxyRequest } from '../support/proxy.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const consul = useAgent({ name: 'node1' });
const TRUST = { RUNLOCK_REQUESTS: 'trust-everybody' };
const task = (group: string, script: string, more = '') =>
  `command = ["/bin/sh", "-c", ${JSON.stringify(script)}, "sh", "{v}"]
params.v = { match = "[a-z]+", default = "x" }
allow = ["ops"]
group = "${group}"
${more}`;

async function serving(
  node: string,
  script = 'echo ran $1',
  more = '',
  through: Pick<Agent, 'env'> = consul,
) {
  const group = `ar/${node}`;
  const on = agentOn(consul, node, { through, tasks: { 't.toml': task(group, script, more) }, env: TRUST });
  const running = on.start();
  await running.says(/is ready/);
  return { ...on, running, group };
}

describe('a request', () => {
  test('is accepted, run once, logged, ended, and removed', async () => {
    const { group, running, logs } = await serving('rq-good');
    const job = await askFor(consul, group, { targets: [['rq-good', 0]], params: { v: 'word' } });
    expect(await job.becomes('good')).toMatchObject({ exitCode: 0 });
    await running.says(/job ops\/\S+: accepted[^]*started a run of task t/);
    expect((await job.look()).stage.value.kind).toBe('done');
    expect(await consul.kv.get(job.pointer())).toBeUndefined();
    expect(readFileSync(`${logs}/ops/${job.ref.id}.t.log`, 'utf8')).toContain('ran word');
  });

  test('is run with folders that are relative to where the agent was started', async () => {
    const group = 'ar/rq-relative';
    const on = agentOn(consul, 'rq-relative', { tasks: { 't.toml': task(group, 'pwd') }, env: TRUST });
    const folders = ['--tasks-dir', 'tasks.d', '--state-dir', 'state', '--log-dir', 'log'];
    const running = on.startIn(on.folder, ...folders);
    await running.says(/is ready/);
    const job = await askFor(consul, group, { targets: [['rq-relative', 0]] });
    expect(await job.becomes('good')).toMatchObject({ exitCode: 0 });
    expect(readFileSync(`${on.logs}/ops/${job.ref.id}.t.log`, 'utf8')).toMatch(/^\/$/m);
    // The agent and the run mean the same folder.
    expect(readdirSync(`${on.state}/jobs/ops`)).toEqual([job.ref.id]);
  });

  test("for a task that can't be started here is refused with what its run said", async () => {
    const { group, state } = await serving('rq-unfit', 'true', 'user = "no-such-user"');
    const job = await askFor(consul, group, { targets: [['rq-unfit', 0]] });
    expect(await job.becomes('refused')).toMatchObject({
      why: expect.stringContaining('no user no-such-user') as string,
    });
    await eventually(async () => expect(await consul.kv.get(job.pointer())).toBeUndefined());
    await eventually(() => expect(readdirSync(`${state}/runs/ops`)).toEqual([]));
  });

  test('of a later stage waits for it, without a process; a failure before it stops it', async () => {
    const first = await serving('rq-s1', 'exit 1');
    const second = agentOn(consul, 'rq-s2', { tasks: { 't.toml': task(first.group, 'true') }, env: TRUST });
    const other = second.start();
    await other.says(/is ready/);
    const job = await askFor(consul, first.group, {
      targets: [
        ['rq-s1', 0],
        ['rq-s2', 1],
      ],
    });
    expect(await job.becomes('failed')).toMatchObject({ exitCode: 1 });
    await eventually(async () => expect(await consul.kv.get(job.pointer('rq-s2'))).toBeUndefined());
    expect((await job.look('rq-s2')).stage.value).toMatchObject({ kind: 'stopped', why: 'failures' });
    expect((await job.document('rq-s2'))?.state ?? 'queued').toMatch(/accepted|queued/);
    expect(other.stderr()).not.toContain('started a run');
  });

  test('waits while the agent is paused, and expires by itself', async () => {
    const { group, run, running } = await serving('rq-pause');
    await run('pause');
    await running.says(/paused by/);
    const until = new Date(Date.now() + 1_500).toISOString();
    const short = await askFor(consul, group, { targets: [['rq-pause', 0]], until, maxFailures: 5 });
    const long = await askFor(consul, group, { targets: [['rq-pause', 0]] });
    await short.becomes('expired');
    expect(await long.document()).toBeUndefined();
    await run('resume');
    await long.becomes('good');
  });

  test.each([
    ['no such task', { task: 'none' }, /this node has no task none/],
    ['a parameter that does not match', { params: { v: 'A' } }, /parameter v: 'A' is not allowed/],
    ['one that only tries', { noop: true as const }, /task t has no noop command; /],
  ])('is refused and says why: %s', async (_, more, why) => {
    const { group } = await serving(`rq-${why.source.length}`);
    const job = await askFor(consul, group, { targets: [[`rq-${why.source.length}`, 0]], ...more });
    expect((await job.becomes('refused')).why).toMatch(why);
    expect(await consul.kv.get(job.pointer())).toBeUndefined();
  });

  test('of a principal that no task allows is not seen; one for other nodes is dropped', async () => {
    const { group, running } = await serving('rq-who');
    const job = await askFor(consul, group, { targets: [['rq-who', 0]], principal: 'ci' });
    const other = await askFor(consul, group, { targets: [['rq-other', 0]] });
    await consul.kv.put(other.pointer('rq-who'), (await consul.kv.get(other.pointer()))?.Value ?? '');
    await running.says(/removed from this node's inbox: it does not name this node/);
    expect(await consul.kv.get(other.pointer('rq-who'))).toBeUndefined();
    expect(await job.document()).toBeUndefined();
  });

  test('whose request is gone is dropped', async () => {
    const { running } = await serving('rq-gone');
    const key = 'runlock/.requests/ops/inbox/rq-gone/x1';
    await consul.kv.put(key, '{"v":1,"nonce":"n","chunk":0}');
    await running.says(/job ops\/x1: removed from this node's inbox: the request is gone/);
    expect(await consul.kv.get(key)).toBeUndefined();
  });
});

test('without ACLs every request is refused, unless root trusts everybody', async () => {
  const on = agentOn(consul, 'rq-open', { tasks: { 't.toml': task('ar/open', 'true') } });
  const running = on.start();
  await running.says(/the agent serves no requests: .*Consul's ACLs are off/);
  await eventually(async () => expect((await on.shown())?.noRequests).toMatch(/ACLs are off/));
  expect((await on.run('status')).stdout).toMatch(/serves no requests/);
  const job = await askFor(consul, 'ar/open', { targets: [['rq-open', 0]] });
  expect((await job.becomes('refused')).why).toMatch(/requests are not served here: .*trust-everybody/);
});

describe('an agent with nothing to do', () => {
  test('writes nothing, keeps one query for each key open, and needs no more than a waiting run', async () => {
    await using proxy = await startProxy(consul);
    const { running, group } = await serving('rq-idle', 'true', '', proxy);
    const waits = (key: string) => (asked: ProxyRequest) =>
      isWaiting(asked) && decodeURIComponent(asked.path).includes(key);
    await proxy.seen(waits('/inbox/rq-idle/'));
    await proxy.seen(waits('/.agents/rq-idle'));
    const before = proxy.requests.length;
    startRunlock(consul, ['exec', '-g', group, '--node', 'a', '--', 'sleep', '60']);
    await eventually(async () => expect(await consul.kv.get(`runlock/${group}/.slot/0/owner`)).toBeDefined());
    const waiter = startRunlock(consul, ['exec', '-v', '-g', group, '--node', 'b', '--', 'true']);
    await waiter.says(/waiting/);
    await proxy.seen(({ path }) => path.includes('/session/renew'));
    const asked = proxy.requests.slice(before).map(({ path }) => path.replace(/[?].*/, ''));
    expect(asked.filter((path) => !path.startsWith('/v1/session/renew/'))).toEqual([]);
    for (const { path } of proxy.requests.filter(isWaiting)) expect(path).toContain('wait=25000ms');
    expect(memoryOf(running.pid)).toBeLessThan(memoryOf(waiter.pid) * 1.1);
  });
});

const isWaiting = ({ path }: ProxyRequest) => path.includes('index=');

/** Resident, in KiB. */
function memoryOf(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

describe('a run that asked for a reboot which does not come', () => {
  const rebooting = async (node: string) => {
    const on = await serving(node, 'exit 35', 'reboot_codes = "35"\nhold = "forever"');
    const job = await askFor(consul, on.group, { targets: [[node, 0]] });
    await job.becomes('rebooting');
    const claim = async () =>
      JSON.parse((await consul.kv.get(`runlock/${on.group}/.slot/0/owner`))?.Value ?? '{}') as object;
    /** The agent looks at the request again at once, and not only within a minute. */
    const looksAgain = async () => {
      for (const word of ['pause', 'resume']) expect(await on.run(word)).toMatchObject({ status: 0 });
    };
    return { ...on, job, claim, looksAgain };
  };

  test('ends as cancelled with cancel --kill, and keeps its slot; cancel alone leaves it', async () => {
    const { job, claim } = await rebooting('rq-killed');
    const cancel = (...more: string[]) =>
      runlock(consul, ['job', 'cancel', job.ref.id, '--reason', 'no boot', ...more]);
    expect(await cancel()).toMatchObject({ status: 0 });
    expect(await job.document()).toMatchObject({ state: 'rebooting', holds: true });
    expect(await cancel('--kill')).toMatchObject({ status: 0 });
    expect(await job.becomes('cancelled')).toMatchObject({
      why: expect.stringContaining('before its host had booted') as string,
    });
    expect(await claim()).toMatchObject({ state: 'rebooting' });
    await eventually(async () => expect(await consul.kv.get(job.pointer())).toBeUndefined());
    expect((await runlock(consul, ['job', 'retry', job.ref.id])).stderr).not.toContain('is not over');
  });

  test('is lost once its claim is cleared', async () => {
    const { job, group, looksAgain } = await rebooting('rq-cleared');
    await looksAgain();
    expect(await job.document()).toMatchObject({ state: 'rebooting' });
    expect(await runlock(consul, ['release', group, '--owner', 'rq-cleared'])).toMatchObject({ status: 0 });
    await looksAgain();
    expect(await job.becomes('lost')).toMatchObject({
      why: expect.stringContaining('its slot was cleared') as string,
    });
    expect((await job.look()).stage.value.kind).toBe('stopped');
  });

  test('is lost once the next run of its node has taken the claim back', async () => {
    const { job, group, looksAgain } = await rebooting('rq-taken');
    expect(await runlock(consul, ['exec', '-g', group, '--node', 'rq-taken', '--', 'true'])).toMatchObject({
      status: 0,
    });
    await looksAgain();
    await job.becomes('lost');
  });
});
