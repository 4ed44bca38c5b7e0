// `runlock job logs`: the output of a run on a node, asked for through Consul, by exactly who may ask for the job.
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import { eventually } from '../support/processes.ts';
import { spawnRunlock } from '../support/program.ts';
import { agentOn } from '../support/runlock-agent.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true });

let rules: Record<'agent' | 'operator' | 'asker' | 'viewer', readonly string[]>;

const printed = async (...words: string[]) => {
  const { stdout } = await spawnRunlock(undefined, ['policy', ...words]).ended;
  return stdout.trimEnd().split('\n');
};

const withRules = async (lines: readonly string[]) => ({
  env: { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(lines.join('\n')) },
});

const GROUP = ['-g', 'logs/web'];
beforeAll(async () => {
  const as = ['--principal', 'ops'];
  rules = {
    agent: await printed('agent', ...GROUP, ...as),
    operator: await printed('operator', ...GROUP, ...as),
    asker: await printed('viewer', ...GROUP, ...as),
    viewer: await printed('viewer', ...GROUP),
  };
});

/** An agent with exactly the rights that are printed for it; its task runs the script. */
async function nodeWith(name: string, script: string) {
  const tasks = {
    'work.toml': `command = ["/bin/sh", "-c", ${JSON.stringify(script)}]\ngroup = "logs/web"\nallow = ["ops"]\n`,
  };
  const node = agentOn(agent, name, { tasks, through: await withRules(rules.agent) });
  const running = node.start();
  await eventually(async () => expect((await node.shown())?.tasks).toHaveLength(1));
  return { ...node, running };
}

/** Keys of readers, and of what they are answered. */
const left = async (node: string) =>
  (await agent.kv.keys('runlock/')).filter((key) => key.includes('/.logs/') && key.includes(`/${node}/`));

/** The agent hears of it, and removes the answer. */
const nothingLeft = (node: string) => eventually(async () => expect(await left(node)).toEqual([]));

const start = (node: string, id: string) =>
  runlock(agent, ['job', 'start', 'work', '--node', node, '--id', id, '--watch']);

