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
  /** It heard nothing in time and ended the command's tree. It takes no further duty. */
  | { readonly kind: 'fired' }
  /** Somebody ended it; another one has taken its place. */
  | { readonly kind: 'replaced' }
  /** It could not be started or could not work; another one will be tried. */
  | { readonly kind: 'failed'; readonly reason: string };

export interface WatchedCommand {
  readonly pid: number;
  readonly startTime: string;
  readonly isContained?: boolean;
}

/** A dead man's switch outside runlock: it ends the command's tree when runlock is gone or stays silent. */
export interface Guard {
  /** Its process, for the list of those that are never part of the command. */
  pids(): readonly number[];
  /**
   * Resolves when the first life is out of this process: a spare guard may have been given hours, and who starts the
   * command before that may be stopped with those in force. Never rejects.
   */
  readonly told: Promise<void>;
  /**
   * Names the command, once it has started. Before that the guard knows it by its mark and its cgroup alone: where there
   * is one that is enough, and the name goes with the next beat.
   */
  watch(command: WatchedCommand): void;
  /**
   * Lets the command live for `lifeMs` from now, rounded down to 0.1 s (at least 0.1, at most 30 days), unless another
   * beat follows. Nothing of it is left about one second after that, unless it cannot be killed. Never waits or throws.
   */
  beat(lifeMs: number): void;
  /** A beat that resolves when it is out of this process: who is about to be stopped waits for it. */
  lastBeat(lifeMs: number): Promise<void>;
  /** Sends the guard away without killing anything. Resolves when it is gone; never rejects; may be called twice. */
  disarm(): Promise<void>;
}

export interface GuardOptions {
  /** The secret of the run: what carries it belongs to the command. */
  readonly nonce: string;
  /** The run's cgroup, once there is one. */
  readonly cgroup?: () => GuardCgroup | undefined;
  /** The first beat. */
  readonly lifeMs: number;
  /** PATH, to find timeout, dd, grep, awk and sleep. */
  readonly path: string | undefined;
  /** The folder in which runs of this host write down what they are: those inside this one are ended last. */
  readonly notes?: string | undefined;
  readonly clock: Clock;
  /** One that may be there already. */
  readonly spare?: Spare;
  readonly report?: (event: GuardEvent) => void;
}

/** A guard that is started while there is no command yet, for starting it takes time. Without runlock it goes away. */
export interface Spare {
  /** Sees to it that there is one, which waits about `lifeMs` for its first beat; not once it was taken. May be called again and again. Never throws. */
  post(lifeMs: number): void;
  /** Gives it to whoever keeps it from now on; undefined: there is none, or somebody ended it. */
  take(): SparePost | undefined;
  /** Sends it away, if nobody took it. Resolves when it is gone; never rejects. */
  dismiss(): Promise<void>;
}

/** `endMs`: until when it waits for a word, in monotonic milliseconds. */
export type SparePost = Post & { readonly endMs: number };

const firstPauseMs = 20;
const lastPauseMs = 5000;
/** As often as that it is given its life anew. */
const AGAIN_MS = 8_000;
/** Whose life was given so lately needs no other. */
const FRESH_MS = 5_000;
/** So long before the end of its life nobody takes it any more. */
const FIRING_MS = 2_000;
/** A spare one that waits this much shorter than a run wants it to needs no word for that: the run's next beat is sooner. */
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
    // It may have begun to look for whom to end: the command must not be there for it.
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
      // It has a run's life however long the wait is, for a slot or for a gate: the run need not say another one first.
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
      // The run will see for itself whether it gets one.
      return undefined;
    }
  }
}

/** A command that has not been started. */
const NOBODY: WatchedCommand = { pid: 0, startTime: '0' };

/** A time, not a span: a guard that was stopped reads it late. */
function sayBeat(lifeMs: number, { pid, startTime }: WatchedCommand): string {
  return `beat ${Math.floor(uptimeSeconds() * 10 + inTenths(lifeMs))} ${pid} ${startTime}`;
}

/** Starts a guard for a run and keeps one there until `disarm`, or until it had to do its work. */
export function keepGuard(options: GuardOptions): Guard {
  const { clock, report = () => undefined } = options;
  let command = NOBODY;
  let endMs = clock.monotonicMs() + options.lifeMs;
  let pauseMs = firstPauseMs;
  const leaving = new AbortController();
  const spare = options.spare?.take();
  let current = post(spare);
  // Before there is a command. A message costs the guard two processes, which a short run would wait for.
  const needsWord = spare && (spare.endMs > endMs || spare.endMs < endMs - CLOSE_MS);
  const told = needsWord ? tell() : Promise.resolve();

  function post(ready?: Post) {
    const bornMs = clock.monotonicMs();
    const guard = ready ?? spawnGuard(options, endMs - bornMs);
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
      // To read a message takes the guard two processes, which a short run would wait for.
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

/** The clock that the guard reads. os.uptime() is another one: rounded in Bun, and not what lxcfs shows a container. */
function uptimeSeconds(): number {
  return Number.parseFloat(readFileSync('/proc/uptime', 'utf8'));
}

/* The process of a guard, and the words that it takes. */

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
