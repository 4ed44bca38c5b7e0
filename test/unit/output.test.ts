import { describe, expect, test } from 'vitest';
import { CLEAR_LINE, createOutput, redrawLine } from '../../src/platform/terminal.ts';
import { formatAge } from '../../src/text/age.ts';
import { renderJson, visible } from '../../src/text/visible.ts';
import { renderStatus } from '../../src/output/status.ts';
import { widthOf } from '../../src/text/style.ts';
import { countStates } from '../../src/view/groups.ts';
import type { GroupView, StatusReport } from '../../src/view/report.ts';
import { renderWaiting } from '../../src/output/waiting.ts';

const now = Date.UTC(2026, 2, 1, 12);
const ago = (ms: number) => new Date(now - ms).toISOString();

describe('colour', () => {
  test.each<[Record<string, string>, boolean, boolean]>([
    [{}, true, true],
    [{}, false, false],
    [{ TERM: 'dumb' }, true, false],
    [{ NO_COLOR: '1' }, true, false],
    [{ NO_COLOR: '' }, true, true],
    [{ FORCE_COLOR: '1' }, false, true],
    [{ FORCE_COLOR: '1', TERM: 'dumb' }, false, true],
    [{ FORCE_COLOR: '0' }, true, false],
    [{ FORCE_COLOR: 'false' }, true, false],
    [{ FORCE_COLOR: '' }, false, false],
    [{ NO_COLOR: '1', FORCE_COLOR: '1' }, true, false],
  ])('with %j, terminal %s: %s', (env, isTTY, color) => {
    expect(createOutput({ env, isTTY }).color).toBe(color);
  });

  test('NO_COLOR leaves the live line, a dumb terminal has none', () => {
    expect(createOutput({ env: { NO_COLOR: '1' }, isTTY: true }).live).toBe(true);
    expect(createOutput({ env: { TERM: 'dumb' }, isTTY: true }).live).toBe(false);
    expect(createOutput({ env: { FORCE_COLOR: '1' }, isTTY: false }).live).toBe(false);
  });

  test('a pipe has no width, a terminal that does not know its own has 80', () => {
    expect(createOutput({ env: {}, isTTY: false, columns: 100 }).columns).toBeUndefined();
    expect(createOutput({ env: {}, isTTY: true, columns: 100 }).columns).toBe(100);
    expect(createOutput({ env: {}, isTTY: true, columns: 0 }).columns).toBe(80);
  });
});

describe('visible', () => {
  test.each([
    ['chef-client', 'chef-client'],
    ['grün 日本 🙂', 'grün 日本 🙂'],
    ['\x1b[2J', '\\x1b[2J'],
    ['a\r\nb\tc', 'a\\x0d\\x0ab\\x09c'],
    ['\x7f\u009b', '\\x7f\\x9b'],
    ['\u202eevil\u2066', '\\u202eevil\\u2066'],
    ['a\u200bb\u200d\ufeff', 'a\\u200bb\\u200d\\ufeff'],
    ['\u2028\u2029', '\\u2028\\u2029'],
    ['\u3164\u00ad', '\\u3164\\xad'],
    ['\u{e0041}', '\\u{e0041}'],
    ['\ud800', '\\ud800'],
  ])('%j', (text, shown) => {
    expect(visible(text)).toBe(shown);
  });
});

test('JSON carries the same data, and nothing that a terminal obeys', () => {
  const data = { text: 'a\u009b\u202e\u{e0041}\x1b"\n', list: [1] };
  const json = renderJson(data, 2);
  expect(JSON.parse(json)).toEqual(data);
  expect(json.replaceAll('\n', '')).toBe(visible(json.replaceAll('\n', '')));
});

test.each([
  [0, '0s'],
  [-5_000, '0s'],
  [4_999, '4s'],
  [60_000, '1m'],
  [192_000, '3m12s'],
  [185_000, '3m05s'],
  [3_600_000, '1h'],
  [7_500_000, '2h05m'],
  [86_399_000, '23h59m'],
  [86_400_000, '1d'],
  [273_600_000, '3d4h'],
])('an age of %d ms reads %s', (ms, text) => {
  expect(formatAge(ms)).toBe(text);
});

