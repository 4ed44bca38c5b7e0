// The judge of jobs, judged itself: a history that keeps all promises, and each promise broken in it.
import { describe, expect, test } from 'vitest';
import { judgeJob } from '../support/history/jobs.ts';
import type { CommandTrace, JobHistory, JobLook, TriggerTrace } from '../support/history/jobs.ts';

type Targets = Record<string, readonly [index: number, state: string]>;

const look = (stage: readonly [index: number, kind: string], targets: Targets, tally = {}): JobLook => ({
  stage: { index: stage[0], value: { kind: stage[1] } },
  tally,
  targets: new Map(
    Object.entries(targets).map(([node, [index, state]]) => [
      node,
      { index, value: { state, run: `r-${node}` } },
    ]),
  ),
});
const command = (node: string, startMs: number, lastMs: number, run = `r-${node}`): CommandTrace => ({
  ...{ node, run, startMs, lastMs, isOfJob: true },
});

const good: JobHistory = {
  named: ['web01', 'web02', 'web03'],
  allowing: ['web01', 'web02', 'web03'],
  commands: [command('web01', 1_000, 2_000), command('web02', 2_100, 3_000)],
  looks: [
    look([1, 'fill'], {}),
    look([2, 'open'], { web01: [3, 'accepted'] }),
    look([2, 'open'], { web01: [4, 'running'] }),
    look([2, 'open'], { web01: [5, 'good'], web02: [6, 'running'] }, { good: 1 }),
    look([7, 'stopped'], { web01: [5, 'good'], web02: [7, 'failed'] }, { good: 1, failed: 1 }),
  ],
};
const trigger: TriggerTrace = {
  task: 'chef',
  changesMs: [1_000, 1_200, 5_000],
  runs: [
    { startMs: 2_000, isGood: false, chain: ['deploy@ci', 'chef@web01'] },
    { startMs: 3_000, isGood: true, chain: ['chef@web01'] },
    { startMs: 6_000, isGood: true, chain: ['chef@web01'] },
  ],
};
const last = good.looks.length - 1;
const instead = (i: number, other: JobLook): JobHistory => ({ ...good, looks: good.looks.with(i, other) });

test('a history that keeps its promises breaks none', () => {
  expect(judgeJob({ ...good, triggers: [trigger] })).toEqual([]);
});

test('a job that is done, with one that was offline at the start, breaks none', () => {
  const targets: Targets = { web01: [5, 'good'], web02: [6, 'good'] };
  expect(judgeJob(instead(last, look([7, 'done'], targets, { good: 2, offline: 1 })))).toEqual([]);
});

describe('a target that another run has served', () => {
  const servedLook = (state = 'good'): JobLook => {
    const { stage, ...more } = look([9, 'done'], { web01: [5, 'good'], web02: [9, state] }, { good: 2 });
    const targets = new Map(more.targets);
    targets.set('web02', { index: 9, value: { state, run: 'cron', served: true } });
    return { ...more, stage, targets };
  };
  const other = { node: 'web02', run: 'cron', isGood: true, claimIndex: 3 };
  const served: JobHistory = {
    ...{ named: ['web01', 'web02'], allowing: ['web01', 'web02'], others: [other] },
    commands: [command('web01', 1_000, 2_000)],
    looks: [
      look([2, 'open'], {}),
      look([2, 'open'], { web01: [5, 'good'], web02: [6, 'accepted'] }, { good: 1 }),
      servedLook(),
    ],
  };
  const by = (more: object): JobHistory => ({ ...served, others: [{ ...other, ...more }] });

  test('breaks nothing if that run was good and began once the stage was open', () => {
    expect(judgeJob(served)).toEqual([]);
  });

  test.each<[string, JobHistory, RegExp]>([
    ['by a run that began before', by({ claimIndex: 2 }), /began before/],
    ['by a run that failed', by({ isGood: false }), /not good/],
    ['by a run of another node', by({ node: 'web01' }), /no such node/],
    ['by nobody', { ...served, others: [] }, /no such node/],
    [
      'and whose command ran all the same',
      { ...served, commands: [...served.commands, command('web02', 3_000, 4_000)] },
      /and ran/,
    ],
    ['and is not good', { ...served, looks: served.looks.with(2, servedLook('failed')) }, /served as failed/],
  ])('%s: rejected', (_, history, what) => {
    expect(judgeJob(history)).toContainEqual({
      promise: 6,
      what: expect.stringMatching(what) as string,
    });
  });
});

