// A slot while it is held, request by request: against a Consul that answers as the test says, on a clock that it moves.
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Answer, CallOptions, Entry, Operation, ReadOptions } from '../../src/consul/consul.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { RunlockError } from '../../src/errors.ts';
import type { Grant } from '../../src/lock/head-of-queue.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { holdLease } from '../../src/lock/lease.ts';
import { deadAfterMs } from '../../src/lock/lease-state.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim, Hold } from '../../src/lock/records.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const TTL_MS = 30_000;
const keys = groupKeys('runlock', 'web');
const NO_ANSWER = new RunlockError('unreachable', 'no answer');

/** A request that waits for the test's answer. */
interface Asked<Options, Reply> {
  readonly options: Options;
  readonly answer: (reply: Reply) => void;
  readonly fail: (error: Error) => void;
}

/** Requests of one kind: `next` is the one that was sent, or will be. */
function requests<Options, Reply>() {
  const sent: Asked<Options, Reply>[] = [];
  const wanted: ((asked: Asked<Options, Reply>) => void)[] = [];
  return {
    send: (options: Options, signal: AbortSignal) =>
      new Promise<Reply>((answer, fail) => {
        signal.addEventListener('abort', () => fail(signal.reason as Error), { once: true });
        const asked = { options, answer, fail };
        const want = wanted.shift();
        if (want) want(asked);
        else sent.push(asked);
      }),
    next: () => {
      const asked = sent.shift();
      return asked
        ? Promise.resolve(asked)
        : new Promise<Asked<Options, Reply>>((resolve) => wanted.push(resolve));
    },
  };
}

const entry = (key: string, value: object, index: number, session?: string): Entry => ({
  ...{ key, value: encode(value), createIndex: index, modifyIndex: index },
  ...(session !== undefined && { session }),
});

/** web01 holds slot 0; `state` is that of the claim that it was granted with. */
function hold({
  state = 'running',
  hold: lasts = 'forever',
  longestMs = 1_000,
  agentNode = 'web01',
  passes = false,
}: {
  state?: Claim['state'];
  hold?: Hold;
  longestMs?: number;
  agentNode?: string;
  /** Time passes while somebody sleeps. */
  passes?: boolean;
} = {}) {
  const pauses: number[] = [];
  let nowMs = 1_000;
  const looks = requests<ReadOptions, { entries: Entry[]; index: number }>();
  const transactions = requests<readonly Operation[], Answer>();
  const said: string[] = [];
  /** What was asked for, sessions' ends included. */
  const order: string[] = [];
  const consul = fakeConsul({
    list: (_: string, options: ReadOptions) => looks.send(options, options.signal),
    transact: (operations: readonly Operation[], { signal }: CallOptions) => {
      order.push(operations.some(({ key }) => key.includes('.runs/')) ? 'release' : 'take');
      return transactions.send(operations, signal);
    },
    createSession: () => (order.push('open'), Promise.resolve('new')),
    readSession: () =>
      Promise.resolve({
        ...{ id: 'new', node: agentNode, ttl: `${TTL_MS / 1000}s`, behavior: 'delete' },
        ...{ lockDelayMs: 0, checks: [] },
      }),
  });
  const clock = {
    ...{ now: () => nowMs, monotonicMs: () => nowMs, earliest: () => nowMs, latest: () => nowMs },
    // The pause before the next try ends at once; what waits for a renewal or a deadline waits.
    sleep: (ms: number, { signal }: { signal: AbortSignal }) => {
      // Not the one before the first look, which leaves the run its first moments.
      if (ms !== 100) pauses.push(ms);
      if (passes) nowMs += ms;
      return ms <= longestMs
        ? Promise.resolve()
        : new Promise<void>((_, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
          });
    },
  };
  const emit: Deps['emit'] = (event) => {
    const { level, message } = sentenceOf(event);
    said.push(`${level}: ${message}`);
  };
  const deps = { clock, random: () => 0, emit } as Partial<Deps> as Deps;
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const run = { id: 'r1', node: 'web01', command: 'true', runner, hold: lasts, slots: 1 };
  const claim: Claim = {
    ...{ node: 'web01', state, run: 'r1', since: new Date(0).toISOString(), command: 'true', hold: lasts },
    ...runner,
  };
  const lost = new AbortController();
  const session = {
    ...{ id: 's1', node: 'web01', lost: lost.signal },
    close: () => (order.push('close'), lost.abort(), Promise.resolve()),
  };
  const grant: Grant = {
    ...{ context: { consul, deps, keys, run }, session, slot: 0, owner: { claim, index: 10 } },
    ...{ fencingToken: 10, provedMs: 0 },
  };
  const lease = holdLease(grant, { ttlMs: TTL_MS, killAfterMs: 1_000 });
  onTestFinished(() => lease.stop());
  const owner = entry(keys.owner(0), claim, 10);
  return {
    ...{ lease, looks, transactions, said, order, pauses, lost },
    pass: (ms: number) => void (nowMs += ms),
    lock: (by = 's1') => entry(keys.lock(0), { run: 'r1' }, 10, by),
    owner,
    /** Another run's claim in its place. */
    foreign: entry(keys.owner(0), { ...claim, node: 'web02', run: 'r2' }, 12, undefined),
    /** What a transaction that took the slot answers. */
    taken: { kind: 'done', entries: [{ ...owner, modifyIndex: 20 }] } as const,
  };
}

