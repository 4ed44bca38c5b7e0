// How a command comes to ignore what runlock's caller ignores: the launchers themselves, on this host.
import { spawn, spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { expect, test } from 'vitest';
import { chooseLauncher, launchFailed } from '../../src/process/launcher.ts';
import { ignoredIn } from '../../src/platform/signals.ts';

const { SIGHUP, SIGCHLD } = constants.signals;
const env = { PATH: process.env['PATH'] };
const command = 'cat';

test('nothing is tried where nothing is to be ignored', () => {
  expect(chooseLauncher(command, { ignored: [], env })).toEqual({ lost: [] });
});

test('env(1) where it can', () => {
  const { launcher, lost } = chooseLauncher(command, {
    ignored: [SIGHUP, SIGCHLD, 36],
    env: { ...env, 'A.B': '1' },
  });
  expect(lost).toEqual([]);
  expect(launcher?.(command, ['-n'])).toEqual({
    file: '/usr/bin/env',
    argv0: 'env',
    args: ['--ignore-signal=1,17,36', '--', 'cat', '-n'],
  });
});

test('what the C library keeps for itself is nobody’s to ignore', () => {
  expect(chooseLauncher(command, { ignored: [32, 33], env })).toEqual({ lost: [] });
});

test('a shell where env(1) would take the command for a variable', () => {
  const { launcher, lost } = chooseLauncher('a=b', { ignored: [SIGHUP], env });
  expect(lost).toEqual([]);
  const { file = '', args = [] } = launcher?.('cat', ['/proc/self/status']) ?? {};
  expect(file).toBe('/bin/sh');
  expect(ignoredIn(spawnSync(file, args, { encoding: 'utf8', env }).stdout)).toContain(SIGHUP);
});

test('no shell that would lose a variable: then nothing is ignored, and that is known', () => {
  expect(chooseLauncher('a=b', { ignored: [SIGHUP], env: { ...env, 'A.B': '1' } })).toEqual({
    lost: [SIGHUP],
  });
});

test('no launcher works: that is known', () => {
  // Nothing to try it with.
  expect(chooseLauncher(command, { ignored: [SIGHUP], env: { PATH: '/nowhere' } })).toEqual({
    lost: [SIGHUP],
  });
});

test.each([
  ['true', false],
  ['sh', false],
  ['/no/such/program', true],
  ['/etc/passwd', true],
])('whether it became %s is seen at once', (program, failed) => {
  const { launcher } = chooseLauncher(command, { ignored: [SIGHUP], env });
  const { file = '', args = [] } = launcher?.(program, []) ?? {};
  const { pid = 0 } = spawn(file, args, { stdio: 'ignore', env });
  expect(launchFailed(pid, { file, command: program })).toBe(failed);
});
