// `acquire --when`: waits for conditions without a slot, as `exec` does, and holds one only while they are met.
import { expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { writes } from '../support/proxy-steps.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

const set = async (path: string, value: string) => {
  expect((await runlock(agent, ['state', 'set', path, value])).status).toBe(0);
};

const words = (group: string, ...more: string[]) => ['acquire', group, '--node', 'web01', ...more];

test('waits without a slot, recorded as waiting; when the condition holds, it holds a slot', async () => {
  const group = groupOf(agent, 'aw/wait');
  const run = startRunlock(agent, words('aw/wait', '-v', '--when', 'state:aw/a=1'));
  await run.says(
    /waiting until --when is met, without taking a slot of aw\/wait: state:aw\/a=1: aw\/a is not set/,
  );
  const record = await eventually(async () => {
    const pair = await agent.kv.get('runlock/aw/wait/.outside/web01');
    expect(pair).toBeDefined();
    return pair;
  });
  expect(JSON.parse(record?.Value ?? '')).toMatchObject({ command: 'acquire', when: ['state:aw/a=1'] });
  expect(await group.keys()).toEqual(['.outside/web01']);
  await set('aw/a', '1');
  expect((await run.ended).status).toBe(0);
  expect(await group.claim()).toMatchObject({ node: 'web01', state: 'held' });
  expect(await group.keys('.outside/')).toEqual([]);
});

test('is busy at the end of --wait, and says what is missing', async () => {
  const { status, stderr } = await runlock(agent, words('aw/busy', '-w', '0', '--when', 'state:aw/none'));
  expect(status).toBe(75);
  expect(stderr).toBe('runlock: busy: --when is not met: state:aw/none: aw/none is not set\n');
  expect(await groupOf(agent, 'aw/busy').keys()).toEqual([]);
});

test('a condition that is false with the slot granted: the slot is given up, nothing is held', async () => {
  const group = groupOf(agent, 'aw/turned');
  await set('aw/t', '1');
  const holder = await group.hold('web00');
  const run = startRunlock(agent, words('aw/turned', '-v', '--when', 'state:aw/t=1'));
  await group.waiting(1);
  await set('aw/t', '2');
  await holder.end();
  await run.says(/released the slot of aw\/turned, because --when is no longer met/);
  await eventually(async () => expect(await group.keys('.slot/')).toEqual([]));
  await set('aw/t', '1');
  expect((await run.ended).status).toBe(0);
  expect(await group.claim()).toMatchObject({ node: 'web01', state: 'held' });
});

test('a state that changes in the moment in which the slot would become held: it does not', async () => {
  const group = groupOf(agent, 'aw/keep');
  await group.exec('web01', '--', 'false');
  await set('aw/k', '1');
  const isKeep = writes('check-index', '/.state/');
  await using proxy = await startProxy(agent);
  const changed = proxy.seen(isKeep).then(() => set('aw/k', '2'));
  proxy.rule({ match: isKeep, times: 1, do: { until: changed } });
  const run = await runlock(proxy, words('aw/keep', '-w', '2s', '--when', 'state:aw/k=1'));
  expect(run.status).toBe(75);
  expect(run.stderr).toContain('--when is not met: state:aw/k=1: aw/k is 2');
  // What the node had before is there again.
  expect(await group.claim()).toMatchObject({ node: 'web01', state: 'failed' });
});

test('asked again while it holds the slot, waits for nothing', async () => {
  await set('aw/h', '1');
  const asked = words('aw/held', '-w', '20s', '--when', 'state:aw/h=1');
  expect((await runlock(agent, asked)).status).toBe(0);
  await set('aw/h', '2');
  expect((await runlock(agent, [...asked, '--json'])).stdout).toContain('"already": true');
});

test('a signal while it waits leaves nothing', async () => {
  const group = groupOf(agent, 'aw/signal');
  const run = startRunlock(agent, words('aw/signal', '-v', '--when', 'state:aw/none'));
  await eventually(async () => expect(await group.keys()).toEqual(['.outside/web01']));
  run.signal('SIGTERM');
  expect((await run.ended).status).toBe(143);
  expect(await group.keys()).toEqual([]);
});
