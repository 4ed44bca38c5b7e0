// Where a job goes on, whatever its targets become and in whatever order.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FAILURES, FINAL_STATES, OPEN_STATES } from '../../src/jobs/documents.ts';
import type { FinalState, Stage, Tally } from '../../src/jobs/documents.ts';
import {
  NO_STAGE,
  countFinal,
  delayOf,
  failuresOf,
  first,
  firstTally,
  isEnded,
  isExpired,
  isOver,
  isPast,
  next,
  ready,
  shownState,
  stopped,
  whyNotStart,
} from '../../src/jobs/stage.ts';
import type { Rules } from '../../src/jobs/stage.ts';

const nowMs = Date.parse('2026-03-01T12:00:00.000Z');
const at = (ms: number) => new Date(nowMs + ms).toISOString();
const rules = (stages: number[], more: Partial<Rules> = {}): Rules => ({
  ...{ stages, maxFailures: 0, offline: 'skip', pauseMs: 0 },
  ...more,
});
const open = (stage: number): Stage => ({ rev: 1, kind: 'open', stage, since: at(0) });
const fill: Stage = { rev: 0, kind: 'fill' };
const stoppedFor = (why: 'failures' | 'cancelled' | 'expired' | 'unproven' | 'gone'): Stage => ({
  ...{ rev: 2, kind: 'stopped', why, at: at(0) },
});
const done: Stage = { rev: 3, kind: 'done', at: at(0) };

/** Each target's stage and what becomes of it. */
const tallyOf = (of: Rules, ends: readonly (readonly [stage: number, state: FinalState])[]): Tally =>
  ends.reduce((tally, [stage, state]) => countFinal(tally, stage, state), firstTally(of, 0));

describe('a job goes on', () => {
  test('in its first stage', () => {
    expect(first(firstTally(rules([1, 2]), 0), rules([1, 2]))).toEqual({ kind: 'open', stage: 0 });
  });

  test('in the first stage that has targets', () => {
    expect(first(firstTally(rules([0, 0, 2]), 0), rules([0, 0, 2]))).toEqual({ kind: 'open', stage: 2 });
  });

  test('with nothing to do, to its end', () => {
    expect(first(firstTally(rules([0, 0]), 3), rules([0, 0]))).toEqual({ kind: 'done' });
  });

  test('in the next stage once one is complete, with a good run in it', () => {
    const of = rules([2, 2], { maxFailures: 1, pauseMs: 60_000 });
    const tally = tallyOf(of, [
      [0, 'good'],
      [0, 'failed'],
    ]);
    expect(next(open(0), tally, { rules: of, nowMs })).toEqual({
      ...{ rev: 2, kind: 'open', stage: 1, since: at(0), notBefore: at(60_000) },
    });
  });

  test('past a stage that is complete already', () => {
    const of = rules([1, 1, 1], { maxFailures: 3 });
    const tally = tallyOf(of, [
      [1, 'good'],
      [0, 'good'],
    ]);
    expect(next(open(0), tally, { rules: of, nowMs })).toMatchObject({ kind: 'open', stage: 2 });
  });

  test('nowhere while its stage is not complete', () => {
    const of = rules([2, 1]);
    expect(next(open(0), tallyOf(of, [[0, 'good']]), { rules: of, nowMs })).toBeUndefined();
  });
});

