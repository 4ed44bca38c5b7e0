// What the guard can see, and that a look which failed proves nothing to it.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { keepGuard } from '../../src/process/guard/guard.ts';
import type { Guard, GuardEvent } from '../../src/process/guard/guard.ts';
import { cgroupSupport, makeCgroup, members, removeTree } from '../../src/process/cgroup.ts';
import { liveStartTime } from '../../src/process/process-tree.ts';
import { realClock } from '../support/drivers/clock.ts';
import { startHollow, whyNotHollow } from '../support/hollow.ts';
import { whyKillStays, withoutKill } from '../support/no-cgroup-kill.ts';
import { end, eventually, isAlive, scene, untilGone } from '../support/processes.ts';
import type { Scene } from '../support/processes.ts';

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

/** Starts a script in a session of its own; `$1` is the folder. It is marked unless `env` says otherwise. */
function start(script: string, env: NodeJS.ProcessEnv = { ...process.env, RUNLOCK_RUN_MARK: here.nonce }) {
  spawn('/bin/sh', ['-c', script, 'sh', here.folder], { env, stdio: 'ignore', detached: true }).unref();
}

/** Puts a script in front of a program on the guard's PATH. `$1` and on are the program's arguments. */
function wrap(name: string, script: string) {
  const text = `#!/bin/sh\nfolder=${here.folder}\n${script}\nexec /usr/bin/${name} "$@"\n`;
  writeFileSync(join(here.folder, name), text, { mode: 0o755 });
}

/** A guard whose command has not been named to it. */
function watch(lifeMs: number, cgroup?: ReturnType<typeof make>, notes?: string) {
  const events: GuardEvent[] = [];
  const report = (event: GuardEvent) => events.push(event);
  const options = { nonce: here.nonce, path: `${here.folder}:/usr/bin:/bin`, clock: realClock, notes };
  guard = keepGuard({ ...options, lifeMs, report, ...(cgroup && { cgroup: () => cgroup }) });
  return { events, pid: guard.pids()[0] ?? 0 };
}

const deaf = `trap '' TERM; echo $$ >"$1/deaf.pid"; while :; do sleep 60; done`;

describe('a look that failed', () => {
  const failing =
    'left=$(cat "$folder/left"); [ "$left" = 0 ] || { echo $((left - 1)) >"$folder/left"; exit 2; }';

  test.each(['grep', 'awk'])('by %s, again and again, is no proof that nobody is left', async (name) => {
    wrap(name, failing);
    writeFileSync(join(here.folder, 'left'), '12\n');
    start(deaf);
    const pid = await here.pid('deaf');
    const { events } = watch(100);
    await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
    expect(isAlive(pid)).toBe(false);
    expect(here.lines('left')).toEqual(['0']);
  });

  test('of a grep that saw only a part is none either', async () => {
    wrap(
      'grep',
      `[ -e "$folder/whole" ] || { : >"$folder/whole"; exec /usr/bin/grep "$1" -f /proc/self/fd/0 /dev/null; }`,
    );
    start(deaf);
    const pid = await here.pid('deaf');
    const { events } = watch(100);
    await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
    expect(isAlive(pid)).toBe(false);
  });

  test('for good, leaves the guard on duty, and the command itself is killed', async () => {
    wrap('awk', ': >"$folder/asked"; exit 2');
    start('echo $$ >"$1/command.pid"; trap "" TERM; while :; do sleep 60; done');
    const pid = await here.pid('command');
    const { events } = watch(60_000);
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
    guard?.watch({ pid, startTime: stat[19] ?? '' });
    guard?.beat(100);
    await untilGone(pid, 5_000);
    expect(events).toEqual([]);
  });
});

const without = whyNotHollow === undefined ? '' : ` (left out: ${whyNotHollow})`;

test.skipIf(whyNotHollow !== undefined)(
  `a program whose main thread has ended is found by its mark, and dies${without}`,
  async () => {
    const pid = await startHollow(here);
    const { events } = watch(100);
    await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
    expect(liveStartTime(pid)).toBeUndefined();
  },
);

test('programs that do not work are noticed while there is time, not when they are needed', async () => {
  wrap('awk', 'exit 2');
  const { events } = watch(60_000);
  await eventually(() => expect(events[0]).toMatchObject({ kind: 'failed' }));
});

