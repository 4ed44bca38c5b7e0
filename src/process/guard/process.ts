/** The process of a guard, and the words that it takes. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { Clock } from '../../platform/deps.ts';
import { UNABLE, guardScript } from './script.ts';
import { shortageIn } from '../../platform/shortage.ts';
import type { RunCgroup } from '../cgroup.ts';

/** All messages have this length, so that one read(2) takes exactly one. */
const messageLength = 48;
const standardPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const politeMs = 500;

/** What ps(1) shows of it. */
export const GUARD_NAME = 'run-guard';

interface Gone {
  readonly status: number | undefined;
  /** Why it could not work; undefined when somebody ended it. */
  readonly reason: string | undefined;
}

/** The process of a guard. */
export type Post = ReturnType<typeof spawnGuard>;

/** Where the command's processes are, and the way out of there. */
export type GuardCgroup = Pick<RunCgroup, 'path' | 'homeFile'>;

interface PostOptions {
  readonly nonce: string;
  readonly cgroup?: () => GuardCgroup | undefined;
  readonly path: string | undefined;
  /** The folder in which runs of this host write down what they are. */
  readonly notes?: string | undefined;
}

/** `lifeMs`: how long it waits for its first beat. */
export function spawnGuard({ nonce, cgroup, path, notes = '' }: PostOptions, lifeMs: number) {
  const { path: folder = '', homeFile = '' } = cgroup?.() ?? {};
  // The script travels in the environment: ps(1) stays readable. So does the secret, which nobody else may read there;
  // under a name of its own, for the guard is no part of the run. `pkill -f runlock` must not find it.
  const child: ChildProcess = spawn('/bin/sh', ['-c', 'eval "$script"', GUARD_NAME, String(tenths(lifeMs))], {
    cwd: '/',
    env: {
      PATH: `${path ?? ''}:${standardPath}`.replace(/^:/, ''),
      script: guardScript,
      secret: nonce,
      folder,
      home: homeFile,
      notes,
    },
    // Its own session: the terminal's keys do not reach it.
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const left = new AbortController();
  const gone = new Promise<Gone>((resolve) => {
    child.on('error', (error) =>
      resolve({ status: undefined, reason: `cannot start /bin/sh: ${shortageIn(error) ?? error.message}` }),
    );
    child.on('exit', (code) => resolve({ status: code ?? undefined, reason: whyUnable(code) }));
  });
  void gone.then(() => left.abort());
  // It may be dead already; its end says so.
  child.stdin?.on('error', () => undefined);
  return {
    gone,
    left: left.signal,
    pids: () => (child.pid === undefined ? [] : [child.pid]),
    write: (message: string) => write(child, message),
    dismiss() {
      child.kill('SIGKILL');
      child.stdin?.destroy();
    },
  };
}

function whyUnable(code: number | null): string | undefined {
  return code === UNABLE
    ? 'timeout, dd, grep, awk or sleep is missing or could not be started; install them (coreutils, grep, mawk), or allow this user more processes (ulimit -u) and memory'
    : undefined;
}

/** Resolves when the message is out of this process, or can't be sent: Bun says so a turn of the event loop too early. */
function write({ stdin }: ChildProcess, message: string): Promise<void> {
  return new Promise((resolve) => {
    // A guard that is stopped reads nothing; what it will read when it goes on is enough.
    if (stdin?.writable !== true || stdin.writableLength >= 100 * messageLength) resolve();
    else stdin.write(`${message.padEnd(messageLength - 1)}\n`, () => setImmediate(resolve));
  });
}

/** Kills nothing but the guard. Never rejects. */
export async function sendAway(guard: Post, clock: Clock): Promise<void> {
  void guard.write('quit');
  // One that is stopped cannot leave by itself.
  await Promise.race([guard.gone, clock.sleep(politeMs, { signal: guard.left })]).catch(() => undefined);
  guard.dismiss();
  await guard.gone;
}

const tenths = (ms: number) => Math.floor(inTenths(ms));

const LONGEST_TENTHS = 30 * 86_400 * 10;

/** Not rounded: of a sum only the whole is. */
export const inTenths = (ms: number) => Math.min(Math.max(ms / 100, 1), LONGEST_TENTHS);
