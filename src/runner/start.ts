/** A command under its guard: started together, kept alive by beats, ended together. */
import { startCommand } from '../process/command.ts';
import type { Supervised } from '../process/command.ts';
import { keepGuard } from '../process/guard/guard.ts';
import type { Guard, Spare } from '../process/guard/guard.ts';
import type { Grant } from '../lock/head-of-queue.ts';
import type { RunCgroup } from '../process/cgroup.ts';
import type { FileLimit } from '../process/contain.ts';
import type { ProcessName } from '../process/run-file.ts';
import type { Launcher } from '../process/launcher.ts';
import type { CodeMeanings } from './outcome.ts';
import type { ExecDeps, ExecOptions } from './options.ts';
import type { Gated } from './gated.ts';
import { notesFolder, settleBefore } from './run-note.ts';
import type { RunNote } from './run-note.ts';
import type { HeldSlots } from './slots.ts';

export interface RunOptions extends ExecOptions {
  /** Where the command was found. */
  readonly file: string;
  readonly meanings: CodeMeanings;
  /** The secret of the run. */
  readonly nonce: string;
  /** Where its command is to live; undefined where this host gives no cgroup. */
  readonly cgroup?: () => RunCgroup | undefined;
  /** The caller's limit of open files; undefined where there is nothing to change. */
  readonly fileLimit?: () => FileLimit | undefined;
  /** Where the command has signals to ignore. */
  readonly launcher?: Launcher;
  /** Undefined: there is none. */
  readonly gated?: Pick<Gated, 'gate' | 'judge'> | undefined;
  /** A guard that may be there already. */
  readonly spare?: Spare;
  readonly note: RunNote;
}

/** Without a word from runlock for this long, the guard ends the command. */
export const SILENCE_MS = 30_000;
const BEAT_MS = 5_000;

export interface Started {
  readonly guard: Guard;
  readonly command: Supervised;
}

/** The guard first, then the command. */
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
  // Whatever stops runlock from here on, its command itself perhaps, the guard knows when to end it.
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
  const list = (of: (grant: Grant) => string | number) => slots.map(({ grant }) => of(grant)).join(',');
  const env = {
    ...deps.env,
    RUNLOCK_RUN_ID: run.id,
    RUNLOCK_RUN_GROUP: list(({ context }) => context.keys.group),
    RUNLOCK_RUN_NODE: run.node,
    RUNLOCK_RUN_SLOT: list(({ slot }) => slot),
    RUNLOCK_FENCING_TOKEN: list(({ fencingToken }) => fencingToken),
    CONSUL_LOCK_HELD: 'true',
  };
  return startCommand({
    command: options.command,
    file: options.file,
    args: options.args,
    ...(options.launcher && { launcher: options.launcher }),
    env,
    nonce: options.nonce,
    cgroup: options.cgroup?.(),
    fileLimit: options.fileLimit?.(),
    inherited: deps.inherited,
    shareTerminal: deps.shareTerminal,
    except: () => guard.pids(),
    inner: () => deps.runFiles.list().flatMap(({ runlock, guard }) => (guard ? [runlock, guard] : [runlock])),
    clock: deps.clock,
  });
}

/** After KILL this is long: whatever still lives then is stuck in the kernel, or somebody else's. */
const STUCK_MS = 5_000;

/** Ends the command's tree, and tells who will not go: the slot is kept until they do. */
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
      // First of all a pause: the guard was started with a whole life, and a look at a tree that has only just begun
      // would show the command alone, and keep a short run from ending.
      await clock.sleep(dueMs - clock.monotonicMs(), { signal });
      // Counted from before the look at the tree: whoever is stopped during it beats at once when continued.
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

/** Of who is in the cgroup that knows by itself. */
function outside<T extends ProcessName>(members: readonly T[], cgroup: RunCgroup | undefined): readonly T[] {
  try {
    const inside = new Set(cgroup?.pids());
    return members.filter(({ pid }) => !inside.has(pid));
  } catch {
    return members;
  }
}

/** A look at the tree remembers who belongs to it, should they hide it later. Undefined: it failed. */
function remember(command: Supervised): ReturnType<Supervised['remaining']> | undefined {
  try {
    return command.remaining();
  } catch {
    // Out of file descriptors, say: the next look will do.
    return undefined;
  }
}

/** The guard is done within a second of the end of a life. */
const GUARD_MS = 1_000;

/** The first lease to be over ends the command. */
export const leaseMs = ({ clock }: ExecDeps, slots: HeldSlots): number =>
  Math.min(...slots.map(({ lease }) => lease.deadlineMs() - GUARD_MS - clock.monotonicMs()));

/** How long the guard waits for the next word of a runlock that is not stopped. */
export const lifeMs = (deps: ExecDeps, slots: HeldSlots): number =>
  Math.min(SILENCE_MS, leaseMs(deps, slots));
