/** Why a program was not started, by errno of execve(2) and of the way to its file, with what to do. */
import { readFileSync } from 'node:fs';
import { shortageOf } from '../platform/shortage.ts';

const FORBIDDEN =
  'set its x permission (chmod +x) or run it through its interpreter; on a file system that forbids it (noexec) move it elsewhere';

/** Of its path. */
const OF_THE_WAY: Readonly<Record<string, string>> = {
  EACCES: `this user may not execute it; ${FORBIDDEN}`,
  ENOTDIR: 'a part of its path is no folder; correct its path',
  ELOOP: 'too many symbolic links in its path, or they lead in a circle; correct them',
  ENAMETOOLONG: 'its path is too long for this system; shorten it',
};

/** Of the file itself, or of the interpreter or loader that it names. */
const OF_THE_FILE: Readonly<Record<string, string>> = {
  ENOENT: 'the interpreter that its first line names is missing; correct that line',
  ENOEXEC: 'this system does not know its format; rebuild it for this machine',
  EACCES: `this user may not execute it or its interpreter; ${FORBIDDEN}`,
  E2BIG: 'its arguments and environment are too long for this system; shorten them',
  EINVAL: 'its format is broken; rebuild it',
  ETXTBSY: 'it is open for writing; try again when it is written',
  ENOTDIR: "a part of its interpreter's path is no folder; correct its first line",
  ELOOP:
    'its interpreter leads back to a script, or its symbolic links lead in a circle; correct its first line',
  ENAMETOOLONG: "its interpreter's path is too long for this system; shorten it",
  EISDIR: 'its interpreter is a folder; correct what it names',
  ELIBBAD: 'its loader has a format that this system does not know; rebuild it for this machine',
  EPERM: 'a security rule of this system forbids it; see the system log',
  EIO: 'it could not be read; check its disk',
  ESTALE: 'its file system has gone away; mount it again',
};

/** `code`: of a look at the file, by its path. */
export const whyNotReached = (code: string | undefined): string =>
  of(OF_THE_WAY, code) ?? of(OF_THE_FILE, code) ?? refused(code);

/** `code`: of the start. `inherited`: the caller's descriptors, which the program was to have. */
export const whyNotExecuted = (
  code: string | undefined,
  { inherited }: { inherited: readonly number[] },
): string => noRoomFor(code, inherited) ?? shortageOf(code) ?? of(OF_THE_FILE, code) ?? refused(code);

const of = (reasons: Readonly<Record<string, string>>, code = ''): string | undefined =>
  Object.hasOwn(reasons, code) ? reasons[code] : undefined;

const refused = (code = 'no reason') => `the system refused with ${code}; check the file`;

/** Bun copies each of them to a number above all of them on its way to the program. */
function noRoomFor(code: string | undefined, inherited: readonly number[]): string | undefined {
  if (code === undefined || !['EINVAL', 'EMFILE', 'EBADF'].includes(code)) return undefined;
  const highest = Math.max(2, ...inherited);
  const limit = ownLimit();
  if (highest === 2 || limit === undefined || highest + inherited.length + SPARE < limit) return undefined;
  return `descriptor ${highest}, which runlock's caller opened, leaves no room below the limit of ${limit} open files; close it (${highest}>&-), or raise the limit (ulimit -n, LimitNOFILE=)`;
}

/** Stdin, stdout and stderr are copied too. */
const SPARE = 4;

function ownLimit(): number | undefined {
  try {
    const [, soft] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
