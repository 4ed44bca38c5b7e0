// Who still runs of a run whose runlock is dead, by what it wrote down: whatever they did to their environment.
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { findSurvivors, fromOtherUser, isOver } from '../../src/process/host.ts';
import type { RunFile } from '../../src/process/run-file.ts';
import { startTime } from '../../src/process/process-tree.ts';
import { end, untilGone } from '../support/processes.ts';
import { stage } from '../support/stage.ts';

const BOOT = 'boot ns';
const nameOf = (pid: number) => ({ pid, startTime: startTime(pid) ?? '' });

/** A command that carries no mark, and leaves the pids of its processes in the folder; `$1` is that folder. */
async function run(script: string) {
  const here = stage();
  const child = spawn('sh', ['-c', `echo $$ >"$1/command.pid"; ${script}`, 'sh', here.folder], {
    ...{ detached: true, env: { PATH: process.env['PATH'] }, stdio: 'ignore' },
  });
  const command = await here.pid('command');
  const file: RunFile = {
    ...{
      run: here.runId,
      bootId: BOOT,
      groups: [],
      nonce: '',
      runlock: { pid: 2 ** 22 + 1, startTime: '1' },
    },
    command: nameOf(command),
  };
  const of = (change: Partial<RunFile> = {}, bootId = BOOT) =>
    findSurvivors(here.runId, { ...file, ...change }, bootId).pids;
  return { ...here, child, command, file, of };
}

test('the command, its children, and who is still in its group or session when it is gone', async () => {
  const { of, command, pid } = await run(
    'sh -c "echo \\$\\$ >\\"$1/child.pid\\"; exec env -i sleep 60" & (setsid sh -c "echo \\$\\$ >\\"$1/own.pid\\"; exec sleep 60" &) ; echo >"$1/x"; wait',
  );
  const [child, own] = [await pid('child'), await pid('own')];
  expect(of()).toEqual(expect.arrayContaining([command, child]));
  end(command);
  await untilGone(command);
  expect(of()).toContain(child);
  // In a session of its own, and its parents are gone: known by the last look alone.
  expect(of()).not.toContain(own);
  expect(of({ members: [nameOf(own)] })).toContain(own);
  expect(isOver({ ...(await run('exit')).file, members: [nameOf(own)] })).toBe(false);
});

test('nobody whose pid was given to another process', async () => {
  const { of, command } = await run('exec sleep 60');
  expect(of()).toEqual([command]);
  expect(of({ command: { pid: command, startTime: '1' } })).toEqual([]);
  expect(
    of({ command: { pid: command, startTime: '1' }, members: [{ pid: command, startTime: '2' }] }),
  ).toEqual([]);
});

test('nobody of an ended run, nor of another boot; of another pid namespace only the marked ones', async () => {
  const { of, command, file, runId } = await run('exec sleep 60');
  expect(of({ ended: { outcome: 'succeeded', at: 'now' } })).toEqual([]);
  // Its file is of use all the same, as long as a daemon of it carries the mark.
  expect(isOver({ ...file, ended: { outcome: 'succeeded', at: 'now' } })).toBe(false);
  expect(of({}, 'other ns')).toEqual([]);
  expect(of({}, 'boot other')).toEqual([]);
  expect(findSurvivors(runId, undefined, BOOT).pids).toEqual([]);
  end(command);
});

test('of another pid namespace of this boot who carries the mark, and of another boot nobody', async () => {
  const { of, nonce } = await run('exec sleep 60');
  const marked = spawn('sleep', ['60'], { env: { RUNLOCK_RUN_MARK: nonce }, stdio: 'ignore' });
  onTestFinished(() => void marked.kill('SIGKILL'));
  expect(of({}, 'boot other')).toEqual([marked.pid]);
  expect(of({}, 'other ns')).toEqual([]);
});

test('nobody in the group of a stranger who had the pid of a member that is gone', async () => {
  const { of, command, pid } = await run(
    'setsid sh -c "sleep 60 & echo \\$! >\\"$1/left.pid\\"; echo \\$\\$ >\\"$1/gone.pid\\""; echo $$ >"$1/reaped.pid"; exec sleep 60',
  );
  // Until it is reaped its pid is its own.
  await pid('reaped');
  const [gone, left] = [await pid('gone'), await pid('left')];
  end(command);
  await untilGone(command);
  const nobody = { pid: 2 ** 22 + 1, startTime: '1' };
  expect(of({ command: nobody, members: [{ pid: gone, startTime: '1' }] })).toEqual([]);
  expect(of({ command: { pid: gone, startTime: '1' } })).toEqual([left]);
  end(left);
});

test('neither the guard, which is told apart, nor who asks', async () => {
  const { of, file, command, runId } = await run('exec sleep 60');
  const guard = spawn('sleep', ['60'], { stdio: 'ignore' });
  onTestFinished(() => void guard.kill('SIGKILL'));
  const found = findSurvivors(runId, { ...file, guard: nameOf(guard.pid ?? 0) }, BOOT);
  expect(found).toEqual({ pids: [command], guarded: true });
  expect(of({ members: [nameOf(process.pid)] })).toEqual([command]);
  expect(findSurvivors(runId, { ...file, guard: { pid: process.pid, startTime: '1' } }, BOOT).guarded).toBe(
    false,
  );
});

test('what another user wrote down leads to no file that is not in a cgroup', async () => {
  const { file, folder } = await run('exec sleep 60');
  const cgroup = `${folder}/runlock-${file.run}`;
  mkdirSync(cgroup);
  expect(fromOtherUser({ ...file, cgroup })).toEqual(file);
  expect(fromOtherUser({ ...file, cgroup: `${folder}/none/runlock-x` })).toEqual(file);
});
