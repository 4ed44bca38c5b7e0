// `runlock task`: commands that files of this node define under a name, run as `exec` would.
import { chmodSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });
const isRoot = process.getuid?.() === 0;

/** A folder of task files, by name. */
function tasks(files: Readonly<Record<string, string>>) {
  const { folder } = stage();
  const at = `${folder}/tasks.d`;
  mkdirSync(at, { mode: 0o755 });
  for (const [name, text] of Object.entries(files)) writeFileSync(`${at}/${name}`, text, { mode: 0o600 });
  const env = { RUNLOCK_TASKS_DIR: at };
  return {
    at,
    folder,
    task: (...words: string[]) => runlock(agent, ['task', ...words], { env }),
    start: (...words: string[]) => startRunlock(agent, ['task', ...words], { env }),
  };
}

const echo = (more = '') => `command = ["/bin/echo", "recipe[{recipe}]"]
params.recipe = { match = "[a-z_:]+", default = "app", description = "what to converge" }
description = "converge"
${more}`;

describe('task list and show', () => {
  test('show what the files say; a file that is no task is named, and takes no other with it', async () => {
    const { task, at } = tasks({
      'chef.toml': echo('group = "tk/list"\nslots = 2'),
      'loop.toml': 'command = ["/bin/true"]\ngroup = "tk/list"\non = "good:*@tk/list"',
      'bad.toml': 'command = ["/bin/echo"]\nslot = 3\n',
      'Upper.toml': echo(),
      'open.toml': echo(),
      'chef.toml~': 'rubbish',
      '.chef.toml': 'rubbish',
      'chef.toml.dpkg-old': 'rubbish',
    });
    chmodSync(`${at}/open.toml`, 0o666);
    expect(await task('list')).toEqual({
      status: 78,
      stderr: '',
      stdout: [
        '  TASK  GROUP    DESCRIPTION',
        '  chef  tk/list  converge',
        `skipped ${at}/Upper.toml: not a task's name; rename the file so that its name has lower-case letters, digits, '-' and '_', at most 64, and begins with a letter or a digit`,
        `skipped ${at}/bad.toml:2: unknown key 'slot'; did you mean 'slots'?`,
        `skipped ${at}/loop.toml: on: 'good:*@tk/list' is about runs of tk/list, in which this task runs itself, so each run would start the next; name another group, or a state that this task does not publish`,
        `skipped ${at}/open.toml: its group or other users can write it; run chmod go-w ${at}/open.toml`,
        '',
      ].join('\n'),
    });
    const shown = await task('show', 'chef', '--json');
    expect({ ...shown, stdout: JSON.parse(shown.stdout) as unknown }).toEqual({
      status: 0,
      stderr: '',
      stdout: {
        ...{ v: 1, name: 'chef', file: `${at}/chef.toml`, description: 'converge', env: {} },
        command: ['/bin/echo', 'recipe[{recipe}]'],
        params: [{ name: 'recipe', match: '[a-z_:]+', default: 'app', description: 'what to converge' }],
        ...{ allow: [], tail: true, options: { group: 'tk/list', slots: '2' } },
      },
    });
    expect((await task('show', 'chef')).stdout).toBe(
      [
        ...['task:        chef', `file:        ${at}/chef.toml`, 'description: converge'],
        "command:     /bin/echo 'recipe[{recipe}]'",
        "parameter:   recipe, matching [a-z_:]+, default 'app': what to converge",
        ...['option:      group = tk/list', 'option:      slots = 2', ''],
      ].join('\n'),
    );
  });

  test('a node without tasks says where they would be', async () => {
    const { task, folder, at } = tasks({});
    expect(await task('list')).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: `no tasks in ${at}; a file NAME.toml there defines one ('runlock task --help')\n`,
    });
    const missing = ['--tasks-dir', `${folder}/none`];
    expect(await task('list', ...missing)).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: `no tasks: there is no folder ${folder}/none; make it, or name another with --tasks-dir\n`,
    });
    expect(JSON.parse((await task('list', '--json', ...missing)).stdout)).toMatchObject({ missing: true });
    expect(await task('run', 'x', ...missing)).toMatchObject({
      status: 78,
      stderr: `runlock: no task x: ${folder}/none: no such folder; make it, or name another with --tasks-dir\n`,
    });
  });
});

