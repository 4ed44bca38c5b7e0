// Cgroups that a test makes for itself: who is in one is counted by the kernel, whatever the product thinks of it.
import { mkdirSync, readFileSync } from 'node:fs';
import { onTestFinished } from 'vitest';
import { cgroupSupport, members, removeTree } from '../../src/process/cgroup.ts';
import { end, eventually } from './processes.ts';

/** Why this host gives a test no cgroup; undefined: it does. */
export function whyNoCgroup(): string | undefined {
  const support = cgroupSupport();
  return support.usable ? undefined : support.why;
}

export interface Counted {
  readonly path: string;
  /** Starts a program inside. */
  readonly through: readonly string[];
  /** Everybody inside, in all cgroups below it too. */
  readonly pids: () => number[];
}

let made = 0;

/** A cgroup below the test's own. Whoever is in it when the test has finished is killed. */
export function countedCgroup(): Counted {
  const support = cgroupSupport();
  if (!support.usable) throw new Error(support.why);
  const path = `${support.home}/test-${process.pid}-${++made}`;
  mkdirSync(path);
  onTestFinished(async () => {
    members(path).forEach(end);
    await eventually(() => {
      if (!removeTree(path)) throw new Error(`${path} is still in use`);
    });
  });
  const through = ['/bin/sh', '-c', `echo 0 >"${path}/cgroup.procs" && exec "$@"`, 'sh'];
  return { path, through, pids: () => members(path) };
}

/** Starts a program where no cgroup can be made: in its view of the system there is none. Needs root. */
export const WITHOUT_CGROUP = [
  ...['unshare', '--mount', '--propagation', 'private', '/bin/sh', '-c'],
  ...['mount -t tmpfs none /sys/fs/cgroup && exec "$@"', 'sh'],
];

/** The cgroup v2 of a process, as the kernel names it. */
export function cgroupOf(pid: number): string | undefined {
  return /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1];
}
