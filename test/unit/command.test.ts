import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { startCommand } from '../../src/process/command.ts';
import { findCommand } from '../../src/process/program.ts';
import { isRunlockError } from '../../src/errors.ts';
import { realClock } from '../support/drivers/clock.ts';
import { bundle, end, eventually, isAlive, scene, untilGone } from '../support/processes.ts';
import type { Scene } from '../support/processes.ts';

let here: Scene;
beforeEach(() => {
  here = scene();
});
afterEach(() => here.clean());

/** Runs a script under supervision. `$1` is the folder; `$@` from `$2` on are `args`. */
function run(script: string, ...args: string[]) {
  return startCommand({
    command: 'sh',
    file: '/bin/sh',
    args: ['-c', script, 'sh', here.folder, ...args],
    env: { PATH: process.env['PATH'] },
    nonce: here.nonce,
    shareTerminal: false,
    clock: realClock,
  });
}

/** Writes an executable file into the scene. */
function program(name: string, text: string, mode = 0o755): string {
  const file = join(here.folder, name);
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

function start(file: string, args: string[] = []) {
  const env = { PATH: process.env['PATH'] };
  return startCommand({
    command: file,
    file,
    args,
    env,
    nonce: here.nonce,
    shareTerminal: false,
    clock: realClock,
  });
}

function codeOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return isRunlockError(error) ? error.code : error;
  }
  return 'nothing thrown';
}

describe('finding the command', () => {
  test('a bare name is looked up in PATH, in order', () => {
    mkdirSync(join(here.folder, 'a'));
    mkdirSync(join(here.folder, 'b'));
    program('a/tool', '', 0o644);
    const file = program('b/tool', '');
    const path = ['/nowhere', join(here.folder, 'a'), join(here.folder, 'b')].join(':');
    expect(findCommand('tool', { path })).toBe(file);
  });

  test('a name with a slash is taken as it stands', () => {
    expect(findCommand('/bin/../bin/sh', { path: '' })).toBe('/bin/../bin/sh');
  });

  test('what is nowhere is not found; the message says where it was looked for, not all of PATH', () => {
    expect(codeOf(() => findCommand('no-such-tool', { path: '/bin:/usr/bin' }))).toBe('not-found');
    expect(() => findCommand('no-such-tool', { path: '/bin:/usr/bin' })).toThrow(
      /^cannot run no-such-tool: not found in PATH; name it by its full path or extend PATH$/,
    );
    expect(() => findCommand('no-such-tool', { path: undefined })).toThrow(
      /: not found in \/bin and \/usr\/bin, since PATH is not set; name it/,
    );
    expect(() => findCommand('/no/such/tool', { path: '/bin' })).toThrow(/: no such file; correct its path$/);
    expect(codeOf(() => findCommand('/no/such/tool', { path: '/bin' }))).toBe('not-found');
    expect(codeOf(() => findCommand('', { path: '/bin' }))).toBe('not-found');
  });

  test('a command line in one word is not found, and the message says how to give it', () => {
    for (const line of ['ls -la', 'no-such-tool --now', 'a\tb', '/bin/ls -la']) {
      expect(codeOf(() => findCommand(line, { path: '/bin' }))).toBe('not-found');
      expect(() => findCommand(line, { path: '/bin' })).toThrow(
        /; give program and arguments as separate words, or run the line with sh -c '…'$/,
      );
    }
    const file = program('a name with spaces', '');
    expect(findCommand(file, { path: '' })).toBe(file);
    expect(findCommand('a name with spaces', { path: here.folder })).toBe(file);
  });

  test('a folder and a file without the x permission are not executable', () => {
    const file = program('plain', 'text', 0o644);
    expect(codeOf(() => findCommand(file, { path: '' }))).toBe('not-executable');
    expect(codeOf(() => findCommand('plain', { path: here.folder }))).toBe('not-executable');
    expect(codeOf(() => findCommand(here.folder, { path: '' }))).toBe('not-executable');
  });
});

