import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';

import { keepGuard, spareGuard } from '../../src/process/guard/guard.ts';
import type { Guard, GuardEvent } from '../../src/process/guard/guard.ts';
import { parseStat, startTime } from '../../src/process/process-tree.ts';
import { realClock } from '../support/drivers/clock.ts';
import { bundle, end, eventually, isAlive, readerOf, scene, untilGone } from '../support/processes.ts';
import type { Scene } from '../support/processes.ts';

/** A life that no test outlasts. */
const WAITING_MS = 9_999_000;

let here: Scene;
let guard: Guard | undefined;
beforeEach(() => {
  here = scene();
});
afterEach(async () => {
  await guard?.disarm();
  guard = undefined;
  here.clean();
});

/** A tree with everything that is hard to kill: it ignores TERM, left its session, dropped its environment and parent. */
const stubborn = `
trap '' TERM
setsid sh -c 'echo $$ >"$1/far.pid"; exec sleep 60' sh "$1" &
(env -i sh -c 'echo $$ >"$1/orphan.pid"; exec sleep 60' sh "$1" &)
setsid env -i sh -c 'echo $$ >"$1/clean.pid"; exec sleep 60' sh "$1" &
echo $$ >"$1/command.pid"
while :; do sleep 60; done
`;
const members = ['command', 'far', 'orphan', 'clean'];

describe('when runlock is', () => {
  /** Starts the supervising driver with a guard, and waits until the whole tree runs. */
  async function supervise(lifeMs: number, shareTerminal = false) {
    const driver = await bundle('supervise', here.folder);
    const args = ['-c', stubborn, 'sh', here.folder];
    const plan = JSON.stringify({ folder: here.folder, nonce: here.nonce, shareTerminal, lifeMs, args });
    const runlock = spawn(process.execPath, [driver, plan], { stdio: 'ignore' });
    await here.pid('driver');
    const names = members.filter((name) => !shareTerminal || name !== 'orphan');
    const tree = await Promise.all(names.map((name) => here.pid(name)));
    return { runlock, tree, guardPid: await here.pid('guard') };
  }

  async function goneWithin(ms: number, pids: readonly number[]) {
    const beganMs = performance.now();
    await Promise.all(pids.map((pid) => untilGone(pid, ms)));
    return performance.now() - beganMs;
  }

  test.each([false, true])(
    'killed, the whole tree is gone within two seconds (terminal: %s)',
    async (terminal) => {
      const { runlock, tree, guardPid } = await supervise(60_000, terminal);
      runlock.kill('SIGKILL');
      await goneWithin(2_000, tree);
      await untilGone(guardPid);
    },
  );

  test('stopped, the whole tree is gone soon after its life is over, and not before', async () => {
    const { runlock, tree, guardPid } = await supervise(1_000);
    const beganMs = performance.now();
    await eventually(() => expect(performance.now() - beganMs).toBeGreaterThan(1_200));
    // More than one life has passed: the beats keep it alive.
    expect(tree.every(isAlive)).toBe(true);
    runlock.kill('SIGSTOP');
    const ms = await goneWithin(3_500, tree);
    expect(ms).toBeGreaterThan(600);
    await untilGone(guardPid);
    runlock.kill('SIGCONT');
    await eventually(() => expect(here.lines('ending')).toHaveLength(1));
    expect(here.lines('events')).toEqual(['fired']);
  });

  test('killed after somebody ended the guard, its replacement does the same', async () => {
    const { runlock, tree, guardPid } = await supervise(60_000);
    end(guardPid);
    await eventually(() => expect(here.lines('events')).toEqual(['replaced']));
    const [, replacement] = here.lines('guard.pid').map(Number);
    expect(replacement).not.toBe(guardPid);
    expect(tree.every(isAlive)).toBe(true);
    runlock.kill('SIGKILL');
    await goneWithin(2_000, tree);
  });

  test('well and its command ends, the guard leaves and what the command left behind stays', async () => {
    const { tree, guardPid } = await supervise(60_000);
    const [command, ...others] = tree;
    end(command ?? 0);
    await eventually(() => expect(here.lines('ending')).toHaveLength(1));
    await untilGone(guardPid);
    expect(others.every(isAlive)).toBe(true);
  });
});

