// The pauses of a run that gives its slots up again and again.
import { expect, test } from 'vitest';
import type { ExecDeps } from '../../src/runner/options.ts';
import { tryFromOutside } from '../../src/runner/outside.ts';
import type { Closed } from '../../src/runner/outside.ts';

const never = new AbortController().signal;

const scene = () => {
  const pauses: number[] = [];
  const said: string[] = [];
  const deps: Partial<ExecDeps> = {
    random: () => 1,
    emit: ({ event }) => void said.push(String(event)),
    clock: {
      monotonicMs: () => 0,
      sleep: (ms: number) => {
        pauses.push(ms);
        return Promise.resolve();
      },
    } as Partial<ExecDeps['clock']> as ExecDeps['clock'],
  };
  const outside = {
    ...{ run: 'r1', group: 'web', gate: undefined, conditions: undefined },
    waiting: { signal: never, patience: never, either: never },
    record: { during: <T>(_: unknown, wait: () => Promise<T>) => wait() },
  };
  const tryTimes = async (closed: Closed, times: number) => {
    let left = times;
    return tryFromOutside(deps as ExecDeps, outside, () =>
      Promise.resolve(left-- > 0 ? closed : { kind: 'taken' as const }),
    );
  };
  return { pauses, said, tryTimes };
};

test('conditions that turn false with each grant keep the group busy less and less', async () => {
  const { pauses, said, tryTimes } = scene();
  const closed = { kind: 'closed', verdicts: [], missing: ['state:a: a is not set'] } as const;
  expect(await tryTimes(closed, 7)).toEqual({ kind: 'taken' });
  expect(pauses).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  expect(said).toEqual(Array.from({ length: 7 }, () => 'when-gave-way'));
});

test('a gate alone has no pause: it must have been open for a while anyway', async () => {
  const { pauses, tryTimes } = scene();
  expect(await tryTimes({ kind: 'closed', verdicts: [], missing: [] }, 3)).toEqual({ kind: 'taken' });
  expect(pauses).toEqual([]);
});
