/**
 * Which processes this agent, or the one before it, started for jobs: a file each in its folder. A file is written before its process is
 * started, and names a secret that only that process has in its environment. So an agent that is killed at any moment
 * leaves no process behind that the next one does not find.
 */
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isJobId, isPrincipal } from '../jobs/keys.ts';
import type { JobRef } from '../jobs/keys.ts';
import type { Host } from '../platform/deps.ts';
import { readTrusted } from '../platform/trusted-file.ts';
import { writeWhole } from './state-folder.ts';

export interface RunNote {
  /** In the environment of the process, as `MARK`. */
  readonly mark: string;
  /** As `Host.bootId`. */
  readonly bootId: string;
  /** Of the request: the same name may be another's later. */
  readonly nonce: string;
  /** How many processes have been started for it. */
  readonly tries: number;
  /** ISO 8601: when the last of them was started. */
  readonly at: string;
  /** The same of the first one. Absent: a runlock before this one wrote it. */
  readonly since?: string;
  /** Absent: it was about to be started. */
  readonly process?: { readonly pid: number; readonly startTime: string };
  /** How it ended. Absent: it lives, or the agent that started it did not see its end. */
  readonly ended?: RunEnd;
  /** systemd has refused it a scope: it does without. */
  readonly scopeless?: true;
}

/** How a process ended. */
export interface RunEnd {
  /** Exit status; absent: a signal ended it, or it could not be started. */
  readonly code?: number;
  readonly signal?: string;
  /** The last thing that it wrote; '': nothing. */
  readonly said: string;
}

/** No option's variable: commands don't get it, and nothing warns of it. */
export const MARK = 'RUNLOCK_RUN_OF_AGENT';

const LIMIT = 65_536;

const fileOf = (stateFolder: string, { principal, id }: JobRef) =>
  join(stateFolder, 'runs', principal, `${id}.json`);

/** Undefined: none, or none that can be believed. */
export function readNote(stateFolder: string, ref: JobRef, uid: number): RunNote | undefined {
  try {
    const text = readTrusted(fileOf(stateFolder, ref), { uid, limit: LIMIT }).toString('utf8');
    return toNote(JSON.parse(text) as unknown);
  } catch {
    return undefined;
  }
}

function toNote(read: unknown): RunNote | undefined {
  if (typeof read !== 'object' || read === null) return undefined;
  const { mark, bootId, nonce, tries, at, since, process, ended, scopeless } = read as Partial<RunNote>;
  const isWhole =
    [mark, bootId, nonce, at].every((each) => typeof each === 'string' && each !== '') &&
    Number.isSafeInteger(tries) &&
    isTextOrNone(since) &&
    [undefined, true].includes(scopeless) &&
    (ended === undefined || isEnd(ended)) &&
    (process === undefined || (Number.isSafeInteger(process.pid) && typeof process.startTime === 'string'));
  return isWhole ? (read as RunNote) : undefined;
}

const isTextOrNone = (value: unknown) => value === undefined || typeof value === 'string';

const isEnd = (read: unknown): boolean => {
  if (typeof read !== 'object' || read === null) return false;
  const { code, signal, said } = read as Partial<RunEnd>;
  return (
    (code === undefined || Number.isSafeInteger(code)) && isTextOrNone(signal) && typeof said === 'string'
  );
};

/** On the disk itself. @throws what node:fs throws. */
export function writeNote(stateFolder: string, ref: JobRef, note: RunNote): void {
  writeWhole(fileOf(stateFolder, ref), JSON.stringify({ v: 1, ...note }));
}

export function removeNote(stateFolder: string, ref: JobRef): void {
  rmSync(fileOf(stateFolder, ref), { force: true });
}

/** Those of one principal, believed or not. */
export function notedJobs(stateFolder: string, principal: string): readonly JobRef[] {
  if (!isPrincipal(principal)) return [];
  return namesIn(join(stateFolder, 'runs', principal)).flatMap((name) => {
    const [, id = ''] = /^(.+)\.json$/.exec(name) ?? [];
    return isJobId(id) ? [{ principal, id }] : [];
  });
}

/** The pid of the process that a note is about, if it lives. */
export function livingOf(note: RunNote, host: Pick<Host, 'bootId' | 'startTime'>): number | undefined {
  if (note.bootId !== host.bootId) return undefined;
  const { process, mark } = note;
  if (!process) return markedBy(mark).find((pid) => host.startTime(pid) !== undefined);
  return host.startTime(process.pid) === process.startTime ? process.pid : undefined;
}

/** Only root, and the process itself, can read what is in its environment. */
function markedBy(mark: string): readonly number[] {
  const entry = Buffer.from(`${MARK}=${mark}\0`);
  return namesIn('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`).includes(entry);
      } catch {
        return false;
      }
    });
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
