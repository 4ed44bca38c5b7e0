// Who of all that a test started is alive, by the kernel and not by the product: everybody in a cgroup of the test's own,
// whatever they did to their environment, session, parents and names. A zombie is not there any more.
import {
  accessSync,
  constants,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { end, eventually } from './processes.ts';

export interface Cell {
  readonly folder: string;
  /** What a command line is started through, to be in from the start: for `StartOptions`, or as its first words. */
  readonly through: readonly string[];
  /** Everybody in it, and in what was made below it. */
  readonly pids: () => number[];
  /** Milliseconds until nobody is. */
  readonly untilEmpty: (timeout?: number) => Promise<number>;
}

const MOUNTS = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'];

/** Why this host gives none, for the name of the tests that are left out; undefined: it does. */
export const whyNoCell: string | undefined = (() => {
  const home = ownFolder();
  if (home === undefined) return 'no cgroup v2 is mounted that this process is in';
  try {
    // To move somebody out of here takes the right to write here too.
    accessSync(join(home, 'cgroup.procs'), constants.W_OK);
    const probe = join(home, `probe-${process.pid}`);
    mkdirSync(probe);
    rmdirSync(probe);
    return undefined;
  } catch (error) {
    return `no cgroup can be made below ${home} (${(error as NodeJS.ErrnoException).code ?? String(error)})`;
  }
})();

let made = 0;

/**
 * A cgroup that ends with its test, and everybody in it.
 * @param nests whether runlock may make one of its own below it; if not, it has to do as on a host that gives none.
 */
export function makeCell({ nests }: { readonly nests: boolean }): Cell {
  const home = ownFolder();
  if (whyNoCell !== undefined || home === undefined) throw new Error(`no cell: ${whyNoCell ?? ''}`);
  made += 1;
  // Not runlock-…: runlock removes what its dead runs have left under such names.
  const folder = join(home, `test-${process.pid}-${made}`);
  mkdirSync(folder);
  onTestFinished(() => remove(folder));
  if (!nests) writeFileSync(join(folder, 'cgroup.max.descendants'), '0');
  return {
    folder,
    through: ['sh', '-c', 'echo 0 >"$0/cgroup.procs" && exec "$@"', folder],
    pids: () => pidsIn(folder),
    untilEmpty: async (timeout) => {
      const startMs = performance.now();
      await eventually(() => {
        const left = pidsIn(folder);
        if (left.length > 0)
          throw new Error(`${left.length} live: ${left.slice(0, 20).map(named).join(', ')}`);
      }, timeout);
      return performance.now() - startMs;
    },
  };
}

/** The folder of this process's own cgroup, in the mount that shows it there. */
function ownFolder(): string | undefined {
  const [, path] = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8')) ?? [];
  if (path === undefined) return undefined;
  return MOUNTS.map((mount) => join(mount, path)).find((folder) =>
    readPids(join(folder, 'cgroup.procs')).includes(process.pid),
  );
}

function pidsIn(folder: string): number[] {
  return [folder, ...foldersBelow(folder)].flatMap((each) => readPids(join(each, 'cgroup.procs')));
}

/** Those deep inside first. */
function foldersBelow(folder: string): string[] {
  return orNone(() => readdirSync(folder, { withFileTypes: true }))
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(folder, name))
    .flatMap((each) => [...foldersBelow(each), each]);
}

function readPids(file: string): number[] {
  return orNone(() => readFileSync(file, 'utf8').split('\n').filter(Boolean)).map(Number);
}

/** A cgroup that is removed while somebody reads it says ENOENT or ENODEV. Anything else is no count. */
function orNone<T>(read: () => T[]): T[] {
  try {
    return read();
  } catch (error) {
    if (['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

function named(pid: number): string {
  const [name] = orNone(() => [readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()]);
  return `${pid} ${name ?? ''}`;
}

async function remove(folder: string): Promise<void> {
  await eventually(() => {
    pidsIn(folder).forEach(end);
    for (const each of [...foldersBelow(folder), folder]) rmdirSync(each);
  });
}

/** Starts a program in whose view of the system there are no cgroups. Needs root. */
export const WITHOUT_CGROUP = [
  ...['unshare', '--mount', '--propagation', 'private', '/bin/sh', '-c'],
  ...['mount -t tmpfs none /sys/fs/cgroup && exec "$@"', 'sh'],
];
