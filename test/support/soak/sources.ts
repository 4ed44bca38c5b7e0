/** Which faults a plan has, and how often. Pure. */
import type { Deed, GroupPlan, Network, Target } from './plan.ts';
import type { Random } from './random.ts';

/** Client agents, and ways to Consul: the agents themselves, then proxies. */
export const AGENTS = 2;
export const GATES = 6;

/** Something that happens again and again, on average every `meanMs`. */
export interface Source {
  readonly purpose: string;
  readonly meanMs: number;
  readonly deed: (chance: Random) => Deed;
}

export function groupSources({ name: group, hold }: GroupPlan, lengthMs: number): Source[] {
  const isMain = hold === 'forever';
  const every = (kind: string, meanMs: number, deed: Source['deed']): Source => ({
    purpose: `${group} ${kind}`,
    meanMs,
    deed,
  });
  const target = (chance: Random, running = 0.5): Target => ({
    group,
    whom: chance.chance(running) ? 'running' : chance.one(['waiting', 'first']),
    pick: chance.next(),
  });
  // A run that is stopped keeps its slot: where many wait, that is a long time for all.
  const long = lengthMs < 120_000 ? 0 : isMain ? 0.05 : 0.25;
  return [
    every('kill', isMain ? 3_000 : 12_000, (chance) => ({
      kind: 'kill',
      // The ticket of one that is killed while it waits stops all behind it for as long as its session lives.
      ...target(chance, isMain ? 0.96 : 0.9),
      // Where others may follow, nobody is left without both to keep a command from living on.
      who: chance.one(isMain ? ['runlock', 'guard', 'both'] : ['runlock', 'guard']),
      awayMs: !isMain && chance.chance(0.7) ? 100_000 : 0,
    })),
    every('stop', isMain ? 4_000 : 12_000, (chance) => planStop(chance, target(chance, 0.9), long)),
    every('ask', 12_000, (chance) => ({
      kind: 'ask',
      ...target(chance),
      signal: chance.one(['SIGTERM', 'SIGTERM', 'SIGINT', 'SIGHUP']),
    })),
    every('session', isMain ? 5_000 : 12_000, (chance) => ({ kind: 'destroy-session', ...target(chance) })),
    every('evict', 20_000, (chance) => ({ kind: 'evict', group, pick: chance.next() })),
    every('operate', isMain ? 2_500 : 20_000, (chance) => ({
      kind: 'operate',
      group,
      clears: chance.whole(0, isMain ? 10 : 4),
    })),
  ];
}

/** Longer than the guard's patience with a silent runlock, but for a guard never so long that others may follow. */
function planStop(chance: Random, target: Target, howOftenLong: number): Deed {
  const isLong = chance.chance(howOftenLong);
  const who = chance.one(['runlock', 'runlock', 'guard']);
  const longMs = who === 'guard' ? chance.whole(10_000, 20_000) : chance.whole(33_000, 45_000);
  return { kind: 'stop', ...target, who, forMs: isLong ? longMs : chance.whole(100, 8_000) };
}

export function worldSources(lengthMs: number): Source[] {
  return [
    { purpose: 'agents', meanMs: 20_000, deed: (chance) => planAgentFault(chance, lengthMs) },
    {
      purpose: 'server',
      meanMs: 40_000,
      deed: (chance) => ({ kind: 'pause-server', forMs: chance.whole(500, 6_000) }),
    },
    {
      purpose: 'network',
      meanMs: 2_500,
      deed: planNetwork,
    },
  ];
}

const NETWORKS: readonly [Network, ...Network[]] = [
  'slow',
  'slower',
  'drop-before',
  'drop-after',
  'drop-after',
  'cut',
  'late',
  'hang',
  'sever',
  'refuse',
];
/** Everything, transactions, reads, sessions. */
const PATHS: readonly [string, ...string[]] = ['/', '/', '/v1/txn', '/v1/txn', '/v1/kv', '/v1/session'];
/** Where a late arrival does something. */
const CHANGES: readonly [string, ...string[]] = ['/v1/txn', '/v1/txn', '/v1/session'];

function planNetwork(chance: Random): Deed {
  const how = chance.one(NETWORKS);
  return {
    kind: 'network',
    gate: chance.whole(AGENTS, GATES - 1),
    how,
    path: chance.one(how === 'late' ? CHANGES : PATHS),
    forMs: Math.min(30_000, Math.round(200 + chance.gapMs(2_000))),
  };
}

/** A pause: short, longer than a session lives, and longer than a run whose hold ends may go on. */
function planAgentFault(chance: Random, lengthMs: number): Deed {
  const agent = chance.whole(0, AGENTS - 1);
  if (chance.chance(0.5))
    return { kind: 'restart-agent', agent, how: chance.one(['graceful', 'kill', 'kill']) };
  const draw = chance.next();
  const pause = (least: number, most: number): Deed => ({
    kind: 'pause-agent',
    agent,
    forMs: chance.whole(least, most),
  });
  if (draw < 0.08 && lengthMs >= 240_000) return pause(62_000, 75_000);
  if (draw < 0.25 && lengthMs >= 120_000) return pause(21_000, 30_000);
  return pause(500, 8_000);
}