describe('task run', () => {
  test('runs the command with its parameters under the lock that the file names', async () => {
    const group = groupOf(agent, 'tk/run');
    const { task } = tasks({ 'chef.toml': echo('group = "tk/run"') });
    expect(await task('run', 'chef', '--param', 'recipe=web::deploy')).toEqual({
      ...{ status: 0, stdout: 'recipe[web::deploy]\n', stderr: '' },
    });
    expect(await group.lastRun('node1')).toMatchObject({ outcome: 'succeeded' });
    expect((await task('run', 'chef')).stdout).toBe('recipe[app]\n');
    // Another node holds the group: the task waits as any run.
    const holder = await group.hold('web00');
    const waiting = await task('run', 'chef', '--dry-run');
    expect(waiting).toMatchObject({ status: 75, stdout: '' });
    await holder.end();
  });

  test("what the file says comes before the environment; a failure keeps the group's slot", async () => {
    const group = groupOf(agent, 'tk/fail');
    const { at } = tasks({
      'fail.toml': 'command = ["/bin/sh", "-c", "exit 7"]\ngroup = "tk/fail"\nrelease_on_signal = false',
    });
    const env = { RUNLOCK_TASKS_DIR: at, RUNLOCK_GROUP: 'tk/other', RUNLOCK_RELEASE_ON_SIGNAL: 'true' };
    expect((await runlock(agent, ['task', 'run', 'fail'], { env })).status).toBe(7);
    expect(await group.claim()).toMatchObject({ node: 'node1', state: 'failed' });
  });

  test('the command has a fresh environment, its folder, and runlock’s variables; no token', async () => {
    const { at } = tasks({
      'env.toml': 'command = ["/bin/sh", "-c", "pwd; env"]\ngroup = "tk/env"\ncwd = "/usr"\nenv.A = "b c"',
    });
    const env = { RUNLOCK_TASKS_DIR: at, CONSUL_HTTP_TOKEN: '', SECRET: 'x', RUNLOCK_WAIT: '5s' };
    const { stdout, status } = await runlock(agent, ['task', 'run', 'env'], { env });
    expect(status).toBe(0);
    const [cwd, ...lines] = stdout.trimEnd().split('\n');
    expect(cwd).toBe('/usr');
    const names = lines.map((line) => line.split('=')[0]).sort();
    expect(lines).toContain('A=b c');
    expect(lines).toContain('RUNLOCK_TASK=env');
    expect(lines).toContain('RUNLOCK_RUN_GROUP=tk/env');
    expect(names.filter((name = '') => /SECRET|TOKEN|CONSUL_HTTP|TASKS_DIR|WAIT|GROUP$/.test(name))).toEqual([
      'RUNLOCK_FENCING_TOKEN',
      'RUNLOCK_RUN_GROUP',
    ]);
  });

  test.each([
    [['recipe=$(id)'], "parameter recipe: '$(id)' is not allowed; the whole value must match [a-z_:]+"],
    [['recipe=a b'], "parameter recipe: 'a b' is not allowed"],
    [['recipe=a\n'], String.raw`parameter recipe: 'a\x0a' has control characters`],
    [['recipe=../x'], "parameter recipe: '../x' is not allowed"],
    [['recipie=a'], "task chef has no parameter 'recipie'; did you mean 'recipe'?"],
    [['recipe'], "--param 'recipe': write NAME=VALUE"],
    [['recipe=a', 'recipe=b'], '--param recipe is given twice'],
  ])('refuses %j with one line and 64, and starts nothing', async (params, said) => {
    const { task } = tasks({ 'chef.toml': echo('group = "tk/refused"') });
    const { status, stdout, stderr } = await task(
      'run',
      'chef',
      ...params.flatMap((one) => ['--param', one]),
    );
    expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
    expect(stderr).toMatch(/^runlock: [^\n]*\n$/);
    expect(stderr).toContain(said);
    expect(await groupOf(agent, 'tk/refused').keys()).toEqual([]);
  });

  test('refuses a task that is missing, wrong, or that others than root could have written', async () => {
    const { task, at, folder } = tasks({
      'chef.toml': echo(),
      'both.toml': 'command = ["/bin/true"]\nmax_offline = 1',
      'groups.toml': 'command = ["/bin/true"]\n[groups.prod]\nslots = 2',
      'user.toml': 'command = ["/bin/true"]\nuser = "nobody-here"',
      'cwd.toml': 'command = ["/bin/true"]\ncwd = "/no/such"',
      'program.toml': `command = ["${stage().folder}/../none"]`,
    });
    writeFileSync(`${folder}/tool`, '#!/bin/sh\n');
    chmodSync(`${folder}/tool`, 0o777);
    writeFileSync(`${at}/open.toml`, `command = ["${folder}/tool"]`, { mode: 0o600 });
    const said = async (name: string) => {
      const { status, stdout, stderr } = await task('run', name);
      expect({ status, stdout, lines: stderr.split('\n').length }).toEqual({
        status: 78,
        stdout: '',
        lines: 2,
      });
      return stderr;
    };
    expect(await said('chaf')).toContain(`no task chaf in ${at} (a file chaf.toml); did you mean 'chef'?`);
    expect(await said('both')).toContain(`${at}/both.toml: --max-offline`);
    expect(await said('groups')).toContain(`${at}/groups.toml:2: a task has no sections for groups`);
    expect(await said('user')).toContain('user: there is no user nobody-here on this host');
    expect(await said('cwd')).toContain('cwd: /no/such is not a folder');
    expect(await said('program')).toContain('no such file; correct its path');
    expect(await said('open')).toContain(`${folder}/tool: its group or other users can write it`);
    chmodSync(at, 0o777);
    expect(await said('chef')).toContain(`${at}: its group or other users can write it`);
  });

  test('refuses a configuration file that others could have written', async () => {
    const { task, folder } = tasks({ 'chef.toml': echo() });
    const config = `${folder}/config.toml`;
    writeFileSync(config, 'group = "tk/theirs"', { mode: 0o600 });
    expect((await task('run', 'chef', '--dry-run', '--config', config)).status).toBe(0);
    chmodSync(config, 0o620);
    expect(await task('run', 'chef', '--config', config)).toEqual({
      ...{ status: 78, stdout: '' },
      stderr: `runlock: ${config}: its group or other users can write it; run chmod go-w ${config}\n`,
    });
  });

  test('as another user: nobody but root can', async () => {
    const { task } = tasks({ 'id.toml': 'command = ["/usr/bin/id"]\nuser = "nobody"' });
    const { status, stdout, stderr } = await task('run', 'id');
    const refused = stderr.includes('only root can run a task as nobody');
    expect({ status, ran: stdout.includes('(nobody)'), refused }).toEqual(
      isRoot ? { status: 0, ran: true, refused: false } : { status: 78, ran: false, refused: true },
    );
  });
});

