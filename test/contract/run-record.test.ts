// A run that lost its slot, recorded beside the other runs of its node, on a real agent: none hides a later one.
import { randomUUID } from 'node:crypto';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { acquire } from '../../src/lock/acquire.ts';
import type { Grant } from '../../src/lock/head-of-queue.ts';
import { holdLease } from '../../src/lock/lease.ts';
import { recordEnd } from '../../src/lock/run-record.ts';
import type { Outcome, RunRecord } from '../../src/lock/records.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();
let consul: Consul;
beforeAll(() => {
  consul = connect(consulSettings(agent.env), { clock, emit: () => undefined });
});

const { signal } = new AbortController();
const ttlMs = 10_000;
const self = { pid: process.pid, startTime: '1', bootId: 'boot' };
const host = {
  self: () => self,
  bootId: self.bootId,
  startTime: () => undefined,
  hidden: () => false,
  place: () => Promise.resolve({ host: 'h' }),
  survivors: () => ({ pids: [], guarded: false }),
};
const said: string[] = [];
const deps: Deps = {
  ...{ clock, random: Math.random, host },
  emit: (event) => void said.push(sentenceOf(event).message),
};

/** A run of web01, which nothing watches until it ends. */
async function run(group: string): Promise<Grant> {
  const what = { id: randomUUID(), command: 'true', runner: self, hold: 'forever', slots: 1 } as const;
  const request = { prefix: 'runlock', group, node: 'web01', run: what, ttlMs };
  const acquired = await acquire({ consul, deps }, request, { signal, patience: signal, either: signal });
  if (acquired.kind !== 'granted') throw new Error(`not granted: ${acquired.kind}`);
  onTestFinished(() => destroy(acquired.grant));
  return acquired.grant;
}

async function destroy({ session }: Grant): Promise<void> {
  await agent.http('PUT', `/v1/session/destroy/${session.id}`);
}

/** A run whose host was stopped for so long that its session ended, and whose claim an operator cleared. */
async function stopped(group: string): Promise<Grant> {
  const grant = await run(group);
  await destroy(grant);
  await agent.kv.delete(`runlock/${group}/.slot/0/owner`);
  return grant;
}

const base: RunRecord = {
  ...{ node: 'web01', run: 'r', outcome: 'lost', command: 'true', slot: 0, waitedMs: 0, ranMs: 0 },
  endedAt: '2026-03-01T12:00:00.000Z',
};

const end = (grant: Grant, outcome: Outcome) =>
  holdLease(grant, { ttlMs, killAfterMs: 1_000 }).release({ outcome, exitCode: 1, waitedMs: 0, ranMs: 0 });

async function recorded(group: string): Promise<{ run: string; outcome: string }> {
  const { run, outcome } = JSON.parse(
    (await agent.kv.get(`runlock/${group}/.runs/web01`))?.Value ?? '{}',
  ) as RunRecord;
  return { run, outcome };
}
const as = ({ context }: Grant, outcome: Outcome) => ({ run: context.run.id, outcome });
const group = (name: string) => agent.kv.tree(`runlock/${name}/`);

test('the node’s next run has ended meanwhile: its record stays, and nothing is touched', async () => {
  const earlier = await stopped('ended');
  const later = await run('ended');
  await end(later, 'failed');
  const before = await group('ended');
  expect(await end(earlier, 'lost')).toEqual({ kind: 'nothing' });
  expect(await recorded('ended')).toEqual(as(later, 'failed'));
  expect(await group('ended')).toEqual(before);
});

test('the node’s next run is under way: the earlier is recorded, the later over it, lost or not', async () => {
  for (const outcome of ['succeeded', 'lost'] as const) {
    const name = `under-way-${outcome}`;
    await end(await run(name), 'succeeded');
    const earlier = await stopped(name);
    const later = await run(name);
    const slots = await agent.kv.tree(`runlock/${name}/.slot/`);
    expect(await end(earlier, 'lost')).toEqual({ kind: 'nothing' });
    expect(await recorded(name)).toEqual(as(earlier, 'lost'));
    expect(await agent.kv.tree(`runlock/${name}/.slot/`)).toEqual(slots);
    if (outcome === 'lost') await agent.kv.delete(`runlock/${name}/.slot/0/owner`);
    await end(later, outcome);
    expect(await recorded(name)).toEqual(as(later, outcome));
  }
});

test('the node’s next run ends between the look and the record: its record stays', async () => {
  const earlier = await stopped('between');
  const later = await run('between');
  let tries = 0;
  const slow: Consul = {
    ...consul,
    transact: async (operations, options) => {
      tries += 1;
      await end(later, 'succeeded');
      return consul.transact(operations, options);
    },
  };
  const { context, slot, owner } = earlier;
  const record = { ...base, run: context.run.id, slot, claimIndex: owner.index };
  await recordEnd({ ...context, consul: slow }, record, AbortSignal.timeout(30_000));
  expect(tries).toBe(1);
  expect(await recorded('between')).toEqual(as(later, 'succeeded'));
});

test('a record that nobody can read is replaced', async () => {
  await agent.kv.put('runlock/torn/.runs/web01', 'rubbish');
  const lost = await stopped('torn');
  expect(await end(lost, 'lost')).toEqual({ kind: 'nothing' });
  expect(await recorded('torn')).toEqual(as(lost, 'lost'));
});

test('without Consul it is tried until its time is over, and said', async () => {
  const { context } = await stopped('away');
  const settings = consulSettings({ ...agent.env, CONSUL_HTTP_ADDR: '127.0.0.1:1' });
  const away = connect(settings, { clock, emit: () => undefined });
  onTestFinished(() => away.close());
  const record = { ...base, run: context.run.id };
  const time = AbortSignal.timeout(1_000);
  await recordEnd({ ...context, consul: away }, record, time);
  expect(time.aborted).toBe(true);
  expect(said).toContainEqual(expect.stringMatching(/^could not record the end of the run \(.*127\.0/));
});
