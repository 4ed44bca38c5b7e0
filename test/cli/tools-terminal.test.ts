// ansible-playbook under the lock in a terminal: its colours, its prompts, and Ctrl-C.
import { expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { startInTerminal } from '../support/terminal.ts';
import { playbook, toolbox, treeOf } from '../support/tools.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const words = (group: string) => on(group).words('web01', '--');

test("in a terminal ansible's own colours arrive", async () => {
  const { env, write, ansiblePlaybook } = toolbox();
  const play = write('site.yml', playbook([{ command: 'true' }]));
  const run = startInTerminal(agent, [...words('colours'), ...(await ansiblePlaybook(play))], { env });
  expect(await run.ended).toBe(0);
  expect(run.screen()).toContain('\x1b[0;33mchanged: [localhost]\x1b[0m');
});

test("a play's prompt is answered, and the answer arrives in the play", async () => {
  const { env, write, ansiblePlaybook } = toolbox();
  const prompts = { vars_prompt: [{ name: 'release', prompt: 'Which release', private: false }] };
  const play = write('site.yml', playbook([{ debug: { msg: 'rolling out {{ release }}' } }], prompts));
  const run = startInTerminal(agent, [...words('prompt'), ...(await ansiblePlaybook(play))], { env });
  await run.shows(/Which release: /);
  run.type('4.2 beta\n');
  expect(await run.ended).toBe(0);
  expect(run.screen()).toContain('rolling out 4.2 beta');
});

/** Asks for a password as sudo -S does, and notes it; then it runs the rest as it is. */
const sudo = (folder: string) => `#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in -p) prompt=$2; shift 2 ;; -u) shift 2 ;; -*) shift ;; *) break ;; esac
done
printf '%s' "$prompt" >&2
IFS= read -r password
printf '%s\\n' "$password" >${folder}/password
exec "$@"
`;

test('--ask-become-pass asks on the terminal, though stdin is none', async () => {
  const { env, folder, lines, write, ansiblePlaybook } = toolbox();
  const program = write('sudo', sudo(folder), 0o755);
  const play = write('site.yml', playbook([{ raw: 'echo as-root' }], { become: true }));
  const command = await ansiblePlaybook('-K', '-e', `ansible_become_exe=${program}`, play);
  const run = startInTerminal(agent, [...words('become'), ...command], {
    // Whoever runs the tests as root is asked as well.
    env: { ...env, ANSIBLE_BECOME_ALLOW_SAME_USER: 'true' },
    after: '</dev/null',
  });
  await run.shows(/BECOME password: /);
  run.type('s3cret word\n');
  expect(await run.ended).toBe(0);
  expect(lines('password')).toEqual(['s3cret word']);
  expect(run.screen()).not.toContain('s3cret');
});

test('Ctrl-C ends ansible as without runlock: 99, nothing runs on, the node keeps its slot', async () => {
  const { env, folder, pid, write, ansiblePlaybook } = toolbox();
  const long = { command: { argv: ['sh', '-c', `echo $$ >${folder}/task.pid; exec sleep 300`] } };
  const command = await ansiblePlaybook(write('site.yml', playbook([long])));
  const run = startInTerminal(agent, [...words('interrupt'), ...command], { env });
  const task = await pid('task');
  const tree = await treeOf(agent, 'interrupt');
  expect(tree).toContain(task);
  run.type('\x03');
  expect(await run.ended).toBe(99);
  expect(run.screen().match(/User interrupted execution/g)).toHaveLength(1);
  expect(tree.filter(isAlive)).toEqual([]);
  expect(await on('interrupt').claim()).toMatchObject({ state: 'interrupted', exitCode: 99 });
  expect(await on('interrupt').lastRun('web01')).toMatchObject({ outcome: 'interrupted', exitCode: 99 });
});

test('Ctrl-C reaches the command once', async () => {
  const { folder, lines, pid } = toolbox();
  const script = `
    for name in INT USR1; do trap "echo $name >>${folder}/signals; caught=1" $name; done
    echo $PPID >${folder}/runlock.pid
    while caught=; read -r line || [ -n "$caught" ]; do [ "$line" != end ] || exit 0; done`;
  const run = startInTerminal(agent, [...words('once'), 'sh', '-c', script]);
  const runlock = await pid('runlock');
  run.type('\x03');
  await eventually(() => expect(lines('signals')).not.toEqual([]));
  // Signals are decided one after the other: when this one has arrived, there is no second INT to come.
  process.kill(runlock, 'SIGUSR1');
  await eventually(() => expect(lines('signals')).toContain('USR1'));
  run.type('end\n');
  expect(await run.ended).toBe(0);
  expect(lines('signals')).toEqual(['INT', 'USR1']);
});

test('a command that dies of Ctrl-C before runlock hears of it is interrupted all the same', async () => {
  // The terminal tells both, in no order; here the command is told first.
  const script = '(sleep 0.03; kill -INT $PPID) & kill -INT $$';
  const run = startInTerminal(agent, [...words('quick'), 'sh', '-c', script]);
  expect(await run.ended).toBe(130);
  expect(await on('quick').lastRun('web01')).toMatchObject({ outcome: 'interrupted', exitCode: 130 });
  expect(await on('quick').claim()).toMatchObject({ state: 'interrupted' });
});

/** Says on the terminal that it is there, and goes on when the signal came, however soon that was. */
const surviving = (signal: string, then: string) =>
  `caught=; trap 'caught=1' ${signal}; echo rea""dy; while [ -z "$caught" ]; do sleep 0.05; done; sleep 0.5; ${then}`;

test.each([
  ['INT', '\x03'],
  ['QUIT', '\x1c'],
])('a command that survives %s and fails later has failed: the signal excuses nothing', async (name, key) => {
  const group = `survives-${name}`;
  const run = startInTerminal(agent, [...words(group), 'sh', '-c', surviving(name, 'exit 3')]);
  await run.shows(/ready/);
  run.type(key);
  expect(await run.ended).toBe(3);
  expect(await on(group).lastRun('web01')).toMatchObject({ outcome: 'failed', exitCode: 3 });
  expect(await on(group).claim()).toMatchObject({ state: 'failed', exitCode: 3 });
});

test('a command that survives Ctrl-C and ends well has ended well', async () => {
  const run = startInTerminal(agent, [...words('survives-well'), 'sh', '-c', surviving('INT', 'exit 0')]);
  await run.shows(/ready/);
  run.type('\x03');
  expect(await run.ended).toBe(0);
  expect(await on('survives-well').lastRun('web01')).toMatchObject({ outcome: 'succeeded' });
  expect(await on('survives-well').claim()).toBeUndefined();
});

test('a command that ends at once at Ctrl-C, with a code of its own, is interrupted', async () => {
  const script = `trap 'exit 3' INT; echo rea""dy; while :; do sleep 0.05; done`;
  const run = startInTerminal(agent, [...words('at-once'), 'sh', '-c', script]);
  await run.shows(/ready/);
  run.type('\x03');
  expect(await run.ended).toBe(3);
  expect(await on('at-once').lastRun('web01')).toMatchObject({ outcome: 'interrupted', exitCode: 3 });
});
