/**
 * The agent's folder on this host (`--state-dir`): what an operator tells it, and what it says of itself. Whoever can
 * write here can pause the agent, so it is root's, as the tasks are.
 */
import {
  closeSync,
  constants,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { RunlockError, isRunlockError, reasonOf } from '../errors.ts';
import { takeFolder } from '../jobs/folder-node.ts';
import type { Host } from '../platform/deps.ts';
import { isTaskName } from './task/definition.ts';
import { readTrusted } from '../platform/trusted-file.ts';

export interface StateFolder {
  readonly path: string;
  /** It is this node's from now on, if the disk takes that. @throws RunlockError `config`: it is another node's. */
  belongTo(node: string): void;
  /** Undefined: nobody paused the agent. @throws RunlockError `config`: the file can't be trusted. */
  paused(): Pause | undefined;
  /** @throws RunlockError `config`: it can't be written. */
  pause(pause: Pause): void;
  /** False: it was not paused. @throws as `pause` */
  resume(): boolean;
  /** Asks the agent to forget what stops the triggers of a task. @throws as `pause` */
  askReset(task: string): void;
  /** The tasks that were asked for since the last call. */
  takeResets(): readonly string[];
  /** What the agent says of itself; undefined: nothing that is to be believed. */
  report(): unknown;
  /** Never throws: the agent works without it. */
  writeReport(report: object): void;
  /** When Consul answered last, in milliseconds since the epoch; undefined: nobody knows. */
  contactMs(): number | undefined;
  /** Consul has just answered. Never throws. */
  noteContact(nowMs: number): void;
}

export interface Pause {
  /** ISO 8601 */
  readonly since: string;
  readonly by: string;
  readonly reason?: string;
}

/** Most bytes of one of these files. */
const LIMIT = 65_536;

export function openStateFolder(path: string, { uid }: { readonly uid: number }): StateFolder {
  const pausedFile = join(path, 'paused');
  const reportFile = join(path, 'agent.json');
  const resets = join(path, 'reset');
  // Its time is all that it says: on a full disk that can still be written.
  const contactFile = join(path, 'contact');
  const read = (file: string): unknown => {
    const bytes = readTrusted(file, { uid, limit: LIMIT });
    return JSON.parse(bytes.toString('utf8')) as unknown;
  };
  return {
    path,
    belongTo: (node) => {
      try {
        takeFolder(path, node);
      } catch (error) {
        // Whatever is to be noted there tries again.
        if (!isRunlockError(error, 'unwritten')) throw error;
      }
    },
    paused: () => {
      if (!has(pausedFile)) return undefined;
      return toPause(read(pausedFile));
    },
    pause: (pause) => writable(path, () => writeWhole(pausedFile, JSON.stringify({ v: 1, ...pause }))),
    resume: () =>
      writable(path, () => {
        const was = has(pausedFile);
        rmSync(pausedFile, { force: true });
        return was;
      }),
    askReset: (task) => writable(path, () => writeWhole(join(resets, task), '')),
    takeResets: () => {
      const tasks = namesIn(resets).filter(isTaskName);
      for (const task of tasks) rmSync(join(resets, task), { force: true });
      return tasks;
    },
    report: () => {
      try {
        return read(reportFile);
      } catch {
        return undefined;
      }
    },
    writeReport: (report) => {
      try {
        writeWhole(reportFile, JSON.stringify({ v: 1, ...report }));
      } catch {
        // Without it 'runlock agent status' knows less.
      }
    },
    contactMs: () => statSync(contactFile, { throwIfNoEntry: false })?.mtimeMs,
    noteContact: (nowMs) => {
      try {
        closeSync(openSync(contactFile, constants.O_CREAT | constants.O_NOFOLLOW, 0o600));
        utimesSync(contactFile, nowMs / 1_000, nowMs / 1_000);
      } catch {
        // As above.
      }
    },
  };
}

/** Whether the process that wrote this report is alive. */
export function isOfLiveProcess(report: unknown, host: Pick<Host, 'bootId' | 'startTime'>): boolean {
  const { bootId, pid, startTime } = (typeof report === 'object' && report !== null ? report : {}) as {
    readonly bootId?: unknown;
    readonly pid?: unknown;
    readonly startTime?: unknown;
  };
  return bootId === host.bootId && typeof pid === 'number' && host.startTime(pid) === startTime;
}

/** The text of a hand-made file may be anything: that it is there is what pauses. */
function toPause(read: unknown): Pause {
  const { since, by, reason } = (typeof read === 'object' && read !== null ? read : {}) as Partial<Pause>;
  return {
    since: typeof since === 'string' ? since : new Date(0).toISOString(),
    by: typeof by === 'string' ? by : 'unknown',
    ...(typeof reason === 'string' && { reason }),
  };
}

const has = (file: string) => namesIn(dirname(file)).includes(file.slice(dirname(file).length + 1));

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Replaces the file as a whole, for root alone: a reader sees the old text or the new one, also after a power cut. */
export function writeWhole(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
  // A name of its own for each writer: none takes away what another is writing.
  const making = `${file}.${crypto.randomUUID()}.new`;
  try {
    const fd = openSync(making, 'wx', 0o600);
    try {
      writeSync(fd, text);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(making, file);
  } catch (error) {
    rmSync(making, { force: true });
    throw error;
  }
}

/** What helps where no other user, and no other folder of this disk, does; undefined: these are not the reason. */
export function diskAdvice(code = ''): string | undefined {
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return 'free some space there';
    case 'EROFS':
      return "its file system is mounted read-only: remount it for writing (if a disk error made it so, 'dmesg' says that)";
    case 'EIO':
      return "its disk fails ('dmesg' says how): repair or replace it";
    default:
      return undefined;
  }
}

function writable<T>(path: string, write: () => T): T {
  try {
    return write();
  } catch (error) {
    throw isRunlockError(error) ? error : notWritten(path, error);
  }
}

/** What to do about it. */
export function notWritten(path: string, error: unknown): RunlockError {
  const ofDisk = diskAdvice((error as NodeJS.ErrnoException).code);
  const advice =
    ofDisk !== undefined
      ? `${ofDisk}; until then, 'systemctl stop runlock-agent' starts no more runs either`
      : "run this as the user that the agent runs as (usually root), or name the agent's folder with --state-dir";
  return new RunlockError('config', `cannot write to ${path}: ${reasonOf(error)}; ${advice}`);
}
