/**
 * A cgroup of its own for a run's command (cgroup v2): a process that is born in it stays in it, whatever it does to
 * its environment, session or parents. Runlock enters it, starts the command there, and leaves (docs/adr/0004).
 */
import {
  accessSync,
  constants,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  writeFile,
  writeFileSync,
} from 'node:fs';
import { kill, pid } from 'node:process';
import type { Clock } from '../platform/deps.ts';

export type CgroupSupport =
  /** `home`: the folder of the cgroup that runlock is in; new ones are made below it. */
  { readonly usable: true; readonly home: string } | { readonly usable: false; readonly why: string };

export interface RunCgroup {
  /** Its folder. */
  readonly path: string;
  /** A process that writes 0 to this file leaves the cgroup; for helpers that are started while runlock is inside. */
  readonly homeFile: string;
  /** Moves runlock in, once; what it starts until `leave` is born inside. False: the move failed. Never rejects. */
  enter(): Promise<boolean>;
  /** Moves runlock out again. Resolves when it is out, or when that failed; never rejects. */
  leave(): Promise<void>;
  /**
   * Processes inside, and in cgroups that the command made below it; never runlock itself. Throws if it can't be read.
   */
  pids(): number[];
  /** Whether the kernel reports no process but runlock, here or in cgroups below. Throws if it can't be read. */
  isEmpty(): boolean;
  /** Sends SIGKILL to every process inside. False: that was impossible, so each must be signalled by itself. */
  killAll(): boolean;
  /** Removes cgroups that dead runs left next to this one. Never throws. */
  sweep(): void;
  /** Leaves the cgroup, moves remaining processes to runlock's own cgroup, and removes it. Never rejects. */
  close(): Promise<void>;
}

const MOUNTS = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'];
/** Names of runs' cgroups, with the run's id; anything else called runlock-* is not ours to remove. */
const FOLDER = /^runlock-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Whether this process can make cgroups below its own. Tries to, and leaves nothing behind. */
export function cgroupSupport(): CgroupSupport {
  const found = findHome();
  if (!found.usable) return found;
  const probe = `${found.home}/runlock-probe-${pid}`;
  const why = tryFolder(found.home, probe);
  removeTree(probe);
  return why === undefined ? found : { usable: false, why };
}

/** The folder of runlock's own cgroup, in the mount where that folder lists runlock's pid. */
function findHome(): CgroupSupport {
  const no = (why: string): CgroupSupport => ({ usable: false, why });
  const line = readLines('/proc/self/cgroup')?.find((each) => each.startsWith('0::'));
  if (line === undefined) return no('this system has no cgroup v2');
  const path = line.slice(3).replace(/\/$/, '');
  if (path.startsWith('/..')) return no('its cgroup is outside of what this namespace shows');
  const isHome = (folder: string) => readPids(`${folder}/cgroup.procs`)?.includes(pid) === true;
  // Try the usual mounts first: reading all of them is slow if there are many.
  const home = MOUNTS.map((mount) => mount + path).find(isHome) ?? mountsOf(path).find(isHome);
  return home === undefined ? no('its cgroup v2 is not mounted here') : { usable: true, home };
}

/** Finds mounts in unusual places (proc_pid_mountinfo(5)). The root that a mount shows is cut off the path. */
function mountsOf(path: string): string[] {
  return (readLines('/proc/self/mountinfo') ?? []).flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ');
    const [, , , root = '', mount = ''] = before.split(' ').map(unescapeOctal);
    if (!after.startsWith('cgroup2 ')) return [];
    if (root === '/') return [mount + path];
    return path === root || path.startsWith(`${root}/`) ? [mount + path.slice(root.length)] : [];
  });
}

const unescapeOctal = (text: string) =>
  text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/** Makes `folder` in `home`. Undefined: it can be used; otherwise why not. */
function tryFolder(home: string, folder: string): string | undefined {
  try {
    mkdirSync(folder, { mode: 0o755 });
    accessSync(`${home}/cgroup.procs`, constants.W_OK);
    accessSync(`${folder}/cgroup.procs`, constants.W_OK);
    const type = readLines(`${folder}/cgroup.type`)?.[0];
    // In a threaded subtree no whole process may enter (cgroups(7)).
    return type === undefined || type === 'domain' ? undefined : `cgroups below ${home} are '${type}'`;
  } catch (error) {
    const { code = String(error) } = error as NodeJS.ErrnoException;
    return code === 'EEXIST' ? undefined : `no cgroup can be made below ${home} (${code})`;
  }
}

/**
 * Makes a cgroup for run `run` below runlock's own. Leaves the cleanup after dead runs to `sweep`, to keep short runs
 * fast.
 * @returns the cgroup, or why this host allows none. Never throws.
 */