describe('a proof counts from when it was asked for, not from its answer', () => {
  test('by a look', async () => {
    const { lease, looks, pass, owner, lock } = hold({ hold: 'none' });
    const first = await looks.next();
    pass(7_000);
    first.answer({ entries: [lock(), owner], index: 10 });
    await looks.next();
    expect(lease.deadlineMs()).toBe(1_000 + deadAfterMs('none'));
  });

  test('by taking the lock back', async () => {
    const { lease, looks, transactions, pass, owner, taken } = hold({ hold: 'none' });
    const first = await looks.next();
    pass(7_000);
    first.answer({ entries: [owner], index: 11 });
    const back = await transactions.next();
    pass(5_000);
    back.answer(taken);
    // All may have changed meanwhile: this look waits for nothing.
    expect((await looks.next()).options.index).toBeUndefined();
    expect(lease.deadlineMs()).toBe(8_000 + deadAfterMs('none'));
  });

  test('and a look that shows anything else proves nothing', async () => {
    const { lease, looks, transactions, pass, owner } = hold({ hold: 'none' });
    const first = await looks.next();
    pass(7_000);
    first.answer({ entries: [owner], index: 11 });
    await transactions.next();
    expect(lease.deadlineMs()).toBe(deadAfterMs('none'));
  });
});

describe('the command must end in time, with a hold that ends', () => {
  // TERM goes out 1 s before the deadline.
  const dueMs = deadAfterMs('none') - 1_000;

  test('when that has passed without a proof', async () => {
    const { lease } = hold({ hold: 'none', longestMs: 100_000, passes: true });
    await new Promise<void>((resolve) => lease.over.addEventListener('abort', () => resolve()));
    expect(lease.over.reason).toEqual({ kind: 'cut-off' });
    expect(lease.whyOver()).toEqual({ kind: 'cut-off' });
  });

  test('also when the timer is late, for the clock is asked', () => {
    const { lease, pass } = hold({ hold: 'none' });
    pass(dueMs - 1_001);
    lease.checkDeadline();
    expect(lease.over.aborted).toBe(false);
    pass(1);
    lease.checkDeadline();
    expect(lease.over.reason).toEqual({ kind: 'cut-off' });
  });
});

describe('a look', () => {
  test.each<[Hold, number | undefined]>([
    ['forever', undefined],
    ['none', TTL_MS / 6],
    [60_000, TTL_MS / 6],
  ])('with hold %s waits for a change for %s ms: proofs must not be older', async (lasts, waitMs) => {
    const { looks, owner, lock } = hold({ hold: lasts });
    for (let n = 1; n <= 2; n++) {
      const { options, answer } = await looks.next();
      expect(options.waitMs).toBe(waitMs);
      expect(options.index).toBe(10);
      answer({ entries: [lock(), owner], index: 10 });
    }
  });

  test('waits for nothing where the claim was found and may have been evicted since', async () => {
    const { looks } = hold({ state: 'evicted' });
    expect((await looks.next()).options.index).toBeUndefined();
  });

  test.each([
    ['that failed', (fail: (error: Error) => void) => fail(NO_ANSWER)],
    ['of an older store', (_: unknown, answer: (index: number) => void) => answer(5)],
  ])('after one %s waits for nothing', async (_, respond) => {
    const { looks, owner, lock } = hold();
    const first = await looks.next();
    respond(first.fail, (index) => first.answer({ entries: [lock(), owner], index }));
    expect((await looks.next()).options.index).toBeUndefined();
  });

  test('that is refused is said once, one without an answer not: a silence is said when it lasts', async () => {
    const { looks, said } = hold({ longestMs: 30_000 });
    const refused = new RunlockError('forbidden', 'Permission denied');
    for (const error of [NO_ANSWER, refused, refused, NO_ANSWER]) (await looks.next()).fail(error);
    await looks.next();
    expect(said).toEqual(['warning: Permission denied; the run continues']);
  });
});

