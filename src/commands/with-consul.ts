/**
 * What every command that asks Consul has around it: its log, its connections, what a signal does, and its exit status.
 */
import type { Common } from '../cli/command.ts';
import { strayVariables } from '../cli/variables.ts';
import type { Consul } from '../consul/consul.ts';
import type { Emit } from '../events/events.ts';
import type { Deps } from '../platform/deps.ts';
import { createOutput } from '../platform/terminal.ts';
import type { ExecDeps } from '../runner/options.ts';
import type { Platform } from './platform.ts';
import { exitStatusOf } from '../platform/signals.ts';

export interface Ways {
  readonly deps: Deps;
  /** Aborts when a signal ends the command, if those are listened to. */
  readonly signal: AbortSignal;
  /** To the agent of the environment, or to the one at another address. Closed with the rest. */
  readonly connect: (agent?: string) => Promise<Consul>;
}

/** With the connection that is asked for everything. */
export interface ConsulWays extends Ways {
  readonly consul: Consul;
  /** To another node's own agent, where its address was given. */
  readonly agent: Consul | undefined;
}

interface Setup {
  readonly common: Common;
  /** Signals abort what is under way, and don't end the process where it stands. */
  readonly stoppable?: true;
  /** The exit status after one that did; 128+n unless given. */
  readonly statusAfter?: (name: NodeJS.Signals) => number;
}

/**
 * Makes the log, closes the connections that were made at the end, whichever it is, and gives the exit status: what
 * `use` says, or that of the signal which stopped it.
 */
export async function withWays(
  { common, stoppable, statusAfter = exitStatusOf }: Setup,
  platform: Platform,
  use: (ways: Ways) => Promise<number>,
): Promise<number> {
  const stopped = new AbortController();
  const { signal } = stopped;
  let stoppedBy: NodeJS.Signals | undefined;
  // Before anything else: a signal that comes early must not find the default action.
  if (stoppable)
    platform.listenToSignals().listen((name) => {
      stoppedBy ??= name;
      stopped.abort();
    });
  const emit = openLog(platform, common);
  const opened: Consul[] = [];
  const connect = async (agent?: string) => {
    const consul = await connectTo(platform, emit, agent);
    opened.push(consul);
    return consul;
  };
  try {
    return await use({ deps: { ...platform.deps, emit }, signal, connect });
  } catch (error) {
    if (stoppedBy === undefined || error !== signal.reason) throw error;
    return statusAfter(stoppedBy);
  } finally {
    for (const each of opened) each.close();
  }
}

/** The same, connected to begin with. */
export const withConsul = (
  {
    agent: address,
    ...setup
  }: Setup & { /** Of another node's own agent. */ readonly agent?: string | undefined },
  platform: Platform,
  use: (ways: ConsulWays) => Promise<number>,
): Promise<number> =>
  withWays(setup, platform, async (ways) => {
    const other = address === undefined ? undefined : ways.connect(address);
    const [consul, agent] = await Promise.all([ways.connect(), other]);
    return use({ ...ways, consul, agent });
  });

/** Makes the log, and first reports wrong variables of the environment. */
export function openLog(platform: Platform, common: Common): Emit {
  const emit = platform.makeLog(common);
  for (const stray of strayVariables(platform.env)) emit({ event: 'unknown-variable', ...stray });
  return emit;
}

/** @throws RunlockError `config`: what the environment says of Consul. */
export async function connectTo(
  { env, deps: { clock }, notice }: Pick<Platform, 'env' | 'deps' | 'notice'>,
  emit: Emit,
  agent?: string,
): Promise<Consul> {
  const [{ connect }, { consulSettings }] = await Promise.all([
    import('../consul/consul.ts'),
    import('../consul/env.ts'),
  ]);
  // Show the fault without the remedy; the full message follows if the fault persists.
  const onRetry = (fault: string) => notice(fault && `${fault.replace(/; [^;]*$/, '')}; retrying`);
  return connect(consulSettings(env, agent), { clock, emit, onRetry });
}

/**
 * What shows the wait of a run: a line that is drawn on the terminal, and with -v who has the slots. Loaded where that
 * is read.
 */
export async function liveOf(
  { env, stderr, terminal }: Platform,
  { verbose, quiet, logFormat }: Common,
): Promise<Pick<ExecDeps, 'terminal' | 'liveLine'>> {
  const isDrawn = createOutput({ env, isTTY: stderr.isTTY }).live && !quiet && logFormat === 'text';
  if (!isDrawn && !verbose) return {};
  const { liveLineOn } = await import('../runner/live-progress.ts');
  return isDrawn ? { terminal, liveLine: liveLineOn(terminal) } : { liveLine: liveLineOn(undefined) };
}