describe.runIf(isRoot)('task run as another user', () => {
  const as = (name: string, lines: string) =>
    tasks({ [`${name}.toml`]: `user = "nobody"\ngroup = "tk/${name}"\n${lines}` });

  test('becomes it, with its groups and its environment', async () => {
    const { task } = as(
      'id',
      'command = ["/bin/sh", "-c", "id -un; id -Gn; echo $HOME $LD_LIBRARY_PATH; exit 3"]\nok_codes = 3\nenv.LD_LIBRARY_PATH = "/of/mine"',
    );
    expect(await task('run', 'id')).toEqual({
      status: 3,
      stdout: 'nobody\nnogroup\n/nonexistent /of/mine\n',
      stderr: '',
    });
    expect(await groupOf(agent, 'tk/id').claim()).toBeUndefined();
  });

  test('gets no terminal of root, where it could type; a task of root does', async () => {
    const line =
      'command = ["/bin/sh", "-c", "if true < /dev/tty; then echo may type; else echo may not; fi"]';
    const { at } = tasks({
      'other.toml': `user = "nobody"\n${line}\ngroup = "tk/other"`,
      'own.toml': `${line}\ngroup = "tk/own"`,
    });
    const shown = async (name: string) => {
      const run = startInTerminal(agent, ['task', 'run', name], { env: { RUNLOCK_TASKS_DIR: at } });
      expect(await run.ended).toBe(0);
      return run.screen();
    };
    expect(await shown('own')).toContain('may type');
    expect(await shown('other')).toContain('may not');
  });

  test('asks no program of the caller who that is', async () => {
    const { at } = as('who', 'command = ["/usr/bin/id", "-u"]');
    const { folder } = stage();
    writeFileSync(`${folder}/getent`, '#!/bin/sh\necho nobody:x:0:0::/:/bin/sh\n', { mode: 0o755 });
    const env = { RUNLOCK_TASKS_DIR: at, PATH: `${folder}:${process.env['PATH'] ?? ''}` };
    expect(await runlock(agent, ['task', 'run', 'who'], { env })).toMatchObject({
      status: 0,
      stdout: '65534\n',
    });
  });

  test.each(['puppet', 'tool'])('starts and publishes nothing where it may not read %s', async (name) => {
    const { folder } = stage();
    mkdirSync(`${folder}/closed`, { mode: 0o700 });
    writeFileSync(`${folder}/closed/${name}`, '#!/bin/sh\ntrue\n', { mode: 0o755 });
    const { task } = as(
      'closed',
      `command = ["${folder}/closed/${name}", "agent", "--test"]\npublish = ["tk/done=1"]`,
    );
    const { status, stdout, stderr } = await task('run', 'closed');
    expect({ status, stdout }).toEqual({ status: 126, stdout: '' });
    expect(stderr).toContain(`as user nobody: that user may not read and execute it`);
    expect((await runlock(agent, ['state', 'get', 'tk/done'])).status).toBe(1);
    expect(await groupOf(agent, 'tk/closed').keys()).toEqual([]);
  });

  test('runs the program whose path has a =, also with variables of the loader', async () => {
    const { folder } = stage();
    chmodSync(folder, 0o755);
    mkdirSync(`${folder}/v=1`, { mode: 0o755 });
    writeFileSync(`${folder}/v=1/run`, '#!/bin/sh\necho "ran $1 $LD_LIBRARY_PATH"\n', { mode: 0o755 });
    const { task } = as('equals', `command = ["${folder}/v=1/run", "x=y"]\nenv.LD_LIBRARY_PATH = "/mine"`);
    expect(await task('run', 'equals')).toEqual({ status: 0, stdout: 'ran x=y /mine\n', stderr: '' });
  });

  test('starts nothing whose script it may not read, or whose interpreter it may not reach', async () => {
    const { folder } = stage();
    chmodSync(folder, 0o755);
    mkdirSync(`${folder}/closed`, { mode: 0o700 });
    const put = (name: string, mode: number, text: string) => {
      writeFileSync(`${folder}/${name}`, text);
      chmodSync(`${folder}/${name}`, mode);
    };
    put('secret', 0o711, '#!/bin/sh\ntrue\n');
    put('closed/sh', 0o755, '#!/bin/sh\n');
    put('far', 0o755, `#!${folder}/closed/sh\n`);
    const { task } = tasks({
      'secret.toml': `user = "nobody"\ngroup = "tk/unread"\ncommand = ["${folder}/secret"]`,
      'far.toml': `user = "nobody"\ngroup = "tk/unread"\ncommand = ["${folder}/far"]`,
    });
    for (const [name, what] of [
      ['secret', `${folder}/secret`],
      ['far', `${folder}/closed/sh (for ${folder}/far)`],
    ] as const) {
      const { status, stdout, stderr } = await task('run', name);
      expect({ status, stdout }).toEqual({ status: 126, stdout: '' });
      expect(stderr).toContain(`cannot run ${what} as user nobody: that user may not read and execute it`);
    }
    expect(await groupOf(agent, 'tk/unread').keys()).toEqual([]);
  });

  test('says which folder it may not enter', async () => {
    const { folder } = stage();
    mkdirSync(`${folder}/closed`, { mode: 0o700 });
    const { task } = as('cwd', `command = ["/bin/true"]\ncwd = "${folder}/closed"`);
    const { status, stderr } = await task('run', 'cwd');
    expect(status).toBe(78);
    expect(stderr).toContain(`cwd: user nobody may not enter ${folder}/closed`);
  });
});

