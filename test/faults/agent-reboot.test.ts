// The host of an agent reboots, before, while and after a run: each request runs once, and every target ends.
import { rmSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { agentHost } from '../support/agent-host.ts';
import type { AgentHost } from '../support/agent-host.ts';
import { spawnRunlock } from '../support/program.ts';
import { useAgent } from '../support/use-agent.ts';

const consul = useAgent({ name: 'node1' });
const LONG = { timeout: 150_000 };
const runlock = (...words: string[]) => spawnRunlock(consul, words).ended;
const state = async (path: string) => (await runlock('state', 'get', path)).stdout;

describe.concurrent('the host reboots', LONG, () => {
  test('before the run: it starts once, after the boot', async () => {
    await using on = agentHost(consul, 'b-before');
    await on.run('pause');
    await on.start();
    const job = await on.ask();
    await on.reboot();
    await on.run('resume');
    on.finish();
    await on.start();
    await job.becomes('good');
    expect(job.runs()).toBe(1);
    await on.keepsPromises();
  });

  test('while the run waits for its slot: it starts once, after the boot', async () => {
    await using on = agentHost(consul, 'b-wait', { more: 'session_ttl = "10s"' });
    expect(await runlock('freeze', on.group, '--reason', 'test')).toMatchObject({ status: 0 });
    const first = await on.start();
    const job = await on.ask();
    await first.says(/started a run/);
    await on.reboot();
    await on.start();
    on.finish();
    await runlock('thaw', on.group);
    // It is busy until the session of the dead one has ended.
    await job.becomes('good', on.node, 90_000);
    expect(job.runs()).toBe(1);
    await on.keepsPromises();
  });

  test('while the command runs: lost, not run again, and its claim stays for the next run', async () => {
    await using on = agentHost(consul, 'b-runs');
    await on.start();
    const job = await on.ask();
    await job.begun();
    await on.reboot();
    await on.expire();
    const second = await on.start();
    expect((await job.becomes('lost')).why).toMatch(/does not know its end/);
    expect(await on.owner()).toMatchObject({ node: 'b-runs' });
    on.finish();
    const next = await on.ask();
    await next.becomes('good');
    expect([job.runs(), next.runs()]).toEqual([1, 1]);
    expect(second.stderr().match(/started a run/g)).toHaveLength(1);
    await on.keepsPromises();
  });

  test('after the run: nothing is left to do', async () => {
    await using on = agentHost(consul, 'b-after');
    await on.start();
    const job = await on.ask();
    on.finish();
    await job.becomes('good');
    await on.reboot();
    const second = await on.start();
    const next = await on.ask();
    await next.becomes('good');
    expect([job.runs(), next.runs()]).toEqual([1, 1]);
    expect(second.stderr().match(/started a run/g)).toHaveLength(1);
    await on.keepsPromises();
  });
});

const host = (node: string, more = '') =>
  agentHost(consul, node, { more: `reboot_codes = "35"\nhold = "forever"\n${more}` });

/** Its run has ended with the wish to reboot. */
async function rebooting(on: AgentHost) {
  const agent = await on.start();
  const job = await on.ask();
  on.finish(35);
  await job.becomes('rebooting');
  expect(await on.owner()).toMatchObject({ node: on.node, state: 'rebooting' });
  return { job, agent };
}

async function boots(on: AgentHost) {
  await on.reboot();
  return on.start();
}

async function slotIsFree(on: AgentHost) {
  expect(await on.owner()).toBeUndefined();
  const record = await consul.kv.get(`runlock/${on.group}/.runs/${on.node}`);
  expect(JSON.parse(record?.Value ?? '{}')).toMatchObject({ outcome: 'succeeded', exitCode: 35 });
}

const clear = async (on: AgentHost) =>
  expect(await runlock('release', on.group, '--owner', on.node, '--force')).toMatchObject({ status: 0 });

describe.concurrent('the run asks for the reboot', LONG, () => {
  test('an agent that is restarted in the same boot leaves it as it is; after the boot it is good', async () => {
    await using on = host('r-again');
    const { job, agent } = await rebooting(on);
    agent.signal('SIGTERM');
    await agent.ended;
    const second = await on.start();
    // The older request has been looked at before this one.
    const other = await on.ask({ id: 'r-again-other', params: { no: 'such' } });
    await other.becomes('refused');
    expect(await job.document()).toMatchObject({ state: 'rebooting' });
    expect(await on.owner()).toMatchObject({ state: 'rebooting' });
    expect(second.stderr()).not.toContain('started a run');
    await boots(on);
    expect(await job.becomes('good')).toMatchObject({ exitCode: 35 });
    expect((await job.look()).tally.value.states).toEqual({ good: 1 });
    expect(await consul.kv.get(job.pointer())).toBeUndefined();
    await slotIsFree(on);
    expect(job.runs()).toBe(1);
    await on.keepsPromises();
  });

  test('its states are published with its end, and not before', async () => {
    await using on = host('r-publish', 'publish = "boot/kernel=6"\nduring = "boot/now=yes"');
    const { job } = await rebooting(on);
    expect(await state('boot/kernel')).toBe('');
    expect(await state('boot/now')).toBe('yes\n');
    await boots(on);
    const { run } = await job.becomes('good');
    expect(await state('boot/kernel')).toBe('6\n');
    const stored = await consul.kv.get('runlock/.state/boot/kernel/.value');
    expect(JSON.parse(stored?.Value ?? '{}')).toMatchObject({ by: 'r-publish', run, published: true });
    expect(await consul.kv.get('runlock/.state/boot/now/.value')).toBeUndefined();
    await slotIsFree(on);
    await on.keepsPromises();
  });

  test('its claim was cleared meanwhile, and nothing is to be published: good', async () => {
    await using on = host('r-cleared');
    const { job } = await rebooting(on);
    await clear(on);
    await boots(on);
    await job.becomes('good');
    await on.keepsPromises();
  });

  test('its claim was cleared meanwhile, and it publishes: lost, and nothing is published', async () => {
    await using on = host('r-publish-cleared', 'publish = "boot/cleared=1"');
    const { job } = await rebooting(on);
    await clear(on);
    await boots(on);
    expect((await job.becomes('lost')).why).toMatch(/nothing was published/);
    expect(await state('boot/cleared')).toBe('');
    await on.keepsPromises();
  });

  test('its task waits for health: lost, and its claim stays', async () => {
    await using on = host(
      'r-health',
      'service = "web"\nallow_unknown_service = true\nhealthy_within = "1m"\npublish = "boot/health=1"',
    );
    const { job } = await rebooting(on);
    await boots(on);
    expect((await job.becomes('lost')).why).toMatch(/waits for health/);
    expect(await on.owner()).toMatchObject({ state: 'rebooting' });
    expect(await state('boot/health')).toBe('');
    await on.keepsPromises();
  });

  test('its task is gone: lost, and its claim stays', async () => {
    await using on = host('r-gone');
    const { job } = await rebooting(on);
    on.write('u.toml', 'command = ["/bin/true"]\nallow = ["ops"]\ngroup = "fa/u"\n');
    rmSync(`${on.tasks}/t.toml`);
    await boots(on);
    expect((await job.becomes('lost')).why).toMatch(/its task is not in the files/);
    expect(await on.owner()).toMatchObject({ state: 'rebooting' });
    await on.keepsPromises();
  });

  test('a paused agent ends it once it is resumed', async () => {
    await using on = host('r-paused');
    const { job } = await rebooting(on);
    await on.run('pause');
    await boots(on);
    expect(await job.document()).toMatchObject({ state: 'rebooting' });
    await on.run('resume');
    await job.becomes('good');
    await slotIsFree(on);
    await on.keepsPromises();
  });
});
