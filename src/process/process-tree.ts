/**
 * Finds the processes of a run. Its mark is a secret that only they have, in their environment. The run's id, which
 * appears in Consul, logs and command lines, is derived from the secret, so the id does not reveal the mark.
 */
import { getBuiltinModule, pid as ownPid } from 'node:process';
import { readFileSync, readdirSync } from 'node:fs';

/** Every process that the command starts inherits this, whatever process group, session or parent it moves to. */
export const MARK_VARIABLE = 'RUNLOCK_RUN_MARK';

export interface RunIdentity {
  /** Public; in the form of a UUID. */
  readonly id: string;
  /** 32 hexadecimal digits. Never in argv, Consul or a log. */
  readonly nonce: string;
}

/** Makes the identity of a new run. */
export async function newRun(): Promise<RunIdentity> {
  // Web Crypto, because loading node:crypto would take longer than the rest of this function.
  const nonce = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString('hex');
  const hash = await crypto.subtle.digest('SHA-256', Buffer.from(nonce));
  return { id: toId(Buffer.from(hash).toString('hex')), nonce };
}

/** The first 128 bits of the SHA-256 of the nonce. */
export function runIdOf(nonce: string): string {
  const { createHash } = getBuiltinModule('node:crypto');
  return toId(createHash('sha256').update(nonce).digest('hex'));
}

function toId(digits: string): string {
  const at = (start: number, end: number) => digits.slice(start, end);
  return `${at(0, 8)}-${at(8, 12)}-${at(12, 16)}-${at(16, 20)}-${at(20, 32)}`;
}

const NONCE = /^[0-9a-f]{32}$/;

/** The value of MARK_VARIABLE for a run's command. Keeps the nonces of the runs around it, outermost first. */
export function markValue(nonce: string, inherited: string | undefined): string {
  return [...noncesIn(inherited ?? ''), nonce].join(':');
}

const noncesIn = (value: string): string[] => value.split(':').filter((each) => NONCE.test(each));

const START = Buffer.from(`${MARK_VARIABLE}=`);

/** The nonces in an environment as /proc/PID/environ shows it: entries that end with a zero byte. */
export function noncesOf(environment: Buffer): string[] {
  for (let at = environment.indexOf(START); at !== -1; at = environment.indexOf(START, at + 1)) {
    if (at !== 0 && environment[at - 1] !== 0) continue;
    const end = environment.indexOf(0, at);
    return noncesIn(environment.toString('latin1', at + START.length, end === -1 ? undefined : end));
  }
  return [];
}

/** A live process of a run. Identified by pid and start time together, since the kernel reuses pids. */
export interface Member {
  readonly pid: number;
  /** Clock ticks since boot (proc(5), stat field 22). */
  readonly startTime: string;
  /** The kernel's short name of the process, at most 15 bytes. */
  readonly name: string;
  /** One letter as in ps(1); no signal reaches a process in state `D`. */
  readonly state: string;
  readonly parent: number;
  readonly group: number;
}

/** Finds the processes of one run anew at each look. */
export interface Tree {
  /**
   * The processes alive now, the command first. Each look remembers what it found, so processes that hide their origin
   * later are still followed. Throws the system's error when /proc cannot be read.
   */
  members(): Member[];
}

interface Process extends Member {
  readonly session: number;
  readonly alive: boolean;
}

/** Start time of a process, a zombie included; undefined when there is no such process. */
export function startTime(pid: number): string | undefined {
  return readProcess(pid)?.startTime;
}

/**
 * Whether the process is stopped, or will stop with its next step: a shell that waits for its child to become another
 * program (vfork(2)) can't stop before that, and the child may have been stopped first.
 */
export function isStopped({ pid, startTime }: Pick<Member, 'pid' | 'startTime'>): boolean {
  const process = readProcess(pid);
  if (process?.startTime !== startTime) return false;
  if (process.state !== 'D') return process.state === 'T';
  return hasStopPending(read(`/proc/${pid}/status`)?.toString('latin1') ?? '');
}

/** SIGSTOP, SIGTSTP, SIGTTIN and SIGTTOU. */
const STOPS = 0b1111n << 18n;

/** Reads proc_pid_status(5). Pure. */
export function hasStopPending(status: string): boolean {
  const pending = [...status.matchAll(/^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$/gm)];
  return pending.some(([, hex = '0']) => (BigInt(`0x${hex}`) & STOPS) !== 0n);
}

/** Its process group; undefined when there is no such process. */
export function groupOf(pid: number): number | undefined {
  return readProcess(pid)?.group;
}

/** Whether this process was started by that one, or by a process that was, and so on. */
export function isDescendantOf({ pid, startTime }: Pick<Member, 'pid' | 'startTime'>): boolean {
  let process = readProcess(ownPid);
  while (process && process.parent > 0) {
    process = readProcess(process.parent);
    if (process?.pid === pid) return process.startTime === startTime;
  }
  return false;
}

/** Start time of a live process. A process that has ended is not live, whether its parent has reaped it or not. */
export function liveStartTime(pid: number): string | undefined {
  const process = readProcess(pid);
  return process?.alive === true ? process.startTime : undefined;
}

