// The transactions of a job, one after the other, on a store in memory; that each check is needed is shown by the model.
import { describe, expect, test } from 'vitest';
import { FINAL_STATES } from '../../src/jobs/documents.ts';
import { firstTally, ready, stopped } from '../../src/jobs/stage.ts';
import {
  MOST_OPERATIONS,
  accept,
  collect,
  create,
  drop,
  dropOrphan,
  dropPointers,
  endOperations,
  fill,
  final,
  fits,
  late,
  lost,
  markReady,
  note,
  reboot,
  startOperations,
  startTarget,
  stop,
  tail,
} from '../../src/jobs/transactions.ts';
import type { End } from '../../src/jobs/transactions.ts';
import { changeStates, finish, setStates, start, stillHold } from '../../src/lock/transactions.ts';
import type { RunStep } from '../../src/lock/transactions.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { emptyStore, get, list, transact } from '../model/store.ts';
import { at, lists, nowMs, place, seenJob, seenTarget, spec } from '../support/jobs.ts';

const job = place('p');
const run = { run: 'r1', bootId: 'b', at };
const good: End = { state: 'good', endedAt: at, exitCode: 0 };

/** What is done to the store, one transaction after the other. */
function newJob() {
  let store = emptyStore;
  const find = (key: string) => {
    const entry = get(store, key);
    return entry && { value: entry.value, index: entry.modifyIndex };
  };
  const send = (steps: readonly RunStep[]): string => {
    const sent = transact(
      store,
      steps.map(({ operation }) => operation),
    );
    ({ store } = sent);
    return sent.answer.kind === 'done' ? 'done' : (steps[sent.answer.at]?.means ?? '');
  };
  const target = (node = 'web01') =>
    seenTarget(job, find, { node, targetStage: node === 'web01' ? 0 : node === 'web04' ? -1 : 1 });
  const read = (key: string): unknown => JSON.parse(find(key)?.value ?? 'null');
  const keys = () => list(store, 'p/').map(({ key }) => key);
  return { send, find, target, read, keys, seen: () => seenJob(job, find) };
}

function readyJob() {
  const made = newJob();
  made.send(create({ ...job, spec, tally: firstTally(spec, 1) }));
  for (const each of lists) made.send(fill(made.seen(), each));
  const { stage, tally } = made.seen();
  made.send(markReady(made.seen(), ready(stage.value, tally.value, { rules: spec, nowMs })));
  return made;
}

const pointer = (node: string) => job.requests.pointer(node, job.id);

describe('a starter', () => {
  test('writes request, stage and tally at once, and once', () => {
    const { send, read, keys } = newJob();
    const steps = create({ ...job, spec, tally: firstTally(spec, 1) });
    expect(send(steps)).toBe('done');
    expect(keys()).toEqual([job.requests.spec(job.id), job.keys.stage, job.keys.tally]);
    expect(read(job.keys.stage)).toEqual({ v: 1, rev: 0, kind: 'fill' });
    expect(read(job.keys.tally)).toMatchObject({ states: { offline: 1 } });
    expect(send(steps)).toBe('spec');
  });

  test('retries a job only as it was', () => {
    const { send, find } = readyJob();
    const again = place('p', 'deploy-2');
    const index = find(job.keys.stage)?.index ?? 0;
    const retried = (seenIndex: number) =>
      create({
        ...again,
        spec,
        tally: firstTally(spec, 0),
        retried: { key: job.keys.stage, index: seenIndex },
      });
    expect(send(retried(index - 1))).toBe('stage');
    expect(send(retried(index))).toBe('done');
  });

  test('writes one list after the other, and wakes all but those that were offline', () => {
    const { send, seen, read, keys } = newJob();
    send(create({ ...job, spec, tally: firstTally(spec, 1) }));
    const stale = seen();
    for (const each of lists) expect(send(fill(seen(), each))).toBe('done');
    expect(read(job.requests.spec(job.id))).toMatchObject({ filled: 2 });
    expect(read(job.requests.targets(job.id, 1))).toEqual({ v: 1, ...lists[1] });
    expect(keys().filter((key) => key.includes('/inbox/'))).toEqual(['web01', 'web02', 'web03'].map(pointer));
    expect(read(pointer('web01'))).toEqual({ v: 1, nonce: 'n1', chunk: 0 });
    expect(send(fill(stale, lists[0]))).toBe('spec');
  });

  test('fills nothing into a job that was stopped', () => {
    const { send, seen } = newJob();
    send(create({ ...job, spec, tally: firstTally(spec, 1) }));
    const before = seen();
    const cancelled = stopped(before.stage.value, { why: 'cancelled' }, nowMs);
    expect(cancelled && send(stop(before, cancelled))).toBe('done');
    expect(send(fill({ ...seen(), stage: before.stage }, lists[0]))).toBe('stage');
  });

  test('is in time with a list as long as any, in one transaction', () => {
    const targets = Array.from({ length: 60 }, (_, i) => [`web${i}`, 0] as const);
    const { send, seen } = newJob();
    send(create({ ...job, spec, tally: firstTally(spec, 1) }));
    expect(fill(seen(), { targets })).toHaveLength(63);
  });
});

