/** A run under its lease: starts the command, passes signals on, ends it when the lease is over, gives the slot back. */
import { startCommand } from '../child.ts';
import type { Ending, Supervised } from '../child.ts';
import { assertNever } from '../errors.ts';
import { keepGuard } from '../guard.ts';
import type { Guard } from '../guard.ts';
import { decline } from '../lock/grant.ts';
import type { Grant } from '../lock/grant.ts';
import type { Outcome } from '../lock/records.ts';
import { holdLease } from '../lock/lease.ts';
import type { Lease, Over } from '../lock/lease.ts';
import type { CodeMeanings } from '../tools.ts';
import { exitCodeOf, sayEnd } from './end.ts';
import type { Cause } from './end.ts';
import type { ExecDeps, ExecOptions } from './exec-deps.ts';

export interface RunOptions extends ExecOptions {
  /** Where the command was found. */
  readonly file: string;
  readonly meanings: CodeMeanings;
  readonly waitedMs: number;
}

export type RunResult =
  | { readonly kind: 'ended'; readonly ending: Ending }
  | { readonly kind: 'timed-out' }
  /** The lock was lost, the run was evicted or cut off: the command was killed. */
  | { readonly kind: 'lost' };

/** Without a word from runlock for this long, the guard ends the command. */
const SILENCE_MS = 30_000;
const BEAT_MS = 5_000;

export async function superviseRun(deps: ExecDeps, grant: Grant, options: RunOptions): Promise<RunResult> {
  // From here on a signal is the command's; while it is being started, it has to wait.
  const early: NodeJS.Signals[] = [];
  deps.signals.listen((signal) => early.push(signal));
  const lease = holdLease(grant, { ttlMs: options.sessionTtlMs, killAfterMs: options.killAfterMs });
  const started = await start(deps, grant, { options, lease }).catch(async (error: unknown) => {
    await lease.stop();
    await decline(grant);
    throw error;
  });
  const { command, guard } = started;
  const startedMs = deps.clock.monotonicMs();
  const gone = new AbortController();
  void beat(deps, { lease, ...started }, gone.signal);
  const { ending, cause } = await untilEnd(deps, { lease, command, options, early });
  const outcome = outcomeOf(ending, cause, options.meanings);
  if (outcome !== 'succeeded' && outcome !== 'rebooting')
    await endTree(deps, command, { killAfterMs: options.killAfterMs, signal: 'SIGTERM' });
  gone.abort();
  await guard.disarm();
  const ranMs = deps.clock.monotonicMs() - startedMs;
  const exitCode = exitCodeOf(ending);
  const given = await lease.release({ outcome, exitCode, waitedMs: options.waitedMs, ranMs });
  sayEnd(deps, grant, { outcome, exitCode, ranMs, cause, given });
  return toResult(ending, cause);
}

interface Started {
  readonly guard: Guard;
  readonly command: Supervised;
}

/** The guard first, then the command. */
async function start(
  deps: ExecDeps,
  grant: Grant,
  { options, lease }: { options: RunOptions; lease: Lease },
): Promise<Started> {
  const guard = keepGuard({
    runId: grant.context.run.id,
    lifeMs: lifeMs(deps, lease),
    path: deps.env['PATH'],
    clock: deps.clock,
    report: (event) => {
      const level = event.kind === 'replaced' ? 'debug' : 'warning';
      deps.log(level, `guard ${event.kind}${event.kind === 'failed' ? `: ${event.reason}` : ''}`, {
        event: 'guard',
      });
    },
  });
  const command = await spawnCommand(deps, grant, { options, guard }).catch(async (error: unknown) => {
    await guard.disarm();
    throw error;
  });
  guard.watch(command);
  return { guard, command };
}

function spawnCommand(
  deps: ExecDeps,
  grant: Grant,
  { options, guard }: { options: RunOptions; guard: Guard },
): Promise<Supervised> {
  const { context, slot, fencingToken } = grant;
  const env = {
    ...deps.env,
    RUNLOCK_GROUP: context.keys.group,
    RUNLOCK_NODE: context.run.node,
    RUNLOCK_SLOT: String(slot),
    RUNLOCK_FENCING_TOKEN: String(fencingToken),
    CONSUL_LOCK_HELD: 'true',
  };
  return startCommand({
    command: options.command,
    file: options.file,
    args: options.args,
    env,
    runId: context.run.id,
    shareTerminal: deps.shareTerminal,
    except: () => guard.pids(),
    clock: deps.clock,
  });
}

interface Running {
  readonly lease: Lease;
  readonly command: Supervised;
  readonly options: RunOptions;
  /** Signals that came while the command was being started. */
  readonly early: readonly NodeJS.Signals[];
}

