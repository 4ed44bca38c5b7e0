/**
 * Folders in which the runs of a user keep their notes (run-file.ts), for that user only. In /tmp another user may have
 * taken the folder's name first; then a folder with a random name is made there instead.
 */
import { accessSync, constants, lstatSync, mkdirSync, mkdtempSync, readdirSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { basename, dirname, isAbsolute } from 'node:path';

export const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

/** `taken`: why the folder does not have its usual name. */
export type FoundFolder = { readonly folder: string; readonly taken?: string } | { readonly why: string };

/**
 * Folders for the notes of a user's runs. All are read; the first usable one is written to, or all if there is no
 * cgroup.
 */
export function runFolders(uid: number, runtimeDir: string | undefined): readonly string[] {
  const shared = `/tmp/runlock-${uid}`;
  if (uid === 0) return ['/run/runlock', shared];
  // Cron does not set XDG_RUNTIME_DIR, so also look for the folder that it would name.
  const own = [runtimeDir ?? '', `/run/user/${uid}`].filter((folder) => isAbsolute(folder));
  return [...new Set(own.map((folder) => `${folder.replace(/\/+$/, '')}/runlock`)), shared];
}

/** `folder`, or the one to use instead of it; changes nothing. */
export function findFolder(folder: string, uid: number): FoundFolder {
  const why = whyNot(folder, uid);
  if (why === undefined || (why === MISSING && mayMake(folder, uid))) return { folder };
  if (why === MISSING) return { why: `${dirname(folder)} can't be written` };
  if (!canBeTaken(folder) || !mayMake(folder, uid)) return { why };
  const spare = sparesOf(folder).find((each) => isTrusted(each, uid));
  return { folder: spare ?? `${folder}-XXXXXX`, taken: why };
}

/** Like `findFolder`, but also makes the folder. */
export function makeFolder(folder: string, uid: number): FoundFolder {
  const found = findFolder(folder, uid);
  if ('why' in found) return found;
  try {
    if (found.taken !== undefined)
      return isTrusted(found.folder, uid) ? found : { ...found, folder: mkdtempSync(`${folder}-`) };
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if (!isCode(error, 'EEXIST')) return { why: reason(error) };
  }
  const why = whyNot(folder, uid);
  return why === undefined ? { folder } : { why };
}

/** Folders that may stand in for `folder`, this user's or not. */
export function sparesOf(folder: string): string[] {
  if (!canBeTaken(folder)) return [];
  const start = `${basename(folder)}-`;
  try {
    const parent = dirname(folder);
    const names = readdirSync(parent).filter((name) => name.startsWith(start));
    return names.sort().map((name) => `${parent}/${name}`);
  } catch {
    return [];
  }
}

/** Whether any user may create something with that name. */
function canBeTaken(folder: string): boolean {
  try {
    return (lstatSync(dirname(folder)).mode & (STICKY | OTHERS_WRITE)) === (STICKY | OTHERS_WRITE);
  } catch {
    return false;
  }
}

export const isTrusted = (folder: string, uid: number): boolean => whyNot(folder, uid) === undefined;

const MISSING = 'it is not there';

/** Why a folder's content can't be trusted; undefined: the folder is this user's, and no one else may write to it. */
function whyNot(folder: string, uid: number): string | undefined {
  let found: Stats | undefined;
  try {
    found = lstatSync(folder, { throwIfNoEntry: false });
  } catch (error) {
    return reason(error);
  }
  if (found === undefined) return MISSING;
  if (!found.isDirectory()) return `${folder} is not a folder`;
  if (found.uid !== uid) return `${folder} belongs to user ${found.uid}`;
  return (found.mode & OTHERS_WRITE) === 0 ? undefined : `${folder} can be written by others`;
}

/** Refuses a parent whose owner, or any other user, could replace what is in it; root's and sticky folders are safe. */
function mayMake(folder: string, uid: number): boolean {
  const parent = dirname(folder);
  try {
    const { uid: owner, mode } = lstatSync(parent);
    const isSafe = owner === uid || owner === 0;
    if (!isSafe || ((mode & OTHERS_WRITE) !== 0 && (mode & STICKY) === 0)) return false;
    accessSync(parent, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

const isCode = (error: unknown, code: string) => (error as NodeJS.ErrnoException).code === code;
const reason = (error: unknown) => (error instanceof Error ? error.message : String(error));
