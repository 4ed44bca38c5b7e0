// What `runlock job` shows of a job, what it tells of a change, and its exit statuses.
import { describe, expect, test } from 'vitest';
import { changeText, renderJob, targetText } from '../../src/output/job.ts';
import { renderJobScreen } from '../../src/output/job-screen.ts';
import { changesOf } from '../../src/view/job-changes.ts';
import { exitOf, exitOfAnswers } from '../../src/view/job-outcome.ts';
import { isAnswered } from '../../src/view/job.ts';
import type { JobReport, TargetReport } from '../../src/view/job.ts';
import { heldOf } from '../../src/commands/job/inside.ts';
import { homeOf, resolve } from '../../src/jobs/resolve.ts';
import type { AgentSeen } from '../../src/jobs/resolve.ts';
import type { AgentDocument } from '../../src/jobs/documents.ts';

const NOW = Date.parse('2026-03-01T12:00:00Z');
const ago = (seconds: number) => new Date(NOW - seconds * 1_000).toISOString();

const reportOf = (targets: readonly Partial<TargetReport>[], more: Partial<JobReport> = {}): JobReport => {
  const all = targets.map((each, i): TargetReport => ({ node: `n${i}`, stage: 0, state: 'queued', ...each }));
  const states: Record<string, number> = {};
  for (const { state } of all) states[state] = (states[state] ?? 0) + 1;
  return {
    ...{ v: 1, prefix: 'runlock', at: ago(0), job: 'ops/j', principal: 'ops', id: 'j', task: 'chef' },
    ...{ params: {}, home: 'prod/web', by: 'me@here', askedAt: ago(60), until: ago(-3_600), state: 'open' },
    ...{ stages: [all.length], maxFailures: 0, offline: 'wait', targets: all, states, problems: [] },
    ...more,
  };
};
const stopped = (why: NonNullable<JobReport['stopped']>['why']) =>
  ({ stopped: { why, at: ago(1) } }) as const;

describe('the exit status', () => {
  const states = {
    ...{ g: 'good', f: 'failed', n: 'not-started', c: 'cancelled', r: 'refused', l: 'lost', u: 'unhealthy' },
    ...{ t: 'timed-out', o: 'offline', e: 'expired', x: 'unreadable' },
  } as const;

  const stateOf = (letter: string) => states[letter as keyof typeof states] as TargetReport['state'];

  // Each combination of the first five, and each of the others beside a good one.
  test.each([
    [0, 'g gg'],
    [1, 'f gf fr gfr ff gl gu gt lo'],
    [2, 'n gn fn nr gfn gnr fnr gfnr en'],
    [3, 'c gc fc nc cr gfc gnc gcr fnc fcr ncr gfnc gfcr gncr fncr gfncr lc xc'],
    [4, 'r gr go ge gx o e x'],
  ])('is %i for %s, also if an operator has cancelled the job too late for them', (status, all) => {
    for (const letters of all.split(' ')) {
      const targets = Array.from(letters, (letter) => ({ state: stateOf(letter) }));
      for (const more of [{}, stopped('cancelled'), stopped('failures')])
        expect([letters, exitOf(reportOf(targets, more))]).toEqual([letters, status]);
    }
  });

  test('of a start that waits for answers alone is 4 where somebody refused', () => {
    expect(exitOfAnswers(reportOf([{ state: 'accepted' }, { state: 'failed' }]))).toBe(0);
    for (const state of ['refused', 'expired', 'offline', 'unreadable'] as const)
      expect(exitOfAnswers(reportOf([{ state: 'good' }, { state }]))).toBe(4);
  });

  test('a start waits until none is queued, and not for a request that is still being written', () => {
    expect(isAnswered(reportOf([{ state: 'accepted' }, { state: 'queued' }]))).toBe(false);
    expect(isAnswered(reportOf([{ state: 'running' }, { state: 'refused' }]))).toBe(true);
    expect(isAnswered(reportOf([], { state: 'incomplete' }))).toBe(false);
    expect(isAnswered(reportOf([{ state: 'queued' }], { state: 'stopped' }))).toBe(true);
  });
});

