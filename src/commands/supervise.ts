/** A run under its lease: starts the command, passes signals on, ends it when the lease is over, gives the slot back. */
import { constants } from 'node:os';
import { startCommand } from '../child.ts';
import type { Ending, Supervised } from '../child.ts';
import { assertNever } from '../errors.ts';
import { keepGuard } from '../guard.ts';
import type { Guard } from '../guard.ts';
import { decline } from '../lock/grant.ts';
import type { Grant } from '../lock/grant.ts';
import type { GivenBack } from '../lock/give-back.ts';
import type { Outcome } from '../lock/layout.ts';
import { holdLease } from '../lock/lease.ts';
import type { Lease, Over } from '../lock/lease.ts';
import { formatAge } from '../output.ts';
import type { CodeMeanings } from '../tools.ts';
import type { ExecDeps, ExecOptions } from './exec.ts';

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

/** Why runlock ended the command, if it did. */
type Cause = Over | { readonly kind: 'timed-out' } | { readonly kind: 'signal' };

export async function superviseRun(deps: ExecDeps, grant: Grant, options: RunOptions): Promise<RunResult> {
  const lease = holdLease(grant, { ttlMs: options.sessionTtlMs, killAfterMs: options.killAfterMs });
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
  const command = await start(deps, grant, { options, guard }).catch(async (error: unknown) => {
    await guard.disarm();
    await lease.stop();
    await decline(grant);
    throw error;
  });
  const startedMs = deps.clock.monotonicMs();
  const { ending, cause } = await untilEnd(deps, { lease, guard, command, options });
  const outcome = outcomeOf(ending, cause, options.meanings);
  if (outcome !== 'succeeded' && outcome !== 'rebooting')
    await command.kill({ killAfterMs: options.killAfterMs });
  await guard.disarm();
  const ranMs = deps.clock.monotonicMs() - startedMs;
  const exitCode = exitCodeOf(ending);
  const given = await lease.release({ outcome, exitCode, waitedMs: options.waitedMs, ranMs });
  sayEnd(deps, grant, { outcome, exitCode, ranMs, cause, given });
  return toResult(ending, cause);
}

function start(
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
  readonly guard: Guard;
  readonly command: Supervised;
  readonly options: RunOptions;
}

/** One race decides the end: the command itself, a signal, the timeout, or the lease. The tree is gone if it was killed. */
async function untilEnd(
  deps: ExecDeps,
  running: Running,
): Promise<{ ending: Ending; cause: Cause | undefined }> {
  const { lease, guard, command, options } = running;
  const ended = new AbortController();
  let cause: Cause | undefined;
  let killing: Promise<void> | undefined;
  const kill = (why: Cause, signal: NodeJS.Signals | 'none' = 'SIGTERM') => {
    if (ended.signal.aborted) return;
    // A lost lock outweighs a signal: others may follow.
    if (cause === undefined || cause.kind === 'signal') cause = why;
    killing = command.kill({ killAfterMs: options.killAfterMs, signal });
  };
  guard.watch(command);
  void beat(deps, running, ended.signal);
  deps.signals.listen((signal) => void passOn(signal));
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
  await killing;
  ended.abort();
  return { ending, cause };

  async function passOn(signal: NodeJS.Signals): Promise<void> {
    if (signal === 'SIGUSR1' || signal === 'SIGUSR2') return command.signal(signal);
    cause ??= { kind: 'signal' };
    await command.signal(signal);
    // An interactive command decides for itself what Ctrl-C means.
    const typed = deps.shareTerminal && (signal === 'SIGINT' || signal === 'SIGQUIT');
    if (!typed) kill({ kind: 'signal' }, 'none');
  }
}

async function beat(deps: ExecDeps, { lease, guard, command }: Running, signal: AbortSignal): Promise<void> {
  try {
    for (;;) {
      guard.beat(lifeMs(deps, lease));
      remember(command);
      await deps.clock.sleep(BEAT_MS, { signal });
    }
  } catch {
    // The command has ended.
  }
}

/** A look at the tree remembers who belongs to it, should they hide it later. */
function remember(command: Supervised): void {
  try {
    command.remaining();
  } catch {
    // Out of file descriptors, say: the next look will do.
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

/** The command's own code; 128 and its signal's number where a signal ended it, as a shell says it. */
export function exitCodeOf(ending: Ending): number {
  return ending.kind === 'exited' ? ending.code : 128 + constants.signals[ending.signal];
}

interface End {
  readonly outcome: Outcome;
  readonly exitCode: number;
  readonly ranMs: number;
  readonly cause: Cause | undefined;
  readonly given: GivenBack;
}

function sayEnd({ log }: ExecDeps, { context, slot }: Grant, end: End): void {
  const { node } = context.run;
  const { group } = context.keys;
  const { outcome, exitCode, cause, given } = end;
  const fields = {
    event: 'ended',
    group,
    node,
    slot,
    outcome,
    exitCode,
    ranMs: Math.round(end.ranMs),
    released: given.kind,
  };
  const why = whyKilled(cause, group);
  const ran = why ?? `${context.run.command} ended with ${exitCode} after ${formatAge(end.ranMs)}`;
  const level = why === undefined && given.kind === 'released' && !given.kept ? 'info' : 'warning';
  log(level, `${ran}; ${sayGivenBack(given, { node, group, slot })}`, fields);
}

function whyKilled(cause: Cause | undefined, group: string): string | undefined {
  switch (cause?.kind) {
    case 'evicted':
      return `the run was evicted by ${cause.by} and killed`;
    case 'lost':
      return `the lock of ${group} was lost (${cause.why}) and the command killed`;
    case 'cut-off':
      return `Consul could not be reached for so long that others may follow; the command was killed`;
    case 'timed-out':
      return 'the command ran longer than --timeout and was killed';
    case 'signal':
    case undefined:
      return undefined;
    default:
      return assertNever(cause);
  }
}

function sayGivenBack(
  given: GivenBack,
  { node, group, slot }: { node: string; group: string; slot: number },
): string {
  switch (given.kind) {
    case 'nothing':
      return `slot ${slot} of ${group} is no longer its own; nothing was given back`;
    case 'stays': {
      const clear = `its next run or 'runlock release ${group} --owner ${node}' clears it`;
      return `it could not be given back (${given.why}): ${given.keys.join(', ')} stays and keeps others out; ${clear}`;
    }
    case 'released': {
      if (!given.kept) return `slot ${slot} of ${group} is free again`;
      const until = given.kept.heldUntil === undefined ? '' : `, ${given.kept.heldUntil},`;
      return `${node} keeps slot ${slot} of ${group} until${until === '' ? '' : `${until} or`} its next good run; 'runlock release ${group} --owner ${node}' clears it`;
    }
    default:
      return assertNever(given);
  }
}
