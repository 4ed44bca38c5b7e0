/**
 * A run under its leases: starts the command, passes on signals, ends the command if a lease ends, releases the slots.
 */
import type { Ending, Supervised } from '../process/command.ts';
import { assertNever, reasonOf } from '../errors.ts';
import type { Outcome } from '../lock/records.ts';
import type { Cause, GivenBack } from '../events/events.ts';
import { endedEvent, placeOf, releasingEvent } from './run-events.ts';
import type { ExecDeps, Figures } from './options.ts';
import { SIGNAL_MS, exitCodeOf, isEndOf, isOk, outcomeOf } from './outcome.ts';
import type { Typed } from './outcome.ts';
import { groupOf } from './run-note.ts';
import type { Parted } from './needed.ts';
import type { Together } from './end.ts';
import type { EndPart } from './part.ts';
import { endingOf } from './ran.ts';
import type { Ran } from './ran.ts';
import { declineAll, grantsOf, hear, lostBeforeStart } from './slots.ts';
import type { HeldSlot, HeldSlots } from './slots.ts';
import type { TerminalKeys } from './terminal-keys.ts';
import { beat, endTree, start } from './start.ts';
import type { RunOptions } from './start.ts';

export type RunResult = { readonly figures: Figures } & RunEnd;

type RunEnd =
  | { readonly kind: 'ended'; readonly ending: Ending }
  | { readonly kind: 'timed-out' }
  /** The job of the run was cancelled, and its command killed. */
  | { readonly kind: 'cancelled' }
  /** The command succeeded, but the node's services were not healthy after it. */
  | { readonly kind: 'unhealthy' }
  /** A signal ended the wait for the services to become healthy. */
  | { readonly kind: 'interrupted'; readonly signal: NodeJS.Signals }
  /** A lock was lost, or the run was evicted or cut off; the command was killed or never started. */
  | { readonly kind: 'lost' };

interface SuperviseOptions extends RunOptions {
  /** Undefined: nothing has a part in the run's start or end. */
  readonly parted?: Parted | undefined;
  /** Aborts when the command is to be ended; its reason is the cause. */
  readonly killed?: AbortSignal;
  /** Set if the command shares a terminal with runlock. */
  readonly keys?: TerminalKeys | undefined;
}

export async function superviseRun(
  deps: ExecDeps,
  slots: HeldSlots,
  options: SuperviseOptions,
): Promise<RunResult> {
  // From here on signals go to the command; those that arrive before it has started wait until then.
  const early: NodeJS.Signals[] = [];
  deps.signals.listen((signal) => early.push(signal));
  // Runlock may have been stopped since a grant, for so long that other runs may have the slot by now.
  for (const { lease } of slots) lease.checkDeadline();
  const late = slots.find(({ lease }) => lease.over.aborted);
  if (late) {
    await backOut(deps, slots, options);
    return lostBeforeStart(deps, late, waitedIn(slots));
  }
  const ran = await runCommand(deps, slots, { options, early });
  const judged: Ran = { ...ran, ...(await options.gated?.judge(slots, ran)) };
  const run = await giveBackAll(deps, slots, { run: judged, options });
  const { outcome, ranMs } = run;
  return { ...toEnd(run), figures: { outcome, waitedMs: waitedIn(slots), ranMs } };
}

/** Nothing was started: leaves everything as it was before. */
async function backOut(
  deps: ExecDeps,
  slots: HeldSlots,
  { gated, begun }: SuperviseOptions,
  fault?: unknown,
): Promise<void> {
  await gated?.gate.backOut();
  await declineAll(deps, slots);
  await begun?.undo(fault);
}

const waitedIn = (slots: HeldSlots): Figures['waitedMs'] =>
  Object.fromEntries(slots.map(({ grant, waitedMs }) => [grant.context.keys.group, waitedMs]));

