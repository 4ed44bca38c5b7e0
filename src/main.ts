/** Composition root: the only reader of `process`. */
import { execFileSync } from 'node:child_process';
import { setMaxListeners } from 'node:events';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';
import { clock } from './platform/clock.ts';
import { parse } from './cli/parse.ts';
import { commands } from './commands/registry.ts';
import type { Host, Log } from './platform/deps.ts';
import { RunlockError, errorCode, exitStatus } from './errors.ts';
import type { ErrorCode } from './errors.ts';
import { hasTerminal, openConsole } from './platform/console.ts';
import { likelyLogFormat } from './platform/log.ts';
import { operatorName } from './platform/user.ts';
import type { LogChoice } from './platform/log.ts';
import type { Platform } from './commands/platform.ts';
import { openRunFiles } from './process/run-file.ts';
import { runFolders } from './process/run-folders.ts';
import type { RunFile } from './process/run-file.ts';
import { inheritedDescriptors } from './process/descriptors.ts';
import { fileLimit } from './process/file-limit.ts';
import { machineOf } from './platform/machine.ts';
import { requireProc } from './platform/proc.ts';
import { shortageIn } from './platform/shortage.ts';
import { ownSignals } from './platform/signals.ts';
import { readGiven } from './platform/read-given.ts';
import { createStream } from './platform/streams.ts';
import { findSurvivors, fromOtherUser } from './process/survivors.ts';
import { liveStartTime, startTime } from './process/process-tree.ts';

declare const RUNLOCK_VERSION: string;
/** Which commit it was built from, and when. */
declare const RUNLOCK_BUILD: string;

/** The program that is one file has no Node.js, whichever one it says it is as good as. */
const nodeVersion = process.versions['bun'] === undefined ? process.versions.node : undefined;

// Node makes these streams, and with them the descriptors non-blocking, which the command shares, as soon as anybody looks
// at them: its own debug code does, at the end of any socket. Runlock writes in its own way (platform/streams.ts).
if (nodeVersion !== undefined)
  for (const name of ['stdout', 'stderr'])
    Object.defineProperty(process, name, { value: undefined, configurable: true, writable: true });

// A run in many groups listens to one signal as many times; Node would take that for a leak, and say so on stderr.
setMaxListeners(0);

/** First of all: later runlock has files open itself. */
const inherited = process.argv[2] === 'exec' ? callersDescriptors() : [];

function callersDescriptors(): readonly number[] {
  try {
    return inheritedDescriptors({ parent: process.ppid, opensPipes: nodeVersion !== undefined });
  } catch {
    // Without /proc there will be no command.
    return [];
  }
}

const callersFileLimit = () => fileLimit({ pid: process.pid, parent: process.ppid, inherited });

/** Whoever asks for processes must not hear of another namespace's. */
const requireOwnProc = () => requireProc(process.pid);

let placed: ReturnType<Host['place']> | undefined;

async function findPlace() {
  const machine = await machineOf();
  return { host: hostname(), ...(machine !== undefined && { machine }) };
}

const host: Host = {
  self: () => ({
    pid: process.pid,
    startTime: startTime(process.pid) ?? '',
    bootId: host.bootId,
    ...(process.geteuid && { uid: process.geteuid() }),
  }),
  place: () => (placed ??= findPlace()),
  get bootId() {
    requireOwnProc();
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return [boot, readlinkSync('/proc/self/ns/pid'), ...timeNamespace()].join(' ');
  },
  startTime: liveStartTime,
  hidden,
  survivors: (id, log, uid) => findSurvivors(id, readRunFile(id, log, uid), host.bootId),
};

/** Start times count from a boot that each time namespace may shift. Before Linux 5.6 there is none. */
function timeNamespace(): readonly string[] {
  try {
    return [readlinkSync('/proc/self/ns/time')];
  } catch {
    return [];
  }
}

/** Of another user's run root reads what that user wrote down. */
function readRunFile(id: string, log: Log, uid?: number): RunFile | undefined {
  const own = process.geteuid?.() ?? 0;
  if (uid === undefined || uid === own || own !== 0) return runFiles(log).read(id);
  const file = openRunFiles({ folders: runFolders(uid, undefined), uid, log }).read(id);
  return file && fromOtherUser(file);
}