test('the whole output, its last lines, as JSON; by who may ask for the job, and nobody else', async () => {
  await nodeWith('jl1', "seq 3; printf '\\000\\033[31mred'");
  expect((await start('jl1', 'whole')).status).toBe(0);
  const logs = async (lines: readonly string[], ...more: string[]) =>
    runlock(await withRules(lines), ['job', 'logs', 'whole', 'jl1', ...more]);
  const output = '1\n2\n3\n\0\x1b[31mred';
  for (const lines of [rules.operator, rules.asker])
    expect(await logs(lines)).toEqual({ status: 0, stdout: output, stderr: '' });
  expect(await logs(rules.asker, '--lines', '2')).toMatchObject({ stdout: '3\n\0\x1b[31mred' });
  const json = JSON.parse((await logs(rules.asker, '--json')).stdout) as unknown;
  expect(json).toEqual({ v: 1, event: 'log', job: 'ops/whole', node: 'jl1', from: 0, text: output });

  const denied = await logs(rules.viewer);
  expect(denied).toMatchObject({ status: 77, stdout: '' });
  expect(denied.stderr).toContain('key_prefix "runlock/.requests/ops/" { policy = "write" }');
  // Who may ask as the principal may read what has become of it; the right to write its jobs is not needed for that.
  const less = rules.asker.filter((rule) => !rule.includes('/.jobs/ops/'));
  expect(less).toHaveLength(rules.asker.length - 1);
  expect(await logs(less)).toEqual({ status: 0, stdout: output, stderr: '' });
  for (const missing of less.filter((rule) => /\.requests\/ops|logs\/web\/"/.test(rule)))
    expect(await logs(less.filter((rule) => rule !== missing))).toMatchObject({ status: 77, stdout: '' });
  await nothingLeft('jl1');
});

test('who follows sees what comes, through a restart of the agent, to the end of the run', async () => {
  const { folder } = stage();
  const script = `tail -f ${folder}/says & until [ -e ${folder}/end ]; do sleep 0.05; done; kill $!; echo last`;
  writeFileSync(`${folder}/says`, 'first\n');
  const node = await nodeWith('jl2', script);
  const running = startRunlock(agent, ['job', 'start', 'work', '--node', 'jl2', '--id', 'follow', '--watch']);
  await eventually(() => expect(running.stdout()).toContain('jl2: running'));
  const words = ['job', 'logs', 'follow', 'jl2', '--follow'];
  const [following, other] = [startRunlock(agent, words), startRunlock(agent, words)];
  await eventually(() => expect(following.stdout()).toBe('first\n'));
  await eventually(() => expect(other.stdout()).toBe('first\n'));
  other.signal('SIGINT');
  expect((await other.ended).status).toBe(130);
  node.running.signal('SIGKILL');
  await node.running.ended;
  appendFileSync(`${folder}/says`, 'second\n');
  node.start();
  await eventually(() => expect(following.stdout()).toBe('first\nsecond\n'));
  writeFileSync(`${folder}/end`, '');
  expect(await following.ended).toMatchObject({ status: 0, stdout: 'first\nsecond\nlast\n' });
  expect(readFileSync(`${node.logs}/ops/follow.work.log`, 'utf8')).toBe('first\nsecond\nlast\n');
  expect((await running.ended).status).toBe(0);
  await nothingLeft('jl2');
});

test('a terminal gets nothing that it would obey, unless it is asked for', async () => {
  await nodeWith('jl3', "printf 'a\\033]0;title\\007\\033[31mred\\033[0m\\n'");
  expect((await start('jl3', 'harm')).status).toBe(0);
  const shown = startInTerminal(agent, ['job', 'logs', 'harm', 'jl3']);
  await shown.ended;
  expect(shown.screen()).toContain('a\\x1b]0;title\\x07red');
  const raw = startInTerminal(agent, ['job', 'logs', 'harm', 'jl3', '--raw']);
  await raw.ended;
  expect(raw.screen()).toContain('a\x1b]0;title\x07\x1b[31mred\x1b[0m');
});

test('what has no log says why', async () => {
  const node = await nodeWith('jl4', 'true');
  expect((await start('jl4', 'silent')).status).toBe(0);
  const logs = (...words: string[]) => runlock(agent, ['job', 'logs', ...words]);
  expect(await logs('silent', 'jl4')).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(await logs('nothing', 'jl4')).toMatchObject({ status: 78 });
  const other = await logs('silent', 'jl9');
  expect(other).toMatchObject({ status: 78 });
  expect(other.stderr).toContain('job ops/silent is not for node jl9');
  node.write('work.toml', readFileSync(`${node.tasks}/work.toml`, 'utf8') + 'tail = false\n');
  await eventually(async () => {
    const refused = await logs('silent', 'jl4');
    expect(refused).toMatchObject({ status: 75, stdout: '' });
    expect(refused.stderr).toContain('jl4: the file of task work has tail = false');
  });
  node.running.signal('SIGTERM');
  await node.running.ended;
  const alone = await logs('silent', 'jl4', '--wait', '1s');
  expect(alone).toMatchObject({ status: 75, stdout: '' });
  expect(alone.stderr).toContain('the agent of jl4 has not answered for 1s');
  await nothingLeft('jl4');
});

test.each([
  [['logs'], 'job logs takes a job'],
  [['logs', 'a'], 'job logs takes a job and a node'],
  [['logs', 'a', '../b'], 'job logs JOB ../b: not a node name'],
  [['logs', 'a', 'b', '--raw', '--json'], '--raw and --json exclude each other'],
  [['show', 'a', 'b'], "job show takes one name, not 'b' as well"],
  [['watch', 'a', '--follow'], "--follow is for 'job logs' only"],
])('wrong usage is refused: %j', async (words, message) => {
  const { status, stderr } = await runlock(undefined, ['job', ...words]);
  expect(status).toBe(64);
  expect(stderr).toContain(message);
});
