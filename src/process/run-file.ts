/**
 * The note that a run keeps on its host: the node's next run reads there how the run ended, or which of its processes
 * may still be alive (docs/adr/0004). Trouble with a note never fails a run: without a note, or with one that can't be
 * trusted, processes are recognized by their marks only.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  readdirSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import type { Emit, RunFileTrouble } from '../events/events.ts';
import { isSameBoot } from '../platform/deps.ts';
import { findFolder, isTrusted, makeFolder, sparesOf, OTHERS_WRITE } from './run-folders.ts';
import type { FoundFolder } from './run-folders.ts';

/** Identifies a process uniquely; the pid is not enough, since the kernel reuses it. */
export interface ProcessName {
  readonly pid: number;
  /** Clock ticks since boot (proc(5), stat field 22). */
  readonly startTime: string;
}

export interface RunFile {
  readonly run: string;
  /** As `Host.bootId`: the boot, and the namespace that its pids belong to. */
  readonly bootId: string;
  readonly node?: string;
  /** `<prefix>/<group>` of each claim that may still name the run. */
  readonly groups: readonly string[];
  readonly runlock: ProcessName;
  readonly guard?: ProcessName;
  /** Absent: the command has not been started. */
  readonly command?: ProcessName;
  /** The folder of the run's cgroup. */
  readonly cgroup?: string;
  /** The nonce in the environment of its processes. */
  readonly nonce: string;
  /** Processes found at the last look, outside the cgroup. */
  readonly members?: readonly ProcessName[];
  /** Set once the tree is gone, or only daemons of a good run are left. Written before the slot is released. */
  readonly ended?: { readonly outcome: string; readonly exitCode?: number; readonly at: string };
}

export interface RunFiles {
  /** Where the notes are kept, or why there is no place for them. Changes nothing. */
  where(): FoundFolder;
  /** Writes atomically: a reader sees the old note or the new one. Never throws. */
  write(file: RunFile): void;
  /** Undefined: there is no note, or none that can be trusted. Never throws. */
  read(run: string): RunFile | undefined;
  /** All notes that can be trusted. Never throws. */
  list(): readonly RunFile[];
  /** Removes the note of a run, but only if this process wrote it. Never throws. */
  remove(run: string): void;
  /** Removes the group from those whose claims may name the run, and the file with the last group. Never throws. */
  settle(run: string, group: string): void;
  /** Removes old notes: of other boots, written only in part, or no longer needed by `isOver`. Never throws. */
  sweep(bootId: string, isOver: (file: RunFile) => boolean): void;
}

/** A note lists at most this many processes, because it may be written every 5 s. */
export const MOST_MEMBERS = 4_096;
const MOST_BYTES = 1024 * 1024;
/** The node's next run needs the note of a run that ended badly; after this time check whether it is still needed. */
const SWEEP_AFTER_MS = 600_000;
const VERSION = 1;

