/**
 * The frame of every command that uses Consul: log, connections, signals and exit status.
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
  /** Aborts when a signal ends the command, if the command is `stoppable`. */
  readonly signal: AbortSignal;
  /** Connects to the configured agent, or to the one at the given address. Closed at the end. */
  readonly connect: (agent?: string) => Promise<Consul>;
}

/** Also with a connection to the configured agent. */
export interface ConsulWays extends Ways {
  readonly consul: Consul;
  /** Connection to another node's own agent, if its address was given. */
  readonly agent: Consul | undefined;
}

interface Setup {
  readonly common: Common;
  /** Signals abort `signal` instead of killing the process. */
  readonly stoppable?: true;
  /** Exit status after such a signal; default: 128+n. */
  readonly statusAfter?: (name: NodeJS.Signals) => number;
}

/**
 * Makes the log, runs `use`, and closes all connections at the end, also after an error. Returns the exit status that
 * `use` returns, or that of the signal that stopped it.
 */
export async function withWays(
  { common, stoppable, statusAfter = exitStatusOf }: Setup,
  platform: Platform,
  use: (ways: Ways) => Promise<number>,
): Promise<number> {
  const stopped = new AbortController();
  const { signal } = stopped;
  let stoppedBy: NodeJS.Signals | undefined;
  // Listen first, so that an early signal does not kill the process.
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
    // A session that nobody knows of would be there for its whole TTL. One of a killed runlock is: it holds nothing.
    await Promise.all(opened.map((each) => each.settled()));
    for (const each of opened) each.close();
  }
}

/** Like `withWays`, but already connected. */
export const withConsul = (
  {
    agent: address,
    ...setup
  }: Setup & { /** Address of another node's own agent. */ readonly agent?: string | undefined },
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

/** @throws RunlockError `config`: a CONSUL_ variable is wrong. */
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
 * What shows a waiting run's progress: the live line on a terminal, and with -v the slots' owners. Loaded only if shown.
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
