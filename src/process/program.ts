/**
 * The program to run, before it starts: checks the words of its command line, finds its file, checks the file's format,
 * and explains why it can't be started.
 */
import { isUtf8 } from 'node:buffer';
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  statSync,
} from 'node:fs';
import { arch, endianness } from 'node:os';
import { extname } from 'node:path';
import { RunlockError } from '../errors.ts';
import { shortageOf } from '../platform/shortage.ts';

/** The arguments of spawn. */
export interface Program {
  readonly file: string;
  readonly argv0: string;
  readonly args: readonly string[];
}

/**
 * Finds a program as execvp(3) does: takes a name with a slash as it is, and looks for any other in the folders of
 * `path`. Returns a path with a slash in it. Throws `not-found` or `not-executable`.
 */
export function findCommand(command: string, { path }: { path: string | undefined }): string {
  const candidates = command.includes('/') ? [command] : inFolders(command, path ?? '/bin:/usr/bin');
  const found = candidates.map((file) => ({ file, kind: kindOf(file) }));
  const program = found.find(({ kind }) => kind === 'program');
  if (program !== undefined) return program.file;
  for (const { file, kind } of found) {
    if (kind === 'folder')
      throw new RunlockError('not-executable', `cannot run ${file}: it is a folder; name a program`);
    // In a folder of PATH, only a file that exists but may not be executed is the program that was meant.
    if (typeof kind === 'object' && (kind.refused === 'EACCES' || command.includes('/')))
      throw new RunlockError('not-executable', `cannot run ${file}: ${whyNotReached(kind.refused)}`);
  }
  throw new RunlockError('not-found', notFound(command, path));
}

function notFound(command: string, path: string | undefined): string {
  if (command === '') return 'cannot run a command with an empty name; give the command after --';
  const isPath = command.includes('/');
  const where =
    path === undefined ? 'not found in /bin and /usr/bin, since PATH is not set' : 'not found in PATH';
  const why = isPath ? 'no such file' : where;
  // Probably a whole command line in quotes.
  if (/\s/.test(command))
    return `cannot run '${command}': ${why}; give program and arguments as separate words, or run the line with sh -c '…'`;
  return `cannot run ${command}: ${why}; ${isPath ? 'correct its path' : 'name it by its full path or extend PATH'}`;
}

function inFolders(command: string, path: string): string[] {
  return command === '' ? [] : path.split(':').map((folder) => `${folder === '' ? '.' : folder}/${command}`);
}

type Kind = 'program' | 'folder' | 'nothing' | { readonly refused: string | undefined };

function kindOf(file: string): Kind {
  try {
    if (statSync(file).isDirectory()) return 'folder';
    accessSync(file, constants.X_OK);
    return 'program';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' ? 'nothing' : { refused: code };
  }
}

/**
 * JavaScript's strings can't hold bytes that are not UTF-8: the command would get U+FFFD instead of them.
 * `words` are the last of runlock's own command line. Throws `usage` if one of them would not arrive unchanged.
 */
export function checkWords(words: readonly string[]): void {
  if (!words.some((word) => word.includes('\uFFFD'))) return;
  const line = readFileSync('/proc/self/cmdline').toString('latin1').split('\0').slice(0, -1);
  const given = line.slice(-words.length);
  const at = words.findIndex((word, index) => Buffer.from(word).toString('latin1') !== given[index]);
  if (at === -1) return;
  const which = at === 0 ? "the command's name" : `argument ${at} of the command`;
  throw new RunlockError(
    'usage',
    `${which} is not UTF-8, so runlock can't pass it on unchanged; put the command line into a script and run the script`,
  );
}

/**
 * Whether `word`, one of runlock's own arguments or the value of an option or variable, was given in bytes that are not
 * UTF-8. Looks for bytes that would have become this word, because another argument may well be U+FFFD itself.
 */
export function isChanged(word: string): boolean {
  if (!LOST.test(word)) return false;
  const given = ['cmdline', 'environ'].flatMap((file) => zeroEnded(readFileSync(`/proc/self/${file}`)));
  return given.some((bytes) => {
    if (isUtf8(bytes)) return false;
    const text = collapsed(bytes.toString());
    return text === collapsed(word) || text.endsWith(`=${collapsed(word)}`);
  });
}

/** What stands for bytes that are not UTF-8. */
const LOST = /[\uFFFD\p{Cs}]+/u;

/** Runtimes differ in how many characters they put in place of several such bytes. */
const collapsed = (text: string) => text.replace(new RegExp(LOST, 'gu'), '\uFFFD');

