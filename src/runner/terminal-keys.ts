/**
 * Keys of an interactive run. Ctrl-Z: runlock stops when its command does, and its guard knows that it is on purpose. Ctrl-C
 * is the command's own business; where it goes on all the same, a second one soon after ends it.
 */
import { basename } from 'node:path';
import { reasonOf } from '../errors.ts';
import type { StopSignal } from '../platform/signals.ts';
import type { ExecDeps, ExecOptions } from './options.ts';
import type { HeldSlots } from './slots.ts';
import { leaseMs, lifeMs } from './start.ts';
import type { Started } from './start.ts';
import type { Supervised } from '../process/command.ts';

/** A command that handles Ctrl-Z itself gives the terminal back before it stops; on a busy host any takes its time. */
const STOP_MS = 5_000;
const FIRST_LOOK_MS = 5;
const LAST_LOOK_MS = 50;
/** What continues a whole group has reached all of it by then. */
const GROUP_MS = 100;

export interface Pause {
  /** Whether the command is stopped, and runlock about to be. */
  readonly isOn: () => boolean;
  /** From now on Ctrl-Z stops runlock as it stops any program. */
  readonly dismiss: () => void;
}

/** Ctrl-Z from before the command is there on: whoever has seen it start may type it at once. */
export interface Stops {
  readonly follow: (it: Started & { slots: HeldSlots }) => Pause;
  /** There is no command after all. */
  readonly dismiss: () => void;
}

/** Loaded for a shared terminal alone: without one there is no Ctrl-Z, and no shell that would continue it. */
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
    // What runlock alone got, the command gets too.
    await command.signal(signal);
    // It may go its own way: a shell ignores Ctrl-Z, an editor may be busy with it.
    if (!(await untilStopped())) return;
    isOn = true;
    tellDeadline();
    await guard.lastBeat(leaseMs(deps, slots));
    if (command.isStopped()) signals.stop(signal);
    isOn = false;
    guard.beat(lifeMs(deps, slots));
    await resumeCommand();
  }

  /** The shell continues the whole group; whoever continues runlock alone means the command as well. */
  async function resumeCommand() {
    const before = heard;
    await clock.sleep(GROUP_MS, { signal: ended.signal }).catch(() => undefined);
    // A Ctrl-Z meanwhile is why it is stopped.
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

/** A command that ends by Ctrl-C has ended by then, most of the time. */
const NOTICE_MS = 500;
const AGAIN_MS = 3_000;

/** Returns what is to be called when Ctrl-C has been passed on, with the time of the key press; `end` ends the command. */
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
