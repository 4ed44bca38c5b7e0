// What newer versions of Consul and Consul Enterprise do otherwise, by a stand-in that answers as they do (by their source).
import { describe, expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { untilHealthy } from '../../src/gate/healthy.ts';
import { startAgent } from '../support/consul.ts';
import { useAgent } from '../support/use-agent.ts';
import { never } from '../support/gate.ts';
import { startNewerConsul } from '../support/newer-consul.ts';
import type { NewerConsul, NewerOptions } from '../support/newer-consul.ts';
import { startProxy } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';

const agent = useAgent({ name: 'web01' });

const options = { signal: never, retryForMs: 0 };

async function newer(given: NewerOptions = {}, target = agent): Promise<NewerConsul> {
  const made = await startNewerConsul(target.address, given);
  onTestFinished(() => made.close());
  return made;
}

function connected(env: Record<string, string>): Consul {
  const consul = connect(consulSettings(env), { clock, emit: () => undefined });
  onTestFinished(() => consul.close());
  return consul;
}

describe('in a namespace', () => {
  const inTeam = ({ address }: NewerConsul) => ({
    env: { ...agent.env, CONSUL_HTTP_ADDR: address, CONSUL_NAMESPACE: 'team', CONSUL_PARTITION: 'east' },
  });

  test('a node runs, fails, waits and comes back, and everything is there and nowhere else', async () => {
    const consul = await newer({ enterprise: 'team' });
    const node = inTeam(consul);
    expect(await runlock(node, ['exec', '-g', 'web', '--', 'true'])).toMatchObject({ status: 0, stderr: '' });
    expect((await runlock(node, ['exec', '-g', 'web', '--', 'false'])).status).toBe(1);
    const other = ['exec', '-g', 'web', '--node', 'web02'];
    expect((await runlock(node, [...other, '-w', '0', '--', 'true'])).status).toBe(75);
    const waiting = startRunlock(node, [...other, '--', 'true']);
    expect((await runlock(node, ['exec', '-g', 'web', '--', 'true'])).status).toBe(0);
    expect((await waiting.ended).status).toBe(0);
    const keys = await agent.kv.keys();
    expect(keys.filter((key) => !key.startsWith('__team/'))).toEqual([]);
    expect(keys).toContain('__team/runlock/web/.runs/web02');
    expect(consul.odd).toEqual([]);
  });

  test('the rights are asked for there', async () => {
    const consul = connected(inTeam(await newer({ enterprise: 'team' })).env);
    const rights = [
      { resource: 'service', name: 'web', access: 'read' },
      { resource: 'node', name: 'web01', access: 'read' },
    ] as const;
    expect(await consul.may(rights, options)).toEqual([true, true]);
  });
});

describe('an answer that comes later than 30 s', () => {
  test('is never waited for: no watch lasts so long', async () => {
    const { address, odd } = await newer();
    const consul = connected({ CONSUL_HTTP_ADDR: address });
    await agent.kv.put('a', '1');
    const { index } = await consul.get('a', options);
    const waiting = [
      consul.get('a', { ...options, index }),
      consul.get('a', { ...options, index, waitMs: 3_600_000 }),
    ];
    await agent.kv.put('a', '2');
    expect((await Promise.all(waiting)).map(({ entry }) => entry?.value)).toEqual(['2', '2']);
    expect(odd).toEqual([]);
  });
});

describe("an agent's own view of a service's health", () => {
  test('is not asked: a look that waits is answered by the servers, and not at once', async () => {
    const through = await newer();
    await using proxy = await startProxy(through);
    const consul = connected(proxy.env);
    const asked = { services: ['web'], offered: [], node: 'web01', withinMs: 20_000, stableMs: 500 };
    expect(await untilHealthy({ consul, clock }, asked, never)).toEqual({ kind: 'healthy' });
    expect(through.odd).toEqual([]);
    expect(proxy.requests.length).toBeLessThan(6);
  });
});

test('one connection more than 200 is too many requests, and no other kind of trouble', async () => {
  // The real one has the same limit, and takes a moment to count down again.
  await using own = await startAgent();
  const { address } = await newer({}, own);
  const consul = connected({ CONSUL_HTTP_ADDR: address });
  const { index } = await consul.get('b', options);
  const stop = new AbortController();
  const waits = Array.from({ length: 200 }, () =>
    consul.get('b', { ...options, signal: AbortSignal.any([stop.signal]), index }),
  );
  const ends = Promise.allSettled(waits);
  await expect(consul.get('b', options)).rejects.toMatchObject({ code: 'overloaded' });
  stop.abort();
  await ends;
});

test('a connection that was closed for being idle is no trouble', async () => {
  const { address } = await newer({ idleMs: 50 });
  const consul = connected({ CONSUL_HTTP_ADDR: address });
  for (let i = 0; i < 3; i++) {
    await consul.get('a', options);
    await clock.sleep(200, { signal: never });
  }
});

test('a refusal that calls itself JSON is said in its words', async () => {
  const { address } = await newer();
  const consul = connected({ CONSUL_HTTP_ADDR: address });
  await expect(consul.get('a b', options)).rejects.toMatchObject({
    code: 'config',
    message: expect.stringMatching(/refused the request: invalid key name/) as string,
  });
});
