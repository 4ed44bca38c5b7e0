// What nodes of a job wait for, as it follows from the queue of the job's group.
import { expect, test } from 'vitest';
import { waitOf, withWaits } from '../../src/view/job-waits.ts';
import type { NodeWaitView } from '../../src/view/job-waits.ts';
import { changesOf } from '../../src/view/job-changes.ts';
import type { JobReport } from '../../src/view/job.ts';
import type { GroupView } from '../../src/view/report.ts';

const acceptedAt = '2026-03-01T12:00:00.000Z';
const wait: NodeWaitView = {
  ...{ group: 'prod/web', run: 'r', since: acceptedAt, waitedMs: 5_000 },
  ...{ place: 2, why: '2 runs waiting' },
};

test.each([
  ['accepted', wait, 'place 2 in the queue of prod/web: 2 runs waiting'],
  ['waiting', wait, 'place 2 in the queue of prod/web: 2 runs waiting'],
  ['accepted', { ...wait, waitedMs: 999 }, undefined],
  ['accepted', { ...wait, since: '2026-03-01T11:59:59.999Z' }, undefined],
  ['running', wait, undefined],
  ['good', wait, undefined],
  ['queued', wait, undefined],
] as const)('a target that is %s, with %j', (state, given, why) => {
  const found = waitOf({ state, acceptedAt }, [given]);
  expect(found?.why).toBe(why);
  if (why !== undefined) expect(found).toMatchObject({ state: 'waiting', place: 2, waitsIn: 'prod/web' });
});

test('without a place it waits for its conditions, or its own claim', () => {
  const outside: NodeWaitView = {
    group: wait.group,
    run: 'r',
    since: acceptedAt,
    waitedMs: 5_000,
    why: wait.why,
  };
  expect(waitOf({ state: 'accepted', acceptedAt }, [outside])).toEqual({
    ...{ state: 'waiting', waitsIn: 'prod/web', why: 'in prod/web: 2 runs waiting' },
  });
});

const report = (targets: readonly object[]) =>
  ({ job: 'ops/j', state: 'open', problems: [], targets }) as unknown as JobReport;
const groupWith = (queue: readonly object[]) =>
  ({ group: 'prod/web', why: 'w', queue }) as unknown as GroupView;
const ticket = (node: string, place: number) => ({
  node,
  run: node,
  since: acceptedAt,
  waitedMs: 5_000,
  place,
});
const targets = ['a', 'b', 'c'].map((node) => ({ node, stage: 0, state: 'accepted', acceptedAt }));

test('the states still count each target once', () => {
  const shown = withWaits(report(targets), groupWith([ticket('b', 1), ticket('other', 2)]));
  expect(shown.states).toEqual({ accepted: 2, waiting: 1 });
  expect(shown.targets.map(({ state }) => state)).toEqual(['accepted', 'waiting', 'accepted']);
});

test('a target is told to wait once, not at each place', () => {
  const looks = [3, 2, 1].map((place) => withWaits(report(targets), groupWith([ticket('c', place)])));
  const [first, second, third] = looks as [JobReport, JobReport, JobReport];
  expect(changesOf(report(targets), first)).toMatchObject([{ event: 'target', node: 'c', place: 3 }]);
  expect(changesOf(first, second)).toEqual([]);
  expect(changesOf(second, third)).toEqual([]);
});

test('why the last try came to nothing stays', () => {
  const found = waitOf({ state: 'waiting', acceptedAt, why: 'its last run ended' }, [wait]);
  expect(found?.why).toBe('place 2 in the queue of prod/web: 2 runs waiting; its last run ended');
});
