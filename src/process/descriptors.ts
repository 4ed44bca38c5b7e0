/** Descriptors that the caller opened for the command: make's job server, `3< <(…)`, a lock on 9. */
import { constants, fstatSync, readdirSync, readlinkSync } from 'node:fs';
import type { Stats } from 'node:fs';

interface Open {
  readonly fd: number;
  /** The type bits of its mode; 0: not an object of the file system (epoll, eventfd). */
  readonly type: number;
  /** What it refers to, as /proc shows it; of pipes only. */
  readonly target: string;
  /** Which file, pipe, socket or device it refers to. */
  readonly identity: string;
}

/**
 * The descriptors above 2 that were open before runlock started. Must be called before anything else is opened.
 * FD_CLOEXEC does not help, because both runtimes set it on inherited descriptors.
 * `opensPipes`: the runtime opens pipes for itself before this code runs (Node does).
 *
 * The result lists those that still refer to what they referred to then. A thread of the runtime may have had a file
 * open for a moment at the first look (the C library reads /proc/sys/vm/overcommit_memory to return memory): by the
 * start of the command its number is closed, or stands for something of runlock's.
 */
export function callersDescriptors(options: Inheriting): () => readonly number[] {
  const found = inherited(options);
  return () => found.filter(({ fd, identity }) => identityOf(fd) === identity).map(({ fd }) => fd);
}

function inherited(options: Inheriting): readonly Open[] {
  try {
    return inheritedDescriptors(options);
  } catch {
    // Without /proc no command will be started, so this does not matter.
    return [];
  }
}

/** Undefined: it is closed. */
function identityOf(fd: number): string | undefined {
  try {
    return toIdentity(fstatSync(fd));
  } catch {
    return undefined;
  }
}

const toIdentity = ({ dev, ino, rdev }: Stats) => `${dev}:${ino}:${rdev}`;

interface Inheriting {
  readonly parent: number;
  readonly opensPipes: boolean;
}

/** The first look of `callersDescriptors`. @throws if /proc can't be read. */
function inheritedDescriptors(options: Inheriting): Open[] {
  const all = openDescriptors();
  const isNumber = ({ fd }: Open) => fd > 2;
  const named = all.filter(({ type }) => type !== 0);
  if (!options.opensPipes) return named.filter(isNumber);
  // The runtime opens its own descriptors after the caller's, at the lowest free numbers.
  const first = Math.min(...all.filter(({ type }) => type === 0).map(({ fd }) => fd));
  const isOwn = ownPipes(named, options.parent);
  return named.filter((each) => isNumber(each) && (each.fd < first || !isOwn(each)));
}

/** Recognizes the runtime's own pipes: this process has both ends of them, and its parent has neither. */
function ownPipes(all: readonly Open[], parent: number): (each: Open) => boolean {
  const pipes = all.filter(({ type }) => type === constants.S_IFIFO).map(({ target }) => target);
  let parents: ReadonlySet<string> | undefined;
  return ({ type, target }) => {
    if (type !== constants.S_IFIFO || pipes.indexOf(target) === pipes.lastIndexOf(target)) return false;
    parents ??= new Set(targetsOf(parent));
    return !parents.has(target);
  };
}

function openDescriptors(): Open[] {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .flatMap((fd) => {
      try {
        const stats = fstatSync(fd);
        const type = stats.mode & constants.S_IFMT;
        const target = type === constants.S_IFIFO ? readlinkSync(`/proc/self/fd/${fd}`) : '';
        return [{ fd, type, target, identity: toIdentity(stats) }];
      } catch {
        // This is the descriptor that the folder was read through.
        return [];
      }
    })
    .sort((a, b) => a.fd - b.fd);
}

/** Empty if the process belongs to another user. */
function targetsOf(pid: number): string[] {
  try {
    const folder = `/proc/${pid}/fd`;
    return readdirSync(folder).flatMap((name) => {
      try {
        return [readlinkSync(`${folder}/${name}`)];
      } catch {
        return [];
      }
    });
  } catch {
    return [];
  }
}

/** For spawn(): stdin, stdout, stderr, and `inherited` under their own numbers. Above 2, `ignore` opens nothing. */
export function stdioWith(inherited: readonly number[]): ('inherit' | 'ignore' | number)[] {
  const stdio: ('inherit' | 'ignore' | number)[] = ['inherit', 'inherit', 'inherit'];
  for (const fd of inherited) {
    while (stdio.length < fd) stdio.push('ignore');
    stdio[fd] = fd;
  }
  return stdio;
}