test('with --hold forever a silence of Consul is said after 30 s, once, and so is its end', async () => {
  const { looks, said, pass, owner, lock } = hold({ longestMs: 30_000 });
  let look = await looks.next();
  const failAfter = async (ms: number) => {
    pass(ms);
    look.fail(NO_ANSWER);
    look = await looks.next();
  };
  await failAfter(0);
  await failAfter(29_000);
  expect(said).toEqual([]);
  await failAfter(1_000);
  await failAfter(60_000);
  expect(said).toEqual(['warning: no answer; the run continues']);
  look.answer({ entries: [lock(), owner], index: 10 });
  await looks.next();
  expect(said).toEqual([
    'warning: no answer; the run continues',
    'warning: reading the slot of web works again',
  ]);
});

test('with a hold that ends its deadline speaks for itself: a silence is not said before that', async () => {
  const { looks, said, pass } = hold({ hold: 3_600_000, longestMs: 30_000 });
  for (let n = 0; n < 5; n++) {
    (await looks.next()).fail(NO_ANSWER);
    pass(20_000);
  }
  await looks.next();
  expect(said).toEqual([]);
});

test('a run under a name that its agent has no longer is released, and recorded, under that name', async () => {
  const { lease, looks, transactions, owner, taken, lost } = hold({ agentNode: 'renamed' });
  await looks.next();
  lost.abort();
  (await transactions.next()).answer(taken);
  (await looks.next()).answer({ entries: [{ ...owner, modifyIndex: 20 }], index: 20 });
  const releasing = lease.release({ outcome: 'succeeded', exitCode: 0, waitedMs: 0, ranMs: 0 });
  const sent = await transactions.next();
  const keysOf = sent.options.map(({ key }) => key);
  expect(keysOf).toContain(keys.node('web01'));
  expect(keysOf).toContain(keys.run('web01'));
  expect(JSON.stringify(sent.options)).not.toContain('renamed');
  const record = sent.options.find(({ key }) => key === keys.run('web01'));
  expect(record && 'value' in record && JSON.parse(record.value)).toMatchObject({ node: 'web01', run: 'r1' });
  sent.answer({ kind: 'done', entries: [] });
  expect(await releasing).toEqual({ kind: 'released' });
});

test('an agent that has another name by then changes nothing: the run keeps its own', async () => {
  const { looks, transactions, owner, taken, lost, order } = hold({ agentNode: 'renamed' });
  await looks.next();
  lost.abort();
  const back = await transactions.next();
  const keysOf = back.options.map(({ key }) => key);
  expect(keysOf).toContain(keys.node('web01'));
  expect(keysOf.join()).not.toContain('renamed');
  expect(back.options.find(({ key }) => key === keys.owner(0) && key)).toBeDefined();
  expect(back.options.map((operation) => ('value' in operation ? operation.value : '')).join()).toContain(
    '"node":"web01"',
  );
  expect(order).toContain('open');
  back.answer(taken);
  (await looks.next()).answer({ entries: [owner], index: 21 });
});

