// What an agent does about a request: each row of the table, and what no combination of facts may lead to.
import { describe, expect, test } from 'vitest';
import { decide } from '../../src/agent/serve.ts';
import type { Deed, Shown } from '../../src/agent/serve.ts';
import { FINAL_STATES, OPEN_STATES } from '../../src/jobs/documents.ts';
import type { Stage, TargetDocument } from '../../src/jobs/documents.ts';
import { isFinal } from '../../src/jobs/records.ts';
import type { SeenTarget } from '../../src/jobs/transactions.ts';
import { at, nowMs, place, spec } from '../support/jobs.ts';

const BOOT = 'boot pid:[1] time:[1]';
const stages = {
  fill: { rev: 1, kind: 'fill' },
  open0: { rev: 1, kind: 'open', stage: 0, since: at },
  open1: { rev: 1, kind: 'open', stage: 1, since: at },
  paused: { rev: 1, kind: 'open', stage: 1, since: at, notBefore: '2026-03-01T12:05:00.000Z' },
  stopped: { rev: 1, kind: 'stopped', why: 'cancelled', at },
  killed: { rev: 1, kind: 'stopped', why: 'cancelled', at, kill: true },
  done: { rev: 1, kind: 'done', at },
} as const satisfies Record<string, Stage>;
type StageName = keyof typeof stages;

interface Facts {
  readonly stage?: StageName;
  readonly state?: TargetDocument['state'];
  readonly targetStage?: number;
  readonly host?: Partial<Shown['host']>;
  readonly bootId?: string;
  readonly why?: string;
  readonly stop?: Shown['stop'];
  readonly refusal?: string;
  readonly nowMs?: number;
}

function shown(facts: Facts): Shown {
  const {
    stage = 'open1',
    state,
    targetStage = 1,
    host = {},
    bootId = BOOT,
    why,
    stop,
    refusal,
    ...time
  } = facts;
  const document = state && { rev: 1, state, run: 'r1', bootId, ...(why !== undefined && { why }) };
  const target: SeenTarget = {
    ...place('runlock'),
    spec: { value: { ...spec, filled: 2 }, index: 1 },
    stage: { value: stages[stage], index: 2 },
    tally: { value: { rev: 0, stages: [], states: {} }, index: 3 },
    ...{ node: 'web02', targetStage },
    ...(document && { document: { value: document, index: 4 } }),
  };
  return {
    look: { kind: 'target', target, known: { home: 'prod/web', chunk: 1 } },
    host: {
      ...{
        isExecAlive: false,
        isRunAlive: false,
        started: undefined,
        recorded: undefined,
        rebootEnded: undefined,
      },
      ...{ bootId: BOOT, notBeforeMs: 0, lastEnd: undefined, served: undefined, ...host },
    },
    ...{ stop, refusal, nowMs: time.nowMs ?? nowMs },
  };
}

const BEFORE = 'its last run ended before its command began';
const CLEARED = { key: 'owner', index: 0 };
const UNTIL = Date.parse(spec.until);
const waits = (kind: string, atMs?: number): Deed =>
  ({ kind: 'wait', until: { kind, ...(atMs !== undefined && { atMs }) } }) as Deed;
const ends = (state: string, why?: RegExp) => ({
  kind: 'end',
  end: { state, ...(why && { why: expect.stringMatching(why) as string }) },
});

