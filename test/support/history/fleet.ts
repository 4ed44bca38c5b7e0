// Nodes of one group under test: starts runlock with witnesses as its commands, keeps the history, and has it judged in the end.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { markedPids } from '../../../src/process/process-tree.ts';
import type { Agent } from '../consul.ts';
import { end, eventually, isAlive, readyGuardOf } from '../processes.ts';
import { spawnRunlock } from '../program.ts';
import type { Result, Running, StartOptions } from '../program.ts';
import { command, judge } from './checker.ts';
import type { Broken, Verdict } from './checker.ts';
import { watchService } from '../services-watcher.ts';
import { uptimeMs } from './history.ts';
import type { Act, Cost, History, RunTrace } from './history.ts';
import { observe } from './observer.ts';
import { prepareWitnesses, readRuns, runIds, tell, toldFile, witness } from './witness.ts';
import type { Part } from './witness.ts';

export interface FleetOptions {
  readonly group: string;
  /** Default 1. */
  readonly slots?: number;
  /** Another fleet, whose runs may be in this group too. */
  readonly beside?: Pick<Fleet, 'folder'>;
  /** Default `forever`. */
  readonly hold?: string;
  /** More options for every `exec`. */
  readonly args?: readonly string[];
  /** A service whose gate guards all runs, and how many of so many instances may be offline. */
  readonly service?: { readonly name: string; readonly limitOf: (total: number) => number };
}

export interface NodeOptions extends StartOptions {
  readonly part?: Part;
  /** More options for this `exec`. */
  readonly args?: readonly string[];
  /** Its own agent, or a proxy to one; the fleet's unless given. */
  readonly agent?: Pick<Agent, 'env'>;
}

/** One `runlock exec`. */
export interface Node extends Running {
  readonly name: string;
  /** Resolves when its command has started. */
  running(timeoutMs?: number): Promise<RunTrace>;
  /** Resolves when its ticket is in the queue: the session that holds it. */
  waiting(timeoutMs?: number): Promise<string>;
  /** Lets its command end. */
  tell(exitCode?: number): void;
  /** Sends a signal, and notes it in the history where it ends the run. */
  send(signal: NodeJS.Signals): void;
  /** Its guard's process id. */
  guard(): Promise<number>;
}

