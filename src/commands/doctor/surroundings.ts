/** What runlock itself needs on this host. */
import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '../../deps.ts';
import { isRunlockError } from '../../errors.ts';
import type { Check } from '../../output/doctor.ts';

/** The guard's (src/guard.ts), and the Debian package that has each. */
const PROGRAMS = {
  sh: 'dash',
  timeout: 'coreutils',
  dd: 'coreutils',
  sleep: 'coreutils',
  grep: 'grep',
  awk: 'mawk',
};
/** Where the guard looks after PATH. */
const STANDARD_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export interface Surroundings {
  readonly path: string | undefined;
  readonly host: Host;
  readonly nodeVersion: string | undefined;
}

export function judgeSurroundings({ path, host, nodeVersion }: Surroundings): Check[] {
  const node = nodeVersion === undefined ? [] : [judgeNodeVersion(nodeVersion), NODE_SIGNALS];
  return [judgePrograms(`${path ?? ''}:${STANDARD_PATH}`), judgeProc(host), ...node];
}

/** Pure but for the look into the folders. */
export function judgePrograms(path: string): Check {
  const missing = Object.entries(PROGRAMS).filter(([name]) => !isOnPath(name, path));
  const names = Object.keys(PROGRAMS).join(', ');
  if (missing.length === 0)
    return { check: 'host', level: 'ok', found: `the guard finds its programs: ${names}` };
  const found = `the guard lacks ${missing.map(([name]) => name).join(', ')}: if runlock is killed, the command lives on`;
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
  const found = '/proc shows who belongs to a run';
  try {
    const { pid, startTime, bootId } = host.self();
    if (startTime === '' || bootId.trim() === '') return noProc(`process ${pid} is not in /proc`);
  } catch (error) {
    if (!isRunlockError(error)) return noProc(error instanceof Error ? error.message : String(error));
    const [found = '', fix = ''] = error.message.split('; ');
    return { check: 'host', level: 'problem', found, fix };
  }
  if (host.startTime(1) !== undefined) return { check: 'host', level: 'ok', found };
  const fix = 'none is needed for commands that stay with this user; else run runlock as root';
  return { check: 'host', level: 'note', found: "/proc hides other users' processes (hidepid)", fix };
}

function noProc(why: string): Check {
  const found = `/proc can't be read (${why}): runlock can't tell who belongs to a run`;
  return { check: 'host', level: 'problem', found, fix: 'mount /proc where runlock runs' };
}

/** Before any JavaScript runs. */
const NODE_SIGNALS: Check = {
  check: 'host',
  level: 'note',
  found: "Node.js resets ignored signals: nohup, trap '' and & in a script don't protect a run",
  fix: 'to start runs that way, install the Debian package or the single file',
};

const OLDEST = [20, 19];

/** Pure. */
export function judgeNodeVersion(running: string): Check {
  const [major = 0, minor = 0] = (running.match(/\d+/g) ?? []).map(Number);
  const found = `Node.js ${running}`;
  const [least = 0, leastMinor = 0] = OLDEST;
  if (major > least || (major === least && minor >= leastMinor)) return { check: 'host', level: 'ok', found };
  const fix = `runlock needs ${OLDEST.join('.')} or newer`;
  return { check: 'host', level: 'problem', found, fix };
}
