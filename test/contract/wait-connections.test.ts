// Waits of many conditions leave Consul's connections to the other runs of their host (docs/adr/0032).
import { describe, expect, test } from 'vitest';
import { eventually } from '../support/processes.ts';
import { groupOf } from '../support/group.ts';
import { startProxy } from '../support/proxy.ts';
import type { ProxyRequest } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const isWatch = ({ path }: ProxyRequest) => /[?&]index=\d/.test(path);
const state = (...args: string[]) => runlock(agent, ['state', ...args]);
const until = (texts: readonly string[]) => texts.flatMap((text) => ['--until', text]);
const many = (count: number, text: (i: number) => string) => Array.from({ length: count }, (_, i) => text(i));

const offer = (name: string) =>
  agent.http('PUT', '/v1/agent/service/register', {
    ...{ Name: name, ID: name },
    Check: { CheckID: name, TTL: '10m', Status: 'passing' },
  });

describe('a wait of 64 keys and 32 services', () => {
  test('takes 12 connections at most, and hears a change of each kind', async () => {
    await using proxy = await startProxy(agent);
    const texts = [
      ...many(20, (i) => `state:far${i}/x=1`),
      ...many(15, (i) => `state:near/s${i}=1`),
      ...many(15, (i) => `active:n@all/g${i}`),
      ...many(5, (i) => `good:n@good/g${i}`),
      ...many(5, (i) => `agent:n${i}`),
      ...['frozen:ice', 'blocked:stuck', ...many(32, (i) => `healthy:s${i}`)],
    ];
    const waiting = startRunlock(proxy, ['wait', '-v', '--timeout', '50s', '--stable', '0', ...until(texts)]);
    await waiting.says(/healthy:s31 does not hold/);
    const changes: [string, () => Promise<unknown>][] = [
      ['state:far7/x=1', () => state('set', 'far7/x', '1')],
      ['state:near/s3=1', () => state('set', 'near/s3', '1')],
      ['good:n@good/g4', () => groupOf(agent, 'good/g4').exec('n', '--', 'true')],
      ['frozen:ice', () => runlock(agent, ['freeze', 'ice', '--reason', 'r'])],
      ['blocked:stuck', () => groupOf(agent, 'stuck').exec('n', '--', 'false')],
      ['healthy:s0', () => offer('s0')],
      ['healthy:s31', () => offer('s31')],
      // One of eight that share a query.
      ['not:healthy:s31', () => agent.http('PUT', '/v1/agent/check/fail/s31')],
    ];
    for (const [text, change] of changes) {
      const [, shown = text] = /^not:(.*)/.exec(text) ?? [];
      const said = waiting.says(
        new RegExp(`${shown.replaceAll('/', '\\/')} ${shown === text ? 'holds' : 'does not hold: 0 of 1'}`),
        20_000,
      );
      await change();
      await said;
    }
    expect(proxy.counts().connections).toBeLessThanOrEqual(12);
    waiting.signal('SIGTERM');
    await waiting.ended;
  }, 60_000);

  test('is one of 16 that a host can have, beside its other runs', async () => {
    await using proxy = await startProxy(agent);
    // Newer versions answer 429, 1.8.7 closes the connection.
    proxy.maxConnections = 200;
    const texts = [...many(20, (i) => `state:host${i}/x=1`), ...many(15, (i) => `idle:host/g${i}`)];
    const all = [...texts, ...many(8, (i) => `good:n@host${i}`), ...many(16, (i) => `healthy:h${i}`)];
    const waits = many(4, () => '').map(() =>
      startRunlock(proxy, ['wait', '-v', '--timeout', '40s', ...until(all)]),
    );
    for (const waiting of waits) await waiting.says(/healthy:h15 does not hold/);
    await eventually(() => expect(proxy.requests.filter(isWatch).length).toBeGreaterThan(4 * 8));
    // The sum of four, of which a host can have four times as many.
    expect(proxy.counts().connections).toBeLessThanOrEqual(4 * 12);
    expect((await runlock(proxy, ['state', 'set', 'other', '1'])).status).toBe(0);
    for (const waiting of waits) waiting.signal('SIGTERM');
    for (const waiting of waits) expect((await waiting.ended).status).toBe(143);
  }, 60_000);
});

describe('where Consul takes no more requests, a wait goes on', () => {
  test('with 429 to all that it asks, for a while', async () => {
    await using proxy = await startProxy(agent);
    const waiting = startRunlock(proxy, [
      'wait',
      '-v',
      '--timeout',
      '50s',
      ...until(['state:busy/a=1', 'idle:g']),
    ]);
    await waiting.says(/state:busy\/a=1 does not hold/);
    const back = proxy.rule({
      do: { status: 429, body: 'Your IP is issuing too many concurrent connections', headers: {} },
    });
    proxy.sever();
    const { length } = proxy.requests;
    await eventually(() => expect(proxy.requests.length).toBeGreaterThan(length + 5));
    await state('set', 'busy/a', '1');
    back();
    expect((await waiting.ended).status).toBe(0);
  }, 60_000);

  test('with room for two connections only', async () => {
    await using proxy = await startProxy(agent);
    proxy.maxConnections = 2;
    const texts = many(8, (i) => `state:few${i}/a=1`);
    const waiting = startRunlock(proxy, ['wait', '-v', '--timeout', '50s', ...until(texts)]);
    await waiting.says(/state:few7\/a=1 does not hold/);
    for (let i = 0; i < 8; i += 1) await state('set', `few${i}/a`, '1');
    proxy.maxConnections = 200;
    expect((await waiting.ended).status).toBe(0);
  }, 60_000);
});

test('what the token may read is asked for all conditions at once: two requests a look', async () => {
  await using proxy = await startProxy(agent);
  const texts = [...many(20, (i) => `not:state:none${i}/x`), 'idle:none', 'not:frozen:none'];
  expect((await runlock(proxy, ['wait', '--timeout', '0', ...until(texts)])).status).toBe(0);
  expect(proxy.requests.map(({ path }) => path.split('?')[0])).toEqual([
    ...['/v1/txn', '/v1/internal/acl/authorize'],
    // Without ACLs there is no right to lack.
  ]);
});
