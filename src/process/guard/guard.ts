/** The guard of a run: a dead man's switch outside runlock, kept there from before the command until after its end. */
import { readFileSync } from 'node:fs';
import type { Clock } from '../../platform/deps.ts';
import { FIRED, UNABLE, guardScript } from './script.ts';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { shortageIn } from '../../platform/shortage.ts';
import type { RunCgroup } from '../cgroup.ts';

/** What happened to the guard while it was on duty. */
export type GuardEvent =
  /** The guard heard nothing in time and ended the command's tree. It is finished. */
  | { readonly kind: 'fired' }
  /** Something ended the guard; another one has taken its place. */
  | { readonly kind: 'replaced' }
  /** The guard could not be started or could not work; another one will be tried. */
  | { readonly kind: 'failed'; readonly reason: string };

export interface WatchedCommand {
  readonly pid: number;
  readonly startTime: string;
  readonly isContained?: boolean;
}

/** A dead man's switch outside runlock: it ends the command's tree when runlock is gone or stays silent. */
export interface Guard {
  /** The guard's processes, which are never part of the command. */
  pids(): readonly number[];
  /**
   * Resolves when the first life has been sent. A spare guard may still have hours to live; if the command started
   * before that and runlock was then stopped, those hours would stay in force. Never rejects.
   */
  readonly told: Promise<void>;
  /**
   * Tells the guard the command's pid, once it has started. Before that the guard knows the command only by its mark
   * and its cgroup. If there is a cgroup that is enough, and the pid is sent with the next beat.
   */
  watch(command: WatchedCommand): void;
  /**
   * Lets the command live for `lifeMs` from now, rounded down to 0.1 s (at least 0.1, at most 30 days), unless another
   * beat follows. Nothing of it is left about one second after that, unless it cannot be killed. Never waits or throws.
   */
  beat(lifeMs: number): void;
  /** A beat that resolves when it has been sent, for a runlock that is about to be stopped. */
  lastBeat(lifeMs: number): Promise<void>;
  /** Sends the guard away without killing anything. Resolves when it is gone; never rejects; may be called twice. */
  disarm(): Promise<void>;
}

export interface GuardOptions {
  /** The secret of the run: processes that carry it belong to the command. */
  readonly nonce: string;
  /** The run's cgroup, once there is one. */
  readonly cgroup?: () => GuardCgroup | undefined;
  /** The life of the first beat. */
  readonly lifeMs: number;
  /** PATH, to find timeout, dd, grep, awk and sleep. */
  readonly path: string | undefined;
  /** The folder with the notes of runs on this host, so that runs inside this one are ended last. */
  readonly notes?: string | undefined;
  readonly clock: Clock;
  /** A guard that may already be running. */
  readonly spare?: Spare;
  readonly report?: (event: GuardEvent) => void;
}

/** A guard that is started before the command, because starting a guard takes time. It goes away if runlock does. */
export interface Spare {
  /**
   * Starts a guard, unless there is one or it was taken, that waits about `lifeMs` for a beat. Repeatable. Never
   * throws.
   */
  post(lifeMs: number): void;
  /** Hands the spare guard over to the caller; undefined: there is none, or something ended it. */
  take(): SparePost | undefined;
  /** Sends the guard away if it was not taken. Resolves when it is gone; never rejects. */
  dismiss(): Promise<void>;
}

/** `endMs`: until when the guard waits for a message, in monotonic milliseconds. */
export type SparePost = Post & { readonly endMs: number };

const firstPauseMs = 20;
const lastPauseMs = 5000;
/** How often the life of a spare guard is renewed. */
const AGAIN_MS = 8_000;
/** A life that was renewed within this time needs no new one. */
const FRESH_MS = 5_000;
/** A spare guard this close to the end of its life is not taken any more. */
const FIRING_MS = 2_000;
/**
 * A spare guard's life may be this much shorter than the run wants: no message is needed, as the next beat comes
 * sooner.
 */
const CLOSE_MS = 10_000;

export function spareGuard(
  options: Pick<GuardOptions, 'nonce' | 'cgroup' | 'path' | 'notes' | 'clock'>,
): Spare {
  const { clock } = options;
  let waiting: Post | undefined;
  let endMs = 0;
  let isOver = false;
  let again: NodeJS.Timeout | undefined;
  const take = () => {
    const taken = waiting;
    waiting = undefined;
    isOver = true;
    clearInterval(again);
    if (taken === undefined || taken.left.aborted) return undefined;
    if (endMs - clock.monotonicMs() > FIRING_MS) return { ...taken, endMs };
    // The guard may already be looking for processes to end, so it must be gone before the command starts.
    taken.dismiss();
    return undefined;
  };
  return {
    take,
    async dismiss() {
      const unused = take();
      if (unused) await sendAway(unused, clock);
    },
    post(lifeMs) {
      if (isOver) return;
      // Keep the spare guard at a full life however long the wait is, so that the run need not send a new life first.
      again ??= setInterval(() => prolong(lifeMs), AGAIN_MS);
      prolong(lifeMs);
    },
  };

  function prolong(lifeMs: number): void {
    const nowMs = clock.monotonicMs();
    const isThere = waiting?.left.aborted === false;
    if (isThere && endMs - nowMs > lifeMs - FRESH_MS) return;
    endMs = nowMs + lifeMs;
    if (waiting && isThere) void waiting.write(sayBeat(lifeMs, NOBODY));
    else waiting = trySpawn(lifeMs);
  }

  function trySpawn(lifeMs: number): Post | undefined {
    try {
      return spawnGuard(options, lifeMs);
    } catch {
      // `keepGuard` will try again, and report a failure.
      return undefined;
    }
  }
}