describe('a target', () => {
  test('accepts, waits, runs and ends, and the next stage opens with its end', () => {
    const { send, target, read, keys } = readyJob();
    expect(send(accept(target(), at))).toBe('done');
    expect(send(note(target(), 'for its turn'))).toBe('done');
    expect(read(job.keys.node('web01'))).toMatchObject({ state: 'waiting', why: 'for its turn', rev: 1 });
    expect(send(startTarget(target(), run))).toBe('done');
    expect(read(job.keys.node('web01'))).toEqual({
      ...{ v: 1, rev: 2, state: 'running', acceptedAt: at, run: 'r1', bootId: 'b', startedAt: at },
    });
    expect(send(tail(target(), 'line'))).toBe('done');
    expect(read(job.keys.tail('web01'))).toEqual({ v: 1, line: 'line' });
    expect(send(final(target(), { end: good, nowMs, isNode: true }))).toBe('done');
    expect(read(job.keys.node('web01'))).toMatchObject({ state: 'good', rev: 3, exitCode: 0, run: 'r1' });
    expect(read(job.keys.stage)).toEqual({ v: 1, rev: 2, kind: 'open', stage: 1, since: at });
    expect(read(job.keys.tally)).toEqual({
      ...{ v: 1, rev: 1, states: { offline: 1, good: 1 } },
      stages: [
        { final: 1, good: 1 },
        { final: 0, good: 0 },
      ],
    });
    expect(keys()).not.toContain(pointer('web01'));
    expect(keys()).not.toContain(job.keys.tail('web01'));
  });

  test('that fails stops the job in the same transaction', () => {
    const { send, target, read } = readyJob();
    send(accept(target(), at));
    send(startTarget(target(), run));
    const before = target('web02');
    send(final(target(), { end: { ...good, state: 'failed', exitCode: 1 }, nowMs }));
    expect(read(job.keys.stage)).toMatchObject({ kind: 'stopped', why: 'failures' });
    expect(send(accept(before, at))).toBe('stage');
  });

  test('keeps its pointer when somebody else ends it', () => {
    const { send, target, keys } = readyJob();
    send(final(target(), { end: { state: 'offline', endedAt: at }, nowMs }));
    expect(keys()).toContain(pointer('web01'));
  });

  test('does not start once its job was stopped, its request changed, or it has begun', () => {
    const { send, target, seen } = readyJob();
    send(accept(target(), at));
    const before = target();
    const cancelled = stopped(before.stage.value, { why: 'cancelled' }, nowMs);
    send([{ means: 'spec', operation: { verb: 'set', key: job.requests.spec(job.id), value: '{}' } }]);
    expect(send(startTarget(before, run))).toBe('spec');
    expect(cancelled && send(stop({ ...before, stage: before.stage }, cancelled))).toBe('done');
    expect(send(startTarget(before, run))).toBe('stage');
    expect(() => seen()).toThrow(/request/);
  });

  test('ends once: the second of two ends is refused', () => {
    const { send, target } = readyJob();
    const before = target();
    expect(send(final(before, { end: { state: 'refused', endedAt: at }, nowMs }))).toBe('done');
    expect(send(final(before, { end: { state: 'lost', endedAt: at }, nowMs }))).toBe('stage');
    const again = { ...target(), document: undefined };
    expect(send(final(again as never, { end: { state: 'lost', endedAt: at }, nowMs }))).toBe('target');
  });

  test('that reboots has no final state, and counts nowhere', () => {
    const { send, target, read } = readyJob();
    send(accept(target(), at));
    send(startTarget(target(), run));
    expect(send(reboot(target(), { bootId: 'b' }))).toBe('done');
    expect(read(job.keys.node('web01'))).toMatchObject({ state: 'rebooting', run: 'r1' });
    expect(read(job.keys.tally)).toMatchObject({ rev: 0 });
  });

  test('that ended says how its run ended all the same, and stays as it is', () => {
    const { send, target, read } = readyJob();
    expect(late(target(), 'good')).toEqual([]);
    send(final(target(), { end: { state: 'lost', endedAt: at }, nowMs }));
    expect(send(late(target(), 'good'))).toBe('done');
    expect(read(job.keys.node('web01'))).toMatchObject({ state: 'lost', late: 'good' });
    expect(read(job.keys.tally)).toMatchObject({ rev: 1 });
  });
});