describe('starting the command', () => {
  test('a missing interpreter is seen when it starts', async () => {
    const file = program('odd', '#!/no/such/interpreter\n');
    await expect(start(file)).rejects.toMatchObject({ code: 'not-executable', message: /interpreter/ });
  });

  test('too long arguments are seen when it starts', async () => {
    const argument = 'x'.repeat(200_000);
    await expect(start('/bin/true', [argument])).rejects.toMatchObject({
      code: 'not-executable',
      message: /too long/,
    });
  });

  test('a file that is gone since it was found is not found', async () => {
    await expect(start(join(here.folder, 'gone'))).rejects.toMatchObject({ code: 'not-found' });
  });

  test('a script without a first line that names an interpreter runs, as from a shell', async () => {
    const command = await start(program('script', 'exit 3\n'));
    expect(await command.ended).toEqual({ kind: 'exited', code: 3 });
  });

  test('arguments reach it untouched', async () => {
    const args = ['a b', '"q\'', '$HOME', '*', '', 'back\\slash', 'new\nline', '--', 'é'];
    const command = await run('out=$1/args; shift; printf "%s\\0" "$@" >"$out"; echo >>"$out"', ...args);
    await command.ended;
    expect(here.lines('args').join('\n')).toBe(`${args.join('\0')}\0`);
  });

  test('its environment is the given one and the mark of the run', async () => {
    const command = await run('env >"$1/env"');
    await command.ended;
    const names = here.lines('env').map((line) => line.split('=')[0]);
    expect(names.filter((name) => !['PWD', '_', 'SHLVL'].includes(name ?? '')).sort()).toEqual([
      'PATH',
      'RUNLOCK_RUN_MARK',
    ]);
    expect(here.lines('env')).toContain(`RUNLOCK_RUN_MARK=${here.nonce}`);
  });
});

describe('how it ended', () => {
  test.each([0, 1, 35, 255])('exit code %i is told exactly', async (code) => {
    const command = await run(`exit ${code}`);
    expect(await command.ended).toEqual({ kind: 'exited', code });
  });

  test.each(['SIGTERM', 'SIGKILL', 'SIGSEGV', 'SIGUSR2'])('death by %s is told by name', async (signal) => {
    const command = await run(`ulimit -c 0; kill -${signal.slice(3)} $$`);
    expect(await command.ended).toEqual({ kind: 'signalled', signal });
  });
});

