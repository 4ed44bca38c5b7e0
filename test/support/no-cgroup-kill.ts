// A cgroup as Linux before 5.14 has it: without cgroup.kill. Something that takes no write is mounted over that file.
import { execFileSync } from 'node:child_process';

/** Why there can be none; undefined: there can. */
export const whyKillStays: string | undefined =
  process.geteuid?.() === 0 ? undefined : 'only root can mount something over a file';

/** The cgroup must still be there at the end. */
export async function withoutKill(folder: string, work: () => Promise<void>): Promise<void> {
  const file = `${folder}/cgroup.kill`;
  execFileSync('mount', ['--bind', '/dev/full', file]);
  try {
    await work();
  } finally {
    execFileSync('umount', [file]);
  }
}
