/** Checks what runlock needs on this host. */
import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '../../platform/deps.ts';
import { isRunlockError } from '../../errors.ts';
import type { Check } from '../../output/doctor.ts';
import { cgroupSupport } from '../../process/cgroup.ts';
import type { CgroupSupport } from '../../process/cgroup.ts';
import type { RunFiles } from '../../process/run-file.ts';

/** Programs that the guard runs (src/process/guard), with the Debian package of each. */
const PROGRAMS = {
  sh: 'dash',
  timeout: 'coreutils',
  dd: 'coreutils',
  sleep: 'coreutils',
  grep: 'grep',
  awk: 'mawk',
};
/** Where the guard looks for programs after PATH. */
const STANDARD_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export interface Surroundings {
  readonly path: string | undefined;
  readonly host: Host;
  readonly nodeVersion: string | undefined;
  readonly runFiles: Pick<RunFiles, 'where'>;
}

export function judgeSurroundings({ path, host, nodeVersion, runFiles }: Surroundings): Check[] {
  const node = nodeVersion === undefined ? [] : [judgeNodeVersion(nodeVersion), ...NODE_SIGNALS];
  const programs = judgePrograms(`${path ?? ''}:${STANDARD_PATH}`);
  return [
    ...[programs, judgeProc(host), judgeContainment(cgroupSupport()), judgeRunFiles(runFiles.where())],
    ...node,
  ];
}

/** Pure. */
export function judgeContainment(support: CgroupSupport): Check {
  if (support.usable)
    return { check: 'host', level: 'ok', found: `runs get their own cgroup below ${support.home}` };
  const found = `runs get no cgroup (${support.why}): their processes are tracked by mark, session and parent`;
  const fix =
    'usually no action needed; for commands that escape all three, run as root or in a unit with Delegate=yes';
  return { check: 'host', level: 'note', found, fix };
}

/** Pure. */
export function judgeRunFiles(where: ReturnType<RunFiles['where']>): Check {
  if ('folder' in where && where.taken !== undefined) {
    const instead = `runs are recorded in ${where.folder}, because ${where.taken}`;
    const fix = 'ask that user, or root, to remove it';
    return { check: 'host', level: 'note', found: instead, fix };
  }
  if ('folder' in where) return { check: 'host', level: 'ok', found: `runs are recorded in ${where.folder}` };
  const found = `runs can't be recorded on this host (${where.why}): if runlock and its guard are killed, left-over processes are found by their mark only`;
  return {
    check: 'host',
    level: 'note',
    found,
    fix: 'create one of these folders, accessible to this user only',
  };
}

/** Pure, except that it looks into the folders. */
export function judgePrograms(path: string): Check {
  const missing = Object.entries(PROGRAMS).filter(([name]) => !isOnPath(name, path));
  const names = Object.keys(PROGRAMS).join(', ');
  if (missing.length === 0)
    return { check: 'host', level: 'ok', found: `programs of the guard found: ${names}` };
  const found = `programs of the guard missing: ${missing.map(([name]) => name).join(', ')}. If runlock is killed, the command keeps running`;
  const fix = `install ${[...new Set(missing.map(([, from]) => from))].join(', ')}, or set PATH`;
  return { check: 'host', level: 'problem', found, fix };
}

function isOnPath(name: string, path: string): boolean {
  return path.split(':').some((folder) => {
    const file = join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      return folder !== '' && statSync(file).isFile();
    } catch {
      return false;
    }
  });
}

function judgeProc(host: Host): Check {
  const found = '/proc shows the processes of runs';
  try {
    const { pid, startTime, bootId } = host.self();
    if (startTime === '' || bootId.trim() === '') return noProc(`process ${pid} is not in /proc`);
  } catch (error) {
    if (!isRunlockError(error)) return noProc(error instanceof Error ? error.message : String(error));
    const [found = '', fix = ''] = error.message.split('; ');
    return { check: 'host', level: 'problem', found, fix };
  }
  if (host.startTime(1) !== undefined) return { check: 'host', level: 'ok', found };
  const fix = 'no action needed if commands stay with this user; otherwise run runlock as root';
  return { check: 'host', level: 'note', found: "/proc hides other users' processes (hidepid)", fix };
}

function noProc(why: string): Check {
  const found = `/proc can't be read (${why}): runlock can't find the processes of a run`;
  return { check: 'host', level: 'problem', found, fix: 'mount /proc where runlock runs' };
}

const NODE_SIGNALS: readonly Check[] = [
  {
    check: 'host',
    level: 'note',
    // Node.js does this before any JavaScript runs.
    found: "Node.js resets ignored signals: nohup, trap '' and & in a script don't protect a run",
    fix: 'to start runs that way, install the Debian package or the single file',
  },
  {
    check: 'host',
    level: 'note',
    found: 'Node.js reports a command killed by a real-time signal (34 to 64) as exit 0, a success',
    fix: 'if this can happen to your commands, install the Debian package or the single file',
  },
];

const OLDEST = [20, 19];

/** Pure. */
export function judgeNodeVersion(running: string): Check {
  const [major = 0, minor = 0] = (running.match(/\d+/g) ?? []).map(Number);
  const found = `Node.js ${running}`;
  const [least = 0, leastMinor = 0] = OLDEST;
  if (major > least || (major === least && minor >= leastMinor)) return { check: 'host', level: 'ok', found };
  const fix = `upgrade Node.js: runlock needs ${OLDEST.join('.')} or newer`;
  return { check: 'host', level: 'problem', found, fix };
}
