// First in the queue, and a grant whose answer was lost: against a Consul that answers as the test says.
import { expect, test } from 'vitest';
import type { Answer, Entry } from '../../src/consul/consul.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { RunlockError } from '../../src/errors.ts';
import { asFirst } from '../../src/lock/head-of-queue.ts';
import type { Progress } from '../../src/lock/context.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim } from '../../src/lock/records.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const keys = groupKeys('runlock', 'web');
const { signal } = new AbortController();
const NO_ANSWER = new RunlockError('unreachable', 'no answer');
const NO_TICKET: Answer = { kind: 'refused', at: 0, why: 'the ticket is gone' };

interface Times {
  readonly answerMs?: number;
  /** Of each look; the last is that of all others. */
  readonly lookMs?: readonly [number, ...number[]];
}

/** web01 asks for the free slot 0; `asked` says what becomes of that. Then the slot has its claim, under this lock. */
function ask(asked: Answer | Error, lockedBy = 's1', { answerMs = 1_000, lookMs = [7_000] }: Times = {}) {
  let nowMs = 1_000;
  const looks = [...lookMs];
  const claim: Claim = {
    ...{ node: 'web01', state: 'running', run: 'r1', since: new Date(0).toISOString(), command: 'true' },
    ...{ hold: 'none', pid: 1, startTime: '1', bootId: 'b' },
  };
  const entry = (key: string, value: object, session?: string): Entry => ({
    ...{ key, value: encode(value), createIndex: 7, modifyIndex: 7 },
    ...(session !== undefined && { session }),
  });
  const entries = [entry(keys.owner(0), claim), entry(keys.lock(0), { run: 'r1' }, lockedBy)];
  const consul = fakeConsul({
    transact: () => {
      nowMs += answerMs;
      return asked instanceof Error ? Promise.reject(asked) : Promise.resolve(asked);
    },
    readAll: () => {
      nowMs += (looks.length > 1 ? looks.shift() : looks[0]) ?? 0;
      return Promise.resolve(entries);
    },
  });
  const clock = {
    ...{ now: () => nowMs, earliest: () => nowMs, latest: () => nowMs, monotonicMs: () => nowMs },
    sleep: () => Promise.resolve(),
  };
  const deps = { clock, random: () => 0, emit: () => undefined } as Partial<Deps> as Deps;
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const run = { id: 'r1', node: 'web01', command: 'true', runner, hold: 'none', slots: 1 } as const;
  const session = { id: 's1', node: 'web01', lost: signal, close: () => Promise.resolve() };
  const progress: Progress = {
    ...{ signal, patience: signal, either: signal, attempts: [], newest: { index: 7 } },
    blocked: { kind: 'slots', slots: [] },
  };
  const turn = { slots: [], index: 7 };
  return asFirst({ consul, deps, keys, run }, session, { turn, progress });
}

test.each([
  ['lost', NO_ANSWER],
  ['given to an earlier try', NO_TICKET],
])('a grant whose answer was %s is proved from the look that found it', async (_, asked) => {
  expect(await ask(asked)).toMatchObject({ kind: 'granted', grant: { slot: 0, provedMs: 2_000 } });
});

test.each([
  ['lost', NO_ANSWER],
  ['given to an earlier try', NO_TICKET],
])('a claim without its lock, the answer %s, is no grant: all starts anew', async (_, asked) => {
  expect(await ask(asked, 'other')).toEqual({ kind: 'again' });
});

const YES: Answer = {
  kind: 'done',
  entries: [{ key: keys.owner(0), value: '', createIndex: 7, modifyIndex: 7 }],
};

test('an answer that a stopped run hears too late is no grant: what Consul has by then decides', async () => {
  const inTime = await ask(YES, 's1', { answerMs: 5_000 });
  expect(inTime).toMatchObject({ kind: 'granted', grant: { provedMs: 1_000 } });
  const late = await ask(YES, 's1', { answerMs: 60_000, lookMs: [10] });
  expect(late).toMatchObject({ kind: 'granted', grant: { provedMs: 61_000 } });
  expect(await ask(YES, 'other', { answerMs: 60_000 })).toEqual({ kind: 'again' });
});

test.each([
  ['lost', NO_ANSWER],
  ['given to an earlier try', NO_TICKET],
])('a look that takes too long for a stopped run is taken again, the answer %s', async (_, asked) => {
  const found = await ask(asked, 's1', { lookMs: [60_000, 10] });
  expect(found).toMatchObject({ kind: 'granted', grant: { provedMs: 62_000 } });
});
