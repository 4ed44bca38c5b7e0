/**
 * The agent of a node: says that it is there, and does its parts beside each other for as long as it is the only one. It
 * holds no slot and runs no command itself, so its end ends nothing else.
 */
import type { Consul } from '../consul/consul.ts';
import { reasonOf } from '../errors.ts';
import type { Deps } from '../platform/deps.ts';
import type { HostWatch } from './host-watch.ts';
import { documentOf, principalsOf, statusText } from './known.ts';
import type { Known, Place, Self } from './known.ts';
import { oldStarts } from './old-starts.ts';
import { keepRunning } from './parts.ts';
import type { Part } from './parts.ts';
import { takePresence } from './presence.ts';
import type { ServiceManager } from './service-manager.ts';
import { reacting } from './reacting.ts';
import { requests } from './requests.ts';
import type { Runs } from './runs.ts';
import { askRights } from './rights.ts';
import type { RequestsChoice } from './serving.ts';
import { isOfLiveProcess } from './state-folder.ts';
import type { StateFolder } from './state-folder.ts';
import type { Changing } from './watched.ts';
import type { AgentWays, Posting } from './ways.ts';

export interface AgentRequest {
  readonly prefix: string;
  /** Undefined: the name of the Consul agent's node. */
  readonly node?: string | undefined;
  /** Of the session, in milliseconds. */
  readonly ttlMs: number;
  readonly requests: RequestsChoice;
  readonly version: string;
  /** Of its runs' logs. */
  readonly logDir: string;
}

export interface AgentEffects {
  readonly consul: Consul;
  readonly deps: Deps;
  readonly host: HostWatch;
  readonly state: StateFolder;
  readonly manager: ServiceManager;
  /** The runs of this host, once the node's name is known. */
  readonly openRuns: (where: { readonly prefix: string; readonly node: string }) => Runs;
  readonly posting: Posting;
}

/** What an agent does while its key is its own. Each part tries again by itself, and ends no other. */
const PARTS: readonly ((ways: AgentWays) => Part)[] = [publishing, asking, requests, reacting, oldStarts];

/** After an outage the agents of a cluster come back one after the other, within this time. */
const SPREAD_MS = 60_000;

/**
 * Runs until `signal` aborts.
 * @throws RunlockError `busy`: another agent of this node is running; `config`: its folder is another node's.
 */
export async function runAgent(
  effects: AgentEffects,
  request: AgentRequest,
  signal: AbortSignal,
): Promise<void> {
  const { deps, host, manager } = effects;
  const { known } = host;
  const self = await describeSelf(deps, request.version);
  const reported = { logDir: request.logDir, ttlMs: request.ttlMs };
  const over = new AbortController();
  const ended = AbortSignal.any([signal, over.signal]);
  const background = [
    host.run(ended),
    manager.keepAlive(ended),
    report(effects, { ...self, ...reported }, ended),
  ];
  // It works, and says how: systemd need not wait for a Consul that is away.
  manager.ready();
  try {
    await keepPresent({ ...effects, known, self }, request, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    over.abort();
    await Promise.all(background);
    await manager.stopping();
  }
}

interface Working extends AgentEffects {
  readonly known: Changing<Known>;
  readonly self: Self;
}

/** Takes the key, works while it has it, and takes it again. */
async function keepPresent(working: Working, request: AgentRequest, signal: AbortSignal): Promise<never> {
  const { deps, known, self } = working;
  const { clock, emit, random } = deps;
  const place = (now: Place) => known.set({ ...known.look().value, place: now });
  for (;;) {
    let said = '';
    const failing = (why: string) => {
      if (why === said) return;
      said = why;
      place({ kind: 'away', why });
      emit({ event: 'agent-waits', detail: { fault: why } });
    };
    const document = (node: string) => documentOf(self, node, known.look().value);
    const answered = () => working.state.noteContact(clock.now());
    const admit = (node: string) => working.state.belongTo(node);
    const presence = await takePresence(
      working,
      { ...request, document, admit },
      { signal, failing, answered },
    );
    const { node } = presence;
    place({ kind: 'registered', node });
    emit({ event: 'agent-ready', node, tasks: known.look().value.files.tasks.map(({ task }) => task.name) });
    const isOver = AbortSignal.any([signal, presence.lost]);
    try {
      const ways: AgentWays = {
        ...working,
        ...request,
        node,
        presence,
        parts: partEffects(working),
        refresh: () => working.host.refresh(),
        runs: working.openRuns({ prefix: request.prefix, node }),
      };
      await Promise.all(PARTS.map((part) => keepRunning(ways.parts, part(ways), isOver)));
    } finally {
      place({ kind: 'away', why: signal.aborted ? 'stopping' : reasonOf(presence.lost.reason) });
      await presence.leave();
    }
    signal.throwIfAborted();
    emit({ event: 'agent-lost', node, detail: { fault: reasonOf(presence.lost.reason) } });
    if (presence.wasAway()) await clock.sleep(random() * Math.min(SPREAD_MS, request.ttlMs), { signal });
  }
}

const partEffects = ({ deps, known }: Working) => ({
  deps,
  failing: (part: string, fault: string | undefined) => {
    const { value } = known.look();
    const failing = Object.entries(value.failing).filter(([name]) => name !== part);
    if (fault !== undefined) failing.push([part, fault]);
    known.set({ ...value, failing: Object.fromEntries(failing) });
  },
});

async function describeSelf({ host, clock }: Deps, version: string): Promise<Self> {
  const { pid, startTime, bootId } = host.self();
  return {
    version,
    bootId,
    ...(await host.place()),
    pid,
    startTime,
    since: new Date(clock.now()).toISOString(),
  };
}

/** Keeps the document in Consul as the files and the operator have it. */
function publishing({ known, presence, self, node }: AgentWays): Part {
  return {
    name: 'registration',
    run: async (signal) => {
      for (;;) {
        const { value, change } = known.look();
        await presence.publish(documentOf(self, node, value), { signal });
        await known.past(change, { signal });
      }
    },
  };
}

/** Asks for this agent's own rights whenever other principals may ask for a task. */
function asking(ways: AgentWays): Part {
  const { known } = ways;
  return {
    name: 'rights',
    run: async (signal) => {
      let asked: string | undefined;
      for (;;) {
        const { value, change } = known.look();
        const principals = principalsOf(value.files).join();
        if (principals !== asked) await askRights(ways, signal);
        asked = principals;
        await known.past(change, { signal });
      }
    },
  };
}

/** Tells the service manager, and `runlock agent status` on this host, how the agent is. */
async function report(
  { deps, host: { known }, state, manager }: AgentEffects,
  self: Self,
  signal: AbortSignal,
): Promise<void> {
  let written = '';
  let isOurs = false;
  while (!signal.aborted) {
    const { value, change } = known.look();
    const text = statusText(value);
    // A second agent, which is about to be refused, must not hide what the first one says.
    isOurs ||= value.place.kind === 'registered' || !isOfLiveProcess(state.report(), deps.host);
    const { place, pause, files } = value;
    const tasks = files.tasks.map(({ task }) => task.name);
    const now = { ...self, status: text, place, pause, tasks, faults: files.faults };
    if (JSON.stringify(now) !== written && isOurs) {
      written = JSON.stringify(now);
      manager.says(text);
      state.writeReport(now);
    }
    await known.past(change, { signal }).catch(() => undefined);
  }
}
