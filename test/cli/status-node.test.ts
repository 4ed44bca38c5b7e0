// `runlock status --node` and `task list --node`: one node, by what its agent and its runs have in Consul.
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { aTask, playAgent } from '../support/played-agent.ts';
import { eventually } from '../support/processes.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true });

interface Report {
  readonly v: number;
  readonly agent: { readonly state: string; readonly why?: string };
  readonly tasks?: readonly unknown[];
  readonly runs: readonly { readonly state: string; readonly command: string; readonly slots: unknown }[];
  readonly waiting: readonly { readonly group: string; readonly place?: number }[];
  readonly requests?: readonly unknown[];
  readonly triggers?: readonly unknown[];
  readonly lastRuns: readonly { readonly group: string; readonly outcome: string }[];
  readonly hidden: readonly string[];
}

const report = async (node: string, groups: readonly string[] = [], env = agent.env) => {
  const { status, stdout, stderr } = await runlock({ env }, ['status', '--json', '--node', node, ...groups]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout) as Report;
};

const withRules = async (rules: string) => ({
  env: { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(rules) },
});

test('shows what runs on a node and what waits there, with the last runs and the agent', async () => {
  const group = groupOf(agent, 'sn/web');
  await playAgent(agent, 'sn01', { tasks: [aTask({ name: 'deploy', groups: ['sn/web'] })] });
  await group.exec('sn01', '--', 'true');
  await group.hold('sn02');
  group.start('sn01', '--', 'true');
  await eventually(async () => {
    expect((await report('sn01')).waiting).toMatchObject([{ group: 'sn/web', place: 1 }]);
  });
  const seen = await report('sn01');
  expect(seen).toMatchObject({
    v: 1,
    agent: { state: 'there' },
    tasks: [{ name: 'deploy' }],
    runs: [],
    hidden: [],
  });
  expect(seen.lastRuns).toMatchObject([{ group: 'sn/web', outcome: 'succeeded' }]);
  expect(seen).toMatchObject({ requests: [], triggers: [] });
  const other = await report('sn02', ['sn/web']);
  expect(other.agent).toEqual({ state: 'absent' });
  expect(other.runs).toMatchObject([
    { state: 'running', command: 'sh', slots: [{ group: 'sn/web', slot: 0 }] },
  ]);
  expect(await report('sn02', ['sn/other'])).toMatchObject({ runs: [], lastRuns: [] });
  const { stdout } = await runlock(agent, ['status', '--node', 'sn01']);
  expect(stdout).toMatch(
    /^sn01\n {2}agent: running for \d+s, version 0\.1\.0 \(pid 4711 on sn01\.example\)\n/,
  );
  expect(stdout).toMatch(/\n {2}true has been waiting at place 1 in the queue of sn\/web for \d+s: .*sn02/);
});

describe('with a token that may not read everything', () => {
  test('says what is hidden, and takes nothing hidden for absent', async () => {
    await playAgent(agent, 'sn11');
    const group = 'key_prefix "runlock/sn/" { policy = "read" }';
    const narrow = await withRules(group);
    const seen = await report('sn11', ['sn/web'], narrow.env);
    expect(seen.agent).toMatchObject({ state: 'unknown' });
    for (const section of ['requests', 'triggers', 'tasks']) expect(seen).not.toHaveProperty(section);
    expect(seen.hidden).toEqual([
      expect.stringContaining('key "runlock/.agents/sn11" { policy = "read" }'),
      expect.stringContaining('key_prefix "runlock/.requests/" { policy = "read" }'),
      expect.stringContaining('key_prefix "runlock/.triggers/sn11/" { policy = "read" }'),
      expect.stringContaining('key "runlock/.freeze" { policy = "read" }'),
    ]);
    const agents = await withRules(`${group}\nkey_prefix "runlock/.agents/" { policy = "read" }`);
    expect((await report('sn11', ['sn/web'], agents.env)).agent).toMatchObject({ state: 'there' });
    expect((await report('sn12', ['sn/web'], agents.env)).agent).toEqual({ state: 'absent' });
    const none = await withRules('key "other" { policy = "read" }');
    const refused = await runlock(none, ['status', '--node', 'sn11']);
    expect(refused).toMatchObject({ status: 77, stdout: '' });
  });
});

test('task list --node lists what the agent says; 78 without an agent, 77 without the right', async () => {
  await playAgent(agent, 'sn21', {
    tasks: [aTask({ description: 'converge', on: ['state:a/b'] }), aTask({ name: 'x' })],
  });
  const listed = await runlock(agent, ['task', 'list', '--node', 'sn21']);
  expect(listed).toEqual({
    status: 0,
    stderr: '',
    stdout: [
      '  TASK  GROUPS    ALLOWS  RUNS ON    DESCRIPTION',
      '  chef  prod/web  ops     state:a/b  converge',
      '  x     prod/web  ops',
      '',
    ].join('\n'),
  });
  const json = await runlock(agent, ['task', 'list', '--node', 'sn21', '--json']);
  expect(JSON.parse(json.stdout)).toMatchObject({
    v: 1,
    node: 'sn21',
    tasks: [{ name: 'chef' }, { name: 'x' }],
  });
  const absent = await runlock(agent, ['task', 'list', '--node', 'sn22']);
  expect(absent).toMatchObject({ status: 78, stdout: '' });
  expect(absent.stderr).toContain(
    "no runlock agent is running on sn22, so its tasks are not known; see 'runlock status --node sn22'",
  );
  const refused = await runlock(await withRules('key "x" { policy = "read" }'), [
    'task',
    'list',
    '--node',
    'sn22',
  ]);
  expect(refused.status).toBe(77);
  expect(refused.stderr).toContain('key_prefix "runlock/.agents/" { policy = "read" }');
});

test("files that the agent can't use are named in status, in its tasks, to who asks for them", async () => {
  await playAgent(agent, 'sn23', {
    ...{ tasks: [], moreFaults: 3 },
    faults: [{ file: 'chef.toml', why: 'line 3: not TOML' }],
  });
  const listed = await runlock(agent, ['task', 'list', '--node', 'sn23']);
  expect(listed).toMatchObject({
    status: 78,
    stdout: 'sn23 has no tasks\nskipped chef.toml: line 3: not TOML\nskipped 3 more files\n',
  });
  const shown = await runlock(agent, ['status', '--node', 'sn23']);
  expect(shown.stdout).toContain(
    '\n  agent: skips chef.toml: line 3: not TOML\n  agent: skips 3 more files\n',
  );
  const json = JSON.parse((await runlock(agent, ['status', '--node', 'sn23', '--json'])).stdout) as object;
  expect(json).toMatchObject({ agent: { faults: [{ file: 'chef.toml' }], moreFaults: 3 } });
  const asked = await runlock(agent, ['job', 'start', 'chef', '--node', 'sn23']);
  expect(asked).toMatchObject({ status: 78, stdout: '' });
  expect(asked.stderr).toContain("sn23: it can't use its task chef: chef.toml: line 3: not TOML");
});

test.each([
  [['status', '--node', 'x', '--watch'], '--node and --watch exclude each other'],
  [['status', '--node', 'x', '--check'], 'UNKNOWN'],
  [['status', '--node', '../x'], '--node ../x: not a node name'],
  [['task', 'show', 'x', '--node', 'y'], "--node is for 'task list' only"],
  [['task', 'list', '--prefix', 'y'], '--prefix needs --node'],
])('%j is refused', async (words, said) => {
  const { status, stdout, stderr } = await runlock(agent, words);
  expect([64, 3]).toContain(status);
  expect(stdout + stderr).toContain(said);
});