export function makeCgroup(options: {
  readonly run: string;
  readonly clock: Clock;
}): RunCgroup | { readonly why: string } {
  const { run, clock } = options;
  const found = findHome();
  if (!found.usable) return { why: found.why };
  const { home } = found;
  const path = `${home}/runlock-${run}`;
  const why = tryFolder(home, path);
  if (why !== undefined) {
    removeTree(path);
    return { why };
  }
  const homeFile = `${home}/cgroup.procs`;
  let entered: Promise<boolean> | undefined;
  let left: Promise<void> | undefined;
  /** True from the moment runlock starts to move in until it is known to be out. */
  let isInside = false;

  async function goIn(): Promise<boolean> {
    isInside = true;
    for (let tries = 1; ; tries++) {
      try {
        await moveTo(`${path}/cgroup.procs`);
        return true;
      } catch (error) {
        if (!isGone(error) || tries >= TRIES) break;
        // Another run found the cgroup empty and removed it as a leftover, so make it again.
        tryMake(path);
      }
    }
    isInside = false;
    return false;
  }

  async function goOut(): Promise<void> {
    if (entered === undefined || !(await entered)) return;
    for (let tries = 1; isInside && tries <= TRIES; tries++) {
      try {
        await moveTo(homeFile);
        isInside = false;
      } catch {
        await clock.sleep(PAUSE_MS, { signal: NEVER });
      }
    }
  }

  const pids = () => members(path).filter((each) => each !== pid);
  return {
    path,
    homeFile,
    pids,
    isEmpty: () => (isInside ? pids().length === 0 : !isPopulated(path)),
    sweep: () => removeLeft(home),
    enter: () => (entered ??= goIn()),
    leave: () => (left ??= goOut()),
    killAll() {
      if (isInside) return false;
      return tryWrite(`${path}/cgroup.kill`) || freezeAndKill();
    },
    async close() {
      await (left ??= goOut());
      if (!isInside) await empty();
    },
  };

  /** For kernels before 5.14. A frozen process can't fork, but SIGKILL still ends it. */
  function freezeAndKill(): boolean {
    tryWrite(`${path}/cgroup.freeze`);
    for (const each of pids()) tryKill(each);
    return true;
  }

  /** Takes a few rounds if a daemon forks meanwhile. A daemon that made cgroups of its own stays in them. */
  async function empty(): Promise<void> {
    // Most runs leave no process behind. The kernel refuses to remove a cgroup that is in use.
    if (tryRemove(path)) return;
    for (let tries = 1; tries <= TRIES; tries++) {
      for (const each of readPids(`${path}/cgroup.procs`) ?? []) tryWrite(homeFile, String(each));
      if (removeTree(path)) return;
      await clock.sleep(PAUSE_MS, { signal: NEVER });
    }
  }
}

/**
 * Moves this process: "0" stands for the process that writes it. The kernel is slow at this, so the write runs on
 * another thread. Avoids node:fs/promises, which takes a millisecond to load.
 */
const moveTo = (file: string) =>
  new Promise<void>((resolve, reject) => {
    writeFile(file, '0', (error) => (error ? reject(error) : resolve()));
  });

const TRIES = 10;
const PAUSE_MS = 5;
const NEVER = new AbortController().signal;

/** The same errno has two names. */
const isUnsupported = (error: unknown): boolean =>
  ['EOPNOTSUPP', 'ENOTSUP'].includes((error as NodeJS.ErrnoException).code ?? '');

/** Pids in a cgroup and all below it. A cgroup that is gone has none. Throws when it can't be read. */
export function members(folder: string): number[] {
  const own = readPids(`${folder}/cgroup.procs`) ?? [];
  return [...own, ...foldersIn(folder).flatMap((name) => members(`${folder}/${name}`))];
}

/** Whether any process is in a cgroup or below, visible in this pid namespace or not. False for a removed cgroup. */
export function isPopulated(folder: string): boolean {
  const lines = readLines(`${folder}/cgroup.events`);
  return lines !== undefined && !lines.includes('populated 0');
}

/** Undefined: there is no such cgroup, or it is threaded, in which case the domain above it lists its processes. */
function readPids(file: string): number[] | undefined {
  // A process of another pid namespace shows as 0, which kill(2) would take for runlock's own group.
  return readLines(file)
    ?.map(Number)
    .filter((pid) => pid > 0);
}

/** ENODEV: the cgroup was removed during the read or write. */
const isGone = (error: unknown): boolean =>
  ['ENOENT', 'ENODEV', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '');

/** Undefined: there is no such file, or it is one that a threaded cgroup does not support (cgroups(7)). */
function readLines(file: string): string[] | undefined {
  try {
    return readFileSync(file, 'utf8').split('\n');
  } catch (error) {
    if (isGone(error) || isUnsupported(error)) return undefined;
    throw error;
  }
}

function foldersIn(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

/** Removes cgroups that killed runs left behind; the kernel refuses to remove one that is in use. */
function removeLeft(home: string): void {
  try {
    for (const name of foldersIn(home)) if (FOLDER.test(name)) removeTree(`${home}/${name}`);
  } catch {
    // Leftover cgroups do no harm.
  }
}

/** True: the cgroup is gone. False: it, or one below it, is in use. */
export function removeTree(folder: string): boolean {
  try {
    for (const name of foldersIn(folder)) removeTree(`${folder}/${name}`);
    rmdirSync(folder);
    return true;
  } catch (error) {
    return isGone(error);
  }
}

function tryRemove(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch {
    return false;
  }
}

function tryMake(folder: string): void {
  try {
    mkdirSync(folder);
  } catch {
    // The next step reports what is wrong.
  }
}

function tryWrite(file: string, text = '1'): boolean {
  try {
    writeFileSync(file, text);
    return true;
  } catch {
    return false;
  }
}

function tryKill(pid: number): void {
  try {
    kill(pid, 'SIGKILL');
  } catch {
    // It is gone.
  }
}
