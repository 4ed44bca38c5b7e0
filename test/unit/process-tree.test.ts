import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';

import {
  followTree,
  hasStopPending,
  isStopped,
  markedPids,
  parseStat,
  startTime,
} from '../../src/process/process-tree.ts';
import { startHollow, whyNotHollow } from '../support/hollow.ts';
import { end, eventually, scene, untilGone } from '../support/processes.ts';
import type { Scene } from '../support/processes.ts';

let here: Scene;
beforeEach(() => {
  here = scene();
});
afterEach(() => here.clean());

/** Runs a script as the command of a run and returns its tree. `$1` is the folder. */
async function run(script: string, options: { detached?: boolean; except?: number[] } = {}) {
  const { folder, nonce } = here;
  const child = spawn('sh', ['-c', `echo $$ >"$1/command.pid"; ${script}`, 'sh', folder], {
    detached: options.detached ?? false,
    env: { ...process.env, RUNLOCK_RUN_MARK: nonce },
    stdio: 'ignore',
  });
  const pid = await here.pid('command');
  const command = { pid, startTime: startTime(pid) ?? '' };
  const tree = followTree({ nonce, command, except: () => options.except ?? [] });
  return { child, pid, tree, pids: () => tree.members().map((member) => member.pid) };
}

test('a name with spaces, parentheses and newlines does not confuse the fields behind it', () => {
  const fields = '4 5 6 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 777 10 11';
  expect(parseStat(1, `1 (a) R 9 (b\n) c) S ${fields}`)).toEqual({
    pid: 1,
    name: 'a) R 9 (b\n) c',
    state: 'S',
    parent: 4,
    group: 5,
    session: 6,
    startTime: '777',
    alive: true,
  });
});

test('a zombie is not alive, unless other threads of it run on', () => {
  const stat = (state: string, threads: number) =>
    `1 (x) ${state} 4 5 6 0 -1 1 2 3 4 5 6 7 8 9 20 0 ${threads} 0 777 10 11`;
  expect(parseStat(1, stat('Z', 1)).alive).toBe(false);
  expect(parseStat(1, stat('Z', 2)).alive).toBe(true);
  expect(parseStat(1, stat('D', 1)).alive).toBe(true);
});

test('start time tells a live process from none', () => {
  expect(startTime(process.pid)).toMatch(/^\d+$/);
  expect(startTime(2 ** 22 + 1)).toBeUndefined();
});

test('only processes with exactly this run id are marked', async () => {
  const { pid } = await run('sleep 60 & echo $! >"$1/child.pid"; wait');
  const child = await here.pid('child');
  await eventually(() => expect(markedPids(here.runId).sort()).toEqual([pid, child].sort()));
  expect(markedPids(here.runId.slice(0, -1))).toEqual([]);
  expect(markedPids(randomUUID())).toEqual([]);
});

const without = whyNotHollow === undefined ? '' : ` (left out: ${whyNotHollow})`;

test.skipIf(whyNotHollow !== undefined)(
  `a program whose main thread has ended is found by its mark${without}`,
  async () => {
    const { pids } = await run('exec sleep 60');
    const hollow = await startHollow(here);
    expect(markedPids(here.runId)).toContain(hollow);
    expect(pids()).toContain(hollow);
  },
);

test('a descendant that left session, group and parent is found by its mark', async () => {
  const { pids } = await run(
    '(setsid sh -c \'echo $$ >"$1/far.pid"; exec sleep 60\' sh "$1" &); exec sleep 60',
  );
  const far = await here.pid('far');
  await eventually(() => expect(pids()).toContain(far));
});

test('a descendant with a clean environment is found by its parent', async () => {
  const { pids } = await run('setsid env -i sh -c \'echo $$ >"$1/clean.pid"; exec sleep 60\' sh "$1"; true');
  const clean = await here.pid('clean');
  await eventually(() => expect(pids()).toContain(clean));
});

test('a descendant with a clean environment stays known when its parent dies', async () => {
  const { pids, child } = await run(
    'setsid env -i sh -c \'echo $$ >"$1/clean.pid"; exec sleep 60\' sh "$1"; true',
  );
  const clean = await here.pid('clean');
  await eventually(() => expect(pids()).toContain(clean));
  // setsid forks only when it leads a group, so the shell is the parent here.
  child.kill('SIGKILL');
  await eventually(() => expect(pids()).toEqual([clean]));
});

test('an orphan with a clean environment is found by the session of the command', async () => {
  const script = '(env -i sh -c \'echo $$ >"$1/orphan.pid"; exec sleep 60\' sh "$1" &); exec sleep 60';
  const { pids } = await run(script, { detached: true });
  const orphan = await here.pid('orphan');
  await eventually(() => expect(pids()).toContain(orphan));
});

