// Many agents in this process: the real code of `runlock agent`, each with a node's name, a session and connections of its own.
// Their runs are no processes: they send what a run sends for its job or its trigger, and hold no slot.
import { runAgent } from '../../src/agent/agent.ts';
import type { AgentEffects } from '../../src/agent/agent.ts';
import type { HostWatch } from '../../src/agent/host-watch.ts';
import type { Known, ServedTask } from '../../src/agent/known.ts';
import type { Runs, StartRequest } from '../../src/agent/runs.ts';
import type { StateFolder } from '../../src/agent/state-folder.ts';
import type { Trigger } from '../../src/agent/task/trigger.ts';
import { changing } from '../../src/agent/watched.ts';
import type { Watched } from '../../src/agent/watched.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { send } from '../../src/consul/txn.ts';
import type { RunEvent } from '../../src/events/events.ts';
import { endTarget } from '../../src/jobs/end.ts';
import { jobText } from '../../src/jobs/keys.ts';
import { lookAt } from '../../src/jobs/read.ts';
import { startTarget } from '../../src/jobs/transactions.ts';
import { clock } from '../../src/platform/deps.ts';
import type { Deps } from '../../src/platform/deps.ts';
import type { Agent } from './consul.ts';
import { playTriggered } from './played-trigger.ts';

/** What was asked of Consul since the last look, by the agents and by their runs. */
export interface Calls {
  /** Calls of the client, a request each unless it fails. */
  requests: number;
  /** Transactions that change something, or are refused: an entry in Consul's log each. */
  writes: number;
}

export interface Fleet {
  readonly nodes: readonly string[];
  readonly agents: Calls;
  readonly runs: Calls;
  /** Moments (`performance.now()`) of each node's first event of that kind since the last `clear`. */
  readonly moments: {
    readonly accepted: ReadonlyMap<string, number>;
    readonly begun: ReadonlyMap<string, number>;
  };
  readonly faults: readonly string[];
  /** Whether runs may begin; until then they wait, as for a turn. */
  admit(runs: boolean): void;
  /** Whether all wait, for their key and for one more, and no run is under way. */
  isQuiet(): boolean;
  /** Forgets what has been counted. */
  clear(): void;
  /** Ends them all. */
  end(): Promise<void>;
}

export interface FleetOptions {
  readonly count: number;
  readonly group: string;
  /** A condition of the trigger of each node's task `t`; undefined: principal `ops` may ask for it. */
  readonly on?: string;
}

const HOST: Deps['host'] = {
  self: () => ({ pid: process.pid, startTime: '1', bootId: 'b' }),
  place: () => Promise.resolve({ host: 'bench' }),
  bootId: 'b',
  startTime: () => undefined,
  hidden: () => false,
  survivors: () => ({ pids: [], guarded: false }),
};

/** No such folder: nothing was started here before, and nobody pauses. */
const STATE: StateFolder = {
  path: '/dev/null/state',
  belongTo: () => undefined,
  paused: () => undefined,
  pause: () => undefined,
  resume: () => false,
  askReset: () => undefined,
  takeResets: () => [],
  report: () => undefined,
  writeReport: () => undefined,
  contactMs: () => undefined,
  noteContact: () => undefined,
};

const untilAborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));

const MANAGER: AgentEffects['manager'] = {
  says: () => undefined,
  ready: () => undefined,
  stopping: () => Promise.resolve(),
  keepAlive: untilAborted,
};

/** Resolves once all are registered, and wait for what is to come. */
export async function startAgents(agent: Agent, { count, group, on }: FleetOptions): Promise<Fleet> {
  const over = new AbortController();
  const [agents, runs] = [none(), none()];
  const moments = { accepted: new Map<string, number>(), begun: new Map<string, number>() };
  const faults: string[] = [];
  const nodes = Array.from({ length: count }, (_, at) => `n${at}`);
  const trigger = on === undefined ? undefined : triggerOn(on);
  const ready = new Set<string>();
  let allReady = (): void => undefined;
  const whenReady = new Promise<void>((resolve) => (allReady = resolve));
  const clients: Consul[] = [];
  const open = { waits: 0, others: 0, runs: 0 };
  const room = changing(true);
  const work = nodes.map((node) => {
    const emit = (event: RunEvent) => {
      const now = performance.now();
      if (event.event === 'request' && event.step === 'accepted' && !moments.accepted.has(node))
        moments.accepted.set(node, now);
      if (event.event === 'agent-ready' && ready.add(node).size === count) allReady();
      if (event.event === 'agent-part-failed' || event.event === 'reactor-failed')
        faults.push(`${node}: ${event.detail.fault}`);
    };
    const consul = connect(consulSettings(agent.env), { clock, emit });
    clients.push(consul);
    const deps: Deps = { clock, random: Math.random, host: HOST, emit };
    const begun = () => {
      if (!moments.begun.has(node)) moments.begun.set(node, performance.now());
    };
    const playing = { consul: counted(consul, runs), open, deps, node, trigger, begun, room };
    const effects: AgentEffects = {
      consul: counted(consul, agents, open),
      deps,
      host: hostOf(taskOf(group, trigger)),
      state: STATE,
      manager: MANAGER,
      openRuns: () => playedRuns(playing),
      posting: { uid: 0, version: '0', authorities: () => [], newId: () => 'id' },
    };
    const request = {
      prefix: 'runlock',
      node,
      ttlMs: 90_000,
      requests: 'trust-everybody',
      version: '0',
      logDir: '/nowhere',
    } as const;
    return runAgent(effects, request, over.signal).catch((error: unknown) => faults.push(String(error)));
  });
  await whenReady;
  return {
    ...{ nodes, agents, runs, moments, faults },
    admit: (may) => room.set(may),
    isQuiet: () => open.waits === 2 * count && open.others === 0 && open.runs === 0,
    clear: () => {
      for (const calls of [agents, runs]) Object.assign(calls, none());
      for (const each of Object.values(moments)) each.clear();
    },
    end: async () => {
      over.abort();
      await Promise.all(work);
      for (const consul of clients) consul.close();
    },
  };
}

