// A run that can't give its slot back, because it is its own no longer: what `history` says of it afterwards.
import { once } from 'node:events';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { startProxy } from '../support/proxy.ts';
import { STEPS, writes } from '../support/proxy-steps.ts';
import { runlock, startRunlock } from '../support/runlock.ts';

const agent = useAgent({ acl: true });

/** `env` is added for its runs. */
const on = (group: string, env: Readonly<Record<string, string>> = {}) => groupOf(agent, group, { env });
const ownerOf = (group: string) => on(group).key('.slot/0/owner');
const good = (group: string) => on(group).exec('web01', '--', 'true');

/** The group's keys, but for the record. */
const others = async (group: string) => (await on(group).keys()).filter((key) => key !== '.runs/web01');

interface Report {
  readonly nodes: readonly Readonly<Record<string, unknown>>[];
}
async function lastOf(group: string): Promise<Readonly<Record<string, unknown>>> {
  const { stdout } = await runlock(agent, ['history', group, '--json']);
  return (JSON.parse(stdout) as Report).nodes[0] ?? {};
}

/** Somebody else has the slot from now on. */
async function overwrite(group: string, how: 'another' | 'rubbish' = 'another') {
  const claim = await on(group).claim();
  const another = JSON.stringify({ ...claim, node: 'web99', run: 'another' });
  await agent.kv.put(ownerOf(group), how === 'another' ? another : 'rubbish');
  return claim?.run;
}

describe.each(['another', 'rubbish'] as const)('a claim that was overwritten (%s)', (how) => {
  const group = `lost-${how}`;

  test('the run is in history as lost, with exit code, times, and when its node was last good', async () => {
    await good(group);
    const before = await lastOf(group);
    const run = await on(group).hold();
    const id = await overwrite(group, how);
    const slot = await agent.kv.get(ownerOf(group));
    const { status, stderr } = await run.ended;
    expect(status).toBe(79);
    // Its next run and a release would stop at what they can't read.
    expect(stderr.includes('and delete the key if no run needs it')).toBe(how === 'rubbish');
    expect(stderr).not.toContain('the next run of');
    const last = await lastOf(group);
    expect(last).toMatchObject({
      ...{ outcome: 'lost', exitCode: 143, run: id, slot: 0, command: 'sh' },
      lastGoodAt: before['endedAt'],
    });
    expect(last['ranMs']).toBeGreaterThan(0);
    expect(last['waitedMs']).toBeGreaterThanOrEqual(0);
    expect(Date.parse(String(last['endedAt']))).toBeGreaterThan(Date.parse(String(before['endedAt'])));
    // Nothing else of the slot was touched: it is somebody else's.
    expect(await agent.kv.get(ownerOf(group))).toEqual(slot);
    expect(await others(group)).toEqual(['.last', '.slot/0/owner', '.tail']);
  });

  test('--silent-for counts from its last good run', async () => {
    expect((await runlock(agent, ['history', group, '--silent-for', '1d'])).status).toBe(0);
    const table = (await runlock(agent, ['history', group])).stdout.split('\n')[1]?.trim().split(/ +/);
    expect(table?.slice(2, 4)).toEqual(['lost', '143']);
  });
});

test('a slot that was cleared just as its run ended well: it is in history, with its exit code', async () => {
  const group = 'cleared';
  await good(group);
  const before = await lastOf(group);
  const proxy = await startProxy(agent);
  onTestFinished(proxy.close);
  const cleared = new AbortController();
  proxy.rule({ match: STEPS.release, do: { until: once(cleared.signal, 'abort') } });
  const run = await on(group, proxy.env).hold();
  const session = await on(group).lockedBy();
  run.tell();
  await proxy.seen(STEPS.release);
  await agent.http('PUT', `/v1/session/destroy/${session ?? ''}`);
  await agent.kv.delete(ownerOf(group));
  cleared.abort();
  expect((await run.ended).status).toBe(0);
  const last = await lastOf(group);
  expect(last).toMatchObject({ outcome: 'succeeded', exitCode: 0 });
  expect(last['run']).not.toBe(before['run']);
  expect(await others(group)).toEqual(['.last', '.tail']);
});

test('an answer that is lost when it is recorded: recorded once, the slot not as given back', async () => {
  const group = 'unheard';
  await good(group);
  const proxy = await startProxy(agent);
  onTestFinished(proxy.close);
  const record = writes('cas', '/.runs/');
  proxy.rule({ match: record, times: 1, do: 'drop-after' });
  const run = await on(group, proxy.env).hold();
  const id = await overwrite(group);
  const { status, stderr } = await run.ended;
  expect(status).toBe(79);
  expect(stderr).toContain('no longer belongs to this run; nothing to release');
  expect(await lastOf(group)).toMatchObject({ outcome: 'lost', run: id });
  expect(proxy.requests.filter(record)).toHaveLength(1);
});

test('a token that may not record it: that is said, and the run ends as ever', async () => {
  const group = 'unrecorded';
  await good(group);
  const before = await lastOf(group);
  const rules = [
    'session_prefix "" { policy = "write" }',
    ...[group, '.freeze'].map((key) => `key_prefix "runlock/${key}" { policy = "write" }`),
    `key_prefix "runlock/${group}/.runs/" { policy = "read" }`,
  ];
  const run = await on(group, { CONSUL_HTTP_TOKEN: await agent.token(rules.join('\n')) }).hold();
  await overwrite(group);
  const { status, stderr } = await run.ended;
  expect(status).toBe(79);
  expect(stderr).toMatch(
    /^runlock: could not record the end of the run \([^\n]+'runlock history' does not show/m,
  );
  expect(await lastOf(group)).toEqual(before);
});

test('what acquire held, cleared while its release is on its way: the work is in history', async () => {
  const group = 'halves';
  await runlock(agent, ['acquire', group, '--node', 'web01']);
  const proxy = await startProxy(agent);
  onTestFinished(proxy.close);
  const cleared = new AbortController();
  proxy.rule({ match: STEPS.release, do: { until: once(cleared.signal, 'abort') } });
  const { env } = proxy;
  const release = startRunlock({ env }, [
    'release',
    group,
    '--node',
    'web01',
    '--failed',
    '--exit-code',
    '3',
  ]);
  await proxy.seen(STEPS.release);
  await agent.kv.delete(ownerOf(group));
  cleared.abort();
  expect((await release.ended).status).toBe(0);
  expect(await lastOf(group)).toMatchObject({ outcome: 'failed', exitCode: 3, command: 'acquire' });
  expect(await others(group)).toEqual(['.last', '.tail']);
});
