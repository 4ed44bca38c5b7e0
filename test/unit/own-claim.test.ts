// A run that waits for its own node's claim in a slot that it does not use: what its mark says.
import { expect, test } from 'vitest';
import type { Operation } from '../../src/consul/consul.ts';
import type { Progress, RunContext } from '../../src/lock/context.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { takeOwn } from '../../src/lock/own-claim.ts';
import type { Claim } from '../../src/lock/records.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const keys = groupKeys('runlock', 'web');
const { signal } = new AbortController();

/** The mark that web01 sets; its claim is in slot 1 of one slot. */
async function markOf(publish?: readonly string[]): Promise<unknown> {
  let mark: unknown;
  const transact = (operations: readonly Operation[]) => {
    const put = operations.find(({ key }) => key === keys.node('web01'));
    mark = put && 'value' in put ? JSON.parse(put.value) : undefined;
    return Promise.reject(new Error('enough'));
  };
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const claim: Claim = {
    ...{ node: 'web01', state: 'failed', run: 'r0', since: new Date(0).toISOString(), command: 'true' },
    ...{ hold: 'forever', ...runner },
  };
  const clock = { now: () => 0, earliest: () => 0, latest: () => 0, monotonicMs: () => 0 };
  const run = { id: 'r1', node: 'web01', command: 'true', runner, hold: 'forever', slots: 1, publish };
  const deps = { clock, emit: () => undefined, host: { bootId: 'b' } };
  const context = { consul: fakeConsul({ transact }), deps, keys, run } as unknown as RunContext;
  const session = { id: 's1', node: 'web01', lost: signal, close: () => Promise.resolve() };
  const progress: Progress = {
    ...{ signal, patience: signal, either: signal, attempts: [], newest: { index: 0 } },
    blocked: { kind: 'slots', slots: [] },
  };
  const turn = { slots: [{ slot: 0 }, { slot: 1, owner: { claim, index: 7 } }], index: 7 };
  await expect(takeOwn(context, session, { turn, progress })).rejects.toThrow('enough');
  return mark;
}

test('its mark names the states that it will set, so that who waits for them is not called stuck', async () => {
  expect(await markOf(['db/schema'])).toMatchObject({ run: 'r1', publish: ['db/schema'] });
  expect(await markOf()).not.toHaveProperty('publish');
});
