// Which other agent is provably gone, and what an agent may serve with the rights of its token.
import { describe, expect, test } from 'vitest';
import { isGone, watchSilence } from '../../src/agent/presence.ts';
import { servingOf } from '../../src/agent/serving.ts';
import { watchdogMs } from '../../src/agent/service-manager.ts';
import { isOfLiveProcess } from '../../src/agent/state-folder.ts';
import type { Host } from '../../src/platform/deps.ts';

const BOOT = 'boot pid:[1] time:[1]';
const host = {
  bootId: BOOT,
  self: () => ({ pid: 10, startTime: '100', bootId: BOOT }),
  place: () => Promise.resolve({ host: 'web01', machine: 'm1' }),
  startTime: (pid: number) => ({ 10: '100', 20: '200' })[pid],
  hidden: (pid: number) => pid === 30,
} as unknown as Host;

describe('another agent is gone', () => {
  const there = { bootId: BOOT, pid: 20, startTime: '200', machine: 'm1' };

  test.each([
    ['which lives', there, false],
    ['whose process has ended', { ...there, pid: 21 }, true],
    ['whose pid another process has', { ...there, startTime: '1' }, true],
    ['whose process can’t be seen', { ...there, pid: 30 }, false],
    ['which is this process', { ...there, pid: 10, startTime: '100' }, true],
    ['of another namespace of this boot', { ...there, pid: 21, bootId: 'boot pid:[2] time:[1]' }, false],
    ['of this machine before it booted', { ...there, bootId: 'before pid:[1] time:[1]' }, true],
    ['of another machine', { ...there, bootId: 'other pid:[1]', machine: 'm2' }, false],
    ['of a machine without an id', { bootId: 'other pid:[1]', pid: 1, startTime: '1' }, false],
    ['that says nothing', {}, false],
    ['without a start time', { bootId: BOOT, pid: 21 }, false],
  ])('%s', async (_, other, expected) => {
    expect(await isGone(host, other)).toBe(expected);
  });

  test('only where a machine has an id, one without an id is not it', async () => {
    const nameless = { ...host, place: () => Promise.resolve({ host: 'web01' }) };
    expect(await isGone(nameless, { bootId: 'other', pid: 1, startTime: '1' })).toBe(false);
  });
});

describe('requests are served', () => {
  const signal = new AbortController().signal;
  const ask = async (answers: readonly (boolean | undefined)[], more: object = {}) => {
    const asked: string[] = [];
    const consul = {
      may: (rights: readonly { name: string; access: string }[]) => {
        asked.push(...rights.map(({ name, access }) => `${access} ${name}`));
        return Promise.resolve(answers);
      },
    };
    const request = { prefix: 'rl', requests: 'served' as const, principals: ['ci', 'ops'], ...more };
    return { serving: await servingOf(consul, request, { signal }), asked };
  };

  test('only if this node’s token may write as none of the principals', async () => {
    const { serving, asked } = await ask([false, false]);
    expect(serving).toEqual({ kind: 'served' });
    expect(asked).toEqual(['write rl/.requests/ci/spec/runlock', 'write rl/.requests/ops/spec/runlock']);
  });

  test.each([
    [[false, true], /may write rl\/\.requests\/ops\/, or .* in the name of ops;/],
    [[true, true], /may write rl\/\.requests\/ci\/, rl\/\.requests\/ops\/, or/],
    [[false, undefined], /can't tell whether/],
  ])('not if the answers are %j', async (answers, why) => {
    const { serving } = await ask(answers);
    expect(serving).toMatchObject({ kind: 'refused', why: expect.stringMatching(why) as string });
  });

  test('without a question where root trusts everybody, and where nobody may ask', async () => {
    expect(await ask([true], { requests: 'trust-everybody' })).toEqual({
      serving: { kind: 'served' },
      asked: [],
    });
    expect(await ask([true], { principals: [] })).toEqual({ serving: { kind: 'served' }, asked: [] });
  });
});

test('the watchdog hears a third of what it waits; other texts mean that there is none', () => {
  expect(watchdogMs({ WATCHDOG_USEC: '1800000000' })).toBe(600_000);
  for (const WATCHDOG_USEC of ['', '0', '-3', 'x', '1e9'])
    expect(watchdogMs({ WATCHDOG_USEC })).toBeUndefined();
  expect(watchdogMs({})).toBeUndefined();
});

test('a report is of a live process only if boot, pid and start time are its own', () => {
  const report = { bootId: BOOT, pid: 20, startTime: '200' };
  expect(isOfLiveProcess(report, host)).toBe(true);
  for (const other of [{ bootId: 'x' }, { pid: 21 }, { startTime: '1' }, { pid: '20' }])
    expect(isOfLiveProcess({ ...report, ...other }, host)).toBe(false);
  for (const nothing of [undefined, null, 'x', 3]) expect(isOfLiveProcess(nothing, host)).toBe(false);
});

test('an outage is longer than a session lives, and counts for as long after its end', () => {
  let nowMs = 0;
  const silence = watchSilence({ monotonicMs: () => nowMs }, 90_000);
  const after = (ms: number, answers = false) => {
    nowMs += ms;
    if (answers) silence.answered();
    return silence.wasAway();
  };
  expect([after(26_000, true), after(60_000), after(30_000, true)]).toEqual([false, false, false]);
  expect([after(90_001), after(1, true), after(89_998, true), after(3)]).toEqual([true, true, true, false]);
});