describe('the table', () => {
  const failed = {
    ...{ slot: 0, state: 'failed' as const, alive: false, node: 'web01', since: ago(7_200_000), run: 'r' },
    ...{ command: 'chef-client', exitCode: 1, hold: 'forever' as const, pid: 1 },
  };
  const waiter = (place: number) => ({
    ...{ place, node: `web${place}`, since: ago(192_000), waitedMs: 192_000, command: 'chef-client' },
    ...{ pid: 1, session: 's', run: `run ${place}` },
  });
  const group: GroupView = {
    ...{
      group: 'prod/web',
      known: true,
      state: 'blocked',
      slots: [failed],
      queue: [waiter(1)],
      problems: [],
    },
    ...{ why: 'web01 failed', next: 'repair web01', fix: 'runlock release prod/web --owner web01' },
  };
  const report = (...groups: GroupView[]): StatusReport => ({
    ...{ v: 1, prefix: 'runlock', at: ago(0), problems: [], states: countStates(groups), groups },
  });
  const plain = { color: false, now, named: ['prod/web'] };

  test('shows state, sentence and fix above slots and queue', () => {
    expect(renderStatus(report(group), plain)).toBe(
      [
        'prod/web (blocked)',
        '  web01 failed',
        '  next: repair web01',
        '  fix: runlock release prod/web --owner web01',
        '  SLOT  STATE   NODE   SINCE  COMMAND      EXIT  HOLD',
        '  0     failed  web01  2h     chef-client  1     forever',
        '  PLACE  NODE  WAITING  COMMAND',
        '  1      web1  3m12s    chef-client',
        '',
      ].join('\n'),
    );
  });

  test('says how long a hold lasts, and that a session is gone', () => {
    const slots = [
      { ...failed, hold: 3_600_000, heldUntil: ago(-60_000) },
      { ...failed, hold: 3_600_000, heldUntil: ago(0) },
      { ...failed, hold: 3_600_000, state: 'running' as const },
      { ...failed, state: 'running' as const, alive: true },
      { slot: 4, state: 'free' as const, alive: false },
    ];
    const text = renderStatus(report({ ...group, slots }), plain);
    const rows = text.split('\n').slice(5, 10);
    expect(rows[0]).toMatch(/ 1m left$/);
    expect(rows[1]).toMatch(/ over$/);
    expect(rows[2]).toMatch(/ running \(no session\) .* 1h$/);
    expect(rows[3]).toMatch(/ running {2,}web01 .* forever$/);
    expect(rows[4]).toMatch(/^ {2}4 +free$/);
  });

  test('cuts a long queue and says how much is missing', () => {
    const queue = Array.from({ length: 3_000 }, (_, i) => waiter(i + 1));
    const text = renderStatus(report({ ...group, queue }), plain);
    expect(text).toContain('  20     web20');
    expect(text).not.toContain('web21');
    expect(text).toContain('… and 2,980 more');
  });

  test('obeys nothing that comes from Consul', () => {
    const evil = '\x1b[31m\u202e';
    const slot = { ...failed, node: evil, command: `${evil}\n` };
    const all = { ...group, group: evil, slots: [slot], problems: [evil], why: evil, next: evil, fix: evil };
    const text = renderStatus(report({ ...all, queue: [{ ...waiter(1), node: evil }] }), plain);
    expect(text.replaceAll('\n', '')).toBe(visible(text.replaceAll('\n', '')));
    expect(text.split('\n')).toHaveLength(10);
  });

  test('keeps its rows within the terminal: a command is cut, a sentence broken between words', () => {
    const why = 'because '.repeat(20).trimEnd();
    const wide = { ...failed, command: '日本語'.repeat(20) };
    const text = renderStatus(report({ ...group, slots: [wide], why }), { ...plain, columns: 60 });
    const lines = text.trimEnd().split('\n');
    expect(lines.every((line) => widthOf(line) <= 60)).toBe(true);
    expect(lines.find((line) => line.startsWith('  0 '))).toMatch(/ 日本語[日本語]*… +1 {5}forever$/);
    expect(text.replaceAll(/\n +/g, ' ')).toContain(why);
  });

  test.each([60, 80])('cuts no name of a node, %i columns wide: what fits no table is a list', (columns) => {
    const node = `${'web-frontend-'.repeat(5)}1`.slice(-63);
    const slots = [{ ...failed, node }];
    const queue = [{ ...waiter(1), node }];
    const text = renderStatus(report({ ...group, slots, queue }), { ...plain, columns });
    expect(text.split(node)).toHaveLength(3);
    expect(text).toMatch(/^ {2}slot 0 {2}state failed/m);
    expect(text.replaceAll(/\s+/g, ' ')).toContain(`node ${node} since 2h command chef-client exit 1`);
  });

  test('has the same text with colours as without', () => {
    const frozen = { at: '', by: 'ops', reason: '', since: ago(0) };
    const states = [
      'free',
      'running',
      'held',
      'failed',
      'interrupted',
      'evicted',
      'locked',
      'unreadable',
    ] as const;
    const slots = states.map((state, slot) => ({ ...failed, slot, state }));
    const all = report({ ...group, slots, frozen, problems: ['odd'] });
    const coloured = renderStatus(all, { ...plain, color: true });
    // eslint-disable-next-line no-control-regex -- colours are what is taken out
    expect(coloured.replace(/\x1b\[\d+m/g, '')).toBe(renderStatus(all, plain));
    expect(coloured).toContain('\x1b[31m');
  });

  test('of a group that nobody used is its sentence alone', () => {
    expect(
      renderStatus(
        report({
          ...{ group: 'x', known: false, state: 'idle', slots: [], queue: [], problems: [], why: 'unused' },
        }),
        { ...plain, named: ['x'] },
      ),
    ).toBe('x\n  unused\n');
  });

  test('of nothing says so, and that everything is frozen', () => {
    const frozen = { at: '', by: 'ops', reason: 'new disks', since: ago(0) };
    const said = { why: 'everything was frozen', fix: 'runlock thaw /' };
    const text = renderStatus({ ...report(), frozen, ...said, problems: ['odd'] }, plain);
    expect(text).toBe(
      'nothing is stored below runlock/ (or this token may not read it)\neverything was frozen\nfix: runlock thaw /\nproblem: odd\n',
    );
  });
});

describe('the live line', () => {
  const holder = { node: 'web01', state: 'running' as const, command: 'chef-client', ageMs: 240_000 };
  const view = { group: 'prod/web', waitedMs: 192_000, place: 2, holders: [holder] };

  test('says how long, for what, at which place and why', () => {
    expect(renderWaiting(view, 200)).toBe(
      'waiting 3m12s for prod/web · place 2 · web01 running chef-client for 4m',
    );
    expect(
      renderWaiting({ ...view, place: undefined, holders: [{ ...holder, state: 'failed' }, holder] }, 200),
    ).toBe('waiting 3m12s for prod/web · web01 failed 4m ago (chef-client) (and 1 more)');
    expect(
      renderWaiting({ group: 'g', waitedMs: 0, frozen: { by: 'ops', reason: 'disks' } }, undefined),
    ).toBe('waiting 0s for g · frozen by ops: disks');
  });

  test('says that a holder lost its session, and what comes of it: shorter where it would be cut', () => {
    const gone = { ...holder, gone: { forMs: 40_000, leftMs: 20_000, then: 'abandoned' as const } };
    const lost = { ...view, holders: [gone, holder] };
    expect(renderWaiting(lost, 140)).toBe(
      'waiting 3m12s for prod/web · place 2 · web01 lost its session 40s ago; counts as abandoned in 20s (chef-client) (and 1 more)',
    );
    expect(renderWaiting({ ...lost, holders: [gone] }, 90)).toBe(
      'waiting 3m12s for prod/web · web01 lost its session 40s ago; abandoned in 20s · place 2',
    );
    const none = { ...gone, gone: { ...gone.gone, leftMs: 0, then: 'next' as const } };
    expect(renderWaiting({ ...lost, holders: [none] }, 140)).toContain(
      '; may be taken over any moment now (chef',
    );
  });

  test('is always shorter than the terminal is wide', () => {
    for (const columns of [1, 2, 20, 40])
      expect(renderWaiting(view, columns).length).toBeLessThan(Math.max(columns, 2));
    expect(renderWaiting(view, 40)).toBe('waiting 3m12s for prod/web · place 2 ·…');
  });

  test('obeys nothing that comes from Consul', () => {
    expect(renderWaiting({ ...view, frozen: { by: 'x\r\x1b', reason: 'a\nb' } }, 200)).toContain(
      'x\\x0d\\x1b: a\\x0ab',
    );
  });

  test('is drawn over in place', () => {
    expect(redrawLine('x')).toBe('\r\x1b[Kx');
    expect(CLEAR_LINE).toBe('\r\x1b[K');
  });
});
