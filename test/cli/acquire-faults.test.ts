// `acquire` killed, stopped, evicted or unheard at each of its moments: nobody else gets in, and the node goes on.
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { startProxy } from '../support/proxy.ts';
import type { Action, Match } from '../support/proxy.ts';
import { LOSSES, writes } from '../support/proxy-steps.ts';
import { runlock, startRunlock } from '../support/runlock.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const acquireArgs = (group: string, node: string, ...more: string[]) => [
  ...['acquire', group, '--node', node, '--session-ttl', '10s'],
  ...more,
];
const acquire = (group: string, node = 'web01', ...more: string[]) =>
  runlock(agent, acquireArgs(group, node, ...more));
const release = (group: string, node = 'web01', ...more: string[]) =>
  runlock(agent, ['release', group, '--node', node, ...more]);
const exec = (group: string, node: string, ...command: string[]) =>
  on(group).exec(node, '-w', '0', '--', ...command);

const silent = { status: 0, stdout: '', stderr: '' };
const HELD = ['.last', '.slot/0/owner', '.tail'];

/** The transaction that turns a grant into what is held. */
const keepStep: Match = (request) => writes('cas', '/owner')(request) && writes('delete', '/lock')(request);
const endStep = writes('set', '/.runs/');

async function through(match: Match, action: Action) {
  const proxy = await startProxy(agent);
  onTestFinished(proxy.close);
  proxy.rule({ match, times: 1, do: action });
  return proxy;
}

describe('killed', () => {
  test('while it waits: nothing was held, and whoever waits behind it goes', async () => {
    await acquire('k-wait', 'web09');
    const killed = startRunlock(agent, acquireArgs('k-wait', 'web01'));
    await on('k-wait').waiting();
    killed.signal('SIGKILL');
    await killed.ended;
    // This very host knows that it is dead, and does not wait for its session's end.
    const again = startRunlock(agent, acquireArgs('k-wait', 'web01', '-w', '1m'));
    await release('k-wait', 'web09');
    expect(await again.ended).toEqual(silent);
    expect(await on('k-wait').claim()).toMatchObject({ state: 'held', node: 'web01' });
  });

  test.each([
    ['acquire', (group: string) => acquire(group, 'web01', '-w', '0'), 'held'],
    ['exec', (group: string) => exec(group, 'web01', 'true'), undefined],
  ])(
    'between grant and hold: nobody else gets in, and the next %s of the node goes on',
    async (name, next, state) => {
      const group = `k-${name}`;
      const proxy = await through(keepStep, 'hang');
      const killed = startRunlock(proxy, acquireArgs(group, 'web01'));
      await proxy.seen(keepStep);
      killed.signal('SIGKILL');
      await killed.ended;
      expect(await on(group).claim()).toMatchObject({ state: 'running', node: 'web01' });
      expect((await acquire(group, 'web02', '-w', '0')).status).toBe(75);
      expect((await release(group, 'web01', '--failed')).stdout).toContain('(its running claim stays)');
      expect(await next(group)).toEqual(silent);
      expect((await on(group).claim())?.state).toBe(state);
      expect(await on(group).sessions()).toEqual([]);
    },
  );
});

describe('ended by a signal', () => {
  test('while it waits: nothing of it is left', async () => {
    await acquire('s-wait', 'web09');
    const waiter = startRunlock(agent, acquireArgs('s-wait', 'web01'));
    await on('s-wait').waiting();
    waiter.signal('SIGTERM');
    expect(await waiter.ended).toMatchObject({ status: 143, stdout: '' });
    expect(await on('s-wait').keys()).toEqual(HELD);
  });

  test.each([
    ['a released slot', 's-free', undefined],
    ['a failed claim is what it was', 's-failed', 'failed'],
  ])('while it turns its grant into a hold: %s', async (_, group, before) => {
    if (before) await exec(group, 'web01', 'false');
    const proxy = await through(keepStep, { delayMs: 500 });
    const run = startRunlock(proxy, acquireArgs(group, 'web01', '--json'));
    await proxy.seen(keepStep);
    run.signal('SIGTERM');
    expect(await run.ended).toMatchObject({ status: 143, stdout: '' });
    expect((await on(group).claim())?.state).toBe(before);
    expect(await on(group).sessions()).toEqual([]);
  });
});

test('evicted between grant and hold: says so, holds nothing, and the operator hears of the end', async () => {
  const proxy = await through(keepStep, { delayMs: 2_000 });
  const run = startRunlock(proxy, acquireArgs('evicted', 'web01'));
  await proxy.seen(keepStep);
  const operator = await runlock(agent, ['release', 'evicted', '--owner', 'web01', '--force']);
  expect(operator.stdout).toBe('evicted web01 from slot 0 of evicted; its command has ended\n');
  const { status, stderr } = await run.ended;
  expect(status).toBe(79);
  expect(stderr).toMatch(/lost slot 0 of evicted while acquiring it: .* evicted it/);
  expect(await on('evicted').keys()).toEqual(['.last', '.tail']);
});

test('asked for again: a late word of an operator who looked before that does not end it', async () => {
  await acquire('late-clear');
  const proxy = await through(writes('delete-cas', '/owner'), 'late');
  const operator = await runlock(proxy, ['release', 'late-clear', '--owner', 'web01', '--force']);
  expect(operator.status).toBe(69);
  expect(await acquire('late-clear')).toEqual(silent);
  expect(await proxy.release()).toMatchObject([{ status: 409 }]);
  expect(await on('late-clear').claim()).toMatchObject({ state: 'held', node: 'web01' });
});

test('answered only after its hold has ended: nothing is said to be held before it begins anew', async () => {
  const proxy = await through(keepStep, { delayMs: 3_000 });
  const run = startRunlock(proxy, acquireArgs('slow', 'web01', '--hold', '2s', '--json'));
  await proxy.seen(keepStep);
  const sentMs = Date.now();
  const { status, stdout } = await run.ended;
  expect(status).toBe(0);
  const { heldUntil } = JSON.parse(stdout) as { heldUntil: string };
  expect(Date.parse(heldUntil)).toBeGreaterThan(sentMs + 3_000);
  expect(await on('slow').claim()).toMatchObject({ state: 'held', heldUntil });
});

describe.each(Object.entries(LOSSES).filter(([name]) => name !== 'hang'))(
  'an answer that is lost (%s)',
  (name, action) => {
    test('does not keep the first half from being held', async () => {
      const proxy = await through(keepStep, action);
      const group = `lost-${name}`;
      expect(await runlock(proxy, acquireArgs(group, 'web01'))).toMatchObject({ status: 0, stdout: '' });
      const before = await agent.kv.tree(`runlock/${group}/`);
      expect(await on(group).keys()).toEqual(HELD);
      expect(await on(group).claim()).toMatchObject({ state: 'held' });
      await proxy.release();
      expect(await agent.kv.tree(`runlock/${group}/`)).toEqual(before);
    });

    test('does not keep the second half from being done, once', async () => {
      const group = `ended-${name}`;
      await acquire(group);
      const proxy = await through(endStep, action);
      const done = await runlock(proxy, ['release', group, '--node', 'web01', '--failed']);
      expect(done.status).toBe(0);
      expect(done.stdout).toMatch(/^web01 failed after/);
      const before = await agent.kv.tree(`runlock/${group}/`);
      await proxy.release();
      expect(await agent.kv.tree(`runlock/${group}/`)).toEqual(before);
      expect(await on(group).claim()).toMatchObject({ state: 'failed' });
    });
  },
);
