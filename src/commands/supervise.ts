/** A run under its lease: starts the command, passes signals on, ends it when the lease is over, gives the slot back. */
import type { Ending, Supervised } from '../child.ts';
import { assertNever, reasonOf } from '../errors.ts';
import { decline } from '../lock/grant.ts';
import type { Grant } from '../lock/grant.ts';
import type { Outcome } from '../lock/records.ts';
import { holdLease } from '../lock/lease.ts';
import type { Lease, Over } from '../lock/lease.ts';
import type { CodeMeanings } from '../tools.ts';
import { exitCodeOf, placeOf, sayEnd, sayOver } from './end.ts';
import type { Cause } from './end.ts';
import type { ExecDeps, Figures } from './exec-deps.ts';
import { beat, endTree, start } from './started.ts';
import type { RunOptions } from './started.ts';

export type RunResult = { readonly figures: Figures } & RunEnd;

type RunEnd =
  | { readonly kind: 'ended'; readonly ending: Ending }
  | { readonly kind: 'timed-out' }
  /** The lock was lost, the run was evicted or cut off: the command was killed. */
  | { readonly kind: 'lost' };

export async function superviseRun(deps: ExecDeps, grant: Grant, options: RunOptions): Promise<RunResult> {
  // From here on a signal is the command's; while it is being started, it has to wait.
  const early: NodeJS.Signals[] = [];
  deps.signals.listen((signal) => early.push(signal));
  const lease = holdLease(grant, { ttlMs: options.sessionTtlMs, killAfterMs: options.killAfterMs });
  if (lease.over.aborted) {
    // It was stopped for so long since the grant that others may follow.
    await lease.stop();
    await decline(grant);
    deps.log('error', 'the slot was granted too long ago: others may follow; nothing was started', {
      event: 'lost',
      ...placeOf(grant),
      why: 'late',
    });
    return { kind: 'lost', figures: { outcome: 'lost', waitedMs: options.waitedMs } };
  }
  const started = await start(deps, grant, { options, lease }).catch(async (error: unknown) => {
    await lease.stop();
    await decline(grant);
    throw error;
  });
  const { command, guard } = started;
  const startedMs = deps.clock.monotonicMs();
  const gone = new AbortController();
  void beat(deps, { lease, ...started }, gone.signal);
  const { ending, cause } = await untilEnd(deps, { grant, lease, command, options, early });
  const outcome = outcomeOf(ending, cause, options.meanings);
  if (outcome !== 'succeeded' && outcome !== 'rebooting')
    await endTree(deps, command, { killAfterMs: options.killAfterMs, signal: 'SIGTERM' });
  gone.abort();
  // The next run need not wait until the guard is gone: it has been told, and there is nothing left that it could end.
  const disarmed = guard.disarm();
  const ranMs = deps.clock.monotonicMs() - startedMs;
  const exitCode = exitCodeOf(ending);
  const given = await lease.release({ outcome, exitCode, waitedMs: options.waitedMs, ranMs });
  await disarmed;
  sayEnd(deps, grant, { outcome, exitCode, ranMs, cause, given });
  return { ...toEnd(ending, cause), figures: { outcome, waitedMs: options.waitedMs, ranMs } };
}

interface Running {
  readonly grant: Grant;
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
      deps.log('warning', `${signal} could not be passed on: ${reasonOf(error)}`, { event: 'signal-lost' });
    });
  };
  deps.signals.listen(hear);
  early.forEach(hear);
  const onOver = () => {
    const over = lease.over.reason as Over;
    if (!ended.signal.aborted) sayOver(deps, running.grant, over);
    kill(over);
  };
  lease.over.addEventListener('abort', onOver, { once: true });
  if (lease.over.aborted) onOver();
  if (options.timeoutMs !== undefined) {
    void deps.clock.sleep(options.timeoutMs, { signal: ended.signal }).then(
      () => kill({ kind: 'timed-out' }),
      () => undefined,
    );
  }
  const ending = await command.ended;
  // The terminal told runlock too: a command that dies of Ctrl-C at once may be quicker than that signal.
  if (deps.shareTerminal && cause === undefined && !isOk(ending, options.meanings)) {
    await deps.clock.sleep(SIGNAL_MS, { signal: ended.signal });
  }
  // The terminal told its own process group alone.
  if (killing && deps.shareTerminal) kill({ kind: 'signal' });
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

/** By then a signal that the terminal sent to runlock and to the command has reached both. */
const SIGNAL_MS = 100;

const isOk = (ending: Ending, meanings: CodeMeanings) =>
  ending.kind === 'exited' && meanings.ok.includes(ending.code);

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
  if (isOk(ending, meanings)) return 'succeeded';
  if (ending.kind === 'exited' && meanings.reboot.includes(ending.code)) return 'rebooting';
  return cause ? 'interrupted' : 'failed';
}

function toEnd(ending: Ending, cause: Cause | undefined): RunEnd {
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
