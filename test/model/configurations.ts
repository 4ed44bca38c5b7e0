/** Small worlds, each with the faults of one kind: together they are what every change of the protocol is tried on. */
import type { Hold } from '../../src/lock/records.ts';
import { noFaults } from './world.ts';
import type { Faults, Kept, World } from './world.ts';

export interface Shape {
  /** One process each; two of the same name are two runs of one node. */
  readonly nodes: readonly string[];
  /** Which of the processes acquire and release, instead of exec, by their numbers. */
  readonly acquires?: readonly number[];
  /** Which of the processes publish a state, show one meanwhile, and start under one. */
  readonly publishes?: readonly number[];
  /** Which of those do so in two groups. */
  readonly second?: readonly number[];
  readonly hold?: Hold;
  /** Claims that earlier runs left, with the same hold. */
  readonly kept?: readonly Omit<Kept, 'hold'>[];
  /** N: of all, or of each process. */
  readonly slots?: number | readonly number[];
  /** How often each process starts; the first of them, where there are two numbers. */
  readonly runs?: number | readonly [first: number, others: number];
  /** 0: time stands still. */
  readonly tickMs?: number;
  /** How far each host's wall clock is ahead of the one before. */
  readonly aheadMs?: number;
  readonly faults?: Partial<Faults>;
  /** The machine of each process; one for all unless given. Two nodes of one name on two are two hosts that share it. */
  readonly machines?: readonly string[];
  readonly trusting?: boolean;
  /** Promise 1 is not asked for: a hand has taken away all that it rests on. */
  readonly mayOverlap?: boolean;
  readonly records?: boolean;
}

export function toWorld(shape: Shape): World {
  const {
    nodes,
    acquires = [],
    publishes = [],
    second = [],
    hold = 'forever',
    slots = 1,
    runs = 1,
    tickMs = 0,
    aheadMs = 0,
    trusting,
    mayOverlap,
    records,
    kept,
    machines,
  } = shape;
  return {
    processes: nodes.map((node, i) => ({
      ...{ node, hold, runs: runsOf(runs, i), aheadMs: i * aheadMs },
      slots: typeof slots === 'number' ? slots : (slots[i] ?? 1),
      ...(acquires.includes(i) && { acquires: true }),
      ...(publishes.includes(i) && { publishes: true }),
      ...(second.includes(i) && { second: true }),
      ...(machines?.[i] !== undefined && { machine: machines[i] }),
    })),
    faults: { ...noFaults, ...shape.faults },
    tickMs,
    ...(kept && { kept: kept.map((claim) => ({ ...claim, hold })) }),
    ...(trusting && { trusting }),
    ...(mayOverlap && { mayOverlap }),
    ...(records && { records }),
  };
}

const runsOf = (runs: NonNullable<Shape['runs']>, i: number): number =>
  typeof runs === 'number' ? runs : (runs[i] ?? runs[1]);

const two = ['n0', 'n1'];
const three = ['n0', 'n1', 'n2'];
/** 60 s, after which a run without a lock is believed dead, are two ticks; a hold of 30 s is one more. */
const timed = { tickMs: 30_000, aheadMs: 5_000 };

const failed = (node: string, slot: number) => ({ node, slot, state: 'failed' }) as const;

