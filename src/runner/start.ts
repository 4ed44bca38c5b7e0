/** A command and its guard: started together, kept alive by beats, ended together. */
import { startCommand } from '../process/command.ts';
import type { Supervised } from '../process/command.ts';
import { keepGuard } from '../process/guard/guard.ts';
import type { Guard, Spare } from '../process/guard/guard.ts';
import { toCauseVariables } from '../lock/causes.ts';
import { isOfJob } from '../lock/keys.ts';
import type { Grant } from '../lock/head-of-queue.ts';
import type { RunCgroup } from '../process/cgroup.ts';
import type { FileLimit } from '../process/contain.ts';
import type { ProcessName } from '../process/run-file.ts';
import type { Launcher } from '../process/launcher.ts';
import type { Begun } from './begin.ts';
import type { CodeMeanings } from './outcome.ts';
import type { ExecDeps, ExecOptions } from './options.ts';
import type { Gated } from './gated.ts';
import { notesFolder, settleBefore } from './run-note.ts';
import type { LogOutput } from './log-output.ts';
import type { RunNote } from './run-note.ts';
import type { HeldSlots } from './slots.ts';

export interface RunOptions extends ExecOptions {
  /** Where the command was found. */
  readonly file: string;
  readonly meanings: CodeMeanings;
  /** The secret of the run. */
  readonly nonce: string;
  /** Where the command will run; undefined if this host has no cgroup for it. */
  readonly cgroup?: () => RunCgroup | undefined;
  /** The caller's limit of open files; undefined if there is nothing to change. */
  readonly fileLimit?: () => FileLimit | undefined;
  /** Set if the command has signals to ignore. */
  readonly launcher?: Launcher;
  /** Undefined: the run has no gate. */
  readonly gated?: Pick<Gated, 'gate' | 'judge'> | undefined;
  /** What the start has set in Consul; undefined: nothing. */
  readonly begun?: Begun | undefined;
  /** A guard that may already be running. */
  readonly spare?: Spare;
  readonly note: RunNote;
  /** Takes the command's output; undefined: it goes where runlock's goes. */
  readonly output?: LogOutput | undefined;
}

/** If the guard hears nothing from runlock for this long, it ends the command. */
export const SILENCE_MS = 30_000;
const BEAT_MS = 5_000;

export interface Started {
  readonly guard: Guard;
  readonly command: Supervised;
}

/** Starts the guard first, then the command. */
export async function start(deps: ExecDeps, slots: HeldSlots, options: RunOptions): Promise<Started> {
  const guard = keepGuard({
    nonce: options.nonce,
    ...(options.cgroup && { cgroup: options.cgroup }),
    lifeMs: lifeMs(deps, slots),
    path: deps.env['PATH'],
    notes: notesFolder(deps),
    clock: deps.clock,
    ...(options.spare && { spare: options.spare }),
    report: (event) =>
      deps.emit(
        event.kind === 'failed'
          ? { event: 'guard', kind: event.kind, detail: { reason: event.reason } }
          : { event: 'guard', kind: event.kind },
      ),
  });
  options.note.starts(options.cgroup?.()?.path);
  // If anything stops runlock from here on, even the command itself, the guard knows when to end the command.
  await guard.told;
  const command = await spawnCommand(deps, slots, { options, guard }).catch(async (error: unknown) => {
    await guard.disarm();
    throw error;
  });
  guard.watch(command);
  options.note.started(command, guard.pids());
  settleBefore(deps, slots);
  return { guard, command };
}

