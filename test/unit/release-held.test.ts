// The end of what `acquire` holds, and the record of a run that could not give its slot back.
import { describe, expect, test } from 'vitest';
import type { Answer } from '../../src/consul/consul.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode, encodeRun } from '../../src/lock/records.ts';
import type { Claim, RunRecord } from '../../src/lock/records.ts';
import { giveHeldBack } from '../../src/lock/release.ts';
import { recordEnd } from '../../src/lock/run-record.ts';
import { fakeConsul } from '../support/fake-consul.ts';
import { memoryNode } from '../support/memory-node.ts';

const keys = groupKeys('runlock', 'web');
const at = (ms: number) => new Date(ms).toISOString();
const NOW_MS = 5_000;
const clock = {
  now: () => NOW_MS,
  latest: () => NOW_MS,
  monotonicMs: () => 0,
  sleep: () => Promise.resolve(),
};
const deps = { clock, emit: () => undefined } as unknown as Deps;

const record = (more: Partial<RunRecord> = {}): RunRecord => ({
  node: 'web01',
  run: 'r1',
  outcome: 'succeeded',
  command: 'true',
  slot: 0,
  endedAt: at(100),
  waitedMs: 0,
  ranMs: 1,
  ...more,
});

describe('what acquire holds', () => {
  /** web01 holds slot 0 since 1 s, after a good run. */
  function held() {
    const { consul, put, at: read } = memoryNode();
    const claim: Claim = {
      node: 'web01',
      state: 'held',
      run: 'r1',
      since: at(1_000),
      command: 'acquire',
      hold: 'forever',
      waitedMs: 700,
      pid: 1,
      startTime: '1',
      bootId: 'b',
    };
    put(keys.run('web01'), encodeRun(record({ run: 'r0' })));
    put(keys.owner(0), encode(claim));
    return { consul, read, asked: { consul, deps, keys, node: 'web01', slot: 0 } };
  }

  test('goes with its work, and is recorded: how long it waited and was held, and by which claim', async () => {
    const { read, asked } = held();
    const ended = await giveHeldBack(asked, { outcome: 'succeeded' });
    expect(ended).toMatchObject({ heldMs: 4_000, claim: { run: 'r1' } });
    expect(ended).not.toHaveProperty('kept');
    expect(read(keys.owner(0))).toBeUndefined();
    const figures = { waitedMs: 700, ranMs: 4_000, claimIndex: 2 };
    expect(read(keys.run('web01'))).toMatchObject({ run: 'r1', outcome: 'succeeded', ...figures });
  });

  test('keeps others out after a failure, as a run’s claim does, and the last good run stays known', async () => {
    const { read, asked } = held();
    const ended = await giveHeldBack(asked, { outcome: 'failed', exitCode: 3 });
    expect(ended?.kept).toMatchObject({ state: 'failed', exitCode: 3, since: at(NOW_MS) });
    expect(read(keys.owner(0))).toEqual({ v: 1, ...ended?.kept });
    expect(read(keys.owner(0))).not.toHaveProperty('waitedMs');
    expect(read(keys.run('web01'))).toMatchObject({ outcome: 'failed', exitCode: 3, lastGoodAt: at(100) });
  });

  test('is nothing where another run has the slot, and nothing is written then', async () => {
    const { read, asked } = held();
    expect(await giveHeldBack({ ...asked, node: 'web02' }, { outcome: 'succeeded' })).toBeUndefined();
    expect(read(keys.owner(0))).toMatchObject({ state: 'held' });
  });
});

describe('the record of a run that lost its slot', () => {
  const { signal } = new AbortController();

  /** `there`: what is recorded by then; the transactions are answered so. */
  async function ending(there: RunRecord, answers: Answer[] = []) {
    let sent = 0;
    const entry = { key: keys.run('web01'), value: encodeRun(there), createIndex: 9, modifyIndex: 9 };
    const consul = fakeConsul({
      get: () => Promise.resolve({ entry, index: 9 }),
      transact: () => Promise.resolve(answers[sent++] ?? { kind: 'done', entries: [] }),
    });
    await recordEnd({ consul, deps, keys }, record({ claimIndex: 5 }), signal);
    return sent;
  }

  test('is written again where somebody else’s came between', async () => {
    const refused: Answer = { kind: 'refused', at: 0, why: 'index is stale' };
    expect(await ending(record({ run: 'r0', claimIndex: 1 }), [refused, refused])).toBe(3);
  });

  test.each([
    ['of a later run of the node', record({ run: 'r2', claimIndex: 8 })],
    ['its own', record()],
  ])('is not written over %s', async (_, there) => {
    expect(await ending(there)).toBe(0);
  });
});
