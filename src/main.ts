/** Composition root: the only reader of `process`. OS signals → listeners, outcome → exit status. */
import { randomUUID } from 'node:crypto';
import { closeSync, fstatSync, openSync, readFileSync, readlinkSync } from 'node:fs';
import { constants, hostname, userInfo } from 'node:os';
import { clock } from './clock.ts';
import { parse } from './cli.ts';
import type { Common, Invocation } from './cli/invocation.ts';
import type { ExecDeps } from './commands/exec-deps.ts';
import type { ExecResult } from './commands/exec.ts';
import type { Deps, Host, Log } from './deps.ts';
import { EXIT_LOST, EXIT_TIMED_OUT, assertNever, exitStatus } from './errors.ts';
import { createLog, isJournal } from './log.ts';
import { CLEAR_LINE, createOutput, redrawLine, renderJson } from './output.ts';
import { renderStatus } from './output/status.ts';
import { markedPids, startTime } from './tree.ts';

declare const RUNLOCK_VERSION: string;

const host: Host = {
  self: () => ({ pid: process.pid, startTime: startTime(process.pid) ?? '', bootId: host.bootId }),
  get bootId() {
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()} ${readlinkSync('/proc/self/ns/pid')}`;
  },
  startTime,
  hidden,
  marked: markedPids,
};

function hidden(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** The live line of a waiting exec, while it is drawn on stderr. */
let liveLine = '';

function writeLine(line: string): void {
  process.stderr.write(`${liveLine === '' ? '' : CLEAR_LINE}${line}\n`);
  if (liveLine !== '') process.stderr.write(liveLine);
}

function makeLog({ verbose, quiet, logFormat }: Common): Log {
  const { isTTY } = process.stderr;
  const journal = isJournal(process.env, stderrStat());
  const talkative = isTTY || journal || logFormat === 'json';
  const level = quiet ? 'error' : verbose ? 'debug' : talkative ? 'info' : 'warning';
  const { color } = createOutput({ env: process.env, isTTY });
  return createLog({ write: writeLine, level, format: logFormat, journal, color, now: () => clock.now() });
}

function stderrStat(): { dev: number; ino: number } | undefined {
  try {
    return fstatSync(2);
  } catch {
    return undefined;
  }
}

const toDeps = (log: Log): Deps => ({ clock, random: Math.random, host, log });

async function connectTo(log: Log) {
  const [{ connect }, { consulSettings }] = await Promise.all([
    import('./consul.ts'),
    import('./consul/env.ts'),
  ]);
  return connect(consulSettings(process.env), { clock, log });
}

async function run(invocation: Invocation): Promise<number> {
  switch (invocation.kind) {
    case 'text':
      process.stdout.write(invocation.text);
      return 0;
    case 'exec':
      return runExec(invocation);
    case 'status':
      return runStatus(invocation);
    case 'release':
      return runRelease(invocation);
    default:
      return assertNever(invocation);
  }
}

async function runExec({
  common,
  options,
  conflictExitCode,
}: Extract<Invocation, { kind: 'exec' }>): Promise<number> {
  // Before anything else: a signal that comes early must not find the default action.
  const signals = listenToSignals();
  const log = makeLog(common);
  const [{ exec }, consul] = await Promise.all([import('./commands/exec.ts'), connectTo(log)]);
  const output = createOutput({ env: process.env, isTTY: process.stderr.isTTY });
  const deps: ExecDeps = {
    ...toDeps(log),
    consul,
    env: process.env,
    signals,
    newRunId: randomUUID,
    shareTerminal: hasTerminal(),
    ...(output.live && !common.quiet && common.logFormat === 'text' && { terminal }),
  };
  try {
    return toStatus(await exec(deps, options), conflictExitCode);
  } finally {
    consul.close();
  }
}

const terminal = {
  columns: () => process.stderr.columns || 80,
  draw: (line: string) => {
    if (line === '' && liveLine === '') return;
    liveLine = line === '' ? '' : redrawLine(line);
    process.stderr.write(line === '' ? CLEAR_LINE : liveLine);
  },
};

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

function listenToSignals(): ExecDeps['signals'] {
  let listener: ((signal: NodeJS.Signals) => void) | undefined;
  const early: NodeJS.Signals[] = [];
  for (const signal of SIGNALS) process.on(signal, () => (listener ? listener(signal) : early.push(signal)));
  return {
    listen: (newest) => {
      listener = newest;
      for (const signal of early.splice(0)) newest(signal);
    },
  };
}

/** Whether there is a controlling terminal, wherever stdin and stdout go: prompts use /dev/tty. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}

function toStatus(result: ExecResult, conflictExitCode: number): number {
  switch (result.kind) {
    case 'ended':
      return result.ending.kind === 'exited' ? result.ending.code : signalStatus(result.ending.signal);
    case 'interrupted':
      return signalStatus(result.signal);
    case 'timed-out':
      return EXIT_TIMED_OUT;
    case 'lost':
      return EXIT_LOST;
    case 'busy':
      return conflictExitCode;
    case 'dry-run':
      return 0;
    default:
      return assertNever(result);
  }
}

const signalStatus = (signal: NodeJS.Signals) => 128 + constants.signals[signal];

async function runStatus({ common, options }: Extract<Invocation, { kind: 'status' }>): Promise<number> {
  const log = makeLog(common);
  const [{ status }, consul] = await Promise.all([import('./commands/status.ts'), connectTo(log)]);
  const { signal } = new AbortController();
  const report = await status(consul, { ...options, now: clock.now(), signal });
  const { isTTY, columns } = process.stdout;
  const output = createOutput({ env: process.env, isTTY, columns });
  const text = options.json
    ? `${renderJson(report, 2)}\n`
    : renderStatus(report, { ...output, now: clock.now() });
  await writeOut(text);
  consul.close();
  return 0;
}

async function runRelease({ common, options }: Extract<Invocation, { kind: 'release' }>): Promise<number> {
  const log = makeLog(common);
  const [{ release, describeRelease }, consul] = await Promise.all([
    import('./commands/release.ts'),
    connectTo(log),
  ]);
  const { signal } = new AbortController();
  const by = `${userInfo().username}@${hostname()}`;
  const result = await release({ consul, deps: toDeps(log) }, { ...options, by }, signal);
  await writeOut(options.json ? `${renderJson({ v: 1, ...result }, 2)}\n` : describeRelease(result));
  consul.close();
  return 0;
}

/** Resolves when the text is out of this process: an exit cuts off what a pipe has not taken yet. */
function writeOut(text: string): Promise<void> {
  return new Promise((resolve) => process.stdout.write(text, () => resolve()));
}

function fail(error: unknown, logFormat: Common['logFormat']): number {
  const status = exitStatus(error);
  const message = error instanceof Error ? error.message : String(error);
  const bug = status === 70 ? 'a bug in runlock, please report it: ' : '';
  writeErrorLine(`${bug}${message}`.replaceAll(/\r?\n/g, ' '), logFormat);
  if (status === 70 && process.argv.includes('-v') && error instanceof Error) writeLine(error.stack ?? '');
  return status;
}

function writeErrorLine(message: string, format: Common['logFormat']): void {
  const journal = isJournal(process.env, stderrStat());
  const { color } = createOutput({ env: process.env, isTTY: process.stderr.isTTY });
  createLog({ write: writeLine, level: 'error', format, journal, color, now: () => clock.now() })(
    'error',
    message,
  );
}

async function main(): Promise<void> {
  let logFormat: Common['logFormat'] = 'text';
  // Whoever read runlock's output and left does not end a run.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  process.on('uncaughtException', (error) => process.exit(fail(error, logFormat)));
  let status: number;
  try {
    const invocation = parse(process.argv.slice(2), { env: process.env, version: RUNLOCK_VERSION });
    if (invocation.kind !== 'text') ({ logFormat } = invocation.common);
    status = await run(invocation);
  } catch (error) {
    status = fail(error, logFormat);
  }
  process.exit(status);
}

void main();
