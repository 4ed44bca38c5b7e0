// A freeze is set and ended, whatever somebody else does at that moment: against a Consul that answers as the test says.
import { expect, test } from 'vitest';
import { freeze } from '../../src/commands/freeze/freeze.ts';
import { thaw } from '../../src/commands/thaw/thaw.ts';
import type { Answer, Operation } from '../../src/consul/consul.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { RunlockError } from '../../src/errors.ts';
import { encode } from '../../src/lock/records.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const { signal } = new AbortController();
const KEY = 'runlock/web/.freeze';
const NO_ANSWER = new RunlockError('unreachable', 'no answer');
const REFUSED: Answer = { kind: 'refused', at: 0, why: 'not as it was seen' };

interface Stored {
  readonly by: string;
  readonly index: number;
}

/** Each look shows the next of these, and the last one again and again; so do the answers. */
function world(looks: readonly (Stored | undefined)[], answers: readonly (Answer | Error)[]) {
  let looked = 0;
  const sent: Operation[] = [];
  const consul = fakeConsul({
    get: (key: string) => {
      const seen = key === KEY ? looks[Math.min(looked++, looks.length - 1)] : undefined;
      const value = encode({ by: seen?.by, reason: 'release day', since: new Date(0).toISOString() });
      const entry = seen && { key, value, createIndex: 5, modifyIndex: seen.index };
      return Promise.resolve({ entry, index: 9 });
    },
    transact: async (operations: readonly Operation[]) => {
      await Promise.resolve();
      const answer = answers[Math.min(sent.length, answers.length - 1)] ?? REFUSED;
      sent.push(...operations.slice(0, 1));
      if (answer instanceof Error) throw answer;
      return answer;
    },
  });
  const clock = {
    ...{ now: () => 0, earliest: () => 0, latest: () => 0, monotonicMs: () => 0 },
    sleep: () => Promise.resolve(),
  };
  const deps = { clock, random: () => 0, emit: () => undefined } as Partial<Deps> as Deps;
  const asked = { prefix: 'runlock', at: 'web', reason: 'release day', by: 'me' };
  return {
    indexes: () => sent.map((one) => 'index' in one && one.index),
    freeze: () => freeze({ consul, deps }, asked, signal),
    thaw: () => thaw({ consul, deps }, asked, signal),
  };
}

const DONE: Answer = { kind: 'done', entries: [] };
const OTHERS = { by: 'other', index: 7 };

test('freeze without an answer: somebody else’s, alike in all, is not taken for its own', async () => {
  const { freeze: set, indexes } = world([undefined, OTHERS], [NO_ANSWER, DONE]);
  expect((await set()).replaced).toMatchObject({ by: 'other' });
  expect(indexes()).toEqual([0, 7]);
});

test('thaw without an answer: a freeze that replaced the one it saw still stands, and is ended', async () => {
  const { thaw: end, indexes } = world([{ by: 'one', index: 6 }, OTHERS], [NO_ANSWER, DONE]);
  expect(await end()).toMatchObject({ kind: 'thawed', freeze: { by: 'other' } });
  expect(indexes()).toEqual([6, 7]);
});

test('a freeze that somebody else changes each time is given up after ten tries', async () => {
  const { freeze: set, indexes } = world([OTHERS], [REFUSED]);
  await expect(set()).rejects.toMatchObject({ code: 'refused' });
  expect(indexes()).toHaveLength(10);
});
