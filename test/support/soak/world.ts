// Where a soak of groups happens: its surroundings, and the groups with all their processes.
import { setTimeout as sleep } from 'node:timers/promises';
import { startTime } from '../../../src/process/process-tree.ts';
import type { Agent } from '../consul.ts';
import { startFleet } from '../history/fleet.ts';
import type { Fleet, Node, NodeOptions } from '../history/fleet.ts';
import { startHalves } from '../history/halves.ts';
import { tell } from '../history/witness.ts';
import { isAlive } from '../processes.ts';
import { spawnRunlock } from '../program.ts';
import type { Result, Spawned } from '../program.ts';
import type { GroupPlan, Halves, SoakPlan } from './plan.ts';
import { startSurroundings } from './surroundings.ts';
import type { Surroundings } from './surroundings.ts';

/** What was done to a process on purpose, and explains how it ended. */
export type Mark = 'killed' | 'stopped' | 'asked' | 'evicted' | 'crashed';

/** One `runlock exec` that is under way, or an `acquire` with what follows it. */
export interface Live {
  /** The process id is that of the first half. */
  readonly node: Pick<Node, 'name' | 'pid' | 'stderr' | 'tell'>;
  readonly gate: number;
  /** Its command waits to be told. */
  readonly isTold: boolean;
  /** By the two halves of exec. */
  readonly isHalves: boolean;
  readonly marks: Set<Mark>;
  readonly isAlive: () => boolean;
  /** Something is being done to it; nothing else should be. */
  busy: boolean;
}

/** One that has ended. `run`: the run that it was granted. */
export interface Ended {
  readonly node: string;
  readonly status: number;
  readonly run?: string;
  readonly isHalves: boolean;
  readonly marks: ReadonlySet<Mark>;
  readonly stderr: string;
}

export interface Group {
  readonly plan: GroupPlan;
  readonly fleet: Fleet;
  readonly living: Set<Live>;
  readonly ended: Ended[];
  /** Nodes whose claim an operator is about to clear: they start nothing meanwhile. */
  readonly reserved: Set<string>;
  /** Until when nodes stay away, in milliseconds of performance.now(). */
  readonly away: Map<string, number>;
}

export interface Launch {
  readonly name: string;
  readonly gate: number;
  readonly part: NonNullable<NodeOptions['part']>;
  /** When its command is told, after its start. */
  readonly lengthMs?: number;
  /** Acquires and releases, or crashes in between, instead of exec. */
  readonly halves?: Halves;
}

export interface World extends Surroundings {
  readonly groups: ReadonlyMap<string, Group>;
  launch(group: Group, launch: Launch): Live;
  /** Runs `runlock <args>` by the server's own agent, for `limitMs` at most. */
  operate(args: readonly string[], limitMs?: number): Promise<Result>;
}

export async function startWorld(plan: SoakPlan): Promise<World> {
  const around = await startSurroundings(plan);
  const { server, calm, lull } = around;
  const groups = new Map(plan.groups.map((group) => [group.name, createGroup(server, group)]));
  const operators = createOperators(server);
  return {
    ...around,
    groups,
    launch: (group, wanted) => launch(group, { ...wanted, agent: around.way(wanted.gate), lull }),
    operate: operators.run,
    [Symbol.asyncDispose]: async () => {
      calm.abort();
      operators.end();
      await Promise.all([...groups.values()].map(({ fleet }) => fleet[Symbol.asyncDispose]()));
      await around[Symbol.asyncDispose]();
    },
  };
}

const LOGS = ['--verbose', '--log-format', 'json'];

function createGroup(server: Agent, plan: GroupPlan): Group {
  const { name: group, slots, hold } = plan;
  const fleet = startFleet(server, { group, slots, hold, args: LOGS });
  return { plan, fleet, living: new Set(), ended: [], reserved: new Set(), away: new Map() };
}

export function createOperators(server: Agent) {
  const all = new Set<Spawned>();
  return {
    run: async (args: readonly string[], limitMs = 30_000): Promise<Result> => {
      const spawned = spawnRunlock(server, args);
      all.add(spawned);
      const late = setTimeout(() => spawned.end(), limitMs);
      const result = await spawned.ended;
      clearTimeout(late);
      all.delete(spawned);
      return result;
    },
    end: () => {
      for (const one of all) one.end();
    },
  };
}

interface Launching extends Launch {
  readonly agent: Pick<Agent, 'env'>;
  readonly lull: World['lull'];
}

function launch(group: Group, launching: Launching): Live {
  const { name, gate, part, lengthMs, halves, lull } = launching;
  const isHalves = halves !== undefined;
  const node = isHalves ? acquire(group, launching) : group.fleet.start(name, launching);
  const is = identify(node.pid);
  const isTold = lengthMs !== undefined;
  const marks = new Set<Mark>(halves === 'crash' ? ['crashed'] : []);
  const live: Live = { node, gate, isTold, isHalves, marks, isAlive: is.alive, busy: false };
  group.living.add(live);
  if (isTold) void tellInTime(group, live, { exitCode: part.exitCode ?? 0, length: () => lull(lengthMs) });
  void node.ended.then(({ status, stderr }) => {
    group.living.delete(live);
    const run = grantedRun(stderr);
    group.ended.push({ node: name, status, isHalves, marks, stderr, ...(run !== undefined && { run }) });
  });
  return live;
}

function acquire({ plan, fleet }: Group, { name, agent, part, halves }: Launching) {
  const { name: group, slots, hold } = plan;
  const { beats = 2 } = part;
  const options = { part: { ...part, beats }, crash: halves === 'crash', agent, slots, hold, args: LOGS };
  const both = startHalves({ group, folder: fleet.folder }, name, options);
  fleet.adopt(both);
  const { acquiring, ended, stderr } = both;
  return { name, pid: acquiring.pid, ended, stderr, tell: () => tell(fleet.folder, name, 0) };
}

async function tellInTime(
  group: Group,
  live: Live,
  { exitCode, length }: { exitCode: number; length: () => Promise<void> },
): Promise<void> {
  while (grantedRun(live.node.stderr()) === undefined) {
    if (!group.living.has(live)) return;
    await sleep(100);
  }
  await length();
  // Nobody tells it after its end: that would be told to the node's next run.
  if (group.living.has(live)) live.node.tell(exitCode);
}

/** The run that it says it was granted. */
function grantedRun(stderr: string): string | undefined {
  return /"event":"(?:granted|already-held)".*"run":"([^"]+)"/.exec(stderr)?.[1];
}

/** A process that is known by more than its pid, which may be another's by now. */
export function identify(pid: number) {
  const born = startTime(pid);
  const alive = () => born !== undefined && startTime(pid) === born && isAlive(pid);
  return {
    alive,
    /** Whether it was there to get it. */
    signal: (signal: NodeJS.Signals): boolean => {
      if (!alive()) return false;
      process.kill(pid, signal);
      return true;
    },
  };
}
