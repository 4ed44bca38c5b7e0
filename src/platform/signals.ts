/** The signals of runlock itself. No other file of the program installs or removes a signal handler. */
import { readFileSync, readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { basename } from 'node:path';
import process from 'node:process';
import type { Screen } from './terminal.ts';

/** Signals that the operating system sends to runlock. */
export interface SignalSource {
  /** Numbers of the signals that runlock's caller ignores. Runlock ignores them too, and so must the command. */
  readonly ignored: readonly number[];
  /** Replaces the listener; only the newest one gets signals. */
  listen(listener: (signal: NodeJS.Signals) => void): void;
  /**
   * Passes stop signals to `listener` instead of stopping the process, until the returned function is called. One at a
   * time.
   */
  onStop(listener: (signal: StopSignal) => void): () => void;
  /** Stops the process as the signal would have; returns when continued, or at once if no shell could continue it. */
  stop(signal: StopSignal): void;
}

/** Ctrl-Z; a read from the terminal in the background; a write in the background if that is forbidden (stty tostop). */
export type StopSignal = 'SIGTSTP' | 'SIGTTIN' | 'SIGTTOU';

/** The exit status that a shell reports for a program that a signal ended. */
export const exitStatusOf = (signal: NodeJS.Signals | number): number =>
  128 + (typeof signal === 'number' ? signal : constants.signals[signal]);

const HEARD = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

const STOPS = ['SIGTSTP', 'SIGTTIN', 'SIGTTOU'] as const;
/** Without TTOU: while it is caught, a forbidden write to the terminal would be tried again forever. */
const STOPS_OF_SCREEN = ['SIGTSTP', 'SIGTTIN'] as const;

/**
 * Both runtimes ignore these before any JavaScript runs, so whether the caller did can be read only from the caller.
 */
const RUNTIMES_OWN: readonly number[] = [constants.signals.SIGPIPE, constants.signals.SIGXFSZ];

export interface OwnSignals {
  /** From the first call on a signal no longer ends the process by itself. */
  listenToSignals(): SignalSource;
  /** Leaves the screen on Ctrl-Z, and enters it again when continued. */
  whenStopped(screen: Screen): void;
  /** Wraps a write to a terminal, so that TTOU stops the process during it even if caught. */
  readonly stoppable: <T>(write: () => T) => T;
  /** Calls `listener` when the terminal's size changes. */
  readonly whenResized: (listener: () => void) => void;
}

/** Call this before anything else: it reads which signals the caller ignores, and a handler would hide that. */
export function ownSignals(): OwnSignals {
  const ignored = ignoredByCaller();
  const isIgnored = (signal: NodeJS.Signals) => ignored.includes(constants.signals[signal]);
  // While CHLD is ignored the kernel keeps no status of children that end, and Bun would busy-wait for it forever.
  if (isIgnored('SIGCHLD')) process.on('SIGCHLD', () => undefined);
  const heard = HEARD.filter((signal) => !isIgnored(signal));
  const { stoppable, ...stops } = catchStops(STOPS.filter((signal) => !isIgnored(signal)));
  return {
    listenToSignals: () => ({ ignored, listen: listen(heard), ...stops }),
    stoppable,
    whenResized: (listener) => {
      if (!isIgnored('SIGWINCH')) process.on('SIGWINCH', listener);
    },
    whenStopped: (screen) =>
      whenStopped(screen, catchStops(STOPS_OF_SCREEN.filter((signal) => !isIgnored(signal)))),
  };
}

/**
 * Numbers of the signals that were ignored when runlock started: by nohup, by trap '' or & in a script.
 * Node.js resets them all before JavaScript runs; only Bun still knows.
 */
function ignoredByCaller(): number[] {
  const own = process.versions['bun'] === undefined ? [] : ignoredIn(statusOf('self'));
  return [...own.filter((number) => !RUNTIMES_OWN.includes(number)), ...ignoredByShell(process.ppid)];
}

const SHELLS = ['ash', 'bash', 'busybox', 'dash', 'ksh', 'ksh93', 'mksh', 'sh', 'yash', 'zsh'];

/**
 * A shell passes signals that it was told to ignore on to its children. Other programs reset these two for children.
 */
function ignoredByShell(pid: number): number[] {
  try {
    // Check the executable, because a script's own name does not show its shell.
    if (!SHELLS.includes(basename(readlinkSync(`/proc/${pid}/exe`)))) return [];
    return ignoredIn(statusOf(pid)).filter((number) => RUNTIMES_OWN.includes(number));
  } catch {
    return [];
  }
}

/** Returns '' without /proc: runlock then fails soon, and reports that. */
function statusOf(pid: number | 'self'): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return '';
  }
}

/** Numbers of the signals that a process ignores, by its /proc/PID/status (proc(5), SigIgn). */
export function ignoredIn(status: string): number[] {
  const [, hex = '0'] = /^SigIgn:\s*([0-9a-f]+)$/m.exec(status) ?? [];
  const mask = BigInt(`0x${hex}`);
  return Array.from({ length: 64 }, (_, i) => i + 1).filter(
    (number) => ((mask >> BigInt(number - 1)) & 1n) === 1n,
  );
}

function listen(heard: readonly NodeJS.Signals[]): SignalSource['listen'] {
  let listener: ((signal: NodeJS.Signals) => void) | undefined;
  const early: NodeJS.Signals[] = [];
  for (const signal of heard) process.on(signal, () => (listener ? listener(signal) : early.push(signal)));
  return (newest) => {
    listener = newest;
    for (const signal of early.splice(0)) newest(signal);
  };
}

function catchStops(
  stops: readonly StopSignal[],
): Pick<SignalSource, 'onStop' | 'stop'> & Pick<OwnSignals, 'stoppable'> {
  const handlers = new Map<StopSignal, () => void>();
  const release = () => {
    for (const [signal, handler] of handlers) process.off(signal, handler);
    handlers.clear();
  };
  return {
    onStop: (listener) => {
      for (const signal of stops) {
        const handler = () => listener(signal);
        handlers.set(signal, handler);
        process.on(signal, handler);
      }
      return release;
    },
    // The process stops here, unless no shell could continue it.
    stop: (signal) => uncaught(signal, () => process.kill(process.pid, signal)),
    stoppable: (write) => uncaught('SIGTTOU', write),
  };

  function uncaught<T>(signal: StopSignal, work: () => T): T {
    const handler = handlers.get(signal);
    if (handler) process.off(signal, handler);
    try {
      return work();
    } finally {
      if (handler) process.on(signal, handler);
    }
  }
}

function whenStopped(
  { leave, enter }: Screen,
  { onStop, stop }: Pick<SignalSource, 'onStop' | 'stop'>,
): void {
  const resume = () => {
    // After `bg` the terminal belongs to the shell, so stop again instead of drawing, as the terminal itself would do.
    if (inBackground()) process.kill(process.pid, 'SIGTTOU');
    else enter();
  };
  onStop((signal) => {
    leave();
    stop(signal);
    resume();
  });
  process.on('SIGCONT', resume);
}

/** Whether another process group has the terminal (proc(5), stat: pgrp and tpgid). */
export function inBackground(): boolean {
  const [, , group, , , foreground] = readFileSync('/proc/self/stat', 'utf8')
    .replace(/.*\) /s, '')
    .split(' ');
  return foreground !== group && foreground !== '-1';
}
