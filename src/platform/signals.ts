/** The signals of runlock itself. Nothing else in the program installs a handler for one, or takes one off. */
import { readFileSync, readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { basename } from 'node:path';
import process from 'node:process';
import type { Screen } from './terminal.ts';

/** Signals that the operating system sends to runlock. */
export interface SignalSource {
  /** Numbers of those that runlock's caller ignores. They are not heard, and the command is to ignore them too. */
  readonly ignored: readonly number[];
  /** The newest listener gets them all. */
  listen(listener: (signal: NodeJS.Signals) => void): void;
  /** From now on these signals are told instead of stopping the process, until what is returned is called. One listener at a time. */
  onStop(listener: (signal: StopSignal) => void): () => void;
  /** Stops the process as the signal would have; returns when it is continued, or at once where no shell could do that. */
  stop(signal: StopSignal): void;
}

/** Ctrl-Z; a read from the terminal by somebody in the background; a write, where the terminal forbids that (stty tostop). */
export type StopSignal = 'SIGTSTP' | 'SIGTTIN' | 'SIGTTOU';

/** The exit status of what a signal ended, as a shell says it. */
export const exitStatusOf = (signal: NodeJS.Signals | number): number =>
  128 + (typeof signal === 'number' ? signal : constants.signals[signal]);

const HEARD = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

const STOPS = ['SIGTSTP', 'SIGTTIN', 'SIGTTOU'] as const;
/** Who draws on the terminal must be stopped by it: while TTOU is caught, a write that it forbids is tried again for ever. */
const STOPS_OF_SCREEN = ['SIGTSTP', 'SIGTTIN'] as const;

/** Both runtimes ignore these themselves before any JavaScript runs: only the caller still tells what it did. */
const RUNTIMES_OWN: readonly number[] = [constants.signals.SIGPIPE, constants.signals.SIGXFSZ];

export interface OwnSignals {
  /** From the first call on a signal no longer ends the process by itself. */
  listenToSignals(): SignalSource;
  /** Ctrl-Z, and back again. */
  whenStopped(screen: Screen): void;
  /** For a write to a terminal: TTOU stops the process in it, caught or not. */
  readonly stoppable: <T>(write: () => T) => T;
  /** The terminal has another size. */
  readonly whenResized: (listener: () => void) => void;
}

/** Call it first of all: it reads what the caller ignores, and a handler would hide that. */
export function ownSignals(): OwnSignals {
  const ignored = ignoredByCaller();
  const isIgnored = (signal: NodeJS.Signals) => ignored.includes(constants.signals[signal]);
  // Of a child that ends while CHLD is ignored the kernel keeps no status: Bun would wait for it for ever, and not idly.
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

/** What a shell ignores, it has been told to, and so does what it starts. Other programs reset these in what they start. */
function ignoredByShell(pid: number): number[] {
  try {
    // A script's own name is no shell's.
    if (!SHELLS.includes(basename(readlinkSync(`/proc/${pid}/exe`)))) return [];
    return ignoredIn(statusOf(pid)).filter((number) => RUNTIMES_OWN.includes(number));
  } catch {
    return [];
  }
}

/** Without /proc runlock ends soon, and says why. */
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
    // There it stops, unless there is no shell that could continue it.
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
    // After `bg` the terminal is the shell's, and whoever draws there is stopped again, as by the terminal itself.
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
