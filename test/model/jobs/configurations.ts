// Small jobs, each with faults of some kinds: together they are what every change of a job's transactions is tried on.
import { noFaults } from './world.ts';
import type { Faults, World } from './world.ts';

export interface Shape {
  /** How many targets each stage has. */
  readonly stages: readonly number[];
  readonly maxFailures?: number;
  readonly faults?: Partial<Faults>;
  /** Time stands still. */
  readonly still?: true;
  /** With its starter; else the job is ready. */
  readonly created?: true;
  readonly double?: true;
}

export const toWorld = ({ stages, maxFailures = 0, faults, still, created, double }: Shape): World => ({
  ...{ stages, maxFailures, faults: { ...noFaults, ...faults } },
  ...{ expires: !still, fromReady: !created, double: double === true },
});

export const configurations = {
  deaths: { stages: [1, 1], still: true, faults: { agentDies: 1, kill: 1, expire: 1, late: 1 } },
  cancelled: { stages: [1, 1], still: true, faults: { kill: 1, late: 1, cancel: 1 } },
  expired: { stages: [1, 1], faults: { late: 1, kill: 1 } },
  others: { stages: [1, 1, 1], faults: { refuse: 1, offline: 1 } },
  two: { stages: [2, 1], maxFailures: 1, still: true, faults: { late: 1 } },
  late: { stages: [1], maxFailures: 1, faults: { late: 2, cancel: 1 } },
  edited: { stages: [1], still: true, faults: { edit: 1, late: 1 } },
  'empty stage': { stages: [1, 0, 1], still: true },
  retried: { stages: [2], maxFailures: 1, still: true, faults: { kill: 1 } },
  written: { stages: [1, 1], created: true, still: true, faults: { starterDies: 1, startAgain: 1, late: 1 } },
  'written, cancelled': { stages: [1, 1], created: true, still: true, faults: { late: 1, cancel: 1 } },
  restored: { stages: [1], faults: { kill: 1, late: 1, cancel: 1, restore: 1 }, still: true },
  'restored, written': { stages: [1], created: true, still: true, faults: { restore: 1, late: 1 } },
} as const satisfies Record<string, Shape>;

/** Too large for every change: `npm run model -- --jobs` visits them as well. */
export const larger = {
  'deaths, time': {
    ...{ stages: [1, 1], faults: { agentDies: 1, kill: 1, expire: 1, late: 1, cancel: 1, hostDies: 1 } },
  },
  'three of two stages': {
    ...{
      stages: [1, 2],
      maxFailures: 1,
      faults: { agentDies: 1, kill: 1, hostDies: 1, expire: 1, cancel: 1 },
    },
  },
  'late twice': { stages: [1, 1], maxFailures: 1, faults: { late: 2, cancel: 1, expire: 1 } },
  'two runs at once': { stages: [1], double: true, faults: { late: 2, kill: 1, agentDies: 1 } },
  'restored, two': { stages: [1, 1], still: true, faults: { late: 1, restore: 1, cancel: 1 } },
  'restored, killed': { stages: [1], faults: { kill: 1, agentDies: 1, late: 1, cancel: 1, restore: 1 } },
  'written, all': {
    ...{ stages: [1, 1], created: true },
    faults: { starterDies: 1, startAgain: 1, agentDies: 1, kill: 1, late: 1, cancel: 1 },
  },
} as const satisfies Record<string, Shape>;

export type ConfigurationName = keyof typeof configurations;