describe('a lock that another session has taken under the run', () => {
  /** So often it is found taken. */
  async function refuse(held: ReturnType<typeof hold>, times: number, at = 2) {
    for (let n = 0; n < times; n++) {
      (await held.looks.next()).answer({ entries: [held.lock('other'), held.owner], index: 11 });
      (await held.transactions.next()).answer({ kind: 'refused', at, why: 'lock is already held' });
    }
    return held.looks.next();
  }

  test('is asked for less and less often, and that is said once', async () => {
    const held = hold({ longestMs: 60_000 });
    await refuse(held, 10);
    expect(held.pauses).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    expect(held.said).toEqual([
      expect.stringMatching(/^warning: another session holds runlock\/web\/.slot\/0\/lock, so web01 can't/),
    ]);
    expect(held.lease.over.aborted).toBe(false);
  });

  test('with a hold that ends is asked for so often that it is back before the deadline', async () => {
    const held = hold({ hold: 3_600_000, longestMs: 60_000 });
    await refuse(held, 6);
    expect(Math.max(...held.pauses.filter((ms) => ms <= 60_000))).toBe(TTL_MS / 6);
  });

  test('and given back is taken, and then a new trouble is said anew', async () => {
    const held = hold({ longestMs: 60_000 });
    (await refuse(held, 4)).answer({ entries: [held.owner], index: 12 });
    (await held.transactions.next()).answer(held.taken);
    await refuse(held, 4);
    expect(held.said.join()).toMatch(/reacquired the lock of web/);
    expect(held.said.filter((message) => message.includes('another session holds'))).toHaveLength(2);
    expect(held.pauses.slice(-4)).toEqual([500, 1_000, 2_000, 4_000]);
  });

  test('a claim that changed meanwhile, for somebody marked it, is tried again soon', async () => {
    const held = hold({ longestMs: 60_000 });
    await refuse(held, 5, 1);
    expect(held.pauses).toEqual([500, 500, 500, 500, 500]);
    expect(held.said).toEqual([]);
  });
});

describe('a claim that somebody deleted', () => {
  const claimIsThere = { kind: 'refused', at: 1, why: 'key "owner" exists' } as const;

  test('and in whose place is a claim of another, as the next look tells: the slot is lost', async () => {
    const { lease, looks, transactions, lock, foreign } = hold();
    (await looks.next()).answer({ entries: [lock('other')], index: 11 });
    (await transactions.next()).answer(claimIsThere);
    (await looks.next()).answer({ entries: [lock('other'), foreign], index: 12 });
    await new Promise<void>((resolve) => lease.over.addEventListener('abort', () => resolve()));
    expect(lease.over.reason).toEqual({ kind: 'lost', why: 'its claim names web02 (run r2)' });
  });

  test('and put back before it was claimed again is its own: the run goes on', async () => {
    const { lease, looks, transactions, lock, owner, order, pauses, taken } = hold();
    (await looks.next()).answer({ entries: [lock()], index: 11 });
    (await transactions.next()).answer(claimIsThere);
    (await looks.next()).answer({ entries: [lock(), { ...owner, modifyIndex: 12 }], index: 12 });
    await looks.next();
    expect(lease.over.aborted).toBe(false);
    // The look that told came soon: 100 ms are not counted here.
    expect(pauses).toEqual([]);
    const releasing = lease.release({ outcome: 'succeeded', exitCode: 0, waitedMs: 0, ranMs: 0 });
    const release = await transactions.next();
    expect(release.options).toContainEqual(expect.objectContaining({ verb: 'check-index', index: 12 }));
    release.answer(taken);
    expect(await releasing).toEqual({ kind: 'released' });
    expect(order).toEqual(['take', 'release', 'close']);
  });

  test('and whose lock is another’s: the slot is lost', async () => {
    const { lease, looks, transactions, lock } = hold();
    (await looks.next()).answer({ entries: [lock('other')], index: 11 });
    (await transactions.next()).answer({ kind: 'refused', at: 2, why: 'it is there' });
    await new Promise<void>((resolve) => lease.over.addEventListener('abort', () => resolve()));
    expect(lease.over.reason).toMatchObject({ kind: 'lost' });
  });

  test('and sent again without an answer: its session ends before the slot is given back', async () => {
    const { lease, looks, transactions, order, owner, lock, taken } = hold();
    (await looks.next()).answer({ entries: [lock()], index: 11 });
    (await transactions.next()).fail(NO_ANSWER);
    (await looks.next()).answer({ entries: [lock(), owner], index: 10 });
    await looks.next();
    const releasing = lease.release({ outcome: 'succeeded', exitCode: 0, waitedMs: 0, ranMs: 0 });
    (await transactions.next()).answer(taken);
    expect(await releasing).toEqual({ kind: 'released' });
    expect(order.slice(0, 4)).toEqual(['take', 'close', 'open', 'release']);
  });

  test('and sent without an answer under a session that is lost: no third one is needed then', async () => {
    const { lease, looks, transactions, order, owner, lock, lost, taken } = hold();
    (await looks.next()).answer({ entries: [], index: 11 });
    (await transactions.next()).fail(NO_ANSWER);
    await looks.next();
    lost.abort();
    (await transactions.next()).answer(taken);
    (await looks.next()).answer({ entries: [lock('new'), { ...owner, modifyIndex: 20 }], index: 21 });
    await looks.next();
    const releasing = lease.release({ outcome: 'succeeded', exitCode: 0, waitedMs: 0, ranMs: 0 });
    (await transactions.next()).answer(taken);
    expect(await releasing).toEqual({ kind: 'released' });
    expect(order).toEqual(['take', 'close', 'open', 'take', 'release']);
  });

  test('and is being sent again as the run ends: its session ends first then too', async () => {
    const { lease, looks, transactions, order, lock, taken } = hold();
    (await looks.next()).answer({ entries: [lock()], index: 11 });
    await transactions.next();
    const releasing = lease.release({ outcome: 'succeeded', exitCode: 0, waitedMs: 0, ranMs: 0 });
    (await transactions.next()).answer(taken);
    expect(await releasing).toEqual({ kind: 'released' });
    expect(order.slice(0, 4)).toEqual(['take', 'close', 'open', 'release']);
  });
});

test('what the release itself changes is not taken for a loss: nothing is claimed again', async () => {
  const { lease, looks, transactions, order, taken } = hold();
  const look = await looks.next();
  const releasing = lease.release({ outcome: 'succeeded', exitCode: 0, waitedMs: 0, ranMs: 0 });
  const release = await transactions.next();
  look.answer({ entries: [], index: 11 });
  // The watch has had its turn by the time that a second request would have come.
  await new Promise((resolve) => setImmediate(resolve));
  release.answer(taken);
  expect(await releasing).toEqual({ kind: 'released' });
  expect(order).toEqual(['release', 'close']);
  expect(lease.over.aborted).toBe(false);
});

test('a lock taken back without an answer: another session takes it, so a late arrival is moot', async () => {
  const { looks, transactions, order, owner } = hold();
  (await looks.next()).answer({ entries: [owner], index: 11 });
  (await transactions.next()).fail(NO_ANSWER);
  (await looks.next()).answer({ entries: [owner], index: 11 });
  const again = await transactions.next();
  expect(order).toEqual(['take', 'close', 'open', 'take']);
  expect(again.options.map((one) => ('session' in one ? one.session : undefined))).toContain('new');
});

describe('a slot that can not be seen', () => {
  const refusal = new RunlockError('forbidden', 'Consul does not know the token');

  async function inTrouble(error: RunlockError, tries: number, lasts: Hold = 'forever') {
    const it = hold({ hold: lasts, longestMs: 30_000 });
    for (let i = 0; i < tries; i++) (await it.looks.next()).fail(error);
    const next = await it.looks.next();
    // Longer ones are those of deadlines.
    return { ...it, next, tried: it.pauses.filter((ms) => ms <= 30_000) };
  }

  test('is asked for less and less often, at least each half minute, until somebody mends it', async () => {
    const { tried } = await inTrouble(refusal, 9);
    // Halves of them: chance is 0 here.
    expect(tried).toEqual([500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000, 15_000]);
  });

  test('is asked for again within five seconds, where what is wrong may be over in a moment', async () => {
    const { tried } = await inTrouble(NO_ANSWER, 6);
    expect(tried).toEqual([500, 1_000, 2_000, 2_500, 2_500, 2_500]);
  });

  test('with a hold that ends each look may be the proof in time: at least each sixth of the TTL', async () => {
    const { tried } = await inTrouble(refusal, 6, 'none');
    expect(tried).toEqual([500, 1_000, 2_000, 2_500, 2_500, 2_500]);
  });

  test('is said once, its end too, and the next trouble begins with short pauses', async () => {
    const { next, looks, said, pauses, owner, lock } = await inTrouble(refusal, 4);
    next.answer({ entries: [lock(), owner], index: 10 });
    const later = await looks.next();
    expect(said).toEqual([
      'warning: Consul does not know the token; the run continues',
      'warning: reading the slot of web works again',
    ]);
    const before = pauses.length;
    later.fail(refusal);
    await looks.next();
    expect(pauses.slice(before)).toEqual([500]);
    expect(said).toHaveLength(3);
  });

  test('that is read but not taken back is no end of the trouble: said once, and the pauses grow', async () => {
    const { looks, transactions, said, pauses, owner } = hold({ longestMs: 30_000 });
    for (let i = 0; i < 4; i++) {
      (await looks.next()).answer({ entries: [owner], index: 10 });
      (await transactions.next()).fail(refusal);
    }
    await looks.next();
    expect(said).toEqual(['warning: Consul does not know the token; the run continues']);
    expect(pauses).toEqual([500, 1_000, 2_000, 4_000]);
  });
});
