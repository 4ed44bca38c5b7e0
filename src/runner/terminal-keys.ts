/**
 * Keys of an interactive run. Ctrl-Z: runlock stops when its command does, and its guard knows that this is on purpose.
 * Ctrl-C is left to the command; if the command goes on, a second Ctrl-C soon after ends it.
 */
import { basename } from 'node:path';
import { reasonOf } from '../errors.ts';
import type { StopSignal } from '../platform/signals.ts';
import type { ExecDeps, ExecOptions } from './options.ts';
import type { HeldSlots } from './slots.ts';
import { leaseMs, lifeMs } from './start.ts';
import type { Started } from './start.ts';
import type { Supervised } from '../process/command.ts';

/**
 * A command that handles Ctrl-Z itself restores the terminal before it stops; on a busy host any command takes time.
 */
const STOP_MS = 5_000;
const FIRST_LOOK_MS = 5;
const LAST_LOOK_MS = 50;
/** Within this time a SIGCONT that is sent to a whole process group has reached all of it. */
const GROUP_MS = 100;

export interface Pause {
  /** Whether the command is stopped, and runlock is about to stop. */
  readonly isOn: () => boolean;
  /** From now on Ctrl-Z stops runlock as it stops any program. */
  readonly dismiss: () => void;
}

/**
 * Listens for Ctrl-Z from before the command starts, because a user may type it as soon as the command is seen to
 * start.
 */
export interface Stops {
  readonly follow: (it: Started & { slots: HeldSlots }) => Pause;
  /** The command was not started after all. */
  readonly dismiss: () => void;
}

/** Loaded only for a shared terminal: without one there is no Ctrl-Z, and no shell to continue the command. */
export interface TerminalKeys {
  readonly hearStops: typeof hearStops;
  readonly watchInterrupts: typeof watchInterrupts;
}

export function hearStops(deps: ExecDeps): Stops {
  const early: StopSignal[] = [];
  let hear = (signal: StopSignal): void => {
    early.push(signal);
  };
  const dismiss = deps.signals.onStop((signal) => hear(signal));
  return {
    dismiss,
    follow: (it) => {
      const { pause, onStop } = followStops(deps, it, dismiss);
      hear = onStop;
      early.forEach(onStop);
      return pause;
    },
  };
}

function followStops(
  deps: ExecDeps,
  it: Started & { slots: HeldSlots },
  release: () => void,
): { readonly pause: Pause; readonly onStop: (signal: StopSignal) => void } {
  const { clock, emit, signals } = deps;
  const { slots, command, guard } = it;
  const ended = new AbortController();
  let isOn = false;
  /** Stops so far. */
  let heard = 0;
  let turn: Promise<void> = Promise.resolve();
  void command.ended.then(() => ended.abort());
  return {
    pause: {
      isOn: () => isOn,
      dismiss: () => {
        ended.abort();
        release();
      },
    },
    onStop(signal) {
      heard += 1;
      turn = turn.then(() => pause(signal)).catch(tellFault);
    },
  };

  async function pause(signal: StopSignal): Promise<void> {
    // Pass the signal on, since runlock may have been the only one to get it.
    await command.signal(signal);
    // The command may not stop: a shell ignores Ctrl-Z, an editor may be busy with it.
    if (!(await untilStopped())) return;
    isOn = true;
    tellDeadline();
    await guard.lastBeat(leaseMs(deps, slots));
    if (command.isStopped()) signals.stop(signal);
    isOn = false;
    guard.beat(lifeMs(deps, slots));
    await resumeCommand();
  }

  /** A shell continues the whole process group; a SIGCONT to runlock alone is meant for the command too. */
  async function resumeCommand() {
    const before = heard;
    await clock.sleep(GROUP_MS, { signal: ended.signal }).catch(() => undefined);
    // If another Ctrl-Z came meanwhile, the command is stopped because of that one, so do not resume it.
    if (heard === before && command.isStopped()) command.resume();
  }

  async function untilStopped(): Promise<boolean> {
    const endMs = clock.monotonicMs() + STOP_MS;
    let pauseMs = FIRST_LOOK_MS;
    while (!command.isStopped()) {
      if (ended.signal.aborted || clock.monotonicMs() >= endMs) return false;
      await clock.sleep(pauseMs, { signal: ended.signal }).catch(() => undefined);
      pauseMs = Math.min(pauseMs * 1.5, LAST_LOOK_MS);
    }
    return !ended.signal.aborted;
  }

  function tellDeadline() {
    const leftMs = leaseMs(deps, slots);
    if (leftMs !== Infinity) emit({ event: 'paused', detail: { leftMs } });
  }

  function tellFault(error: unknown) {
    emit({ event: 'signal-lost', detail: { signal: 'Ctrl-Z', fault: reasonOf(error) } });
  }
}

/** Most commands that end on Ctrl-C have ended within this time. */
const NOTICE_MS = 500;
const AGAIN_MS = 3_000;

/** Returns a function to call after Ctrl-C was passed on, with the time of the key press; `end` ends the command. */
export function watchInterrupts(
  { clock, emit }: ExecDeps,
  it: {
    readonly command: Pick<Supervised, 'ended'>;
    readonly options: Pick<ExecOptions, 'command' | 'killAfterMs'>;
    readonly end: () => void;
  },
): (atMs: number) => void {
  const { command, killAfterMs } = it.options;
  let untilMs = -Infinity;
  const notice = new AbortController();
  void it.command.ended.then(() => notice.abort());
  return (atMs) => {
    if (notice.signal.aborted) return;
    if (atMs <= untilMs) {
      notice.abort();
      it.end();
      return;
    }
    untilMs = atMs + AGAIN_MS;
    const { signal } = notice;
    void clock.sleep(NOTICE_MS, { signal }).then(
      () => {
        untilMs = clock.monotonicMs() + AGAIN_MS;
        const detail = { command: basename(command), againMs: AGAIN_MS, killAfterMs };
        emit({ event: 'interrupt-passed-on', detail });
      },
      () => undefined,
    );
  };
}
