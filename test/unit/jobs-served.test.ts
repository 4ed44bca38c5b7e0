// Which run serves a target that it was not started for: a table; and what of a run is in its record for that.
import { describe, expect, test } from 'vitest';
import { digestAsked, digestOf } from '../../src/agent/task/digest.ts';
import type { Task } from '../../src/agent/task/definition.ts';
import type { Spec, Stage, TargetDocument } from '../../src/jobs/documents.ts';
import { servedBy } from '../../src/jobs/served.ts';
import type { Seen, SeenTarget } from '../../src/jobs/transactions.ts';
import type { Grant } from '../../src/lock/head-of-queue.ts';
import { decodeRun, encodeRun } from '../../src/lock/records.ts';
import type { RunRecord } from '../../src/lock/records.ts';
import { toRecord } from '../../src/lock/release.ts';
import { at, nowMs, place, spec } from '../support/jobs.ts';

const OPENED = 20;
const open: Stage = { rev: 1, kind: 'open', stage: 1, since: at };

interface Facts {
  readonly stage?: Stage;
  readonly state?: TargetDocument['state'] | 'queued';
  readonly targetStage?: number;
  readonly spec?: Partial<Spec>;
  readonly nowMs?: number;
  readonly run?: Partial<RunRecord>;
  readonly task?: Partial<NonNullable<RunRecord['task']>> | null;
  /** Of the record. */
  readonly index?: number;
  /** In a second group: the record there; null: there is none. */
  readonly second?: Partial<RunRecord> | null;
  readonly runs?: readonly undefined[];
}

function serves(facts: Facts) {
  const { stage = open, state = 'accepted', targetStage = 1, index = 30, second, task = {} } = facts;
  const target: SeenTarget = {
    ...place('runlock'),
    spec: { value: { ...spec, ...facts.spec }, index: 1 },
    stage: { value: stage, index: OPENED },
    tally: { value: { rev: 0, stages: [], states: {} }, index: 3 },
    ...{ node: 'web02', targetStage },
    ...(state !== 'queued' && { document: { value: { rev: 0, state }, index: 22 } }),
  };
  const record: RunRecord = {
    ...{ node: 'web02', run: 'r1', outcome: 'succeeded', command: 'chef', slot: 0, endedAt: at },
    ...{ waitedMs: 0, ranMs: 0, claimIndex: 28 },
    ...(task && { task: { digest: 'd1', from: 25, ...task } }),
    ...facts.run,
  };
  const runs: (Seen<RunRecord> | undefined)[] = [{ value: record, index }];
  if (second !== undefined)
    runs.push(second === null ? undefined : { value: { ...record, ...second }, index });
  return servedBy(target, { runs: facts.runs ?? runs, digest: 'd1', nowMs: facts.nowMs ?? nowMs });
}

describe('served by', () => {
  test.each<[string, Facts, string]>([
    ['a good run whose claim came after the stage', {}, 'served by a run by hand'],
    ['also by the next index', { task: { from: OPENED + 1 } }, 'served by a run by hand'],
    ['the run of a job', { task: { job: 'ops/a' } }, 'served by the run of job ops/a'],
    ['a run that a change started', { task: { triggered: true } }, 'served by a run that a change started'],
    ['one whose own last try came to nothing', { state: 'waiting' }, 'served by a run by hand'],
    [
      'in the pause before the stage',
      { stage: { ...open, notBefore: '2026-03-01T12:05:00.000Z' } },
      'served by a run by hand',
    ],
    ['in both of its groups', { second: {} }, 'served by a run by hand'],
  ])('%s', (_, facts, why) => {
    expect(serves(facts)).toEqual({ state: 'good', run: 'r1', served: true, why });
  });
});

