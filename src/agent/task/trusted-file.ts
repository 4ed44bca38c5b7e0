/** Files that decide what a host runs: only what nobody but root, or the user who reads, can have written is believed. */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  readdirSync,
} from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { RunlockError, reasonOf } from '../../errors.ts';

/** Whose files are believed besides root's: the effective user's. */
export interface Reader {
  readonly uid: number;
}

const ROOT = 0;
const GROUP_OR_OTHERS_MAY_WRITE = 0o022;
const STICKY = 0o1000;
/** As many links as the kernel follows (path_resolution(7)). */
const MOST_LINKS = 40;

/**
 * Opens the file once, checks what is open, and reads that, at most `limit` bytes: a file that is put in its place
 * meanwhile is not looked at.
 * @throws RunlockError `config`: what is wrong with it, and what to do.
 */
export function readTrusted(path: string, { uid, limit }: Reader & { readonly limit: number }): Buffer {
  checkFolder(dirname(resolve(path)), { uid });
  const fd = openPlain(path);
  try {
    const found = fstatSync(fd);
    if (!found.isFile()) throw wrong(path, 'it is not a regular file; put a regular file in its place');
    checkOwner(path, found, { uid });
    if (found.size > limit) throw wrong(path, `it is larger than ${limit} bytes; shorten it`);
    return readFileSync(fd).subarray(0, limit);
  } finally {
    closeSync(fd);
  }
}

function openPlain(path: string): number {
  try {
    // O_NONBLOCK: a pipe without a writer must not hang the process.
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw wrong(path, (code !== undefined && UNREADABLE[code]) || reasonOf(error));
  }
}

const UNREADABLE: Readonly<Record<string, string>> = {
  ENOENT: 'no such file; correct the name',
  EACCES: 'permission denied; run this as root, or as the user that it belongs to',
  ELOOP: 'it is a symbolic link; put the file itself there',
};

/** The names in a folder that nobody but root or the reader can change. Undefined: there is no such folder. @throws as `readTrusted` */
export function listTrusted(folder: string, reader: Reader): readonly string[] | undefined {
  try {
    const names = readdirSync(folder);
    checkFolder(resolve(folder), reader);
    return names;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (code === undefined || error instanceof RunlockError) throw error;
    throw wrong(
      folder,
      code === 'ENOTDIR' ? 'it is not a folder; name the folder of the tasks' : reasonOf(error),
    );
  }
}

/** The folder itself and all above it. */
function checkFolder(folder: string, reader: Reader): void {
  let below: Stats | undefined;
  for (let path = folder; ; path = dirname(path)) {
    const found = lstatSync(path);
    if (found.isSymbolicLink())
      throw wrong(
        path,
        'it is a symbolic link; use the real folder, so that only its owner can change what is in it',
      );
    checkOwner(path, found, { ...reader, holds: below });
    below = found;
    if (path === dirname(path)) return;
  }
}

/**
 * A program that nobody but root or the reader can replace, links included.
 * @throws RunlockError `config`: which file or folder on the way to it others can change.
 */
export function checkProgram(program: string, reader: Reader): void {
  let at = program;
  for (let scripts = 0; scripts < MOST_SCRIPTS; scripts += 1) {
    checkWay(at, reader);
    const interpreter = interpreterOf(at);
    if (interpreter === undefined) return;
    at = interpreter;
  }
}

/** As many scripts may run each other as the kernel allows (execve(2)). */
const MOST_SCRIPTS = 5;
const HEAD_BYTES = 256;

/** What the first line of a script names; undefined: it is none, or this user can't read it. */
function interpreterOf(program: string): string | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(program, constants.O_RDONLY | constants.O_NONBLOCK);
    const head = Buffer.alloc(HEAD_BYTES);
    const text = head.toString('latin1', 0, readSync(fd, head));
    return /^#![ \t]*(\/[^\s\0]*)/.exec(text)?.[1];
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function checkWay(program: string, reader: Reader): void {
  const parts = program.split('/').filter((part) => part !== '');
  let at = '/';
  checkOwner(at, lookAt(at, program), reader);
  for (let links = 0; parts.length > 0;) {
    const part = parts.shift() ?? '';
    if (part === '.') continue;
    if (part === '..') {
      at = dirname(at);
      continue;
    }
    const path = join(at, part);
    const found = lookAt(path, program);
    if (!found.isSymbolicLink()) {
      checkOwner(path, found, { ...reader, holds: parts.length > 0 ? found : undefined });
      at = path;
      continue;
    }
    if (found.uid !== ROOT && found.uid !== reader.uid) throw ofAnother(path, found);
    links += 1;
    if (links > MOST_LINKS) throw wrong(program, 'too many symbolic links on the way to it');
    const target = readlinkSync(path);
    if (target.startsWith('/')) at = '/';
    parts.unshift(...target.split('/').filter((each) => each !== ''));
  }
}

function lookAt(path: string, program: string): Stats {
  try {
    return lstatSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw wrong(program, code === 'ENOENT' ? 'no such program; correct its path' : reasonOf(error));
  }
}

function checkOwner(
  path: string,
  found: Stats,
  { uid, holds }: Reader & { readonly holds?: Stats | undefined },
): void {
  if (found.uid !== ROOT && found.uid !== uid) throw ofAnother(path, found);
  if ((found.mode & GROUP_OR_OTHERS_MAY_WRITE) === 0) return;
  // In a sticky folder (/tmp) others can neither rename nor remove what is not theirs.
  if (found.isDirectory() && (found.mode & STICKY) !== 0 && holds !== undefined) return;
  throw wrong(
    path,
    `others than its owner can write it, so what it says can't be trusted; run chmod go-w ${path}`,
  );
}

const ofAnother = (path: string, { uid }: Stats) =>
  wrong(path, `it belongs to user ${uid}, so what it says can't be trusted; run chown root ${path}`);

function wrong(path: string, why: string): RunlockError {
  return new RunlockError('config', `${path}: ${why}`);
}
