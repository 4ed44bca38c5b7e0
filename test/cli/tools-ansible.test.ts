// The real ansible-playbook under the lock: nothing of it is changed, nothing of it is left.
import { expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { RUNLOCK } from '../support/program.ts';
import { playbook, runPlain, toolbox, treeOf, whoLives } from '../support/tools.ts';
import type { Bytes } from '../support/tools.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const words = (group: string, node = 'web01') => ['exec', '-g', group, '--node', node];

test("ansible-playbook's 0 arrives, and its claim goes", async () => {
  const { env, write, ansiblePlaybook } = toolbox();
  const play = write('site.yml', playbook([{ command: 'true' }]));
  const run = await runlock(agent, [...words('fine'), '--', ...(await ansiblePlaybook(play))], { env });
  expect(run).toMatchObject({ status: 0, stderr: '' });
  expect(await on('fine').claim()).toBeUndefined();
  expect(await on('fine').lastRun('web01')).toMatchObject({
    outcome: 'succeeded',
    exitCode: 0,
    command: 'ansible-playbook',
  });
});

test("a failed host's 2 arrives, and its claim stays with that code", async () => {
  const { env, write, ansiblePlaybook } = toolbox();
  const play = write('site.yml', playbook([{ command: 'false' }]));
  const run = await runlock(agent, [...words('failed'), '--', ...(await ansiblePlaybook(play))], { env });
  expect(run.status).toBe(2);
  expect(run.stdout).toContain('failed=1');
  expect(await on('failed').claim()).toMatchObject({ state: 'failed', node: 'web01', exitCode: 2 });
  const other = await runlock(agent, [...words('failed', 'web02'), '-w', '0', '--', 'true']);
  expect(other.status).toBe(75);
});

/** What a shell, or a careless join, would take apart. */
const awkward = {
  spaces: '  two  words ',
  quotes: `it's "quoted" \\ and \`ticked\``,
  dollar: '$HOME $(id) ${x} *',
  lines: 'one\ntwo\n',
  empty: '',
  dashes: '-- --group prod',
  unicode: 'Größe 容量',
};

test('extra variables reach ansible-playbook as they were typed', async () => {
  const { env, write, ansiblePlaybook } = toolbox();
  const show = { debug: { msg: 'given={{ given | to_json | b64encode }}' } };
  const play = write('site.yml', playbook([show]));
  const command = await ansiblePlaybook(play, '-e', JSON.stringify({ given: awkward }));
  const run = await runlock(agent, [...words('vars'), '--', ...command], { env });
  expect(run.status).toBe(0);
  const [, given = ''] = /given=([\w+/=]+)/.exec(run.stdout) ?? [];
  expect(JSON.parse(Buffer.from(given, 'base64').toString())).toEqual(awkward);
});

test('a playbook from stdin runs', async () => {
  const { env, write, ansiblePlaybook } = toolbox();
  const stdin = write('site.yml', playbook([{ debug: { msg: 'read from stdin' } }]));
  const command = [RUNLOCK, ...words('stdin'), '--', ...(await ansiblePlaybook('/dev/stdin'))];
  const run = await runPlain(command, { env: { ...agent.env, ...env }, stdin });
  expect(run.status).toBe(0);
  expect(run.stdout.toString()).toContain('read from stdin');
});

test('its output is what it prints without runlock, colours and all', async () => {
  const { env, write, ansiblePlaybook } = toolbox();
  const play = write('site.yml', playbook([{ command: 'true' }, { command: 'false' }]));
  const command = await ansiblePlaybook(play);
  const options = { env: { ...agent.env, ...env, ANSIBLE_FORCE_COLOR: '1' } };
  const [plain, under] = await Promise.all([
    runPlain(command, options),
    runPlain([RUNLOCK, ...words('colours'), '-q', '--', ...command], options),
  ]);
  expect(steady(under)).toEqual(steady(plain));
  expect(under.stdout.toString()).toContain('\x1b[0;31m');
});

/** Without the times of the commands that ansible ran. */
const steady = ({ status, stdout, stderr }: Bytes) => ({
  status,
  stderr: stderr.toString(),
  stdout: stdout.toString().replaceAll(/"(delta|end|start)": "[^"]*"/g, '"$1"'),
});

test('TERM to runlock leaves no process of it behind, and the next run starts only then', async () => {
  const { env, folder, pid, write, ansiblePlaybook } = toolbox();
  const long = { command: { argv: ['sh', '-c', `echo $$ >${folder}/task.pid; exec sleep 300`] } };
  const command = await ansiblePlaybook(write('site.yml', playbook([long])));
  const run = startRunlock(agent, [...words('term'), '--release-on-signal', '--', ...command], { env });
  const task = await pid('task');
  const tree = await treeOf(agent, 'term');
  expect(tree).toContain(task);
  expect(tree.length).toBeGreaterThanOrEqual(5);
  const next = startRunlock(agent, [...words('term', 'web02'), '--', ...whoLives(tree)]);
  await eventually(async () => expect(await agent.kv.keys('runlock/term/.queue/')).toHaveLength(1));
  run.signal('SIGTERM');
  expect((await run.ended).status).toBe(143);
  expect(await next.ended).toMatchObject({ status: 0, stdout: '' });
  expect(tree.filter(isAlive)).toEqual([]);
  expect(await on('term').lastRun('web01')).toMatchObject({ outcome: 'interrupted', exitCode: 143 });
});
