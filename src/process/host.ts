/** This host, as the rest of the program sees it: its boot, its processes, and the notes of its runs. */
import { readFileSync, readlinkSync, statfsSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Emit } from '../events/events.ts';
import { isSameBoot } from '../platform/deps.ts';
import type { Host, Survivors } from '../platform/deps.ts';
import { liveStartTime, startTime, followTree, markedPids } from './process-tree.ts';
import { openRunFiles } from './run-file.ts';
import type { RunFile, RunFiles, ProcessName } from './run-file.ts';
import { runFolders } from './run-folders.ts';
import { openTurn as openTurnOf } from './turn.ts';
import { openTurnFiles, turnFolders } from './turn-files.ts';
import type { Turn, TurnAsks } from './turn.ts';
import { RunlockError } from '../errors.ts';
import { pid as ownPid } from 'node:process';
import { isPopulated as hasAnybody, members as membersOf } from './cgroup.ts';

/** The parts of the global `process` that are needed here. */
interface Own {
  readonly pid: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly geteuid?: () => number;
  kill(pid: number, signal: 0): true;
}

interface ThisHost {
  readonly host: Host;
  readonly runFiles: (emit: Emit) => RunFiles;
  readonly openTurn: (asks: TurnAsks) => Turn;
}

export function thisHost(own: Own): ThisHost {
  let placed: ReturnType<Host['place']> | undefined;
  const uid = () => own.geteuid?.() ?? 0;
  const runFiles = (emit: Emit) =>
    openRunFiles({ folders: runFolders(uid(), own.env['XDG_RUNTIME_DIR']), uid: uid(), emit });

  /** Root may also read the note of another user's run. */
  function readRunFile(id: string, emit: Emit, other = uid()): RunFile | undefined {
    if (other === uid() || uid() !== 0) return runFiles(emit).read(id);
    const file = openRunFiles({ folders: runFolders(other, undefined), uid: other, emit }).read(id);
    return file && fromOtherUser(file);
  }

  function hidden(pid: number): boolean {
    if (startTime(pid) !== undefined) return false;
    try {
      own.kill(pid, 0);
      return true;
    } catch (error) {
      return error instanceof Error && 'code' in error && error.code === 'EPERM';
    }
  }

  const host: Host = {
    self: () => ({
      pid: own.pid,
      startTime: startTime(own.pid) ?? '',
      bootId: host.bootId,
      ...(own.geteuid && { uid: own.geteuid() }),
    }),
    place: () => (placed ??= findPlace()),
    get bootId() {
      // Check /proc first, so that callers never see the processes of another namespace.
      requireProc(own.pid);
      const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
      return [boot, readlinkSync('/proc/self/ns/pid'), ...timeNamespace()].join(' ');
    },
    startTime: liveStartTime,
    hidden,
    survivors: (id, emit, user) => findSurvivors(id, readRunFile(id, emit, user), host.bootId),
  };
  const openTurn = (asks: TurnAsks) =>
    openTurnOf({
      ...asks,
      filesOf: (node) => openTurnFiles(turnFolders(uid(), own.env['RUNLOCK_TURN_DIR']), uid(), node),
      host,
      inside: own.env['RUNLOCK_RUN_ID'],
    });
  return { host, runFiles, openTurn };
}

async function findPlace() {
  const machine = await machineOf();
  return { host: hostname(), ...(machine !== undefined && { machine }) };
}

/** A time namespace may shift the boot time that start times count from. Linux before 5.6 has no time namespaces. */
function timeNamespace(): readonly string[] {
  try {
    return [readlinkSync('/proc/self/ns/time')];
  } catch {
    return [];
  }
}

/**
 * Checks that /proc shows the pid namespace of this process, because runlock reads there which processes are alive and
 * belong to a run. `pid`: of this process.
 * @throws RunlockError `config`: it is not mounted, or shows another pid namespace.
 */
export function requireProc(pid: number, readSelf = () => readlinkSync('/proc/self')): void {
  let shown: string;
  try {
    shown = readSelf();
  } catch (error) {
    const { code = String(error) } = error as NodeJS.ErrnoException;
    throw new RunlockError(
      'config',
      `/proc can't be read (${code}), so runlock can't find the processes of a run; mount /proc (mount -t proc proc /proc)`,
      { cause: error },
    );
  }
  if (shown === String(pid)) return;
  throw new RunlockError(
    'config',
    `/proc shows another pid namespace (runlock is pid ${pid}, /proc says ${shown}), so runlock can't find the processes of a run; mount the /proc of this namespace (unshare --mount-proc)`,
  );
}

/* Identifies this machine in claims, without storing /etc/machine-id itself. */

const FILE = '/etc/machine-id';
/** Runlock's application id. Never change it: the same machine would get another id. */
const APPLICATION = 'b7a1f5de0c4e4c1f9d0b6a3e58c2f417';

