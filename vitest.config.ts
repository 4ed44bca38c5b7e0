import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { BaseSequencer } from 'vitest/node';
import type { TestSpecification } from 'vitest/node';

/** Through what npm installs: what depends on the runtime most, streams, signals, terminals, exits and memory. */
const NPM = [
  ...['doctor', 'exit-codes', 'history', 'inherited', 'interactive', 'metrics', 'not-started'],
  ...['output', 'quickstart', 'signals', 'status-watch', 'streams', 'tools-terminal', 'words-and-folder'],
];

/** They wait for elections, TTLs and holds. Started last, each would have the machine to itself for a minute or two. */
const LONGEST = ['cluster', 'agent', 'snapshot', 'vanished', 'mid-run'].map(
  (name) => `test/faults/${name}.test.ts`,
);

const CLOCK = 'test/faults/clock.test.ts';

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const place = LONGEST.findIndex((file) => moduleId.endsWith(file));
      return place === -1 ? LONGEST.length : place;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

const globalSetup = ['test/support/provision-setup.ts'];
/** There a dozen processes a test, of 32 tests at once, keep each other waiting for longer than a request may take. */
const hasFewCores = availableParallelism() <= 2;

export default defineConfig({
  test: {
    reporters: ['default', ['json', { outputFile: 'build/test-results.json' }]],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    sequence: { sequencer: LongestFirst },
    // What a test starts by itself: this host's own file says nothing about what is tested (test/support/program.ts).
    env: { RUNLOCK_CONFIG: '/dev/null' },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'model',
          include: ['test/model/**/*.test.ts'],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        // Every test starts processes of its own, and waits for them; three files at a time is what two cores carry.
        test: {
          name: 'real',
          include: ['test/{contract,cli,packaging}/**/*.test.ts'],
          globalSetup,
          maxWorkers: hasFewCores ? 3 : 4,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'npm',
          include: NPM.map((name) => `test/cli/${name}.test.ts`),
          env: { RUNLOCK_BIN: 'bin/runlock.js' },
          globalSetup,
          maxWorkers: 3,
          sequence: { groupOrder: 3 },
        },
      },
      {
        extends: true,
        // A second time, through what answers as newer versions of Consul do (test/support/newer-consul.ts).
        test: {
          name: 'newer',
          include: ['test/contract/**/*.test.ts'],
          exclude: ['test/contract/support*.test.ts', 'test/contract/newer-consul.test.ts'],
          env: { RUNLOCK_TEST_CONSUL: 'newer' },
          globalSetup,
          maxWorkers: 3,
          sequence: { groupOrder: 5 },
        },
      },
      {
        extends: true,
        // Most of a fault's time is waiting for a TTL or a hold to end.
        test: {
          name: 'faults',
          include: ['test/faults/**/*.test.ts'],
          exclude: [CLOCK],
          globalSetup,
          maxWorkers: 5,
          maxConcurrency: hasFewCores ? 6 : 8,
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        // What measures how long something takes has the machine to itself; so has what must renew its session in time while
        // its clock jumps: among five files of faults it is kept from that for longer than Consul waits.
        test: {
          name: 'alone',
          include: ['test/alone/**/*.test.ts', CLOCK],
          globalSetup,
          maxWorkers: 1,
          sequence: { groupOrder: 4 },
        },
      },
    ],
  },
});
