// Who belongs to a run, counted by the kernel: what its command does to hide from runlock does not help it.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';

import { hide } from '../support/hiding.ts';
import { makeCell, whyNoCell } from '../support/kernel-count.ts';
import { useAgent } from '../support/use-agent.ts';
import { eventually, guardOf, isAlive, untilGone } from '../support/processes.ts';
import { startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { LONG } from '../support/history/steps.ts';

const agent = useAgent();

const why = whyNoCell;
const reason = why === undefined ? '' : ` (left out: ${why})`;

describe.skipIf(why !== undefined)(`in a cgroup${reason}`, () => {
  test.each([
    ['the end of --timeout', ['--timeout', '3s', '--kill-after', '1s'], undefined, 124],
    ['TERM', ['--kill-after', '1s'], 'SIGTERM', 143],
  ] as const)('%s: whoever hides is dead before runlock ends', LONG, async (_, args, signal, status) => {
    const counted = makeCell({ nests: true });
    const { run, ready } = hide(agent, 50, { through: counted.through, args });
    await ready();
    if (signal) run.signal(signal);
    expect((await run.ended).status).toBe(signal ? 137 : status);
    expect(counted.pids()).toEqual([]);
  });

  test('a command that fails takes all that hid with it', LONG, async () => {
    const counted = makeCell({ nests: true });
    const args = [
      'exec',
      '-g',
      'contained/failed',
      '--',
      'sh',
      '-c',
      '(env -i setsid sleep 300 >/dev/null 2>&1 &); exit 3',
    ];
    const run = startRunlock(agent, args, { through: counted.through });
    expect((await run.ended).status).toBe(3);
    expect(counted.pids()).toEqual([]);
  });

  test.each([
    ['fails', [], 'sleep 0.3; exit 3', 3],
    ['runs too long', ['--timeout', '1s', '--kill-after', '1s'], 'sleep 300', 124],
  ] as const)('a chain of forks ends with a command that %s', async (_, more, last, status) => {
    const counted = makeCell({ nests: true });
    // Each of it lives for a millisecond, in a session of its own, and nobody is its parent.
    const chain = 'while (1) { exit if fork; POSIX::setsid(); select undef, undef, undef, 0.001 }';
    const script = `perl -MPOSIX -e '${chain}' >/dev/null 2>&1; ${last}`;
    const args = ['exec', '-g', 'contained/chain', '--kill-after', '1s', ...more, '--', 'sh', '-c', script];
    const run = startRunlock(agent, args, { through: counted.through });
    expect((await run.ended).status).toBe(status);
    expect(counted.pids()).toEqual([]);
    // The next run clears the claim.
    expect((await startRunlock(agent, [...args.slice(0, 3), '--', 'true']).ended).status).toBe(0);
  });

  test('a command that makes threaded cgroups ends, with all that is in them', async () => {
    const counted = makeCell({ nests: true });
    const script = `own=$(sed -n 's/^0:://p' /proc/self/cgroup); dir=${counted.folder}/\${own##*/}/a
      mkdir "$dir" && echo threaded >"$dir/cgroup.type" && sleep 300 & echo $! >"$dir/cgroup.threads" 2>/dev/null; exit 3`;
    const args = ['exec', '-g', 'contained/threaded', '--kill-after', '1s', '--', 'sh', '-c', script];
    const run = startRunlock(agent, args, { through: counted.through });
    expect((await run.ended).status).toBe(3);
    expect(counted.pids()).toEqual([]);
  });

  test('a daemon that a good run left goes on where runlock was, and no cgroup stays', LONG, async () => {
    const counted = makeCell({ nests: true });
    const args = [
      'exec',
      '-g',
      'contained/good',
      '--',
      'sh',
      '-c',
      '(env -i setsid sleep 300 >/dev/null 2>&1 &)',
    ];
    const run = startRunlock(agent, args, { through: counted.through });
    expect(await run.ended).toMatchObject({ status: 0, stderr: '' });
    const [pid = 0, ...others] = counted.pids();
    expect(others).toEqual([]);
    expect(isAlive(pid)).toBe(true);
    expect(cgroupOf(pid)?.endsWith(counted.folder.split('/').at(-1) ?? '-')).toBe(true);
    expect(readdirSync(counted.folder).filter((name) => name.startsWith('runlock-'))).toEqual([]);
  });

  test('who moved to another cgroup, as su(1) does, is found by its mark', LONG, async () => {
    const counted = makeCell({ nests: true });
    const away = makeCell({ nests: true });
    const script = `echo 0 >"${away.folder}/cgroup.procs"; trap '' TERM; while :; do sleep 300; done`;
    const args = ['exec', '-g', 'contained/su', '--', 'sh', '-c', 'sh -c "$0" & wait', script];
    const run = startRunlock(agent, args, { through: counted.through });
    await eventually(() => expect(away.pids()).not.toEqual([]));
    run.signal('SIGKILL');
    await eventually(() => expect([...away.pids(), ...counted.pids()]).toEqual([]));
  });

  test('a run that waits or ends leaves no cgroup behind', LONG, async () => {
    const counted = makeCell({ nests: true });
    const holder = startRunlock(agent, ['exec', '-g', 'contained/wait', '--', 'sleep', '300']);
    await eventually(() => guardOf(holder.pid));
    const args = ['exec', '-g', 'contained/wait', '--node', 'web02', '-w', '300ms', '--', 'true'];
    const run = startRunlock(agent, args, { through: counted.through });
    expect((await run.ended).status).toBe(75);
    expect(readdirSync(counted.folder).filter((name) => name.startsWith('runlock-'))).toEqual([]);
  });
});

describe.skipIf(why !== undefined)(`without a cgroup${reason}`, () => {
  test('SIGKILL of runlock with 7,500 children: all are gone soon', LONG, async () => {
    const { folder } = stage();
    const script = `perl -e 'for (1 .. 7500) { sleep 300, exit if !fork }' >/dev/null 2>&1; echo $$ >"$folder/command.pid"; exec sleep 300 >/dev/null 2>&1`;
    const args = ['exec', '-g', 'bare/many', '--', 'sh', '-c', script];
    const run = startRunlock(agent, args, { env: { folder }, through: makeCell({ nests: false }).through });
    // Without a terminal the command leads a group of its own.
    const group = await eventually(() => {
      const text = readFileSync(join(folder, 'command.pid'), 'utf8');
      // It is there before it is written.
      expect(text).toMatch(/^\d+\n$/);
      return Number(text);
    }, 120_000);
    await eventually(() => expect(inGroup(group)).toBe(7_501));
    const guard = guardOf(run.pid);
    run.signal('SIGKILL');
    await eventually(() => expect(inGroup(group)).toBe(0), 20_000);
    await untilGone(guard);
  });

  test('it says in the debug log why there is none, and runs all the same', async () => {
    const args = ['exec', '-v', '-g', 'bare/says', '--', 'true'];
    const run = startRunlock(agent, args, { through: makeCell({ nests: false }).through });
    expect(await run.ended).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/no cgroup for the command: /) as string,
    });
  });

  test('runlock and its guard read one clock, also where a container has its own', LONG, async () => {
    const { folder } = stage();
    const file = join(folder, 'uptime');
    const show = () => {
      const seconds = Number.parseFloat(readFileSync('/proc/uptime', 'utf8')) + 50_000;
      writeFileSync(file, `${seconds.toFixed(2)} 0.00\n`);
    };
    show();
    const ticking = setInterval(show, 20);
    onTestFinished(() => clearInterval(ticking));
    const through = [
      ...['unshare', '--mount', '--propagation', 'private', '/bin/sh', '-c'],
      ...['mount --bind "$0" /proc/uptime && exec "$@"', file],
    ];
    const args = ['exec', '-g', 'bare/clock', '--hold', 'none', '--', 'sleep', '8'];
    expect(await startRunlock(agent, args, { through }).ended).toMatchObject({ status: 0, stderr: '' });
  });
});

/** The cgroup v2 of a process, as the kernel names it. */
function cgroupOf(pid: number): string | undefined {
  return /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1];
}

/** Processes of a process group. */
function inGroup(group: number): number {
  const stats = readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return [readFileSync(`/proc/${name}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? []];
    } catch {
      return [];
    }
  });
  return stats.filter(([state, , pgrp]) => state !== 'Z' && Number(pgrp) === group).length;
}
