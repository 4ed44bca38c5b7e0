// The end of `--wait` while a session is just being made: that says nothing of Consul, and nothing of the group.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { RunlockError } from '../../src/errors.ts';
import { acquire } from '../../src/lock/acquire.ts';
import type { Acquired } from '../../src/lock/acquire.ts';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match } from '../support/proxy.ts';

const agent = useAgent();
let consul: Consul;
beforeAll(() => {
  consul = connect(consulSettings(agent.env), { clock, emit: () => undefined });
});

const { signal } = new AbortController();

/** `patience` ends while the first session is made. */
async function run(
  group: string,
  node: string,
  { during, patience = new AbortController() }: { during: Consul; patience?: AbortController },
): Promise<Acquired> {
  const runner = { pid: 1, startTime: '1', bootId: node };
  const host = {
    self: () => runner,
    bootId: node,
    startTime: () => undefined,
    hidden: () => false,
    place: () => Promise.resolve({ host: node }),
    survivors: () => ({ pids: [], guarded: false }),
  };
  const deps = { clock, random: Math.random, host, emit: () => undefined };
  const what = { id: randomUUID(), command: 'true', runner, hold: 'forever', slots: 1 } as const;
  const request = { prefix: 'runlock', group, node, run: what, ttlMs: 10_000 };
  const waiting = { signal, patience: patience.signal, either: AbortSignal.any([signal, patience.signal]) };
  const acquired = await acquire({ consul: during, deps }, request, waiting);
  onTestFinished(async () => {
    if (acquired.kind === 'granted')
      await acquired.grant.session.close({ signal: AbortSignal.timeout(1_000) });
  });
  return acquired;
}

/** Consul, of which the request for the first session is under way when `--wait` ends. */
function endingAt(patience: AbortController, fault?: RunlockError): Consul {
  return {
    ...consul,
    fault: () => fault,
    createSession: (request, options) => {
      if (patience.signal.aborted) return consul.createSession(request, options);
      patience.abort();
      return Promise.reject(patience.signal.reason as Error);
    },
  };
}

test('it is busy, with who has the slot', async () => {
  await run('taken', 'web01', { during: consul });
  const patience = new AbortController();
  const second = await run('taken', 'web02', { during: endingAt(patience), patience });
  expect(second).toMatchObject({
    kind: 'busy',
    why: { kind: 'slots', slots: [{ slot: 0, owner: { claim: { node: 'web01', state: 'running' } } }] },
  });
});

test('it is busy, with who froze the group', async () => {
  await groupOf(agent, 'iced').freeze('ops', 'migration');
  const patience = new AbortController();
  const result = await run('iced', 'web01', { during: endingAt(patience), patience });
  expect(result).toMatchObject({ kind: 'busy', why: { kind: 'frozen', freeze: { by: 'ops' } } });
});

test('where Consul is known not to answer, that is said', async () => {
  const patience = new AbortController();
  const fault = new RunlockError('unreachable', 'Consul is away');
  const waits = run('away', 'web01', { during: endingAt(patience, fault), patience });
  await expect(waits).rejects.toBe(fault);
});

test('the session that was just being made is not left behind', async () => {
  await run('held', 'web01', { during: consul });
  await using proxy = await startProxy(agent);
  const late = connect(consulSettings(proxy.env), { clock, emit: () => undefined });
  onTestFinished(() => late.close());
  const patience = new AbortController();
  const answered = new AbortController();
  const until = once(answered.signal, 'abort');
  const creations: Match = ({ path }) => path.startsWith('/v1/session/create');
  proxy.rule({ match: creations, times: 1, do: { until } });
  const waits = run('held', 'web02', { during: late, patience });
  await proxy.seen(creations);
  patience.abort();
  answered.abort();
  // On a slow host it may be taken for a Consul that does not answer.
  await waits.catch((error: unknown) => expect(error).toMatchObject({ code: 'unreachable' }));
  await late.settled();
  const sessions = (await agent.http('GET', '/v1/session/list')).json() as { Name: string }[];
  expect(sessions.filter(({ Name }) => Name === 'runlock held')).toHaveLength(1);
});
