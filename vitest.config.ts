import { defineConfig } from 'vitest/config';

const globalSetup = ['test/support/provision-setup.ts'];

export default defineConfig({
  test: {
    // Every test starts processes of its own; two files at a time is what a two-core machine carries.
    maxWorkers: 2,
    reporters: ['default', ['json', { outputFile: 'build/test-results.json' }]],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      { extends: true, test: { name: 'model', include: ['test/model/**/*.test.ts'] } },
      { extends: true, test: { name: 'real', include: ['test/{contract,cli}/**/*.test.ts'], globalSetup } },
      // Most of a fault's time is waiting for a TTL or a hold to end.
      {
        extends: true,
        test: { name: 'faults', include: ['test/faults/**/*.test.ts'], globalSetup, maxConcurrency: 8 },
      },
    ],
  },
});
