// What a monitoring system hears of a report.
import { describe, expect, test } from 'vitest';
import { checkReport, waitedIn } from '../../src/commands/status/check.ts';
import type { CheckLimits } from '../../src/commands/status/check.ts';
import { countStates } from '../../src/view/groups.ts';
import { renderCheck } from '../../src/output/check.ts';
import type { GroupView, SlotView, StatusReport, WaiterView } from '../../src/view/report.ts';

const now = Date.UTC(2026, 2, 1, 12);
const hour = 3_600_000;
const ago = (ms: number) => new Date(now - ms).toISOString();

const claim = (changes: Partial<SlotView> = {}): SlotView => ({
  ...{ slot: 0, state: 'failed', alive: false, node: 'web01', since: ago(2 * hour), run: 'r' },
  ...{ command: 'chef-client', exitCode: 1, hold: 'forever', pid: 1, ...changes },
});
const running = (changes: Partial<SlotView> = {}): SlotView => {
  const { slot, node, since, command } = claim();
  return { slot, node, since, command, state: 'running', alive: true, ...changes } as SlotView;
};
const free: SlotView = { slot: 0, state: 'free', alive: false };
const waiter = (node: string, waitedMs = 60_000): WaiterView => ({
  ...{
    place: 1,
    node,
    since: ago(waitedMs),
    waitedMs,
    command: 'chef-client',
    pid: 1,
    session: 's',
    run: `run of ${node}`,
  },
});
const view = (changes: Partial<GroupView> = {}): GroupView => ({
  ...{
    group: 'prod/web',
    known: true,
    state: 'idle',
    slots: [free],
    queue: [],
    problems: [],
    why: '',
    ...changes,
  },
});
const frozen = { at: 'prod', by: 'anna', reason: 'release day', since: ago(hour) };
const reportOf = (...groups: GroupView[]): StatusReport => ({
  ...{ v: 1, prefix: 'runlock', at: ago(0), problems: [], states: countStates(groups), groups },
});
const judged = (group: Partial<GroupView>, limits: CheckLimits = {}) => {
  const { state, text } = checkReport(reportOf(view(group)), limits);
  return `${state} - ${text.join('; ')}`;
};

const queue = [waiter('web02'), waiter('web03')];

const returning = [
  {
    ...{ node: 'web01', slot: 0, run: 'r2', since: ago(60_000), waitedMs: 60_000, pid: 1, session: 's' },
    why: "slot 0 is beyond the run's --slots",
  },
];

describe('of a node that is back and waits for its own claim', () => {
  test.each<[string, Partial<GroupView>, CheckLimits, string]>([
    [
      'its claim is nobody’s to repair',
      { slots: [claim()], returning },
      {},
      'OK - 1 group, 0 runs, 1 waiting',
    ],
    [
      'it waits, as others do, in a frozen group',
      { slots: [claim()], returning, frozen },
      {},
      'WARNING - prod/web is frozen by anna, 1 run waiting',
    ],
    [
      'it can wait for too long',
      { slots: [claim()], returning },
      { maxWaitMs: 1_000 },
      'CRITICAL - web01 waiting in prod/web for 1m, longer than 1s',
    ],
  ])('%s', (_, group, limits, text) => {
    expect(judged(group, limits)).toBe(text);
  });
});

