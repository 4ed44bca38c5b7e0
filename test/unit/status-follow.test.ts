// How the watch of `status` follows Consul: index by index, and anew when the store has gone back.
import { expect, test } from 'vitest';
import { followGroups } from '../../src/view/follow.ts';
import type { Followed } from '../../src/view/follow.ts';
import type { Consul, Entry } from '../../src/consul/consul.ts';
import { RunlockError } from '../../src/errors.ts';
import { followWaits } from '../../src/view/follow-waits.ts';
import { fakeConsul } from '../support/fake-consul.ts';
import { outsideKey, outsideRecord } from '../support/outside.ts';

type Step = { readonly index: number; readonly group: string } | RunlockError;

/** All that is stored is one key of this group. */
const entry = (group: string): Entry => ({
  key: `runlock/${group}/.tail`,
  value: '',
  createIndex: 1,
  modifyIndex: 1,
});

/** Follows a store that answers like this, and ends with the last answer. */
async function follow(steps: readonly Step[]) {
  const stop = new AbortController();
  const asked: { index: number | undefined; retryForMs: number | undefined }[] = [];
  const longestMs: number[] = [];
  const left = [...steps];
  const list: Consul['list'] = (_, { index, retryForMs, waitMs = Infinity, timeoutMs = Infinity }) => {
    asked.push({ index, retryForMs });
    // Consul lets a blocking query last up to a sixteenth longer than it was asked to.
    longestMs.push((waitMs * 17) / 16 + timeoutMs);
    const step = left.shift();
    if (left.length === 0) stop.abort();
    if (!step || step instanceof RunlockError) return Promise.reject(step ?? new Error('no more'));
    return Promise.resolve({ entries: [entry(step.group)], index: step.index });
  };
  const slept: number[] = [];
  const sleep = (ms: number, { signal }: { signal: AbortSignal }) => {
    slept.push(ms);
    return signal.aborted ? Promise.reject(signal.reason as Error) : Promise.resolve();
  };
  const clock = { now: () => 0, monotonicMs: () => 0, sleep };
  const seen: (string | undefined)[] = [];
  const options = {
    prefix: 'runlock',
    groups: [],
    signal: stop.signal,
    changed: (now: Followed) => seen.push(now(0).groups[0]?.group),
  };
  const ended = followGroups({ consul: fakeConsul({ list }), clock }, options);
  const error: unknown = await ended.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return { asked, longestMs, slept, error, seen };
}

const unreachable = new RunlockError('unreachable', 'gone');

test('each change is heard of once, and a wait that ended without one is none', async () => {
  const { asked, seen, slept } = await follow([
    ...[
      { index: 5, group: 'a' },
      { index: 7, group: 'b' },
      { index: 7, group: 'b' },
      { index: 9, group: 'c' },
    ],
  ]);
  expect(asked.map(({ index }) => index)).toEqual([undefined, 5, 7, 7]);
  expect(seen).toEqual(['a', 'b', 'c']);
  expect(slept.every((ms) => ms >= 100)).toBe(true);
});

test('an index that goes backwards: all starts anew, without one', async () => {
  const { asked, seen } = await follow([
    ...[
      { index: 50, group: 'a' },
      { index: 3, group: 'b' },
      { index: 4, group: 'c' },
      { index: 5, group: 'd' },
    ],
  ]);
  expect(asked.map(({ index }) => index)).toEqual([undefined, 50, undefined, 4]);
  expect(seen).toEqual(['a', 'b', 'c', 'd']);
});

test('an agent that hangs is noticed within 32 s: no query waits longer, with what Consul adds', async () => {
  const { longestMs } = await follow([
    { index: 5, group: 'a' },
    { index: 6, group: 'b' },
  ]);
  expect(longestMs).toHaveLength(2);
  expect(Math.max(...longestMs)).toBeLessThan(32_000);
});

test('a blocking query that fails is followed by a read that answers at once, tried for ever', async () => {
  const { asked, seen } = await follow([
    { index: 5, group: 'a' },
    unreachable,
    { index: 5, group: 'a' },
    { index: 6, group: 'b' },
  ]);
  expect(asked).toEqual([
    { index: undefined, retryForMs: 3_000 },
    { index: 5, retryForMs: 0 },
    { index: undefined, retryForMs: undefined },
    { index: 5, retryForMs: 0 },
  ]);
  expect(seen).toEqual(['a', 'b']);
});

test('a refusal ends it', async () => {
  const forbidden = new RunlockError('forbidden', 'no');
  expect(await follow([{ index: 5, group: 'a' }, forbidden, unreachable])).toMatchObject({
    error: forbidden,
  });
});

test('of all groups it asks whether it may see all of them, as soon as a run waits outside', async () => {
  const asked: string[][] = [];
  const partial = async (hasAll: boolean, mayAll: boolean) => {
    const stop = new AbortController();
    const may: Consul['may'] = (rights) => {
      asked.push(rights.map(({ name }) => name));
      return Promise.resolve(rights.map(({ name }) => mayAll || name !== 'runlock/.may-read'));
    };
    const get: Consul['get'] = () => Promise.reject(unreachable);
    const clock = { now: () => 0, monotonicMs: () => 0, sleep: () => Promise.reject(new Error('over')) };
    const fail = () => stop.abort();
    const options = {
      prefix: 'runlock',
      hasAll: () => hasAll,
      signal: stop.signal,
      changed: () => undefined,
      fail,
    };
    const waits = followWaits({ consul: fakeConsul({ may, get }), clock }, options);
    waits.see([entry('a')]);
    const value = outsideRecord({ node: 'web01', group: 'a', when: ['state:a'] });
    waits.see([{ ...entry('a'), key: outsideKey({ node: 'web01', group: 'a' }), value, session: 's' }]);
    await new Promise(setImmediate);
    stop.abort();
    return waits.facts().isPartial;
  };
  expect(await partial(true, true)).toBeUndefined();
  expect(await partial(true, false)).toBe(true);
  expect(asked).toEqual([
    ['runlock/.state/a/.value', 'runlock/.may-read'],
    ['runlock/.state/a/.value', 'runlock/.may-read'],
  ]);
  expect(await partial(false, true)).toBe(true);
});
