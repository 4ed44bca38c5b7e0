// Leaving without a slot, request by request: against a Consul that fails as the test says.
import { describe, expect, test } from 'vitest';
import type { Answer, Entry, Operation } from '../../src/consul/consul.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { RunlockError } from '../../src/errors.ts';
import { giveUp } from '../../src/lock/head-of-queue.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim } from '../../src/lock/records.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const keys = groupKeys('runlock', 'web');
const { signal } = new AbortController();
const NO_ANSWER = new RunlockError('unreachable', 'no answer');
const FORBIDDEN = new RunlockError('forbidden', 'Permission denied');
const CHANGED: Answer = { kind: 'refused', at: 0, why: 'index is stale' };

const claimOf = (run: string, changes: Partial<Claim> = {}): Claim => ({
  ...{ node: 'web01', state: 'running', run, since: new Date(0).toISOString(), command: 'true' },
  ...{ hold: 'forever', pid: 1, startTime: '1', bootId: 'b', ...changes },
});
const failed = claimOf('r0', { state: 'failed', exitCode: 1 });

/** Run r1 has sent a grant and never heard of it. Each try to undo it meets one of `faults`, and then none. */
function leaving(
  faults: readonly (Error | Answer)[],
  { run = 'r1', before }: { run?: string; before?: Claim } = {},
) {
  const order: string[] = [];
  const said: string[] = [];
  const left = [...faults];
  let written: Claim | undefined = claimOf(run);
  let index = 7;
  const consul = fakeConsul({
    list: () => {
      order.push('look');
      // Somebody changes it all the time.
      index += 1;
      const owner: Entry[] = written
        ? [{ key: keys.owner(0), value: encode(written), createIndex: 7, modifyIndex: index }]
        : [];
      return Promise.resolve({ entries: owner, index });
    },
    transact: (operations: readonly Operation[]) => {
      order.push('undo');
      const fault = left.shift();
      if (fault instanceof Error) return Promise.reject(fault);
      if (fault) return Promise.resolve(fault);
      // What was seen last is what it is compared with.
      expect(operations).toContainEqual(expect.objectContaining({ index }));
      const put = operations.find((one) => 'value' in one);
      written = put && 'value' in put ? (JSON.parse(put.value) as Claim) : undefined;
      return Promise.resolve({ kind: 'done', entries: [] } satisfies Answer);
    },
  });
  const clock = { sleep: () => (order.push('pause'), Promise.resolve()) };
  const emit: Deps['emit'] = (event) => void said.push(sentenceOf(event).message);
  const deps = { clock, emit } as unknown as Deps;
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const context = {
    ...{ consul, deps, keys },
    run: { id: 'r1', node: 'web01', command: 'true', runner, hold: 'forever', slots: 1 } as const,
  };
  const session = {
    ...{ id: 's1', node: 'web01', lost: signal },
    close: () => (order.push('close'), Promise.resolve()),
  };
  const attempts = [{ slot: 0, ...(before && { before }) }];
  const done = giveUp(context, session, attempts);
  return { order, said, attempts, done, written: () => written };
}

const TRIED = ['look', 'undo', 'pause'];

describe.each([
  ['without an answer', NO_ANSWER],
  ['refused, for the claim has changed since the look', CHANGED],
])('a grant that is undone and %s', (_, fault) => {
  test('is looked at again, and undone: nothing of it stays', async () => {
    const { order, done, said, attempts, written } = leaving([fault, fault]);
    expect(await done).toBe(true);
    expect(order).toEqual(['close', ...TRIED, ...TRIED, 'look', 'undo']);
    expect({ said, attempts, claim: written() }).toEqual({ said: [], attempts: [], claim: undefined });
  });

  test('leaves the claim that this node had before', async () => {
    const { done, written } = leaving([fault], { before: failed });
    expect(await done).toBe(true);
    expect(written()).toMatchObject(failed);
  });
});

test('a slot that is another run’s is left alone', async () => {
  const { order, done } = leaving([], { run: 'r9' });
  expect(await done).toBe(true);
  expect(order).toEqual(['close', 'look']);
});

// A refusal was taken for good at the first answer; now it is tried again, as after no answer.
test('a refusal can be one answer of a proxy: it is undone all the same', async () => {
  const { order, done, said } = leaving([FORBIDDEN, FORBIDDEN]);
  expect(await done).toBe(true);
  expect(order).toEqual(['close', ...TRIED, ...TRIED, 'look', 'undo']);
  expect(said).toEqual([]);
});

test('what can never be read is not tried again, and no command is named that could not either', async () => {
  const { order, done, said } = leaving([new RunlockError('incompatible', 'rubbish; delete it')]);
  expect(await done).toBe(false);
  expect(order).toEqual(['close', 'look', 'undo']);
  expect(said).toEqual(['could not clean up in web (rubbish; delete it); this blocks web']);
});
