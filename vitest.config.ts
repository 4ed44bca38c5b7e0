import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // Every test starts processes of its own; two files at a time is what a two-core machine carries.
    maxWorkers: 2,
    reporters: ['default', ['json', { outputFile: 'build/test-results.json' }]],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    projects: [
      { extends: true, test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      {
        extends: true,
        test: {
          name: 'real',
          include: ['test/{contract,cli,faults}/**/*.test.ts'],
          globalSetup: ['test/support/provision-setup.ts'],
        },
      },
    ],
  },
});
