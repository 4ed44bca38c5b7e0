/** Composition root: the only reader of `process`. */
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { clock } from './platform/deps.ts';
import { parse } from './cli/parse.ts';
import { commands } from './commands/registry.ts';
import { hasTerminal, openConsole, likelyLogFormat } from './platform/console.ts';
import { unwritten } from './platform/failure.ts';
import { ownWords } from './platform/own-words.ts';
import { openKeys } from './platform/keys.ts';
import { thisHost } from './process/host.ts';
import { operatorName } from './platform/user.ts';
import type { Platform } from './commands/platform.ts';
import { callersDescriptors } from './process/descriptors.ts';
import { ownSignals } from './platform/signals.ts';
import { readGiven, readWhole } from './platform/read-given.ts';
import { createStream } from './platform/streams.ts';

declare const RUNLOCK_VERSION: string;
/** Commit and date of the build. */
declare const RUNLOCK_BUILD: string;

/** The single file runs on Bun, which claims to be a version of Node.js. */
const nodeVersion = process.versions['bun'] === undefined ? process.versions.node : undefined;
const isNode = nodeVersion !== undefined;

// Node creates these streams on first use and makes their descriptors non-blocking, also for the command, which shares
// them. Even Node's own debug code uses them at the end of a socket. Runlock writes without them
// (platform/streams.ts).
if (isNode)
  for (const name of ['stdout', 'stderr'])
    Object.defineProperty(process, name, { value: undefined, configurable: true, writable: true });

// A run in many groups adds many listeners to one signal; Node would report that on stderr as a leak.
setMaxListeners(0);

/** Read first: later, runlock has opened files itself. */
const inherited =
  process.argv[2] === 'exec' ? callersDescriptors({ parent: process.ppid, opensPipes: isNode }) : () => [];

const { host, runFiles, openTurn } = thisHost(process);

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
  self: () => ownWords(process, { isNode }),
  deps: { clock, random: Math.random, host },
  inherited,
  prepareLog: () => speaking.stderr.prepare(),
  write: (text) => new Promise((resolve) => stdout.write(text, resolve)),
  ...signals,
  ...speaking,
  hasTerminal,
  openKeys,
  runFiles,
  openTurn,
  readStdin: () => readWhole(0),
  // Not from node:crypto, which is slow to load.
  newRunId: () => crypto.randomUUID(),
  readText: (path) => readGiven(path).toString('utf8'),
  checkFile: async (path) =>
    (await import('./platform/trusted-file.ts')).checkFile(path, { uid: platform.uid }),
  uid: process.getuid?.() ?? 0,
  operator: () => operatorName({ env: process.env, host: hostname(), uid: process.getuid?.() }),
  atExit: (last) => void process.once('exit', last),
};

async function main(): Promise<void> {
  const argv = process.argv.slice(2);
  // Report errors of the command line in the log format that it probably asks for.
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
