/** What happens in a soak, and when: all of it follows from the seed. Pure. */
import type { Part } from '../history/witness.ts';
import { random } from './random.ts';
import type { Random } from './random.ts';
import { AGENTS, GATES, groupSources, worldSources } from './sources.ts';

export interface SoakOptions {
  readonly seed: number;
  /** How long new things happen; the end, in which all comes to quiet, takes up to a minute more. */
  readonly minutes: number;
  /** Of the main group. */
  readonly nodes: number;
  /** Of each group. */
  readonly slots: number;
}

export interface GroupPlan {
  readonly name: string;
  readonly hold: 'forever' | 'none' | '5s';
  readonly slots: number;
  readonly nodes: readonly string[];
}

/** Which of those that are there it hits is only known when it happens; `pick`, from 0 to 1, then decides. */
export interface Target {
  readonly group: string;
  readonly whom: 'running' | 'waiting' | 'first';
  readonly pick: number;
}

export type Network =
  'slow' | 'slower' | 'drop-before' | 'drop-after' | 'cut' | 'late' | 'hang' | 'sever' | 'refuse';

/** How what `acquire` got ends: the work is killed in the middle and nothing is released, or it is. */
export type Halves = 'release' | 'crash';

export type Deed =
  /** `gate`: its way to Consul. `lengthMs`: when a command that waits to be told is told. */
  | {
      readonly kind: 'start';
      readonly group: string;
      readonly node: string;
      readonly gate: number;
      readonly part: Part;
      readonly lengthMs?: number;
      /** Acquires, works and releases, instead of exec. */
      readonly halves?: Halves;
      /** Even while the node's last run is still there. */
      readonly beside: boolean;
    }
  /** SIGKILL; `both`: runlock and its guard at once. The node stays away for `awayMs`, as a host that crashed. */
  | (Target & {
      readonly kind: 'kill';
      readonly who: 'runlock' | 'guard' | 'both';
      readonly awayMs: number;
    })
  /** SIGSTOP, and SIGCONT `forMs` later. */
  | (Target & { readonly kind: 'stop'; readonly who: 'runlock' | 'guard'; readonly forMs: number })
  /** A signal that asks runlock to end. */
  | (Target & { readonly kind: 'ask'; readonly signal: 'SIGTERM' | 'SIGINT' | 'SIGHUP' })
  | (Target & { readonly kind: 'destroy-session' })
  | { readonly kind: 'evict'; readonly group: string; readonly pick: number }
  /** An operator looks: claims in the way are cleared, or their nodes run again (`clears`: how many of ten). */
  | { readonly kind: 'operate'; readonly group: string; readonly clears: number }
  | { readonly kind: 'pause-agent'; readonly agent: number; readonly forMs: number }
  | { readonly kind: 'restart-agent'; readonly agent: number; readonly how: 'graceful' | 'kill' }
  | { readonly kind: 'pause-server'; readonly forMs: number }
  | {
      readonly kind: 'network';
      readonly gate: number;
      readonly how: Network;
      /** Which requests: those whose path starts so. */
      readonly path: string;
      readonly forMs: number;
    };

export type SoakEvent = Deed & { readonly atMs: number };

export interface SoakPlan {
  readonly options: SoakOptions;
  readonly groups: readonly GroupPlan[];
  /** Client agents. */
  readonly agents: number;
  /** Ways to Consul: first each agent itself, then proxies, in turn before each agent. */
  readonly gates: number;
  readonly lengthMs: number;
  readonly events: readonly SoakEvent[];
}

/** Nodes of a group whose hold ends: few, so that its slots are often free. */
const FEW = 12;
const MAIN = 'soak/forever';

