// What runlock's caller ignores (nohup, trap '', & in a script) is neither caught by runlock nor reset in its command.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { ignoredIn } from '../../src/platform/signals.ts';

const agent = useAgent();

const { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD, SIGPIPE, SIGXFSZ } = constants.signals;
const REAL_TIME = 36;

/** Numbers of the signals that are ignored there. Those that either runtime ignores for itself say nothing. */
const ignoredBy = (status: string) => ignoredIn(status).filter((n) => n !== SIGPIPE && n !== SIGXFSZ);
const statusOf = (pid: number) => readFileSync(`/proc/${pid}/status`, 'utf8');

const shell = (script: string) => ['sh', '-c', script, 'sh'];
const ignoring = (names: string) => ['env', `--ignore-signal=${names}`];

const on = (group: string, ...command: string[]) => [
  'exec',
  '-g',
  group,
  '--node',
  'web01',
  '--',
  ...command,
];

/** Runs until `<folder>/end` is there; its pid and that of runlock are in the folder. */
const untilTold = (folder: string) => [
  'sh',
  '-c',
  `echo $PPID >${folder}/runlock.pid; echo $$ >${folder}/command.pid; until [ -e ${folder}/end ]; do sleep 0.02; done; exit 3`,
];

describe('a signal that the caller ignores', () => {
  test.each([
    ["trap '' INT", [SIGINT]],
    ["trap '' TERM", [SIGTERM]],
    ["trap '' USR1", [SIGUSR1]],
    ["trap '' HUP INT QUIT TERM USR1 USR2", [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2]],
    [`trap '' ${REAL_TIME} 64`, [REAL_TIME, 64]],
  ])('%s: it ends neither runlock nor the command', async (trap, numbers) => {
    const { folder, pid } = stage();
    const run = startRunlock(agent, on(`ignored-${numbers.join('-')}`, ...untilTold(folder)), {
      through: shell(`${trap}; exec "$@"`),
    });
    const command = await pid('command');
    expect(ignoredBy(statusOf(command)).sort()).toEqual([...numbers].sort());
    expect(ignoredBy(statusOf(run.pid)).sort()).toEqual([...numbers].sort());
    for (const number of numbers) {
      process.kill(run.pid, number);
      process.kill(command, number);
    }
    writeFileSync(`${folder}/end`, '');
    expect((await run.ended).status).toBe(3);
  });

  test('nohup: HUP ends neither', async () => {
    const { folder, pid } = stage();
    const run = startRunlock(agent, on('nohup', ...untilTold(folder)), { through: ['nohup'] });
    const command = await pid('command');
    process.kill(run.pid, 'SIGHUP');
    process.kill(command, 'SIGHUP');
    writeFileSync(`${folder}/end`, '');
    expect(await run.ended).toMatchObject({ status: 3 });
  });

  test('& in a script: INT and QUIT end neither, and TERM still does', async () => {
    const { folder, pid } = stage();
    const run = startRunlock(agent, on('background', ...untilTold(folder)), {
      through: shell('"$@" & wait $!'),
    });
    const [background, command] = await Promise.all([pid('runlock'), pid('command')]);
    expect(ignoredBy(statusOf(command))).toEqual([SIGINT, SIGQUIT]);
    for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.kill(background, signal);
    expect(ignoredBy(statusOf(background))).toEqual([SIGINT, SIGQUIT]);
    process.kill(background, 'SIGTERM');
    expect(await run.ended).toMatchObject({ status: 143 });
    expect(isAlive(command)).toBe(false);
  });

  test('a waiting runlock goes on waiting', async () => {
    const { folder, pid, lines } = stage();
    const holder = startRunlock(agent, on('waiting', ...untilTold(folder)));
    await pid('command');
    const args = ['exec', '-g', 'waiting', '--node', 'web02', '--', 'sh', '-c', `echo >>${folder}/started`];
    const waiter = startRunlock(agent, args, { through: ignoring('HUP,TERM') });
    await eventually(async () => expect(await agent.kv.keys('runlock/waiting/.queue/')).toHaveLength(1));
    waiter.signal('SIGHUP');
    waiter.signal('SIGTERM');
    writeFileSync(`${folder}/end`, '');
    expect((await holder.ended).status).toBe(3);
    expect(await runlock(agent, ['release', '-g', 'waiting', '--node', 'web01', '--force'])).toMatchObject({
      status: 0,
    });
    expect(await waiter.ended).toMatchObject({ status: 0 });
    expect(lines('started')).toHaveLength(1);
  });

  test.each([
    ['acquire', ['acquire', 'waited', '--node', 'web02', '--wait', 'forever']],
    ['gate', ['gate', 'enter', '--service', 'web', '--wait', 'forever']],
    ['status --watch', ['status', '--watch', '--json', 'waited']],
  ])('%s does not hear it either', async (name, args) => {
    const { folder, pid } = stage();
    const holder = startRunlock(agent, on('waited', ...untilTold(folder)));
    await pid('command');
    const run = startRunlock(agent, args, { through: ignoring('HUP,INT') });
    // Its handlers are all installed in one go.
    await eventually(() => expect(caughtBy(statusOf(run.pid))).toContain(SIGTERM));
    expect(caughtBy(statusOf(run.pid))).not.toContain(SIGHUP);
    expect(ignoredBy(statusOf(run.pid)), name).toEqual([SIGHUP, SIGINT]);
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(143);
    writeFileSync(`${folder}/end`, '');
    await holder.ended;
    await runlock(agent, ['release', '-g', 'waited', '--node', 'web01', '--force']);
  });
});

