// The lock of services' gates: how it is asked for, and whose session is over.
import { describe, expect, test } from 'vitest';
import type { Deps } from '../../src/platform/deps.ts';
import { RunlockError } from '../../src/errors.ts';
import { checkLock, lockAll } from '../../src/gate/lock.ts';
import { fakeConsul } from '../support/fake-consul.ts';

test('is asked for less and less often, at least each five seconds', async () => {
  const pauses: number[] = [];
  const consul = fakeConsul({
    transact: () =>
      pauses.length < 7
        ? Promise.reject(new RunlockError('unreachable', 'no answer'))
        : Promise.resolve({ kind: 'done', entries: [] }),
  });
  const clock = { sleep: (ms: number) => (pauses.push(ms), Promise.resolve()) };
  const deps = { clock, random: () => 0 } as unknown as Deps;
  const { signal } = new AbortController();
  await lockAll({ consul, deps }, { keys: ['runlock/.gate/web'], session: 's', run: 'r' }, signal);
  expect(pauses).toEqual([150, 300, 600, 1_200, 2_400, 2_500, 2_500]);
});

describe('a session that is over', () => {
  const KEY = 'runlock/.gate/web';
  const { signal } = new AbortController();
  const deps = { clock: { monotonicMs: () => 0 } } as unknown as Deps;
  const request = { keys: [KEY], session: 's', run: 'r' };

  test('takes no gate: all begins anew with another, and nobody is waited for', async () => {
    const transact = () => Promise.resolve({ kind: 'refused', at: 0, why: 'invalid session "s"' } as const);
    const locking = lockAll({ consul: fakeConsul({ transact }), deps }, request, signal);
    await expect(locking).rejects.toMatchObject({ code: 'session-lost' });
  });

  test('holds none: that is no answer to wait for either', async () => {
    const transact = () =>
      Promise.resolve({ kind: 'refused', at: 0, why: 'session does not match' } as const);
    const checking = checkLock({ consul: fakeConsul({ transact }), deps }, request, signal);
    await expect(checking).rejects.toMatchObject({ code: 'session-lost' });
  });
});

test('a gate that another has taken is waited for, by name', async () => {
  const held = { key: 'runlock/.gate/web', value: '{"v":1,"run":"r-2"}', createIndex: 1, modifyIndex: 1 };
  const answers = [
    { kind: 'refused', at: 0, why: 'lock is already held' },
    { kind: 'done', entries: [] },
  ] as const;
  const seen = [{ ...held, session: 'other' }, undefined];
  const by: unknown[] = [];
  let sent = 0;
  let read = 0;
  const consul = fakeConsul({
    transact: () => Promise.resolve(answers[sent++] ?? answers[1]),
    get: () => Promise.resolve({ entry: seen[read], index: ++read }),
  });
  const request = { keys: [held.key], session: 's', run: 'r', onBusy: (who: unknown) => void by.push(who) };
  await lockAll({ consul, deps: {} as Deps }, request, new AbortController().signal);
  expect(by).toEqual([{ key: held.key, run: 'r-2' }, undefined]);
});