describe('changes', () => {
  const events = (...given: Parameters<typeof changesOf>) =>
    changesOf(...given).map((each) => (each.event === 'target' ? `${each.node} ${each.state}` : each.event));

  test('the first look tells the job, and of targets what is more than queued', () => {
    expect(events(undefined, reportOf([{ state: 'queued' }, { state: 'running' }]))).toEqual([
      'job',
      'n1 running',
    ]);
  });

  test('then only what is new: a state, a reason, a stop, a record that can not be read, the end', () => {
    const before = reportOf([{ state: 'waiting', why: 'place 2' }, { state: 'good' }]);
    expect(events(before, before)).toEqual([]);
    expect(events(before, reportOf([{ state: 'waiting', why: 'place 1' }, { state: 'good' }]))).toEqual([
      'n0 waiting',
    ]);
    const late = reportOf([
      { state: 'waiting', why: 'place 2' },
      { state: 'good', late: 'failed' },
    ]);
    expect(events(before, late)).toEqual(['n1 good']);
    const stopping = reportOf([{ state: 'running' }, { state: 'good' }], {
      state: 'stopping',
      ...stopped('cancelled'),
    });
    expect(events(before, stopping)).toEqual(['n0 running', 'stopped']);
    expect(events(stopping, stopping)).toEqual([]);
    const killed = { ...stopping, stopped: { ...stopping.stopped, kill: true } } as JobReport;
    expect(events(stopping, killed)).toEqual(['stopped']);
    expect(events(before, { ...before, problems: ['x'] })).toEqual(['problem']);
    const running = (lastLine: string) => reportOf([{ state: 'running', lastLine }]);
    expect(events(running('a'), running('b'))).toEqual(['n0 running']);
    expect(events(running('b'), running('b'))).toEqual([]);
    const over = reportOf([{ state: 'good' }, { state: 'good' }], { state: 'done' });
    expect(events(before, over)).toEqual(['n0 good', 'over']);
    expect(events(over, over)).toEqual([]);
  });
});

describe('words', () => {
  test.each([
    [{ state: 'good', exitCode: 0, startedAt: ago(9), endedAt: ago(5) }, 'n: good after 4s'],
    [
      { state: 'failed', exitCode: 7, startedAt: ago(9), endedAt: ago(5), lastLine: ' no space ' },
      'n: failed (exit code 7) after 4s: no space',
    ],
    [{ state: 'refused', why: 'not allowed' }, 'n: refused: not allowed'],
    [{ state: 'timed-out' }, 'n: timed out'],
    [{ state: 'not-started' }, 'n: not started'],
    [{ state: 'good', served: true, run: 'r1' }, 'n: good: served by run r1'],
    [{ state: 'lost', late: 'succeeded' }, 'n: lost: its run ended later: succeeded'],
  ] as const)('%j', (target, text) => {
    expect(targetText({ node: 'n', stage: 0, ...target }, NOW)).toBe(text);
  });

  test('a job: failed nodes first, good ones last, and why it was stopped', () => {
    const report = reportOf(
      [
        { node: 'a', state: 'good', exitCode: 0, startedAt: ago(50), endedAt: ago(40) },
        { node: 'b', state: 'running', startedAt: ago(30) },
        { node: 'c', state: 'failed', exitCode: 1, startedAt: ago(50), endedAt: ago(45), lastLine: 'oops' },
        { node: 'd', state: 'not-started' },
      ],
      { state: 'stopping', ...stopped('failures'), reason: 'release', params: { recipe: 'a b' } },
    );
    expect(renderJob(report, { color: false, now: NOW })).toBe(
      [
        'ops/j: stopping: runs that are under way go on to their end; 1 good, 1 running, 1 not started, 1 failed',
        '  stopped 1s ago: more targets failed than the job allows',
        "  task chef 'recipe=a b' in prod/web, asked by me@here 1m ago: release",
        '  NODE  STATE        EXIT  TIME  DETAIL',
        '  c     failed       1     5s    oops',
        '  d     not-started',
        '  b     running            30s',
        '  a     good         0     10s',
        '',
      ].join('\n'),
    );
    expect(renderJob(report, { color: false, now: NOW, most: 1 })).toContain('\n  … and 3 more\n');
  });

  test('whatever others wrote, nothing reaches the terminal as it is', () => {
    const evil = '\u001b[2J\u202e';
    const report = reportOf(
      [
        { state: 'refused', why: evil },
        { state: 'failed', lastLine: evil, late: evil, run: evil },
      ],
      {
        ...{ by: evil, reason: evil, params: { x: evil }, of: evil, problems: [evil], home: evil },
        stopped: { why: 'cancelled', by: evil, reason: evil, at: ago(1) },
        state: 'stopped',
      },
    );
    const told = changesOf(undefined, report).map((change) => changeText(change, NOW));
    const text = [renderJob(report, { color: false, now: NOW }), ...told].join('');
    // eslint-disable-next-line no-control-regex -- that is what must not be there
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/);
    expect(text).toContain(String.raw`\x1b[2J\u202e`);
  });
});

