// The end of a run, request by request: against a Consul that fails as the test says.
import { afterEach, expect, test, vi } from 'vitest';
import type { Answer, Operation } from '../../src/consul/consul.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { RunlockError } from '../../src/errors.ts';
import type { Run } from '../../src/lock/context.ts';
import { giveBack } from '../../src/lock/release.ts';
import type { Grant } from '../../src/lock/head-of-queue.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode, encodeRun } from '../../src/lock/records.ts';
import type { Claim, Outcome, RunRecord } from '../../src/lock/records.ts';
import { fakeConsul } from '../support/fake-consul.ts';

afterEach(() => void vi.restoreAllMocks());

const keys = groupKeys('runlock', 'web');
const NO_ANSWER = new RunlockError('unreachable', 'no answer');
const REFUSED = new RunlockError('forbidden', 'Permission denied');
const LAST_GOOD = new Date(1_000_000).toISOString();

interface Faults {
  readonly gets?: Error[];
  /** An obstacle is the step that is refused. */
  readonly transactions?: (Error | { readonly at: number; readonly why?: string })[];
  /** What is left of the slot by then. */
  readonly keeps?: 'all' | 'claim' | 'nothing';
  /** Which run of the node is recorded as its last one. */
  readonly last?: string;
  /** What the claim says by then. */
  readonly state?: Claim['state'];
  readonly outcome?: Outcome;
  readonly releaseOnSignal?: true;
  /** After so many pauses the time is over. */
  readonly pauses?: number;
  readonly deadline?: AbortController;
}

/** web01 ends its run; requests of each kind meet these errors, one after the other, and then none. */
function ending(faults: Faults) {
  const { gets = [], transactions = [], state = 'running', keeps = 'all', last = 'r0' } = faults;
  const { outcome = 'failed', releaseOnSignal } = faults;
  const order: string[] = [];
  let record: unknown;
  const meet = (errors: Error[]): void => {
    const error = errors.shift();
    if (error) throw error;
  };
  const before: RunRecord = {
    ...{ node: 'web01', run: last, outcome: 'succeeded', command: 'true', slot: 0, endedAt: LAST_GOOD },
    ...{ waitedMs: 0, ranMs: 0 },
  };
  const claim: Claim = {
    ...{ node: 'web01', state: 'running', run: 'r1', since: LAST_GOOD, command: 'true', hold: 'forever' },
    ...{ pid: 1, startTime: '1', bootId: 'b' },
  };
  const entry = (key: string, value: string, session?: string) => ({
    ...{ key, value, createIndex: 7, modifyIndex: 7, ...(session !== undefined && { session }) },
  });
  const owner = entry(keys.owner(0), encode({ ...claim, state }));
  const lock = entry(keys.lock(0), encode({ run: 'r1' }), 's1');
  // Each answer comes as an answer does: not at once.
  const answer = async <T>(of: () => T): Promise<T> => {
    await Promise.resolve();
    return of();
  };
  const consul = fakeConsul({
    get: () =>
      answer(() => {
        meet(gets);
        return { entry: entry(keys.run('web01'), encodeRun(before)), index: 7 };
      }),
    list: () =>
      answer(() => ({ entries: { all: [lock, owner], claim: [owner], nothing: [] }[keeps], index: 7 })),
    createSession: () => (order.push('open'), Promise.resolve('s2')),
    readSession: () =>
      Promise.resolve({
        ...{ id: 's2', node: 'web01', ttl: '30s', behavior: 'delete', lockDelayMs: 0, checks: [] },
      }),
    destroySession: () => (order.push('close'), Promise.resolve()),
    transact: (operations: readonly Operation[]) =>
      answer((): Answer => {
        const touches = (key: string) => operations.some((one) => one.key === key);
        const what = touches(keys.lock(0)) ? 'release' : 'record';
        order.push(touches(keys.run('web01')) ? what : 'take');
        const fault = transactions.shift();
        if (fault instanceof Error) throw fault;
        if (fault) return { kind: 'refused', why: 'not as it was seen', ...fault };
        const last = operations.at(-1);
        record = last && 'value' in last ? JSON.parse(last.value) : undefined;
        return { kind: 'done', entries: [owner] };
      }),
  });
  let { pauses = Infinity } = faults;
  const slept: number[] = [];
  const paused = (signal: AbortSignal) => {
    if ((pauses -= 1) === 0) faults.deadline?.abort(new DOMException('over', 'TimeoutError'));
    return signal.aborted ? Promise.reject(signal.reason as Error) : Promise.resolve();
  };
  const clock = {
    ...{ now: () => 2_000_000, earliest: () => 2_000_000, latest: () => 2_000_000, monotonicMs: () => 0 },
    // The pause before the next try ends at once; what waits for a renewal waits.
    sleep: (ms: number, { signal }: { signal: AbortSignal }) =>
      ms <= 5_000
        ? (slept.push(ms), paused(signal))
        : new Promise<void>((_, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
          }),
  };
  const deps = { clock, random: () => 0, emit: () => undefined } as Partial<Deps> as Deps;
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const run: Run = {
    ...{ id: 'r1', node: 'web01', command: 'true', runner, hold: 'forever', slots: 1 },
    ...(releaseOnSignal && { releaseOnSignal }),
  };
  const lost = new AbortController();
  const session = {
    ...{ id: 's1', node: 'web01', lost: lost.signal },
    close: () => (order.push('close'), lost.abort(), Promise.resolve()),
  };
  const holding: Grant = {
    ...{ context: { consul, deps, keys, run }, session, slot: 0, owner: { claim, index: 7 } },
    ...{ fencingToken: 7, provedMs: 0 },
  };
  const ended = { outcome, exitCode: 1, waitedMs: 0, ranMs: 0, ttlMs: 30_000 } as const;
  return { order, slept, record: () => record, end: () => giveBack(holding, ended) };
}

