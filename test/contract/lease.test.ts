// A slot while it is held, on a real agent: what the run and those who watch it can rely on.
import { randomUUID } from 'node:crypto';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { acquire } from '../../src/lock/acquire.ts';
import type { Grant } from '../../src/lock/head-of-queue.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import type { Hold } from '../../src/lock/records.ts';
import { holdLease } from '../../src/lock/lease.ts';
import type { Lease } from '../../src/lock/lease.ts';
import { readSlots } from '../../src/lock/decide.ts';
import type { Owner } from '../../src/lock/decide.ts';
import { abandon } from '../../src/lock/transactions.ts';
import { send } from '../../src/consul/txn.ts';
import { useAgent } from '../support/use-agent.ts';
import { eventually } from '../support/processes.ts';

const agent = useAgent();
let consul: Consul;
beforeAll(() => {
  consul = connect(consulSettings(agent.env), { clock, emit: () => undefined });
});

const { signal } = new AbortController();
const ttlMs = 10_000;
const self = { pid: process.pid, startTime: '1', bootId: 'boot' };

interface Host {
  readonly clock?: Deps['clock'];
}

async function run(
  group: string,
  node: string,
  { hold = 'forever', ...host }: Host & { hold?: Hold } = {},
): Promise<Grant> {
  const deps: Deps = {
    clock: host.clock ?? clock,
    random: Math.random,
    host: {
      self: () => self,
      bootId: self.bootId,
      startTime: () => undefined,
      hidden: () => false,
      place: () => Promise.resolve({ host: 'h' }),
      survivors: () => ({ pids: [], guarded: false }),
    },
    emit: () => undefined,
  };
  const what = { id: randomUUID(), command: 'true', runner: self, hold, slots: 1 };
  const request = { prefix: 'runlock', group, node, run: what, ttlMs };
  const acquired = await acquire({ consul, deps }, request, { signal, patience: signal, either: signal });
  if (acquired.kind !== 'granted') throw new Error(`not granted: ${acquired.kind}`);
  onTestFinished(() =>
    acquired.grant.session.close({ signal: AbortSignal.timeout(1_000) }).catch(() => undefined),
  );
  return acquired.grant;
}

const hold = (grant: Grant): Lease => holdLease(grant, { ttlMs, killAfterMs: 1_000 });
const ended = { exitCode: 1, waitedMs: 0, ranMs: 0 };

async function ownerOf(group: string): Promise<Owner | undefined> {
  const keys = groupKeys('runlock', group);
  const { entries } = await consul.list(keys.slotPrefix, { signal });
  return readSlots('runlock', entries)[0]?.owner;
}

test('promise 5: fencing tokens grow over a grant, the node’s return, and a take-over', async () => {
  const tokens: number[] = [];
  const failing = async (node: string, holdFor: Hold) => {
    const grant = await run('tokens', node, { hold: holdFor });
    tokens.push(grant.fencingToken);
    expect((await ownerOf('tokens'))?.index).toBe(grant.fencingToken);
    expect(await hold(grant).release({ outcome: 'failed', ...ended })).toMatchObject({ kind: 'released' });
  };
  await failing('web01', 'forever');
  await failing('web01', 'forever');
  await failing('web01', 1);
  // The claim is past its hold once the 5 s that clocks may differ are over, by the wall clock of whoever takes it.
  await eventually(async () =>
    expect(Date.parse((await ownerOf('tokens'))?.claim.heldUntil ?? '')).toBeLessThan(Date.now() - 5_000),
  );
  await failing('web02', 'none');
  await failing('web03', 'none');
  expect(tokens).toHaveLength(5);
  expect([...tokens].sort((a, b) => a - b)).toEqual(tokens);
  expect(new Set(tokens).size).toBe(tokens.length);
});

test('a return changes the claim’s index, whether its session was lost or its lock was deleted', async () => {
  const grant = await run('index', 'web01');
  const lease = hold(grant);
  const seen = [await ownerOf('index')];
  const lose = [
    () => agent.http('PUT', `/v1/session/destroy/${grant.session.id}`),
    () => agent.kv.delete('runlock/index/.slot/0/lock'),
    () => agent.kv.delete('runlock/index/.slot/0/lock'),
  ];
  for (const step of lose) {
    await step();
    await eventually(async () => {
      const now = await ownerOf('index');
      expect(now?.index).toBeGreaterThan(seen.at(-1)?.index ?? Infinity);
      expect((await agent.kv.get('runlock/index/.slot/0/lock'))?.Session).toBeDefined();
      seen.push(now);
    });
  }
  expect(seen.map((owner) => owner?.claim.returns)).toEqual([undefined, 1, 2, 3]);
  expect(new Set(seen.map((owner) => owner?.claim.since)).size).toBe(1);
  expect(await lease.release({ outcome: 'succeeded', ...ended })).toEqual({ kind: 'released' });
});

test('a run whose lock is back is not marked abandoned by a watcher who is late', async () => {
  const grant = await run('late', 'web01');
  const { claim, index } = grant.owner;
  const result = await send(
    consul,
    abandon({ keys: grant.context.keys, slot: 0 }, { ...claim, state: 'abandoned' }, index),
    {
      signal,
      rule: '',
    },
  );
  expect(result).toMatchObject({ kind: 'refused', obstacle: 'lock' });
  expect(await ownerOf('late')).toMatchObject(grant.owner);
  await hold(grant).release({ outcome: 'succeeded', ...ended });
});

test('a return needs no second try when it is released', async () => {
  const first = await run('once', 'web01');
  await hold(first).release({ outcome: 'failed', ...ended });
  const second = await run('once', 'web01');
  const before = (await agent.kv.keys('runlock/once/')).length;
  expect(before).toBeGreaterThan(0);
  expect(second.owner.index).toBe((await ownerOf('once'))?.index);
  expect(await hold(second).release({ outcome: 'succeeded', ...ended })).toEqual({ kind: 'released' });
});

test('promise 2: a claim marked abandoned is still its run’s: it comes back, and runs again', async () => {
  const grant = await run('marked', 'web01');
  const lease = hold(grant);
  const session = grant.session.id;
  const { claim } = grant.owner;
  // As a watcher who has seen no lock for 60 s does.
  await agent.kv.txn([
    { KV: { Verb: 'delete', Key: 'runlock/marked/.slot/0/lock' } },
    {
      KV: {
        Verb: 'set',
        Key: 'runlock/marked/.slot/0/owner',
        Value: Buffer.from(JSON.stringify({ v: 1, ...claim, state: 'abandoned' })).toString('base64'),
      },
    },
  ]);
  await eventually(async () => {
    expect((await ownerOf('marked'))?.claim).toMatchObject({ state: 'running', run: claim.run, returns: 1 });
    expect((await agent.kv.get('runlock/marked/.slot/0/lock'))?.Session).toBe(session);
  });
  expect(await lease.release({ outcome: 'succeeded', ...ended })).toEqual({ kind: 'released' });
});