function spawnCommand(
  deps: ExecDeps,
  slots: HeldSlots,
  { options, guard }: { options: RunOptions; guard: Guard },
): Promise<Supervised> {
  const { run } = slots[0].grant.context;
  // A slot of the job's own is nobody's business, unless there is no other.
  const own = slots.filter(({ grant }) => !isOfJob(grant.context.keys.group));
  const list = (of: (grant: Grant) => string | number) =>
    (own.length > 0 ? own : slots).map(({ grant }) => of(grant)).join(',');
  const env = {
    ...deps.env,
    RUNLOCK_RUN_ID: run.id,
    RUNLOCK_RUN_GROUP: list(({ context }) => context.keys.group),
    RUNLOCK_RUN_NODE: run.node,
    RUNLOCK_RUN_SLOT: list(({ slot }) => slot),
    RUNLOCK_FENCING_TOKEN: list(({ fencingToken }) => fencingToken),
    CONSUL_LOCK_HELD: 'true',
    ...toCauseVariables(options.begun?.causes ?? deps.causes),
  };
  return startCommand({
    ...programOf(deps, options),
    ...(deps.cwd !== undefined && { cwd: deps.cwd }),
    ...(options.launcher && { launcher: options.launcher }),
    env,
    nonce: options.nonce,
    cgroup: options.cgroup?.(),
    fileLimit: options.fileLimit?.(),
    inherited: deps.inherited(),
    shareTerminal: deps.shareTerminal,
    hearOutput: options.output?.hear,
    except: () => guard.pids(),
    inner: () => deps.runFiles.list().flatMap(({ runlock, guard }) => (guard ? [runlock, guard] : [runlock])),
    clock: deps.clock,
  });
}

function programOf({ become }: ExecDeps, { command, file, args }: RunOptions) {
  if (!become) return { command, file, args };
  const [program, ...words] = become;
  return { command: program, file: program, args: [...words, file, ...args] };
}

/** Long enough after KILL: a process that is still alive by then is stuck in the kernel, or belongs to another user. */
const STUCK_MS = 5_000;

/** Ends the command's tree, and reports processes that do not end; the slot is held until they do. */
export async function endTree(
  { clock, emit }: ExecDeps,
  command: Supervised,
  how: { killAfterMs: number; signal: NodeJS.Signals | 'none' },
): Promise<void> {
  const gone = new AbortController();
  void clock.sleep(how.killAfterMs + STUCK_MS, { signal: gone.signal }).then(
    () => {
      const processes = remember(command) ?? [];
      emit({ event: 'stuck', detail: { processes } });
    },
    () => undefined,
  );
  await command.kill(how);
  gone.abort();
}

interface Beating extends Started {
  readonly slots: HeldSlots;
  readonly options: RunOptions;
  /** Whether runlock is about to be stopped on purpose. */
  readonly pause: { readonly isOn: () => boolean } | undefined;
}

export async function beat(
  deps: ExecDeps,
  { slots, guard, command, options: { note, cgroup }, pause }: Beating,
  signal: AbortSignal,
): Promise<void> {
  const { clock } = deps;
  try {
    for (let dueMs = clock.monotonicMs() + BEAT_MS; ;) {
      // Sleep first: the guard was started with a full life, and a look at a tree that has only just begun would show
      // only the command, and delay the end of a short run.
      await clock.sleep(dueMs - clock.monotonicMs(), { signal });
      // Count from before the look at the tree, so that a runlock stopped during the look beats at once when continued.
      dueMs = clock.monotonicMs() + BEAT_MS;
      guard.beat(pause?.isOn() ? leaseMs(deps, slots) : lifeMs(deps, slots));
      const members = remember(command);
      if (members) note.looked(outside(members, cgroup?.()), guard.pids());
      cgroup?.()?.sweep();
    }
  } catch {
    // The command's tree is gone.
  }
}

/** The processes outside the cgroup; the cgroup itself keeps track of those inside. */
function outside<T extends ProcessName>(members: readonly T[], cgroup: RunCgroup | undefined): readonly T[] {
  try {
    const inside = new Set(cgroup?.pids());
    return members.filter(({ pid }) => !inside.has(pid));
  } catch {
    return members;
  }
}

/** A look at the tree remembers its processes, in case they hide later that they belong to it. Undefined: it failed. */
function remember(command: Supervised): ReturnType<Supervised['remaining']> | undefined {
  try {
    return command.remaining();
  } catch {
    // Out of file descriptors, say; the next look will do instead.
    return undefined;
  }
}

/** The guard has ended the command within this time after its life runs out. */
const GUARD_MS = 1_000;

/** Time until the guard must end the command, set by the first lease to end. */
export const leaseMs = ({ clock }: ExecDeps, slots: HeldSlots): number =>
  Math.min(...slots.map(({ lease }) => lease.deadlineMs() - GUARD_MS - clock.monotonicMs()));

/** How long the guard waits for the next beat of a runlock that is not stopped. */
export const lifeMs = (deps: ExecDeps, slots: HeldSlots): number =>
  Math.min(SILENCE_MS, leaseMs(deps, slots));
