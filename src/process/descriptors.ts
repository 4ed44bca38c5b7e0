/** Descriptors that the caller opened for the command: make's job server, `3< <(…)`, a lock on 9. */
import { constants, fstatSync, readdirSync, readlinkSync } from 'node:fs';

interface Open {
  readonly fd: number;
  /** The type bits of its mode; 0: it is none of the file system's (epoll, eventfd). */
  readonly type: number;
  /** What it stands for, as /proc shows it. */
  readonly target: string;
}

/**
 * Those above 2 that were there before runlock was. Has to be asked before anything else is opened.
 * FD_CLOEXEC does not tell: both runtimes set it on what they inherit.
 * `opensPipes`: the runtime opens pipes for itself before it comes to this (Node does).
 */
export function callersDescriptors(options: Inheriting): readonly number[] {
  try {
    return inheritedDescriptors(options);
  } catch {
    // Without /proc there will be no command.
    return [];
  }
}

interface Inheriting {
  readonly parent: number;
  readonly opensPipes: boolean;
}

/** The same. @throws where /proc can't be read. */
export function inheritedDescriptors(options: Inheriting): number[] {
  const all = openDescriptors();
  const isNumber = ({ fd }: Open) => fd > 2;
  const named = all.filter(({ type }) => type !== 0);
  if (!options.opensPipes) return named.filter(isNumber).map(({ fd }) => fd);
  // The runtime opens its own after its caller's, at the lowest numbers that are free.
  const first = Math.min(...all.filter(({ type }) => type === 0).map(({ fd }) => fd));
  const isOwn = ownPipes(named, options.parent);
  return named.filter((each) => isNumber(each) && (each.fd < first || !isOwn(each))).map(({ fd }) => fd);
}

/** Pipes with both ends here that the parent knows nothing of. */
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
        const type = fstatSync(fd).mode & constants.S_IFMT;
        return [{ fd, type, target: type === constants.S_IFIFO ? readlinkSync(`/proc/self/fd/${fd}`) : '' }];
      } catch {
        // The one that the folder was read through.
        return [];
      }
    })
    .sort((a, b) => a.fd - b.fd);
}

/** None where it is another user's. */
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

/** For spawn(): the first three, and these at their own numbers. What is ignored above 2 is not opened. */
export function stdioWith(inherited: readonly number[]): ('inherit' | 'ignore' | number)[] {
  const stdio: ('inherit' | 'ignore' | number)[] = ['inherit', 'inherit', 'inherit'];
  for (const fd of inherited) {
    while (stdio.length < fd) stdio.push('ignore');
    stdio[fd] = fd;
  }
  return stdio;
}
