/**
 * The soft limit of open files (getrlimit(2), RLIMIT_NOFILE). Node and Bun raise theirs to the hard one before any
 * JavaScript runs, and do not tell what it was: the command, and every daemon that it restarts, would inherit that.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

export interface FileLimit {
  /** From here on runlock, and what it starts, has the caller's limit, if that is enough for runlock. Never rejects; may be called again. */
  readonly enter: () => Promise<void>;
  /** One that is too low for runlock itself is given to the command, a moment after its start. */
  readonly started: (command: number) => void;
}

/** A run in a dozen groups needs about a hundred. */
const ROOMY = 256;
/** Stdin, stdout and stderr are copied too. */
const SPARE = 8;
/** It only asks the kernel. */
const PRLIMIT_MS = 2_000;

/** The soft limit that runlock was started with; undefined: the one that it has, or nobody can know. */
export function callersSoftLimit({ own, parents }: { own: string; parents: string }): number | undefined {
  const [mine, theirs] = [readLimit(own), readLimit(parents)];
  // Other hard limits: somebody has changed them in between, and the soft one with them.
  if (!mine || !theirs || mine.hard !== theirs.hard || theirs.soft >= mine.soft) return undefined;
  return theirs.soft;
}

function readLimit(limits: string): { readonly soft: number; readonly hard: number } | undefined {
  const [, soft, hard] = /^Max open files +(\S+) +(\S+)/m.exec(limits) ?? [];
  const toNumber = (text: string | undefined) => (text === 'unlimited' ? Infinity : Number(text));
  return soft === undefined ? undefined : { soft: toNumber(soft), hard: toNumber(hard) };
}

/**
 * Of process `pid`, which is this one, started by `parent`. `inherited`: the caller's descriptors, which may be beyond its
 * limit. Undefined: there is nothing to change.
 */
export function fileLimit(of: {
  readonly pid: number;
  readonly parent: number;
  readonly inherited: readonly number[];
}): FileLimit | undefined {
  const { pid, parent } = of;
  const own = readText(`/proc/${pid}/limits`);
  const soft = callersSoftLimit({ own, parents: readText(`/proc/${parent}/limits`) });
  if (soft === undefined) return undefined;
  let entered: Promise<void> | undefined;
  // A descriptor can be given to a program only by a process whose limit is above it: Bun copies each to a number above all.
  const isRoomy = soft >= Math.max(ROOMY, Math.max(0, ...of.inherited) + of.inherited.length + SPARE);
  return {
    enter: () => (entered ??= isRoomy ? setSoft(pid, soft) : Promise.resolve()),
    started: (command) => {
      if (!isRoomy) void setSoft(command, soft);
    },
  };
}

/** A process may only set its own limits by a system call that neither runtime offers; prlimit(1) sets another's. */
function setSoft(pid: number, soft: number): Promise<void> {
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
