/** Composition root: the only reader of `process`. */
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { clock } from './platform/deps.ts';
import { parse } from './cli/parse.ts';
import { strayVariables } from './cli/variables.ts';
import { commands } from './commands/registry.ts';
import type { Emit } from './events/events.ts';
import { hasTerminal, openConsole, likelyLogFormat } from './platform/console.ts';
import { failureOf, unwritten } from './platform/failure.ts';
import { openKeys } from './platform/keys.ts';
import { thisHost } from './process/host.ts';
import { operatorName } from './platform/user.ts';
import type { LogChoice } from './platform/console.ts';
import type { Platform } from './commands/platform.ts';
import { callersDescriptors } from './process/descriptors.ts';
import { ownSignals } from './platform/signals.ts';
import { readGiven, readWhole } from './platform/read-given.ts';
import { createStream } from './platform/streams.ts';

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
const inherited =
  process.argv[2] === 'exec'
    ? callersDescriptors({ parent: process.ppid, opensPipes: nodeVersion !== undefined })
    : [];

const { host, runFiles } = thisHost(process);

const { whenResized, stoppable, ...signals } = ownSignals();
const outputOptions = {
  exitJoinsThreads: nodeVersion !== undefined,
  opensClosed: nodeVersion === undefined,
  onResize: whenResized,
  stoppable,
};
const stdout = createStream({ fd: 1, ...outputOptions });
const { stderr, terminal, notice, makeLog, errorLog, writeLine, confirm } = openConsole({
  env: process.env,
  options: outputOptions,
  now: () => clock.now(),
});
/** A reader who has stalled must not keep runlock from its end for longer. */
const LAST_WORDS_MS = 5_000;

async function connectTo(emit: Emit, agent?: string) {
  const [{ connect }, { consulSettings }] = await Promise.all([
    import('./consul/consul.ts'),
    import('./consul/env.ts'),
  ]);
  // What is wrong, without what to do: that is said in full if it stays so.
  const onRetry = (fault: string) => notice(fault && `${fault.replace(/; [^;]*$/, '')}; retrying`);
  return connect(consulSettings(process.env, agent), { clock, emit, onRetry });
}

/** The most that is read of a configuration file, or of stdin, in bytes. */
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
  prepareLog: () => stderr.prepare(),
  write: (text) => new Promise((resolve) => stdout.write(text, resolve)),
  ...signals,
  makeLog: (choice) => {
    const emit = makeLog(choice);
    for (const stray of strayVariables(process.env)) emit({ event: 'unknown-variable', ...stray });
    return emit;
  },
  connect: connectTo,
  hasTerminal,
  openKeys,
  terminal,
  confirm,
  runFiles,
  readStdin: () => readWhole(0, CONFIG_LIMIT),
  // Of node:crypto this alone is needed, and the rest takes its time.
  newRunId: () => crypto.randomUUID(),
  readText: (path) => readGiven(path, CONFIG_LIMIT).toString('utf8'),
  operator: () =>
    operatorName({
      env: process.env,
      host: hostname(),
      uid: process.getuid?.(),
    }),
  atExit: (last) => void process.once('exit', last),
};

function fail(error: unknown, logFormat: LogChoice['logFormat']): number {
  const { event, stack, status } = failureOf(error, { isVerbose: process.argv.includes('-v') });
  errorLog(logFormat)(event);
  if (stack !== undefined && logFormat === 'text') writeLine(stack);
  return status;
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
    if (stdout.fault) {
      const unsaid = fail(unwritten(stdout.fault), logFormat);
      if (status === 0) status = unsaid;
    }
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