const zeroEnded = (bytes: Buffer): Buffer[] =>
  bytes
    .toString('latin1')
    .split('\0')
    .map((part) => Buffer.from(part, 'latin1'));

type Env = Readonly<Record<string, string | undefined>>;

/** Not UTF-8 if a folder's name is not. Ignored, because a shell finds out its folder by itself. */
const FOLDERS = ['PWD', 'OLDPWD'];

/** Variables of runlock's own environment that the command would get changed, because they are not UTF-8. */
export function changedVariables(env: Env): string[] {
  const suspect = Object.keys(env).filter((name) => env[name]?.includes('\uFFFD') && !FOLDERS.includes(name));
  if (suspect.length === 0) return [];
  const given = new Set(readFileSync('/proc/self/environ').toString('latin1').split('\0'));
  return suspect.filter((name) => !given.has(Buffer.from(`${name}=${env[name]}`).toString('latin1')));
}

/*
 * Checks the format of a file before it is run. execvp(3), and so Node and env(1), give a file that the kernel refuses
 * with ENOEXEC to a shell. The shell would read a program for another machine as a script, and might well exit with 0.
 */

interface Head {
  /** The first bytes, at most HEAD_BYTES. */
  readonly bytes: Buffer;
  /** Size of the whole file. */
  readonly size: number;
}

const HEAD_BYTES = 256;

/** Whether the kernel or a shell would run the file. Also true if only the kernel can tell. */
export function isRunnable(file: string): boolean {
  const head = readHead(file);
  return head === undefined || isTextIn(head) || isForThisMachine(head) || hasInterpreter(file, head.bytes);
}

/** Whether a shell may take it for a script: no zero byte in its first line. */
export function isText(file: string): boolean {
  const head = readHead(file);
  // A user who may not read the file could not run it as a script.
  return head !== undefined && isTextIn(head);
}

function isTextIn({ bytes }: Head): boolean {
  const end = bytes.indexOf('\n');
  return !bytes.subarray(0, end === -1 ? bytes.length : end).includes(0);
}

/** Undefined: it is not a regular file, or this user may not read it. */
function readHead(file: string): Head | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    const stats = fstatSync(fd);
    if (!stats.isFile()) return undefined;
    const bytes = Buffer.alloc(HEAD_BYTES);
    return { bytes: bytes.subarray(0, readSync(fd, bytes)), size: stats.size };
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** Values of e_machine (elf(5)) that a kernel runs, by Node's name of its architecture. */
const MACHINES: Readonly<Record<string, readonly number[]>> = {
  // Includes 32-bit programs, since only the kernel can tell whether it runs them.
  x64: [62, 3],
  arm64: [183, 40],
};

const SHELL = '/bin/sh';

/**
 * A program with the machine type of the host's shell fits too, in case an emulator shows runlock another architecture.
 */
function isForThisMachine(head: Head): boolean {
  const machine = machineIn(head);
  if (machine === undefined) return false;
  const machines = MACHINES[arch()];
  if (machines === undefined || machines.includes(machine)) return true;
  const shell = readHead(SHELL);
  return shell !== undefined && machineIn(shell) === machine;
}

/** The machine type of an ELF program or library; undefined if the kernel would refuse its header. */
function machineIn({ bytes, size }: Head): number | undefined {
  if (bytes.length < 64 || bytes.toString('latin1', 0, 4) !== '\x7fELF') return undefined;
  const isLittle = endianness() === 'LE';
  if (bytes[5] !== (isLittle ? 1 : 2)) return undefined;
  const half = (at: number) => (isLittle ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at));
  const word = (at: number) => (isLittle ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  const isWide = bytes[4] === 2;
  const [entrySize, entries] = isWide ? [half(54), half(56)] : [half(42), half(44)];
  // Read only the lower half: the upper one is zero in any file that fits on a disk.
  const table = isWide ? word(isLittle ? 32 : 36) : word(28);
  const isWhole =
    [2, 3].includes(half(16)) &&
    entrySize === (isWide ? 56 : 32) &&
    entries > 0 &&
    table + entries * entrySize <= size;
  return isWhole ? half(18) : undefined;
}

const REGISTERED = '/proc/sys/fs/binfmt_misc';

