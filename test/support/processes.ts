import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { build } from 'esbuild';
import { GUARD_NAME } from '../../src/process/guard/guard.ts';
import { runIdOf, markedPids, startTime } from '../../src/process/process-tree.ts';

/** A folder where the processes of one test leave their pids and notes. Whoever is named in a `*.pid` file or carries its run id dies with it. */
export interface Scene {
  readonly folder: string;
  readonly runId: string;
  /** The secret that `runId` is made from. */
  readonly nonce: string;
  /** The number in `<name>.pid`, once it is there. */
  readonly pid: (name: string) => Promise<number>;
  /** The lines of the file so far. */
  readonly lines: (name: string) => string[];
  readonly clean: () => void;
}

export function scene(): Scene {
  const folder = mkdtempSync(join(tmpdir(), 'runlock-test-'));
  const nonce = randomBytes(16).toString('hex');
  const runId = runIdOf(nonce);
  const lines = (name: string) => linesOf(join(folder, name));
  return {
    folder,
    ...{ runId, nonce, lines },
    pid: (name) =>
      eventually(() => {
        const [pid] = lines(`${name}.pid`);
        if (pid === undefined) throw new Error(`${name} has not started`);
        return Number(pid);
      }),
    clean() {
      for (const name of readdirSync(folder).filter((file) => file.endsWith('.pid'))) {
        for (const pid of lines(name)) end(Number(pid));
      }
      markedPids(runId).forEach(end);
      // One that is dying may still have put a file there.
      rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    },
  };
}

/** Only lines that are written to their end. */
function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n').slice(0, -1);
  } catch {
    return [];
  }
}

/** The first looks come soon, the later ones more seldom: many tests look at the same time. */
const SOONEST_MS = 10;
const LATEST_MS = 100;

/** Tries `check` until it throws no more; rejects with its last error after `timeout` milliseconds. */
export async function eventually<T>(check: () => T | Promise<T>, timeout = 10_000): Promise<T> {
  const endMs = performance.now() + timeout;
  for (let pauseMs = SOONEST_MS; ; pauseMs = Math.min(LATEST_MS, pauseMs * 1.3)) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() >= endMs) throw error;
    }
    await sleep(pauseMs);
  }
}

export async function untilGone(pid: number, timeout?: number): Promise<void> {
  await eventually(() => {
    if (isAlive(pid)) throw new Error(`${pid} is still alive`);
  }, timeout);
}

/** A zombie does not count: nobody may have waited for it yet. */
export function isAlive(pid: number): boolean {
  if (startTime(pid) === undefined) return false;
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Whether this process of a run lives: a pid alone is another's soon, where many processes come and go. */
export function livesIn(runId: string, pid: number): boolean {
  try {
    return isAlive(pid) && readFileSync(`/proc/${pid}/environ`).includes(`RUNLOCK_RUN_ID=${runId}`);
  } catch {
    return false;
  }
}

export function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It is gone already.
  }
}

/** The shell that runlock started as its guard. */
export function guardOf(runlockPid: number): number {
  const children = readFileSync(`/proc/${runlockPid}/task/${runlockPid}/children`, 'utf8').split(' ');
  const guard = children
    .map(Number)
    .filter((child) => child > 0)
    .find((child) => readFileSync(`/proc/${child}/cmdline`, 'utf8').includes(GUARD_NAME));
  if (guard === undefined) throw new Error(`no guard among ${children.join(', ')}`);
  return guard;
}

/** The same once it catches signals: in its first moments it dies of them, and another one takes its place. */
export function readyGuardOf(runlockPid: number): number {
  const guard = guardOf(runlockPid);
  const [, caught = '0'] = /^SigCgt:\s*(\w+)/m.exec(readFileSync(`/proc/${guard}/status`, 'utf8')) ?? [];
  if ((BigInt(`0x${caught}`) & SIGHUP_BIT) === 0n) throw new Error(`the guard ${guard} is still starting`);
  return guard;
}

const SIGHUP_BIT = 1n;

/** The process that waits for the next message of guard `pid`, once it is there. */
export function readerOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  if (children !== '') return readerOf(Number(children.split(' ')[0]));
  if (readFileSync(`/proc/${pid}/comm`, 'utf8') !== 'dd\n') throw new Error(`${pid} does not read yet`);
  return pid;
}

/** Bundles a driver, so that it runs as a process of its own on the oldest Node that runlock supports. */
export async function bundle(driver: string, folder: string): Promise<string> {
  const outfile = join(folder, `${driver}.mjs`);
  await build({
    entryPoints: [join(import.meta.dirname, 'drivers', `${driver}.ts`)],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    // consul is CommonJS and requires Node's own modules.
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
    logLevel: 'error',
  });
  return outfile;
}