const none = (): Calls => ({ requests: 0, writes: 0 });

const triggerOn = (on: string): Trigger => ({
  ...{ on: [parseCondition(on)], debounceMs: 0, minIntervalMs: 0, onFirst: 'skip', perHour: 60 },
});

function taskOf(group: string, trigger: Trigger | undefined): ServedTask {
  const allow = trigger ? [] : ['ops'];
  return {
    task: {
      ...{ name: 't', file: 't.toml', command: ['/bin/true'], params: [], env: {}, allow, tail: false },
      ...(trigger && { trigger }),
    },
    shown: { name: 't', groups: [group], allow, params: [], on: [], when: [], publish: [] },
    needsHealth: false,
    ...{ publish: [], during: [] },
  };
}

function hostOf(task: ServedTask): HostWatch {
  const files = { tasks: [task], faults: [] };
  const known = changing<Known>({
    place: { kind: 'away', why: 'starting' },
    files,
    pause: undefined,
    serving: { kind: 'unknown' },
    failing: {},
  });
  return { known, refresh: () => Promise.resolve(files), run: untilAborted };
}

interface Open {
  /** Blocking queries. */
  waits: number;
  others: number;
  runs: number;
}

/** Counts each call that sends something. */
function counted(consul: Consul, calls: Calls, open: Open = { waits: 0, others: 0, runs: 0 }): Consul {
  const isWait = (args: readonly unknown[]) =>
    args.some((arg) => typeof arg === 'object' && arg !== null && 'index' in arg);
  return new Proxy(consul, {
    get: (all, name) => {
      const found: unknown = Reflect.get(all, name);
      if (typeof found !== 'function' || ['fault', 'denied', 'close'].includes(String(name))) return found;
      return async (...args: unknown[]) => {
        const kind = isWait(args) ? 'waits' : 'others';
        calls.requests += 1;
        if (name === 'transact') calls.writes += 1;
        open[kind] += 1;
        try {
          return (await Reflect.apply(found, all, args)) as unknown;
        } finally {
          open[kind] -= 1;
        }
      };
    },
  });
}

interface Playing {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly node: string;
  readonly trigger: Trigger | undefined;
  readonly begun: () => void;
  readonly room: Watched<boolean>;
  readonly open: Open;
}

function playedRuns(playing: Playing): Runs {
  const alive = new Map<string, Promise<void>>();
  return {
    isAlive: (ref) => alive.has(jobText(ref)),
    notBeforeMs: () => 0,
    lastEnd: () => undefined,
    start: (request) => {
      playing.open.runs += 1;
      const over = play(playing, request)
        .catch(() => undefined)
        .then(() => {
          playing.open.runs -= 1;
          alive.delete(jobText(request.ref));
        });
      alive.set(jobText(request.ref), over);
    },
    ended: (ref) => alive.get(jobText(ref)) ?? Promise.resolve(),
    room: async (_, options) => {
      for (;;) {
        const { value, change } = playing.room.look();
        if (value) return;
        await playing.room.past(change, options);
      }
    },
    forgetOthers: () => undefined,
    forget: () => undefined,
    logOf: () => '/nowhere',
  };
}

async function play(
  { consul, deps, node, trigger, begun }: Playing,
  { ref, task }: StartRequest,
): Promise<void> {
  const command = () => {
    begun();
    return Promise.resolve('good' as const);
  };
  const run = `run-${node}`;
  if (trigger) return playTriggered({ consul, node, task, run, rules: trigger, command });
  const { signal } = new AbortController();
  const of = { consul, prefix: 'runlock', signal, ref, node, deps };
  const look = await lookAt(of, of, { signal });
  if (look.kind !== 'target') return;
  const steps = startTarget(look.target, { run, bootId: 'b', at: new Date().toISOString() });
  const { kind } = await send(consul, steps, { signal, rule: '' });
  if (kind !== 'done') return;
  await command();
  await endTarget(
    { ...of, known: look.known },
    { isNode: true, end: () => ({ state: 'good', endedAt: new Date().toISOString() }) },
  );
}