/** One race decides the end: the command itself, a signal, the timeout, or the lease. The tree is gone if it was killed. */
async function untilEnd(
  deps: ExecDeps,
  running: Running,
): Promise<{ ending: Ending; cause: Cause | undefined }> {
  const { lease, command, options, early } = running;
  const ended = new AbortController();
  let cause: Cause | undefined;
  let killing: Promise<void> | undefined;
  const kill = (why: Cause, signal: NodeJS.Signals | 'none' = 'SIGTERM') => {
    if (ended.signal.aborted) return;
    // A lost lock outweighs a signal: others may follow.
    if (cause === undefined || cause.kind === 'signal') cause = why;
    killing = endTree(deps, command, { killAfterMs: options.killAfterMs, signal });
  };
  const hear = (signal: NodeJS.Signals) => {
    passOn(signal).catch((error: unknown) => {
      deps.log('warning', `${signal} could not be passed on: ${String(error)}`, { event: 'signal-lost' });
    });
  };
  deps.signals.listen(hear);
  early.forEach(hear);
  const onOver = () => kill(lease.over.reason as Over);
  lease.over.addEventListener('abort', onOver, { once: true });
  if (lease.over.aborted) onOver();
  if (options.timeoutMs !== undefined) {
    void deps.clock.sleep(options.timeoutMs, { signal: ended.signal }).then(
      () => kill({ kind: 'timed-out' }),
      () => undefined,
    );
  }
  const ending = await command.ended;
  // The terminal told its own process group alone.
  if (killing) kill({ kind: 'signal' });
  await killing;
  ended.abort();
  return { ending, cause };

  async function passOn(signal: NodeJS.Signals): Promise<void> {
    if (signal === 'SIGUSR1' || signal === 'SIGUSR2') return command.signal(signal);
    cause ??= { kind: 'signal' };
    // A tree that is told for the first time is told as a whole, whoever has left the group included.
    if (!deps.shareTerminal && !killing) {
      kill({ kind: 'signal' }, signal);
      return;
    }
    await command.signal(signal);
    // An interactive command decides for itself what Ctrl-C means.
    const typed = deps.shareTerminal && (signal === 'SIGINT' || signal === 'SIGQUIT');
    if (!typed) kill({ kind: 'signal' }, 'none');
  }
}

/** After KILL this is long: whatever still lives then is stuck in the kernel, or somebody else's. */
const STUCK_MS = 5_000;

/** Ends the command's tree, and says who will not go: the slot is kept until they do. */
async function endTree(
  { clock, log }: ExecDeps,
  command: Supervised,
  how: { killAfterMs: number; signal: NodeJS.Signals | 'none' },
): Promise<void> {
  const gone = new AbortController();
  void clock.sleep(how.killAfterMs + STUCK_MS, { signal: gone.signal }).then(
    () => {
      const who = remember(command).map(({ pid, name }) => `${name} (pid ${pid})`);
      log('warning', `can't kill ${who.join(', ')}; the slot is kept until they are gone`, {
        event: 'stuck',
      });
    },
    () => undefined,
  );
  await command.kill(how);
  gone.abort();
}

async function beat(
  deps: ExecDeps,
  { lease, guard, command }: Started & { lease: Lease },
  signal: AbortSignal,
): Promise<void> {
  try {
    for (;;) {
      guard.beat(lifeMs(deps, lease));
      remember(command);
      await deps.clock.sleep(BEAT_MS, { signal });
    }
  } catch {
    // The command's tree is gone.
  }
}

/** A look at the tree remembers who belongs to it, should they hide it later. */
function remember(command: Supervised): ReturnType<Supervised['remaining']> {
  try {
    return command.remaining();
  } catch {
    // Out of file descriptors, say: the next look will do.
    return [];
  }
}

/** The guard is done within a second of the end of a life. */
const GUARD_MS = 1_000;

const lifeMs = ({ clock }: ExecDeps, lease: Lease): number =>
  Math.min(SILENCE_MS, lease.deadlineMs() - GUARD_MS - clock.monotonicMs());

function outcomeOf(ending: Ending, cause: Cause | undefined, meanings: CodeMeanings): Outcome {
  switch (cause?.kind) {
    case 'evicted':
      return 'evicted';
    case 'lost':
    case 'cut-off':
      return 'lost';
    case 'timed-out':
      return 'timed-out';
    case 'signal':
    case undefined:
      break;
    default:
      return assertNever(cause);
  }
  if (ending.kind === 'exited' && meanings.ok.includes(ending.code)) return 'succeeded';
  if (ending.kind === 'exited' && meanings.reboot.includes(ending.code)) return 'rebooting';
  return cause ? 'interrupted' : 'failed';
}

function toResult(ending: Ending, cause: Cause | undefined): RunResult {
  switch (cause?.kind) {
    case 'evicted':
    case 'lost':
    case 'cut-off':
      return { kind: 'lost' };
    case 'timed-out':
      return { kind: 'timed-out' };
    case 'signal':
    case undefined:
      return { kind: 'ended', ending };
    default:
      return assertNever(cause);
  }
}