export function planSoak(options: SoakOptions): SoakPlan {
  const lengthMs = options.minutes * 60_000;
  const { slots } = options;
  const groups: GroupPlan[] = [
    { name: MAIN, hold: 'forever', slots, nodes: names('web', options.nodes) },
    { name: 'soak/timed', hold: '5s', slots, nodes: names('db', FEW) },
    { name: 'soak/none', hold: 'none', slots, nodes: names('app', FEW) },
  ];
  const sources = [...groups.flatMap((group) => groupSources(group, lengthMs)), ...worldSources(lengthMs)];
  const events = sources.flatMap(({ purpose, meanMs, deed }) => {
    const chance = random(options.seed, purpose);
    const all: SoakEvent[] = [];
    for (let atMs = chance.gapMs(meanMs); atMs < lengthMs; atMs += chance.gapMs(meanMs))
      all.push({ atMs: Math.round(atMs), ...deed(chance) });
    return all;
  });
  const starts = groups.flatMap((group) => planStarts(options.seed, group, lengthMs));
  const inTime = [...starts, ...events].sort((a, b) => a.atMs - b.atMs);
  return { options, groups, agents: AGENTS, gates: GATES, lengthMs, events: inTime };
}

/** One event a line, with its time in seconds. */
export function describePlan({ events }: SoakPlan): string[] {
  return events.map(({ atMs, ...deed }) => `${(atMs / 1000).toFixed(3).padStart(9)} ${JSON.stringify(deed)}`);
}

const names = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, i) => `${prefix}${String(i + 1).padStart(3, '0')}`);

/** All nodes in a random order, again and again, so that all take part. */
function planStarts(seed: number, group: GroupPlan, lengthMs: number): SoakEvent[] {
  const isMain = group.name === MAIN;
  const chance = random(seed, `${group.name} starts`);
  const halves = random(seed, `${group.name} halves`);
  const meanMs = isMain ? Math.min(400, (lengthMs * 0.8) / group.nodes.length) : 3_000;
  const events: SoakEvent[] = [];
  let order: string[] = [];
  for (let atMs = 0; atMs < lengthMs; atMs += meanMs * (0.5 + chance.next())) {
    if (order.length === 0) order = chance.shuffled(group.nodes);
    const node = order.pop() ?? '';
    const gate = chance.chance(0.5) ? chance.whole(0, AGENTS - 1) : chance.whole(AGENTS, GATES - 1);
    const start = { group: group.name, node, gate, beside: chance.chance(0.1) };
    // Both are drawn, so that the one moves nothing of the other.
    const exec = planPart(chance, isMain, lengthMs);
    const how = planHalves(halves, group) ?? exec;
    events.push({ atMs: Math.round(atMs), kind: 'start', ...start, ...how });
  }
  return events;
}

/** Work in what is held is short where the hold ends: nothing but itself ends it. */
function planHalves(chance: Random, { hold }: GroupPlan): { part: Part; halves: Halves } | undefined {
  const isHalves = chance.chance(0.18);
  const crash = chance.chance(0.2);
  const beats = chance.whole(2, 30);
  const exitCode = chance.chance(0.1) ? chance.whole(1, 3) : 0;
  if (!isHalves || hold === 'none') return undefined;
  return { part: { beats, exitCode }, halves: crash ? 'crash' : 'release' };
}

/** In groups whose hold ends, some run long enough for each deadline to be met while they do. */
function planPart(
  chance: Random,
  isMain: boolean,
  lengthMs: number,
): { part: Part; lengthMs?: number; beside?: false } {
  const draw = chance.next();
  const long = lengthMs < 120_000 ? 100 : isMain ? 80 : draw < 0.96 ? 800 : 1_800;
  const isLong = draw > (isMain ? 0.95 : 0.85);
  const beats = isLong ? chance.whole(long / 4, long) : chance.whole(2, draw < 0.75 ? 12 : 30);
  const exitCode = chance.chance(0.05) ? chance.whole(1, 3) : 0;
  const deaf = chance.chance(0.08);
  const grandchild = chance.chance(0.06);
  const part: Part = { exitCode, ...(deaf && { deaf }), ...(grandchild && { grandchild }) };
  // A grandchild lives until it is told, and only one run of a node can be told at a time.
  if (grandchild) return { part, lengthMs: Math.min(beats, 100) * 50, beside: false };
  return { part: { ...part, beats } };
}
