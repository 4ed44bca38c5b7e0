// `npm run bench`: runlock beside `consul lock` and `flock`. Prints a Markdown table, writes the raw figures to
// build/bench.json, and, when all of it ran, docs/benchmarks.md with its picture. Ends with 0 whenever all was measured:
// whether a target was reached is said in the table.
import { mkdirSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { parseArgs } from 'node:util';
import { endAgents } from '../test/support/consul.ts';
import { versions } from './bench/contenders.ts';
import { measureDay } from './bench/day.ts';
import { measureFanOut } from './bench/fan-out.ts';
import { measureHandOver } from './bench/hand-over.ts';
import { measureJobs } from './bench/jobs.ts';
import { thisMachine } from './bench/machine.ts';
import { environment, page, tables } from './bench/markdown.ts';
import type { Report } from './bench/markdown.ts';
import { measureOverhead, measureStart } from './bench/overhead.ts';
import { endProcesses, startNoMore } from './bench/processes.ts';
import type { Measured, PartOptions } from './bench/report.ts';
import { measureStatus } from './bench/status.ts';
import { draw } from './bench/svg.ts';
import { measureWaiters } from './bench/waiters.ts';
import { measureWaits } from './bench/waits.ts';

const PARTS: Readonly<Record<string, (options: PartOptions) => Promise<Measured>>> = {
  overhead: measureOverhead,
  start: measureStart,
  'hand-over': measureHandOver,
  waiters: measureWaiters,
  waits: measureWaits,
  'fan-out': measureFanOut,
  status: measureStatus,
  jobs: measureJobs,
  day: measureDay,
};

const USAGE = `npm run bench -- [--quick] [--only part,part] [--json file]
  --quick  few rounds: shows that it works, and nothing about speed
  --only   ${Object.keys(PARTS).join(', ')}
  --json   where the raw figures go (default: build/bench.json)
RUNLOCK_BIN names another program than the single file; RUNLOCK_BEFORE one that is measured in turn with it, in overhead and hand-over`;

const reasonOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

interface Options {
  readonly quick: boolean;
  readonly parts: readonly string[];
  /** All of it, as it is to be read by people. */
  readonly full: boolean;
  readonly json: string;
}

/** Undefined: wrong usage. */
function readOptions(): Options | undefined {
  try {
    const { values } = parseArgs({
      options: { quick: { type: 'boolean' }, only: { type: 'string' }, json: { type: 'string' } },
    });
    const { quick = false, only, json = 'build/bench.json' } = values;
    const parts = only?.split(',') ?? Object.keys(PARTS);
    const unknown = parts.find((name) => !(name in PARTS));
    if (unknown !== undefined) throw new Error(`there is no part '${unknown}'`);
    return { quick, parts, full: !quick && only === undefined, json };
  } catch (error) {
    console.error(`${reasonOf(error)}\n${USAGE}`);
    return undefined;
  }
}

interface Result extends Report {
  /** What could not be measured, and why. */
  readonly failed: readonly string[];
}

/** A part that fails does not take the others with it. */
async function measure({ quick, parts: names }: Options, signal: AbortSignal): Promise<Result> {
  const about = { at: new Date(), machine: thisMachine(), versions: await versions() };
  const parts: (Measured & { name: string })[] = [];
  const failed: string[] = [];
  // What is going on goes to stderr: stdout is the report alone.
  const say = (line: string) => console.error(line);
  for (const [name, part] of Object.entries(PARTS).filter(([own]) => names.includes(own))) {
    try {
      parts.push({ name, ...(await part({ quick, say })) });
    } catch (error) {
      signal.throwIfAborted();
      failed.push(`${name}: ${reasonOf(error)}`);
      await endProcesses();
    }
  }
  return { ...about, parts, failed };
}

function publish(report: Result, { quick, full, json }: Options): void {
  writeFileSync(json, `${JSON.stringify({ quick, ...report }, null, 1)}\n`);
  console.log(`${environment(report)}\n${tables(report.parts)}`);
  for (const why of report.failed) console.error(`bench: ${why}`);
  if (!full || report.failed.length > 0) return;
  mkdirSync('docs', { recursive: true });
  writeFileSync('docs/benchmarks.svg', draw(report.parts.flatMap(({ series = [] }) => series)));
  writeFileSync('docs/benchmarks.md', page(report, 'benchmarks.svg'));
}

async function clear(): Promise<void> {
  await endProcesses();
  await endAgents();
}

/** Aborts when a signal comes; all that was started is ended then, and this program too. */
function listenToSignals(): AbortSignal {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    // Not `once`: execa ends this process while it waits for a tool, if nobody else listens to the signal any more.
    process.on(name, () => {
      if (stop.signal.aborted) return;
      stop.abort(new Error(`ended by ${name}`));
      startNoMore();
      void clear().then(() => process.exit(128 + constants.signals[name]));
    });
  return stop.signal;
}

async function main(): Promise<number> {
  const options = readOptions();
  if (!options) return 64;
  const signal = listenToSignals();
  try {
    const result = await measure(options, signal);
    publish(result, options);
    return result.failed.length > 0 ? 1 : 0;
  } catch (error) {
    console.error(`bench: ${reasonOf(error)}`);
    return 1;
  } finally {
    await clear();
  }
}

process.exitCode = await main();
