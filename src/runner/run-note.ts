/** What a run writes down of itself on its host, step by step (docs/adr/0004), and what it does with that of the run before it. */
import { MOST_MEMBERS } from '../process/run-file.ts';
import type { ProcessName, RunFile } from '../process/run-file.ts';
import { isLive, isOver } from '../process/host.ts';
import type { Grant } from '../lock/head-of-queue.ts';
import type { Outcome } from '../lock/records.ts';
import type { ExecDeps } from './options.ts';
import type { HeldSlot } from './slots.ts';

export type NoteDeps = Pick<ExecDeps, 'clock' | 'host' | 'runFiles'>;

/** Nothing here throws, or ends a run. */
export interface RunNote {
  granted(node: string): void;
  /** Its command may be started soon: nothing is written before, for a run that waits has nothing to be found. May be called again. */
  starts(cgroup: string | undefined): void;
  /** Of a command in a cgroup nobody needs to know more in its first moments: what ends by then costs no file for this. */
  started(command: StartedCommand, guard: readonly number[]): void;
  /** After each look at the tree: who was there and not in the cgroup, and the guard, which may be another one by now. */
  looked(members: readonly ProcessName[], guard: readonly number[]): void;
  /** Its tree is gone, or a good run's daemon is what stays. */
  ended(outcome: Outcome, exitCode: number): void;
  /** All slots are given back, but for those of these groups, which the node's next run finds. */
  left(groups: readonly string[]): void;
  /** Runlock is about to end. Nobody has to know of a run that had no command, or gave all back. */
  close(): void;
}

type StartedCommand = ProcessName & { readonly isContained: boolean };

/** Of the moment in which a command in a cgroup is known by that alone. */
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
  /** By the node's next run, or by a runlock around this one. */
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
      // Not before: a look at what older runs left takes longer than a short run.
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

/** Where the guard finds what other runs wrote down; undefined: nowhere. */
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

/** This run's claims stand in the place of those that they came back to: nobody asks any more how that run ended. */
export function settleBefore({ runFiles }: NoteDeps, slots: readonly Pick<HeldSlot, 'grant'>[]): void {
  for (const { grant } of slots) {
    const { before, context } = grant;
    if (before && before.run !== context.run.id) runFiles.settle(before.run, groupOf(grant));
  }
}