/**
 * The machine, as `systemd-id128 machine-id --app-specific=b7a1f5de0c4e4c1f9d0b6a3e58c2f417` gives it: the HMAC-SHA256
 * of the application, with machine-id as its key, cut to 128 bits, in the form of a version 4 UUID without hyphens.
 * Undefined if there is no machine-id, as in many containers, or it is not set yet.
 */
export async function machineOf(file = FILE): Promise<string | undefined> {
  const id = readId(file);
  if (id === undefined) return undefined;
  const algorithm = { name: 'HMAC', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('raw', Buffer.from(id, 'hex'), algorithm, false, ['sign']);
  const signed = await crypto.subtle.sign('HMAC', key, Buffer.from(APPLICATION, 'hex'));
  const bytes = Buffer.from(signed).subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString('hex');
}

function readId(file: string): string | undefined {
  try {
    const id = readFileSync(file, 'utf8').trim();
    return /^[0-9a-f]{32}$/.test(id) && !/^0+$/.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

/* Finds processes of a run that are still alive when no runlock watches it any more (docs/adr/0004). */

const NOBODY: Survivors = { pids: [], guarded: false };

/**
 * `file`: the run's note; without it only the marks of its processes tell. An ended run has no survivors: processes
 * that it left running are daemons. @throws when the host can't be read, which proves nothing.
 */
export function findSurvivors(run: string, file: RunFile | undefined, bootId: string): Survivors {
  if (file === undefined) return { pids: markedPids(run), guarded: false };
  if (file.ended) return NOBODY;
  if (file.bootId !== bootId) {
    return isSameBoot(file.bootId, bootId) ? seenFromHere(run, file) : NOBODY;
  }
  const guarded = file.guard !== undefined && isLive(file.guard);
  return { pids: livingOf(file, guarded ? [file.guard.pid] : []), guarded };
}

/**
 * For a run in other namespaces on this boot: its pids and start times mean nothing here, but its cgroup and marks do.
 */
function seenFromHere(run: string, { cgroup }: RunFile): Survivors {
  const inside = cgroup === undefined ? [] : membersOf(cgroup);
  const pids = [...new Set([...inside, ...markedPids(run)])].filter((pid) => pid !== ownPid);
  const isHidden = pids.length === 0 && cgroup !== undefined && hasAnybody(cgroup);
  return { pids, guarded: false, ...(isHidden && { cgroup }) };
}

/** Root trusts a path in another user's note only if it is a cgroup, since reading any other file might never end. */
export function fromOtherUser({ cgroup, ...file }: RunFile): RunFile {
  return { ...file, ...(cgroup !== undefined && isCgroup(cgroup) && { cgroup }) };
}

/** CGROUP2_SUPER_MAGIC (statfs(2)). */
const CGROUP2 = 0x63677270;

function isCgroup(folder: string): boolean {
  try {
    return statfsSync(folder).type === CGROUP2;
  } catch {
    return false;
  }
}

export const isLive = ({ pid, startTime }: ProcessName): boolean => liveStartTime(pid) === startTime;

/** Whether no process of a run is left, daemons included, so that its note is no longer needed. */
export function isOver(file: RunFile): boolean {
  return livingOf(file, []).length === 0;
}

function livingOf(file: RunFile, guard: readonly number[]): readonly number[] {
  const { command, members = [] } = file;
  // Only the command is followed after its death: its process group and session stay its own while any process is in
  // them. The pid of any other dead member may belong to a stranger since the last look.
  const known = members.filter(isLive);
  const inside = () => (file.cgroup === undefined ? [] : membersOf(file.cgroup));
  const look = () => {
    const [first, ...rest] = [...(command ? [command] : []), ...known];
    const tree = followTree({
      nonce: file.nonce,
      command: first ?? NO_COMMAND,
      known: rest,
      inside,
      except: () => [ownPid, ...guard],
    });
    return tree.members().map(({ pid }) => pid);
  };
  // A process that forks and ends during a look hides its child from that look, so look twice. With a cgroup the kernel
  // tells whether more looks are needed.
  for (let looks = 1; ; looks++) {
    const seen = look();
    const isPopulated = file.cgroup !== undefined && hasAnybody(file.cgroup);
    if (seen.length > 0 || (looks >= 2 && !isPopulated)) return seen;
    if (looks >= MOST_LOOKS) return [command?.pid ?? file.runlock.pid];
  }
}

/** After so many looks a chain of forks has been seen at least once, or can't be seen from here at all. */
const MOST_LOOKS = 50;

/** Stands for the command of a run that was killed before it started one. No process has this pid. */
const NO_COMMAND: ProcessName = { pid: 2 ** 31 - 1, startTime: '' };