describe('a job is stopped', () => {
  test('by one failure more than are allowed, at once', () => {
    const of = rules([3], { maxFailures: 1 });
    const one = tallyOf(of, [[0, 'failed']]);
    expect(next(open(0), one, { rules: of, nowMs })).toBeUndefined();
    expect(next(open(0), countFinal(one, 0, 'lost'), { rules: of, nowMs })).toEqual({
      ...{ rev: 2, kind: 'stopped', why: 'failures', at: at(0) },
    });
  });

  test('by too many failures while it is still being written', () => {
    const of = rules([2]);
    expect(next(fill, tallyOf(of, [[0, 'failed']]), { rules: of, nowMs })).toMatchObject({ why: 'failures' });
    expect(next(fill, tallyOf(of, [[0, 'good']]), { rules: of, nowMs })).toBeUndefined();
  });

  test('when a stage ended with nobody good, though nothing failed', () => {
    const of = rules([1, 1]);
    const refused = tallyOf(of, [[0, 'refused']]);
    expect(next(open(0), refused, { rules: of, nowMs })).toMatchObject({ kind: 'stopped', why: 'unproven' });
  });

  test('when a stage that is skipped had nobody good', () => {
    const of = rules([1, 1, 1]);
    const tally = tallyOf(of, [
      [1, 'refused'],
      [0, 'good'],
    ]);
    expect(next(open(0), tally, { rules: of, nowMs })).toMatchObject({ why: 'unproven' });
  });

  test('not for a last stage with nobody good: nothing follows', () => {
    const of = rules([1]);
    expect(next(open(0), tallyOf(of, [[0, 'refused']]), { rules: of, nowMs })).toMatchObject({
      kind: 'done',
    });
  });

  test('and stays so, as one that is done does', () => {
    const of = rules([1], { maxFailures: 0 });
    for (const end of [done, stoppedFor('cancelled')])
      expect(next(end, tallyOf(of, [[0, 'failed']]), { rules: of, nowMs })).toBeUndefined();
  });

  test('from the first, by targets that were offline where these are failures', () => {
    const of = rules([1], { offline: 'fail' });
    expect(ready(fill, firstTally(of, 1), { rules: of, nowMs })).toMatchObject({ why: 'failures', rev: 1 });
    const skips = rules([1]);
    expect(ready(fill, firstTally(skips, 1), { rules: skips, nowMs })).toEqual({
      ...{ rev: 1, kind: 'open', stage: 0, since: at(0) },
    });
  });

  test('by an operator, once', () => {
    const stop = { why: 'cancelled', by: 'ann' } as const;
    expect(stopped(open(0), stop, nowMs)).toEqual({
      ...{ rev: 2, kind: 'stopped', why: 'cancelled', by: 'ann', at: at(0) },
    });
    expect(stopped(fill, { why: 'expired' }, nowMs)).toMatchObject({ kind: 'stopped', why: 'expired' });
    expect(stopped(stoppedFor('failures'), stop, nowMs)).toBeUndefined();
    expect(stopped(done, { ...stop, kill: true }, nowMs)).toBeUndefined();
  });

  test('and its runs are ended too if somebody says so later', () => {
    const end = stopped(stoppedFor('failures'), { why: 'cancelled', kill: true }, nowMs);
    expect(end).toEqual({ ...stoppedFor('failures'), rev: 3, kill: true });
    expect(stopped(end ?? fill, { why: 'cancelled', kill: true }, nowMs)).toBeUndefined();
  });
});

test('failures are those of the job, and all other ends where offline ones are', () => {
  for (const state of FINAL_STATES) {
    const tally = tallyOf(rules([1]), [[0, state]]);
    const isFailure = (FAILURES as readonly string[]).includes(state);
    expect(failuresOf(tally, rules([1]))).toBe(isFailure ? 1 : 0);
    expect(failuresOf(tally, rules([1], { offline: 'fail' }))).toBe(state === 'good' ? 0 : 1);
    expect(failuresOf(tally, rules([1], { offline: 'wait' }))).toBe(isFailure ? 1 : 0);
  }
});

