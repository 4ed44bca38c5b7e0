/** Shows what is followed, on the terminal's alternate screen or elsewhere, until whoever follows it has seen enough. */
import type { Consul } from '../consul/consul.ts';
import { ENTER_SCREEN, LEAVE_SCREEN, WIPE_SCREEN } from '../output/screen.ts';
import type { FrameOptions, ScreenHead } from '../output/screen.ts';
import type { Clock } from '../platform/deps.ts';
import { createOutput } from '../platform/terminal.ts';
import type { Platform } from './platform.ts';

/** How often ages on the screen are updated, without a request to Consul. */
const TICK_MS = 1_000;
/** No one reads faster than this, and a storm of changes must not take up the CPU. */
const REDRAW_MS = 100;

/** Short enough for a key press to seem to work at once. */
const KEYS_MS = 100;

/** How the report is shown. */
export interface View<T> {
  readonly show: (seen: T) => Promise<void>;
  /** Leaves the screen at once; the next frame enters it again. */
  readonly leave?: () => void;
  /** Clears the screen before the next frame, because another program may have drawn on it. */
  readonly wipe?: () => void;
  /** The keys typed since the last call. */
  readonly typed?: () => string;
  readonly close: () => Promise<void>;
  /** Whether the view changes as time passes. */
  readonly ticks: boolean;
}

export interface Showing<T, R> {
  readonly clock: Clock;
  readonly view: View<T>;
  /** Aborts when nothing is to be shown any more. */
  readonly signal: AbortSignal;
  readonly platform: Platform;
  /** Ends the watch at the user's request. */
  readonly leave: () => void;
  /** Runs until it has seen enough, and calls `changed` with what is to be shown from then on. */
  readonly follow: (changed: (seen: T) => void) => Promise<R>;
}

/** @returns what `follow` returns. @throws what `follow` throws; what `signal` aborts with. */
export async function keepShowing<T extends object, R>(showing: Showing<T, R>): Promise<R> {
  const { clock, view, platform, leave: quit, follow } = showing;
  const over = new AbortController();
  const signal = AbortSignal.any([showing.signal, over.signal]);
  let seen: T | undefined;
  let asked = alarm(signal);
  const redraw = () => asked.ring();
  const changed = (followed: T) => {
    seen = followed;
    redraw();
  };
  const draw = async () => {
    for (;;) {
      await asked.rung;
      // A signal also rings the alarm, but is not a change.
      signal.throwIfAborted();
      asked = alarm(signal);
      if (seen) await view.show(seen);
      await clock.sleep(REDRAW_MS, { signal });
    }
  };
  const tick = async () => {
    while (view.ticks) {
      await clock.sleep(TICK_MS, { signal });
      redraw();
    }
  };
  const hearKeys = async () => {
    while (view.typed) {
      await clock.sleep(KEYS_MS, { signal });
      if (/q/i.test(view.typed())) quit();
    }
  };
  platform.stdout.on('resize', redraw);
  const { leave } = view;
  if (leave) {
    const enter = () => {
      view.wipe?.();
      redraw();
    };
    platform.whenStopped({ leave, enter });
  }
  const rest = Promise.all([draw(), tick(), hearKeys()]);
  try {
    // The view alone never ends but with an error.
    return await Promise.race([follow(changed), rest.then(() => new Promise<never>(() => undefined))]);
  } finally {
    over.abort();
  }
}

/** Rings once: when `ring` is called, or when `signal` aborts. */
function alarm(signal: AbortSignal): { readonly rung: Promise<void>; readonly ring: () => void } {
  let ring: () => void = () => undefined;
  const rung = new Promise<void>((resolve) => {
    ring = () => {
      signal.removeEventListener('abort', ring);
      resolve();
    };
    signal.addEventListener('abort', ring);
  });
  return { rung, ring };
}

export interface ScreenOf<T> {
  readonly consul: Consul;
  /** A whole frame. */
  readonly frame: (seen: T, head: Omit<ScreenHead, 'what'>, options: FrameOptions) => string;
  /** Whether single keys are heard, such as q. */
  readonly hearsKeys: boolean;
}

/** The terminal's alternate screen, from the first frame on. */
export function showScreen<T>({ consul, frame, ...asked }: ScreenOf<T>, platform: Platform): View<T> {
  const { clock } = platform.deps;
  const { color } = createOutput({ env: platform.env, isTTY: true });
  let entered = false;
  let size = '';
  let faultSince: number | undefined;
  const keys = asked.hearsKeys ? platform.openKeys() : undefined;
  let hearsKeys = false;
  const leave = () => {
    if (entered) void platform.write(LEAVE_SCREEN);
    if (hearsKeys) keys?.giveBack();
    hearsKeys = false;
    entered = false;
    size = '';
  };
  platform.atExit(leave);
  return {
    ticks: true,
    leave,
    wipe: () => (size = ''),
    ...(keys && { typed: () => (hearsKeys ? keys.read() : '') }),
    show: async (seen) => {
      if (!entered && keys) hearsKeys = keys.take(LEAVE_SCREEN);
      const now = clock.now();
      const fault = consul.fault();
      faultSince = fault && (faultSince ?? now);
      const columns = platform.stdout.columns || 80;
      const rows = platform.stdout.rows || 24;
      const drawn = frame(
        seen,
        {
          address: consul.address,
          hearsKeys,
          ...(fault &&
            faultSince !== undefined && { fault: { sinceMs: faultSince, message: fault.message } }),
        },
        { color, columns, rows, now },
      );
      const resized = size !== `${columns}x${rows}`;
      size = `${columns}x${rows}`;
      const before = `${entered ? '' : ENTER_SCREEN}${resized ? WIPE_SCREEN : ''}`;
      entered = true;
      await platform.write(before + drawn);
    },
    close: () => {
      // A stalled terminal must not delay the end.
      leave();
      return Promise.resolve();
    },
  };
}