function runFiles(log: Log) {
  const uid = process.geteuid?.() ?? 0;
  return openRunFiles({ folders: runFolders(uid, process.env['XDG_RUNTIME_DIR']), uid, log });
}

function hidden(pid: number): boolean {
  if (startTime(pid) !== undefined) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

const { whenResized, stoppable, ...signals } = ownSignals();
const outputOptions = {
  exitJoinsThreads: nodeVersion !== undefined,
  onResize: whenResized,
  stoppable,
};
const stdout = createStream({ fd: 1, ...outputOptions });
const { stderr, terminal, makeLog, errorLog, writeLine, confirm } = openConsole({
  env: process.env,
  options: outputOptions,
  now: () => clock.now(),
});
/** A reader who has stalled must not keep runlock from its end for longer. */
const LAST_WORDS_MS = 5_000;

async function connectTo(log: Log, agent?: string) {
  const [{ connect }, { consulSettings }] = await Promise.all([
    import('./consul/consul.ts'),
    import('./consul/env.ts'),
  ]);
  return connect(consulSettings(process.env, agent), { clock, log });
}

/** Bun's own answer is whatever USER says. */
function userName(): string {
  return execFileSync('id', ['-un'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
}

/** The most that is read of a configuration file, in bytes. */
const CONFIG_LIMIT = 1_048_576;

const platform: Platform = {
  env: process.env,
  stdout,
  stderr,
  version: RUNLOCK_VERSION,
  build: RUNLOCK_BUILD,
  nodeVersion,
  deps: { clock, random: Math.random, host },
  inherited,
  fileLimit: callersFileLimit,
  prepareLog: () => stderr.prepare(),
  write: (text) => new Promise((resolve) => stdout.write(text, resolve)),
  ...signals,
  makeLog,
  connect: connectTo,
  hasTerminal,
  terminal,
  confirm,
  runFiles,
  // Of node:crypto this alone is needed, and the rest takes its time.
  newRunId: () => crypto.randomUUID(),
  readText: (path) => readGiven(path, CONFIG_LIMIT).toString('utf8'),
  operator: () =>
    operatorName({
      env: process.env,
      host: hostname(),
      uid: process.getuid?.(),
      userName,
    }),
  atExit: (last) => void process.once('exit', last),
};

function fail(error: unknown, logFormat: LogChoice['logFormat']): number {
  const { message, code } = faultOf(error);
  const bug = code === 'bug' ? 'a bug in runlock, please report it: ' : '';
  const stack = code === 'bug' && process.argv.includes('-v') && error instanceof Error && error.stack;
  const fields = { event: 'error', code, ...(stack && { stack }) };
  errorLog(logFormat)('error', `${bug}${message}`.replaceAll(/\r?\n/g, ' '), fields);
  if (stack && logFormat === 'text') writeLine(stack);
  return code === 'config' ? exitStatus(new RunlockError('config', message)) : exitStatus(error);
}

/** What the system was short of is no bug. */
function faultOf(error: unknown): { readonly message: string; readonly code: ErrorCode } {
  const message = error instanceof Error ? error.message : String(error);
  const code = errorCode(error);
  const shortage = code === 'bug' ? shortageIn(error) : undefined;
  return shortage === undefined ? { message, code } : { message: `${message}: ${shortage}`, code: 'config' };
}

/** A report that is cut short must not pass for a whole one. */
function unwritten(fault: Error): RunlockError {
  const message = `stdout could not be written (${fault.message}), so what is there is cut short; make room, and look again`;
  return new RunlockError('unwritten', message, { cause: fault });
}

async function main(): Promise<void> {
  const argv = process.argv.slice(2);
  // What is wrong with the command line itself is said in the form that it asks for, as far as that can be told.
  let logFormat = likelyLogFormat(argv, process.env);
  process.on('uncaughtException', (error) => void leave(fail(error, logFormat)));
  let status: number;
  try {
    const invocation = await parse(argv, commands, platform);
    if (invocation.asked) ({ logFormat } = invocation.asked.common);
    status = await invocation.run(platform);
    if (stdout.fault && status === 0) throw unwritten(stdout.fault);
  } catch (error) {
    status = fail(error, logFormat);
  }
  await leave(status);
}

async function leave(status: number): Promise<never> {
  await Promise.all([stdout.end(LAST_WORDS_MS), stderr.end(LAST_WORDS_MS)]);
  process.exit(status);
}

void main();
