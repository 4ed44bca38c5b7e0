// States of `--during`, as others see them: they are there exactly as long as the claim under which they were set.
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

const get = async (path: string) => {
  const { status, stdout } = await runlock(agent, ['state', 'get', path]);
  return status === 0 ? stdout.trim() : undefined;
};
const isListed = async (path: string) =>
  (await runlock(agent, ['state', 'list', path])).stdout.includes('VALUE');
const holds = async (condition: string) =>
  (await runlock(agent, ['wait', '--until', condition, '--timeout', '0'])).status === 0;

/** All readers agree. */
async function isThere(path: string, value: string | undefined): Promise<void> {
  expect(await get(path)).toBe(value);
  expect(await isListed(path)).toBe(value !== undefined);
  expect(await holds(`state:${path}`)).toBe(value !== undefined);
}

const release = async (...words: string[]) => {
  expect((await runlock(agent, ['release', ...words])).status).toBe(0);
};

describe('a state of --during', () => {
  test('stays after a failure, and during the repairing run, and goes with its success', async () => {
    const group = groupOf(agent, 'dw/repair');
    expect((await group.exec('web01', '--during', 'dr/a=1', '--', 'false')).status).toBe(1);
    await isThere('dr/a', '1');
    const repair = await group.hold('web01');
    const claim = await group.claim();
    expect(claim?.['root']).not.toBe(claim?.run);
    await isThere('dr/a', '1');
    await repair.end();
    await isThere('dr/a', undefined);
    // The key is left; somebody prunes it.
    expect(await agent.kv.keys('runlock/.state/dr/')).toHaveLength(1);
    expect((await runlock(agent, ['state', 'prune'])).stdout).toContain('dr/a');
    expect(await agent.kv.keys('runlock/.state/dr/')).toEqual([]);
  });

  test('stays over several failed repairs, and ends where an operator clears the claim', async () => {
    const group = groupOf(agent, 'dw/clear');
    await group.exec('web01', '--during', 'dc/a=1', '--', 'false');
    await group.exec('web01', '--', 'false');
    await group.exec('web01', '--', 'false');
    await isThere('dc/a', '1');
    await release('dw/clear', '--owner', 'web01');
    await isThere('dc/a', undefined);
  });

  test('ends with the hold, without a write', async () => {
    const group = groupOf(agent, 'dw/hold');
    await group.exec('web01', '--hold', '1s', '--kill-after', '1s', '--during', 'dh/a=1', '--', 'false');
    await isThere('dh/a', '1');
    const wait = await runlock(agent, ['wait', '--while', 'state:dh/a', '--timeout', '20s']);
    expect(wait.status).toBe(0);
    expect(await group.claim()).toMatchObject({ state: 'failed' });
    await isThere('dh/a', undefined);
  });

  test('is gone with a failed claim that is not held', async () => {
    await groupOf(agent, 'dw/none').exec('web01', '--hold', 'none', '--during', 'dn/a=1', '--', 'false');
    await isThere('dn/a', undefined);
  });

  test('ends where another node takes the claim over, and where a hand deletes it', async () => {
    const group = groupOf(agent, 'dw/over');
    await group.exec('web01', '--during', 'do/a=1', '--', 'false');
    const key = group.key('.slot/0/owner');
    const claim = await group.claim();
    await agent.kv.put(key, JSON.stringify({ ...claim, node: 'web02', run: 'r2' }));
    await isThere('do/a', undefined);
    await agent.kv.put(key, JSON.stringify(claim));
    await isThere('do/a', '1');
    await agent.kv.delete(key);
    await isThere('do/a', undefined);
  });

  test('stays while the session of its run is lost', async () => {
    const group = groupOf(agent, 'dw/session');
    const holder = await group.hold('web01', '--during', 'ds/a=1');
    const [session] = await group.sessions();
    await agent.http('PUT', `/v1/session/destroy/${session}`);
    await isThere('ds/a', '1');
    await eventually(async () => expect(await group.lockedBy()).toBeDefined());
    await isThere('ds/a', '1');
    holder.tell();
    expect((await holder.ended).status).toBe(0);
    await isThere('ds/a', undefined);
  });

  test('stays until an evicted run is dead', async () => {
    const group = groupOf(agent, 'dw/evict');
    const holder = await group.hold('web01', '--during', 'de/a=1');
    await release('dw/evict', '--owner', 'web01', '--force');
    expect((await holder.ended).status).toBe(79);
    await isThere('de/a', undefined);
  });
});

describe('the end of its claim wakes', () => {
  test('a wait for it, and a watch of it and of all states, which tell it once', async () => {
    const group = groupOf(agent, 'dw/wake');
    await group.exec('web01', '--during', 'dk/a=1', '--', 'false');
    const wait = startRunlock(agent, ['wait', '--while', 'state:dk/a', '--timeout', '60s', '-v']);
    const one = startRunlock(agent, ['state', 'watch', 'dk/a']);
    const all = startRunlock(agent, ['state', 'watch']);
    for (const watch of [one, all]) await eventually(() => expect(watch.stdout()).toContain('dk/a is 1'));
    const startedMs = Date.now();
    await release('dw/wake', '--owner', 'web01');
    expect((await wait.ended).status).toBe(0);
    for (const watch of [one, all]) {
      await eventually(() => expect(watch.stdout()).toMatch(/dk\/a is 1.*\n[^]*dk\/a is not set\n/));
      watch.signal('SIGINT');
      const { stdout } = await watch.ended;
      expect(stdout.match(/dk\/a is not set/g)).toHaveLength(1);
    }
    expect(Date.now() - startedMs).toBeLessThan(10_000);
  });
});

describe('state set', () => {
  test('--if-absent may follow a state whose claim has ended', async () => {
    const group = groupOf(agent, 'dw/absent');
    await group.exec('web01', '--hold', 'none', '--during', 'da/a=1', '--', 'false');
    expect((await runlock(agent, ['state', 'set', 'da/a', '1', '--if-absent'])).status).toBe(0);
    await isThere('da/a', '1');
  });

  test('of the value that a run shows makes it outlast the run', async () => {
    const group = groupOf(agent, 'dw/outlasts');
    const holder = await group.hold('web01', '--during', 'dl/a=1');
    expect((await runlock(agent, ['state', 'set', 'dl/a', '1'])).status).toBe(0);
    await holder.end();
    await isThere('dl/a', '1');
  });
});

test('a claim that nobody can read is said, and hides no other state', async () => {
  const group = groupOf(agent, 'dw/junk');
  await group.exec('web01', '--during', 'dj/a=1', '--', 'false');
  await runlock(agent, ['state', 'set', 'dj/b', '2']);
  await agent.kv.put(group.key('.slot/0/owner'), 'junk');
  const one = await runlock(agent, ['state', 'get', 'dj/a']);
  expect(one.status).toBe(78);
  expect(one.stderr).toContain('runlock/dw/junk/.slot/0/owner');
  expect((await runlock(agent, ['state', 'list', 'dj'])).stdout).toContain('dj/b');
});