/** Stands for a command that has not been started. */
const NOBODY: WatchedCommand = { pid: 0, startTime: '0' };

/** Sends a point in time, not a duration, because a guard that was stopped reads the message late. */
function sayBeat(lifeMs: number, { pid, startTime }: WatchedCommand): string {
  return `beat ${Math.floor(uptimeSeconds() * 10 + inTenths(lifeMs))} ${pid} ${startTime}`;
}

/** Starts a guard for a run and replaces it when it ends, until `disarm` or until it fired. */
export function keepGuard(options: GuardOptions): Guard {
  const { clock, report = () => undefined } = options;
  let command = NOBODY;
  let endMs = clock.monotonicMs() + options.lifeMs;
  let pauseMs = firstPauseMs;
  const leaving = new AbortController();
  const spare = options.spare?.take();
  let current = post(spare);
  // Send a message before the command starts only if needed: reading one costs the guard two processes, which would
  // delay a short run.
  const needsWord = spare && (spare.endMs > endMs || spare.endMs < endMs - CLOSE_MS);
  const told = needsWord ? tell() : Promise.resolve();

  function post(ready?: Post) {
    const bornMs = clock.monotonicMs();
    const guard = ready ?? spawnGuard(options, endMs - bornMs);
    void guard.gone.then((end) => {
      // Report this even while the guard is being sent away, because it explains why the command is dead.
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
    void tell();
    if (isReplacement) report({ kind: 'replaced' });
  }

  function tell() {
    return current.write(sayBeat(endMs - clock.monotonicMs(), command));
  }

  function live(lifeMs: number) {
    endMs = clock.monotonicMs() + lifeMs;
    return tell();
  }

  return {
    pids: () => current.pids(),
    told,
    watch(started) {
      command = started;
      // Reading a message costs the guard two processes, which would delay a short run.
      if (started.isContained !== true) void tell();
    },
    beat: (lifeMs) => void live(lifeMs),
    lastBeat: live,
    async disarm() {
      leaving.abort();
      await sendAway(current, clock);
    },
  };
}

/** The clock that the guard reads. os.uptime() differs: rounded in Bun, and not what lxcfs shows in a container. */
function uptimeSeconds(): number {
  return Number.parseFloat(readFileSync('/proc/uptime', 'utf8'));
}

/* The process of a guard, and the messages that it takes. */

/** All messages have this length, so that one read(2) takes exactly one. */
const messageLength = 48;
const standardPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const politeMs = 500;

/** The name that ps(1) shows for the guard. */
export const GUARD_NAME = 'run-guard';

interface Gone {
  readonly status: number | undefined;
  /** Why the guard could not work; undefined when something ended it. */
  readonly reason: string | undefined;
}

/** The process of a guard. */
export type Post = ReturnType<typeof spawnGuard>;

/** The cgroup of the command's processes, and the file to leave it. */
export type GuardCgroup = Pick<RunCgroup, 'path' | 'homeFile'>;

interface PostOptions {
  readonly nonce: string;
  readonly cgroup?: () => GuardCgroup | undefined;
  readonly path: string | undefined;
  /** The folder with the notes of runs on this host. */
  readonly notes?: string | undefined;
}

/** `lifeMs`: how long the guard waits for its first beat. */
export function spawnGuard({ nonce, cgroup, path, notes = '' }: PostOptions, lifeMs: number) {
  const { path: folder = '', homeFile = '' } = cgroup?.() ?? {};
  // Pass the script in the environment, to keep ps(1) readable and hide the guard from `pkill -f runlock`. The secret
  // is there too, where other users can't read it, under another name, because the guard is not part of the run.
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
    // A session of its own, so that the terminal's keys do not reach the guard.
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
  // Ignore errors: the guard may be dead already, which `gone` reports.
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

/**
 * Resolves when the message was sent or can't be. Waits one more turn, because Bun reports a write one turn too early.
 */
function write({ stdin }: ChildProcess, message: string): Promise<void> {
  return new Promise((resolve) => {
    // A stopped guard reads nothing; the messages that already wait for it are enough.
    if (stdin?.writable !== true || stdin.writableLength >= 100 * messageLength) resolve();
    else stdin.write(`${message.padEnd(messageLength - 1)}\n`, () => setImmediate(resolve));
  });
}

/** Ends the guard, and no other process. Never rejects. */
export async function sendAway(guard: Post, clock: Clock): Promise<void> {
  void guard.write('quit');
  // A stopped guard cannot leave by itself, so kill it after a moment.
  await Promise.race([guard.gone, clock.sleep(politeMs, { signal: guard.left })]).catch(() => undefined);
  guard.dismiss();
  await guard.gone;
}

const tenths = (ms: number) => Math.floor(inTenths(ms));

const LONGEST_TENTHS = 30 * 86_400 * 10;

/** Not rounded, so that callers round only the sum. */
export const inTenths = (ms: number) => Math.min(Math.max(ms / 100, 1), LONGEST_TENTHS);