describe('killing', () => {
  test('what dies of TERM is gone long before the limit', async () => {
    const command = await run('echo $$ >"$1/child.pid"; sleep 60 & wait');
    await here.pid('child');
    let hasEnded = false;
    void command.ended.then(() => (hasEnded = true));
    const beganMs = performance.now();
    await command.kill({ killAfterMs: 30_000 });
    expect(hasEnded).toBe(true);
    expect(performance.now() - beganMs).toBeLessThan(5_000);
    expect(command.remaining()).toEqual([]);
    expect(await command.ended).toEqual({ kind: 'signalled', signal: 'SIGTERM' });
  });

  test('what ignores TERM is killed after the limit, and not before it', async () => {
    const command = await run('trap "" TERM; echo $$ >"$1/child.pid"; while :; do sleep 60; done');
    await here.pid('child');
    const beganMs = performance.now();
    await command.kill({ killAfterMs: 400 });
    expect(performance.now() - beganMs).toBeGreaterThan(390);
    expect(await command.ended).toEqual({ kind: 'signalled', signal: 'SIGKILL' });
    expect(command.remaining()).toEqual([]);
  });

  test('a second call shortens the limit, and both resolve', async () => {
    const command = await run('trap "" TERM; echo $$ >"$1/child.pid"; while :; do sleep 60; done');
    await here.pid('child');
    await Promise.all([command.kill({ killAfterMs: 600_000 }), command.kill({ killAfterMs: 100 })]);
    expect(await command.ended).toEqual({ kind: 'signalled', signal: 'SIGKILL' });
    await command.kill({ killAfterMs: 0 });
  });

  test('a grandchild in a session of its own dies too', async () => {
    const command = await run(
      '(setsid sh -c \'echo $$ >"$1/far.pid"; exec sleep 60\' sh "$1" &); exec sleep 60',
    );
    const far = await here.pid('far');
    await command.kill({ killAfterMs: 30_000 });
    expect(isAlive(far)).toBe(false);
  });

  test('a grandchild with a clean environment in a session of its own dies too', async () => {
    const command = await run(
      'setsid env -i sh -c \'echo $$ >"$1/clean.pid"; exec sleep 60\' sh "$1" & wait',
    );
    const clean = await here.pid('clean');
    await command.kill({ killAfterMs: 30_000 });
    expect(isAlive(clean)).toBe(false);
  });

  test('a child in a process group of its own dies with the parent that leaves it behind', async () => {
    // As puppet does with what an exec resource runs; timeout(1) is a program that moves to its own group.
    const command = await run(
      'trap "exit 1" TERM; env -i timeout 60 sleep 60 & echo $! >"$1/child.pid"; wait',
    );
    const child = await here.pid('child');
    await eventually(() =>
      expect(command.remaining()).toContainEqual(expect.objectContaining({ pid: child, group: child })),
    );
    await command.kill({ killAfterMs: 30_000 });
    expect(isAlive(child)).toBe(false);
    expect(await command.ended).toEqual({ kind: 'exited', code: 1 });
  });

  test('what ignores TERM in a session of its own is killed after the limit', async () => {
    const script = 'trap "" TERM; echo $$ >"$1/far.pid"; while :; do sleep 60; done';
    const command = await run(`(setsid sh -c '${script}' sh "$1" &); exec sleep 60`);
    const far = await here.pid('far');
    await command.kill({ killAfterMs: 200 });
    expect(isAlive(far)).toBe(false);
  });

  test('what ignores TERM with a clean environment is killed though its parent is gone by then', async () => {
    const script = 'trap "" TERM; echo $$ >"$1/far.pid"; while :; do sleep 60; done';
    const command = await run(`setsid env -i sh -c '${script}' sh "$1" & wait`);
    const far = await here.pid('far');
    await command.kill({ killAfterMs: 200 });
    expect(isAlive(far)).toBe(false);
  });

  test('a stopped command dies of TERM', async () => {
    const command = await run('echo $$ >"$1/child.pid"; exec sleep 60');
    process.kill(await here.pid('child'), 'SIGSTOP');
    await command.kill({ killAfterMs: 30_000 });
    expect(await command.ended).toEqual({ kind: 'signalled', signal: 'SIGTERM' });
  });

  test('what a command starts for its own cleaning up may end in peace', async () => {
    const script =
      'trap \'sh -c "sleep 0.3 && true" && echo done >"$1/cleaned"; exit 5\' TERM; echo $$ >"$1/child.pid"; sleep 60 & wait';
    const command = await run(script);
    await here.pid('child');
    await command.kill({ killAfterMs: 30_000 });
    expect(await command.ended).toEqual({ kind: 'exited', code: 5 });
    expect(here.lines('cleaned')).toEqual(['done']);
  });

  test('another signal may come first, and none when all were told', async () => {
    const command = await run(
      'trap "exit 9" INT; trap "exit 8" TERM; echo $$ >"$1/child.pid"; while :; do sleep 0.05; done',
    );
    await here.pid('child');
    await command.kill({ killAfterMs: 30_000, signal: 'SIGINT' });
    expect(await command.ended).toEqual({ kind: 'exited', code: 9 });

    const other = await run('trap "exit 8" TERM; echo $$ >"$1/other.pid"; while :; do sleep 0.05; done');
    await here.pid('other');
    await other.kill({ killAfterMs: 200, signal: 'none' });
    expect(await other.ended).toEqual({ kind: 'signalled', signal: 'SIGKILL' });
  });

  test('what a failed command left behind is swept', async () => {
    const command = await run('(setsid sleep 60 & echo $! >"$1/left.pid"); exit 1');
    await command.ended;
    const left = await here.pid('left');
    await eventually(() => expect(command.remaining().map(({ pid }) => pid)).toContain(left));
    await command.kill({ killAfterMs: 1000 });
    expect(isAlive(left)).toBe(false);
  });

  test('a daemon that a successful command started stays, and the end does not wait for it', async () => {
    const command = await run('setsid sleep 60 & echo $! >"$1/daemon.pid"');
    expect(await command.ended).toEqual({ kind: 'exited', code: 0 });
    expect(isAlive(await here.pid('daemon'))).toBe(true);
  });

  test('others are left alone', async () => {
    const stranger = spawn('sleep', ['60'], { stdio: 'ignore', env: { RUNLOCK_RUN_MARK: `${here.nonce}0` } });
    const command = await run('echo $$ >"$1/child.pid"; exec sleep 60');
    await here.pid('child');
    await command.kill({ killAfterMs: 0 });
    expect(isAlive(stranger.pid ?? 0)).toBe(true);
    stranger.kill('SIGKILL');
  });
});

