// When a run that waits in a queue lends its node's turn, and that it gets no slot without it (docs/adr/0050).
import { describe, expect, test } from 'vitest';
import type { Entry, ReadOptions } from '../../src/consul/consul.ts';
import { RunlockError } from '../../src/errors.ts';
import { acquire } from '../../src/lock/acquire.ts';
import { outOfTurn } from '../../src/lock/context.ts';
import type { NodeTurn, Progress, RunContext } from '../../src/lock/context.ts';
import { untilThawed } from '../../src/lock/freeze.ts';
import { asFirst, sendGrant } from '../../src/lock/head-of-queue.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { untilFirst } from '../../src/lock/queue.ts';
import { encode } from '../../src/lock/records.ts';
import type { Claim } from '../../src/lock/records.ts';
import type { Deps } from '../../src/platform/deps.ts';
import type { Turn, TurnLook } from '../../src/process/turn.ts';
import type { ExecDeps, ExecOptions } from '../../src/runner/options.ts';
import { toTurn } from '../../src/runner/turn.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const keys = groupKeys('runlock', 'web');
const [FREEZE = ''] = keys.freezes;
const { signal } = new AbortController();
const NO_ANSWER = new RunlockError('unreachable', 'no answer');
const WAITS = new Error('it waits');
const runner = { pid: 1, startTime: '1', bootId: 'b' };
const run = { id: 'r1', node: 'web01', command: 'true', runner, hold: 'none', slots: 1 } as const;
const session = { id: 's1', node: 'web01', lost: signal, close: () => Promise.resolve() };
const clock = { now: () => 0, earliest: () => 0, latest: () => 0, monotonicMs: () => 0 };
const deps = {
  ...{ clock: { ...clock, sleep: () => Promise.resolve() }, random: () => 0, emit: () => undefined },
} as Partial<Deps> as Deps;

const entry = (key: string, value: object, lockedBy?: string): Entry => ({
  ...{ key, value: encode(value), createIndex: 7, modifyIndex: 7 },
  ...(lockedBy !== undefined && { session: lockedBy }),
});
const claim = (node: string, state: Claim['state'], id = node): Claim => ({
  ...{ node, state, run: id, since: new Date(0).toISOString(), command: 'true', hold: 'forever', ...runner },
});
const KEPT = [entry(keys.owner(0), claim('web02', 'failed'))];
const UNDER_WAY = [entry(keys.owner(0), claim('web02', 'running')), entry(keys.lock(0), {}, 's2')];
const frozen = entry(FREEZE, { by: 'ops', reason: 'x', since: new Date(0).toISOString() });

/** What is asked of the turn; `others` have it whenever it is asked for. */
function turnOf({
  keeps = false,
  others = false,
}: { readonly keeps?: boolean; readonly others?: boolean } = {}) {
  const asked: string[] = [];
  let isLent = false;
  let isTaken = others;
  const nodeTurn: NodeTurn = {
    ask: () => {
      asked.push('ask');
      isLent = isTaken && isLent;
      return isTaken ? () => Promise.resolve(undefined) : undefined;
    },
    lend: () => {
      asked.push('lend');
      isLent = true;
    },
    isLent: () => isLent,
    keeps: () => keeps,
  };
  return { asked, nodeTurn, othersTakeIt: () => void (isTaken = true) };
}

const progressOf = (more: Partial<Progress> = {}): Progress => ({
  ...{ signal, patience: signal, either: signal, attempts: [], newest: { index: 7 } },
  ...{ blocked: { kind: 'slots', slots: [] }, ...more },
});

