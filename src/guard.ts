import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { uptime } from 'node:os';

import type { Clock } from './deps.ts';
import { FIRED, UNABLE, guardScript } from './guard-script.ts';

/** What happened to the guard while it was on duty. */
export type GuardEvent =
  /** It heard nothing in time and ended the command's tree. It takes no further duty. */
  | { readonly kind: 'fired' }
  /** Somebody ended it; another one has taken its place. */
  | { readonly kind: 'replaced' }
  /** It could not be started or could not work; another one will be tried. */
  | { readonly kind: 'failed'; readonly reason: string };

/** A dead man's switch outside runlock: it ends the command's tree when runlock is gone or stays silent. */
export interface Guard {
  /** Its process, for the list of those that are never part of the command. */
  pids(): readonly number[];
  /** Names the command, once it has started. Before that the guard knows it by its run id alone. */
  watch(command: { readonly pid: number; readonly startTime: string }): void;
  /**
   * Lets the command live for `lifeMs` from now, rounded down to 0.1 s (at least 0.1, at most 9999 s), unless another
   * beat follows. Nothing of it is left about one second after that, unless it cannot be killed. Never waits or throws.
   */
  beat(lifeMs: number): void;
  /** Sends the guard away without killing anything. Resolves when it is gone; never rejects; may be called twice. */
  disarm(): Promise<void>;
}

export interface GuardOptions {
  readonly runId: string;
  /** The first beat. */
  readonly lifeMs: number;
  /** PATH, to find timeout, dd, grep, awk and sleep. */
  readonly path: string | undefined;
  readonly clock: Clock;
  readonly report?: (event: GuardEvent) => void;
}

/** All messages have this length, so that one read(2) takes exactly one. */
const messageLength = 48;
const standardPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const politeMs = 500;
const firstPauseMs = 20;
const lastPauseMs = 5000;

/** Starts a guard for run `runId` and keeps one there until `disarm`, or until it had to do its work. */
export function keepGuard(options: GuardOptions): Guard {
  const { clock, report = () => undefined } = options;
  let command = { pid: 0, startTime: '0' };
  let endMs = clock.monotonicMs() + options.lifeMs;
  let pauseMs = firstPauseMs;
  const leaving = new AbortController();
  let current = post();

  function post() {
    const bornMs = clock.monotonicMs();
    const guard = spawnGuard(options, tenths(endMs - bornMs));
    void guard.gone.then((end) => {
      // Said also when it is heard of only as the guard is sent away: it is why the command is dead.
      if (end.status === FIRED) {
        report({ kind: 'fired' });
        return;
      }
      if (leaving.signal.aborted) return;
      if (end.reason !== undefined) report({ kind: 'failed', reason: end.reason });
      if (clock.monotonicMs() - bornMs > lastPauseMs) pauseMs = firstPauseMs;
      void relieve(end.reason === undefined);
    });
    return guard;
  }

  async function relieve(isReplacement: boolean) {
    await clock.sleep(pauseMs, { signal: leaving.signal }).catch(() => undefined);
    pauseMs = Math.min(pauseMs * 2, lastPauseMs);
    if (leaving.signal.aborted) return;
    current = post();
    tell();
    if (isReplacement) report({ kind: 'replaced' });
  }

  function tell() {
    // A time, not a span: a guard that was stopped reads it late.
    const end = Math.floor(uptime() * 10 + inTenths(endMs - clock.monotonicMs()));
    current.write(`beat ${end} ${command.pid} ${command.startTime}`);
  }

  return {
    pids: () => current.pids(),
    watch(started) {
      command = started;
      tell();
    },
    beat(lifeMs) {
      endMs = clock.monotonicMs() + lifeMs;
      tell();
    },
    async disarm() {
      leaving.abort();
      current.write('quit');
      // One that is stopped cannot leave by itself.
      await Promise.race([current.gone, clock.sleep(politeMs, { signal: current.left })]).catch(
        () => undefined,
      );
      current.dismiss();
      await current.gone;
    },
  };
}

interface Gone {
  readonly status: number | undefined;
  /** Why it could not work; undefined when somebody ended it. */
  readonly reason: string | undefined;
}

function spawnGuard({ runId, path }: GuardOptions, life: number) {
  // The script travels in the environment: ps(1) stays readable. No mark of the run there: the guard is no part of it.
  const child: ChildProcess = spawn(
    '/bin/sh',
    ['-c', 'eval "$script"', 'runlock-guard', runId, String(life)],
    {
      cwd: '/',
      env: { PATH: `${path ?? ''}:${standardPath}`.replace(/^:/, ''), script: guardScript },
      // Its own session: the terminal's keys do not reach it.
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    },
  );
  const left = new AbortController();
  const gone = new Promise<Gone>((resolve) => {
    child.on('error', (error) =>
      resolve({ status: undefined, reason: `cannot start /bin/sh: ${error.message}` }),
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
    ? 'it needs the programs timeout, dd, grep, awk and sleep; install them (coreutils, grep, mawk)'
    : undefined;
}

function write({ stdin }: ChildProcess, message: string) {
  // A guard that is stopped reads nothing; what it will read when it goes on is enough.
  if (stdin?.writable === true && stdin.writableLength < 100 * messageLength)
    stdin.write(`${message.padEnd(messageLength - 1)}\n`);
}

const tenths = (ms: number) => Math.floor(inTenths(ms));

/** Not rounded: of a sum only the whole is. */
const inTenths = (ms: number) => Math.min(Math.max(ms / 100, 1), 99_990);