describe.each(['started with its command', 'there before'])('on its own, %s,', (since) => {
  /** A marked process outside runlock, and a guard that watches it. */
  async function watched(lifeMs: number, { script = 'exec sleep 60', named = true } = {}) {
    const child = spawn('sh', ['-c', `echo $$ >"$1/command.pid"; ${script}`, 'sh', here.folder], {
      env: { ...process.env, RUNLOCK_RUN_MARK: here.nonce },
      stdio: 'ignore',
      detached: true,
    });
    const pid = await here.pid('command');
    const events: GuardEvent[] = [];
    const report = (event: GuardEvent) => events.push(event);
    const options = { nonce: here.nonce, path: process.env['PATH'], clock: realClock };
    const spare = spareGuard(options);
    if (since === 'there before') {
      spare.post(WAITING_MS);
      spare.post(WAITING_MS);
    }
    guard = keepGuard({ ...options, lifeMs, report, spare });
    expect(spare.take()).toBeUndefined();
    if (named) guard.watch({ pid, startTime: startTime(pid) ?? '' });
    return { child, pid, events, guard };
  }

  test('it fires at the end of the life that the last beat gave', async () => {
    const { pid, events, guard } = await watched(60_000);
    const beganMs = performance.now();
    guard.beat(500);
    await untilGone(pid, 3_000);
    expect(performance.now() - beganMs).toBeGreaterThan(350);
    await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
  });

  test('it fires at the end of its first life, also where nothing follows and no command is named', async () => {
    const { pid, events } = await watched(300, { named: false });
    await untilGone(pid, 3_000);
    await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
  });

  test('it asks with TERM before it kills', async () => {
    const { child, guard } = await watched(60_000);
    const ended = once(child, 'exit');
    guard.beat(200);
    // Which signal was first, the kernel knows: a shell's trap would need its time of a busy host.
    expect(await ended).toEqual([null, 'SIGTERM']);
  });

  test('it asks what is stopped too, which can do as it is asked only when it goes on', async () => {
    const { child, pid, guard } = await watched(60_000);
    const ended = once(child, 'exit');
    process.kill(-pid, 'SIGSTOP');
    guard.beat(200);
    expect(await ended).toEqual([null, 'SIGTERM']);
  });

  test('it remembers whom it has found, should they lose all that showed where they belong', async () => {
    const far = `trap "" TERM; echo $$ >"$1/far.pid"; while :; do sleep 60; done`;
    const { guard } = await watched(60_000, { script: `setsid env -i sh -c '${far}' sh "$1" & wait` });
    const pid = await here.pid('far');
    guard.beat(200);
    // How soon, other tests say: by then it has lost its parent, to TERM, and is known from before alone.
    await untilGone(pid);
  });

  test('beats keep the command alive beyond its first life', async () => {
    const { pid, guard } = await watched(700);
    const beganMs = performance.now();
    await eventually(() => {
      guard.beat(700);
      expect(performance.now() - beganMs).toBeGreaterThan(1_500);
    });
    expect(isAlive(pid)).toBe(true);
  });

  test('disarmed, it is gone and leaves everything alone; twice is as good', async () => {
    const { pid, guard } = await watched(60_000);
    const [own] = guard.pids();
    await guard.disarm();
    await guard.disarm();
    expect(isAlive(own ?? 0)).toBe(false);
    expect(isAlive(pid)).toBe(true);
    guard.beat(100);
  });

  test('stopped, it holds up nobody', async () => {
    const { pid, guard } = await watched(60_000);
    const [own = 0] = guard.pids();
    process.kill(own, 'SIGSTOP');
    for (let beat = 0; beat < 20_000; beat += 1) guard.beat(60_000);
    await guard.disarm();
    expect(isAlive(own)).toBe(false);
    expect(isAlive(pid)).toBe(true);
  });

  test('ended helpers do not make it fire', async () => {
    const { pid, guard, events } = await watched(60_000);
    const [own = 0] = guard.pids();
    for (let times = 0; times < 3; times += 1) {
      const reader = await eventually(() => readerOf(own));
      end(reader);
      await untilGone(reader);
    }
    guard.beat(60_000);
    await eventually(() => readerOf(own));
    expect(isAlive(pid)).toBe(true);
    expect(events).toEqual([]);
  });

  test('a replacement knows all that the one before it knew', async () => {
    // Nothing but its pid tells that this process belongs to the run.
    const { pid, guard, events } = await watched(2_000, { script: 'exec env -i sleep 60' });
    await eventually(() => expect(readFileSync(`/proc/${pid}/comm`, 'utf8')).toBe('sleep\n'));
    end(guard.pids()[0] ?? 0);
    await untilGone(pid, 5_000);
    await eventually(() => expect(events).toEqual([{ kind: 'replaced' }, { kind: 'fired' }]));
  });

  test('it has a session of its own, where no key of the terminal reaches it', async () => {
    const { guard } = await watched(60_000);
    const [own = 0] = guard.pids();
    expect(parseStat(own, readFileSync(`/proc/${own}/stat`, 'utf8'))).toMatchObject({
      group: own,
      session: own,
    });
  });

  test('signals that end others do not end it', async () => {
    const { pid, guard } = await watched(60_000);
    const [own = 0] = guard.pids();
    await eventually(() => readerOf(own));
    for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) process.kill(own, signal);
    guard.beat(60_000);
    await eventually(() => readerOf(own));
    expect(guard.pids()).toEqual([own]);
    expect(isAlive(own) && isAlive(pid)).toBe(true);
  });

  test('other processes are untouched, also one that has the pid of a command that is gone', async () => {
    const { child, guard, events } = await watched(60_000);
    const stranger: ChildProcess = spawn('sleep', ['60'], { stdio: 'ignore', detached: true });
    const pid = stranger.pid ?? 0;
    guard.watch({ pid, startTime: '1' });
    guard.beat(100);
    await untilGone(child.pid ?? 0, 3_000);
    await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
    expect(isAlive(pid)).toBe(true);
    end(pid);
  });

  test('when it cannot work it says so, kills nothing, and is tried again', async () => {
    // As on a host without timeout(1).
    writeFileSync(join(here.folder, 'timeout'), '#!/bin/sh\nexit 127\n', { mode: 0o755 });
    const { pid } = await watched(60_000);
    const events: GuardEvent[] = [];
    const report = (event: GuardEvent) => events.push(event);
    const { nonce, folder } = here;
    const unable = keepGuard({ nonce, lifeMs: 60_000, path: folder, clock: realClock, report });
    await eventually(() => expect(events.length).toBeGreaterThan(1));
    expect(events[0]).toMatchObject({ kind: 'failed', reason: expect.stringContaining('timeout') as string });
    await unable.disarm();
    expect(isAlive(pid)).toBe(true);
  });
});