describe('of one group', () => {
  test.each<[string, Partial<GroupView>, string]>([
    ['idle', {}, 'OK - 1 group, 0 runs, 0 waiting'],
    ['running, with waiters', { slots: [running()], queue }, 'OK - 1 group, 1 run, 2 waiting'],
    [
      'a failed run, somebody waits',
      { slots: [claim()], queue },
      'CRITICAL - prod/web is blocked by web01, failed 2h ago (chef-client, exit 1), 2 runs waiting',
    ],
    [
      'a failed run, nobody waits yet',
      { slots: [claim()] },
      'WARNING - prod/web is blocked by web01, failed 2h ago (chef-client, exit 1), no runs waiting',
    ],
    [
      'a run that a signal ended, somebody waits',
      { slots: [claim({ state: 'interrupted', exitCode: 143 })], queue },
      'CRITICAL - prod/web is blocked by web01, interrupted 2h ago (chef-client, exit 143), 2 runs waiting',
    ],
    [
      'a run that a signal ended, nobody waits yet',
      { slots: [claim({ state: 'interrupted', exitCode: 143 })] },
      'WARNING - prod/web is blocked by web01, interrupted 2h ago (chef-client, exit 143), no runs waiting',
    ],
    [
      'a run that a signal ended, its hold over',
      { slots: [claim({ state: 'interrupted', hold: hour, heldUntil: ago(hour) })], queue },
      'OK - 1 group, 0 runs, 2 waiting',
    ],
    [
      'a failed run while another slot moves',
      { slots: [claim(), running({ slot: 1 })], queue },
      'WARNING - prod/web: 1 of 2 slots held by web01, failed 2h ago (chef-client, exit 1), 2 runs waiting',
    ],
    [
      'every slot kept',
      { slots: [claim(), claim({ slot: 1, state: 'abandoned', exitCode: undefined as never })], queue },
      'CRITICAL - prod/web is blocked by web01, failed 2h ago (chef-client, exit 1) and 1 more, 2 runs waiting',
    ],
    [
      'a vanished run',
      { slots: [running({ alive: false })], queue: [waiter('web02')] },
      'CRITICAL - prod/web is blocked by web01, session lost (running chef-client for 2h), 1 run waiting',
    ],
    [
      'a claim that cannot be read',
      { slots: [{ slot: 0, state: 'unreadable', alive: false }], queue },
      'CRITICAL - prod/web is blocked by an unreadable claim (slot 0), 2 runs waiting',
    ],
    [
      'a failed run whose hold is over',
      { slots: [claim({ hold: hour, heldUntil: ago(hour) })], queue },
      'OK - 1 group, 0 runs, 2 waiting',
    ],
    [
      'a failed run whose hold is over by its own clock alone',
      { slots: [claim({ hold: hour, heldUntil: ago(4_999) })] },
      'WARNING - prod/web is blocked by web01, failed 2h ago (chef-client, exit 1), no runs waiting',
    ],
    ['a reboot', { slots: [claim({ state: 'rebooting' })], queue }, 'OK - 1 group, 0 runs, 2 waiting'],
    ['held by acquire', { slots: [claim({ state: 'held' })], queue }, 'OK - 1 group, 0 runs, 2 waiting'],
    ['a freeze nobody waits behind', { frozen }, 'OK - 1 group, 0 runs, 0 waiting'],
    ['a freeze', { frozen, queue }, 'WARNING - prod/web is frozen by anna, 2 runs waiting'],
    ['a problem', { problems: ['odd'] }, 'WARNING - prod/web: odd'],
    [
      'never used',
      { known: false },
      'UNKNOWN - group prod/web has not been used yet; correct its name, or wait for its first run',
    ],
  ])('%s', (_, group, said) => {
    expect(judged(group)).toBe(said);
  });

  test.each<[string, CheckLimits, Partial<GroupView>, string]>([
    [
      'a run that lasts too long',
      { maxHeldMs: hour },
      { slots: [running()] },
      'CRITICAL - web01 running in prod/web for 2h, longer than 1h',
    ],
    [
      'a reboot that lasts too long',
      { maxHeldMs: hour },
      { slots: [claim({ state: 'rebooting' })] },
      'CRITICAL - web01 rebooting in prod/web for 2h, longer than 1h',
    ],
    ['as long as allowed', { maxHeldMs: 2 * hour }, { slots: [running()] }, 'OK - 1 group, 1 run, 0 waiting'],
    [
      'past its hold nothing is held',
      { maxHeldMs: hour },
      { slots: [claim({ heldUntil: ago(hour) })] },
      'OK - 1 group, 0 runs, 0 waiting',
    ],
    [
      'who waits longest comes first',
      { maxWaitMs: hour },
      {
        slots: [running()],
        queue: [waiter('web02', hour + 1000), waiter('web03', 2 * hour), waiter('web04')],
      },
      'CRITICAL - web03 waiting in prod/web for 2h, longer than 1h, and 1 more',
    ],
    [
      'as long as allowed',
      { maxWaitMs: 60_000 },
      { slots: [running()], queue },
      'OK - 1 group, 1 run, 2 waiting',
    ],
  ])('%s, %j', (_, limits, group, said) => {
    expect(judged(group, limits)).toBe(said);
  });
});

