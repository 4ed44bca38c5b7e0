/**
 * What this host has started for jobs, in a file each: `<state folder>/jobs/<principal>/<id>`. It is written when a start
 * has taken effect, and before the command. A restored snapshot makes Consul forget a start; this file does not, so no
 * job starts twice on a host that keeps its disk. Synchronous: nothing else may happen between it and the command.
 */
import {
  closeSync,
  constants,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { RunlockError, isRunlockError, reasonOf } from '../errors.ts';
import { decode, encode, isExitCode, isText, isTime, oneOf, optional } from '../lock/records.ts';
import type { Shape } from '../lock/records.ts';
import { FINAL_STATES } from './documents.ts';
import type { FinalState } from './documents.ts';
import { othersFolder, takeFolder } from './folder-node.ts';
import { isJobId, isPrincipal, jobText } from './keys.ts';
import type { JobRef } from './keys.ts';

/** How a run of a job ended, as its document has it. */
export interface LedgerEnd {
  readonly state: FinalState | 'rebooting';
  readonly endedAt: string;
  readonly exitCode?: number;
  readonly why?: string;
  /** Of a run that asked for a reboot: as its document has it. */
  readonly holds?: true;
}

export interface LedgerEntry {
  /** Of the request: another request may have the same name later. */
  readonly nonce: string;
  /** Whose target was started. Absent: a runlock before this one wrote it. */
  readonly node?: string;
  readonly run: string;
  readonly bootId: string;
  readonly startedAt: string;
  /** The request's end. Absent: a runlock before this one wrote it. */
  readonly until?: string;
  /** Absent: it runs, or it was ended with its host. */
  readonly end?: LedgerEnd;
}

export type Ledger =
  | { readonly kind: 'empty' }
  | { readonly kind: 'started'; readonly entry: LedgerEntry }
  /** Another node's part of the job was started from this folder: says nothing of this node's. */
  | { readonly kind: 'others'; readonly node: string }
  /** Something is there: it was started, and nobody knows more. */
  | { readonly kind: 'unreadable'; readonly why: string };

const endShape: Shape<LedgerEnd> = {
  state: oneOf(...FINAL_STATES, 'rebooting'),
  endedAt: isTime,
  exitCode: optional(isExitCode),
  why: optional(isText),
  holds: optional((value) => value === true),
};

const isEnd = (value: unknown): boolean =>
  typeof value === 'object' &&
  value !== null &&
  Object.entries(endShape).every(([field, check]) => check((value as Record<string, unknown>)[field]));

const shape: Shape<LedgerEntry> = {
  nonce: isText,
  node: optional(isText),
  run: isText,
  bootId: isText,
  startedAt: isTime,
  until: optional(isTime),
  end: optional(isEnd),
};

/** @throws RunlockError `bug`: a name that would leave the folder. */
export function ledgerFile(stateFolder: string, ref: JobRef): string {
  if (!isPrincipal(ref.principal) || !isJobId(ref.id))
    throw new RunlockError('bug', `'${jobText(ref)}' is not the name of a job; please report this`);
  return join(stateFolder, 'jobs', ref.principal, ref.id);
}

/** Never throws: what can't be read counts as started. `node`: undefined: whichever node's it is. */
export function readLedger(stateFolder: string, ref: JobRef, node?: string): Ledger {
  const file = ledgerFile(stateFolder, ref);
  try {
    const value = readFileSync(file, 'utf8');
    const entry = decode('record of a job', shape, { key: file, value });
    const isOthers = ![undefined, entry.node].includes(node) && entry.node !== undefined;
    return isOthers ? { kind: 'others', node: entry.node } : { kind: 'started', entry };
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return { kind: 'empty' };
    return { kind: 'unreadable', why: isRunlockError(error) ? error.message : `${file}: ${reasonOf(error)}` };
  }
}

/** Whether this host has started this very request: the same name may have been another's before. */
export const hasStarted = (ledger: Ledger, nonce: string): boolean =>
  ledger.kind === 'unreadable' || (ledger.kind === 'started' && ledger.entry.nonce === nonce);

/** What became of a job that this host has started; `lost`: nobody knows. */
export function endInLedger(ledger: Ledger): Pick<LedgerEnd, 'state' | 'exitCode' | 'why'> {
  const end = ledger.kind === 'started' ? ledger.entry.end : undefined;
  if (end) return end;
  const why = ledger.kind === 'unreadable' ? ledger.why : 'this node started it, and does not know its end';
  return { state: 'lost', why };
}

/**
 * Notes a start, on the disk itself.
 * @throws RunlockError `refused`: it was started before; `config`: the folder, or the file, is another node's; `unwritten`: the
 * disk does not take it. In each case the command must not be started.
 */
export function noteStart(
  stateFolder: string,
  ref: JobRef,
  entry: LedgerEntry & { readonly node: string },
): void {
  const { node } = entry;
  takeFolder(stateFolder, node);
  const file = ledgerFile(stateFolder, ref);
  const before = readLedger(stateFolder, ref, node);
  if (before.kind === 'others') throw othersFolder(stateFolder, { owner: before.node, node });
  if (hasStarted(before, entry.nonce))
    throw new RunlockError('refused', `${file}: this node has started job ${jobText(ref)} already`);
  try {
    const made = mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    // That of an older request of the same name.
    if (before.kind === 'started') rmSync(file);
    writeNew(file, encode(entry));
    syncFolder(dirname(file));
    if (made !== undefined)
      for (const folder of foldersFrom(dirname(file), dirname(made))) syncFolder(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST')
      throw new RunlockError('refused', `${file}: another process has just started job ${jobText(ref)}`);
    const why = `cannot write ${file}, without which a job might start twice: ${reasonOf(error)}; make room for it, or make it writable`;
    throw new RunlockError('unwritten', why, { cause: error });
  }
}

/** Notes the end, instead of a former one. Returns why that failed, for people; undefined: it is on the disk. */
export function noteEnd(
  stateFolder: string,
  ref: JobRef,
  { run, end }: { readonly run: string; readonly end: LedgerEnd },
): string | undefined {
  const file = ledgerFile(stateFolder, ref);
  const ledger = readLedger(stateFolder, ref);
  if (ledger.kind !== 'started' || ledger.entry.run !== run) return undefined;
  // No id of a job has a dot.
  const draft = `${file}.new`;
  try {
    rmSync(draft, { force: true });
    writeNew(draft, encode({ ...ledger.entry, end }));
    renameSync(draft, file);
    syncFolder(dirname(file));
    return undefined;
  } catch (error) {
    return `cannot write ${file}: ${reasonOf(error)}`;
  }
}

/** All of it or nothing: a file that is half written would say that the job was started. */
function writeNew(file: string, text: string): void {
  const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
  const fd = openSync(file, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0o600);
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
  } catch (error) {
    rmSync(file, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A folder and those above it, up to `last`. */
function foldersFrom(folder: string, last: string): string[] {
  const above = dirname(folder);
  return folder === last || above === folder ? [folder] : [folder, ...foldersFrom(above, last)];
}