describe('a spare one', () => {
  const make = () => spareGuard({ nonce: here.nonce, path: process.env['PATH'], clock: realClock });

  test('is one, however often it is asked for, and goes when it is sent away', async () => {
    const spare = make();
    spare.post(WAITING_MS);
    spare.post(WAITING_MS);
    const post = spare.take();
    const [pid = 0, ...others] = post?.pids() ?? [];
    expect(others).toEqual([]);
    expect(isAlive(pid)).toBe(true);
    expect(spare.take()).toBeUndefined();
    await eventually(() => readerOf(pid));
    void post?.write('quit');
    await untilGone(pid);
  });

  test('that nobody took is gone when it has been dismissed, also one that is stopped', async () => {
    const spare = make();
    spare.post(WAITING_MS);
    const [pid = 0] = spawned();
    await eventually(() => readerOf(pid));
    process.kill(pid, 'SIGSTOP');
    await spare.dismiss();
    expect(isAlive(pid)).toBe(false);
    await spare.dismiss();
  });

  test('that somebody ended is not given away, and another takes its place', async () => {
    const spare = make();
    spare.post(WAITING_MS);
    const [first = 0] = spawned();
    end(first);
    await eventually(() => {
      spare.post(WAITING_MS);
      expect(spawned().filter((pid) => pid !== first)).toHaveLength(1);
    });
    const [pid] = spare.take()?.pids() ?? [];
    expect(pid).not.toBe(first);
    end(pid ?? 0);
  });

  test('that somebody ended is given to nobody, also where none has taken its place yet', async () => {
    const spare = make();
    spare.post(WAITING_MS);
    const [pid = 0] = spawned();
    end(pid);
    // Its end has been heard of by then.
    await eventually(() => expect(existsSync(`/proc/${pid}`)).toBe(false));
    expect(spare.take()).toBeUndefined();
    expect(spawned()).toEqual([]);
  });

  test('is given its life anew as long as nobody takes it, by itself, and no more after that', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    onTestFinished(() => void vi.useRealTimers());
    let nowMs = 0;
    const clock = { ...realClock, monotonicMs: () => nowMs };
    const pass = (ms: number) => {
      nowMs += ms;
      vi.advanceTimersByTime(ms);
    };
    const spare = spareGuard({ nonce: here.nonce, path: process.env['PATH'], clock });
    const lifeMs = 60_000;
    spare.post(lifeMs);
    const [pid = 0] = spawned();
    // As long as a gate may be closed.
    for (let times = 0; times < 20; times += 1) pass(8_000);
    const post = spare.take();
    expect(post?.pids()).toEqual([pid]);
    expect(post?.endMs).toBeGreaterThan(nowMs + lifeMs - 16_000);
    end(pid);
    await eventually(() => expect(existsSync(`/proc/${pid}`)).toBe(false));
    pass(80_000);
    expect(spawned()).toEqual([]);
  });

  test('that waits for a moment alone waits on when it is asked for again, for longer', async () => {
    const spare = make();
    spare.post(1_500);
    const [pid = 0] = spawned();
    spare.post(WAITING_MS);
    expect(spawned()).toEqual([pid]);
    await eventually(() => expect(waitOf(pid)).toBeGreaterThan(60), 10_000);
    await spare.dismiss();
  });

  test.each([5_000, WAITING_MS])(
    'that waits for %i ms gets the life of the run that takes it',
    async (ms) => {
      const spare = make();
      spare.post(ms);
      const [pid = 0] = spawned();
      const { nonce } = here;
      guard = keepGuard({ nonce, path: process.env['PATH'], clock: realClock, lifeMs: 20_000, spare });
      await eventually(() => {
        expect(waitOf(pid)).toBeGreaterThan(SELF_TEST_S);
        expect(waitOf(pid)).toBeLessThanOrEqual(20);
      }, 10_000);
    },
  );

  test('that is about to look for whom to end is given to nobody, and no other comes after that', async () => {
    const spare = make();
    spare.post(1_500);
    const [pid = 0] = spawned();
    expect(spare.take()).toBeUndefined();
    await untilGone(pid);
    spare.post(WAITING_MS);
    expect(spawned()).toEqual([]);
  });

  /** Until then it waits for its look at its programs. */
  const SELF_TEST_S = 2;

  /** How long it waits for the next message, in seconds. */
  function waitOf(pid: number): number {
    const [timeout = ''] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
    return Number(readFileSync(`/proc/${timeout}/cmdline`, 'utf8').split('\0')[1]);
  }

  /** The guards of this scene's run. */
  function spawned(): number[] {
    const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ');
    return children.map(Number).filter((pid) => environmentOf(pid).includes(`secret=${here.nonce}`));
  }

  function environmentOf(pid: number): string[] {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
    } catch {
      return [];
    }
  }
});