test('what a session leader leaves behind is found by its session, when nothing else tells', async () => {
  const until = (file: string) => `until [ -e "$1/${file}" ]; do sleep 0.02; done`;
  // timeout(1) moves to a group of its own.
  const job = 'env -i timeout 60 sleep 60 & echo $! >"$1/job.pid"';
  const leader = `echo $$ >"$1/leader.pid"; ${until('start')}; ${job}; ${until('leave')}`;
  const { pids } = await run(`setsid sh -c '${leader}' sh "$1"; exec sleep 60`);
  const leads = await here.pid('leader');
  expect(pids()).toContain(leads);
  writeFileSync(join(here.folder, 'start'), '');
  const left = await here.pid('job');
  onTestFinished(() => end(-left));
  const stat = () => parseStat(left, readFileSync(`/proc/${left}/stat`, 'utf8'));
  await eventually(() => expect(stat().group).toBe(left));
  writeFileSync(join(here.folder, 'leave'), '');
  await untilGone(leads);
  await eventually(() => expect(stat().parent).not.toBe(leads));
  expect(stat().session).toBe(leads);
  expect(pids()).toContain(left);
});

test('the command comes first, and the ones that are excepted never', async () => {
  const { pid, pids } = await run('sleep 60 & echo $! >"$1/child.pid"; wait', { except: [process.pid] });
  const child = await here.pid('child');
  await eventually(() => expect(pids()).toEqual([pid, child]));
  const command = { pid, startTime: startTime(pid) ?? '' };
  const without = followTree({ nonce: here.nonce, command, except: () => [pid, child] });
  expect(without.members()).toEqual([]);
});

test('a process that was given a pid of the run later is not taken for it', async () => {
  const stranger = spawn('sh', ['-c', 'sleep 60 & wait'], { stdio: 'ignore', detached: true });
  const pid = stranger.pid ?? 0;
  const command = { pid, startTime: '1' };
  const tree = followTree({ nonce: here.nonce, command, except: () => [] });
  expect(tree.members()).toEqual([]);
  expect(
    followTree({
      nonce: here.nonce,
      command: { pid, startTime: startTime(pid) ?? '' },
      except: () => [],
    }).members(),
  ).not.toEqual([]);
  process.kill(-pid, 'SIGKILL');
  await untilGone(pid);
});

test.each([
  // dash, which waits for its child to start a program (vfork), when Ctrl-Z came: it blocks all signals meanwhile.
  ['SIGTSTP and SIGCHLD for the process', 'SigPnd:\t0000000000000000\nShdPnd:\t0000000000090000\n', true],
  ['SIGSTOP for its thread', 'SigPnd:\t0000000000040000\nShdPnd:\t0000000000000000\n', true],
  ['SIGTTOU', 'SigPnd:\t0000000000000000\nShdPnd:\t0000000000200000\n', true],
  ['SIGCONT and SIGURG alone', 'SigPnd:\t0000000000000000\nShdPnd:\t0000000000420000\n', false],
  ['none, and TSTP is only blocked', 'ShdPnd:\t0000000000000000\nSigBlk:\t0000000000080000\n', false],
  ['no status at all', '', false],
])('a signal that will stop it is seen while it waits: %s', (_, status, stops) => {
  expect(hasStopPending(status)).toBe(stops);
});

test('a process is stopped in state T alone, and only if it is the one that was named', async () => {
  const { pid } = await run('exec sleep 60');
  const command = { pid, startTime: startTime(pid) ?? '' };
  expect(isStopped(command)).toBe(false);
  process.kill(pid, 'SIGSTOP');
  await eventually(() => expect(isStopped(command)).toBe(true));
  expect(isStopped({ pid, startTime: '1' })).toBe(false);
});

test('a look is fast enough to be taken many times a second', async () => {
  const sleepers = Array.from({ length: 200 }, () => spawn('sleep', ['60'], { stdio: 'ignore' }).pid ?? 0);
  const { pids } = await run('exec sleep 60');
  pids();
  // Beside what no look can do without, on the same host at the same time, and the best of several: a busy host makes
  // either of them as slow as it likes.
  const [looks, reads] = [best(pids), best(readAll)];
  sleepers.forEach(end);
  expect(looks / reads).toBeLessThan(4);
});

/** Reads once of each process what a look reads. */
function readAll() {
  for (const name of readdirSync('/proc').filter((each) => /^\d+$/.test(each))) {
    for (const part of ['stat', 'environ']) {
      try {
        readFileSync(`/proc/${name}/${part}`);
      } catch {
        // It is gone.
      }
    }
  }
}

/** Milliseconds of CPU time. */
function best(work: () => unknown): number {
  const times = Array.from({ length: 8 }, () => {
    const before = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  });
  return Math.min(...times);
}