/** Live processes that carry the mark of this run, found by its id only. */
export function markedPids(runId: string): number[] {
  const ids = new Map<string, string>();
  const idOf = (nonce: string) => ids.get(nonce) ?? ids.set(nonce, runIdOf(nonce)).get(nonce);
  return pids().filter((pid) => marksOf(pid).some((nonce) => idOf(nonce) === runId));
}

/**
 * Follows the processes of a run: those that carry its mark (`nonce`) or are `inside` its cgroup, `command` itself, the
 * groups and sessions that one of them leads, and the descendants of all these. Processes in `except`, and processes
 * that descend only from them, never count.
 */
export function followTree(options: {
  nonce: string;
  command: Pick<Member, 'pid' | 'startTime'>;
  /** Others that are known already. */
  known?: readonly Pick<Member, 'pid' | 'startTime'>[];
  except: () => readonly number[];
  inside?: () => readonly number[];
}): Tree {
  const { nonce, inside = () => [] } = options;
  let known = new Map(
    [options.command, ...(options.known ?? [])].map(({ pid, startTime }) => [pid, startTime]),
  );
  return {
    members() {
      const except = new Set(options.except());
      const contained = new Set(inside());
      const processes = readProcesses().filter((process) => !except.has(process.pid));
      const isMember = (pid: number) => contained.has(pid) || marksOf(pid).includes(nonce);
      const found = membersOf(processes, known, isMember);
      known = stillOfUse(known, processes);
      for (const { pid, startTime } of found) known.set(pid, startTime);
      return found.filter((process) => process.alive);
    },
  };
}

function membersOf(
  processes: readonly Process[],
  known: ReadonlyMap<number, string>,
  isMember: (pid: number) => boolean,
): Process[] {
  const byPid = new Map(processes.map((process) => [process.pid, process]));
  const found = new Map<number, Process>();
  // A process group outlives its leader, but means nothing once another process has the leader's pid.
  const led = (leader: number) =>
    found.has(leader) ||
    (known.has(leader) && (byPid.get(leader)?.startTime ?? known.get(leader)) === known.get(leader));
  for (const process of processes) {
    const same = known.get(process.pid) === process.startTime;
    if (same || isMember(process.pid)) found.set(process.pid, process);
  }
  for (let before = -1; before !== found.size;) {
    before = found.size;
    for (const process of processes) {
      const { pid, parent, group, session } = process;
      if (found.has(parent) || led(group) || led(session)) found.set(pid, process);
    }
  }
  // `known` lists the command first, and parents before their children.
  const ranks = new Map([...known.keys()].map((pid, rank) => [pid, rank]));
  const rankOf = ({ pid }: Process) => ranks.get(pid) ?? ranks.size;
  return [...found.values()].sort((a, b) => rankOf(a) - rankOf(b));
}

/** Forgets processes that are gone, except leaders whose process group or session still has members. */
function stillOfUse(known: ReadonlyMap<number, string>, processes: readonly Process[]): Map<number, string> {
  const used = new Set(processes.flatMap(({ pid, group, session }) => [pid, group, session]));
  return new Map([...known].filter(([pid]) => used.has(pid)));
}

function marksOf(pid: number): string[] {
  const environment = read(`/proc/${pid}/environ`);
  if (environment !== undefined && environment.length > 0) return noncesOf(environment);
  // If the main thread has ended, the other threads still show the environment.
  const process = readProcess(pid);
  return process?.state === 'Z' && process.alive ? marksOfThreads(pid) : [];
}

function marksOfThreads(pid: number): string[] {
  return threads(pid).flatMap((thread) => {
    const environment = read(`/proc/${pid}/task/${thread}/environ`);
    return environment === undefined ? [] : noncesOf(environment);
  });
}

function readProcesses(): Process[] {
  return pids()
    .map(readProcess)
    .filter((process) => process !== undefined);
}

function readProcess(pid: number): Process | undefined {
  const stat = read(`/proc/${pid}/stat`)?.toString();
  return stat === undefined ? undefined : parseStat(pid, stat);
}

/** Parses proc(5)'s stat. The name may hold spaces, parentheses and newlines, so it ends at the last parenthesis. */
export function parseStat(pid: number, stat: string): Process {
  const end = stat.lastIndexOf(')');
  const fields = stat.slice(end + 2).split(' ');
  const state = fields[0] ?? '';
  // A program whose main thread ended shows as a zombie while its other threads run on.
  const isDead = (state === 'Z' || state === 'X') && Number(fields[17]) <= 1;
  return {
    pid,
    name: stat.slice(stat.indexOf('(') + 1, end),
    state,
    parent: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    startTime: fields[19] ?? '',
    alive: !isDead,
  };
}

function pids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function threads(pid: number): string[] {
  return unlessGone(() => readdirSync(`/proc/${pid}/task`)) ?? [];
}

function read(path: string): Buffer | undefined {
  return unlessGone(() => readFileSync(path));
}

/** Undefined when the process is gone by now, or belongs to a user whose data this user may not read. */
function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    // Any other error, such as no file descriptors left, must not be taken for a process that is gone.
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return undefined;
    throw error;
  }
}