export function openRunFiles({
  folders,
  uid,
  emit,
}: {
  readonly folders: readonly string[];
  /** The effective user id. */
  readonly uid: number;
  readonly emit: Emit;
}): RunFiles {
  const said = new Set<string>();
  /** Logs each trouble once, since a run writes every 5 s. */
  const tell = (detail: RunFileTrouble) => {
    const key = JSON.stringify(detail);
    if (said.has(key)) return;
    said.add(key);
    emit({ event: 'run-file', detail });
  };
  /** Folders that this process has written to. */
  const used = new Set<string>();
  const trusted = () =>
    folders.flatMap((folder) => [folder, ...sparesOf(folder)]).filter((folder) => isTrusted(folder, uid));

  function read(folder: string, run: string): RunFile | undefined {
    const path = `${folder}/${run}.json`;
    try {
      const text = readBounded(path, uid);
      if (text === undefined) return undefined;
      const file = decodeRunFile(text);
      if (file?.run !== run) throw new Error('it is not the record of this run');
      return file;
    } catch (error) {
      tell({ kind: 'not-believed', path, why: reason(error) });
      return undefined;
    }
  }

  function write(file: RunFile): void {
    if (!isRunId(file.run)) return;
    const whys: string[] = [];
    let written = 0;
    for (const folder of folders) {
      const why = writeIn(folder, file);
      if (why !== undefined) whys.push(why);
      // A user's own folder is removed with the last session, which processes without a cgroup may outlive. So for
      // those write to all folders.
      else if (uid === 0 || file.cgroup !== undefined) return;
      else written += 1;
    }
    if (written > 0) return;
    tell({ kind: 'not-noted', why: whys.join('; ') });
  }

  /** Returns why the note could not be written. */
  function writeIn(folder: string, file: RunFile): string | undefined {
    // Check again: the folder may have been removed, and made anew by another user.
    if (used.has(folder) && isTrusted(folder, uid) && tryWrite(folder, file) === undefined) return undefined;
    const made = makeFolder(folder, uid);
    if ('why' in made) return made.why;
    used.add(made.folder);
    return tryWrite(made.folder, file);
  }

  function removeFrom(run: string, written: readonly string[]): void {
    if (isRunId(run)) for (const folder of written) unlink(`${folder}/${run}.json`);
  }

  const find = (run: string) => {
    if (!isRunId(run)) return undefined;
    for (const folder of trusted()) {
      const file = read(folder, run);
      if (file) return file;
    }
    return undefined;
  };

  return {
    where() {
      const whys: string[] = [];
      for (const folder of folders) {
        const found = findFolder(folder, uid);
        if ('folder' in found) return found;
        whys.push(found.why);
      }
      return { why: whys.join('; ') };
    },
    write,
    read: find,
    list: () =>
      trusted().flatMap((folder) =>
        runsIn(folder)
          .map((run) => read(folder, run))
          .filter((file) => file !== undefined),
      ),
    remove: (run) =>
      removeFrom(
        run,
        [...used].filter((folder) => isTrusted(folder, uid)),
      ),
    settle(run, group) {
      const file = find(run);
      if (!file) return;
      const groups = file.groups.filter((name) => name !== group);
      if (groups.length === 0) removeFrom(run, trusted());
      else write({ ...file, groups });
    },
    sweep(bootId, isOver) {
      // Skip runs of the same boot in another namespace, because they may not be over.
      for (const folder of trusted()) {
        for (const name of unfinishedIn(folder)) if (isOld(`${folder}/${name}`)) unlink(`${folder}/${name}`);
        for (const run of runsIn(folder)) {
          if (!isOld(`${folder}/${run}.json`)) continue;
          const file = read(folder, run);
          const isElsewhere = file && !isSameBoot(file.bootId, bootId);
          if (file && (isElsewhere || (file.bootId === bootId && isOver(file))))
            unlink(`${folder}/${run}.json`);
        }
      }
    },
  };
}

/** Checked because run ids also come from Consul, and become file names. */
const isRunId = (run: string) => /^[0-9A-Za-z][0-9A-Za-z-]{0,63}$/.test(run);

function tryWrite(folder: string, file: RunFile): string | undefined {
  const path = `${folder}/${file.run}.json`;
  // A fixed name is safe: no other process writes this run's note while this one lives.
  const making = `${folder}/.${file.run}`;
  try {
    const fd = create(making);
    try {
      fchmodSync(fd, 0o600);
      const bytes = Buffer.from(encodeRunFile(file));
      for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
    } finally {
      closeSync(fd);
    }
    renameSync(making, path);
    return undefined;
  } catch (error) {
    unlink(making);
    return reason(error);
  }
}

