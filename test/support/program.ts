// The built program as a process of its own. Whoever starts it ends it.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { startTime } from '../../src/process/process-tree.ts';
import type { Agent } from './consul.ts';
import { end, eventually } from './processes.ts';
import { turnsOf, turnsOfGroups } from './turns.ts';

/** The single file, unless another program is named. npm and vitest start everything at the project's root. */
export const RUNLOCK = resolve(process.env['RUNLOCK_BIN'] ?? `build/binary/runlock-linux-${process.arch}`);

/** Whether it is one file, which brings along what runs it, instead of JavaScript for this machine's Node.js. */
export const IS_BINARY = !RUNLOCK.endsWith('.js');

/** The environment in which the program runs this CommonJS file before itself. */
export function preloading(file: string): Readonly<Record<string, string>> {
  return { NODE_OPTIONS: `--require ${file}`, BUN_OPTIONS: `--preload ${file}` };
}

/** Whether a process is the program, by its command line. */
export function isRunlock(words: readonly string[]): boolean {
  return words[IS_BINARY ? 0 : 1] === RUNLOCK;
}

export interface Result {
  /** Exit status; 128 and the signal's number where a signal ended it. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly pid: number;
  readonly ended: Promise<Result>;
  stdout(): string;
  stderr(): string;
  signal(signal: NodeJS.Signals): void;
  /** Resolves when stderr has a line that matches. */
  says(pattern: RegExp, timeoutMs?: number): Promise<void>;
}

export interface Spawned extends Running {
  /** SIGKILL, unless it is gone. */
  end(): void;
}

export interface StartOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Goes to stdin, which ends then. */
  readonly input?: string;
  readonly cwd?: string;
  /** A program that starts it, with its arguments: `['setpriv', '--reuid=1000', …]`. */
  readonly through?: readonly string[];
  /** Another path of the program. */
  readonly program?: string;
}

/** What this host says in /etc/runlock/config.toml is not what is tested; undefined brings it back. */
export const NO_CONFIG = { RUNLOCK_CONFIG: '/dev/null' };

/** This test's own environment, without what would change what is tested. */
export const clean = {
  ...Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) =>
        !/^(?:RUNLOCK_|CONSUL_|SUDO_USER$|DOAS_USER$|JOURNAL_STREAM$|NO_COLOR$|FORCE_COLOR$)/.test(name),
    ),
  ),
  ...NO_CONFIG,
  ...turnsOf(),
};

/** Starts `runlock <args>` against `agent` (or nothing that `env` does not name). */
export function spawnRunlock(
  agent: Pick<Agent, 'env'> | undefined,
  args: readonly string[],
  options: StartOptions = {},
): Spawned {
  const turns = turnsOfGroups(args, ...(options.through ?? []));
  const env = { ...clean, ...turns, ...agent?.env, ...options.env };
  const program = options.program ?? RUNLOCK;
  const [file = program, ...words] = [...(options.through ?? []), program, ...args];
  const child = spawn(file, words, {
    env,
    cwd: options.cwd,
    // A session of its own: no test depends on whether it was started from a terminal.
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  const ended = new Promise<Result>((settle, fail) => {
    child.on('error', fail);
    child.on('close', (code, signal) =>
      settle({ status: code ?? 128 + constants.signals[signal ?? 'SIGKILL'], stdout, stderr }),
    );
  });
  const pid = child.pid ?? 0;
  const born = startTime(pid);
  return {
    pid,
    end: () => {
      if (startTime(pid) === born) end(pid);
    },
    ended,
    stdout: () => stdout,
    stderr: () => stderr,
    signal: (signal) => process.kill(pid, signal),
    says: (pattern, timeoutMs) =>
      eventually(() => {
        if (!pattern.test(stderr)) throw new Error(`stderr has no ${pattern}, but: ${stderr}`);
      }, timeoutMs),
  };
}