test('a fault while the last good run is looked up does not make it forgotten', async () => {
  const { end, record } = ending({ gets: [NO_ANSWER, NO_ANSWER] });
  expect(await end()).toMatchObject({ kind: 'released', kept: { state: 'failed' } });
  expect(record()).toMatchObject({ outcome: 'failed', lastGoodAt: LAST_GOOD });
});

test('a last good run that may not be read keeps no slot', async () => {
  const { end, record } = ending({ gets: [REFUSED] });
  expect(await end()).toMatchObject({ kind: 'released' });
  expect(record()).not.toHaveProperty('lastGoodAt');
});

test('without an answer it is tried again, and the session ends only after that', async () => {
  const { end, order } = ending({ transactions: [NO_ANSWER, NO_ANSWER] });
  expect(await end()).toMatchObject({ kind: 'released' });
  expect(order).toEqual(['release', 'release', 'release', 'close']);
});

// A refusal was taken for good at the first answer: one answer of a proxy, and the claim kept the whole fleet out.
test.each([REFUSED, new RunlockError('config', 'bad request'), new RunlockError('not-consul', 'a page')])(
  'one refusal (%s) is not for good: it is tried again, until its deadline',
  async (refusal) => {
    const { end, order } = ending({ transactions: [refusal, refusal] });
    expect(await end()).toMatchObject({ kind: 'released' });
    expect(order).toEqual(['release', 'release', 'release', 'close']);
  },
);

test('what can never pass is not tried again: what stays behind is said at once', async () => {
  const { end, order } = ending({ transactions: [new RunlockError('incompatible', 'rubbish')] });
  expect(await end()).toEqual({
    ...{ kind: 'stays', keys: [keys.owner(0)], why: 'rubbish' },
    // So no next run and no release is named that would clear it.
    stuck: true,
  });
  expect(order).toEqual(['release', 'record', 'close']);
});

