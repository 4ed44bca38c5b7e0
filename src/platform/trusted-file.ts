/** Files that decide what a host runs: only what nobody but root, or the user who reads, can have written is believed. */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  readdirSync,
} from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { RunlockError, reasonOf } from '../errors.ts';

/** Whose files are believed besides root's: the effective user's. */
export interface Reader {
  readonly uid: number;
}

const ROOT = 0;
const GROUP_OR_OTHERS_MAY_WRITE = 0o022;
const OTHERS_MAY_WRITE = 0o002;
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
    const bytes = Buffer.alloc(limit + 1);
    let size = 0;
    for (let more = -1; more !== 0 && size <= limit; size += more)
      more = readSync(fd, bytes, size, limit + 1 - size, null);
    if (size > limit) throw wrong(path, `it is larger than ${limit} bytes; shorten it`);
    return bytes.subarray(0, size);
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
  for (let [path, holds] = [folder, false]; ; [path, holds] = [dirname(path), true]) {
    const found = lstatSync(path);
    if (found.isSymbolicLink())
      throw wrong(
        path,
        'it is a symbolic link; use the real folder, so that only its owner can change what is in it',
      );
    checkOwner(path, found, { ...reader, holds });
    if (path === dirname(path)) return;
  }
}

/** A folder, and all above it, as that of the tasks has to be. @throws as `readTrusted` */
export const checkTaskFolder = (folder: string, reader: Reader): void => checkFolder(resolve(folder), reader);

/**
 * A folder that nobody but root or the reader can change, and that is no link. Groups of the system may write above it:
 * /var/log is such a folder on some of them.
 * @param above `alone`: what is above it was looked at.
 * @throws RunlockError `config`: which folder others can change, and the command that mends it.
 */
export function checkOwnFolder(folder: string, reader: Reader, above: 'too' | 'alone' = 'too'): void {
  const found = lstatSync(folder);
  if (found.isSymbolicLink())
    throw wrong(folder, `it is a symbolic link; put the folder itself there, or run rm ${folder}`);
  if (!found.isDirectory()) throw wrong(folder, 'it is not a folder; put a folder in its place');
  checkOwner(folder, found, reader);
  if (above === 'alone') return;
  for (let path = folder; path !== dirname(path);) {
    path = dirname(path);
    const { uid, mode } = lstatSync(path);
    if (uid !== ROOT && uid !== reader.uid) throw ofAnother(path, { uid });
    if ((mode & OTHERS_MAY_WRITE) !== 0 && (mode & STICKY) === 0)
      throw wrong(path, `other users can write it; run chmod o-w ${path}`);
  }
}

/**
 * A file or folder that nobody but root or the reader can replace. It may be reached by links, as /bin/sh is.
 * @param reader.absent `allowed`: there may be none, if nobody else can put one there.
 * @throws RunlockError `config`: which file or folder on the way to it others can change.
 */
export function checkWay(
  program: string,
  { absent = 'refused', ...reader }: Reader & { readonly absent?: 'refused' | 'allowed' },
): void {
  const parts = program.split('/').filter((part) => part !== '');
  let at = '/';
  for (let links = 0; parts.length > 0;) {
    const part = parts.shift() ?? '';
    if (part === '.') continue;
    if (part === '..') {
      at = dirname(at);
      continue;
    }
    const path = join(at, part);
    const found = absent === 'allowed' ? lstatSync(path, { throwIfNoEntry: false }) : lookAt(path, program);
    // In a sticky folder others can make a link to a file of root's, but not to a folder.
    checkOwner(at, lookAt(at, program), { ...reader, holds: found?.isDirectory() ?? false });
    if (!found) return;
    if (!found.isSymbolicLink()) {
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
  checkOwner(at, lookAt(at, program), reader);
}

/** The same for a path that may be relative. @throws as `checkWay` */
export const checkFile = (path: string, reader: Reader): void => {
  checkWay(resolve(path), reader);
};

function lookAt(path: string, program: string): Stats {
  try {
    return lstatSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw wrong(program, code === 'ENOENT' ? 'no such file; correct its path' : reasonOf(error));
  }
}

function checkOwner(
  path: string,
  found: Stats,
  { uid, holds = false }: Reader & { readonly holds?: boolean },
): void {
  if (found.uid !== ROOT && found.uid !== uid) throw ofAnother(path, found);
  if ((found.mode & GROUP_OR_OTHERS_MAY_WRITE) === 0) return;
  // In a sticky folder (/tmp) others can neither rename nor remove what is not theirs: `holds` is checked by itself.
  if (found.isDirectory() && (found.mode & STICKY) !== 0 && holds) return;
  throw wrong(path, `its group or other users can write it; run chmod go-w ${path}`);
}

const ofAnother = (path: string, { uid }: Pick<Stats, 'uid'>) =>
  wrong(path, `it belongs to user ${uid}, so what it says can't be trusted; run chown root ${path}`);

function wrong(path: string, why: string): RunlockError {
  return new RunlockError('config', `${path}: ${why}`);
}
