/** Descriptors that the caller opened for the command: make's job server, `3< <(…)`, a lock on 9. */
import { constants, fstatSync, readdirSync, readlinkSync } from 'node:fs';

interface Open {
  readonly fd: number;
  /** The type bits of its mode; 0: not an object of the file system (epoll, eventfd). */
  readonly type: number;
  /** What it refers to, as /proc shows it. */
  readonly target: string;
}

/**
 * The descriptors above 2 that were open before runlock started. Must be called before anything else is opened.
 * FD_CLOEXEC does not help, because both runtimes set it on inherited descriptors.
 * `opensPipes`: the runtime opens pipes for itself before this code runs (Node does).
 */
export function callersDescriptors(options: Inheriting): readonly number[] {
  try {
    return inheritedDescriptors(options);
  } catch {
    // Without /proc no command will be started, so this does not matter.
    return [];
  }
}

interface Inheriting {
  readonly parent: number;
  readonly opensPipes: boolean;
}

/** Like `callersDescriptors`, but @throws if /proc can't be read. */
export function inheritedDescriptors(options: Inheriting): number[] {
  const all = openDescriptors();
  const isNumber = ({ fd }: Open) => fd > 2;
  const named = all.filter(({ type }) => type !== 0);
  if (!options.opensPipes) return named.filter(isNumber).map(({ fd }) => fd);
  // The runtime opens its own descriptors after the caller's, at the lowest free numbers.
  const first = Math.min(...all.filter(({ type }) => type === 0).map(({ fd }) => fd));
  const isOwn = ownPipes(named, options.parent);
  return named.filter((each) => isNumber(each) && (each.fd < first || !isOwn(each))).map(({ fd }) => fd);
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
        const type = fstatSync(fd).mode & constants.S_IFMT;
        return [{ fd, type, target: type === constants.S_IFIFO ? readlinkSync(`/proc/self/fd/${fd}`) : '' }];
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
