// What stands on the terminal while `status --watch` draws, and the order in which groups are shown.
import { describe, expect, test } from 'vitest';
import { renderScreen } from '../../src/output/status-screen.ts';
import { countStates } from '../../src/view/groups.ts';
import { groupState } from '../../src/view/state.ts';
import { renderStatus } from '../../src/output/status.ts';
import type { GroupView, SlotView, StatusReport } from '../../src/view/report.ts';

const now = Date.UTC(2026, 2, 1, 12);
const at = new Date(now).toISOString();
const since = new Date(now - 60_000).toISOString();

const claim = (state: SlotView['state'], alive = false): SlotView => ({
  ...{ slot: 0, state, alive, node: 'web01', since, command: 'sh', hold: 'forever' },
});
const waiter = {
  place: 1,
  node: 'web02',
  since,
  waitedMs: 60_000,
  command: 'sh',
  pid: 1,
  session: 's',
  run: 'r9',
};
const free: SlotView = { slot: 0, state: 'free', alive: false };
function group(name: string, changes: Partial<GroupView> = {}): GroupView {
  const view = {
    ...{ group: name, known: true, slots: [free], queue: [], problems: [], why: `why ${name}`, ...changes },
  };
  return { ...view, state: groupState(view, { now }) };
}
const reportOf = (groups: readonly GroupView[]): StatusReport => ({
  v: 1,
  prefix: 'p',
  at,
  problems: [],
  states: countStates(groups),
  groups,
});
const frozen = { at: '', by: 'ops', reason: 'disks', since };

describe('idle groups', () => {
  const names = (count: number) => Array.from({ length: count }, (_, i) => group(`rack/r${i}`));
  const lineOf = (groups: readonly GroupView[], columns?: number) => {
    const [, ...blocks] = renderStatus(reportOf(groups), { color: false, now, overview: true, columns })
      .trimEnd()
      .split('\n\n');
    return blocks.join('|');
  };

  test.each([60, 80, 120])('are one line that fits, and names --all, %i columns wide', (columns) => {
    for (const count of [2, 9, 20, 40, 1_000]) {
      const line = lineOf(names(count), columns);
      expect(line.length).toBeLessThanOrEqual(columns);
      const named = [...line.matchAll(/rack\/r\d+/g)].length;
      const [, more = '0'] = /and ([\d,]+) more \(--all shows them\)$/.exec(line) ?? [];
      expect(named + Number(more.replace(',', ''))).toBe(count);
      expect(named).toBeGreaterThan(1);
    }
  });

  test('of names that don’t fit are counted', () => {
    const long = [group('a'.repeat(80)), group('b'.repeat(80))];
    expect(lineOf(long, 60)).toBe('idle: 2 groups (--all shows them)');
  });

  test('in a pipe are one line of 20 names', () => {
    expect(lineOf(names(1_000))).toMatch(
      /^idle: rack\/r0, [^\n]*rack\/r19 and 980 more \(--all shows them\)$/,
    );
  });

  test('have a line each with --all', () => {
    const text = renderStatus(reportOf(names(3)), { color: false, now, overview: true, all: true });
    expect(text).toMatch(/\n\nrack\/r0 \(idle\)\nrack\/r1 \(idle\)\nrack\/r2 \(idle\)\n$/);
  });
});

