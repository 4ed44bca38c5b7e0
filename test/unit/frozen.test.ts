// Waiting for the end of a freeze, look by look: against a Consul that answers as the test says.
import { expect, test } from 'vitest';
import type { ReadOptions } from '../../src/consul/consul.ts';
import type { Deps } from '../../src/platform/deps.ts';
import { findFreeze, untilThawed } from '../../src/lock/freeze.ts';
import type { Progress } from '../../src/lock/context.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const keys = groupKeys('runlock', 'web');
const [KEY = ''] = keys.freezes;
const { signal } = new AbortController();

/** A freeze that ends at `untilMs`; each look shows the next of these indexes, and then it is gone. */
function frozen(untilMs: number, indexes: readonly number[], latestMs = 0) {
  const looks: ReadOptions[] = [];
  const said: string[] = [];
  const until = new Date(untilMs).toISOString();
  const value = encode({ by: 'root', reason: 'release day', since: new Date(0).toISOString(), until });
  const consul = fakeConsul({
    get: (key: string, options: ReadOptions) => {
      const index = key === KEY ? indexes[looks.push(options) - 1] : undefined;
      const entry = index === undefined ? undefined : { key, value, createIndex: 5, modifyIndex: index };
      return Promise.resolve({ entry, index: index ?? 9 });
    },
  });
  const clock = { now: () => latestMs, earliest: () => 0, latest: () => latestMs, monotonicMs: () => 0 };
  const emit: Deps['emit'] = (event) => void said.push(sentenceOf(event).message);
  const deps = { clock, emit } as Partial<Deps> as Deps;
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const run = { id: 'r1', node: 'web01', command: 'true', runner, hold: 'none', slots: 1 } as const;
  const progress: Progress = {
    ...{ signal, patience: signal, either: signal, attempts: [], newest: { index: 0 } },
    blocked: { kind: 'slots', slots: [] },
  };
  return { looks, said, progress, context: { consul, deps, keys, run } };
}

test('who waits looks again when the freeze changes, and at its end, when Consul changes nothing', async () => {
  const { context, looks, progress } = frozen(90_000, [6, 6]);
  await untilThawed(context, KEY, progress);
  expect(looks.map(({ index, waitMs }) => ({ index, waitMs }))).toEqual([
    { index: undefined, waitMs: undefined },
    { index: 6, waitMs: 90_000 },
    { index: 6, waitMs: 90_000 },
  ]);
});

test('a freeze is said once, and again when somebody has changed it', async () => {
  const { context, said, progress } = frozen(90_000, [6, 6, 6, 8]);
  await untilThawed(context, KEY, progress);
  expect(said).toHaveLength(2);
});

test('a freeze stops who asks, until it is past its end by the earliest time that it may be', async () => {
  const asked = frozen(90_000, [6], 3_600_000);
  expect(await findFreeze(asked.context, asked.progress, 1_000)).toMatchObject({ kind: 'frozen', at: 'web' });
  const ended = frozen(-1, [6]);
  expect(await findFreeze(ended.context, ended.progress, 1_000)).toBeUndefined();
});
