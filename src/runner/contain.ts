/** What a run's command is born into: a cgroup of its own and the caller's limits, ready when the slot is granted. */
import { makeCgroup } from '../process/cgroup.ts';
import type { RunCgroup } from '../process/cgroup.ts';
import type { Emit } from '../events/events.ts';
import type { Clock } from '../platform/deps.ts';
import type { FileLimit } from '../process/file-limit.ts';

export interface Containment {
  /** Undefined: this host gives none. */
  readonly cgroup: () => RunCgroup | undefined;
  /** Undefined: there is nothing to change. */
  readonly fileLimit: () => FileLimit | undefined;
  /** Leaves it and removes it; what a good run left inside goes where runlock is. Never rejects. */
  readonly close: () => Promise<void>;
}

export interface ContainOptions {
  readonly run: string;
  readonly clock: Clock;
  readonly emit: Emit;
  /** Gets ready what log lines go through. */
  readonly prepareLog: () => void;
  readonly fileLimit: () => FileLimit | undefined;
}

/**
 * Makes the cgroup and begins to enter it. That takes the kernel some milliseconds (docs/adr/0004), so it comes first of
 * all: meanwhile the rest of the program is loaded, and the slot is asked for.
 */
export function containRun({ run, clock, emit, ...make }: ContainOptions): Containment {
  // Before that: what is started after it is born in the cgroup.
  make.prepareLog();
  const limit = make.fileLimit();
  void limit?.enter();
  const made = makeCgroup({ run, clock });
  if ('why' in made) {
    emit({ event: 'no-cgroup', run, why: made.why });
    return { cgroup: () => undefined, fileLimit: () => limit, close: () => Promise.resolve() };
  }
  void made.enter();
  return { cgroup: () => made, fileLimit: () => limit, close: () => made.close() };
}