describe('each row of the table:', () => {
  const good = { state: 'good', endedAt: at, exitCode: 0 } as const;
  const served = { state: 'good', run: 'r9', served: true, why: 'served by a run by hand' } as const;

  test.each<[string, Facts, object]>([
    ['not there yet, open: it is accepted', {}, { kind: 'accept' }],
    ['also long before its own stage', { stage: 'open0' }, { kind: 'accept' }],
    ['accepted, its stage open: it starts', { state: 'accepted' }, { kind: 'start' }],
    ['waiting, too, after its process has gone', { state: 'waiting' }, { kind: 'start' }],
    ['accepted, its stage not open', { state: 'accepted', stage: 'open0' }, waits('stage', UNTIL)],
    [
      'accepted, in the pause before',
      { state: 'accepted', stage: 'paused' },
      waits('stage', nowMs + 300_000),
    ],
    ['being written', { stage: 'fill' }, waits('stage', UNTIL)],
    [
      'being written, past its end: nothing is written before the job is ready',
      { stage: 'fill', nowMs: UNTIL + 3_600_000 },
      waits('stage', UNTIL + 3_660_000),
    ],
    [
      'accepted, and its process could not run the task: it is refused with what that said',
      { state: 'accepted', host: { lastEnd: { text: 'no task t', isUnfit: true } } },
      { kind: 'refuse', why: 'no task t' },
    ],
    [
      'accepted, and its process ended before its command began: others are told why, at once',
      {
        state: 'accepted',
        host: { lastEnd: { text: 'busy for 2s', isUnfit: false }, notBeforeMs: nowMs + 9 },
      },
      { kind: 'tell', why: `${BEFORE}: busy for 2s; it is tried again` },
    ],
    [
      'told so already: it is tried again',
      {
        state: 'waiting',
        why: `${BEFORE}: busy for 2s; it is tried again`,
        host: { lastEnd: { text: 'busy for 17s', isUnfit: false } },
      },
      { kind: 'start' },
    ],
    [
      'told of another end',
      {
        state: 'waiting',
        why: `${BEFORE}: busy for 2s; it is tried again`,
        host: { lastEnd: { text: 'no Consul', isUnfit: false } },
      },
      { kind: 'tell', why: `${BEFORE}: no Consul; it is tried again` },
    ],
    [
      'not accepted again, after its job was made anew: nothing is told',
      { host: { lastEnd: { text: 'busy', isUnfit: false } } },
      { kind: 'accept' },
    ],
    [
      'past its end, though its process ended before',
      { state: 'accepted', nowMs: UNTIL, host: { lastEnd: { text: 'busy', isUnfit: false } } },
      ends('expired'),
    ],
    ['accepted, and another run has served it', { state: 'accepted', host: { served } }, ends('good')],
    [
      'waiting, and another run has served it: nothing is told of its own last try',
      {
        state: 'waiting',
        host: { served, lastEnd: { text: 'busy', isUnfit: false }, notBeforeMs: nowMs + 9 },
      },
      { kind: 'end', end: served },
    ],
    ['not accepted: another run serves it only then', { host: { served } }, { kind: 'accept' }],
    [
      'accepted and started here before: its own end counts',
      { state: 'accepted', host: { served, started: { state: 'failed' } } },
      ends('failed'),
    ],
    [
      'its process lives, and looks itself',
      { state: 'accepted', host: { isExecAlive: true, served } },
      waits('exec'),
    ],
    [
      'stopped, and another run would have served it',
      { state: 'accepted', stage: 'stopped', host: { served } },
      { kind: 'drop', why: 'over' },
    ],
    ['its process lives', { state: 'accepted', host: { isExecAlive: true } }, waits('exec')],
    [
      'its process lives, and the job is stopped',
      { stage: 'stopped', host: { isExecAlive: true } },
      waits('exec'),
    ],
    ['stopped before it began', { state: 'accepted', stage: 'stopped' }, { kind: 'drop', why: 'over' }],
    ['stopped, never accepted', { stage: 'stopped' }, { kind: 'drop', why: 'over' }],
    ['paused here', { stop: 'paused' }, waits('node', UNTIL)],
    ['paused here, accepted', { state: 'accepted', stop: 'paused' }, waits('node', UNTIL)],
    ['rights not known yet', { stop: 'unknown-rights', refusal: 'x' }, waits('node', UNTIL)],
    ['refused by the files', { refusal: 'no such task' }, { kind: 'refuse', why: 'no such task' }],
    ['refused since it was accepted', { state: 'accepted', refusal: 'no' }, { kind: 'refuse', why: 'no' }],
    ['past its end', { nowMs: UNTIL }, ends('expired')],
    ['past its end, accepted, paused', { state: 'accepted', stop: 'paused', nowMs: UNTIL }, ends('expired')],
    ['the store went back', { host: { started: { state: 'failed', exitCode: 3 } } }, ends('failed')],
    [
      'the store went back, accepted',
      { state: 'accepted', host: { started: { state: 'lost' } } },
      ends('lost'),
    ],
    [
      'the store went back, past its end',
      { nowMs: UNTIL, host: { started: { state: 'good' } } },
      ends('good'),
    ],
    [
      'the store went back, it rebooted',
      { host: { started: { state: 'rebooting' } } },
      ends('lost', /rebooting/),
    ],
    [
      'its tries ended at once',
      { state: 'accepted', host: { notBeforeMs: nowMs + 9 } },
      waits('stage', nowMs + 9),
    ],
    ['running, nothing of it lives', { state: 'running' }, ends('lost', /not recorded/)],
    ['running, killed with its command', { state: 'running', stage: 'stopped' }, ends('lost')],
    [
      'running, its command is being ended',
      { state: 'running', host: { isRunAlive: true } },
      waits('remains'),
    ],
    [
      'running, its group says how it ended',
      { state: 'running', host: { recorded: good } },
      { kind: 'end', end: good },
    ],
    [
      'running, only the disk says how it ended',
      { state: 'running', host: { started: { state: 'failed', exitCode: 3 } } },
      { kind: 'end', end: { state: 'failed', exitCode: 3 } },
    ],
    [
      'running, the disk says good, and the group does not',
      { state: 'running', host: { started: { state: 'good' } } },
      ends('lost', /good.*could not be recorded/),
    ],
    ['running, past its end', { state: 'running', nowMs: UNTIL + 1 }, ends('lost')],
    ['rebooting, not booted yet', { state: 'rebooting' }, waits('stage', nowMs + 60_000)],
    ['rebooting, its job stopped', { state: 'rebooting', stage: 'stopped' }, waits('stage', nowMs + 60_000)],
    [
      'rebooting, its job stopped with --kill',
      { state: 'rebooting', stage: 'killed' },
      ends('cancelled', /--kill before its host had booted/),
    ],
    [
      'rebooting, another boot, its job stopped with --kill: it ran to its end',
      { state: 'rebooting', stage: 'killed', bootId: 'before' },
      { kind: 'after-reboot' },
    ],
    [
      'rebooting, another boot, paused, its job stopped with --kill',
      { state: 'rebooting', stage: 'killed', bootId: 'before', stop: 'paused' },
      ends('cancelled'),
    ],
    [
      'rebooting, its claim gone: lost, while what proves that is so',
      { state: 'rebooting', host: { rebootEnded: CLEARED } },
      { ...ends('lost', /its slot was cleared/), owner: CLEARED },
    ],
    [
      'rebooting, its claim gone, and its host has booted',
      { state: 'rebooting', bootId: 'before', host: { rebootEnded: CLEARED } },
      { kind: 'after-reboot' },
    ],
    ['rebooting, another boot', { state: 'rebooting', bootId: 'before' }, { kind: 'after-reboot' }],
    [
      'rebooting, another boot, paused',
      { state: 'rebooting', bootId: 'before', stop: 'paused' },
      waits('stage', nowMs + 60_000),
    ],
    ['offline at the start', { targetStage: -1 }, waits('stage', UNTIL)],
  ])('%s', (_, facts, expected) => {
    expect(decide(shown(facts))).toMatchObject(expected);
  });

  test.each(FINAL_STATES)('%s is over, and its pointer goes', (state) => {
    expect(decide(shown({ state, host: { isExecAlive: true } }))).toEqual({ kind: 'drop', why: 'over' });
  });

  test('a request that is gone, or does not name this node, is dropped once its process has left', () => {
    const { look, ...rest } = shown({});
    if (look.kind !== 'target') throw new Error();
    for (const gone of [
      { kind: 'gone' },
      { kind: 'broken', why: 'x' },
      { kind: 'unmeant', job: look.target },
    ] as const) {
      expect(decide({ ...rest, look: gone })).toEqual({ kind: 'drop', why: gone.kind });
      const host = { ...rest.host, isExecAlive: true };
      expect(decide({ ...rest, host, look: gone })).toEqual(waits('exec'));
    }
  });
});

