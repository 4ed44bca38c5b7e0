/** What a run's command is born into: a cgroup of its own and the caller's limits, ready when the slot is granted. */
import { makeCgroup } from '../../process/cgroup.ts';
import type { RunCgroup } from '../../process/cgroup.ts';
import type { FileLimit } from '../../process/file-limit.ts';
import type { ExecDeps } from '../exec-deps.ts';

export interface Containment {
  /** Makes the cgroup and begins to enter it: that takes the kernel some milliseconds, in which the slot is asked for. */
  readonly prepare: () => void;
  /** Undefined: not prepared yet, or this host gives none. */
  readonly cgroup: () => RunCgroup | undefined;
  /** Undefined: not prepared yet, or there is nothing to change. */
  readonly fileLimit: () => FileLimit | undefined;
  /** Leaves it and removes it; what a good run left inside goes where runlock is. Never rejects. */
  readonly close: () => Promise<void>;
}

export function containRun(deps: ExecDeps, run: string): Containment {
  const { clock, log } = deps;
  let made: RunCgroup | undefined;
  let limit: FileLimit | undefined;
  let isPrepared = false;
  return {
    prepare() {
      if (isPrepared) return;
      isPrepared = true;
      // First: what is started after that is born in the cgroup.
      deps.prepareLog();
      limit = deps.fileLimit();
      void limit?.enter();
      const cgroup = makeCgroup({ run, clock });
      if ('why' in cgroup) {
        const message = `no cgroup for the command: ${cgroup.why}; its processes are known by their mark and parents`;
        log('debug', message, { event: 'no-cgroup', run, why: cgroup.why });
        return;
      }
      made = cgroup;
      void cgroup.enter();
    },
    cgroup: () => made,
    fileLimit: () => limit,
    close: async () => made?.close(),
  };
}
