/**
 * A cgroup of its own for a run's command (cgroup v2): whoever is born in it stays, whatever it does to its environment,
 * session or parents. Runlock enters it, starts the command there, and leaves (docs/adr/0004).
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
  /** The file that brings back whoever writes 0 into it: a helper that is started while runlock is inside. */
  readonly homeFile: string;
  /** Goes in, once; whatever is started from then on until `leave` is born inside. False: there is no way in. Never rejects. */
  enter(): Promise<boolean>;
  /** Goes out again. Resolves when it is out, or can't be; never rejects. */
  leave(): Promise<void>;
  /** Who is inside, in cgroups that the command made below it too; never runlock itself. Throws when it can't be read. */
  pids(): number[];
  /** What the kernel says: nobody but runlock itself is inside, in cgroups below it neither. Throws when it can't be read. */
  isEmpty(): boolean;
  /** SIGKILL for everybody inside. False: it could not be done at once, and each has to be signalled. */
  killAll(): boolean;
  /** Removes what dead runs left beside it. Never throws. */
  sweep(): void;
  /** Leaves, moves whoever is still inside to where runlock is, and removes it. Never rejects. */
  close(): Promise<void>;
}

const MOUNTS = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'];
/** A run's cgroup, by its id: whatever else is called runlock-something is not ours to remove. */
const FOLDER = /^runlock-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Whether this process may have cgroups below its own. Tries it, and leaves nothing behind. */
export function cgroupSupport(): CgroupSupport {
  const found = findHome();
  if (!found.usable) return found;
  const probe = `${found.home}/runlock-probe-${pid}`;
  const why = tryFolder(found.home, probe);
  removeTree(probe);
  return why === undefined ? found : { usable: false, why };
}

/** The folder of the own cgroup: in the mount where the own pid is found in it. */
function findHome(): CgroupSupport {
  const no = (why: string): CgroupSupport => ({ usable: false, why });
  const line = readLines('/proc/self/cgroup')?.find((each) => each.startsWith('0::'));
  if (line === undefined) return no('this system has no cgroup v2');
  const path = line.slice(3).replace(/\/$/, '');
  if (path.startsWith('/..')) return no('its cgroup is outside of what this namespace shows');
  const isHome = (folder: string) => readPids(`${folder}/cgroup.procs`)?.includes(pid) === true;
  // To read all mounts takes long where there are many.
  const home = MOUNTS.map((mount) => mount + path).find(isHome) ?? mountsOf(path).find(isHome);
  return home === undefined ? no('its cgroup v2 is not mounted here') : { usable: true, home };
}

/** For mounts in unusual places: proc_pid_mountinfo(5); what a mount shows as its root is cut off the path. */
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
 * Makes a cgroup for run `run` below the own one. What dead runs have left there goes with `sweep`: a short run has better things to do.
 * @returns why there is none, where the host gives none. Never throws.
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
  /** From the moment it goes in until it is known to be out. */
  let isInside = false;

  async function goIn(): Promise<boolean> {
    isInside = true;
    for (let tries = 1; ; tries++) {
      try {
        await moveTo(`${path}/cgroup.procs`);
        return true;
      } catch (error) {
        if (!isGone(error) || tries >= TRIES) break;
        // Another run found it empty, and took it for one that was left behind.
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

  /** For kernels before 5.14. What is frozen can't fork, and dies of KILL all the same. */
  function freezeAndKill(): boolean {
    tryWrite(`${path}/cgroup.freeze`);
    for (const each of pids()) tryKill(each);
    return true;
  }

  /** A daemon that forks meanwhile takes a few rounds. One that has made cgroups of its own stays in them. */
  async function empty(): Promise<void> {
    // Most runs leave nobody: the kernel keeps one that somebody is in.
    if (tryRemove(path)) return;
    for (let tries = 1; tries <= TRIES; tries++) {
      for (const each of readPids(`${path}/cgroup.procs`) ?? []) tryWrite(homeFile, String(each));
      if (removeTree(path)) return;
      await clock.sleep(PAUSE_MS, { signal: NEVER });
    }
  }
}

/**
 * Moves this process: "0" is whoever writes it. The kernel takes its time for that, so a thread waits for it, not this one.
 * Not by node:fs/promises, which takes a millisecond to load.
 */
const moveTo = (file: string) =>
  new Promise<void>((resolve, reject) => {
    writeFile(file, '0', (error) => (error ? reject(error) : resolve()));
  });

const TRIES = 10;
const PAUSE_MS = 5;
const NEVER = new AbortController().signal;

/** The same number under two names. */
const isUnsupported = (error: unknown): boolean =>
  ['EOPNOTSUPP', 'ENOTSUP'].includes((error as NodeJS.ErrnoException).code ?? '');

/** Pids in a cgroup and all below it. A cgroup that is gone has none. Throws when it can't be read. */
export function members(folder: string): number[] {
  const own = readPids(`${folder}/cgroup.procs`) ?? [];
  return [...own, ...foldersIn(folder).flatMap((name) => members(`${folder}/${name}`))];
}

/** Whether somebody lives in a cgroup or below it, seen from this pid namespace or not. One that is gone has nobody. */
export function isPopulated(folder: string): boolean {
  const lines = readLines(`${folder}/cgroup.events`);
  return lines !== undefined && !lines.includes('populated 0');
}

/** Undefined: there is no such cgroup, or it is threaded: then the domain that it belongs to names its processes. */
function readPids(file: string): number[] | undefined {
  // A process of another pid namespace shows as 0, which kill(2) would take for runlock's own group.
  return readLines(file)
    ?.map(Number)
    .filter((pid) => pid > 0);
}

/** A cgroup that is removed in the middle of a read or write says ENODEV. */
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

/** A run that was killed leaves its cgroup; the kernel keeps one that somebody is in. */
function removeLeft(home: string): void {
  try {
    for (const name of foldersIn(home)) if (FOLDER.test(name)) removeTree(`${home}/${name}`);
  } catch {
    // They harm nobody.
  }
}

/** True: it is gone. False: somebody is in it, or in one below. */
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
    // The next step says what is wrong.
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