describe('not first in the queue', () => {
  /** Looks four times at the ticket before it, which stays; returns how long each may take. */
  async function wait(turn: ReturnType<typeof turnOf>, more: Parameters<typeof fakeConsul>[0] = {}) {
    const looks: (number | undefined)[] = [];
    const consul = fakeConsul({
      get: (key: string, { waitMs }: ReadOptions) => {
        if (key !== keys.queue('s0')) return Promise.resolve({ entry: undefined, index: 7 });
        if (looks.push(waitMs) > 4) return Promise.reject(WAITS);
        return Promise.resolve({ entry: entry(key, {}, 's0'), index: 7 });
      },
      ...more,
    });
    const context: RunContext = { consul, deps, keys, run, nodeTurn: turn.nodeTurn };
    const ticket = { session: 's1', createIndex: 8, predecessor: { session: 's0', index: 7 } };
    const until = untilFirst(context, { ticket, turn: { slots: [], index: 7 } }, progressOf());
    await expect(until).rejects.toBe(WAITS);
    return looks.slice(0, 4);
  }

  test('it lends after ten seconds, and from then on looks as others do', async () => {
    const turn = turnOf();
    expect(await wait(turn)).toEqual([10_000, undefined, undefined, undefined]);
    expect(turn.asked).toEqual(['lend']);
  });

  test('one that has lost a place keeps it, and looks whether the queue can move', async () => {
    const turn = turnOf({ keeps: true });
    expect(await wait(turn, { readAll: () => Promise.resolve(UNDER_WAY) })).toEqual(Array(4).fill(10_000));
    expect(turn.asked).toEqual([]);
  });

  test('one that has lost a place lends it behind a claim that stays', async () => {
    const turn = turnOf({ keeps: true });
    let looks = 0;
    const readAll = () => Promise.resolve((looks += 1) < 3 ? UNDER_WAY : KEPT);
    expect(await wait(turn, { readAll })).toEqual([10_000, 10_000, 10_000, undefined]);
    expect(turn.asked).toEqual(['lend']);
  });

  test('one that has lost a place lends it in a frozen group', async () => {
    const turn = turnOf({ keeps: true });
    const looks: string[] = [];
    await wait(turn, {
      readAll: () => Promise.resolve(UNDER_WAY),
      get: (key: string) => {
        looks.push(key);
        if (key === FREEZE) return Promise.resolve({ entry: frozen, index: 7 });
        if (key !== keys.queue('s0')) return Promise.resolve({ entry: undefined, index: 7 });
        if (looks.filter((look) => look === key).length > 2) return Promise.reject(WAITS);
        return Promise.resolve({ entry: entry(key, {}, 's0'), index: 7 });
      },
    });
    expect(turn.asked).toEqual(['lend']);
  });

  test('where Consul does not say it is kept, and so is the place', async () => {
    const turn = turnOf({ keeps: true });
    expect(await wait(turn, { readAll: () => Promise.reject(NO_ANSWER) })).toHaveLength(4);
    expect(turn.asked).toEqual([]);
  });
});

test.each([
  ['that has none of other groups lends it', {}, ['ask', 'lend']],
  ['that has some of other groups keeps it, to keep those', { hasSlots: true } as const, ['ask']],
])('a run without a slot in a queue that moves, %s', async (_, more, asked) => {
  const turn = turnOf();
  let looks = 0;
  const consul = fakeConsul({
    readAll: () => Promise.resolve(UNDER_WAY),
    transact: () =>
      Promise.resolve({
        kind: 'done',
        entries: [entry(keys.tail, { session: 's0' }), entry(keys.queue('s'), {}, 's'), ...UNDER_WAY],
      }),
    get: (key: string) => {
      if (key !== keys.queue('s0')) return Promise.resolve({ entry: undefined, index: 7 });
      return (looks += 1) > 2
        ? Promise.reject(WAITS)
        : Promise.resolve({ entry: entry(key, {}, 's0'), index: 7 });
    },
  });
  // Its session is never renewed.
  const still = { ...deps, clock: { ...deps.clock, sleep: () => new Promise<void>(() => undefined) } };
  const request = { prefix: 'runlock', group: 'web', node: 'web01', run, ttlMs: 10_000, ...more };
  const acquired = acquire({ consul, deps: still }, { ...request, turn: turn.nodeTurn }, progressOf());
  await expect(acquired).rejects.toBe(WAITS);
  expect(turn.asked).toEqual(asked);
});

