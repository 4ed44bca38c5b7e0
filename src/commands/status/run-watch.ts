/** `runlock status --watch`: the newest report on the terminal's other screen, or as lines of JSON. */
import type { Asked } from '../../cli/command.ts';
import { onlyBlocked } from '../../view/below.ts';
import { followGroups } from '../../view/follow.ts';
import type { Followed } from '../../view/follow.ts';
import type { StatusRequest } from './request.ts';
import type { Consul } from '../../consul/consul.ts';
import { RunlockError } from '../../errors.ts';
import { createOutput } from '../../platform/terminal.ts';
import { renderScreen } from '../../output/status-screen.ts';
import type { Platform } from '../platform.ts';
import { printJsonLine } from '../print.ts';
import { keepShowing, showScreen } from '../screen.ts';
import type { View } from '../screen.ts';
import { withConsul } from '../with-consul.ts';
import { exitStatusOf } from '../../platform/signals.ts';

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
    const view = options.json ? showLines(platform) : showReports(consul, options, platform);
    try {
      const leave = () => left.abort();
      const { prefix, groups, blocked } = options;
      const follow = (show: (seen: Followed) => void) => {
        const changed = (seen: Followed) => show(blocked ? (now) => onlyBlocked(seen(now)) : seen);
        return followGroups({ consul, clock }, { prefix, groups, signal, changed });
      };
      await keepShowing({ clock, view, signal, platform, leave, follow });
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

function showLines(platform: Platform): View<Followed> {
  const { clock } = platform.deps;
  return {
    ticks: false,
    show: (seen) => printJsonLine(platform, seen(clock.now())),
    close: () => Promise.resolve(),
  };
}

function showReports(consul: Consul, { groups, all }: StatusRequest, platform: Platform): View<Followed> {
  return showScreen<Followed>(
    {
      consul,
      hearsKeys: true,
      frame: (seen, head, at) =>
        renderScreen(
          { report: seen(at.now), ...head },
          { ...at, overview: true, named: groups, all: all === true },
        ),
    },
    platform,
  );
}