test('a run is lost only while its claim is as it was seen', () => {
  const { send, target, find } = readyJob();
  const owner = groupKeys('p', 'prod/web').owner(0);
  send([{ means: 'owner', operation: { verb: 'set', key: owner, value: '1' } }]);
  const index = find(owner)?.index ?? 0;
  send([{ means: 'owner', operation: { verb: 'set', key: owner, value: '2' } }]);
  const ended = { end: { state: 'lost', endedAt: at }, nowMs } as const;
  expect(send(lost(target(), [{ key: owner, index }], ended))).toBe('owner');
  expect(send(lost(target(), [{ key: owner, index: 0 }], ended))).toBe('owner');
  expect(send(lost(target(), [{ key: owner, index: index + 1 }], ended))).toBe('done');
});

describe('a pointer', () => {
  test('goes when its target has ended, or its job was stopped', () => {
    const { send, target, find, keys } = readyJob();
    const index = () => find(pointer('web01'))?.index ?? 0;
    const before = target();
    send(final(before, { end: { state: 'lost', endedAt: at }, nowMs }));
    expect(send(drop(before, 'document', index()))).toBe('target');
    expect(send(drop(before, 'stage', index()))).toBe('stage');
    expect(send(drop(target(), 'document', index()))).toBe('done');
    expect(keys()).not.toContain(pointer('web01'));
  });

  test('of a request that is gone goes, but not one that was set anew', () => {
    const { send, find, keys } = readyJob();
    const index = find(pointer('web01'))?.index ?? 0;
    send([{ means: 'spec', operation: { verb: 'set', key: pointer('web01'), value: '{"nonce":"n2"}' } }]);
    expect(send(dropOrphan({ key: pointer('web01'), index }))).toBe('target');
    expect(send(dropOrphan({ key: pointer('web01'), index: find(pointer('web01'))?.index ?? 0 }))).toBe(
      'done',
    );
    expect(keys()).not.toContain(pointer('web01'));
  });
});

test('a job that is over is removed without a trace, but not one that changed', () => {
  const { send, seen, keys } = readyJob();
  const before = seen();
  const cancelled = stopped(before.stage.value, { why: 'cancelled' }, nowMs);
  if (cancelled) send(stop(before, cancelled));
  expect(send(dropPointers(before, ['web01']))).toBe('stage');
  expect(send(collect(before))).toBe('stage');
  expect(send(dropPointers(seen(), ['web01', 'web02', 'web03']))).toBe('done');
  expect(send(collect(seen()))).toBe('done');
  expect(keys()).toEqual([]);
});

describe('what a run of a job writes fits into one transaction', () => {
  const seat = { keys: groupKeys('p', 'prod/web'), session: 's', slot: 0 };
  const of = (count: number) => Array.from({ length: count }, (_, i) => i);
  const record = { node: 'web01' } as never;

  test('counted as it is sent', () => {
    const { target, send } = readyJob();
    send(accept(target(), at));
    for (const [groups, publish, during, conditions] of [
      [1, 0, 0, 0],
      [2, 3, 4, 5],
      [8, 10, 0, 0],
    ] as const) {
      const held = of(groups).map(() => ({ seat, index: 1, record }));
      const state = { key: 'k', value: '1' };
      const states = of(publish).map(() => ({ kind: 'set', ...state }) as const);
      const shown = of(during).map(() => ({ kind: 'delete', key: 'k', index: 1 }) as const);
      const size = { groups, publish, during, conditions };
      // And a trigger's cursor.
      const end = [
        ...finish(held, [
          ...changeStates([...states, ...shown]),
          ...final(target(), { end: good, nowMs, isNode: true }),
        ]),
      ];
      expect(end.length + 1).toBe(endOperations(size));
      const begin = start(held, [
        ...startTarget(target(), run),
        ...stillHold(of(conditions).map(() => ({ key: 'c', index: 1 }))),
        ...setStates(of(during).map(() => state)),
      ]);
      expect(begin).toHaveLength(startOperations(size));
    }
  });

  test('with eight groups, ten states and no more', () => {
    const size = { groups: 8, publish: 6, during: 4, conditions: 0 };
    expect(endOperations(size)).toBe(MOST_OPERATIONS);
    expect(fits(size)).toBe(true);
    expect(fits({ ...size, publish: 7 })).toBe(false);
    expect(fits({ ...size, during: 5 })).toBe(false);
    expect(fits({ groups: 1, publish: 0, during: 0, conditions: 59 })).toBe(true);
    expect(fits({ groups: 1, publish: 0, during: 0, conditions: 60 })).toBe(false);
    expect(fits({ groups: 9, publish: 4, during: 0, conditions: 0 })).toBe(true);
    expect(fits({ groups: 9, publish: 5, during: 0, conditions: 0 })).toBe(false);
  });
});

test('every final state is one that a target can end with', () => {
  for (const state of FINAL_STATES) {
    const { send, target, read } = readyJob();
    expect(send(final(target(), { end: { state, endedAt: at }, nowMs }))).toBe('done');
    expect(read(job.keys.node('web01'))).toMatchObject({ state });
  }
});
