/** Starts the process of a run: a session of its own, and under systemd a scope of its own, so that the agent's end is not its end. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, constants, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { jobText } from '../jobs/keys.ts';
import type { JobRef } from '../jobs/keys.ts';
import { makeLogFolder } from './own-folders.ts';
import type { RunEnd } from './run-notes.ts';
import { visible } from '../text/visible.ts';

type Env = Readonly<Record<string, string | undefined>>;

/** How this program is started again. */
export interface Launcher {
  /** Program and first arguments, as the agent itself was started: after an update the new version. */
  readonly self: readonly [string, ...string[]];
  /** The agent's. */
  readonly env: Env;
  readonly uid: number;
  readonly logFolder: string;
}

export interface Launch {
  readonly ref: JobRef;
  readonly task: string;
  /** Of runlock. */
  readonly words: readonly string[];
  readonly env: Env;
  /** ISO 8601: when the first process for it began. */
  readonly since: string;
  /** systemd has refused it a scope before. */
  readonly scopeless: boolean;
}

/** Not for the runs: they would speak for the agent's unit, or for the run in which somebody has started the agent. */
const OF_THE_AGENT = [
  /^(?:NOTIFY_SOCKET|WATCHDOG_USEC|WATCHDOG_PID|JOURNAL_STREAM|INVOCATION_ID|SYSTEMD_EXEC_PID|LISTEN_\w+|MEMORY_PRESSURE_\w+)$/,
  /^(?:STATE|LOGS|CREDENTIALS)_DIRECTORY$/,
  /^(?:RUNLOCK_RUN_\w+|RUNLOCK_FENCING_TOKEN|CONSUL_LOCK_HELD)$/,
];

/**
 * One file for each run: `PRINCIPAL/ID.TASK.log`; `triggers/TIME.TASK.log` of one that a change has started, so that a list of
 * them is by time. @param since ISO 8601.
 */
export const logFile = (
  folder: string,
  { ref: { principal, id }, task, since }: Pick<Launch, 'ref' | 'task' | 'since'>,
): string =>
  principal === OF_TRIGGERS
    ? join(folder, 'triggers', `${since.replace(/[:-]/g, '')}.${task}.log`)
    : join(folder, principal, `${id}.${task}.log`);

/** In place of a principal, whose name can't begin with a dot: of the runs that changes have started. */
export const OF_TRIGGERS = '.triggers';

/** @throws what node:fs and spawn throw: nothing was started. */
export function launch(
  { self, env, uid, logFolder }: Launcher,
  { ref, task, words, env: more, since, scopeless }: Launch,
) {
  const kept = Object.entries(env).filter(([name]) => !OF_THE_AGENT.some((each) => each.test(name)));
  const file = logFile(logFolder, { ref, task, since });
  // The run bounds its command's output itself; what runlock says goes into the same file.
  const asked = [...self, ...words, '--log-file', file];
  const scope = scopeless ? [] : scopeFor({ env, uid, ref });
  const line = [...scope, ...asked] as [string, ...string[]];
  makeLogFolder(logFolder, dirname(file), { uid });
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants;
  // A file, not a pipe: the run outlives this process.
  const fd = openSync(file, O_APPEND | O_CREAT | O_NOFOLLOW | O_WRONLY, 0o640);
  try {
    const [program, ...args] = line;
    // In this process's folder: its options and variables may name relative paths.
    const child = spawn(program, args, {
      env: { ...Object.fromEntries(kept), ...more },
      detached: true,
      stdio: ['ignore', fd, fd],
    });
    child.unref();
    return child;
  } finally {
    closeSync(fd);
  }
}

/** Resolves when the process has ended, or could not be started. */
export const ended = (child: ChildProcess): Promise<Omit<RunEnd, 'said'>> =>
  new Promise((resolve) => {
    child.once('exit', (code, signal) =>
      resolve({ ...(code !== null && { code }), ...(signal !== null && { signal }) }),
    );
    child.once('error', () => resolve({}));
  });

/** Enough for the last line of a log. */
const TAIL_BYTES = 4_096;
/** Characters of it that are kept. */
const LONGEST_WORD = 500;

/** The last thing that a run wrote into its log; '': nothing that can be read. Never throws. */
export function lastWordIn(file: string): string {
  const bytes = tailOf(file);
  const line = bytes
    .toString('utf8')
    .split(/[\r\n]+/)
    .findLast((each) => each.trim() !== '');
  return visible(line === undefined ? '' : messageIn(line)).slice(0, LONGEST_WORD);
}

/** Of a line of runlock's own, in either format of the log; any other line stays as it is. */
function messageIn(line: string): string {
  try {
    const { message, time } = JSON.parse(line) as { readonly message?: unknown; readonly time?: unknown };
    return typeof message === 'string' && typeof time === 'string' ? message : line;
  } catch {
    return line.replace(/^runlock: /, '');
  }
}

function tailOf(file: string): Buffer {
  try {
    const fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const { size } = fstatSync(fd);
      const bytes = Buffer.alloc(TAIL_BYTES);
      return bytes.subarray(0, readSync(fd, bytes, 0, TAIL_BYTES, Math.max(0, size - TAIL_BYTES)));
    } finally {
      closeSync(fd);
    }
  } catch {
    return Buffer.alloc(0);
  }
}

/** The words before the command that give it a scope. They become the command: same pid. */
function scopeFor({ env, uid, ref }: { env: Env; uid: number; ref: JobRef }): readonly string[] {
  const isService = Boolean(env['INVOCATION_ID']) && existsSync('/run/systemd/system');
  if (!isService || uid !== 0) return [];
  // What a run leaves running keeps its scope, so no name may come twice.
  const name = `runlock-${ref.principal.replace(/^\./, '')}-${ref.id}-${randomUUID().slice(0, 8)}`;
  return [
    ...['systemd-run', '--scope', '--quiet', '--collect', '--property=Delegate=yes'],
    // At a shutdown the run still reaches Consul, to say how it ended.
    '--property=After=network.target consul.service',
    ...[`--unit=${name}`, `--description=runlock job ${jobText(ref)}`, '--'],
  ];
}

/** Whether it was systemd-run that ended, because systemd made no scope, and not the run. */
export const isScopeRefused = (end: RunEnd | undefined): boolean =>
  end?.code === 1 && end.said.startsWith('Failed to ');