/** Whether an interpreter is registered with the kernel for the file (binfmt_misc: QEMU, Java, Wine). */
function hasInterpreter(file: string, head: Buffer): boolean {
  try {
    return readdirSync(REGISTERED)
      .filter((name) => name !== 'register' && name !== 'status')
      .some((name) => isMeant(readFileSync(`${REGISTERED}/${name}`, 'utf8'), { file, head }));
  } catch {
    // binfmt_misc is not mounted, or this user may not read it.
    return false;
  }
}

/** `entry`: as the kernel shows one (admin-guide/binfmt-misc). Pure. */
export function isMeant(entry: string, { file, head }: { file: string; head: Buffer }): boolean {
  const lines = entry.split('\n');
  if (lines[0] !== 'enabled') return false;
  const valueOf = (name: string) => lines.find((line) => line.startsWith(`${name} `))?.slice(name.length + 1);
  const extension = valueOf('extension');
  if (extension !== undefined) return extname(file) === extension;
  const magic = Buffer.from(valueOf('magic') ?? '', 'hex');
  const mask = Buffer.from(valueOf('mask') ?? '', 'hex');
  const offset = Number(valueOf('offset'));
  return (
    magic.length > 0 &&
    magic.every((byte, i) => ((head[offset + i] ?? -1) & (mask[i] ?? 0xff)) === (byte & (mask[i] ?? 0xff)))
  );
}

/* Why a program was not started, by errno of execve(2) or of its path, with what to do. */

const FORBIDDEN =
  'set its x permission (chmod +x) or run it through its interpreter; on a file system that forbids it (noexec) move it elsewhere';

/** Errors of the program's path. */
const OF_THE_WAY: Readonly<Record<string, string>> = {
  EACCES: `this user may not execute it; ${FORBIDDEN}`,
  ENOTDIR: 'part of its path is not a folder; correct the path',
  ELOOP: 'too many symbolic links in its path, or a loop of links; correct the links',
  ENAMETOOLONG: 'its path is too long for this system; shorten it',
};

/** Errors of the file itself, or of the interpreter or loader that it names. */
const OF_THE_FILE: Readonly<Record<string, string>> = {
  ENOENT: 'the interpreter that its first line names is missing; correct that line',
  ENOEXEC: 'this system does not know its format; rebuild it for this machine',
  EACCES: `this user may not execute it or its interpreter; ${FORBIDDEN}`,
  E2BIG: 'its arguments and environment are too long for this system; shorten them',
  EINVAL: 'its format is broken; rebuild it',
  ETXTBSY: 'another process is still writing this file; try again later',
  ENOTDIR: "part of its interpreter's path is not a folder; correct its first line",
  ELOOP: 'its interpreter leads back to a script, or its symbolic links form a loop; correct its first line',
  ENAMETOOLONG: "its interpreter's path is too long for this system; shorten it",
  EISDIR: 'its interpreter is a folder; correct what it names',
  ELIBBAD: 'its loader has a format that this system does not know; rebuild it for this machine',
  EPERM: 'a security rule of this system forbids it; see the system log',
  EIO: 'it could not be read; check its disk',
  ESTALE: 'its file system has gone away; mount it again',
};

/** `code`: from a look at the file by its path. */
const whyNotReached = (code: string | undefined): string =>
  of(OF_THE_WAY, code) ?? of(OF_THE_FILE, code) ?? refused(code);

/** `code`: from the attempt to start. `inherited`: the caller's descriptors, meant for the program. */
const whyNotExecuted = (code: string | undefined, inherited: readonly number[]): string =>
  noRoomFor(code, inherited) ?? shortageOf(code) ?? of(OF_THE_FILE, code) ?? refused(code);

const of = (reasons: Readonly<Record<string, string>>, code = ''): string | undefined =>
  Object.hasOwn(reasons, code) ? reasons[code] : undefined;

const refused = (code = 'no reason') => `the system refused with ${code}; check the file`;

/** Bun needs free numbers above the highest descriptor, because it copies each one there before the start. */
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

/** The error for a failed start; `code`: its errno. `inherited`: the caller's descriptors, meant for the program. */
export function startError(
  file: string,
  { code, inherited }: { readonly code: string | undefined; readonly inherited: readonly number[] },
): RunlockError {
  const kind = kindOf(file);
  if (code === 'ENOENT' && kind === 'nothing') return new RunlockError('not-found', notFound(file, ''));
  // Look again, since the file may have changed after it was found.
  const reason = typeof kind === 'object' ? whyNotReached(kind.refused) : whyNotExecuted(code, inherited);
  return new RunlockError('not-executable', `cannot run ${file}: ${reason}`);
}
