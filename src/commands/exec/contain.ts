/** Where a run's command will live: a cgroup of its own, ready when the slot is granted. */
import { makeCgroup } from '../../process/cgroup.ts';
import type { RunCgroup } from '../../process/cgroup.ts';
import type { Deps } from '../../deps.ts';

export interface Containment {
  /** Makes the cgroup and begins to enter it: that takes the kernel some milliseconds, in which the slot is asked for. */
  readonly prepare: () => void;
  /** Undefined: not prepared yet, or this host gives none. */
  readonly cgroup: () => RunCgroup | undefined;
  /** Leaves it and removes it; what a good run left inside goes where runlock is. Never rejects. */
  readonly close: () => Promise<void>;
}

export function containRun({ clock, log }: Pick<Deps, 'clock' | 'log'>, run: string): Containment {
  let made: RunCgroup | undefined;
  let isPrepared = false;
  return {
    prepare() {
      if (isPrepared) return;
      isPrepared = true;
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
    close: async () => made?.close(),
  };
}
