/** Prepares a cgroup and the caller's limit of open files for a run's command, to be ready when the slot is granted. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { pid, ppid } from 'node:process';
import type { Emit } from '../events/events.ts';
import type { Clock } from '../platform/deps.ts';
import { makeCgroup } from './cgroup.ts';
import type { RunCgroup } from './cgroup.ts';

export interface Containment {
  /** Undefined: this host allows none. */
  readonly cgroup: () => RunCgroup | undefined;
  /** Undefined: there is nothing to change. */
  readonly fileLimit: () => FileLimit | undefined;
  /** Leaves the cgroup and removes it; daemons of a good run move to runlock's own cgroup. Never rejects. */
  readonly close: () => Promise<void>;
}

export interface ContainOptions {
  readonly run: string;
  readonly clock: Clock;
  readonly emit: Emit;
  /** Prepares the stream that log lines go through. */
  readonly prepareLog: () => void;
  /** Descriptors above 2 that the caller opened for the command. */
  readonly inherited: readonly number[];
}

/**
 * Makes the cgroup and begins to enter it. The kernel takes some milliseconds for that (docs/adr/0004), so start with
 * it, and load the rest of the program and ask for the slot meanwhile.
 */
export function containRun({ run, clock, emit, prepareLog, inherited }: ContainOptions): Containment {
  // Prepare the log before entering, because any process started after that is born in the cgroup.
  prepareLog();
  const limit = fileLimit(inherited);
  void limit?.enter();
  const made = makeCgroup({ run, clock });
  if ('why' in made) {
    emit({ event: 'no-cgroup', run, why: made.why });
    return { cgroup: () => undefined, fileLimit: () => limit, close: () => Promise.resolve() };
  }
  void made.enter();
  return { cgroup: () => made, fileLimit: () => limit, close: () => made.close() };
}

/**
 * The soft limit of open files (getrlimit(2), RLIMIT_NOFILE). Node and Bun raise theirs to the hard one before any
 * JavaScript runs, and do not report the old one. The command, and every daemon that it restarts, would inherit the
 * raised limit.
 */
export interface FileLimit {
  /**
   * Gives runlock, and processes that it starts, the caller's limit, if that is enough for runlock. Never rejects; may
   * be called again.
   */
  readonly enter: () => Promise<void>;
  /** Sets a limit that is too low for runlock on the command only, a moment after its start. */
  readonly started: (command: number) => void;
}

/** A run in a dozen groups needs about a hundred. */
export const ROOMY = 256;
/** Stdin, stdout and stderr are copied too. */
const SPARE = 8;
/** Ample for prlimit(1), which only asks the kernel. */
const PRLIMIT_MS = 2_000;

/** The soft limit that runlock was started with; undefined: it still has that limit, or the limit can't be known. */
export function callersSoftLimit(
  own = readText(`/proc/${pid}/limits`),
  parents = readText(`/proc/${ppid}/limits`),
): number | undefined {
  const [mine, theirs] = [readLimit(own), readLimit(parents)];
  // If the hard limits differ, they were changed between the parent and runlock, and the soft limit probably was too.
  if (!mine || !theirs || mine.hard !== theirs.hard || theirs.soft >= mine.soft) return undefined;
  return theirs.soft;
}

function readLimit(limits: string): { readonly soft: number; readonly hard: number } | undefined {
  const [, soft, hard] = /^Max open files +(\S+) +(\S+)/m.exec(limits) ?? [];
  const toNumber = (text: string | undefined) => (text === 'unlimited' ? Infinity : Number(text));
  return soft === undefined ? undefined : { soft: toNumber(soft), hard: toNumber(hard) };
}

/** `inherited`: the caller's descriptors, whose numbers may exceed its limit. Undefined: there is nothing to change. */
function fileLimit(inherited: readonly number[]): FileLimit | undefined {
  const soft = callersSoftLimit();
  if (soft === undefined) return undefined;
  let entered: Promise<void> | undefined;
  // To pass a descriptor on, a process needs a higher limit than its number: Bun copies each to a number above all
  // others.
  const isRoomy = soft >= Math.max(ROOMY, Math.max(0, ...inherited) + inherited.length + SPARE);
  return {
    enter: () => (entered ??= isRoomy ? setSoft(pid, soft) : Promise.resolve()),
    started: (command) => {
      if (!isRoomy) void setSoft(command, soft);
    },
  };
}

/** Uses prlimit(1), which sets the limits of another process, because neither runtime offers setrlimit(2). */
export function setSoft(pid: number, soft: number): Promise<void> {
  return new Promise((resolve) => {
    const done = () => resolve();
    try {
      const env = { PATH: '/usr/local/bin:/usr/bin:/bin' };
      const options = { cwd: '/', env, stdio: 'ignore', timeout: PRLIMIT_MS } as const;
      spawn('prlimit', ['--pid', String(pid), `--nofile=${soft}:`], options)
        .on('exit', done)
        .on('error', done);
    } catch {
      done();
    }
  });
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
