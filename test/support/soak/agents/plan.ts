/** What happens to 30 agents and their jobs in a soak, and when: all of it follows from the seed. Pure. */
import type { Trouble } from '../faults.ts';
import { random } from '../random.ts';
import type { Random } from '../random.ts';
import { AGENTS, GATES, worldSources } from '../sources.ts';
import { ROLES, nodesOf, planNodes } from './nodes.ts';
import type { NodePlan, Role } from './nodes.ts';

export interface AgentsOptions {
  readonly seed: number;
  /** How long new things happen. */
  readonly minutes: number;
  readonly nodes: number;
}

/** A request that somebody makes. */
export interface JobPlan {
  readonly principal: 'ops' | 'ci';
  readonly id: string;
  readonly role: Role;
  readonly nodes: readonly string[];
  readonly task: 'deploy' | 'patch';
  /** Of 100 ms. */
  readonly beats: number;
  readonly code: number;
  /** Of the request. */
  readonly expiresMs: number;
  /** Of the command. */
  readonly timeoutMs?: number;
  /** Its parameter is one that no node's file allows. */
  readonly isUnfit: boolean;
  readonly watch: boolean;
}

export type AgentsDeed =
  | Trouble
  | { readonly kind: 'job'; readonly job: JobPlan; readonly gate: number }
  /** `pick`, from 0 to 1, decides among those that are open then. */
  | { readonly kind: 'start-again'; readonly pick: number }
  | { readonly kind: 'cancel'; readonly pick: number; readonly kill: boolean }
  | { readonly kind: 'watch'; readonly pick: number; readonly gate: number }
  /** The node's task files are written anew: its runs publish this from then on. */
  | { readonly kind: 'rewrite'; readonly node: string; readonly value: string }
  | { readonly kind: 'input'; readonly path: string; readonly value: string }
  | { readonly kind: 'door'; readonly isOpen: boolean }
  /** The next run of this task fails. */
  | { readonly kind: 'spoil'; readonly node: string; readonly task: 'react' }
  /** Somebody runs the node's task by hand, beside its agent. */
  | {
      readonly kind: 'by-hand';
      readonly node: string;
      readonly task: 'deploy' | 'patch';
      readonly beats: number;
    }
  | {
      readonly kind: 'end-agent';
      readonly node: string;
      readonly signal: 'SIGKILL' | 'SIGTERM';
      readonly awayMs: number;
    }
  | { readonly kind: 'stop-agent'; readonly node: string; readonly forMs: number }
  | { readonly kind: 'kill-run'; readonly pick: number; readonly who: 'runlock' | 'guard' | 'both' }
  | {
      readonly kind: 'stop-run';
      readonly pick: number;
      readonly who: 'runlock' | 'guard';
      readonly forMs: number;
    }
  | { readonly kind: 'destroy-session'; readonly pick: number }
  | { readonly kind: 'pause'; readonly node: string; readonly forMs: number }
  /** All processes of the node are gone at once, and its boot is another then. A node that asked for it comes first. */
  | { readonly kind: 'reboot'; readonly node: string; readonly awayMs: number }
  | { readonly kind: 'operate' };

export type AgentsEvent = AgentsDeed & { readonly atMs: number };

export interface AgentsPlan {
  readonly options: AgentsOptions;
  readonly nodes: readonly NodePlan[];
  readonly agents: number;
  readonly gates: number;
  readonly lengthMs: number;
  readonly events: readonly AgentsEvent[];
}

export function planAgents(options: AgentsOptions): AgentsPlan {
  const lengthMs = options.minutes * 60_000;
  const nodes = planNodes(options.nodes);
  const sources: readonly Source[] = [
    ...worldSources(lengthMs).map((each) => ({
      ...each,
      deed: (chance: Random) => toTrouble(each.deed(chance)),
    })),
    ...requestSources(nodes, lengthMs),
    ...agentSources(nodes, lengthMs),
  ];
  const events = sources.flatMap(({ purpose, meanMs, deed }) => {
    const chance = random(options.seed, `agents: ${purpose}`);
    const all: AgentsEvent[] = [];
    for (let atMs = chance.gapMs(meanMs); atMs < lengthMs; atMs += chance.gapMs(meanMs)) {
      const next = deed(chance, all.length);
      if (next) all.push({ atMs: Math.round(atMs), ...next });
    }
    return all;
  });
  const inTime = events.sort((a, b) => a.atMs - b.atMs);
  return { options, nodes, agents: AGENTS, gates: GATES, lengthMs, events: inTime };
}

interface Source {
  readonly purpose: string;
  readonly meanMs: number;
  readonly deed: (chance: Random, count: number) => AgentsDeed | undefined;
}

const TROUBLES = ['pause-server', 'pause-agent', 'restart-agent', 'network'];
const toTrouble = (deed: { readonly kind: string }) =>
  TROUBLES.includes(deed.kind) ? (deed as Trouble) : undefined;

const someGate = (chance: Random) =>
  chance.chance(0.5) ? chance.whole(0, AGENTS - 1) : chance.whole(AGENTS, GATES - 1);