const caughtBy = (status: string) =>
  ignoredIn(status.replace(/^SigIgn:.*\n/m, '').replace('SigCgt:', 'SigIgn:'));

test('an ignored CHLD: the end of the command is seen at once, and nothing spins', async () => {
  const { folder, pid } = stage();
  const run = startRunlock(agent, on('chld', ...untilTold(folder)), { through: ignoring('CHLD') });
  await pid('command');
  const before = ticksOf(run.pid);
  writeFileSync(`${folder}/end`, '');
  expect((await run.ended).status).toBe(3);
  expect(before).toBeLessThan(200);
});

test('what is ignored and what is blocked is the command’s to the letter', async () => {
  const through = ['env', '--ignore-signal=HUP,CHLD,USR1,36', '--block-signal=USR2,TERM'];
  const { status, stdout } = await runlock(agent, on('letter', 'cat', '/proc/self/status'), { through });
  expect(status).toBe(0);
  expect(ignoredBy(stdout)).toEqual([SIGHUP, SIGUSR1, SIGCHLD, REAL_TIME]);
  expect(/^SigBlk:\s+(\w+)$/m.exec(stdout)?.[1]).toBe('0000000000004800');
});

describe('PIPE, which runlock itself ignores in any case', () => {
  test.each([
    ["trap '' PIPE", [SIGPIPE]],
    ["trap '' XFSZ", [SIGXFSZ]],
    [':', []],
  ])('%s in the shell that calls it: the command has it so', async (trap, numbers) => {
    const args = on(`pipe-${numbers.join('')}`, 'cat', '/proc/self/status');
    const { status, stdout } = await runlock(agent, args, { through: shell(`${trap}; "$@"; exit $?`) });
    expect(status).toBe(0);
    expect(ignoredIn(stdout)).toEqual(numbers);
  });

  test('a caller that ignores it for itself alone, as Node.js does: the command does not', async () => {
    const { stdout } = await runlock(agent, on('pipe-node', 'cat', '/proc/self/status'));
    expect(ignoredIn(statusOf(process.pid))).toContain(SIGPIPE);
    expect(ignoredIn(stdout)).toEqual([]);
  });
});