export const configurations = {
  sessions: { nodes: two, faults: { expire: 1, lose: 1 } },
  leaving: { nodes: two, faults: { leave: 1, expire: 1, late: 1 } },
  late: { nodes: two, faults: { lose: 1, late: 1, expire: 1 } },
  failures: { nodes: two, faults: { fail: 1, crash: 1, expire: 1 } },
  returns: { nodes: two, runs: [2, 1], faults: { fail: 2 } },
  stopped: { nodes: two, runs: [2, 1], faults: { stop: 1, lose: 1 } },
  'stopped, finite': { nodes: two, runs: [2, 1], hold: 30_000, tickMs: 60_000, faults: { stop: 2 } },
  'stopped, cleared': { nodes: two, faults: { stop: 1, clear: 1, late: 1 } },
  clearing: { nodes: two, runs: [2, 1], faults: { fail: 1, clear: 1, expire: 1 } },
  'returns, finite': { nodes: two, runs: [2, 1], hold: 30_000, tickMs: 60_000, faults: { fail: 2 } },
  order: { nodes: three, faults: { expire: 1 } },
  'same node': { nodes: ['n0', 'n0'], faults: { expire: 1, crash: 1 } },
  'same node, late': { nodes: ['n0', 'n0'], faults: { expire: 1, late: 1 } },
  // A run whose claim was cleared is recorded when the node's next run has ended.
  'same node, recorded': { nodes: ['n0', 'n0'], records: true, faults: { expire: 1, late: 1 } },
  evictions: { nodes: two, faults: { evict: 1, expire: 1 } },
  operators: { nodes: two, faults: { clear: 1, expire: 1, fail: 1 } },
  'claim deleted': { nodes: two, faults: { deleteClaim: 1, fail: 1 } },
  'claim deleted, unanswered': { nodes: two, faults: { deleteClaim: 1, lose: 1, late: 1 } },
  'claim and lock deleted': {
    nodes: two,
    faults: { deleteClaim: 1, deleteLock: 1, fail: 1 },
    mayOverlap: true,
  },
  'lock deleted': { nodes: two, faults: { deleteLock: 1, clear: 1 } },
  freeze: { nodes: two, faults: { freeze: 2, fail: 1 } },
  'freeze, finite': { nodes: two, hold: 30_000, tickMs: 30_000, faults: { freeze: 1, fail: 1 } },
  'freeze, return': { nodes: ['n0'], runs: 2, faults: { freeze: 1, fail: 1 } },
  'freeze, twice': { nodes: ['n0'], faults: { freeze: 2, late: 1 } },
  'two slots, late': { nodes: two, slots: 2, faults: { expire: 1, late: 1 } },
  abandoned: { nodes: two, tickMs: 60_000, faults: { expire: 1, fail: 1 } },
  none: { nodes: two, hold: 'none', ...timed, faults: { expire: 1 } },
  // Nobody stays in the queue for 60 s: who looks later goes by the mark.
  'none, leaving': {
    nodes: two,
    runs: [1, 2],
    hold: 'none',
    tickMs: 60_000,
    faults: { expire: 1, leave: 1 },
  },
  'none, late': { nodes: two, hold: 'none', tickMs: 60_000, faults: { late: 1, expire: 1 } },
  finite: { nodes: two, hold: 30_000, ...timed, tickMs: 60_000, faults: { expire: 1 } },
  stray: { nodes: two, tickMs: 60_000, faults: { expire: 1, strayLock: 1, clear: 1 } },
  'two slots': { nodes: three, slots: 2, faults: { expire: 1 } },
  'two slots, none': { nodes: two, slots: 2, hold: 'none', ...timed, tickMs: 60_000, faults: { expire: 1 } },
  'held, late': { nodes: two, acquires: [0], faults: { late: 1, expire: 1, fail: 1 } },
  'held, end': { nodes: two, acquires: [0], faults: { late: 1, crash: 1, fail: 1 } },
  'held, leaving': { nodes: two, acquires: [0], faults: { leave: 1, late: 1 } },
  'held, returns': { nodes: two, acquires: [0], runs: [2, 1], faults: { fail: 1, leave: 1 } },
  'held, again': { nodes: two, acquires: [0], faults: { clear: 1, crash: 1 } },
  'held, evicted': { nodes: two, acquires: [0], faults: { evict: 1, lose: 1 } },
  'held, lock deleted': { nodes: two, acquires: [0], faults: { deleteLock: 1 } },
  'held, same node': { nodes: ['n0', 'n0'], acquires: [0], faults: { crash: 1 } },
  'held, finite': { nodes: two, acquires: [0], hold: 30_000, tickMs: 60_000 },
  'held, abandoned': { nodes: two, acquires: [0], tickMs: 60_000, faults: { expire: 1 } },
  'held, stray': { nodes: two, acquires: [0], faults: { strayLock: 1, clear: 1 } },
  'held, frozen': { nodes: ['n0'], acquires: [0], faults: { freeze: 1, again: 1 } },
  // Two hosts with one node name.
  namesakes: { nodes: ['n0', 'n0'], machines: ['a', 'b'], faults: { expire: 1, fail: 1, crash: 1 } },
  'namesakes, late': { nodes: ['n0', 'n0'], machines: ['a', 'b'], faults: { expire: 1, late: 1, lose: 1 } },
  'namesakes, held': { nodes: ['n0', 'n0'], machines: ['a', 'b'], acquires: [0, 1], faults: { crash: 1 } },
  'namesakes, none': {
    ...{ nodes: ['n0', 'n0'], machines: ['a', 'b'], hold: 'none', ...timed },
    ...{ runs: [1, 3], faults: { expire: 1 } },
  },
  // Nodes whose claims stand higher than their own N is now, and others that come with a larger one.
  down: { nodes: two, slots: [2, 1], kept: [failed('n1', 1)], faults: { expire: 1, fail: 1 } },
  'down, late': { nodes: two, slots: [2, 1], kept: [failed('n1', 1)], faults: { lose: 1, late: 1 } },
  'down, both': { nodes: two, kept: [failed('n0', 1), failed('n1', 2)], faults: { fail: 1 } },
  'down, freeze': { nodes: ['n0'], kept: [failed('n0', 1)], faults: { freeze: 1 } },
  'down, same node': { nodes: ['n0', 'n0'], slots: [2, 1], kept: [failed('n0', 1)], faults: { crash: 1 } },
  'down, same node, expired': {
    ...{ nodes: ['n0', 'n0'], slots: [2, 1], kept: [failed('n0', 1)] },
    faults: { crash: 1, expire: 1 },
  },
  'down, operators': { nodes: two, kept: [failed('n0', 1)], faults: { clear: 1, evict: 1 } },
  'down, stray': { nodes: ['n0'], kept: [failed('n0', 1)], faults: { strayLock: 1, clear: 1 } },
  'down, leaving': { nodes: two, kept: [failed('n0', 1)], faults: { leave: 1, late: 1 } },
  'down, cleared': { nodes: three, slots: [1, 2, 2], kept: [failed('n0', 1)], faults: { fail: 1 } },
  'down, finite': {
    ...{ nodes: two, kept: [failed('n0', 1), failed('n1', 0)], hold: 30_000, tickMs: 60_000 },
  },
  'smaller N': { nodes: three, slots: [1, 2, 2], faults: { fail: 1 } },
  'smaller N, kept': { nodes: two, slots: [1, 2], kept: [failed('n1', 1)], faults: { expire: 1 } },
  'smaller N, finite': {
    ...{ nodes: two, slots: [1, 2], kept: [failed('n1', 1)], hold: 30_000, tickMs: 60_000 },
    faults: { expire: 1 },
  },
  'smaller N, vanished': {
    ...{ nodes: two, slots: [1, 2], kept: [{ ...failed('n1', 1), state: 'running' }], tickMs: 60_000 },
    ...{ hold: 'none', faults: { strayLock: 1 } },
  },
  // Runs that publish, show something meanwhile, and start under a condition. Their records tell whether they were good.
  publish: { nodes: two, publishes: [0], records: true, faults: { expire: 1, lose: 1, late: 1 } },
  'publish, operators': {
    ...{ nodes: two, publishes: [0], records: true },
    faults: { evict: 1, clear: 1, lose: 1 },
  },
  'publish, returns': {
    ...{ nodes: ['n0'], runs: 2, publishes: [0], records: true },
    faults: { fail: 1, crash: 1, change: 1, lose: 1, leave: 1 },
  },
  'publish, two groups': {
    ...{ nodes: ['n0'], publishes: [0], second: [0], records: true },
    faults: { second: 1, expire: 1, lose: 1, late: 1 },
  },
  'publish, two groups, killed': {
    ...{ nodes: ['n0'], publishes: [0], second: [0], records: true },
    faults: { second: 1, lose: 1, crash: 1, change: 1 },
  },
  // Others take the slot over while its run is stopped before its command, or after it.
  'publish, taken over': {
    ...{ nodes: two, publishes: [0], records: true, hold: 30_000, tickMs: 60_000 },
    faults: { expire: 1 },
  },
  // A claim that stays, comes back and ends by its hold.
  'publish, hold': {
    ...{ nodes: two, runs: [2, 1], publishes: [0], records: true, hold: 30_000, tickMs: 60_000 },
    faults: { fail: 1 },
  },
  'publish, both': { nodes: two, publishes: [0, 1], records: true, faults: { change: 1, lose: 1 } },
} as const satisfies Record<string, Shape>;

