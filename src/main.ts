/** Composition root: the only reader of `process`. */
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { clock } from './platform/deps.ts';
import { parse } from './cli/parse.ts';
import { commands } from './commands/registry.ts';
import { hasTerminal, openConsole, likelyLogFormat } from './platform/console.ts';
import { unwritten } from './platform/failure.ts';
import { openKeys } from './platform/keys.ts';
import { thisHost } from './process/host.ts';
import { operatorName } from './platform/user.ts';
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
const isNode = nodeVersion !== undefined;

// Node makes these streams, and with them the descriptors non-blocking, which the command shares, as soon as anybody
// looks at them: its own debug code does, at the end of any socket. Runlock writes in its own way
// (platform/streams.ts).
if (isNode)
  for (const name of ['stdout', 'stderr'])
    Object.defineProperty(process, name, { value: undefined, configurable: true, writable: true });

// A run in many groups adds many listeners to one signal; Node would report that on stderr as a leak.
setMaxListeners(0);

/** First of all: later runlock has files open itself. */
const inherited =
  process.argv[2] === 'exec' ? callersDescriptors({ parent: process.ppid, opensPipes: isNode }) : [];

const { host, runFiles } = thisHost(process);

const { whenResized, stoppable, ...signals } = ownSignals();
const outputOptions = { exitJoinsThreads: isNode, opensClosed: !isNode, onResize: whenResized, stoppable };
const stdout = createStream({ fd: 1, ...outputOptions });
const { sayFailure, ...speaking } = openConsole({
  env: process.env,
  options: outputOptions,
  now: () => clock.now(),
});

const platform: Platform = {
  env: process.env,
  stdout,
  version: RUNLOCK_VERSION,
  build: RUNLOCK_BUILD,
  nodeVersion,
  deps: { clock, random: Math.random, host },
  inherited,
  prepareLog: () => speaking.stderr.prepare(),
  write: (text) => new Promise((resolve) => stdout.write(text, resolve)),
  ...signals,
  ...speaking,
  hasTerminal,
  openKeys,
  runFiles,
  readStdin: () => readWhole(0),
  // Of node:crypto this alone is needed, and the rest takes its time.
  newRunId: () => crypto.randomUUID(),
  readText: (path) => readGiven(path).toString('utf8'),
  operator: () => operatorName({ env: process.env, host: hostname(), uid: process.getuid?.() }),
  atExit: (last) => void process.once('exit', last),
};

async function main(): Promise<void> {
  const argv = process.argv.slice(2);
  // What is wrong with the command line itself is said in the form that it asks for, as far as that can be told.
  let logFormat = likelyLogFormat(argv, process.env);
  const fail = (error: unknown) => sayFailure(error, { logFormat, isVerbose: argv.includes('-v') });
  process.on('uncaughtException', (error) => void leave(fail(error)));
  let status: number;
  try {
    const invocation = await parse(argv, commands, platform);
    if (invocation.asked) ({ logFormat } = invocation.asked.common);
    status = await invocation.run(platform);
    if (stdout.fault) {
      const unsaid = fail(unwritten(stdout.fault));
      if (status === 0) status = unsaid;
    }
  } catch (error) {
    status = fail(error);
  }
  await leave(status);
}

async function leave(status: number): Promise<never> {
  await Promise.all([stdout.end(), speaking.stderr.end()]);
  process.exit(status);
}

void main();
