/** `runlock status --watch`: the newest report on the terminal's other screen, or as lines of JSON. */
import type { Asked } from '../../cli/command.ts';
import { onlyBlocked } from '../../view/below.ts';
import { followGroups } from '../../view/follow.ts';
import type { Followed } from '../../view/follow.ts';
import type { StatusRequest } from './request.ts';
import type { Consul } from '../../consul/consul.ts';
import type { Clock } from '../../platform/deps.ts';
import { RunlockError } from '../../errors.ts';
import { createOutput } from '../../platform/terminal.ts';
import { ENTER_SCREEN, LEAVE_SCREEN, WIPE_SCREEN, renderScreen } from '../../output/status-screen.ts';
import type { Platform } from '../platform.ts';
import { printJsonLine } from '../print.ts';
import { withConsul } from '../with-consul.ts';
import { exitStatusOf } from '../../platform/signals.ts';

/** How often ages on the screen are updated, without a request to Consul. */
const TICK_MS = 1_000;
/** No one reads faster than this, and a storm of changes must not take up the CPU. */
const REDRAW_MS = 100;

/** Short enough for a key press to seem to work at once. */
const KEYS_MS = 100;

/** How the report is shown. */
interface View {
  readonly show: (seen: Followed) => Promise<void>;
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

/** Runs until q or Ctrl-C, the normal ways to leave (exit status 0), or another signal (128 plus its number). */
export async function runWatch(
  { common, options }: Asked<StatusRequest>,
  platform: Platform,
): Promise<number> {
  if (!options.json) requireTerminal(platform);
  // On the screen a log line would be overwritten; the screen itself shows that Consul does not answer.
  const onScreen = !options.json && platform.stderr.isTTY;
  const setup: Parameters<typeof withConsul>[0] = {
    common: onScreen ? { ...common, verbose: false, quiet: true } : common,
    stoppable: true,
    statusAfter: (name) => (name === 'SIGINT' ? 0 : exitStatusOf(name)),
  };
  return withConsul(setup, platform, async ({ consul, deps: { clock }, signal: told }) => {
    const left = new AbortController();
    // If the reader of the lines has left, stop.
    platform.stdout.on('error', () => left.abort());
    const signal = AbortSignal.any([told, left.signal]);
    const view = options.json ? showLines(platform) : showScreen({ consul, options }, platform);
    try {
      const leave = () => left.abort();
      await keepShowing({ consul, clock }, { options, view, signal, platform, leave });
    } catch (error) {
      if (told.aborted) throw told.reason;
      if (!left.signal.aborted) throw error;
    } finally {
      left.abort();
      await view.close();
    }
    return 0;
  });
}

function requireTerminal({ stdout, env }: Platform): void {
  if (createOutput({ env, isTTY: stdout.isTTY }).live) return;
  const what = stdout.isTTY ? "TERM=dumb can't draw" : 'stdout is not a terminal';
  throw new RunlockError(
    'usage',
    `status --watch needs a terminal, but ${what}; use --json to print a line for each change; see 'runlock status --help'`,
  );
}

interface Showing {
  readonly options: StatusRequest;
  readonly view: View;
  readonly signal: AbortSignal;
  readonly platform: Platform;
  /** Ends the watch at the user's request. */
  readonly leave: () => void;
}

async function keepShowing(
  { consul, clock }: { consul: Consul; clock: Clock },
  { options: { prefix, groups, blocked }, view, signal, platform, leave: quit }: Showing,
): Promise<void> {
  let seen: Followed | undefined;
  let asked = alarm(signal);
  const redraw = () => asked.ring();
  const changed = (followed: Followed) => {
    seen = blocked ? (now) => onlyBlocked(followed(now)) : followed;
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
  await Promise.all([
    followGroups({ consul, clock }, { prefix, groups, signal, changed }),
    draw(),
    tick(),
    hearKeys(),
  ]);
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

function showLines(platform: Platform): View {
  const { clock } = platform.deps;
  return {
    ticks: false,
    show: (seen) => printJsonLine(platform, seen(clock.now())),
    close: () => Promise.resolve(),
  };
}

function showScreen(
  { consul, options: { groups, all } }: { consul: Consul; options: StatusRequest },
  platform: Platform,
): View {
  const { clock } = platform.deps;
  const { color } = createOutput({ env: platform.env, isTTY: true });
  let entered = false;
  let size = '';
  let faultSince: number | undefined;
  const keys = platform.openKeys();
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
      const frame = renderScreen(
        {
          report: seen(now),
          address: consul.address,
          hearsKeys,
          ...(fault &&
            faultSince !== undefined && { fault: { sinceMs: faultSince, message: fault.message } }),
        },
        { color, columns, rows, now, overview: true, named: groups, all: all === true },
      );
      const resized = size !== `${columns}x${rows}`;
      size = `${columns}x${rows}`;
      const before = `${entered ? '' : ENTER_SCREEN}${resized ? WIPE_SCREEN : ''}`;
      entered = true;
      await platform.write(before + frame);
    },
    close: () => {
      // A stalled terminal must not delay the end.
      leave();
      return Promise.resolve();
    },
  };
}