test('a folder that is gone when the task gets its turn is named', async () => {
  const { folder } = stage();
  mkdirSync(`${folder}/work`);
  const { start } = tasks({
    'late.toml': `command = ["/bin/true"]\ngroup = "tk/late"\ncwd = "${folder}/work"\nwhen = "state:tk/late=1"`,
  });
  const run = start('run', 'late', '-v');
  await run.says(/waiting until --when is met/);
  rmdirSync(`${folder}/work`);
  expect((await runlock(agent, ['state', 'set', 'tk/late', '1'])).status).toBe(0);
  const { status, stderr } = await run.ended;
  expect(status).toBe(126);
  expect(stderr).toContain(`cannot start in ${folder}/work: the folder is gone; make it again`);
});

test.each([
  [['task'], "missing <action>; see 'runlock task --help'"],
  [['task', 'start', 'x'], "unknown action 'start'; use list, show, run"],
  [['task', 'list', 'chef'], "task list takes no name; see 'runlock task show chef'"],
  [['task', 'run'], "task run takes the name of a task; 'runlock task list' lists them"],
  [['task', 'run', '../x'], "'../x' is not a task's name"],
  [['task', 'list', '--param', 'a=b'], "--param is for 'task run' only"],
  [['task', 'show', 'x', '--dry-run'], "--dry-run is for 'task run' only"],
  [['task', 'run', 'x', '--json'], "--json is for 'task list' and 'task show' only"],
])('%j is wrong usage', async (words, said) => {
  const { status, stdout, stderr } = await runlock(agent, words);
  expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
  expect(stderr).toContain(said);
});