async function runCommand(
  deps: ExecDeps,
  slots: HeldSlots,
  { options, early }: { options: SuperviseOptions; early: readonly NodeJS.Signals[] },
): Promise<Ran> {
  const stops = options.keys?.hearStops(deps);
  const started = await start(deps, slots, options).catch(async (error: unknown) => {
    stops?.dismiss();
    await backOut(deps, slots, options, error);
    throw error;
  });
  const { command, guard } = started;
  const startedMs = deps.clock.monotonicMs();
  const gone = new AbortController();
  const pause = stops?.follow({ slots, ...started });
  void beat(deps, { slots, ...started, options, pause }, gone.signal);
  const { ending, cause } = await untilEnd(deps, { slots, command, options, early });
  pause?.dismiss();
  const outcome = outcomeOf(ending, cause, options.meanings);
  if (outcome !== 'succeeded' && outcome !== 'rebooting')
    await endTree(deps, command, { killAfterMs: options.killAfterMs, signal: 'SIGTERM' });
  gone.abort();
  options.note.ended(outcome, exitCodeOf(ending));
  // A daemon that the command has left may keep the pipes open.
  await options.output?.end(Promise.race([command.drained, shortly(deps)]));
  // The next run need not wait for the guard to go: the guard has been told, and has no process left to end.
  const disarmed = guard.disarm();
  const causes = options.begun?.causes ?? deps.causes;
  return { ending, cause, causes, outcome, ranMs: deps.clock.monotonicMs() - startedMs, disarmed };
}

/** For what a command that has ended has still in its pipes. */
const DRAIN_MS = 500;

const shortly = ({ clock }: ExecDeps): Promise<void> =>
  clock.sleep(DRAIN_MS, { signal: new AbortController().signal });

async function giveBackAll(
  deps: ExecDeps,
  slots: HeldSlots,
  { run: ran, options }: { run: Ran; options: SuperviseOptions },
): Promise<Ran> {
  const { ending, ranMs } = ran;
  const { note } = options;
  const exitCode = exitCodeOf(ending);
  const given = new AbortController();
  void deps.clock.sleep(QUIET_MS, { signal: given.signal }).then(
    () => deps.emit(releasingEvent(grantsOf(slots), exitCode)),
    () => undefined,
  );
  const parts = options.parted?.parts.flatMap((part) => part.end?.(slots, ran) ?? []) ?? [];
  const finished = await endWith(parts, slots, { ran, options });
  const { run, isWritten } = finished;
  const all = await Promise.all(slots.map((slot) => giveBackOne(slot, run, finished.given?.get(slot))));
  await Promise.all(parts.map(async (part) => part.rest?.(run, isWritten)));
  given.abort();
  note.left(all.flatMap(({ grant, given }) => (given.kind === 'stays' ? [groupOf(grant)] : [])));
  // If the guard ended the command, its event explains the bad outcome, so it must come before the `ended` events.
  await run.disarmed;
  for (const { grant, outcome, given } of all)
    deps.emit(endedEvent(grant, { ...toldOf(run), outcome, exitCode, ranMs, given }));
  return run;
}

/** A run that has lost a slot has no common end: each slot that is left is released by itself. */
async function endWith(
  parts: readonly EndPart[],
  slots: HeldSlots,
  { ran, options }: { readonly ran: Ran; readonly options: SuperviseOptions },
): Promise<Together> {
  const isLost = ran.outcome === 'lost' || ran.outcome === 'evicted';
  if (!options.parted || parts.length === 0 || isLost) return { run: ran, isWritten: false };
  return options.parted.endTogether(slots, { ran, parts, ttlMs: options.sessionTtlMs });
}

const toldOf = ({ cause, why, told, unpublished }: Ran) => ({ cause, why, told, unpublished });

/** `given`: what became of the slot, where it is known already. */
async function giveBackOne(slot: HeldSlot, run: Ran, given: GivenBack | undefined) {
  const outcome = outcomeIn(slot, run);
  return {
    grant: slot.grant,
    outcome,
    given: given ?? (await slot.lease.release(endingOf(slot, run, outcome))),
  };
}

/** Consul answers within milliseconds; if runlock takes longer to end after its command, it says why. */
const QUIET_MS = 2_000;

/** The outcome to record in one group of several; never a good one if the slot of another group was lost. */
function outcomeIn({ grant, lease }: HeldSlot, { cause, outcome }: Ran): Outcome {
  if (cause === undefined || !('group' in cause)) return outcome;
  const isEvicted = cause.kind === 'evicted' && cause.group === grant.context.keys.group;
  return isEvicted || lease.whyOver()?.kind === 'evicted' ? 'evicted' : 'lost';
}

interface Running {
  readonly slots: HeldSlots;
  readonly command: Supervised;
  readonly options: SuperviseOptions;
  /** Signals that came while the command was being started. */
  readonly early: readonly NodeJS.Signals[];
}

