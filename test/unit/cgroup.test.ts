// A run's own cgroup, on the real kernel: who is born in it, who leaves it, and what is left of it.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { cgroupSupport, makeCgroup, members, removeTree } from '../../src/process/cgroup.ts';
import type { RunCgroup } from '../../src/process/cgroup.ts';
import { whyKillStays, withoutKill } from '../support/no-cgroup-kill.ts';
import { end, eventually, isAlive, untilGone } from '../support/processes.ts';

const support = cgroupSupport();
const why = support.usable ? '' : ` (left out: ${support.why})`;

const made: RunCgroup[] = [];
const children: ChildProcess[] = [];
afterEach(async () => {
  for (const cgroup of made.splice(0)) {
    await cgroup.leave();
    await eventually(() => {
      // At each look: what was killed may have started another just before.
      members(cgroup.path).forEach(end);
      expect(removeTree(cgroup.path)).toBe(true);
    });
  }
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

function make(run: string = randomUUID()): RunCgroup {
  const cgroup = makeCgroup({ run, clock });
  if ('why' in cgroup) throw new Error(cgroup.why);
  made.push(cgroup);
  return cgroup;
}

/** Runs a script in a session of its own. */
function start(script: string): number {
  const child = spawn('/bin/sh', ['-c', script], { stdio: 'ignore', detached: true });
  children.push(child);
  if (child.pid === undefined) throw new Error('not started');
  return child.pid;
}

const cgroupOf = (pid: number) => /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1];
const ownCgroup = cgroupOf(process.pid);

test('as root on a system with cgroup v2 there is one to be had', () => {
  const isRoot = process.getuid?.() === 0;
  const hasV2 = /^0::/m.test(readFileSync('/proc/self/cgroup', 'utf8'));
  if (isRoot && hasV2) expect(support).toMatchObject({ usable: true });
  else expect(support).toMatchObject({ usable: false, why: /./ });
});

describe.skipIf(!support.usable)(`a run's cgroup${why}`, () => {
  test('trying whether there is one leaves nothing behind', () => {
    const home = support.usable ? support.home : '';
    cgroupSupport();
    expect(existsSync(`${home}/runlock-probe-${process.pid}`)).toBe(false);
  });

  test('what is started between entering and leaving is born inside, with all that it starts', async () => {
    const cgroup = make();
    expect(await cgroup.enter()).toBe(true);
    const pid = start('(env -i setsid sleep 60 &) ; (setsid sleep 60 &); exec sleep 60');
    await cgroup.leave();
    const outside = start('exec sleep 60');
    await eventually(() => expect(cgroup.pids()).toHaveLength(3));
    expect(cgroup.pids()).toContain(pid);
    expect(cgroup.pids()).not.toContain(outside);
    expect(cgroupOf(process.pid)).toBe(ownCgroup);
  });

  test('runlock itself is never counted, and never killed, while it is inside', async () => {
    const cgroup = make();
    await cgroup.enter();
    expect(cgroup.pids()).toEqual([]);
    expect(cgroup.killAll()).toBe(false);
    await cgroup.leave();
    expect(readFileSync(`${cgroup.path}/cgroup.procs`, 'utf8')).toBe('');
  });

  test('all are killed at once, those in cgroups that the command made too', async () => {
    const cgroup = make();
    await cgroup.enter();
    const pid = start(
      `trap '' TERM; mkdir "${cgroup.path}/own"; sleep 60 & echo $! >${cgroup.path}/own/cgroup.procs; wait`,
    );
    await cgroup.leave();
    await eventually(() => expect(members(`${cgroup.path}/own`)).toHaveLength(1));
    const all = cgroup.pids();
    expect(all).toHaveLength(2);
    expect(cgroup.killAll()).toBe(true);
    await untilGone(pid, 2_000);
    await eventually(() => expect(cgroup.pids()).toEqual([]));
  });

  test.skipIf(whyKillStays !== undefined)(
    'before Linux 5.14, which has no cgroup.kill, they are frozen and killed one by one',
    async () => {
      const cgroup = make();
      await cgroup.enter();
      const fork = '(while :; do "$0" -c "exec sleep 60" & sleep 0.01; done)';
      const pid = start(
        `trap '' TERM; mkdir "${cgroup.path}/own"; sleep 60 & echo $! >${cgroup.path}/own/cgroup.procs; ${fork}`,
      );
      await cgroup.leave();
      await eventually(() => expect(members(`${cgroup.path}/own`)).toHaveLength(1));
      await withoutKill(cgroup.path, async () => {
        expect(cgroup.killAll()).toBe(true);
        expect(readFileSync(`${cgroup.path}/cgroup.freeze`, 'utf8')).toBe('1\n');
        await untilGone(pid);
        // Once: nobody of them could fork meanwhile.
        await eventually(() => expect(cgroup.isEmpty()).toBe(true));
      });
    },
  );

  test('closing it moves a daemon to where runlock is, and removes it', async () => {
    const cgroup = make();
    await cgroup.enter();
    const pid = start('exec sleep 60');
    await cgroup.leave();
    await cgroup.close();
    expect(isAlive(pid)).toBe(true);
    expect(cgroupOf(pid)).toBe(ownCgroup);
    expect(existsSync(cgroup.path)).toBe(false);
    expect(cgroup.pids()).toEqual([]);
  });

  test('closing it leaves a daemon that made a cgroup of its own where it is', async () => {
    const cgroup = make();
    await cgroup.enter();
    const pid = start('exec sleep 60');
    await cgroup.leave();
    mkdirSync(`${cgroup.path}/own`);
    writeFileSync(`${cgroup.path}/own/cgroup.procs`, String(pid));
    await cgroup.close();
    expect(cgroup.pids()).toEqual([pid]);
    expect(isAlive(pid)).toBe(true);
  });

  test('closing one that was never entered, or twice, removes it and harms nobody', async () => {
    const cgroup = make();
    await cgroup.close();
    await cgroup.close();
    expect(existsSync(cgroup.path)).toBe(false);
  });

  test('what dead runs left is removed by the next, and what somebody is in stays', async () => {
    const empty = make();
    const busy = make();
    await busy.enter();
    const pid = start('exec sleep 60');
    await busy.leave();
    make().sweep();
    expect(existsSync(empty.path)).toBe(false);
    expect(busy.pids()).toEqual([pid]);
  });

  test('one that another run took for left behind is made again when it is entered', async () => {
    const cgroup = make();
    rmdirSync(cgroup.path);
    expect(await cgroup.enter()).toBe(true);
    expect(cgroupOf(process.pid)).toBe(
      `${ownCgroup === '/' ? '' : ownCgroup}/${cgroup.path.split('/').at(-1)}`,
    );
    await cgroup.leave();
  });
});
