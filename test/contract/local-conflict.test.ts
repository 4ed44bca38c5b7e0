// Whether what stands in a node's way is alive: only what is provably dead is cleared away.
import { randomUUID } from 'node:crypto';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Host } from '../../src/platform/deps.ts';
import { acquire } from '../../src/lock/acquire.ts';
import type { Acquired } from '../../src/lock/acquire.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();
let consul: Consul;
beforeAll(() => {
  consul = connect(consulSettings(agent.env), { clock, emit: () => undefined });
});

const { signal } = new AbortController();
const over = AbortSignal.abort();

/** A host on which only what `seen` names can be seen. */
function host(bootId: string, pid: number, seen: { hidden?: number[]; survivors?: number[] } = {}): Host {
  return {
    self: () => ({ pid, startTime: '1', bootId }),
    bootId,
    startTime: () => undefined,
    hidden: (asked) => seen.hidden?.includes(asked) ?? false,
    place: () => Promise.resolve({ host: 'h' }),
    survivors: () => ({ pids: seen.survivors ?? [], guarded: false }),
  };
}

async function run(group: string, on: Host): Promise<Acquired> {
  const what = { id: randomUUID(), command: 'true', runner: on.self(), hold: 'forever', slots: 1 } as const;
  const deps = { clock, random: Math.random, host: on, emit: () => undefined };
  const request = { prefix: 'runlock', group, node: 'web01', run: what, ttlMs: 10_000 };
  const acquired = await acquire({ consul, deps }, request, { signal, patience: over, either: over });
  onTestFinished(async () => {
    if (acquired.kind === 'granted')
      await acquired.grant.session.close({ signal: AbortSignal.timeout(1_000) });
  });
  return acquired;
}

const lockOf = async (group: string) => (await agent.kv.get(`runlock/${group}/.slot/0/lock`))?.Session;

test('a run whose process is gone on this boot is dead: its session goes, its node comes back', async () => {
  await run('dead', host('boot', 10));
  const before = await lockOf('dead');
  expect(await run('dead', host('boot', 11))).toMatchObject({ kind: 'granted' });
  expect(await lockOf('dead')).not.toBe(before);
});

test.for([
  { what: 'on another boot, or in another pid namespace', on: host('other', 11) },
  { what: 'of another user, whom this one can not see', on: host('boot', 11, { hidden: [10] }) },
])('a run $what may be alive: busy, and its session is left alone', async ({ on }) => {
  const group = `alive-${on.bootId}`;
  await run(group, host('boot', 10));
  const before = await lockOf(group);
  expect(await run(group, on)).toMatchObject({ kind: 'busy', why: { kind: 'same-node', pid: 10 } });
  expect(await lockOf(group)).toBe(before);
});

test('what a dead run left running is an orphan: the node is busy, and its session is left alone', async () => {
  await run('orphan', host('boot', 10));
  const before = await lockOf('orphan');
  const next = await run('orphan', host('boot', 11, { survivors: [12] }));
  expect(next).toMatchObject({ kind: 'busy', why: { kind: 'orphan', pids: [12] } });
  expect(await lockOf('orphan')).toBe(before);
});

/** Another host, or the same one: each boot is another. */
let boots = 0;
function on(machine: { machine?: string; host?: string }): Host {
  const bootId = `boot${++boots}`;
  return { ...host(bootId, boots), self: () => ({ pid: boots, startTime: '1', bootId, ...machine }) };
}

const HERE = { machine: 'a'.repeat(32), host: 'here' };
const THERE = { machine: 'b'.repeat(32), host: 'there' };

const ownerKey = (group: string) => `runlock/${group}/.slot/0/owner`;
const claimOf = async (group: string) =>
  JSON.parse((await agent.kv.get(ownerKey(group)))?.Value ?? 'null') as Record<string, unknown> | null;
async function endSession(group: string) {
  await agent.http('PUT', `/v1/session/destroy/${(await lockOf(group)) ?? ''}`);
}
async function rewrite(group: string, changes: object) {
  await agent.kv.put(ownerKey(group), JSON.stringify({ ...(await claimOf(group)), ...changes }));
}