describe('which nodes can serve a request', () => {
  const task = {
    name: 'chef',
    groups: ['a', 'b'],
    allow: ['ops'],
    params: ['p'],
    on: [],
    when: [],
    publish: [],
  };
  const there = (more: Partial<AgentDocument> = {}): AgentSeen => ({
    kind: 'there',
    document: {
      ...{ node: 'n', version: '1', bootId: 'b', host: 'h', pid: 1, since: ago(1), tasks: [task] },
      ...more,
    },
  });
  const wish = (nodes: readonly string[], params: readonly string[] = []) => ({
    ...{ task: 'chef', principal: 'ops', nodes },
    params: new Map(params.map((name) => [name, 'x'])),
  });
  const kinds = (seen: AgentSeen | undefined, params?: readonly string[]) =>
    resolve(wish(['n'], params), new Map(seen && [['n', seen]]))[0]?.obstacles.map(({ kind }) => kind);

  test('each reason why not, all of them at once', () => {
    expect(kinds(there())).toEqual([]);
    expect(kinds(there(), ['p'])).toEqual([]);
    expect(kinds(undefined)).toEqual(['absent']);
    expect(kinds({ kind: 'unreadable', why: 'x' })).toEqual(['unreadable']);
    expect(kinds(there({ noRequests: 'x', tasks: [] }))).toEqual(['no-requests', 'no-task']);
    const others = there({ tasks: [{ ...task, allow: [] }] });
    expect(kinds(others, ['p', 'q', 'r'])).toEqual(['not-allowed', 'unknown-param', 'unknown-param']);
  });

  test('a task whose file is broken, or its folder, is not just missing', () => {
    const faults = [
      { file: 'chef.toml', why: 'line 3: not TOML' },
      { file: 'cheff.toml', why: 'x' },
    ];
    const textOf = (more: Partial<AgentDocument>) => {
      const all = wish(['n']);
      return () => homeOf(all, resolve(all, new Map([['n', there({ tasks: [], ...more })]])));
    };
    expect(textOf({ faults })).toThrow("n: it can't use its task chef: chef.toml: line 3: not TOML");
    expect(textOf({ faults: faults.slice(1) })).toThrow('n: it has no task chef');
    expect(textOf({ faults: [{ file: '/t', why: 'no such folder' }] })).toThrow(
      "n: it can't use its task chef: /t: no such folder",
    );
    expect(kinds(there({ faults }))).toEqual([]);
  });

  test('all of them must have one home; the message names five nodes at most', () => {
    const other = there({ tasks: [{ ...task, groups: ['b'] }] });
    const agents = new Map([
      ['m', there()],
      ['n', other],
    ]);
    expect(homeOf(wish(['m']), resolve(wish(['m']), agents))).toBe('a');
    const found = resolve(wish(['m', 'n', 'm']), agents);
    expect(found.map(({ node, obstacles }) => [node, obstacles.length])).toEqual([
      ['m', 0],
      ['n', 1],
    ]);
    expect(() => homeOf(wish(['m', 'n']), found)).toThrow('n: its task chef runs in b, but in a on m');
    const many = wish(Array.from({ length: 7 }, (_, i) => `x${i}`));
    expect(() => homeOf(many, resolve(many, new Map()))).toThrow(
      /^nothing was started: x0: .*x4: [^.]*\(and 2 more\)$/,
    );
  });
});

test('inside a run, what it holds is its slots and its turn', () => {
  const own = { run: 'r', node: 'n1', groups: ['a', 'b'] };
  expect(heldOf(own, { nodes: ['n2'], groups: ['b'] })).toBe('a slot of b, which a target needs');
  expect(heldOf(own, { nodes: ['n1'], groups: ['c'] })).toContain('the turn of n1');
  expect(heldOf(own, { nodes: ['n2'], groups: ['c'] })).toBeUndefined();
});

test('on a terminal as many targets as fit are drawn, those first that need people', () => {
  const states = ['good', 'running', 'failed', ...Array<'queued'>(20).fill('queued')] as const;
  const report = reportOf(
    states.map((state) => ({ state, ...(state === 'running' && { lastLine: 'half' }) })),
  );
  const head = { address: 'c:8500', hearsKeys: false };
  const frame = renderJobScreen(report, head, { color: false, columns: 80, rows: 14, now: NOW });
  const moves = ['\x1b[H', '\x1b[J', '\x1b[K'];
  const text = moves.reduce((left, move) => left.replaceAll(move, ''), frame);
  const lines = text.trimEnd().split('\r\n');
  expect(lines.length).toBeLessThanOrEqual(14);
  expect(lines[0]).toMatch(/^runlock\/ in Consul at c:8500, .* Ctrl-C to quit$/);
  const rows = lines.slice(lines.findIndex((line) => line.includes('NODE')) + 1);
  expect(rows[0]).toMatch(/n2 +failed/);
  expect(rows[1]).toMatch(/n1 +running +half/);
  expect(rows.at(-1)).toBe('  … and 18 more');
});