/** CPU time so far, in hundredths of a second. */
function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/.*\) /s, '').split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

describe('the command, started so that it ignores them', () => {
  const IGNORING = ignoring('HUP');

  test('has its environment byte for byte, its argv[0] and its parent', async () => {
    const { folder, lines } = stage();
    const env = {
      'A.B': 'dot',
      'BASH_FUNC_f%%': '() { :; }',
      '1X': 'one',
      IFS: 'x',
      OPTIND: '7',
      PWD: '/no',
      É: 'ü\n',
    };
    const script = `tr '\\0' '\\n' </proc/$$/cmdline >${folder}/cmdline; echo $PPID >${folder}/parent; cat /proc/$$/environ`;
    const args = on('environment', 'sh', '-c', script, '--', 'a=b', '', '*');
    const direct = await runlock(agent, args, { env });
    const run = startRunlock(agent, args, { env, through: IGNORING });
    const { status, stdout, stderr } = await run.ended;
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const own = /^RUNLOCK_(?:RUN_|FENCING_TOKEN)|^_=/;
    const entries = (text: string) => text.split('\0').filter((entry) => !own.test(entry));
    expect(entries(stdout)).toEqual(entries(direct.stdout));
    expect(entries(stdout)).toContain('A.B=dot');
    expect(lines('cmdline')).toEqual(['sh', '-c', script, '--', 'a=b', '', '*']);
    expect(lines('parent')).toEqual([String(run.pid)]);
  });

  const cases: readonly [
    string,
    (write: (name: string, text: string, mode?: number) => string) => string,
    number,
  ][] = [
    ['there is none', () => '/no/such/program', 127],
    ['there is none in PATH', () => 'no-such-program', 127],
    ['it is not executable', (write) => write('plain', 'text', 0o644), 126],
    ['it is a folder', () => '/tmp', 126],
    ['its interpreter is missing', (write) => write('odd', '#!/no/such/interpreter\n'), 126],
  ];
  test.each(cases)('says why it can not be started as without that: %s', async (_why, make, status) => {
    const { folder } = stage();
    const write = (name: string, text: string, mode = 0o755) => {
      writeFileSync(`${folder}/${name}`, text);
      chmodSync(`${folder}/${name}`, mode);
      return `${folder}/${name}`;
    };
    const command = make(write);
    const direct = await runlock(agent, on('refused', command));
    const ignoring = await runlock(agent, on('refused', command), { through: IGNORING });
    expect(direct.status).toBe(status);
    expect(ignoring.status).toBe(status);
    // What could not become the command says so first.
    expect(ignoring.stderr).toMatch(new RegExp(`${direct.stderr.replace(/[.*+?^$()[\]{}|\\]/g, '\\$&')}$`));
    expect(await agent.kv.get('runlock/refused/.slot/0/owner')).toBeUndefined();
  });

  test.each([125, 126, 127])('%i of its own is its own', async (code) => {
    const run = await runlock(agent, on(`own-${code}`, 'sh', '-c', `exit ${code}`), { through: IGNORING });
    expect(run).toMatchObject({
      status: code,
      stderr: expect.stringMatching(/^runlock: sh ended with \d+ [^\n]*\n$/) as unknown,
    });
    expect(await agent.kv.get(`runlock/own-${code}/.slot/0/owner`)).toBeDefined();
  });

  test('a script without a first line that names an interpreter runs, as from a shell', async () => {
    const { folder } = stage();
    writeFileSync(`${folder}/script`, 'exit 4\n', { mode: 0o755 });
    expect(await runlock(agent, on('script', `${folder}/script`), { through: IGNORING })).toMatchObject({
      status: 4,
    });
  });

  test.each(['true', 'env', 'sh'])('%s runs', async (command) => {
    const { status } = await runlock(agent, on(`runs-${command}`, command), { through: IGNORING });
    expect(status).toBe(0);
  });
});
