/** All effects that the rest of the code may have, so that tests can replace them. The real clock is here too. */
import type { Emit } from '../events/events.ts';

export interface Deps {
  readonly clock: WallClock;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly host: Host;
  readonly emit: Emit;
}

export interface Clock {
  /** Wall-clock time in milliseconds since the epoch. It may jump, so use it only for output. */
  now(): number;
  /** Milliseconds on a clock that only moves forward. Deadlines use this one. */
  monotonicMs(): number;
  /**
   * Resolves after `ms`; rejects with the signal's reason when it aborts first. Does not keep the process alive longer
   * than its caller.
   */
  sleep(ms: number, options: { signal: AbortSignal }): Promise<void>;
}

/**
 * The wall clock jumps: an operator or NTP sets it. A process can't know which time is right, the one from before or
 * the one from after, so it has two, in milliseconds since the epoch, and takes the one that keeps others out for
 * longer (docs/adr/0012). Without a jump both are `now()`.
 */
export interface WallClock extends Clock {
  /** Use when judging whether a time has come: never too early. */
  earliest(): number;
  /** Use when writing an expiry: never earlier than asked. */
  latest(): number;
}

export interface Host {
  /** This process, as a claim names it. */
  self(): {
    readonly pid: number;
    readonly startTime: string;
    readonly bootId: string;
    /** The effective one. */
    readonly uid?: number;
  };
  /** This machine, as a claim names it. */
  place(): Promise<{ readonly machine?: string; readonly host: string }>;
  /**
   * Names this boot of this host and, after a space, the namespaces that process ids and start times belong to; in
   * other namespaces those ids mean nothing (`isSameBoot`).
   */
  readonly bootId: string;
  /**
   * Start time of a live process in clock ticks since boot (proc(5), stat field 22); undefined when there is no such
   * process.
   */
  startTime(pid: number): string | undefined;
  /** Whether the process exists, but its start time can't be seen (proc(5), hidepid). */
  hidden(pid: number): boolean;
  /**
   * Live processes of a run on this host that no live runlock watches. Ignores daemons that an ended run left.
   * `emit` gets the reason when the run's note can't be trusted. `uid` is the user who started the run, if known: root
   * reads that user's notes. Throws when the host can't be examined.
   */
  survivors(runId: string, emit: Emit, uid?: number): Survivors;
}

export interface Survivors {
  readonly pids: readonly number[];
  /** Set to the folder of its cgroup if processes are in it that this pid namespace does not show. */
  readonly cgroup?: string;
  /** Its guard is there, and about to end what is left. */
  readonly guarded: boolean;
}

/** Whether no process of the run is left. */
export const isNobody = ({ pids, cgroup }: Survivors): boolean => pids.length === 0 && cgroup === undefined;

/** Whether both name the same boot of one host, whatever their namespaces. */
export const isSameBoot = (a: Host['bootId'], b: Host['bootId']): boolean => boot(a) === boot(b);

const boot = (bootId: string) => bootId.split(' ')[0];

/* Real time. */

/** The longest that a Node timer can take. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

async function sleep(ms: number, { signal }: { signal: AbortSignal }): Promise<void> {
  signal.throwIfAborted();
  for (let left = ms; left > 0; left -= LONGEST_TIMER_MS)
    await timer(Math.min(left, LONGEST_TIMER_MS), signal);
}

/** A clock that knows how far its wall clock has jumped since it was made. */
export function anchorClock({ now, monotonicMs }: Pick<Clock, 'now' | 'monotonicMs'>): WallClock {
  const startedAt = now() - monotonicMs();
  const anchored = () => startedAt + monotonicMs();
  return {
    now,
    monotonicMs,
    earliest: () => Math.min(now(), anchored()),
    latest: () => Math.max(now(), anchored()),
    sleep,
  };
}

export const clock = anchorClock({ now: () => Date.now(), monotonicMs: () => performance.now() });

function timer(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timeout);
      reject(signal.reason as Error);
    };
    const timeout = setTimeout(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal.addEventListener('abort', stop, { once: true });
  });
}

/** How long to wait, and which signal ends the wait. All code that waits takes this value. */
export interface Waiting {
  /** Ends the wait at once, with the signal's reason. */
  readonly signal: AbortSignal;
  /** Aborts when the time (`--wait`) is over; everything is still asked once. */
  readonly patience: AbortSignal;
  /** Either of the two. */
  readonly either: AbortSignal;
}

/** A wait with a running clock. */
export interface TimedWaiting extends Waiting {
  /** Whether `error` says that its time is over, and nothing else. */
  isOver(error: unknown): boolean;
  /** Stops the clock. */
  end(): void;
}

/** @param limitMs milliseconds; 0: the time is over from the start. */
export function startWaiting(
  clock: Pick<Clock, 'sleep'>,
  limitMs: number | 'forever',
  signal: AbortSignal,
): TimedWaiting {
  const patience = new AbortController();
  const ended = new AbortController();
  if (limitMs === 0) patience.abort();
  else if (limitMs !== 'forever') {
    void clock.sleep(limitMs, { signal: ended.signal }).then(
      () => patience.abort(),
      () => undefined,
    );
  }
  return {
    ...waitingOf(signal, patience.signal),
    isOver: (error) => patience.signal.aborted && !signal.aborted && error === patience.signal.reason,
    end: () => ended.abort(),
  };
}

/** Asks everything once, and waits for nothing. */
export const withoutWaiting = (signal: AbortSignal): Waiting => waitingOf(signal, AbortSignal.abort());

/** The same wait, but `also` ends it too. */
export const endedBy = ({ signal, patience }: Waiting, also: AbortSignal): Waiting =>
  waitingOf(AbortSignal.any([signal, also]), patience);

const waitingOf = (signal: AbortSignal, patience: AbortSignal): Waiting => ({
  signal,
  patience,
  either: AbortSignal.any([signal, patience]),
});
