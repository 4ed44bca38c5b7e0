// The lock of services' gates, while Consul does not answer.
import { expect, test } from 'vitest';
import type { Deps } from '../../src/platform/deps.ts';
import { RunlockError } from '../../src/errors.ts';
import { lockAll } from '../../src/gate/lock.ts';
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