/** Waits for the first of: the command's own end, a signal, the timeout, a lease's end. If killed, the tree is gone. */
async function untilEnd(
  deps: ExecDeps,
  running: Running,
): Promise<{ ending: Ending; cause: Cause | undefined }> {
  const { slots, command, options, early } = running;
  const ended = new AbortController();
  const typed: Typed[] = [];
  let cause: Cause | undefined;
  let killing: Promise<void> | undefined;
  const kill = (why: Cause, signal: NodeJS.Signals | 'none' = 'SIGTERM') => {
    if (ended.signal.aborted) return;
    // A lost lock outweighs a signal, because other runs may take the slot.
    if (cause === undefined || cause.kind === 'signal') cause = why;
    killing = endTree(deps, command, { killAfterMs: options.killAfterMs, signal });
  };
  const hearSignal = (signal: NodeJS.Signals) => {
    passOn(signal).catch((error: unknown) => {
      deps.emit({ event: 'signal-lost', detail: { signal, fault: reasonOf(error) } });
    });
  };
  deps.signals.listen(hearSignal);
  early.forEach(hearSignal);
  for (const { grant, lease } of slots) {
    hear(lease.over, () => {
      const over = lease.whyOver();
      if (!over || ended.signal.aborted) return;
      deps.emit({ event: 'lost', ...placeOf(grant), why: over.kind, detail: { over, then: 'command-ends' } });
      kill({ ...over, group: grant.context.keys.group });
    });
  }
  const { killed } = options;
  if (killed) hear(killed, () => kill(killed.reason as Cause));
  if (options.timeoutMs !== undefined) {
    void deps.clock.sleep(options.timeoutMs, { signal: ended.signal }).then(
      () => kill({ kind: 'timed-out' }),
      () => undefined,
    );
  }
  const interrupted = options.keys?.watchInterrupts(deps, {
    command,
    options,
    end: () => kill({ kind: 'signal' }),
  });
  const ending = await command.ended;
  const end = { ending, atMs: deps.clock.monotonicMs(), meanings: options.meanings };
  const isInterrupted = () => typed.some((signal) => isEndOf(signal, end));
  // The terminal sends Ctrl-C to runlock too. A command that dies of it at once may end before runlock gets the signal.
  if (deps.shareTerminal && cause === undefined && !isOk(ending, options.meanings) && !isInterrupted()) {
    await deps.clock.sleep(SIGNAL_MS, { signal: ended.signal });
  }
  if (isInterrupted()) cause ??= { kind: 'signal' };
  // The terminal signals only its own process group, so the rest of the tree still has to be told.
  if (killing && deps.shareTerminal) kill({ kind: 'signal' });
  await killing;
  ended.abort();
  return { ending, cause };

  async function passOn(signal: NodeJS.Signals): Promise<void> {
    if (signal === 'SIGUSR1' || signal === 'SIGUSR2') return command.signal(signal);
    // An interactive command decides itself what Ctrl-C means; how it ends shows whether Ctrl-C ended it.
    const isTyped = deps.shareTerminal && (signal === 'SIGINT' || signal === 'SIGQUIT');
    if (isTyped) typed.push({ signal, atMs: deps.clock.monotonicMs() });
    else cause ??= { kind: 'signal' };
    // The first signal goes to the whole tree, including processes that have left the process group.
    if (!deps.shareTerminal && !killing) {
      kill({ kind: 'signal' }, signal);
      return;
    }
    const atMs = deps.clock.monotonicMs();
    await command.signal(signal);
    if (!isTyped) kill({ kind: 'signal' }, 'none');
    else if (signal === 'SIGINT' && !killing) interrupted?.(atMs);
  }
}

function toEnd({ ending, cause, outcome, told }: Ran): RunEnd {
  if (outcome === 'unhealthy') return { kind: 'unhealthy' };
  if (told !== undefined) return { kind: 'interrupted', signal: told };
  switch (cause?.kind) {
    case 'evicted':
    case 'lost':
    case 'cut-off':
      return { kind: 'lost' };
    case 'timed-out':
    case 'cancelled':
      return { kind: cause.kind };
    case 'signal':
    case undefined:
      return { kind: 'ended', ending };
    default:
      return assertNever(cause);
  }
}