test('of several groups the worst is the state, and comes first', () => {
  const unknown = view({ group: 'a', known: false });
  const warn = view({ group: 'b', slots: [claim()] });
  const critical = view({ group: 'c', slots: [claim()], queue });
  const states = (...groups: GroupView[]) => checkReport(reportOf(...groups), {}).state;
  expect(states(unknown, view())).toBe('UNKNOWN');
  expect(states(unknown, warn)).toBe('WARNING');
  expect(states(unknown, warn, critical)).toBe('CRITICAL');
  expect(checkReport(reportOf(unknown, warn, critical), {}).text.map((text) => text.slice(0, 7))).toEqual([
    ...['c is bl', 'b is bl', 'group a'],
  ]);
});

describe('a run that has a slot and waits in another group', () => {
  const waits = (slot: number, group: string) => running({ slot, also: [{ group, place: 1 }] });
  const first = (...waiters: WaiterView[]) => view({ group: 'a', slots: [waits(0, 'b')], queue: waiters });
  const said = (group: GroupView, ...beside: GroupView[]) => {
    const { state, text } = checkReport(reportOf(group), {}, beside);
    return `${state} - ${text.join('; ')}`;
  };
  const stuck = view({
    ...{ group: 'b', state: 'blocked' },
    ...{ slots: [claim({ node: 'web09' })], queue: [waiter('web01')] },
  });
  const why = 'web01, waiting in b, which is blocked by web09, failed 2h ago (chef-client, exit 1)';

  test('is as stuck as that group: CRITICAL with somebody behind it, else a WARNING', () => {
    expect(said(first(waiter('web02')), stuck)).toBe(`CRITICAL - a is blocked by ${why}, 1 run waiting`);
    expect(said(first(), stuck)).toBe(`WARNING - a is blocked by ${why}, no runs waiting`);
    expect(waitedIn([first()])).toEqual(['b']);
  });

  test('also where that group is blocked by a run that waits in a third', () => {
    const second = view({ group: 'b', state: 'blocked', slots: [{ ...waits(0, 'c'), node: 'web05' }] });
    const third = { ...stuck, group: 'c' };
    expect(said(first(waiter('web02')), second, third)).toBe(
      'CRITICAL - a is blocked by web01, waiting in b, which is blocked by web05, waiting in c, which is blocked by ' +
        'web09, failed 2h ago (chef-client, exit 1), 1 run waiting',
    );
  });

  test('is none while that group moves, has a free slot, or leads back here', () => {
    const moves = view({ group: 'b', slots: [claim(), running({ slot: 1 })] });
    const circle = view({ group: 'b', slots: [waits(0, 'a')] });
    for (const there of [moves, circle, view({ group: 'b' })])
      expect(said(first(waiter('web02')), there)).toMatch(/^OK/);
  });
});

test('where nothing is stored nothing is OK', () => {
  const { state, text } = checkReport(reportOf(), {});
  expect([state, ...text]).toEqual([
    'UNKNOWN',
    'nothing is stored below runlock/; correct --prefix, or wait for the first run',
  ]);
});

describe('the line', () => {
  test('carries performance data as the guidelines have it', () => {
    const groups = [view({ slots: [running()], queue }), view({ group: 'b', slots: [claim()], frozen })];
    const line = renderCheck(checkReport(reportOf(...groups), { maxHeldMs: 3 * hour, maxWaitMs: hour }));
    expect(line).toBe(
      'RUNLOCK WARNING - b is blocked by web01, failed 2h ago (chef-client, exit 1), no runs waiting | ' +
        'groups=2;;;0 frozen=1;;;0 running=1;;;0 kept=1;;;0 waiting=2;;;0 ' +
        'longest_held=7200s;;10800;0 longest_wait=60s;;3600;0 circles=0;;;0\n',
    );
  });

  test('is one line with one bar, whatever is stored', () => {
    const slots = [claim({ command: 'a|b\nc\x1b[2J', node: 'web01' })];
    const line = renderCheck(checkReport(reportOf(view({ slots, problems: ['x|y\r\n'] })), {}));
    expect(line).toMatch(/^RUNLOCK WARNING - [^|\n\r]+ \| [^|\n\r]+\n$/);
    expect(line).toContain(String.raw`a/b\x0ac\x1b[2J`);
  });

  test('names three findings, and how many there are beyond', () => {
    const groups = ['a', 'b', 'c', 'd', 'e'].map((group) => view({ group, slots: [claim()] }));
    const line = renderCheck(checkReport(reportOf(...groups), {}));
    expect(line).toMatch(/^RUNLOCK WARNING - a is .+; b is .+; c is .+; 2 more \| groups=5;/);
  });
});