test('a claim says which machine its run is on, and what that is called', async () => {
  await run('names', on(HERE));
  expect(await claimOf('names')).toMatchObject(HERE);
});

test.each([
  ['by its machine-id', HERE, THERE],
  ['by its machine-id, where the hosts have one name', HERE, { ...THERE, host: 'here' }],
  ['by its host name, where one has no machine-id', { host: 'here' }, THERE],
])('a run on another machine, known %s, is never taken for one left here', async (how, first, second) => {
  const group = `else${how.length}`;
  await run(group, on(first));
  const busy = { kind: 'busy', why: { kind: 'elsewhere', host: first.host } };
  expect(await run(group, on(second))).toMatchObject(busy);
  await endSession(group);
  expect(await run(group, on(second))).toMatchObject(busy);
  await rewrite(group, { state: 'abandoned' });
  expect(await run(group, on(second))).toMatchObject(busy);
  expect(await claimOf(group)).toMatchObject(first);
});

test('nor is the mark of one that only waits there', async () => {
  const { ID: session } = (await (
    await agent.http('PUT', '/v1/session/create', { Behavior: 'delete' })
  ).json()) as {
    ID: string;
  };
  const since = new Date().toISOString();
  const mark = { v: 1, run: 'r', since, pid: 1, startTime: '1', bootId: 'waits', ...THERE };
  await agent.http('PUT', `/v1/kv/runlock/waits/.node/web01?acquire=${session}`, mark);
  expect(await run('waits', on(HERE))).toMatchObject({
    kind: 'busy',
    why: { kind: 'elsewhere', host: 'there' },
  });
});

test.each([
  ['on the same machine, booted again', HERE, HERE],
  ['of an older version', {}, HERE],
])('a run %s, whose session is gone, is this node’s own', async (how, first, second) => {
  const group = `own${how.length}`;
  await run(group, on(first));
  await endSession(group);
  expect(await run(group, on(second))).toMatchObject({
    kind: 'granted',
    grant: { before: { node: 'web01' } },
  });
});

test.each(['failed', 'interrupted', 'rebooting'])(
  'what has %s on another machine is the node’s own: a control host runs for many',
  async (state) => {
    const group = `control-${state}`;
    await run(group, on(THERE));
    await endSession(group);
    await rewrite(group, { state });
    expect(await run(group, on(HERE))).toMatchObject({ kind: 'granted', grant: { before: { state } } });
  },
);

test('what acquire holds on another machine is busy until 5 s after the hold has ended', async () => {
  await run('held', on(THERE));
  await endSession('held');
  await rewrite('held', { state: 'held' });
  const busy = { kind: 'busy', why: { kind: 'elsewhere', host: 'there', holds: 0 } };
  expect(await run('held', on(HERE))).toMatchObject(busy);
  await rewrite('held', { heldUntil: new Date(Date.now() - 1_000).toISOString() });
  expect(await run('held', on(HERE))).toMatchObject(busy);
  expect(await claimOf('held')).toMatchObject(THERE);
  await rewrite('held', { heldUntil: new Date(Date.now() - 6_000).toISOString() });
  expect(await run('held', on(HERE))).toMatchObject({ kind: 'granted', grant: { slot: 0 } });
});

test('what acquire holds on this machine, booted again, is this node’s own', async () => {
  await run('held-here', on(HERE));
  await endSession('held-here');
  await rewrite('held-here', { state: 'held' });
  expect(await run('held-here', on(HERE))).toMatchObject({ kind: 'busy', why: { kind: 'held', slot: 0 } });
});

test('a run that vanished on another machine is marked, and followed when anybody may follow', async () => {
  await run('vanished', on(THERE));
  await endSession('vanished');
  await rewrite('vanished', { hold: 'none' });
  expect(await run('vanished', on(HERE))).toMatchObject({ kind: 'busy', why: { kind: 'elsewhere' } });
  expect(await claimOf('vanished')).toMatchObject({ missingSince: expect.any(String) as string });
  await rewrite('vanished', { missingSince: new Date(Date.now() - 66_000).toISOString() });
  expect(await run('vanished', on(HERE))).toMatchObject({ kind: 'granted', grant: { slot: 0 } });
  expect(await claimOf('vanished')).toMatchObject(HERE);
});
