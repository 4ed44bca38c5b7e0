/** Makes a command ignore the signals that runlock's caller ignores, because the runtime resets them when it spawns. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { ignoredIn } from '../platform/signals.ts';
import type { Program } from './program.ts';

/** A program that ignores signals and then becomes the command: same pid, same environment, same argv[0]. */
export type Launcher = (command: string, args: readonly string[]) => Program;

export interface LauncherChoice {
  /** Undefined: none is needed, or none works without changing the environment. */
  readonly launcher?: Launcher;
  /** Numbers of the signals that the command should ignore but will not. */
  readonly lost: readonly number[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The C library reserves these two signals, so no program can ignore them. */
const isOfLibc = (number: number) => number === 32 || number === 33;

/** Tries the launchers of this host, if one is needed. `env`: roughly what the command will get. */
export function chooseLauncher(
  command: string,
  { ignored, env }: { ignored: readonly number[]; env: Environment },
): LauncherChoice {
  const wanted = ignored.filter((number) => !isOfLibc(number));
  let best: LauncherChoice = { lost: wanted };
  for (const launcher of launchersFor(command, wanted)) {
    if (best.lost.length === 0) break;
    const lost = tryOut(launcher, { wanted, env });
    if (lost && lost.length < best.lost.length) best = { launcher, lost };
  }
  return best;
}

function launchersFor(command: string, ignored: readonly number[]): Launcher[] {
  const env: Launcher = (name, args) => ({
    file: '/usr/bin/env',
    argv0: 'env',
    args: [`--ignore-signal=${ignored.join(',')}`, '--', name, ...args],
  });
  const sh: Launcher = (name, args) => ({
    file: '/bin/sh',
    argv0: 'sh',
    // The shell uses this name in its message if it can't start the command.
    args: ['-c', `trap '' ${ignored.join(' ')}; exec "$@"`, 'runlock', name, ...args],
  });
  // env(1) would take a name with = for a variable.
  return command.includes('=') ? [sh] : [env, sh];
}

/** The signals that a launcher fails to ignore. Undefined: it does not work here, or changes the environment. */
function tryOut(
  launcher: Launcher,
  { wanted, env }: { wanted: readonly number[]; env: Environment },
): number[] | undefined {
  const { file, argv0, args } = launcher('cat', ['/proc/self/environ', '/proc/self/status']);
  const { status, stdout } = spawnSync(file, args, {
    argv0,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: Infinity,
  });
  if (status !== 0) return undefined;
  const entries = stdout.split('\0');
  const ignored = ignoredIn(entries.pop() ?? '');
  return isSame(entries, env) ? wanted.filter((number) => !ignored.includes(number)) : undefined;
}

/** Any shell sets these variables for the programs that it starts. */
const SHELLS_OWN = /^(?:_|SHLVL)=/;

function isSame(entries: readonly string[], env: Environment): boolean {
  const wanted = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  const added = entries.filter((entry) => !wanted.includes(entry) && !SHELLS_OWN.test(entry));
  const lost = wanted.filter((entry) => !entries.includes(entry) && !SHELLS_OWN.test(entry));
  // A shell sets PWD if it is not set.
  return lost.length === 0 && added.every((entry) => entry.startsWith('PWD=') && env['PWD'] === undefined);
}

/** Far more than a launcher needs: it becomes the command after about a millisecond. */
const PATIENCE_MS = 500;
const PAUSE_MS = 0.2;

/**
 * Whether the launcher with this `pid` failed to become the command. Blocks until that is known. Call it in the turn of
 * the event loop that spawned the launcher: a dead launcher is then still there as a zombie.
 */
export function launchFailed(pid: number, { file, command }: { file: string; command: string }): boolean {
  // The kernel names a process after its program, cut to 15 bytes.
  const nameOf = (path: string) => basename(path).slice(0, 15);
  const own = nameOf(file);
  if (nameOf(command) === own) return false;
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (const endMs = performance.now() + PATIENCE_MS; performance.now() < endMs;) {
    const [, name, state] = /^\d+ \(([^]*)\) (.)/.exec(statOf(pid)) ?? [];
    if (name !== own) return false;
    if (state === 'Z') return true;
    Atomics.wait(pause, 0, 0, PAUSE_MS);
  }
  return false;
}

function statOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return '';
  }
}
