// A command that fills its limit of processes must not disarm the guard, which is under the same limit.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { GUARD_NAME } from '../../src/process/guard/guard.ts';
import { FIRED, guardScript } from '../../src/process/guard/script.ts';
import { cgroupSupport, makeCgroup, members } from '../../src/process/cgroup.ts';
import { startTime } from '../../src/process/process-tree.ts';
import { end, eventually, isAlive, readerOf, scene, untilGone } from '../support/processes.ts';
import type { Scene } from '../support/processes.ts';

let here: Scene;
beforeEach(() => {
  here = scene();
});
afterEach(() => here.clean());

/** The folder of this process in the hierarchy that limits processes: that of v1, or v2 with the controller. */
const home = (() => {
  const own = readFileSync('/proc/self/cgroup', 'utf8');
  const v1 = /^\d+:pids:(.*)$/m.exec(own)?.[1];
  const v2 = /^0::(.*)$/m.exec(own)?.[1];
  return v1 === undefined ? join('/sys/fs/cgroup', v2 ?? '') : join('/sys/fs/cgroup/pids', v1);
})();

function makeLimit() {
  const folder = join(home, `test-${randomUUID()}`);
  mkdirSync(folder);
  const set = (file: string, value: number | string) => writeFileSync(join(folder, file), String(value));
  return {
    folder,
    set: (most: number | 'max') => set('pids.max', most),
    take: (pid: number) => set('cgroup.procs', pid),
    /** How often a fork has failed. */
    failures: () => Number(/^max (\d+)/m.exec(readFileSync(join(folder, 'pids.events'), 'utf8'))?.[1]),
    close: () => eventually(() => rmdirSync(folder)),
  };
}

const why = (() => {
  const support = cgroupSupport();
  if (!support.usable) return support.why;
  try {
    const folder = join(home, `probe-${process.pid}`);
    mkdirSync(folder);
    const isThere = existsSync(join(folder, 'pids.events'));
    rmdirSync(folder);
    return isThere ? undefined : `no pids controller below ${home}`;
  } catch (error) {
    return `no cgroup can be made below ${home} (${String(error)})`;
  }
})();

describe.skipIf(why !== undefined)(
  `the limit is reached${why === undefined ? '' : ` (left out: ${why})`}`,
  () => {
    const deaf = `trap '' TERM; echo $$ >"$1/command.pid"; while :; do sleep 60; done`;

    /** A command, and a guard that may start `room` processes; `own`: whether the command has a cgroup. */
    async function scarce(room: number, { own = true, shell = '/bin/sh' } = {}) {
      const cgroup = own ? makeCgroup({ run: randomUUID(), clock }) : undefined;
      if (cgroup && 'why' in cgroup) throw new Error(cgroup.why);
      await cgroup?.enter();
      const env = { ...process.env, RUNLOCK_RUN_MARK: here.nonce };
      spawn('/bin/sh', ['-c', deaf, 'sh', here.folder], { env, stdio: 'ignore', detached: true }).unref();
      const command = await here.pid('command');
      await cgroup?.leave();

      const limit = makeLimit();
      const args = ['-c', 'echo 0 >"$limit/cgroup.procs"; eval "$script"', GUARD_NAME, '600'];
      const guard = spawn(shell, args, {
        env: {
          ...{ PATH: '/usr/bin:/bin', script: guardScript, secret: here.nonce, notes: '', home: '' },
          ...{ folder: cgroup?.path ?? '', limit: limit.folder },
        },
        detached: true,
        stdio: ['pipe', 'ignore', 'ignore'],
      });
      const pid = guard.pid ?? 0;
      let status: number | null | undefined;
      guard.on('exit', (code) => (status = code));
      onTestFinished(async () => {
        end(pid);
        end(command);
        await untilGone(pid);
        await limit.close();
        await cgroup?.close();
      });
      const say = (message: string) => guard.stdin.write(`${message.padEnd(47)}\n`);
      const beat = (tenths: number) => {
        const now = Number.parseFloat(readFileSync('/proc/uptime', 'utf8')) * 10;
        say(`beat ${Math.floor(now + tenths)} ${command} ${startTime(command) ?? ''}`);
      };
      // The helper that reads is there: the next word makes the guard start another.
      await eventually(() => readerOf(pid));
      limit.set(room + 1);
      beat(600);
      await eventually(() => expect(limit.failures()).toBeGreaterThan(0), 20_000);
      return { command, pid, limit, guard, say, beat, cgroup, status: () => status };
    }

    /** Once it waits by itself. */
    const waits = (pid: number) =>
      eventually(() => {
        expect(children(pid)).toBe('');
        expect(readFileSync(`/proc/${pid}/stat`, 'utf8')).toMatch(/\) S /);
      });

    test.each([0, 1, 2])('room for %i: when runlock is gone the command is killed', async (room) => {
      const { command, limit, guard, cgroup } = await scarce(room);
      expect(isAlive(command)).toBe(true);
      guard.stdin.end();
      await untilGone(command);
      await eventually(() => expect(members(cgroup?.path ?? '')).toEqual([]));
      limit.set('max');
    });

    test('it hears that it is to leave, and kills nobody', async () => {
      const { command, say, pid, status } = await scarce(0);
      await waits(pid);
      say('quit');
      await eventually(() => expect(status()).toBe(0));
      expect(isAlive(command)).toBe(true);
    });

    test('signals do not pass for the end of runlock', async () => {
      const { command, say, pid, status } = await scarce(0);
      await waits(pid);
      for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) process.kill(pid, signal);
      say('quit');
      await eventually(() => expect(status()).toBe(0));
      expect(isAlive(command)).toBe(true);
    });

    test('when there is room again it fires on silence, as before', async () => {
      const { command, limit, beat, status } = await scarce(0);
      limit.set('max');
      beat(5);
      await untilGone(command);
      await eventually(() => expect(status()).toBe(FIRED));
    });

    test('without a cgroup the command and its group are killed', async () => {
      const { command, guard } = await scarce(0, { own: false });
      guard.stdin.end();
      await untilGone(command);
    });

    // It tries for 15 seconds, and then ends for good.
    const bash = '/bin/bash';
    test.skipIf(!existsSync(bash))(
      'also by bash, which ends when it cannot fork',
      { timeout: 60_000 },
      async () => {
        const { command, guard, status } = await scarce(0, { shell: bash });
        guard.stdin.end();
        await untilGone(command, 40_000);
        await eventually(() => expect(status()).toBe(FIRED));
      },
    );
  },
);

function children(pid: number): string {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
}
