// Which of two records of a node is the later run's, when one of them lost its slot; what a claim that stays keeps.
import { describe, expect, test } from 'vitest';
import { isLater, keptClaim } from '../../src/lock/run-record.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim, RunRecord } from '../../src/lock/records.ts';

const record = (claimIndex?: number): RunRecord => ({
  ...{ node: 'web01', run: 'r', outcome: 'lost', command: 'true', slot: 0, waitedMs: 0, ranMs: 0 },
  ...{ endedAt: '2026-03-01T12:00:00.000Z', ...(claimIndex !== undefined && { claimIndex }) },
});
const stored = (value: string, modifyIndex: number) => ({ key: 'k', value, createIndex: 1, modifyIndex });
const lost = record(100);

describe('a record that stands there is that of a later run', () => {
  test.each([
    ['its claim and its record came later', 101, 120, true],
    ['it was there before', 50, 60, false],
    ['an earlier run was recorded late', 50, 120, false],
    ['it came with an import, from a Consul whose indexes were larger', 9_000, 60, false],
    ['it has no claim’s index, and came later', undefined, 120, true],
    ['it has no claim’s index, and was there before', undefined, 60, false],
  ])('%s', (_, claimIndex, modifyIndex, later) => {
    expect(isLater(stored(encode(record(claimIndex)), modifyIndex), lost)).toBe(later);
  });

  test('one that nobody can read counts by its own index', () => {
    expect(isLater(stored('rubbish', 120), lost)).toBe(true);
    expect(isLater(stored('rubbish', 60), lost)).toBe(false);
  });
});

test('a claim that stays no longer says what its run was to publish', () => {
  const claim: Claim = {
    ...{ node: 'web01', state: 'running', run: 'r', since: lost.endedAt, command: 'true', hold: 'forever' },
    ...{ pid: 1, startTime: '1', bootId: 'b', publish: ['a'], groups: ['web', 'db'] },
  };
  for (const outcome of ['failed', 'interrupted', 'rebooting'] as const) {
    const kept = keptClaim(claim, { ...lost, outcome }, 0);
    expect(kept).toMatchObject({ state: outcome, groups: ['web', 'db'] });
    expect(kept).not.toHaveProperty('publish');
  }
});