describe('a circle of waits', () => {
  const circle = { runs: [], why: 'a is waiting for b; b is waiting for a', next: 'stop one' };

  test('is CRITICAL, before all that is only a WARNING, and counted', () => {
    const report = { ...reportOf(view({ slots: [claim()] })), circles: [circle, circle] };
    const { state, text, figures } = checkReport(report, {});
    expect([state, text[0]]).toEqual(['CRITICAL', `circle of waits: ${circle.why}`]);
    expect(figures).toContainEqual({ label: 'circles', value: 2 });
  });

  test('is UNKNOWN where the token may not read all groups, one of which may end it', () => {
    const report = { ...reportOf(view({})), circlesNeed: 'A' };
    expect(checkReport(report, {})).toMatchObject({
      state: 'UNKNOWN',
      text: expect.arrayContaining([
        expect.stringMatching(/^runs may be waiting for each other, unless .*, it needs the rule: A$/),
      ]) as string[],
    });
  });
});

describe('a run that waits without a slot', () => {
  const outside = (node: string, waitedMs: number) => ({
    ...{ node, run: `run of ${node}`, since: ago(waitedMs), waitedMs, command: 'sh', session: 's' },
    ...{ groups: ['prod/web', 'prod/db'], when: [], gate: [], publish: [], during: [], why: '' },
  });

  test('is OK until it has waited for longer than --max-wait, and counts once in all its groups', () => {
    const group = { outside: [outside('web01', 2 * hour)] };
    expect(judged(group)).toMatch(/^OK - 1 group, 0 runs, 1 waiting$/);
    expect(judged(group, { maxWaitMs: hour })).toBe(
      'CRITICAL - web01 waiting in prod/web for 2h, longer than 1h',
    );
    const { text, figures } = checkReport(reportOf(view(group), view({ ...group, group: 'prod/db' })), {});
    expect(text).toEqual(['2 groups, 0 runs, 1 waiting']);
    expect(figures).toContainEqual({ label: 'waiting', value: 1 });
    expect(figures).toContainEqual({ label: 'longest_wait', value: 7_200, unit: 's' });
  });

  test('is UNKNOWN while the token may not read its conditions, once for each rule', () => {
    const needing = (node: string, rules: Readonly<Record<string, string>>) => ({
      ...outside(node, 1),
      when: Object.entries(rules).map(([condition, needs]) => ({ condition, is: '', needs })),
    });
    const group = {
      outside: [
        needing('web01', { 'state:a/b': 'A' }),
        needing('web02', { 'state:a/c': 'A', 'idle:x': 'X' }),
      ],
    };
    expect(judged(group)).toBe(
      'UNKNOWN - this token may not read state:a/b, for which web01 is waiting in prod/web and 1 more; it needs the rule: A; ' +
        'this token may not read idle:x, for which web02 is waiting in prod/web; it needs the rule: X',
    );
    expect(judged({ ...group, slots: [claim()] })).toMatch(/^CRITICAL - prod\/web is blocked/);
    const odd = reportOf(view({ outside: [needing('web01', { 'state:a\x1b[2J|b': 'A' })] }));
    expect(renderCheck(checkReport(odd, {}))).toContain(String.raw`read state:a\x1b[2J/b, for which`);
  });

  test('is OK where what the token may not read can be part of no circle', () => {
    const needing = (condition: string) => ({
      outside: [{ ...outside('web01', 1), when: [{ condition, is: '', needs: 'A' }] }],
    });
    const open = ['healthy:web', 'not:healthy:web', 'frozen:a', 'agent:web01', 'blocked:a', 'not:good:web01'];
    for (const condition of open) expect(judged(needing(condition))).toMatch(/^OK/);
    const closed = ['state:a', 'not:state:a', 'idle:a', 'not:blocked:a', 'good:web01', 'not:active:web01'];
    // A newer version may know it.
    for (const condition of [...closed, 'later:a']) expect(judged(needing(condition))).toMatch(/^UNKNOWN/);
  });

  test('makes a kept claim CRITICAL, as any run that waits does', () => {
    expect(judged({ slots: [claim()], outside: [outside('web02', 1)] })).toMatch(
      /^CRITICAL - prod\/web is blocked/,
    );
  });
});