/** Too large for every change: `npm run model -- --all` visits them as well. */
export const larger = {
  'held, lost': { nodes: two, acquires: [0], faults: { expire: 1, lose: 1, late: 1 } },
  'held, both': { nodes: two, acquires: [0, 1], faults: { expire: 1, crash: 1, fail: 1 } },
  'held, late end': { nodes: two, acquires: [0], runs: [2, 1], faults: { late: 1, lose: 1 } },
  'held, again, late': { nodes: two, acquires: [0], faults: { again: 1, clear: 1, crash: 1, late: 1 } },
  'held, same node, late': { nodes: ['n0', 'n0'], acquires: [0], faults: { expire: 1, crash: 1, late: 1 } },
  'held, finite, again': {
    ...{ nodes: two, acquires: [0], hold: 60_000, ...timed },
    faults: { again: 1, lose: 1 },
  },
  'namesakes, finite': {
    ...{ nodes: ['n0', 'n0'], machines: ['a', 'b'], hold: 30_000, ...timed, tickMs: 60_000 },
    ...{ runs: [1, 3], faults: { expire: 1 } },
  },
  'publish, finite': {
    ...{ nodes: two, runs: [2, 1], publishes: [0], records: true, hold: 30_000, tickMs: 60_000 },
    faults: { fail: 1, expire: 1 },
  },
  'publish, two groups, crash': {
    ...{ nodes: ['n0'], publishes: [0], second: [0], records: true },
    faults: { second: 1, expire: 1, lose: 1, late: 1, crash: 1, leave: 1 },
  },
  'publish, two groups, others': {
    ...{ nodes: two, publishes: [0], second: [0], records: true },
    faults: { second: 1, expire: 1, lose: 1 },
  },
  'held, two slots': { nodes: three, acquires: [0, 1], slots: 2, faults: { crash: 1 } },
} as const satisfies Record<string, Shape>;

export type ConfigurationName = keyof typeof configurations;