describe('served by nothing:', () => {
  const at1 = OPENED - 1;
  test.each<[string, Facts]>([
    ['the claim came before the stage', { task: { from: at1 } }],
    ['the claim came before, and was taken back after it', { task: { from: at1 }, run: { claimIndex: 29 } }],
    ['the claim has the index of the stage', { task: { from: OPENED } }],
    ['the index is that of another cluster', { task: { from: 5_000 }, index: 30 }],
    ['other parameters, or another task', { task: { digest: 'd2' } }],
    ['the run was of no task, or an older version wrote it', { task: null }],
    ...(['failed', 'unhealthy', 'rebooting', 'interrupted', 'timed-out', 'evicted', 'lost'] as const).map(
      (outcome): [string, Facts] => [`it was ${outcome}`, { run: { outcome } }],
    ),
    ['another run came after it in the second group', { second: { run: 'r2' } }],
    ['it failed in the second group', { second: { outcome: 'lost' } }],
    ['it began before, by the second group', { second: { task: { digest: 'd1', from: at1 } } }],
    ['it was another task by the second group', { second: { task: { digest: 'd2', from: 25 } } }],
    ['no run is known in the second group', { second: null }],
    ['no run is known', { runs: [undefined] }],
    ['there is no group', { runs: [] }],
    ['the request only tries', { spec: { noop: true } }],
    ['the request is past its end', { nowMs: Date.parse(spec.until) }],
    ['the target has not accepted', { state: 'queued' }],
    ['the target runs', { state: 'running' }],
    ['the target reboots', { state: 'rebooting' }],
    ['the target has ended', { state: 'failed' }],
    ['its stage is not open yet', { stage: { ...open, stage: 0 } }],
    ['it belongs to no stage', { targetStage: -1 }],
    ['the job is being written', { stage: { rev: 0, kind: 'fill' } }],
    ['the job is stopped', { stage: { rev: 2, kind: 'stopped', why: 'cancelled', at } }],
    ['the job is done', { stage: { rev: 2, kind: 'done', at } }],
  ])('%s', (_, facts) => {
    expect(serves(facts)).toBeUndefined();
  });
});

describe('the digest', () => {
  const task: Task = {
    ...{ name: 'chef', file: '/etc/runlock/tasks.d/chef.toml', command: ['/bin/chef', '-o', '{r}'] },
    ...{ params: [{ name: 'r', match: '[a-z]+', fallback: 'app', dash: false }] },
  } as unknown as Task;
  const asked = (params: Record<string, string>, more: object = {}, uid = 0) =>
    digestAsked({ ...task, ...more }, params, uid);

  test('is that of the run, also with a default written out', () => {
    const words = ['/bin/chef', '-o', 'app'];
    expect(asked({})).toBe(digestOf({ task, words, uid: 0 }));
    expect(asked({ r: 'app' })).toBe(asked({}));
    expect(asked({})).toMatch(/^[0-9a-f]{24}$/);
  });

  test.each<[string, string | undefined]>([
    ['another parameter', asked({ r: 'web' })],
    ['another name', asked({}, { name: 'chef2' })],
    ['another file', asked({}, { file: '/home/ann/chef.toml' })],
    ['another user', asked({}, { user: 'ann' })],
    ['another folder', asked({}, { cwd: '/srv' })],
    ['another caller', asked({}, {}, 1000)],
    ['another command', asked({}, { command: ['/bin/chef', '-o', '{r}', '-q'] })],
  ])('differs: %s', (_, digest) => {
    expect(digest).toBeDefined();
    expect(digest).not.toBe(asked({}));
  });

  test('of what the task does not allow is none', () => {
    expect(asked({ r: 'A B' })).toBeUndefined();
    expect(asked({ x: 'y' })).toBeUndefined();
  });
});

describe('a record', () => {
  const grantOf = (run: object) =>
    ({ context: { run, deps: { clock: { now: () => nowMs } } }, slot: 0 }) as unknown as Grant;
  const run = { id: 'r1', node: 'web01', command: 'chef' };
  const ending = { outcome: 'succeeded', waitedMs: 1, ranMs: 2 } as const;
  const task = { digest: 'd1', job: 'ops/a' };

  test('names the task, and an index from before its command', () => {
    const record = toRecord(grantOf({ ...run, task }), { ...ending, from: 7 });
    expect(record.task).toEqual({ ...task, from: 7 });
    expect(decodeRun({ key: 'k', value: encodeRun(record) })).toMatchObject(record);
  });

  test('does not where no command began, or it was of no task', () => {
    expect(toRecord(grantOf({ ...run, task }), ending)).not.toHaveProperty('task');
    expect(toRecord(grantOf(run), { ...ending, from: 7 })).not.toHaveProperty('task');
  });

  test.each([{ digest: 1, from: 1 }, { digest: 'd' }, { digest: 'd', from: -1 }, 'd', null])(
    'of a task %j can’t be read',
    (odd) => {
      const value = JSON.stringify({ v: 1, ...toRecord(grantOf(run), ending), task: odd });
      expect(() => decodeRun({ key: 'k', value })).toThrow(/not a run record/);
    },
  );
});