describe('whatever becomes of its targets', () => {
  const job = fc
    .record({
      sizes: fc.array(fc.nat({ max: 4 }), { minLength: 1, maxLength: 4 }),
      maxFailures: fc.nat({ max: 3 }),
      offline: fc.constantFrom<Rules['offline']>('wait', 'skip', 'fail'),
    })
    .chain(({ sizes, ...rest }) => {
      const targets = sizes.flatMap((size, stage) => Array.from({ length: size }, () => stage));
      return fc.record({
        of: fc.constant(rules(sizes, rest)),
        order: fc.shuffledSubarray([...targets.keys()], { minLength: targets.length }),
        ends: fc.tuple(...targets.map((stage) => fc.record({ stage: fc.constant(stage), state: likely }))),
      });
    });
  const likely = fc.oneof(
    { weight: 4, arbitrary: fc.constant<FinalState>('good') },
    { weight: 1, arbitrary: fc.constantFrom<FinalState>(...FINAL_STATES) },
  );

  test('stages only open forward, each after good runs, and the tally is a recount', () => {
    fc.assert(
      fc.property(job, ({ of, order, ends }) => {
        let tally = firstTally(of, 0);
        let stage = ready(fill, tally, { rules: of, nowMs });
        const counted: { stage: number; state: FinalState }[] = [];
        for (const i of order) {
          const end = ends[i];
          if (!end) continue;
          counted.push(end);
          tally = countFinal(tally, end.stage, end.state);
          const after = next(stage, tally, { rules: of, nowMs });
          if (after) {
            expect(stage.kind).toBe('open');
            expect(after.rev).toBe(stage.rev + 1);
            if (stage.kind === 'open' && after.kind === 'open')
              expect(after.stage).toBeGreaterThan(stage.stage);
            stage = after;
          }
          if (stage.kind !== 'open') continue;
          expect(failuresOf(tally, of)).toBeLessThanOrEqual(of.maxFailures);
          const { stage: at } = stage;
          expect(counted.filter((each) => each.stage === at).length).toBeLessThan(of.stages[at] ?? 0);
          for (const [before, size] of of.stages.slice(0, at).entries()) {
            const those = counted.filter((each) => each.stage === before);
            expect(those).toHaveLength(size);
            expect(size === 0 || those.some(({ state }) => state === 'good')).toBe(true);
          }
        }
        expect(stage.kind).not.toBe('open');
        expect(tally.rev).toBe(ends.length);
        for (const [i, { final, good }] of tally.stages.entries()) {
          const those = ends.filter((each) => each.stage === i);
          expect([final, good]).toEqual([those.length, those.filter(({ state }) => state === 'good').length]);
        }
        for (const state of FINAL_STATES)
          expect(tally.states[state] ?? 0).toBe(ends.filter((each) => each.state === state).length);
      }),
    );
  });
});

describe('what is shown of a target', () => {
  test('without a document it is queued, and its stop ends it', () => {
    expect(shownState(undefined, 0, fill)).toBe('queued');
    expect(shownState(undefined, 0, open(0))).toBe('queued');
    expect(shownState(undefined, 0, stoppedFor('cancelled'))).toBe('cancelled');
    expect(shownState(undefined, 0, stoppedFor('expired'))).toBe('expired');
    for (const why of ['failures', 'unproven', 'gone'] as const)
      expect(shownState({ state: 'accepted' }, 1, stoppedFor(why))).toBe('not-started');
  });

  test('a final state stays, whatever becomes of the job', () => {
    for (const state of FINAL_STATES)
      for (const stage of [fill, open(0), stoppedFor('cancelled'), done])
        expect(shownState({ state }, 0, stage)).toBe(state);
  });

  test('a run that is under way outlives the stop', () => {
    for (const state of ['running', 'rebooting'] as const)
      expect(shownState({ state }, 0, stoppedFor('failures'))).toBe(state);
    expect(shownState({ state: 'waiting' }, 0, open(0))).toBe('waiting');
  });

  test('one that was offline at the start is so, until a document says more', () => {
    expect(shownState(undefined, NO_STAGE, stoppedFor('cancelled'))).toBe('offline');
    expect(shownState({ state: 'good' }, NO_STAGE, done)).toBe('good');
  });

  test('every target of a job that is over has ended', () => {
    const documents = [undefined, ...FINAL_STATES, 'accepted', 'waiting'] as const;
    for (const state of documents)
      expect(isEnded(shownState(state && { state }, 0, stoppedFor('failures')))).toBe(true);
    for (const state of OPEN_STATES) expect(isEnded(state)).toBe(false);
    expect(isEnded('queued')).toBe(false);
  });
});

