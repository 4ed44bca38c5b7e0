// `runlock agent`, the process: it is there once for each node, says what it is and has, and ends without a trace.
import { chmodSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { noteStart } from '../../src/jobs/ledger.ts';
import { eventually } from '../support/processes.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { useAgent } from '../support/use-agent.ts';

const consul = useAgent({ name: 'node1' });
const TASK =
  'command = ["/bin/echo", "{word}"]\nparams.word = { match = "[a-z]+" }\ngroup = "prod/web,prod/db"\n';

async function sessions() {
  return (await consul.http('GET', '/v1/session/list')).json() as { ID: string; Name: string }[];
}

describe('an agent', () => {
  test('shows itself and its tasks, serves until SIGTERM, and leaves nothing in Consul', async () => {
    const on = agentOn(consul, 'ag-one', { tasks: { 'chef.toml': TASK } });
    const running = on.start();
    await running.says(/the agent of ag-one is ready \(task chef\)/);
    expect(await on.shown()).toMatchObject({
      node: 'ag-one',
      pid: running.pid,
      tasks: [{ name: 'chef', groups: ['prod/db', 'prod/web'], params: ['word'] }],
    });
    expect(JSON.stringify(await on.shown())).not.toContain('/bin/echo');
    running.signal('SIGTERM');
    expect(await running.ended).toMatchObject({ status: 0, stdout: '' });
    expect(running.stderr()).toContain('the agent stops after SIGTERM; active runs continue');
    expect(await consul.kv.get(on.key)).toBeUndefined();
    expect((await sessions()).filter(({ Name }) => Name === 'runlock agent')).toEqual([]);
  });

  test('removes what is noted of started jobs that are gone and long over', async () => {
    const on = agentOn(consul, 'ag-old');
    const begun = { nonce: 'n', node: 'ag-old', run: 'r', bootId: 'before' };
    const ended = { ...begun, startedAt: '2026-01-01T00:00:00.000Z' };
    const noted = (id: string) => noteStart(on.state, { principal: 'ops', id }, ended);
    for (const id of ['kept', 'over']) noted(id);
    await consul.kv.put('runlock/.requests/ops/spec/kept', '{}');
    on.start();
    await eventually(() => expect(readdirSync(join(on.state, 'jobs/ops'))).toEqual(['kept']));
  });

  test('is refused in the folder of another node’s agent, while that runs and later', async () => {
    const on = agentOn(consul, 'ag-first');
    const first = on.start();
    await first.says(/is ready/);
    const others = async () => {
      const second = await on.run('--node', 'ag-second');
      expect(second).toMatchObject({ status: 78, stdout: '' });
      expect(second.stderr).toContain(
        `runlock: ${on.state} belongs to node ag-first, and this is node ag-second; give the agent of ag-second a folder of its own with --state-dir, or, if ag-first was renamed to ag-second, remove ${on.state}/node\n`,
      );
      expect(await consul.kv.get('runlock/.agents/ag-second')).toBeUndefined();
    };
    await others();
    expect(await on.run('status')).toMatchObject({ status: 0 });
    first.signal('SIGTERM');
    await first.ended;
    await others();
    rmSync(`${on.state}/node`);
    const renamed = on.start('--node', 'ag-second');
    await renamed.says(/the agent of ag-second is ready/);
  });

  test('has its node’s name from Consul’s agent, and ends on SIGINT too', async () => {
    const on = agentOn(consul, '');
    const running = on.start();
    await running.says(/the agent of node1 is ready \(no tasks\)/);
    running.signal('SIGINT');
    expect(await running.ended).toMatchObject({ status: 0 });
  });

  test('is alone: a second one is refused and names the first; one that was killed is replaced', async () => {
    const on = agentOn(consul, 'ag-two');
    const first = on.start();
    await first.says(/is ready/);
    const second = await on.run();
    expect(second.status).toBe(75);
    expect(second.stderr).toMatch(
      new RegExp(
        `^runlock: an agent for node ag-two is already running on \\S+ \\(pid ${first.pid}\\) since 2\\S+Z; stop that one first`,
        'm',
      ),
    );
    expect(await on.shown()).toMatchObject({ pid: first.pid });
    // Nor does it hide what the first one says.
    expect(await on.run('status')).toMatchObject({ status: 0 });
    first.signal('SIGKILL');
    await first.ended;
    const third = on.start();
    await third.says(/is ready/);
    expect(await on.shown()).toMatchObject({ pid: third.pid });
  });

  test('starts before Consul, and comes back when its key or its session is taken away', async () => {
    const on = agentOn(consul, 'ag-key');
    const running = on.start();
    await running.says(/is ready/);
    await consul.kv.delete(on.key);
    await running.says(/no longer registered in Consul: runlock\/\.agents\/ag-key was deleted/);
    await eventually(async () => expect(await on.shown()).toMatchObject({ pid: running.pid }));
    const session = (await consul.kv.get(on.key))?.Session ?? '';
    await consul.http('PUT', `/v1/session/destroy/${session}`);
    await eventually(async () => {
      const now = await consul.kv.get(on.key);
      expect(now?.Session).toBeDefined();
      expect(now?.Session).not.toBe(session);
    });
    const alone = agentOn(consul, 'ag-none', { env: { CONSUL_HTTP_ADDR: '127.0.0.1:1' } });
    const waiting = alone.start();
    await waiting.says(/the agent is not registered in Consul: Consul at .* unreachable .*; retrying/);
    expect((await alone.run('status')).stdout).toContain('not registered in Consul');
    waiting.signal('SIGTERM');
    expect(await waiting.ended).toMatchObject({ status: 0 });
  });
});

describe('the host’s files count at once:', () => {
  test('tasks that come, change and can’t be trusted; and all again after SIGHUP', async () => {
    const on = agentOn(consul, 'ag-files', { tasks: { 'chef.toml': TASK } });
    const running = on.start();
    await running.says(/is ready/);
    on.write('puppet.toml', 'command = ["/bin/true"]\n');
    await eventually(async () =>
      expect((await on.shown())?.tasks.map(({ name }) => name)).toEqual(['chef', 'puppet']),
    );
    chmodSync(`${on.tasks}/chef.toml`, 0o666);
    await running.says(/\(task puppet\); skipped .*chef.toml: its group or other users can write it/);
    expect((await on.run('status')).stdout).toMatch(/^tasks: puppet\nskipped .*chef\.toml/m);
    running.signal('SIGHUP');
    running.signal('SIGTERM');
    expect(await running.ended).toMatchObject({ status: 0 });
  });

  test('a pause is shown, survives the agent, and ends with resume', async () => {
    const on = agentOn(consul, 'ag-pause');
    expect(await on.run('status')).toMatchObject({
      status: 1,
      stdout: `no agent has run here (nothing in ${on.state})\n`,
    });
    const running = on.start();
    await running.says(/is ready/);
    expect(await on.run('pause', '--reason', 'disk full')).toMatchObject({ status: 0 });
    await running.says(/paused by \S+: disk full; it starts nothing/);
    await eventually(async () => expect((await on.shown())?.pausedSince).toBeDefined());
    const shown = await on.run('status', '--json');
    expect(shown.status).toBe(0);
    expect(JSON.parse(shown.stdout)).toMatchObject({
      ...{ v: 1, running: true, registered: true, node: 'ag-pause', pid: running.pid },
      paused: { reason: 'disk full' },
    });
    running.signal('SIGTERM');
    await running.ended;
    const stopped = await on.run('status');
    expect(stopped.status).toBe(1);
    expect(stopped.stdout).toMatch(
      /^not running; .*\npaused by .*disk full; to end it: runlock agent resume\n$/,
    );
    const again = on.start();
    await again.says(/paused by/);
    expect(await on.run('resume')).toMatchObject({ status: 0, stdout: 'resumed\n' });
    await again.says(/the agent is resumed/);
    await eventually(async () => expect((await on.shown())?.pausedSince).toBeUndefined());
    expect(await on.run('resume')).toMatchObject({ stdout: 'it was not paused\n' });
  });

  test('a pause that can’t be read pauses; a reset is left for the agent', async () => {
    const on = agentOn(consul, 'ag-odd');
    writeFileSync(`${on.state}/paused`, 'rubbish');
    expect((await on.run('status')).stdout).toMatch(/paused by unknown/);
    expect(await on.run('reset', 'chef')).toMatchObject({ status: 0 });
    expect(readFileSync(`${on.state}/reset/chef`, 'utf8')).toBe('');
  });
});

test.each([
  [['reset'], /agent reset takes the name of a task/],
  [['reset', 'A b'], /'A b' is not a task's name/],
  [['pause', 'chef'], /agent pause takes no task/],
  [['resume', '--reason', 'x'], /--reason is for 'agent pause' only/],
  [['--json'], /--json is for 'agent status' only/],
  [['--requests', 'all'], /write 'served' or 'trust-everybody'/],
])('wrong usage: agent %j', async (words, said) => {
  const result = await agentOn(consul, 'ag-usage').run(...words);
  expect(result).toMatchObject({ status: 64, stderr: expect.stringMatching(said) as string });
});
