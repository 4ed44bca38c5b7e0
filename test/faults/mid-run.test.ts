// Hands and faults that reach into a group's keys while a run is under way.
import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { endAgents, startAgent } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';
import { eventually, scene, untilGone } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import type { Running } from '../support/program.ts';

let agent: Agent;
beforeAll(async () => {
  agent = await startAgent({ acl: true });
});
afterAll(endAgents);

interface Scenario {
  readonly run: Running;
  readonly command: number;
  readonly base: string;
  readonly tell: () => void;
}

let count = 0;

async function running(hold: string, env: Record<string, string> = {}): Promise<Scenario> {
  const { folder, clean, pid } = scene();
  onTestFinished(clean);
  const group = `mid-${count++}`;
  const script = `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
  const args = [
    'exec',
    '-g',
    group,
    '--node',
    'web01',
    '--hold',
    hold,
    '--session-ttl',
    '10s',
    '--kill-after',
    '1s',
  ];
  const run = startRunlock(agent, [...args, '--', 'sh', '-c', script], { env });
  return {
    run,
    command: await pid('command'),
    base: `runlock/${group}`,
    tell: () => writeFileSync(`${folder}/end`, ''),
  };
}

const claimOf = async (base: string) => {
  const pair = await agent.kv.get(`${base}/.slot/0/owner`);
  return (
    pair && {
      ...(JSON.parse(pair.Value) as { node: string; run: string; state: string }),
      index: pair.ModifyIndex,
    }
  );
};
const lockOf = async (base: string) => (await agent.kv.get(`${base}/.slot/0/lock`))?.Session;

/** The run holds lock and claim again, and then ends as if nothing had happened. */
async function goesOn({ run, base, tell }: Scenario, runId: string | undefined): Promise<void> {
  await run.says(/took the lock of .* back; the run goes on/);
  await eventually(async () => expect(await lockOf(base)).toBeDefined());
  expect(await claimOf(base)).toMatchObject({ node: 'web01', state: 'running', run: runId });
  tell();
  expect((await run.ended).status).toBe(0);
  expect(await agent.kv.keys(`${base}/.slot/`)).toEqual([]);
}

describe.each(['forever', '1h', 'none'])('hold %s', (hold) => {
  test('its session destroyed: the run goes on and takes its lock back', async () => {
    const scenario = await running(hold);
    const claim = await claimOf(scenario.base);
    const session = await lockOf(scenario.base);
    await agent.http('PUT', `/v1/session/destroy/${session ?? ''}`);
    await goesOn(scenario, claim?.run);
  });

  test('its lock key deleted: the run goes on and takes its lock back', async () => {
    const scenario = await running(hold);
    const claim = await claimOf(scenario.base);
    await agent.kv.delete(`${scenario.base}/.slot/0/lock`);
    await goesOn(scenario, claim?.run);
  });

  test('its claim deleted: the run goes on and claims its slot again', async () => {
    const scenario = await running(hold);
    const claim = await claimOf(scenario.base);
    await agent.kv.delete(`${scenario.base}/.slot/0/owner`);
    await goesOn(scenario, claim?.run);
  });

  test('the whole prefix deleted: the run goes on and claims its slot again', async () => {
    const scenario = await running(hold);
    const claim = await claimOf(scenario.base);
    await agent.kv.deleteTree(`${scenario.base}/`);
    await goesOn(scenario, claim?.run);
  });

  test('its claim overwritten with another node’s: the lock is lost, the command is killed, exit 79', async () => {
    const { run, command, base } = await running(hold);
    const claim = (await agent.kv.get(`${base}/.slot/0/owner`))?.Value ?? '{}';
    const foreign = { ...(JSON.parse(claim) as object), node: 'web99', run: 'another' };
    await agent.kv.put(`${base}/.slot/0/owner`, JSON.stringify(foreign));
    expect((await run.ended).status).toBe(79);
    expect(run.stderr()).toMatch(
      /^runlock: the lock of .* was lost \(its claim names web99 .*\) and the command killed; .*\n$/,
    );
    await untilGone(command);
    expect(await claimOf(base)).toMatchObject({ node: 'web99', run: 'another' });
  });

  test('its claim overwritten with rubbish: the lock is lost, the command is killed, exit 79', async () => {
    const { run, command, base } = await running(hold);
    await agent.kv.put(`${base}/.slot/0/owner`, 'rubbish');
    expect((await run.ended).status).toBe(79);
    await untilGone(command);
    expect((await agent.kv.get(`${base}/.slot/0/owner`))?.Value).toBe('rubbish');
  });
});

test('its lock key overwritten: the session still has it, so the run goes on', async () => {
  const { run, base, tell } = await running('forever');
  const session = await lockOf(base);
  await agent.kv.put(`${base}/.slot/0/lock`, 'rubbish');
  expect(await lockOf(base)).toBe(session);
  tell();
  expect((await run.ended).status).toBe(0);
  expect(await agent.kv.keys(`${base}/.slot/`)).toEqual([]);
});

test(
  'its token revoked: the run goes on to its own end, and what stays behind is said',
  { timeout: 90_000 },
  async () => {
    const rules = 'session_prefix "" { policy = "write" } key_prefix "runlock/" { policy = "write" }';
    const secret = await agent.token(rules);
    const { run, base, command, tell } = await running('forever', { CONSUL_HTTP_TOKEN: secret });
    const self = await agent.http('GET', '/v1/acl/token/self', undefined, { token: secret });
    const { AccessorID } = self.json() as { AccessorID: string };
    await agent.http('DELETE', `/v1/acl/token/${AccessorID}`);
    await run.says(/does not know the token.*; the run goes on/, 30_000);
    expect(process.kill(command, 0)).toBe(true);
    tell();
    const { status, stderr } = await run.ended;
    expect(status).toBe(0);
    expect(stderr).toContain(`${base}/.slot/0/owner stays and keeps others out`);
    expect(await claimOf(base)).toMatchObject({ node: 'web01', state: 'running' });
  },
);

test('evicted by an operator: the command is killed first, then the slot is free, exit 79', async () => {
  const { run, command, base } = await running('forever');
  const group = base.slice('runlock/'.length);
  const released = await runlock(agent, ['release', group, '--owner', 'web01', '--force']);
  expect(released).toMatchObject({
    status: 0,
    stdout: `evicted web01 from slot 0 of ${group}; its command is gone\n`,
  });
  await untilGone(command, 100);
  expect((await run.ended).status).toBe(79);
  expect(await agent.kv.keys(`${base}/.slot/`)).toEqual([]);
});

test('hold none with the least time that is allowed: a run that nothing is wrong with is not taken for cut off', async () => {
  const args = ['--hold', 'none', '--session-ttl', '10s', '--kill-after', '51300ms'];
  const run = await runlock(agent, ['exec', '-g', 'tight', '--node', 'web01', ...args, '--', 'sleep', '15']);
  expect(run).toMatchObject({ status: 0, stderr: '' });
});

test('leftovers of a failed run that ignore TERM get all of --kill-after', { timeout: 90_000 }, async () => {
  const { folder, clean, pid } = scene();
  onTestFinished(clean);
  const leftover = `trap '' TERM; echo $$ >${folder}/leftover.pid; while :; do sleep 1; done`;
  const script = `sh -c "$1" & while ! [ -s ${folder}/leftover.pid ]; do sleep 0.05; done; exit 3`;
  const args = [
    'exec',
    '-g',
    'slow',
    '--node',
    'web01',
    '--kill-after',
    '33s',
    '--',
    'sh',
    '-c',
    script,
    'sh',
    leftover,
  ];
  const run = startRunlock(agent, args);
  const left = await pid('leftover');
  const startedAt = performance.now();
  await untilGone(left, 60_000);
  expect(performance.now() - startedAt).toBeGreaterThan(32_000);
  expect((await run.ended).status).toBe(3);
});