test('nothing about the run is in the command line of the guard or of what it starts', async () => {
  wrap('grep', 'tr "\\0" "\\n" <"/proc/$$/cmdline" >>"$folder/words"');
  wrap('awk', 'tr "\\0" "\\n" <"/proc/$$/cmdline" >>"$folder/words"');
  start(deaf);
  await here.pid('deaf');
  const { events, pid } = watch(1_000);
  const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
  const all = [words, ...here.lines('words')].join('\n');
  expect(all).toContain('/proc/');
  expect(all).not.toContain(here.nonce);
  expect(all).not.toContain(here.runId);
  // `pkill -9 -f runlock` must not take both.
  expect(words).not.toMatch(/runlock/i);
});

test('a runlock of old that a member has the pid of now is spared nothing', async () => {
  start(deaf.replaceAll('deaf', 'named'));
  start(deaf);
  const [named, other] = await Promise.all([here.pid('named'), here.pid('deaf')]);
  writeFileSync(join(here.folder, 'x.json'), `{"v":1,"runlock":{"pid":${named},"startTime":"1"}}\n`);
  const { events } = watch(100, undefined, here.folder);
  await untilGone(other);
  // A runlock inside would have three seconds more.
  await untilGone(named, 2_000);
  await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
});

function make() {
  const cgroup = makeCgroup({ run: randomUUID(), clock });
  if ('why' in cgroup) throw new Error(cgroup.why);
  return cgroup;
}

const support = cgroupSupport();
const why = support.usable ? '' : ` (left out: ${support.why})`;
const cgroupOf = (pid: number) => readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('0::').at(-1);

describe.skipIf(!support.usable)(`in a cgroup${why}`, () => {
  /** Nothing shows where it belongs: no mark, no parent, no session. */
  const unknown = `(setsid sh -c 'trap "" TERM; echo $$ >"$1/unknown.pid"; while :; do sleep 60; done' sh "$1" &)`;

  test('all die, whatever they did to their environment, parents and session', async () => {
    const cgroup = make();
    await cgroup.enter();
    start(unknown, {});
    await cgroup.leave();
    const pid = await here.pid('unknown');
    const { events } = watch(100, cgroup);
    await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
    expect(isAlive(pid)).toBe(false);
    // The guard removes what it emptied.
    await eventually(() => expect(members(cgroup.path)).toEqual([]));
  });

  test.skipIf(whyKillStays !== undefined)('also before Linux 5.14, which has no cgroup.kill', async () => {
    const cgroup = make();
    await cgroup.enter();
    const forking = `(setsid sh -c 'trap "" TERM; echo $$ >"$1/forking.pid"; while :; do sleep 60 & sleep 0.01; done' sh "$1" &)`;
    start(`${unknown}; ${forking}`, {});
    await cgroup.leave();
    const pids = await Promise.all([here.pid('unknown'), here.pid('forking')]);
    // Deeper than the guard removes: what is mounted below goes before it does.
    mkdirSync(`${cgroup.path}/a/b/c`, { recursive: true });
    await withoutKill(cgroup.path, async () => {
      const { events } = watch(100, cgroup);
      await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
      expect(pids.filter(isAlive)).toEqual([]);
      expect(members(cgroup.path)).toEqual([]);
    });
    removeTree(cgroup.path);
  });

  test('who left it is found by the mark, and dies too', async () => {
    const cgroup = make();
    await cgroup.enter();
    start(unknown, {});
    start(`echo 0 >"${cgroup.homeFile}"; ${deaf}`);
    await cgroup.leave();
    const pids = await Promise.all([here.pid('unknown'), here.pid('deaf')]);
    const { events } = watch(100, cgroup);
    await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
    expect(pids.filter(isAlive)).toEqual([]);
  });

  test('a runlock that is inside and stopped lives on, and the guard is outside', async () => {
    const cgroup = make();
    await cgroup.enter();
    try {
      start(unknown, {});
      const pid = await here.pid('unknown');
      const { events, pid: own } = watch(1_000, cgroup);
      await eventually(() => expect(cgroupOf(own)).not.toBe(cgroupOf(process.pid)));
      await eventually(() => expect(events).toEqual([{ kind: 'fired' }]));
      expect(isAlive(pid)).toBe(false);
      expect(cgroup.pids()).toEqual([]);
    } finally {
      members(cgroup.path)
        .filter((pid) => pid !== process.pid)
        .forEach(end);
      await cgroup.close();
    }
  });
});
