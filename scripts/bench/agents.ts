/** A thousand agents in this one process: all asked for one task at once, and all with a trigger on one state. */
import { setTimeout as sleep } from 'node:timers/promises';
import { encodeState } from '../../src/state/document.ts';
import { startAgents } from '../../test/support/agents-in-process.ts';
import type { Fleet } from '../../test/support/agents-in-process.ts';
import { askFor } from '../../test/support/asked-jobs.ts';
import type { Agent } from '../../test/support/consul.ts';
import { startServer } from './in-process-crowd.ts';
import { median } from './pairs.ts';
import type { Row } from './report.ts';

export const howAgents = `The thousand agents are the code of \`runlock agent\` in one Node.js process, each with a session and connections \
of its own, on a Consul server that keeps its data on disk and takes more than 200 connections from one address. Their runs are no \
processes and hold no slot: they send what a run sends for its job or its trigger. One job asks all of them. Nobody may accept until its \
lists of targets are all written; the time is from then until the last agent knows that it has accepted, and only then may runs begin. Agents \
of a large job look one after the other, 500 a second. Writes are entries in Consul’s log, refused ones too; requests are those of the agents alone.`;

const section = 'Many agents at once';
/** Longest time for one step. */
const LIMIT_MS = 300_000;

export async function measureAgents(quick: boolean, say: (line: string) => void) {
  const count = quick ? 20 : 1_000;
  const asked = await withAgents({ count }, askAll);
  say(`jobs, ${count} agents: all accepted after ${asked.acceptedMs.toFixed(0)} ms`);
  const changed = await withAgents({ count, on: 'state:bench/go' }, changeOne);
  say(`jobs, ${count} agents: all started after ${changed.startedMs.toFixed(0)} ms`);
  const of = (what: string) => `${what}, ${count.toLocaleString('en-GB')} agents`;
  const row = (what: string, unit: string, runlock: number, reach?: Row['reach']): Row => ({
    ...{ section, what: of(what), unit, runlock, others: {} },
    ...(reach && { reach }),
  });
  const rows: readonly Row[] = [
    row('the request is written', 'ms', asked.writtenMs),
    row('all have accepted, from then', 'ms', asked.acceptedMs, {
      text: 'within 5,000 ms',
      met: asked.acceptedMs <= 5_000,
    }),
    row('half have accepted, from then', 'ms', asked.middleMs),
    row('writes until accepted, each', 'writes', asked.writes, { text: '1', met: asked.writes === 1 }),
    row('requests until accepted, each', 'requests', asked.requests),
    row('writes of a run’s start and end in its job, each', 'writes', asked.runWrites),
    row('all started after a change of one state', 'ms', changed.startedMs),
    row('requests after a change of one state, each', 'requests', changed.requests, {
      text: 'at most 4 requests',
      met: changed.requests <= 4,
    }),
  ];
  return { rows, raw: { asked, changed } };
}

interface Place {
  readonly consul: Agent;
  readonly fleet: Fleet;
}

async function withAgents<T>(
  options: { readonly count: number; readonly on?: string },
  measure: (place: Place) => Promise<T>,
): Promise<T> {
  const consul = await startServer();
  try {
    const fleet = await startAgents(consul, { group: 'bench/agents', ...options });
    await until(() => fleet.isQuiet());
    fleet.clear();
    const measured = await measure({ consul, fleet });
    if (fleet.faults.length > 0) throw new Error(`an agent failed: ${fleet.faults[0]}`);
    await fleet.end();
    return measured;
  } finally {
    await consul[Symbol.asyncDispose]();
  }
}

async function askAll({ consul, fleet }: Place) {
  const { nodes, moments, agents, runs } = fleet;
  fleet.admit(false);
  const beganMs = performance.now();
  const targets = nodes.map((node) => [node, 0] as const);
  await askFor(consul, 'bench/agents', { targets, maxFailures: nodes.length });
  const readyMs = performance.now();
  await until(() => moments.accepted.size === nodes.length);
  // The answer to the last write comes to the starter, and to the agents, in any order.
  const afterMs = [...moments.accepted.values()].map((ms) => Math.max(0, ms - readyMs));
  const each = { requests: agents.requests / nodes.length, writes: agents.writes / nodes.length };
  fleet.admit(true);
  await until(() => moments.begun.size === nodes.length && fleet.isQuiet());
  const runWrites = runs.writes / nodes.length;
  const writtenMs = readyMs - beganMs;
  return { ...each, writtenMs, acceptedMs: Math.max(...afterMs), middleMs: median(afterMs), runWrites };
}

async function changeOne({ consul, fleet }: Place) {
  const { nodes, moments, agents } = fleet;
  const beganMs = performance.now();
  const state = { value: '1', change: 'c', by: 'bench', at: new Date().toISOString() };
  await consul.kv.put('runlock/.state/bench/go/.value', encodeState(state));
  await until(() => moments.begun.size === nodes.length);
  const startedMs = Math.max(...moments.begun.values()) - beganMs;
  await until(() => fleet.isQuiet());
  return { startedMs, requests: agents.requests / nodes.length };
}

async function until(isSo: () => boolean): Promise<void> {
  const endMs = performance.now() + LIMIT_MS;
  while (!isSo()) {
    if (performance.now() > endMs) throw new Error('the agents are not done after 5 minutes');
    await sleep(20);
  }
}