describe('first in the queue', () => {
  const first = (turn: ReturnType<typeof turnOf>, slots: readonly Entry[][], transact: Error) => {
    const looks = [...slots];
    const next = () => looks.shift();
    const consul = fakeConsul({
      list: () => {
        const entries = next();
        return entries ? Promise.resolve({ entries, index: 8 }) : Promise.reject(WAITS);
      },
      readAll: () => Promise.resolve(next() ?? []),
      transact: () => Promise.reject(transact),
    });
    const progress = progressOf();
    const context: RunContext = { consul, deps, keys, run, nodeTurn: turn.nodeTurn };
    const read = { slots: [], index: 0 };
    return { progress, until: asFirst(context, session, { turn: read, progress }) };
  };

  test.each([
    ['a claim that stays: lent', KEPT, ['ask', 'lend']],
    ['a run that is under way: asked for', UNDER_WAY, ['ask', 'ask']],
  ])('behind %s', async (_, slots, asked) => {
    const turn = turnOf();
    // The answer to a first try is lost, and somebody else has the slot.
    await expect(first(turn, [slots], NO_ANSWER).until).rejects.toBe(WAITS);
    expect(turn.asked).toEqual(asked);
  });

  test('a slot is free, but another run has the turn: nothing is sent', async () => {
    const turn = turnOf({ others: true });
    const { until, progress } = first(turn, [], new Error('nothing may be sent'));
    expect(await until).toMatchObject({ kind: 'out-of-turn' });
    expect(progress.attempts).toEqual([]);
  });

  test('a grant whose answer was lost is not adopted while another run has the turn', async () => {
    const turn = turnOf();
    const mine = [entry(keys.owner(0), claim('web01', 'running', 'r1')), entry(keys.lock(0), {}, 's1')];
    const looks = [UNDER_WAY, mine];
    const consul = fakeConsul({
      transact: () => Promise.reject(NO_ANSWER),
      readAll: () => Promise.resolve(looks.shift() ?? []),
      // It waits behind web02, and another run of its node comes.
      list: () => {
        turn.othersTakeIt();
        return Promise.resolve({ entries: mine, index: 8 });
      },
    });
    const progress = progressOf();
    const context: RunContext = { consul, deps, keys, run, nodeTurn: turn.nodeTurn };
    const got = await asFirst(context, session, { turn: { slots: [], index: 0 }, progress });
    expect(got).toMatchObject({ kind: 'out-of-turn' });
    expect(progress.attempts).toEqual([{ slot: 0 }]);
  });

  test('a grant that had taken effect unseen is not adopted either', async () => {
    const turn = turnOf();
    const mine = [entry(keys.owner(0), claim('web01', 'running', 'r1')), entry(keys.lock(0), {}, 's1')];
    const consul = fakeConsul({
      transact: () => {
        turn.othersTakeIt();
        return Promise.resolve({ kind: 'refused', at: 0, why: 'the ticket is gone' });
      },
      readAll: () => Promise.resolve(mine),
    });
    const context: RunContext = { consul, deps, keys, run, nodeTurn: turn.nodeTurn };
    const first = { turn: { slots: [], index: 0 }, progress: progressOf() };
    expect(await asFirst(context, session, first)).toMatchObject({ kind: 'out-of-turn' });
  });

  test('in a frozen group it is lent, while that stands', async () => {
    const turn = turnOf();
    const looks = [frozen, undefined];
    const consul = fakeConsul({ get: () => Promise.resolve({ entry: looks.shift(), index: 8 }) });
    await untilThawed({ consul, deps, keys, run, nodeTurn: turn.nodeTurn }, FREEZE, progressOf());
    await untilThawed({ consul, deps, keys, run, nodeTurn: turn.nodeTurn }, FREEZE, progressOf());
    expect(turn.asked).toEqual(['lend']);
  });

  test('without a turn to take, a grant is sent as it was', async () => {
    const consul = fakeConsul({ transact: () => Promise.reject(NO_ANSWER) });
    const context: RunContext = { consul, deps, keys, run };
    expect(outOfTurn(context)).toBeUndefined();
    const grant = { session, steps: [], slot: 0, claim: claim('web01', 'running'), progress: progressOf() };
    expect(await sendGrant(context, grant)).toEqual({ kind: 'again' });
  });
});

describe('a run keeps its turn in a queue that moves', () => {
  const HELD: TurnLook = {
    kind: 'held',
    by: { run: 'r2', command: 'sleep', groups: ['db'], since: new Date(0).toISOString(), ...runner },
  };
  function setUp() {
    const looks: TurnLook[] = [];
    const told: string[] = [];
    const note = (what: string) => () => void told.push(what);
    const turn: Turn = {
      look: () => looks.shift() ?? { kind: 'mine' },
      folder: () => undefined,
      ...{ lend: note('lend'), outOfQueue: note('out'), leave: note('leave') },
    };
    const options = { groups: [{ group: 'web' }], command: 'true', prefix: 'runlock' };
    const consul = fakeConsul({});
    const all = { ...deps, consul, run: { id: 'r1', nonce: '' }, openTurn: () => turn };
    const own = toTurn(all as unknown as ExecDeps, options as unknown as ExecOptions, runner);
    return { own, looks, told };
  }

  test('once it has found it taken', () => {
    const { own, looks } = setUp();
    own.ask('web01');
    own.lend();
    expect([own.isLent(), own.keeps()]).toEqual([true, false]);
    expect(own.ask('web01')).toBeUndefined();
    expect([own.isLent(), own.keeps()]).toEqual([false, false]);
    own.lend();
    looks.push(HELD);
    expect(own.ask('web01')).toBeDefined();
    expect([own.isLent(), own.keeps()]).toEqual([true, true]);
  });

  test('not for having waited before it queued', () => {
    const { own, looks } = setUp();
    looks.push(HELD);
    expect(own.ask('web01')).toBeDefined();
    expect(own.keeps()).toBe(false);
    own.lend();
    own.leave();
    looks.push(HELD);
    expect(own.ask('web01')).toBeDefined();
    expect(own.keeps()).toBe(false);
  });

  test('it has left the queue before it waits for the turn', async () => {
    const { own, looks, told } = setUp();
    own.lend();
    looks.push(HELD, { kind: 'mine' });
    const patience = AbortSignal.abort();
    await own.ask('web01')?.(deps, { signal, patience, either: patience });
    expect(told).toEqual(['lend', 'out']);
    expect(own.isLent()).toBe(false);
  });
});