test.each([
  ['what it was answered with', new RunlockError('overloaded', 'takes no more requests (HTTP 429)')],
  ['the rule that is missing', REFUSED],
])('a release that is refused until its deadline says %s', async (_, refusal) => {
  const deadline = new AbortController();
  vi.spyOn(AbortSignal, 'timeout').mockReturnValueOnce(deadline.signal);
  const { end } = ending({ transactions: Array.from({ length: 50 }, () => refusal), pauses: 20, deadline });
  expect(await end()).toEqual({ kind: 'stays', keys: [keys.owner(0)], why: refusal.message });
});

test('a run evicted as it ended is given back as it is: its claim never says again that it runs', async () => {
  const { end, order } = ending({ transactions: [{ at: 1 }], state: 'evicted' });
  expect(await end()).toMatchObject({ kind: 'released' });
  expect(order).toEqual(['release', 'release', 'close']);
});

test.each([
  ['r1', 'released'],
  ['r0', 'nothing'],
])('no answer, and nothing there: by the record of run %s the slot was %s', async (last, kind) => {
  const { end } = ending({ transactions: [NO_ANSWER], keeps: 'nothing', last });
  expect(await end()).toEqual({ kind });
});

test('a lock that another session holds is named, and what lets go of it', async () => {
  const deadline = new AbortController();
  vi.spyOn(AbortSignal, 'timeout').mockReturnValue(deadline.signal);
  // The release, and taking the lock back: its third step is the lock.
  const { end } = ending({ transactions: [{ at: 0 }, { at: 2 }], keeps: 'claim', pauses: 1, deadline });
  expect(await end()).toEqual({
    kind: 'stays',
    keys: [keys.owner(0)],
    why: `another session holds ${keys.lock(0)}; to release the slot, run 'consul kv delete ${keys.lock(0)}'`,
    stuck: true,
  });
});

test('a lock that another session holds is asked for less and less often: each try is a write', async () => {
  const refused = Array.from({ length: 6 }, () => [{ at: 0 }, { at: 2 }]).flat();
  const { end, slept } = ending({ transactions: refused, keeps: 'claim' });
  expect(await end()).toMatchObject({ kind: 'released' });
  expect(slept).toEqual([600, 1_200, 2_400, 4_800, 5_000, 5_000]);
});

test('a lock that is gone with its session is taken back with a new one, and given back', async () => {
  const gone = { at: 0, why: 'invalid session' };
  const { end, order } = ending({ transactions: [gone, gone], keeps: 'claim' });
  expect(await end()).toMatchObject({ kind: 'released' });
  expect(order).toEqual(['release', 'take', 'close', 'open', 'release', 'close']);
});

test.each([
  [undefined, { kind: 'released', kept: { state: 'interrupted', exitCode: 1 } }],
  [true, { kind: 'released' }],
] as const)(
  'a run that a signal ended keeps its claim, or gives it back if it was told so: %s',
  async (told, given) => {
    const { end, order, record } = ending({ outcome: 'interrupted', ...(told && { releaseOnSignal: told }) });
    const result = await end();
    expect(result).toMatchObject(given);
    expect('kept' in result).toBe('kept' in given);
    expect(record()).toMatchObject({ outcome: 'interrupted', exitCode: 1, lastGoodAt: LAST_GOOD });
    expect(order).toEqual(['release', 'close']);
  },
);

test('only a signal lets go what is told to be given back after one', async () => {
  const { end } = ending({ releaseOnSignal: true });
  expect(await end()).toMatchObject({ kind: 'released', kept: { state: 'failed' } });
});

test.each(['failed', 'interrupted', 'rebooting'] as const)(
  'no answer, and the claim says %s by then: the slot was given back',
  async (state) => {
    const { end, order } = ending({ transactions: [NO_ANSWER], keeps: 'claim', state, outcome: state });
    expect(await end()).toMatchObject({ kind: 'released', kept: { state } });
    expect(order).toEqual(['release', 'close']);
  },
);