describe('a history is rejected', () => {
  const failed: Targets = { web01: [5, 'good'], web02: [7, 'failed'] };
  const bad: [string, number, JobHistory][] = [
    ['where a node ran that no list names', 4, { ...good, named: ['web01'] }],
    ['where a node ran that does not allow it', 4, { ...good, allowing: ['web01'] }],
    [
      'where a target started twice',
      5,
      { ...good, commands: [...good.commands, command('web01', 4_000, 5_000)] },
    ],
    [
      'where a node ran two at once',
      5,
      {
        ...good,
        commands: [...good.commands, { node: 'web02', run: 'cron', startMs: 2_500, lastMs: 2_600 }],
      },
    ],
    [
      'where a final state changed',
      6,
      instead(last, look([7, 'stopped'], { web01: [6, 'lost'] }, { lost: 1 })),
    ],
    ['where a final state went', 6, instead(last, look([7, 'stopped'], {}, {}))],
    [
      'where a job that was stopped went on',
      6,
      { ...good, looks: [...good.looks, look([8, 'done'], failed, { good: 1, failed: 1, offline: 1 })] },
    ],
    ['where an end was not counted', 6, instead(last, look([7, 'stopped'], failed, { good: 1 }))],
    [
      'where an end was counted twice',
      6,
      instead(last, look([7, 'stopped'], failed, { good: 1, failed: 2 })),
    ],
    [
      'where a target acted before the job was ready',
      6,
      instead(0, look([1, 'fill'], { web01: [1, 'accepted'] })),
    ],
    ['where the job never ended', 6, { ...good, looks: good.looks.slice(0, -1) }],
    [
      'where a target ran on in the end',
      6,
      instead(last, look([7, 'stopped'], { web01: [5, 'good'], web02: [6, 'running'] }, { good: 1 })),
    ],
    [
      'where a target vanished from a job that is done',
      6,
      instead(last, look([7, 'done'], { web01: [5, 'good'], web02: [6, 'good'] }, { good: 2 })),
    ],
    [
      'where a target started after the stop',
      8,
      {
        ...good,
        looks: [
          ...good.looks,
          look([7, 'stopped'], { ...failed, web03: [8, 'running'] }, { good: 1, failed: 1 }),
          look([7, 'stopped'], { ...failed, web03: [9, 'good'] }, { good: 2, failed: 1 }),
        ],
      },
    ],
    [
      'where a change was missed',
      7,
      { ...good, triggers: [{ ...trigger, changesMs: [...trigger.changesMs, 7_000] }] },
    ],
    [
      'where a trigger ran for nothing',
      7,
      {
        ...good,
        triggers: [{ ...trigger, runs: [...trigger.runs, { startMs: 9_000, isGood: true, chain: [] }] }],
      },
    ],
    [
      'where a task was its own cause',
      9,
      {
        ...good,
        triggers: [
          {
            ...trigger,
            runs: [{ startMs: 6_000, isGood: true, chain: ['a@x', 'b@y', 'a@x'] }],
          },
        ],
      },
    ],
    [
      'where a chain is too long',
      9,
      {
        ...good,
        triggers: [
          {
            ...trigger,
            runs: [{ startMs: 6_000, isGood: true, chain: Array.from({ length: 10 }, (_, i) => `t${i}@x`) }],
          },
        ],
      },
    ],
  ];
  test.each(bad)('%s: promise %i', (_, promise, history) => {
    expect(judgeJob(history).map((one) => one.promise)).toContain(promise);
    expect(new Set(judgeJob(history).map((one) => one.promise))).toEqual(new Set([promise]));
  });

  test('but not where what was missed came after it was held back', () => {
    const paused = { ...trigger, changesMs: [...trigger.changesMs, 7_000], heldBackMs: 6_500 };
    expect(judgeJob({ ...good, triggers: [paused] })).toEqual([]);
  });
});
