/** One round of the hand-over: a holder, and others that wait behind it in a known order. */
import { readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { Name, Ring } from './contenders.ts';
import { pairsOutOfOrder } from './pairs.ts';
import { memoryOf, start } from './processes.ts';
import type { Memory, Process } from './processes.ts';

export interface Round {
  /** In the order in which they happened. */
  readonly handOversMs: readonly number[];
  /** Pairs of waiting processes. */
  readonly outOfOrder: number;
  /** Of each, while it waited. */
  readonly memory: readonly Memory[];
}

/** bash knows the time by itself and appends a line by itself: a few microseconds, and no process. */
const note = 'echo "$1 $start $EPOCHREALTIME" >>"$2"';
const COMMAND = `start=$EPOCHREALTIME; sleep 0.05; ${note}`;
const HOLDER = `start=$EPOCHREALTIME; echo held; read -r <"$3"; ${note}`;

/** All join one after the other behind a holder, which then goes. Ends when all have run. */
export async function queueUp(
  ring: Ring,
  name: Name,
  { waiting, lock }: { waiting: number; lock: string },
): Promise<Round> {
  const contender = ring.contenders[name];
  const files = join(ring.folder, `${name}-${lock}`.replaceAll(/[ /]/g, '-'));
  const [notes, fifo] = [`${files}.notes`, `${files}.fifo`];
  await execa('mkfifo', [fifo]);
  // Open for both, so that neither side waits for the other.
  const gate = await open(fifo, 'r+');
  try {
    const run = (place: number, script: string) => {
      const command = ['bash', '-c', script, 'bash', String(place), notes, fifo];
      return start(contender.wrap(lock, `web${place}`, command), ring.env);
    };
    const holder = run(0, HOLDER);
    await unlessEnded(holder, holder.line);
    const waiters: Process[] = [];
    for (let place = 1; place <= waiting; place++) {
      const next = run(place, COMMAND);
      waiters.push(next);
      await unlessEnded(next, contender.untilWaiting(lock, place));
    }
    const memory = waiters.map(({ pid }) => memoryOf(pid));
    await gate.write('\n');
    await Promise.all([holder, ...waiters].map(({ ended }) => ended));
    return { ...toRound(readRuns(notes)), memory };
  } finally {
    await gate.close();
  }
}

async function unlessEnded({ ended }: Process, event: Promise<unknown>): Promise<void> {
  const early = ended.then(() => Promise.reject(new Error('a process ended that should have waited')));
  await Promise.race([event, early]);
}

interface Run {
  /** Place in the order of joining; the holder's is 0. */
  readonly place: number;
  readonly startMs: number;
  readonly endMs: number;
}

/** In the order of starting. */
function readRuns(file: string): Run[] {
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
  return lines.map(toRun).sort((a, b) => a.startMs - b.startMs);
}

function toRun(line: string): Run {
  const [place = NaN, start = NaN, end = NaN] = line.split(' ').map(Number);
  if (!(start > 0 && end >= start))
    throw new Error(`'${line}' is no note of a run; bash 5 or newer is needed`);
  return { place, startMs: start * 1000, endMs: end * 1000 };
}

function toRound(runs: readonly Run[]): Pick<Round, 'handOversMs' | 'outOfOrder'> {
  const [, ...waited] = runs;
  const handOversMs = waited.map(({ startMs }, i) => startMs - (runs[i]?.endMs ?? NaN));
  if (handOversMs.some((ms) => ms < 0)) throw new Error('two commands ran at the same time');
  return { handOversMs, outOfOrder: pairsOutOfOrder(waited.map(({ place }) => place)) };
}
