import { readFileSync, readdirSync } from 'node:fs';

/** Everything that a run starts carries its run id in this variable, whatever process group or parent it moves to. */
export const RUN_ID_VARIABLE = 'RUNLOCK_RUN_ID';

/** A live process of a run. Pid and start time together name a process for good: a pid alone is used again. */
export interface Member {
  readonly pid: number;
  /** Clock ticks since boot (proc(5), stat field 22). */
  readonly startTime: string;
  /** The kernel's short name of it, at most 15 bytes. */
  readonly name: string;
  /** One letter as in ps(1): `D` is the one that no signal reaches. */
  readonly state: string;
  readonly parent: number;
  readonly group: number;
}

/** The processes of one run, found again at every look. */
export interface Tree {
  /**
   * Those alive now, the command first. Each look remembers what it saw, so what hides its origin later is still
   * followed. Throws the system's error when /proc cannot be read.
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

/** Start time of a process that lives. One that has ended does not, whether somebody has waited for it or not. */
export function liveStartTime(pid: number): string | undefined {
  const process = readProcess(pid);
  return process?.alive === true ? process.startTime : undefined;
}

/** Live processes whose environment at their start named this run. */
export function markedPids(runId: string): number[] {
  const mark = Buffer.from(`${RUN_ID_VARIABLE}=${runId}`);
  return pids().filter((pid) => isMarked(pid, mark));
}

/**
 * Follows the processes of run `runId`: those that carry its mark, `command` itself, the groups and sessions that one
 * of them leads, and the descendants of all these. Processes in `except` and what only descends from them never count.
 */
export function followTree(options: {
  runId: string;
  command: Pick<Member, 'pid' | 'startTime'>;
  except: () => readonly number[];
}): Tree {
  const mark = Buffer.from(`${RUN_ID_VARIABLE}=${options.runId}`);
  let known = new Map([[options.command.pid, options.command.startTime]]);
  return {
    members() {
      const except = new Set(options.except());
      const processes = readProcesses().filter((process) => !except.has(process.pid));
      const found = membersOf(processes, known, mark);
      known = stillOfUse(known, processes);
      for (const { pid, startTime } of found) known.set(pid, startTime);
      return found.filter((process) => process.alive);
    },
  };
}

function membersOf(
  processes: readonly Process[],
  known: ReadonlyMap<number, string>,
  mark: Buffer,
): Process[] {
  const byPid = new Map(processes.map((process) => [process.pid, process]));
  const found = new Map<number, Process>();
  // A group outlives its leader; once the leader's pid belongs to another process it says nothing any more.
  const led = (leader: number) =>
    found.has(leader) ||
    (known.has(leader) && (byPid.get(leader)?.startTime ?? known.get(leader)) === known.get(leader));
  for (const process of processes) {
    const same = known.get(process.pid) === process.startTime;
    if (same || isMarked(process.pid, mark)) found.set(process.pid, process);
  }
  for (let before = -1; before !== found.size;) {
    before = found.size;
    for (const process of processes) {
      const { pid, parent, group, session } = process;
      if (found.has(parent) || led(group) || led(session)) found.set(pid, process);
    }
  }
  const order = [...known.keys()];
  return [...found.values()].sort((a, b) => rank(order, a) - rank(order, b));
}

/** The command is remembered first of all, and a parent before its children. */
function rank(order: readonly number[], process: Process): number {
  const index = order.indexOf(process.pid);
  return index === -1 ? order.length : index;
}

/** Forgets who is gone, except a leader whose group or session still has somebody in it. */
function stillOfUse(known: ReadonlyMap<number, string>, processes: readonly Process[]): Map<number, string> {
  const used = new Set(processes.flatMap(({ pid, group, session }) => [pid, group, session]));
  return new Map([...known].filter(([pid]) => used.has(pid)));
}

function isMarked(pid: number, mark: Buffer): boolean {
  const environment = read(`/proc/${pid}/environ`);
  if (environment === undefined) return false;
  for (let at = environment.indexOf(mark); at !== -1; at = environment.indexOf(mark, at + 1)) {
    const end = at + mark.length;
    const isWhole = end === environment.length || environment[end] === 0;
    if (isWhole && (at === 0 || environment[at - 1] === 0)) return true;
  }
  return false;
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

/** Reads proc(5)'s stat. The name may hold spaces, parentheses and newlines, so only its last parenthesis ends it. */
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

/** Undefined when the process is gone meanwhile, or belongs to someone whose data this user may not read. */
function read(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    // Anything else, such as no file descriptor left, must not pass for a process that is gone.
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return undefined;
    throw error;
  }
}