describe('whatever else is true,', () => {
  const states = [undefined, ...FINAL_STATES, ...OPEN_STATES];
  const started = [
    undefined,
    { state: 'good' },
    { state: 'failed' },
    { state: 'lost' },
    { state: 'rebooting' },
  ] as const;
  const all: Facts[] = (Object.keys(stages) as StageName[]).flatMap((stage) =>
    states.flatMap((state) =>
      [-1, 0, 1].flatMap((targetStage) =>
        started.flatMap((before) =>
          ([undefined, 'paused', 'unknown-rights'] as const).flatMap((stop) =>
            [undefined, 'no'].flatMap((refusal) =>
              [true, false].flatMap((isExecAlive) =>
                [nowMs, UNTIL].map((now) => ({
                  ...{ stage, targetStage, stop, nowMs: now, host: { isExecAlive, started: before } },
                  ...(state && { state }),
                  ...(refusal !== undefined && { refusal }),
                })),
              ),
            ),
          ),
        ),
      ),
    ),
  );
  const decided = all.map((facts) => ({ facts, deed: decide(shown(facts)) }));
  const of = (kind: Deed['kind']) =>
    decided.filter(({ deed }) => deed.kind === kind).map(({ facts }) => facts);

  test('it starts only what is accepted, allowed, in time, in its stage, and never started', () => {
    const starts = of('start');
    expect(starts.length).toBeGreaterThan(0);
    for (const { state, host, stop, refusal, nowMs: now, stage, targetStage } of starts) {
      expect(['accepted', 'waiting']).toContain(state);
      expect(host).toMatchObject({ isExecAlive: false, started: undefined });
      expect([stop, refusal, now]).toEqual([undefined, undefined, nowMs]);
      expect(stage === 'open1' || (stage === 'open0' && targetStage === 0)).toBe(true);
      expect(targetStage).toBeGreaterThanOrEqual(0);
    }
  });

  test('it accepts and refuses only in an open job, and only what was never started', () => {
    for (const { state, stage = '', host, targetStage } of of('accept')) {
      expect(state).toBeUndefined();
      expect(stage).toMatch(/^open|paused/);
      expect(host?.started).toBeUndefined();
      expect(targetStage).toBeGreaterThanOrEqual(0);
    }
    for (const { state, stage, host } of of('refuse')) {
      expect([undefined, 'accepted', 'waiting']).toContain(state);
      expect(['fill', 'stopped', 'killed']).not.toContain(stage);
      expect(host?.started).toBeUndefined();
    }
  });

  test('it ends no target that has ended, that lives, or whose job was stopped before', () => {
    for (const { state, host, stage } of [...of('end'), ...of('refuse'), ...of('after-reboot')]) {
      expect(state !== undefined && isFinal(state)).toBe(false);
      expect(host?.isExecAlive).toBe(false);
      if (stage === 'stopped' || stage === 'killed') expect(['running', 'rebooting']).toContain(state);
    }
  });

  test('it drops only what has ended, or never began in a job that is stopped', () => {
    for (const { state, stage } of of('drop'))
      expect(state !== undefined && isFinal(state) ? 'over' : `${stage} ${state}`).toMatch(
        /^over|^(?:stopped|killed) (?:undefined|accepted|waiting)$/,
      );
  });

  test('each wait ends', () => {
    for (const { deed } of decided)
      if (deed.kind === 'wait' && 'atMs' in deed.until) expect(Number.isFinite(deed.until.atMs)).toBe(true);
  });
});
