// A file system with nothing in it but a program and the libraries it is linked with, to show what it needs besides.
import { chmodSync, copyFileSync, existsSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { execa } from 'execa';

/** What runlock's guard runs, and a shell. */
const PROGRAMS = [
  '/bin/sh',
  '/usr/bin/timeout',
  '/bin/dd',
  '/bin/grep',
  '/usr/bin/awk',
  '/bin/sleep',
  '/usr/bin/id',
];

/** Puts `program` at `/runlock` in `root`. */
export async function fillRoot(root: string, program: string): Promise<void> {
  const files = new Set([...PROGRAMS, ...(await librariesOf(program))]);
  for (const file of PROGRAMS) for (const library of await librariesOf(file)) files.add(library);
  for (const file of files) copy(file, join(root, file));
  copy(program, join(root, 'runlock'));
  for (const folder of ['dev', 'proc', 'tmp']) mkdirSync(join(root, folder), { recursive: true });
  writeFileSync(join(root, 'dev/null'), '');
}

function copy(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  if (!existsSync(to)) copyFileSync(realpathSync(from), to);
  chmodSync(to, 0o755);
}

async function librariesOf(program: string): Promise<string[]> {
  const { stdout } = await execa('ldd', [program]);
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path = '']) => path);
}

const MOUNT =
  'PATH="$PATH:/usr/sbin:/sbin"; mount --rbind /proc "$0/proc" && mount --bind /dev/null "$0/dev/null" && exec chroot "$0" "$@"';

/**
 * The words that run `command` with `root` for its root, where /proc and /dev/null are the only things of the machine's.
 * @throws Error when this user may not do that here; it says what to do.
 */
export async function inRoot(root: string, command: readonly string[]): Promise<string[]> {
  // Who is no root becomes one in a namespace of users, where the kernel lets everybody.
  const user = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
  const words = ['unshare', ...user, '--mount', '--', 'sh', '-c', MOUNT, root];
  const [file, ...args] = [...words, '/bin/sh', '-c', ':'];
  await execa(file, args).catch((cause: unknown) => {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(
      `an empty root can't be entered here (${why}): run the tests as root with CAP_SYS_ADMIN, or allow user ` +
        'namespaces (sysctl kernel.unprivileged_userns_clone=1)',
      { cause },
    );
  });
  return [...words, ...command];
}
