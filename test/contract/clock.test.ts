// A host's wall clock that jumps in the middle of a process's life: with a hold that ends nobody follows too early,
// and a run keeps its deadline. The project's own lock code on a real agent; only its clock is the test's.
import { randomUUID } from 'node:crypto';
import { describe, expect, onTestFinished, test } from 'vitest';
import { anchorClock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import type { Deps, WallClock } from '../../src/platform/deps.ts';
import { acquire } from '../../src/lock/acquire.ts';
import type { Acquired } from '../../src/lock/acquire.ts';
import { giveBack } from '../../src/lock/release.ts';
import type { Grant } from '../../src/lock/head-of-queue.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { holdLease } from '../../src/lock/lease.ts';
import { decodeClaim } from '../../src/lock/records.ts';
import type { Claim, Hold } from '../../src/lock/records.ts';
import { CLOCK_DIFFERENCE_MS, VANISHED_AFTER_MS } from '../../src/lock/decide.ts';
import { startAgent } from '../support/consul.ts';
import { useAgent } from '../support/use-agent.ts';
import type { Agent } from '../support/consul.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match } from '../support/proxy.ts';

const HOUR_MS = 3_600_000;
const HOLD_MS = 600_000;
const TTL_MS = 10_000;

const agent = useAgent();

/** A host with a clock of its own: `aheadMs` is wrong from the start, `jump` is somebody who sets it, `pass` is time that goes by. */
function host({ aheadMs = 0 } = {}) {
  let wallMs = aheadMs;
  let passedMs = 0;
  const clock = anchorClock({
    now: () => Date.now() + wallMs + passedMs,
    monotonicMs: () => performance.now() + passedMs,
  });
  return {
    clock,
    jump: (ms: number) => void (wallMs += ms),
    pass: (ms: number) => void (passedMs += ms),
    /** What a right clock would show. */
    rightMs: () => Date.now() + passedMs,
  };
}

interface Place {
  readonly clock: WallClock;
  readonly hold: Hold;
  readonly on?: Agent;
}

/** One runlock on a host. */
async function runner(node: string, group: string, { clock, hold, on = agent }: Place) {
  const proxy = await startProxy(on);
  const self = { pid: process.pid, startTime: '1', bootId: 'boot' };
  const unseen = {
    startTime: () => undefined,
    hidden: () => false,
    place: () => Promise.resolve({ host: 'h' }),
    survivors: () => ({ pids: [], guarded: false }),
  };
  const deps: Deps = {
    ...{ clock, random: Math.random, emit: () => undefined },
    host: { self: () => self, bootId: self.bootId, ...unseen },
  };
  const consul = connect(consulSettings(proxy.env), { clock, emit: deps.emit });
  const leaving = new AbortController();
  const { signal } = leaving;
  onTestFinished(async () => {
    leaving.abort(new Error('the test is over'));
    consul.close();
    await proxy.close();
  });
  const run = { id: randomUUID(), command: 'true', runner: self, hold, slots: 1 };
  const request = { prefix: 'runlock', group, node, run, ttlMs: TTL_MS };
  const waiting = { signal, patience: new AbortController().signal, either: signal };
  return {
    acquire: () => acquire({ consul, deps }, request, waiting),
    /** Resolves when it waits for a change of `key`, once more after `touch` if that is given. */
    watching: async (key: string, touch?: () => Promise<unknown>) => {
      const looks: Match = ({ path }) =>
        decodeURIComponent(path).startsWith(`/v1/kv/${key}`) && path.includes('index=');
      const before = touch ? proxy.requests.filter(looks).length : 0;
      await touch?.();
      await eventually(() => expect(proxy.requests.filter(looks).length).toBeGreaterThan(before));
    },
  };
}

/** `web02`, first in the queue behind a claim. */
async function waiter(group: string, { clock, hold }: Place) {
  const { acquire: start, watching } = await runner('web02', group, { clock, hold });
  let acquired: Acquired | undefined;
  const done = start().then((it) => (acquired = it));
  done.catch(() => undefined);
  const { slotPrefix } = groupKeys('runlock', group);
  const touch = () => agent.kv.put(`${slotPrefix}9/lock`, randomUUID());
  await watching(slotPrefix);
  return {
    done,
    acquired: () => acquired,
    /** Has it look at the slots. */
    touch,
    /** Has it look at the slots, and resolves when it waits again. */
    lookAgain: () => watching(slotPrefix, touch),
  };
}

function grantOf(acquired: Acquired): Grant {
  if (acquired.kind !== 'granted') throw new Error(`not granted: ${acquired.kind}`);
  return acquired.grant;
}

const claimOf = async (group: string): Promise<Claim> => {
  const key = groupKeys('runlock', group).owner(0);
  return decodeClaim({ key, value: (await agent.kv.get(key))?.Value ?? '' });
};

const heldUntilMs = async (group: string) => Date.parse((await claimOf(group)).heldUntil ?? '');

const failed = { outcome: 'failed', exitCode: 1, waitedMs: 0, ranMs: 0, ttlMs: TTL_MS } as const;

/** `web01` fails and keeps its slot for `hold`. */
async function fail(group: string, hold: Hold, clock = host().clock): Promise<void> {
  const failing = await runner('web01', group, { clock, hold });
  const given = await giveBack(grantOf(await failing.acquire()), failed);
  expect(given).toMatchObject({ kind: 'released' });
}

/** `web01` vanishes: its claim stays as running, without a lock. */
async function vanish(group: string, hold: Hold): Promise<void> {
  const vanishing = await runner('web01', group, { clock: host().clock, hold });
  const { session } = grantOf(await vanishing.acquire());
  await session.close({ signal: AbortSignal.timeout(5_000) });
}

describe.each([
  ['forward', HOUR_MS],
  ['backward', -HOUR_MS],
])('the wall clock jumps %s by an hour', (way, jumpMs) => {
  test('while a run waits first behind a failed claim with ten minutes to go: that one stays', async () => {
    const group = `behind-${way}`;
    await fail(group, HOLD_MS);
    const here = host();
    const waiting = await waiter(group, { clock: here.clock, hold: HOLD_MS });
    here.jump(jumpMs);
    await waiting.lookAgain();
    expect(waiting.acquired()).toBeUndefined();
    expect(await claimOf(group)).toMatchObject({ node: 'web01', state: 'failed' });
  });

  test('while a run waits first behind a freeze with ten minutes to go: the freeze stays', async () => {
    const group = `frozen-${way}`;
    const [key = ''] = groupKeys('runlock', group).freezes;
    const until = new Date(Date.now() + HOLD_MS).toISOString();
    const freeze = { v: 1, by: 'ops', reason: 'first', since: new Date().toISOString(), until };
    await agent.kv.put(key, JSON.stringify(freeze));
    const here = host();
    const waiting = await runner('web02', group, { clock: here.clock, hold: HOLD_MS });
    void waiting.acquire().catch(() => undefined);
    await waiting.watching(key);
    here.jump(jumpMs);
    await waiting.watching(key, () => agent.kv.put(key, JSON.stringify({ ...freeze, reason: 'second' })));
    expect((await agent.kv.get(key))?.Value).toContain('second');
  });

  test('under a run that then fails: its hold is no shorter than it asked for', async () => {
    const group = `failed-${way}`;
    const here = host();
    here.jump(jumpMs);
    await fail(group, HOLD_MS, here.clock);
    const leftMs = (await heldUntilMs(group)) - Date.now();
    expect(leftMs).toBeGreaterThan(HOLD_MS - 10_000);
    expect(leftMs).toBeLessThan(HOLD_MS + Math.max(0, jumpMs) + 1_000);
  });

  test('while a run waits first behind a vanished one: its hold gets no shorter, its claim stays', async () => {
    const group = `abandoned-${way}`;
    await vanish(group, HOLD_MS);
    const here = host();
    const waiting = await waiter(group, { clock: here.clock, hold: HOLD_MS });
    here.jump(jumpMs);
    await waiting.lookAgain();
    expect((await claimOf(group)).state).toBe('running');
    here.pass(VANISHED_AFTER_MS);
    await waiting.touch();
    await eventually(async () => expect((await claimOf(group)).state).toBe('abandoned'));
    const leftMs = (await heldUntilMs(group)) - here.rightMs();
    expect(leftMs).toBeGreaterThan(HOLD_MS - 10_000);
    expect(leftMs).toBeLessThan(HOLD_MS + Math.max(0, jumpMs) + 1_000);
    await waiting.lookAgain();
    expect(await claimOf(group)).toMatchObject({ node: 'web01', state: 'abandoned' });
  });

  test('while a run waits first behind a vanished one, hold none: 60 s without a lock, no less', async () => {
    const group = `none-${way}`;
    await vanish(group, 'none');
    const here = host();
    const waiting = await waiter(group, { clock: here.clock, hold: 'none' });
    here.jump(jumpMs);
    await waiting.lookAgain();
    expect(await claimOf(group)).toMatchObject({ node: 'web01', state: 'running' });
    here.pass(VANISHED_AFTER_MS);
    await waiting.touch();
    expect(grantOf(await waiting.done).owner.claim).toMatchObject({ node: 'web02', state: 'running' });
  });
});

test('the wall clock jumps back by 4 s while a run waits first: at most 4 s late, never early', async () => {
  await fail('late', 1_000);
  const untilMs = await heldUntilMs('late');
  const here = host();
  const waiting = await waiter('late', { clock: here.clock, hold: 1_000 });
  here.jump(-4_000);
  expect(grantOf(await waiting.done).owner.claim.node).toBe('web02');
  const lateMs = Date.now() - untilMs - CLOCK_DIFFERENCE_MS;
  expect(lateMs).toBeGreaterThanOrEqual(0);
  expect(lateMs).toBeLessThan(4_000 + 5_000);
});

test('a slow wall clock is set right while a run waits: it waits on, a new process goes at once', async () => {
  await fail('slow', 1_000);
  const slow = host({ aheadMs: -HOUR_MS });
  const waiting = await waiter('slow', { clock: slow.clock, hold: 1_000 });
  slow.jump(HOUR_MS);
  // The claim's hold and the 5 s have passed, by the right time.
  slow.pass(10_000);
  await waiting.lookAgain();
  expect(waiting.acquired()).toBeUndefined();
  const anew = anchorClock(slow.clock);
  expect(anew.earliest()).toBeGreaterThan((await heldUntilMs('slow')) + CLOCK_DIFFERENCE_MS);
});

test('a fast wall clock is set right before a run is first: a failed claim is not taken early', async () => {
  await fail('fast-then-right', HOLD_MS);
  const here = host({ aheadMs: HOUR_MS });
  here.jump(-HOUR_MS);
  const waiting = await waiter('fast-then-right', { clock: here.clock, hold: HOLD_MS });
  await waiting.lookAgain();
  expect(waiting.acquired()).toBeUndefined();
  expect(await claimOf('fast-then-right')).toMatchObject({ node: 'web01', state: 'failed' });
});

test('a slow wall clock is set right under a run that then fails: its hold is no shorter', async () => {
  const here = host({ aheadMs: -HOUR_MS });
  here.jump(HOUR_MS);
  await fail('slow-then-right', HOLD_MS, here.clock);
  expect((await heldUntilMs('slow-then-right')) - Date.now()).toBeGreaterThan(HOLD_MS - 10_000);
});

test('a wall clock that is an hour fast before the process begins: the hold ends an hour early', async () => {
  await fail('fast', HOLD_MS);
  const fast = await runner('web02', 'fast', { clock: host({ aheadMs: HOUR_MS }).clock, hold: HOLD_MS });
  expect(grantOf(await fast.acquire()).owner.claim).toMatchObject({ node: 'web02', state: 'running' });
});

test.each<Hold>([HOLD_MS, 'none'])(
  'hold %s, the wall clock jumps by an hour either way under a run: it keeps its deadline',
  async (hold) => {
    await using on = await startAgent();
    const fixedMs = VANISHED_AFTER_MS + (hold === 'none' ? 0 : HOLD_MS) - 7_000;
    // TERM goes out six seconds after the last proof.
    const killAfterMs = fixedMs - 6_000;
    const leases = await Promise.all(
      [HOUR_MS, -HOUR_MS].map(async (jumpMs) => {
        const { clock, jump } = host();
        const held = await runner('web01', `deadline${jumpMs}`, { clock, hold, on });
        const grant = grantOf(await held.acquire());
        const lease = holdLease(grant, { ttlMs: TTL_MS, killAfterMs });
        onTestFinished(() => lease.stop());
        expect(lease.deadlineMs()).toBe(grant.provedMs + fixedMs);
        return { clock, lease, jump: () => jump(jumpMs), firstMs: lease.deadlineMs() };
      }),
    );
    for (const { jump } of leases) jump();
    await Promise.all(leases.map(goesOn));
    on.pause();
    for (const { jump } of leases) jump();
    await Promise.all(leases.map(isCutOff));
    on.resume();

    /** Proofs go on coming, and move the deadline by no more than the time that went by. */
    async function goesOn({ clock, lease, firstMs }: (typeof leases)[number]) {
      await eventually(() => expect(lease.deadlineMs()).toBeGreaterThan(firstMs + 3_000), 20_000);
      expect(lease.deadlineMs()).toBeLessThanOrEqual(clock.monotonicMs() + fixedMs);
      expect(lease.over.aborted).toBe(false);
    }

    async function isCutOff({ clock, lease }: (typeof leases)[number]) {
      await eventually(() => expect(lease.over.aborted).toBe(true), 20_000);
      expect(lease.over.reason).toEqual({ kind: 'cut-off' });
      const lateMs = clock.monotonicMs() - (lease.deadlineMs() - killAfterMs);
      expect(lateMs).toBeGreaterThanOrEqual(0);
      expect(lateMs).toBeLessThan(3_000);
    }
  },
);