/** What people and other programs do. */
function requestSources(nodes: readonly NodePlan[], lengthMs: number): Source[] {
  const isShort = lengthMs < 120_000;
  const node = (chance: Random) => chance.shuffled(nodes)[0]?.name ?? '';
  return [
    {
      purpose: 'jobs',
      meanMs: isShort ? 1_200 : 2_500,
      deed: (chance, count) => ({ kind: 'job', job: planJob(chance, nodes, count), gate: someGate(chance) }),
    },
    { purpose: 'again', meanMs: 20_000, deed: (chance) => ({ kind: 'start-again', pick: chance.next() }) },
    {
      purpose: 'cancels',
      meanMs: isShort ? 5_000 : 12_000,
      deed: (chance) => ({ kind: 'cancel', pick: chance.next(), kill: chance.chance(0.5) }),
    },
    {
      purpose: 'watches',
      meanMs: 15_000,
      deed: (chance) => ({ kind: 'watch', pick: chance.next(), gate: someGate(chance) }),
    },
    {
      purpose: 'files',
      meanMs: isShort ? 500 : 1_500,
      deed: (chance, count) => ({ kind: 'rewrite', node: node(chance), value: `v${count + 1}` }),
    },
    {
      purpose: 'inputs',
      meanMs: isShort ? 1_500 : 5_000,
      deed: (chance, count) => ({ kind: 'input', path: `soak/in/${chance.whole(0, 1)}`, value: `i${count}` }),
    },
    {
      purpose: 'door',
      meanMs: 8_000,
      deed: (chance) => ({ kind: 'door', isOpen: chance.chance(0.7) }),
    },
    {
      purpose: 'spoils',
      meanMs: isShort ? 8_000 : 20_000,
      deed: (chance) => ({ kind: 'spoil', node: node(chance), task: 'react' }),
    },
    {
      purpose: 'by hand',
      meanMs: isShort ? 2_000 : 5_000,
      deed: (chance) => ({
        kind: 'by-hand',
        node: node(chance),
        task: chance.one(['deploy', 'patch', 'patch']),
        beats: chance.whole(5, 30),
      }),
    },
    { purpose: 'operators', meanMs: 4_000, deed: () => ({ kind: 'operate' }) },
  ];
}

function planJob(chance: Random, nodes: readonly NodePlan[], count: number): JobPlan {
  const role = chance.one(['a', 'a', ...ROLES]);
  const isPatch = chance.chance(0.25);
  const wanted = chance.whole(1, 3);
  const beats = chance.chance(0.1) ? chance.whole(40, 120) : chance.whole(1, 15);
  const fails = chance.chance(0.12);
  const isHasty = chance.chance(0.15);
  const isTimed = chance.chance(0.1);
  return {
    principal: chance.one(['ops', 'ci']),
    id: `j${count + 1}`,
    role,
    nodes: chance
      .shuffled(nodesOf(nodes, role))
      .slice(0, wanted)
      .map(({ name }) => name),
    task: isPatch ? 'patch' : 'deploy',
    beats,
    code: isPatch && !fails ? 194 : fails ? chance.whole(1, 3) : 0,
    expiresMs: isHasty ? chance.whole(2_000, 6_000) : chance.whole(30_000, 90_000),
    ...(isTimed && { timeoutMs: chance.whole(500, 3_000) }),
    isUnfit: chance.chance(0.05),
    watch: chance.chance(0.3),
  };
}

/** What happens to agents, and to the runs that they start. */
function agentSources(nodes: readonly NodePlan[], lengthMs: number): Source[] {
  const isShort = lengthMs < 120_000;
  const node = (chance: Random) => chance.shuffled(nodes)[0]?.name ?? '';
  const often = (ms: number) => (isShort ? ms / 3 : ms);
  return [
    {
      purpose: 'ends of agents',
      meanMs: often(6_000),
      deed: (chance) => ({
        kind: 'end-agent',
        node: node(chance),
        signal: chance.one(['SIGKILL', 'SIGKILL', 'SIGTERM']),
        awayMs: chance.chance(0.6) ? chance.whole(0, 500) : chance.whole(1_000, isShort ? 3_000 : 30_000),
      }),
    },
    {
      purpose: 'stops of agents',
      meanMs: often(9_000),
      deed: (chance) => ({
        kind: 'stop-agent',
        node: node(chance),
        forMs: chance.chance(0.2) && !isShort ? chance.whole(20_000, 40_000) : chance.whole(100, 6_000),
      }),
    },
    {
      purpose: 'kills of runs',
      meanMs: often(6_000),
      deed: (chance) => ({
        kind: 'kill-run',
        pick: chance.next(),
        who: chance.one(['runlock', 'runlock', 'guard', 'both']),
      }),
    },
    {
      purpose: 'stops of runs',
      meanMs: often(9_000),
      deed: (chance) => ({
        kind: 'stop-run',
        pick: chance.next(),
        who: chance.one(['runlock', 'runlock', 'guard']),
        forMs: chance.chance(0.1) && !isShort ? chance.whole(20_000, 40_000) : chance.whole(100, 6_000),
      }),
    },
    {
      purpose: 'sessions',
      meanMs: often(6_000),
      deed: (chance) => ({ kind: 'destroy-session', pick: chance.next() }),
    },
    {
      purpose: 'pauses',
      meanMs: often(15_000),
      deed: (chance) => ({ kind: 'pause', node: node(chance), forMs: chance.whole(1_000, 15_000) }),
    },
    {
      purpose: 'reboots',
      meanMs: often(12_000),
      deed: (chance) => ({
        kind: 'reboot',
        node: node(chance),
        awayMs: chance.whole(0, isShort ? 1_000 : 8_000),
      }),
    },
  ];
}

/** One event a line, with its time in seconds. */
export const describeAgentsPlan = ({ events }: AgentsPlan): string[] =>
  events.map(({ atMs, ...deed }) => `${(atMs / 1000).toFixed(3).padStart(9)} ${JSON.stringify(deed)}`);