test('the summary is broken between two states, where it does not fit', () => {
  const states = { blocked: 2_000, waiting: 1, running: 12, idle: 10_000, frozen: 0 };
  const seen = { ...reportOf([group('a')]), states };
  const [first, second] = renderStatus(seen, { color: true, now, columns: 60 }).split('\n');
  // eslint-disable-next-line no-control-regex -- colours take no room
  const plain = [first, second].map((line = '') => line.replaceAll(/\x1b\[\d+m/g, ''));
  expect(plain).toEqual(['groups: 2,000 blocked, 1 waiting, 12 running, 10,000 idle,', '        0 frozen']);
  expect(first).toContain('\x1b[31m2,000 blocked\x1b[39m');
});

test('a group that was named is shown in full, those found below it as in the overview', () => {
  const groups = [group('prod'), group('prod/db'), group('prod/web')];
  const text = renderStatus(reportOf(groups), { color: false, now, overview: true, named: ['prod'] });
  expect(text).toBe(
    [
      'groups: 0 blocked, 0 waiting, 0 running, 3 idle, 0 frozen',
      'prod (idle)\n  why prod\n  SLOT  STATE  NODE  SINCE  COMMAND  EXIT  HOLD\n  0     free',
      'idle: prod/db, prod/web\n',
    ].join('\n\n'),
  );
});

test('a name that is only above groups is no group of its own', () => {
  const groups = [group('prod', { known: false }), group('prod/db'), group('prod/web')];
  const text = renderStatus(reportOf(groups), { color: false, now, overview: true, named: ['prod'] });
  expect(text).toBe('groups: 0 blocked, 0 waiting, 0 running, 2 idle, 0 frozen\n\nidle: prod/db, prod/web\n');
});

describe('the order of groups', () => {
  const groups = [
    group('a-idle'),
    group('b-runs', { slots: [claim('running', true)] }),
    group('c-failed', { slots: [claim('failed')] }),
    group('c-interrupted', { slots: [claim('interrupted')] }),
    group('d-idle'),
    group('e-frozen', { frozen }),
    group('f-failed-and-waited-for', { slots: [claim('failed')], queue: [waiter] }),
    group('g-gone', { slots: [claim('running')] }),
    group('h-frozen-and-waited-for', { frozen, queue: [waiter] }),
  ];
  const sorted = ['f-fa', 'h-fr', 'c-fa', 'c-in', 'g-go', 'b-ru', 'e-fr', 'a-id', 'd-id'];

  test('is: stands and is waited for, stands, moves, idle; by name within', () => {
    const text = renderStatus(reportOf(groups), { color: false, now });
    expect([...text.matchAll(/^[a-h]-../gm)].map(([name]) => name)).toEqual(sorted);
  });

  test('is the same in the overview, where only what stands takes more than a line', () => {
    const text = renderStatus(reportOf(groups), { color: false, now, overview: true });
    const blocks = text.trimEnd().split('\n\n');
    expect(blocks[0]).toBe('groups: 4 blocked, 0 waiting, 1 running, 2 idle, 2 frozen');
    expect(blocks.slice(1, 6).map((block) => block.slice(0, 4))).toEqual(sorted.slice(0, 5));
    expect(blocks.slice(1, 6).every((block) => block.includes('SLOT'))).toBe(true);
    expect(blocks.slice(6)).toEqual([
      'b-runs (running): why b-runs\ne-frozen (frozen): why e-frozen',
      'idle: a-idle, d-idle',
    ]);
  });

  test('a group alone is shown in full in the overview too', () => {
    const one = reportOf([group('b', { slots: [claim('running', true)] })]);
    expect(renderStatus(one, { color: false, now, overview: true })).toBe(
      renderStatus(one, { color: false, now }),
    );
  });
});

/** A terminal of this size, which knows the few sequences that are sent to it. */
function terminal(columns: number, rows: number) {
  const cells = Array.from({ length: rows }, () => Array<string>(columns).fill('#'));
  const cursor = { row: 0, column: 0 };
  let scrolled = 0;
  const put = (char: string) => {
    if (cursor.column === columns) newline();
    (cells[cursor.row] ?? [])[cursor.column] = char;
    cursor.column += 1;
  };
  const newline = () => {
    cursor.column = 0;
    if (cursor.row === rows - 1) scrolled += 1;
    else cursor.row += 1;
  };
  const erase = (row: number, column: number) => (cells[row] ?? []).fill(' ', Math.min(column, columns - 1));
  const write = (text: string) => {
    // eslint-disable-next-line no-control-regex -- these are the sequences
    for (const [part] of text.matchAll(/\x1b\[\d*[A-Za-z]|\r\n|[^\x1b\r\n]/gu)) {
      if (part === '\r\n') newline();
      else if (part === '\x1b[H') Object.assign(cursor, { row: 0, column: 0 });
      else if (part === '\x1b[K') erase(cursor.row, cursor.column);
      else if (part === '\x1b[J')
        for (let row = cursor.row; row < rows; row += 1) erase(row, row === cursor.row ? cursor.column : 0);
      else if (part.startsWith('\x1b')) throw new Error(`unknown: ${JSON.stringify(part)}`);
      else put(part);
    }
  };
  return { write, scrolled: () => scrolled, lines: () => cells.map((row) => row.join('').trimEnd()) };
}

describe('the screen', () => {
  const view = (...groups: GroupView[]) => ({
    report: reportOf(groups),
    address: '127.0.0.1:8500',
    hearsKeys: false,
  });
  const drawn = (seen: Parameters<typeof renderScreen>[0], columns: number, rows: number) => {
    const made = terminal(columns, rows);
    made.write(renderScreen(seen, { color: false, now, columns, rows }));
    expect(made.scrolled()).toBe(0);
    return made.lines();
  };

  test('says where it looks, when, and how one leaves; nothing of an earlier screen stays', () => {
    expect(drawn(view(group('a')), 80, 10)).toEqual([
      'p/ in Consul at 127.0.0.1:8500, 2026-03-01T12:00:00Z, Ctrl-C to quit',
      '',
      'groups: 0 blocked, 0 waiting, 0 running, 1 idle, 0 frozen',
      '',
      'a (idle)',
      '  why a',
      '  SLOT  STATE  NODE  SINCE  COMMAND  EXIT  HOLD',
      '  0     free',
      ...['', ''],
    ]);
  });

  test('says since when Consul does not answer, and why', () => {
    const fault = { sinceMs: now - 12_000, message: 'connection refused' };
    expect(drawn({ ...view(), fault }, 200, 6)[1]).toBe(
      'Consul has not answered for 12s (since 2026-03-01T11:59:48Z); the data below is older. connection refused',
    );
  });

  test.each([10, 24, 79, 80, 81])(
    'never scrolls and never loses the end of a line, %i columns wide',
    (columns) => {
      const long = group('wide', { known: false, why: `${'x'.repeat(columns - 2)}${'y'.repeat(columns)}` });
      for (let rows = 2; rows < 60; rows += 1) drawn(view(long, group('b')), columns, rows);
      const text = drawn(view(long), columns, 60).join('\n');
      expect(text).toContain('x'.repeat(columns - 2));
      expect(text).toContain('y'.repeat(columns));
    },
  );

  test('cut at the bottom, says how many lines are missing', () => {
    const groups = Array.from({ length: 30 }, (_, i) => group(`g${i}`, { known: false }));
    const lines = drawn(view(...groups), 80, 10);
    expect(lines.slice(4, 7)).toEqual(['g0', '  why g0', '']);
    expect(lines[9]).toBe('… 84 more lines');
  });
});