test('a job is over when it is done, or stopped with nothing under way', () => {
  expect([fill, open(0), done].map((stage) => isOver(stage, 0))).toEqual([false, false, true]);
  expect(isOver(stoppedFor('failures'), 1)).toBe(false);
  expect(isOver(stoppedFor('failures'), 0)).toBe(true);
});

describe('a target may start', () => {
  const accepted = { targetStage: 0, document: { state: 'accepted' }, until: at(60_000) } as const;
  const why = (stage: Stage, more: object = {}) => whyNotStart({ ...accepted, stage, ...more }, nowMs);

  test('when it has accepted and its stage, or a later one, is open', () => {
    expect(why(open(0))).toBeUndefined();
    expect(why(open(1))).toBeUndefined();
    expect(why(open(0), { document: { state: 'waiting' } })).toBeUndefined();
    expect(why(open(0), { targetStage: 1 })).toEqual({ kind: 'not-yet', why: 'stage' });
    expect(why(open(0), { document: undefined })).toEqual({ kind: 'not-yet', why: 'stage' });
    expect(why(fill)).toEqual({ kind: 'not-yet', why: 'fill' });
  });

  test('when its part of the splay is over, from the opening of the stage or the end of its pause', () => {
    const pause = (leftMs: number) => ({ kind: 'not-yet', why: 'pause', leftMs });
    expect(why(open(0), { delayMs: 700 })).toEqual(pause(700));
    expect(why({ ...open(0), since: at(-700) } as Stage, { delayMs: 700 })).toBeUndefined();
    const paused = { ...open(0), since: at(-60_000), notBefore: at(300) } as Stage;
    expect(why(paused, { delayMs: 700 })).toEqual(pause(1_000));
    expect(why(paused)).toEqual(pause(300));
    const parts = Array.from({ length: 200 }, (_, i) => delayOf(`web${i}`, 10_000));
    expect(parts.every((part) => part >= 0 && part < 10_000)).toBe(true);
    expect(new Set(parts).size).toBeGreaterThan(150);
    expect([delayOf('web1', 10_000), delayOf('web1')]).toEqual([parts[1], 0]);
  });

  test('after the pause before its stage', () => {
    const paused = { ...open(0), notBefore: at(1) } as Stage;
    expect(why(paused)).toEqual({ kind: 'not-yet', why: 'pause', leftMs: 1 });
    expect(why({ ...open(0), notBefore: at(0) } as Stage)).toBeUndefined();
  });

  test('never in a job that is stopped, done or past its end', () => {
    expect(why(stoppedFor('cancelled'))).toEqual({ kind: 'never', why: 'stopped' });
    expect(why(done)).toEqual({ kind: 'never', why: 'done' });
    expect(why(open(0), { until: at(0) })).toEqual({ kind: 'never', why: 'expired' });
    expect(why(fill, { until: at(0) })).toEqual({ kind: 'never', why: 'expired' });
  });

  test('never twice, and never without a stage', () => {
    for (const state of ['running', 'rebooting', ...FINAL_STATES])
      expect(why(open(0), { document: { state } })).toEqual({ kind: 'never', why: 'target' });
    expect(why(open(0), { targetStage: NO_STAGE })).toEqual({ kind: 'never', why: 'target' });
  });
});

test("a request ends by a node's own clock, a job only when every clock agrees", () => {
  expect([isPast(at(1), nowMs), isPast(at(0), nowMs)]).toEqual([false, true]);
  expect([isExpired(at(-4_999), nowMs), isExpired(at(-5_000), nowMs)]).toEqual([false, true]);
});