/** Creates a new file. Removes an existing one first: an earlier write that was cut short, or another user's file. */
function create(path: string): number {
  const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
  const open = () => openSync(path, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
  try {
    return open();
  } catch (error) {
    if (!isCode(error, 'EEXIST')) throw error;
    unlink(path);
    return open();
  }
}

/** Undefined: there is no file. @throws why the file can't be trusted. Never blocks, whatever kind of file it is. */
function readBounded(path: string, uid: number): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
  try {
    // Check the open file, because its name may point elsewhere by now.
    const { mode, size, uid: owner, ...kind } = statsOf(fd);
    if (!kind.isFile) throw new Error('it is not a regular file');
    if (owner !== uid && owner !== 0) throw new Error(`it belongs to user ${owner}`);
    if ((mode & OTHERS_WRITE) !== 0) throw new Error('others may write to it');
    if (size > MOST_BYTES) throw new Error(`it has ${size} bytes`);
    const bytes = Buffer.alloc(size);
    let length = 0;
    for (let more = -1; more !== 0 && length < size; length += more)
      more = readSync(fd, bytes, length, size - length, length);
    return bytes.toString('utf8', 0, length);
  } finally {
    closeSync(fd);
  }
}

function statsOf(fd: number) {
  const stats = fstatSync(fd);
  return { mode: stats.mode, size: stats.size, uid: stats.uid, isFile: stats.isFile() };
}

const runsIn = (folder: string): string[] =>
  namesIn(folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => name.slice(0, -'.json'.length))
    .filter(isRunId);

/** Files that a runlock was writing when it was killed. */
const unfinishedIn = (folder: string): string[] =>
  namesIn(folder).filter((name) => name.startsWith('.') && isRunId(name.slice(1)));

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function isOld(path: string): boolean {
  try {
    return Date.now() - lstatSync(path).mtimeMs > SWEEP_AFTER_MS;
  } catch {
    return false;
  }
}

function unlink(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // The file is missing, or can't be removed.
  }
}

const isCode = (error: unknown, code: string) => (error as NodeJS.ErrnoException).code === code;
const reason = (error: unknown) => (error instanceof Error ? error.message : String(error));

export function encodeRunFile(file: RunFile): string {
  const { members, ...rest } = file;
  const head = JSON.stringify({ v: VERSION, ...rest });
  if (members === undefined) return `${head}\n`;
  // Keep the members off the first line, the only one that the guard's shell reads.
  return `${head.slice(0, -1)},\n"members":${JSON.stringify(members.slice(0, MOST_MEMBERS))}}\n`;
}

/** Undefined: the text is no note, or one in another format. */
export function decodeRunFile(text: string): RunFile | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(parsed) || parsed['v'] !== VERSION) return undefined;
  for (const [field, check] of Object.entries<Check>(shape)) if (!check(parsed[field])) return undefined;
  return parsed as unknown as RunFile;
}

type Check = (value: unknown) => boolean;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isText: Check = (value) => typeof value === 'string' && value !== '';
const isProcess: Check = (value) =>
  isRecord(value) &&
  Number.isSafeInteger(value['pid']) &&
  (value['pid'] as number) > 0 &&
  typeof value['startTime'] === 'string' &&
  /^\d{1,20}$/.test(value['startTime']);
const listOf =
  (check: Check, most: number): Check =>
  (value) =>
    Array.isArray(value) && value.length <= most && value.every((one) => check(one));
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

const shape: { readonly [K in keyof Required<RunFile>]: Check } = {
  run: isText,
  bootId: isText,
  node: optional(isText),
  groups: listOf(isText, 1_000),
  runlock: isProcess,
  guard: optional(isProcess),
  command: optional(isProcess),
  // Refuse any path that does not look like a run's cgroup, or that leaves it.
  cgroup: optional(
    (value) => typeof value === 'string' && /^\/.*\/runlock-[^/]+$/.test(value) && !value.includes('/../'),
  ),
  nonce: (value) => typeof value === 'string',
  members: optional(listOf(isProcess, MOST_MEMBERS)),
  ended: optional(
    (value) =>
      isRecord(value) &&
      isText(value['outcome']) &&
      isText(value['at']) &&
      (value['exitCode'] === undefined || Number.isInteger(value['exitCode'])),
  ),
};
