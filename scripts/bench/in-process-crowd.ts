/** A queue of runs in this one process, joined one after the other and then served; what each run costs. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { startAgent } from '../../test/support/consul.ts';
import type { Agent } from '../../test/support/consul.ts';
import { perRun } from './in-process-traffic.ts';
import type { Traffic, TrafficCounter } from './in-process-traffic.ts';

/** Gives the slot back. */
export type Leave = () => Promise<void>;

/** A lock that this process wants many times. */
export interface Crowd {
  /** Waits for the lock; `onJoined` hears when it is in the queue. */
  enter(node: string, onJoined?: () => void): Promise<Leave>;
  /** Nobody waits any longer: every `enter` under way rejects. */
  dismiss(): void;
  close(): void;
}

export interface Plan {
  readonly waiting: number;
  /** How many of them are served; the rest waits on meanwhile. */
  readonly served: number;
  readonly rounds: number;
  /** How long a run lasts: until all the others wait for its end again. */
  readonly runMs: number;
}

/** What one run costs, of which `join` is what it takes to wait. */
export interface Cost extends Traffic {
  /** CPU time of the agent, in milliseconds. */
  readonly cpuMs: number;
}

export interface Round {
  readonly join: Cost;
  readonly serve: Cost;
  /** From the call that gives the slot back to the moment when the next one knows that it has it. */
  readonly handOversMs: readonly number[];
}

/** A server that keeps its data on disk, as one in production does, and takes as many connections as come. */
export function startServer(): Promise<Agent> {
  return startAgent({ durable: true, config: { limits: { http_max_conns_per_client: 16_384 } } });
}

/** One round: all join behind a holder, then `served` of them have their turn. */
export async function queueUp(
  crowd: Crowd,
  { agent, traffic }: { agent: Agent; traffic: TrafficCounter },
  { waiting, served, runMs }: Omit<Plan, 'rounds'>,
): Promise<Round> {
  const holder = await crowd.enter('node-0');
  const count = () => ({ ...traffic.now(), cpuMs: cpuMs(agent.pid) });
  const turns = takeTurns(crowd, { served, runMs });
  const before = count();
  for (let number = 1; number <= waiting; number++) await turns.join(`node-${number}`);
  const joined = count();
  await turns.start(holder);
  const after = count();
  await turns.end();
  return {
    join: costOf(before, joined, waiting),
    serve: costOf(joined, after, served),
    handOversMs: turns.handOversMs,
  };
}

function costOf(before: Cost, after: Cost, runs: number): Cost {
  return { ...perRun(before, after, runs), cpuMs: (after.cpuMs - before.cpuMs) / runs };
}

function takeTurns(crowd: Crowd, { served, runMs }: Pick<Plan, 'served' | 'runMs'>) {
  const runs: Promise<void>[] = [];
  const handOversMs: number[] = [];
  let left = served;
  let freedMs = NaN;
  const free = (leave: Leave) => {
    freedMs = performance.now();
    return leave();
  };
  const { promise: allServed, resolve: over } = withResolver();
  const run = async (node: string, onJoined: () => void) => {
    const leave = await crowd.enter(node, onJoined);
    const grantedMs = performance.now();
    if (left === 0) return leave();
    handOversMs.push(grantedMs - freedMs);
    await sleep(runMs);
    await free(leave);
    if (--left === 0) over();
  };
  return {
    handOversMs,
    join: async (node: string) => {
      const { promise: joined, resolve: onJoined } = withResolver();
      const ended = run(node, onJoined);
      runs.push(ended);
      await Promise.race([joined, ended]);
    },
    /** Resolves when all who should be served have been. */
    start: async (holder: Leave) => {
      await free(holder);
      await Promise.race([allServed, Promise.all(runs)]);
    },
    end: async () => {
      if (runs.length > served) crowd.dismiss();
      await Promise.allSettled(runs);
    },
  };
}

function withResolver() {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((settle) => (resolve = settle));
  return { promise, resolve };
}

/** CPU time that a process has used so far, in milliseconds, in steps of 10: Linux tells programs hundredths of seconds. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name, in parentheses, may hold spaces; what follows begins with field 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
