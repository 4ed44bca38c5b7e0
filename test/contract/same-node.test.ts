// Whether what stands in a node's way is alive: only what is provably dead is cleared away.
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/clock.ts';
import { connect } from '../../src/consul.ts';
import type { Consul } from '../../src/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Host } from '../../src/deps.ts';
import { acquire } from '../../src/lock/acquire.ts';
import type { Acquired } from '../../src/lock/acquire.ts';
import { endAgents, startAgent } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';

let agent: Agent;
let consul: Consul;
beforeAll(async () => {
  agent = await startAgent();
  consul = connect(consulSettings(agent.env), { clock, log: () => undefined });
});
afterAll(endAgents);

const { signal } = new AbortController();
const over = AbortSignal.abort();

/** A host on which only what `seen` names can be seen. */
function host(bootId: string, pid: number, seen: { hidden?: number[]; survivors?: number[] } = {}): Host {
  return {
    self: () => ({ pid, startTime: '1', bootId }),
    bootId,
    startTime: () => undefined,
    hidden: (asked) => seen.hidden?.includes(asked) ?? false,
    survivors: () => ({ pids: seen.survivors ?? [], guarded: false }),
  };
}

async function run(group: string, on: Host): Promise<Acquired> {
  const what = { id: randomUUID(), command: 'true', runner: on.self(), hold: 'forever', slots: 1 } as const;
  const deps = { clock, random: Math.random, host: on, log: () => undefined };
  const request = { prefix: 'runlock', group, node: 'web01', run: what, ttlMs: 10_000 };
  const acquired = await acquire({ consul, deps }, request, { signal, patience: over, either: over });
  onTestFinished(async () => {
    if (acquired.kind === 'granted')
      await acquired.grant.session.close({ signal: AbortSignal.timeout(1_000) });
  });
  return acquired;
}

const lockOf = async (group: string) => (await agent.kv.get(`runlock/${group}/.slot/0/lock`))?.Session;

test('a run whose process is gone on this very boot is dead: its session goes, and the next run comes back', async () => {
  await run('dead', host('boot', 10));
  const before = await lockOf('dead');
  expect(await run('dead', host('boot', 11))).toMatchObject({ kind: 'granted' });
  expect(await lockOf('dead')).not.toBe(before);
});

test.for([
  { what: 'on another boot, or in another pid namespace', on: host('other', 11) },
  { what: 'of another user, whom this one can not see', on: host('boot', 11, { hidden: [10] }) },
])('a run $what may be alive: the node is busy, and its session is left alone', async ({ on }) => {
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
