// The end of a run that publishes, try by try: against a Consul that answers as the test says.
import { expect, test } from 'vitest';
import type { Answer } from '../../src/consul/consul.ts';
import { RunlockError } from '../../src/errors.ts';
import { finishAll } from '../../src/lock/finish.ts';
import type { Grant } from '../../src/lock/head-of-queue.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim } from '../../src/lock/records.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const keys = groupKeys('runlock', 'web');
const { signal } = new AbortController();

/** For each try, whether the states are read as for the first one. */
async function tries(...answers: readonly (Error | Answer)[]) {
  const claim: Claim = {
    ...{ node: 'web01', state: 'running', run: 'r1', since: new Date(0).toISOString(), command: 'true' },
    ...{ hold: 'forever', pid: 1, startTime: '1', bootId: 'b' },
  };
  const entry = (key: string, value: object, session?: string) => ({
    ...{ key, value: encode(value), createIndex: 7, modifyIndex: 7 },
    ...(session !== undefined && { session }),
  });
  const left = [...answers];
  const consul = fakeConsul({
    list: () =>
      Promise.resolve({
        entries: [entry(keys.lock(0), { run: 'r1' }, 's1'), entry(keys.owner(0), claim)],
        index: 7,
      }),
    get: () => Promise.resolve({ entry: undefined, index: 7 }),
    transact: () => {
      const answer = left.shift() ?? ({ kind: 'done', entries: [] } as const);
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
  });
  const clock = { now: () => 0, latest: () => 0, monotonicMs: () => 0, sleep: () => Promise.resolve() };
  const run = { id: 'r1', node: 'web01', command: 'true', runner: claim, hold: 'forever', slots: 1 };
  const session = { id: 's1', node: 'web01', lost: signal, close: () => Promise.resolve() };
  const context = { consul, deps: { clock, random: () => 0, emit: () => undefined }, keys, run };
  const holding = { context, session, slot: 0, owner: { claim, index: 7 } } as unknown as Grant;
  const seen: boolean[] = [];
  const closing = {
    rule: '',
    steps: (_: unknown, isFirst: boolean) => {
      seen.push(isFirst);
      return Promise.resolve([]);
    },
    isWritten: () => Promise.resolve(false),
    pauseMs: () => 0,
  };
  const ending = { outcome: 'succeeded', waitedMs: 0, ranMs: 0 } as const;
  const { kind } = await finishAll([{ holding, ending }], { closings: [closing], ttlMs: 30_000 });
  return { kind, seen };
}

test('only a try without an answer leaves the next one free to keep a state as it is', async () => {
  const lost = new RunlockError('unreachable', 'no answer');
  const tooLarge = new RunlockError('config', 'Request body too large');
  const changed: Answer = { kind: 'refused', at: 0, why: 'index is stale' };
  const finished = (seen: boolean[]) => ({ kind: 'finished', seen });
  expect(await tries()).toEqual(finished([true]));
  expect(await tries(lost)).toEqual(finished([true, true]));
  // What is refused may have been read from the state itself.
  expect(await tries(tooLarge)).toEqual(finished([true, false]));
  expect(await tries(changed, lost)).toEqual(finished([true, false, false]));
});
