// What runlock's caller ignores (nohup, trap '', & in a script) is neither caught by runlock nor reset in its command.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
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

/** web01 in the group, started by `through`. */
const on = (group: string, through: readonly string[] = []) => groupOf(agent, group, { through });

describe('a signal that the caller ignores', () => {
  test.each([
    ["trap '' INT", [SIGINT]],
    ["trap '' TERM", [SIGTERM]],
    ["trap '' USR1", [SIGUSR1]],
    ["trap '' HUP INT QUIT TERM USR1 USR2", [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2]],
    [`trap '' ${REAL_TIME} 64`, [REAL_TIME, 64]],
  ])('%s: it ends neither runlock nor the command', async (trap, numbers) => {
    const run = await on(`ignored-${numbers.join('-')}`, shell(`${trap}; exec "$@"`)).hold();
    expect(ignoredBy(statusOf(run.command)).sort()).toEqual([...numbers].sort());
    expect(ignoredBy(statusOf(run.pid)).sort()).toEqual([...numbers].sort());
    for (const number of numbers) {
      process.kill(run.pid, number);
      process.kill(run.command, number);
    }
    await run.end();
  });

  test('nohup: HUP ends neither', async () => {
    const run = await on('nohup', ['nohup']).hold();
    process.kill(run.pid, 'SIGHUP');
    process.kill(run.command, 'SIGHUP');
    await run.end();
  });

  test('& in a script: INT and QUIT end neither, and TERM still does', async () => {
    const run = await on('background', shell('"$@" & wait $!')).hold();
    const background = Number(/^PPid:\s+(\d+)/m.exec(statusOf(run.command))?.[1]);
    expect(ignoredBy(statusOf(run.command))).toEqual([SIGINT, SIGQUIT]);
    for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.kill(background, signal);
    expect(ignoredBy(statusOf(background))).toEqual([SIGINT, SIGQUIT]);
    process.kill(background, 'SIGTERM');
    expect(await run.ended).toMatchObject({ status: 143 });
    expect(isAlive(run.command)).toBe(false);
  });

  test('a waiting runlock goes on waiting', async () => {
    const holder = await on('waiting').hold();
    const waiter = on('waiting', ignoring('HUP,TERM')).start('web02', '--', 'echo', 'ran');
    await on('waiting').waiting();
    waiter.signal('SIGHUP');
    waiter.signal('SIGTERM');
    await holder.end();
    expect(await waiter.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  });

  test.each([
    ['acquire', ['acquire', 'waited', '--node', 'web02', '--wait', 'forever']],
    ['gate', ['gate', 'enter', '--service', 'web', '--wait', 'forever']],
    ['status --watch', ['status', '--watch', '--json', 'waited']],
  ])('%s does not hear it either', async (name, args) => {
    const holder = await on('waited').hold();
    await using proxy = await startProxy(agent);
    // Consul would answer that it knows no such service: gate is to wait until it is told to end.
    if (name === 'gate') proxy.rule({ match: () => true, do: { until: new Promise(() => undefined) } });
    const run = startRunlock(proxy, args, { through: ignoring('HUP,INT') });
    // Its handlers are all installed in one go.
    await eventually(() => expect(caughtBy(statusOf(run.pid))).toContain(SIGTERM));
    expect(caughtBy(statusOf(run.pid))).not.toContain(SIGHUP);
    expect(ignoredBy(statusOf(run.pid)), name).toEqual([SIGHUP, SIGINT]);
    run.signal('SIGTERM');
    expect((await run.ended).status).toBe(143);
    await holder.end();
  });
});

const caughtBy = (status: string) =>
  ignoredIn(status.replace(/^SigIgn:.*\n/m, '').replace('SigCgt:', 'SigIgn:'));

test('an ignored CHLD: the end of the command is seen at once, and nothing spins', async () => {
  const run = await on('chld', ignoring('CHLD')).hold();
  const before = ticksOf(run.pid);
  await run.end();
  expect(before).toBeLessThan(200);
});

test('what is ignored and what is blocked is the command’s to the letter', async () => {
  const through = ['env', '--ignore-signal=HUP,CHLD,USR1,36', '--block-signal=USR2,TERM'];
  const { status, stdout } = await on('letter', through).exec('web01', '--', 'cat', '/proc/self/status');
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
    const group = on(`pipe-${numbers.join('')}`, shell(`${trap}; "$@"; exit $?`));
    const { status, stdout } = await group.exec('web01', '--', 'cat', '/proc/self/status');
    expect(status).toBe(0);
    expect(ignoredIn(stdout)).toEqual(numbers);
  });

  test('a caller that ignores it for itself alone, as Node.js does: the command does not', async () => {
    const { stdout } = await on('pipe-node').exec('web01', '--', 'cat', '/proc/self/status');
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
    const args = on('environment').words('web01', '--', 'sh', '-c', script, '--', 'a=b', '', '*');
    const direct = await runlock(agent, args, { env });
    const run = startRunlock(agent, args, { env, through: IGNORING });
    const { status, stdout, stderr } = await run.ended;
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    // Each start of a test has a folder of its own for its turns.
    const own = /^RUNLOCK_(?:RUN_|FENCING_TOKEN|TURN_DIR=)|^_=/;
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
    const direct = await on('refused').exec('web01', '--', command);
    const ignoring = await on('refused', IGNORING).exec('web01', '--', command);
    expect(direct.status).toBe(status);
    expect(ignoring.status).toBe(status);
    // What could not become the command says so first.
    expect(ignoring.stderr).toMatch(new RegExp(`${direct.stderr.replace(/[.*+?^$()[\]{}|\\]/g, '\\$&')}$`));
    expect(await on('refused').claim()).toBeUndefined();
  });

  test.each([125, 126, 127])('%i of its own is its own', async (code) => {
    const run = await on(`own-${code}`, IGNORING).exec('web01', '--', 'sh', '-c', `exit ${code}`);
    expect(run).toMatchObject({
      status: code,
      stderr: expect.stringMatching(/^runlock: sh exited \d+ [^\n]*\n$/) as unknown,
    });
    expect(await on(`own-${code}`).claim()).toBeDefined();
  });

  test('a script without a first line that names an interpreter runs, as from a shell', async () => {
    const { folder } = stage();
    writeFileSync(`${folder}/script`, 'exit 4\n', { mode: 0o755 });
    expect(await on('script', IGNORING).exec('web01', '--', `${folder}/script`)).toMatchObject({
      status: 4,
    });
  });

  test.each(['true', 'env', 'sh'])('%s runs', async (command) => {
    const { status } = await on(`runs-${command}`, IGNORING).exec('web01', '--', command);
    expect(status).toBe(0);
  });
});