/** Writes a line for each USR1 and INT, and says when it is ready. */
const counting = (name: string) =>
  // Its sleeps die of the signals, and the shell would say so.
  `exec 2>/dev/null; trap 'echo USR1 >>"$1/${name}"' USR1; trap 'echo INT >>"$1/${name}"' INT; trap 'exit 0' TERM; ` +
  `echo $$ >"$1/${name}.pid"; while :; do sleep 0.02; done`;

describe('passing signals on', () => {
  test('every process of the group gets a signal once', async () => {
    const command = await run(
      `sh -c '${counting('inner').replaceAll("'", `'\\''`)}' sh "$1" & ${counting('outer')}`,
    );
    await Promise.all([here.pid('inner'), here.pid('outer')]);
    await command.signal('SIGUSR1');
    await eventually(() => {
      expect(here.lines('outer')).toEqual(['USR1']);
      expect(here.lines('inner')).toEqual(['USR1']);
    });
    await command.signal('SIGUSR1');
    await eventually(() => expect(here.lines('inner')).toHaveLength(2));
    await command.kill({ killAfterMs: 5000 });
    expect(here.lines('outer')).toHaveLength(2);
    expect(here.lines('inner')).toHaveLength(2);
  });

  test('a signal after the end harms nobody', async () => {
    const command = await run('exit 0');
    await command.ended;
    await command.signal('SIGTERM');
  });

  test('a signal after the end does not reach the daemon that the command has left', async () => {
    const command = await run('sh -c \'echo $$ >"$1/daemon.pid"; exec sleep 60\' sh "$1" & exit 0');
    const daemon = await here.pid('daemon');
    await command.ended;
    await command.signal('SIGUSR1');
    await command.signal('SIGTERM');
    // A signal that had been sent would be the end of it before this one is answered.
    const other = await run('exec sleep 60');
    await other.signal('SIGTERM');
    await other.ended;
    expect(isAlive(daemon)).toBe(true);
    end(daemon);
  });
});

describe('sharing a terminal', () => {
  let terminal: ChildProcess | undefined;
  let screen = '';
  afterEach(() => {
    end(terminal?.pid ?? 0);
  });

  /** Runs the supervising driver on a terminal of its own, `beside` in the same process group. */
  async function onTerminal(script: string, beside = 'true') {
    const driver = await bundle('supervise', here.folder);
    const args = ['-c', script, 'sh', here.folder];
    const { folder, nonce } = here;
    const plan = JSON.stringify({ folder, nonce, shareTerminal: true, args, killOn: 'SIGUSR2' });
    const line = 'sh -c "$BESIDE" sh "$FOLDER" & exec "$NODE" "$DRIVER" "$PLAN"';
    const variables = {
      BESIDE: beside,
      FOLDER: here.folder,
      NODE: process.execPath,
      DRIVER: driver,
      PLAN: plan,
    };
    terminal = spawn('script', ['-qec', line, '/dev/null'], {
      env: { ...process.env, SHELL: '/bin/sh', ...variables },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    screen = '';
    terminal.stdout?.setEncoding('utf8').on('data', (text: string) => (screen += text));
    const pid = await here.pid('driver');
    return { pid, type: (text: string) => terminal?.stdin?.write(text) };
  }

  test('Ctrl-C reaches the command once', async () => {
    const { type } = await onTerminal(counting('count'));
    const pid = await here.pid('count');
    for (const times of [1, 2, 3]) {
      type('\x03');
      await eventually(() => expect(here.lines('decided')).toHaveLength(times));
      await eventually(() => expect(here.lines('count')).toHaveLength(times));
    }
    process.kill(pid, 'SIGTERM');
    await eventually(() => expect(here.lines('ending')).toHaveLength(1));
    expect(here.lines('count')).toEqual(['INT', 'INT', 'INT']);
    expect(here.lines('signals')).toEqual(['SIGINT', 'SIGINT', 'SIGINT']);
  });

  test('a signal to runlock alone reaches the command once', async () => {
    const supervisor = await onTerminal(counting('count'));
    const pid = await here.pid('count');
    for (const times of [1, 2]) {
      process.kill(supervisor.pid, 'SIGINT');
      await eventually(() => expect(here.lines('count')).toHaveLength(times));
    }
    process.kill(supervisor.pid, 'SIGUSR1');
    await eventually(() => expect(here.lines('count')).toHaveLength(3));
    process.kill(pid, 'SIGTERM');
    await eventually(() => expect(here.lines('ending')).toHaveLength(1));
    expect(here.lines('count')).toEqual(['INT', 'INT', 'USR1']);
  });

  test('Ctrl-C and a signal to runlock alone in the same moment both reach it once', async () => {
    const supervisor = await onTerminal(counting('count'));
    const pid = await here.pid('count');
    supervisor.type('\x03');
    process.kill(supervisor.pid, 'SIGUSR1');
    await eventually(() => expect(here.lines('decided').sort()).toEqual(['SIGINT', 'SIGUSR1']));
    await eventually(() => expect(here.lines('count').sort()).toEqual(['INT', 'USR1']));
    process.kill(pid, 'SIGTERM');
    await eventually(() => expect(here.lines('ending')).toHaveLength(1));
    expect(here.lines('count').sort()).toEqual(['INT', 'USR1']);
  });

  test('Ctrl-C reaches a command that has gone to a group of its own, as timeout(1) does', async () => {
    const file = program('moved', `#!/bin/sh\n${counting('count')}`);
    const { type } = await onTerminal(`exec setsid -w ${file} "$1"`);
    const pid = await here.pid('count');
    type('\x03');
    await eventually(() => expect(here.lines('count')).toEqual(['INT']));
    process.kill(pid, 'SIGTERM');
    await eventually(() => expect(here.lines('ending')).toHaveLength(1));
    expect(here.lines('count')).toEqual(['INT']);
  });

  test('other processes of the group do not get what runlock alone got', async () => {
    const supervisor = await onTerminal(counting('count'), counting('beside'));
    const [pid, beside] = await Promise.all([here.pid('count'), here.pid('beside')]);
    process.kill(supervisor.pid, 'SIGUSR1');
    await eventually(() => expect(here.lines('count')).toEqual(['USR1']));
    // What it got before this one it would have noted before it dies.
    process.kill(beside, 'SIGTERM');
    await untilGone(beside);
    expect(here.lines('beside')).toEqual([]);
    process.kill(pid, 'SIGTERM');
    await eventually(() => expect(here.lines('ending')).toHaveLength(1));
  });

  test('killing ends the tree, TERM or not, and nobody else in the group', async () => {
    const stubborn = (name: string) =>
      `trap 'echo TERM >>"$1/${name}"' TERM; echo $$ >"$1/${name}.pid"; while :; do sleep 0.02; done`;
    const supervisor = await onTerminal(stubborn('command'), stubborn('beside'));
    const [pid, beside] = await Promise.all([here.pid('command'), here.pid('beside')]);
    process.kill(supervisor.pid, 'SIGUSR2');
    await eventually(() => expect(here.lines('command')).toEqual(['TERM']));
    process.kill(supervisor.pid, 'SIGUSR2');
    await eventually(() => expect(here.lines('ending')).toEqual(['{"kind":"signalled","signal":"SIGKILL"}']));
    expect(isAlive(pid)).toBe(false);
    expect(here.lines('command')).toEqual(['TERM']);
    // The terminal hangs up when the supervisor, which leads its session, ends.
    await untilGone(beside);
    expect(here.lines('beside')).toEqual([]);
  });

  test('a prompt on the terminal is answered', async () => {
    const { type } = await onTerminal(
      'printf "name? " >/dev/tty; read -r name </dev/tty; echo "$name" >"$1/answer"',
    );
    await eventually(() => expect(screen).toContain('name? '));
    type('web 1\n');
    await eventually(() => expect(here.lines('answer')).toEqual(['web 1']));
    await eventually(() => expect(here.lines('ending')).toEqual(['{"kind":"exited","code":0}']));
  });

  test('nothing of it stays behind when the command has ended', async () => {
    const { pid } = await onTerminal('exit 4');
    await eventually(() => expect(here.lines('ending')).toEqual(['{"kind":"exited","code":4}']));
    await untilGone(pid);
  });
});
