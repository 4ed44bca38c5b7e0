/** Whether /proc shows the processes that this one can see: who belongs to a run, and who lives, is read there. */
import { readlinkSync } from 'node:fs';
import { RunlockError } from '../errors.ts';

/**
 * `pid`: of this process.
 * @throws RunlockError `config`: it is not mounted, or shows another pid namespace.
 */
export function requireProc(pid: number, readSelf = () => readlinkSync('/proc/self')): void {
  let shown: string;
  try {
    shown = readSelf();
  } catch (error) {
    const { code = String(error) } = error as NodeJS.ErrnoException;
    throw new RunlockError(
      'config',
      `/proc can't be read (${code}), and without it runlock can't tell who belongs to a run; mount it (mount -t proc proc /proc)`,
      { cause: error },
    );
  }
  if (shown === String(pid)) return;
  throw new RunlockError(
    'config',
    `/proc shows another pid namespace (this process is ${pid}, there ${shown}), so runlock can't tell who belongs to a run; mount the own one (unshare --mount-proc)`,
  );
}