export interface Fleet {
  readonly group: string;
  /** Where the witnesses write. */
  readonly folder: string;
  start(name: string, options?: NodeOptions): Node;
  /** Starts, tells at once, and waits for the end. */
  run(name: string, options?: NodeOptions): Promise<Result>;
  /** Ends it with the fleet. */
  adopt(one: { end: () => void }): void;
  /** Notes what the test is about to do. */
  act(kind: Act['kind'], node?: string): void;
  /** Notes what a queue cost. */
  cost(cost: Cost): void;
  /** Keys below the group's prefix, by their names in the group. */
  keys(): Promise<string[]>;
  /** The ids of all sessions that runs of the group have in Consul. */
  sessions(): Promise<string[]>;
  /** The claim of a slot, as it stands in Consul. */
  claim(slot?: number): Promise<Claim | undefined>;
  /** The session that has the slot's lock. */
  lockedBy(slot?: number): Promise<string | undefined>;
  history(): Promise<History>;
  /** The promises that the history breaks: none, one hopes. */
  broken(): Promise<readonly Broken[]>;
  verdict(): Promise<Verdict>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface Claim {
  readonly node: string;
  readonly run: string;
  readonly state: string;
  readonly heldUntil?: string;
  readonly missingSince?: string;
}

const ENDING: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'];

/** `agent` serves the nodes that have none of their own, and whoever looks on. */
export function startFleet(agent: Agent, options: FleetOptions): Fleet {
  const { group, slots = 1 } = options;
  const folder = mkdtempSync(join(tmpdir(), 'runlock-fleet-'));
  prepareWitnesses(folder);
  const observer = observe(agent, group);
  const { service } = options;
  const watcher = service && watchService(agent, service.name);
  const acts: Act[] = [];
  const costs: Cost[] = [];
  const started = new Set<{ end: () => void }>();
  const act: Fleet['act'] = (kind, node) => {
    acts.push({ atMs: uptimeMs(), kind, ...(node !== undefined && { node }) });
  };
  const start = (name: string, one: NodeOptions = {}): Node => {
    rmSync(toldFile(folder, name), { force: true });
    const args = ['exec', '-g', group, '--node', name, '-n', String(slots), ...execArgs(options, one)];
    const command = witness(folder, one.part);
    const earlier = runIds(folder);
    const running = spawnRunlock(one.agent ?? agent, [...args, '--', ...command], one);
    started.add(running);
    return {
      ...running,
      name,
      running: (timeoutMs) =>
        eventually(() => {
          const runs = readRuns(folder).filter(({ node, run }) => node === name && !earlier.has(run));
          const ready = runs.find((run) => isComplete(run, one.part));
          if (ready) return ready;
          throw new Error(`${name} has not started its command; stderr: ${running.stderr()}`);
        }, timeoutMs),
      waiting: (timeoutMs) =>
        eventually(async () => {
          const tickets = await agent.kv.tree(`runlock/${group}/.queue/`);
          const own = tickets.find(
            (ticket) => (JSON.parse(ticket.Value) as { pid: number }).pid === running.pid,
          );
          if (own?.Session !== undefined) return own.Session;
          throw new Error(`${name} does not wait; stderr: ${running.stderr()}`);
        }, timeoutMs),
      tell: (exitCode = 0) => tell(folder, name, exitCode),
      send: (signal) => {
        if (signal === 'SIGKILL') act('kill', name);
        else if (ENDING.includes(signal)) act('stop', name);
        running.signal(signal);
      },
      guard: () => eventually(() => readyGuardOf(running.pid)),
    };
  };
  const fleet: Fleet = {
    group,
    folder,
    start,
    run: async (name, one = {}) => start(name, { ...one, part: { beats: 1, ...one.part } }).ended,
    adopt: (one) => void started.add(one),
    act,
    cost: (cost) => void costs.push(cost),
    keys: async () => {
      const prefix = `runlock/${group}/`;
      return (await agent.kv.keys(prefix)).map((key) => key.slice(prefix.length));
    },
    sessions: () => sessionsOf(agent, group),
    claim: async (slot = 0) => {
      const owner = await agent.kv.get(`runlock/${group}/.slot/${slot}/owner`);
      return owner && (JSON.parse(owner.Value) as Claim);
    },
    lockedBy: async (slot = 0) => (await agent.kv.get(`runlock/${group}/.slot/${slot}/lock`))?.Session,
    history: async () => {
      const left = { keys: await fleet.keys(), sessions: await sessionsOf(agent, group) };
      const seen = await observer.seen();
      const offline = service &&
        watcher && {
          offline: [{ service: service.name, limitOf: service.limitOf, looks: await watcher.looks() }],
        };
      const folders = [folder, ...(options.beside ? [options.beside.folder] : [])];
      const runs = folders.flatMap((one) => readRuns(one, group)).sort((a, b) => a.token - b.token);
      const hold = options.hold === 'none' && ({ hold: 'none' } as const);
      return { slots, runs, ...seen, acts, left, costs, ...hold, ...offline };
    },
    verdict: async () => judge(await fleet.history()),
    broken: async () => (await fleet.verdict()).broken,
    [Symbol.asyncDispose]: async () => {
      for (const one of started) one.end();
      await observer.stop();
      await watcher?.stop();
      endWitnesses(folder);
      rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    },
  };
  return fleet;
}

const execArgs = ({ hold = 'forever', args = [] }: FleetOptions, one: NodeOptions) => [
  ...['--hold', hold, '--session-ttl', '10s', '--kill-after', '1s'],
  ...args,
  ...(one.args ?? []),
];

/** Everybody who will take part has said so. */
function isComplete(run: RunTrace, part: Part = {}): boolean {
  const roles = run.processes.map(({ role }) => role);
  return (
    command(run) !== undefined &&
    (part.grandchild !== true || roles.includes('grandchild')) &&
    (part.daemon !== true || roles.includes('daemon'))
  );
}

async function sessionsOf(agent: Agent, group: string): Promise<string[]> {
  const answer = await agent.http('GET', '/v1/session/list?consistent');
  const sessions = answer.json() as { ID: string; Name: string }[];
  return sessions.filter(({ Name }) => Name === `runlock ${group}`).map(({ ID }) => ID);
}

function endWitnesses(folder: string): void {
  for (const run of readRuns(folder)) {
    for (const { pid } of run.processes) {
      // A pid alone may be somebody else's by now.
      if (isAlive(pid) && markedPids(run.run).includes(pid)) end(pid);
    }
  }
}
