/**
 * The note that a run keeps about itself on its host (docs/adr/0004), and what it does with the note of the run before.
 */
import { MOST_MEMBERS } from '../process/run-file.ts';
import type { ProcessName, RunFile } from '../process/run-file.ts';
import { isLive, isOver } from '../process/host.ts';
import type { Grant } from '../lock/head-of-queue.ts';
import type { Outcome } from '../lock/records.ts';
import type { ExecDeps } from './options.ts';
import type { HeldSlot } from './slots.ts';

export type NoteDeps = Pick<ExecDeps, 'clock' | 'host' | 'runFiles'>;

/** None of these functions throws or ends a run. */
export interface RunNote {
  granted(node: string): void;
  /**
   * The command may start soon. Nothing is written before, since a waiting run has no processes to find. May be
   * repeated.
   */
  starts(cgroup: string | undefined): void;
  /**
   * Writes a command in a cgroup after a moment only: until then its cgroup is enough, and a short command saves the
   * write.
   */
  started(command: StartedCommand, guard: readonly number[]): void;
  /**
   * Called after each look at the tree, with its processes outside the cgroup and the guard, which may have been
   * replaced.
   */
  looked(members: readonly ProcessName[], guard: readonly number[]): void;
  /** The run's tree is gone, or only a daemon of a good run is left. */
  ended(outcome: Outcome, exitCode: number): void;
  /** All slots are released except those of `groups`, whose claims the node's next run finds. */
  left(groups: readonly string[]): void;
  /** Runlock is about to end. Removes the note of a run that had no command, or released all slots. */
  close(): void;
}

type StartedCommand = ProcessName & { readonly isContained: boolean };

/** For this long the cgroup alone identifies a command in it, and nothing more is written. */
const SOON_MS = 10;

export const groupOf = ({ context: { keys } }: Pick<Grant, 'context'>) => `${keys.root}/${keys.group}`;

export function openNote(
  { clock, host, runFiles }: NoteDeps,
  {
    run,
    nonce,
    groups,
  }: { readonly run: string; readonly nonce: string; readonly groups: readonly string[] },
): RunNote {
  const { pid, startTime, bootId } = host.self();
  let file: RunFile = { run, bootId, groups, runlock: { pid, startTime }, nonce };
  /** Whether the node's next run, or a runlock around this one, needs the note. */
  let isNeeded = false;
  let isSwept = false;
  let isWritten = false;
  let soon: NodeJS.Timeout | undefined;
  const write = (change: Partial<RunFile>) => {
    clearTimeout(soon);
    isWritten = true;
    runFiles.write((file = { ...file, ...change }));
  };
  const guardOf = ([guard]: readonly number[]): Pick<RunFile, 'guard'> => {
    const born = guard === undefined ? undefined : host.startTime(guard);
    return guard === undefined || born === undefined ? {} : { guard: { pid: guard, startTime: born } };
  };
  return {
    granted: (node) => void (file = { ...file, node }),
    starts(cgroup) {
      if (!isWritten) write(cgroup === undefined ? {} : { cgroup });
    },
    started({ pid, startTime, isContained }, guard) {
      isNeeded = true;
      file = { ...file, command: { pid, startTime } };
      const tell = () => write(guardOf(guard));
      if (isContained) soon = setTimeout(tell, SOON_MS);
      else tell();
    },
    looked(members, guard) {
      // Not earlier: a look at the notes of older runs takes longer than a short run.
      if (!isSwept) runFiles.sweep(bootId, (other) => !isLive(other.runlock) && isOver(other));
      isSwept = true;
      const now = { ...guardOf(guard), members: members.slice(0, MOST_MEMBERS).map(toName) };
      if (hasNews(file, now)) write(now);
    },
    ended: (outcome, exitCode) =>
      write({ ended: { outcome, exitCode, at: new Date(clock.now()).toISOString() } }),
    left(groups) {
      isNeeded = groups.length > 0;
      if (isNeeded) write({ groups });
    },
    close() {
      if (isWritten && !isNeeded) runFiles.remove(run);
    },
  };
}

/** The folder where the guard finds the notes of other runs; undefined: there is none. */
export function notesFolder({ runFiles }: Pick<NoteDeps, 'runFiles'>): string | undefined {
  const where = runFiles.where();
  return 'folder' in where ? where.folder : undefined;
}

/** A dry run leaves no trace. */
export const NO_NOTE: RunNote = {
  granted: () => undefined,
  starts: () => undefined,
  started: () => undefined,
  looked: () => undefined,
  ended: () => undefined,
  left: () => undefined,
  close: () => undefined,
};

const toName = ({ pid, startTime }: ProcessName): ProcessName => ({ pid, startTime });

function hasNews(before: Partial<RunFile>, now: Partial<RunFile>): boolean {
  const text = ({ guard, members }: Partial<RunFile>) => JSON.stringify([guard, members]);
  return text({ ...before, ...now }) !== text(before);
}

/** Settles the notes of earlier runs whose claims this run's claims replace: their outcomes are no longer needed. */
export function settleBefore({ runFiles }: NoteDeps, slots: readonly Pick<HeldSlot, 'grant'>[]): void {
  for (const { grant } of slots) {
    const { before, context } = grant;
    if (before && before.run !== context.run.id) runFiles.settle(before.run, groupOf(grant));
  }
}
