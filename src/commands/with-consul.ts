/** What every command that asks Consul has around it. */
import type { Common } from '../cli/command.ts';
import type { Consul } from '../consul/consul.ts';
import type { Deps } from '../platform/deps.ts';
import { createOutput } from '../platform/terminal.ts';
import type { ExecDeps } from '../runner/options.ts';
import type { Platform } from './platform.ts';
import { exitStatusOf } from '../platform/signals.ts';

export interface Ways {
  readonly consul: Consul;
  /** To another node's own agent, where its address was given. */
  readonly agent: Consul | undefined;
  readonly deps: Deps;
  /** Aborts when a signal ends the command, if those are listened to. */
  readonly signal: AbortSignal;
}

interface Setup {
  readonly common: Common;
  /** The address of another node's own agent. */
  readonly agent?: string | undefined;
  /** Signals abort what is under way, and don't end the process where it stands. */
  readonly stoppable?: true;
}

/**
 * Makes the log and the connections, closes them at the end, whichever it is, and gives the exit status: what `use` says,
 * or 128+n after signal n.
 */
export async function withConsul(
  { common, agent: address, stoppable }: Setup,
  platform: Platform,
  use: (ways: Ways) => Promise<number>,
): Promise<number> {
  const stopped = new AbortController();
  const { signal } = stopped;
  let stoppedBy: NodeJS.Signals | undefined;
  if (stoppable)
    platform.listenToSignals().listen((name) => {
      stoppedBy ??= name;
      stopped.abort();
    });
  const emit = platform.makeLog(common);
  const [consul, agent] = await Promise.all([
    platform.connect(emit),
    address === undefined ? undefined : platform.connect(emit, address),
  ]);
  try {
    return await use({ consul, agent, deps: { ...platform.deps, emit }, signal });
  } catch (error) {
    if (stoppedBy === undefined || error !== signal.reason) throw error;
    return exitStatusOf(stoppedBy);
  } finally {
    consul.close();
    agent?.close();
  }
}

/** What shows the wait of a run: a line that is drawn on the terminal, and with -v who has the slots. Loaded where that is read. */
export async function liveOf(
  { env, stderr, terminal }: Platform,
  { verbose, quiet, logFormat }: Common,
): Promise<Pick<ExecDeps, 'terminal' | 'liveLine'>> {
  const isDrawn = createOutput({ env, isTTY: stderr.isTTY }).live && !quiet && logFormat === 'text';
  if (!isDrawn && !verbose) return {};
  const { liveLineOn } = await import('../runner/live-progress.ts');
  return isDrawn ? { terminal, liveLine: liveLineOn(terminal) } : { liveLine: liveLineOn(undefined) };
}
