/** The runs of jobs on this host: started here or by an agent before, found again, awaited; a bounded number at once. */
import { join } from 'node:path';
import type { Emit } from '../events/events.ts';
import type { JobRef } from '../jobs/keys.ts';
import { takeFolder } from '../jobs/folder-node.ts';
import { jobText } from '../jobs/keys.ts';
import type { Clock, Host } from '../platform/deps.ts';
import { RunlockError, exitStatusOf } from '../errors.ts';
import { OF_TRIGGERS, ended, isScopeRefused, lastWordIn, launch, logFile } from './launch.ts';
import type { Launcher } from './launch.ts';
import { removeOldLogs } from './logs.ts';
import { MARK, livingOf, notedJobs, readNote, removeNote, writeNote } from './run-notes.ts';
import type { RunEnd, RunNote } from './run-notes.ts';

export interface Runs {
  /** Whether a process that was started for the request is alive. */
  isAlive(ref: JobRef): boolean;
  /** When another process may be started for it, in wall-clock milliseconds: each that ended without a start makes this later. */
  notBeforeMs(ref: JobRef, nonce: string): number;
  /** How the last process for it ended; undefined: it is alive, or there was none. */
  lastEnd(request: Pick<StartRequest, 'ref' | 'nonce' | 'task'>): LastEnd | undefined;
  /** @throws RunlockError `refused`: one is alive; what node:fs and spawn throw. */
  start(request: StartRequest): void;
  /** Resolves when no process of the request is alive. */
  ended(ref: JobRef, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Resolves when fewer than the most are alive and nobody with a smaller order waits. */
  room(order: number, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Nothing is left of these requests in Consul. */
  forgetOthers(principal: string, open: ReadonlySet<string>): void;
  forget(ref: JobRef): void;
  /** The file that has the output of its runs. */
  logOf(ref: JobRef, task: string): string;
}

export interface StartRequest {
  readonly ref: JobRef;
  readonly nonce: string;
  readonly task: string;
  readonly params: Readonly<Record<string, string>>;
  /** It only tries. */
  readonly noop?: true;
  /** How many targets of the job may run at once. */
  readonly maxRunning?: number;
  /** A change asks for it, and no request. */
  readonly triggered?: true;
}

/** Of a process of which nothing but its end is known: what it began is in Consul. */
export interface LastEnd {
  /** What it said, and how it ended, for people. */
  readonly text: string;
  /** No other try can do better: this node's files do not let it begin. */
  readonly isUnfit: boolean;
}

export interface RunsEffects extends Launcher {
  readonly clock: Pick<Clock, 'now' | 'sleep'>;
  readonly host: Pick<Host, 'bootId' | 'startTime'>;
  readonly emit: Emit;
  readonly stateFolder: string;
  /** Options of runlock that all runs get. */
  readonly flags: readonly string[];
  readonly newMark: () => string;
}

/** Waiting ones included: each is a process. They take turns anyhow. */
const MOST_ALIVE = 8;
/** Of a process that another agent started, nobody tells the end. */
const LOOK_MS = 2_000;
/**
 * Exit statuses of a run that this node's files do not let begin: wrong usage, wrong configuration, a program that can't be
 * executed, or is not there.
 */
const UNFIT: readonly (number | undefined)[] = [
  exitStatusOf('usage'),
  exitStatusOf('config'),
  exitStatusOf('not-executable'),
  exitStatusOf('not-found'),
];
/** The pauses between processes that end without having started anything. */
const [FIRST_PAUSE_MS, LONGEST_PAUSE_MS] = [1_000, 300_000];

export function openRuns(
  effects: RunsEffects,
  where: { readonly prefix: string; readonly node: string },
): Runs {
  const { clock, host, emit, stateFolder, uid, flags, newMark } = effects;
  /** Started here. */
  const children = new Map<string, Promise<void>>();
  /** All that are believed to live, started here or found. */
  const alive = new Map<string, JobRef>();
  const waiting = new Set<{ readonly order: number; readonly wake: () => void }>();
  const noteOf = (ref: JobRef) => readNote(stateFolder, ref, uid);
  const isAlive = (ref: JobRef) => {
    if (children.has(jobText(ref))) return true;
    const note = noteOf(ref);
    const pid = note && livingOf(note, host);
    if (pid === undefined) alive.delete(jobText(ref));
    else alive.set(jobText(ref), ref);
    return pid !== undefined;
  };
  const admit = () => {
    const next = [...waiting].sort((a, b) => a.order - b.order)[0];
    if (next && alive.size < MOST_ALIVE) next.wake();
  };
  /** Whether it is the log of a run that is under way now, or a part of it. */
  const isLog = () => {
    const { logFolder } = effects;
    const begins = [...alive.values()].map((ref) =>
      ref.principal === OF_TRIGGERS
        ? logFile(logFolder, { ref, task: ref.id, since: noteOf(ref)?.since ?? '' })
        : join(logFolder, ref.principal, `${ref.id}.`),
    );
    return (path: string) => begins.some((begin) => path.startsWith(begin));
  };
  return {
    isAlive,
    notBeforeMs: (ref, nonce) => {
      const note = noteOf(ref);
      if (note?.nonce !== nonce) return 0;
      // The first one that left may be tried again at once: somebody else had its turn.
      const pauseMs = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (note.tries - 1));
      const atMs = Date.parse(note.at);
      // A clock that was set back would hold the next try back for as long.
      return atMs > clock.now() ? 0 : atMs + pauseMs;
    },
    lastEnd: ({ ref, nonce, task }) => {
      const note = noteOf(ref);
      if (note?.nonce !== nonce || isAlive(ref)) return undefined;
      const since = note.since ?? note.at;
      return toLastEnd(note.ended ?? { said: lastWordIn(logFile(effects.logFolder, { ref, task, since })) });
    },
    start: ({ ref, nonce, task, params, noop, maxRunning, triggered }) => {
      if (isAlive(ref))
        throw new RunlockError('refused', `a process for job ${jobText(ref)} is there already`);
      const noted = noteOf(ref);
      const before = noted?.nonce === nonce ? noted : undefined;
      const tries = (before?.tries ?? 0) + 1;
      const at = new Date(clock.now()).toISOString();
      const since = before?.since ?? at;
      const scopeless = before?.scopeless === true || isScopeRefused(before?.ended);
      const note: RunNote = {
        mark: newMark(),
        bootId: host.bootId,
        nonce,
        tries,
        at,
        since,
        ...(scopeless && { scopeless }),
      };
      takeFolder(stateFolder, where.node);
      writeNote(stateFolder, ref, note);
      const env = {
        [MARK]: note.mark,
        RUNLOCK_PREFIX: where.prefix,
        RUNLOCK_NODE: where.node,
      };
      const words = [
        ...['task', 'run', task, ...flags],
        ...(triggered ? ['--triggered'] : ['--job', jobText(ref), '--state-dir', stateFolder]),
        ...(noop ? ['--noop'] : []),
        ...(maxRunning === undefined ? [] : ['--max-running', String(maxRunning)]),
        ...Object.entries(params).flatMap(([name, value]) => ['--param', `${name}=${value}`]),
      ];
      const child = launch(effects, { ref, task, words, env, since, scopeless });
      const { pid } = child;
      child.on('error', (error) =>
        emit({
          event: 'agent-part-failed',
          part: jobText(ref),
          detail: { fault: error.message, pauseMs: 0 },
        }),
      );
      const startTime = pid === undefined ? undefined : host.startTime(pid);
      if (pid === undefined) return;
      const living = { ...note, ...(startTime !== undefined && { process: { pid, startTime } }) };
      alive.set(jobText(ref), ref);
      void removeOldLogs(effects.logFolder, isLog(), { nowMs: clock.now() });
      const end = ended(child).then((how) => {
        const log = logFile(effects.logFolder, { ref, task, since });
        const end = { ...how, said: lastWordIn(log) };
        // Whoever asks whether it lives then asks why it ended.
        tryWrite(() => writeNote(stateFolder, ref, { ...living, ended: end }));
        const ranMs = Math.max(0, clock.now() - Date.parse(at));
        emit({
          event: 'agent-run-ended',
          ...(triggered ? {} : { job: jobText(ref) }),
          task,
          ...end,
          ranMs,
          log,
        });
        children.delete(jobText(ref));
        alive.delete(jobText(ref));
        admit();
      });
      children.set(jobText(ref), end);
      if (startTime !== undefined) writeNote(stateFolder, ref, living);
    },
    ended: async (ref, { signal }) => {
      const own = children.get(jobText(ref));
      if (own) return raced(own, signal);
      while (isAlive(ref)) await clock.sleep(LOOK_MS, { signal });
      admit();
    },
    room: (order, { signal }) =>
      new Promise((resolve, reject) => {
        const end = () => {
          waiting.delete(waiter);
          signal.removeEventListener('abort', stop);
        };
        const stop = () => {
          end();
          reject(signal.reason as Error);
          admit();
        };
        const waiter = {
          order,
          wake: () => {
            end();
            resolve();
          },
        };
        waiting.add(waiter);
        signal.addEventListener('abort', stop, { once: true });
        if (signal.aborted) stop();
        else admit();
      }),
    forgetOthers: (principal, open) => {
      for (const ref of notedJobs(stateFolder, principal))
        if (!open.has(ref.id) && !isAlive(ref)) removeNote(stateFolder, ref);
    },
    forget: (ref) => removeNote(stateFolder, ref),
    logOf: (ref, task) => logFile(effects.logFolder, { ref, task, since: '' }),
  };
}

function toLastEnd({ code, signal, said }: RunEnd): LastEnd {
  const how =
    code === undefined
      ? signal === undefined
        ? 'how it ended is not known'
        : `killed by ${signal}`
      : `exit status ${code}`;
  const isUnfit = UNFIT.includes(code) && code !== undefined;
  return { text: said === '' ? how : isUnfit ? said : `${said} (${how})`, isUnfit };
}

/** A full disk: the next try finds out the same. */
function tryWrite(write: () => void): void {
  try {
    write();
  } catch {
    // Nothing else depends on it.
  }
}

function raced(own: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason as Error);
    signal.addEventListener('abort', stop, { once: true });
    void own.then(() => {
      signal.removeEventListener('abort', stop);
      resolve();
    });
  });
}
