// The turn of a node on its host: who has it, what is dead, and what can't be trusted.
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { startTime } from '../../src/process/process-tree.ts';
import { STALE_MS, openTurn } from '../../src/process/turn.ts';
import type { Turn, TurnOptions } from '../../src/process/turn.ts';
import { openTurnFiles, turnFolders } from '../../src/process/turn-files.ts';
import type { TicketPlace, TurnFiles } from '../../src/process/turn-files.ts';
import { decide, decodeTicket, encodeTicket, numberOf, runOf } from '../../src/process/turn-tickets.ts';
import type { Ticket } from '../../src/process/turn-tickets.ts';

const uid = process.geteuid?.() ?? 0;
const BOOT = 'boot pid:[1] time:[1]';

function folderOf(): string {
  const made = mkdtempSync(`${tmpdir()}/turn-`);
  onTestFinished(() => rmSync(made, { recursive: true, force: true }));
  // Below a folder of this user alone: beside one that others can write, another name would be used.
  mkdirSync(`${made}/turns`, { mode: 0o700 });
  return `${made}/turns`;
}

const ticketOf = (run: string, more: Partial<Ticket> = {}): Ticket => ({
  ...{ run, pid: 1_000_000, startTime: '7', bootId: BOOT, command: 'sleep', groups: ['prod/web'] },
  since: '2026-12-01T00:00:00.000Z',
  ...more,
});

/** Runs of one host; `dead` and `left` by their runs. */
function hostOf(files: (node: string) => TurnFiles, atEnd: (act: () => void) => void = onTestFinished) {
  const dead = new Set<string>();
  const left = new Map<string, number[]>();
  const pids = new Map<string, number>();
  let nowMs = 0;
  const host: TurnOptions['host'] = {
    startTime: (pid) => ([...pids].some(([run, own]) => own === pid && !dead.has(run)) ? '7' : undefined),
    hidden: () => false,
    survivors: (run) => ({ pids: left.get(run) ?? [], guarded: false }),
  };
  const open = (
    run: string,
    { groups = ['prod/web'], ...more }: Partial<TurnOptions> & { readonly groups?: readonly string[] } = {},
  ): Turn => {
    const pid = 1_000_000 + pids.size;
    pids.set(run, pid);
    const turn = openTurn({
      ...{ ticket: ticketOf(run, { pid, groups }), emit: () => undefined, monotonicMs: () => nowMs },
      ...{ filesOf: files, host },
      ...more,
    });
    atEnd(() => turn.leave());
    return turn;
  };
  return { open, dead, left, host, passes: (ms: number) => void (nowMs += ms) };
}

const inFolder = (folder: string) => (node: string) => openTurnFiles([folder], uid, node);

function setUp() {
  const folder = folderOf();
  return { folder, names: () => readdirSync(folder).sort(), ...hostOf(inFolder(folder)) };
}

const heldBy = (run: string) => ({ kind: 'held', by: { run } });
const MINE = { kind: 'mine' };

describe('runs of one node', () => {
  test('go one at a time, in the order in which they came, and leave nothing', () => {
    const { open, names } = setUp();
    const [a, b, c] = [open('a'), open('b'), open('c')];
    expect(a.look('web01')).toEqual(MINE);
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    expect(c.look('web01')).toMatchObject(heldBy('a'));
    a.leave();
    expect(c.look('web01')).toMatchObject(heldBy('b'));
    expect(b.look('web01')).toEqual(MINE);
    b.leave();
    expect(c.look('web01')).toEqual(MINE);
    c.leave();
    expect(names()).toEqual([]);
  });

  test('of another node have a turn of their own, also where its name begins alike', () => {
    const { open } = setUp();
    expect(open('a').look('web')).toEqual(MINE);
    expect(open('b').look('web.1')).toEqual(MINE);
    expect(open('c').look('web01')).toEqual(MINE);
  });

  test('who gave the turn back goes to the end of the line', () => {
    const { open } = setUp();
    const [a, b] = [open('a'), open('b')];
    a.look('web01');
    b.look('web01');
    a.leave();
    expect(a.look('web01')).toMatchObject(heldBy('b'));
    expect(b.look('web01')).toEqual(MINE);
  });

  test('one that does not wait any longer is not waited for', () => {
    const { open } = setUp();
    const [a, b, c] = [open('a'), open('b'), open('c')];
    for (const turn of [a, b, c]) turn.look('web01');
    b.leave();
    a.leave();
    expect(c.look('web01')).toEqual(MINE);
  });

  test('whose ticket somebody removed joins again, and passes nobody', () => {
    const { open, folder } = setUp();
    const [a, b] = [open('a'), open('b')];
    a.look('web01');
    b.look('web01');
    rmSync(`${folder}/turn-web01.2`);
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    a.leave();
    expect(b.look('web01')).toEqual(MINE);
  });
});

describe('a run that waits in a queue and has lent its turn', () => {
  const db = { groups: ['prod/db', 'prod/web/eu'] };

  test('lets runs of other groups pass, and has it again when they have ended', () => {
    const { open, names } = setUp();
    const [a, b] = [open('a'), open('b', db)];
    a.look('web01');
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    a.lend();
    a.lend();
    expect(names()).toEqual(['queued-web01.a', 'turn-web01.2']);
    expect(b.look('web01')).toEqual(MINE);
    expect(a.look('web01')).toMatchObject(heldBy('b'));
    b.leave();
    expect(a.look('web01')).toEqual(MINE);
    expect(names()).toEqual(['turn-web01.3']);
  });

  test.each([
    ['that came before it lent', true],
    ['that come later', false],
  ])('goes before runs of its groups %s, which are in nobody’s way meanwhile', (_, isBefore) => {
    const { open, names, folder } = setUp();
    const [a, b, c] = [open('a'), open('b', { groups: ['prod/api', 'prod/web'] }), open('c', db)];
    a.look('web01');
    if (isBefore) b.look('web01');
    a.lend();
    expect([b.look('web01'), b.look('web01')]).toMatchObject([heldBy('a'), heldBy('a')]);
    expect(b.folder()).toBe(folder);
    expect(names()).toEqual(['queued-web01.a']);
    expect(c.look('web01')).toEqual(MINE);
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    c.leave();
    expect(a.look('web01')).toEqual(MINE);
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    a.leave();
    expect(b.look('web01')).toEqual(MINE);
  });

  test.each<[string, (of: ReturnType<typeof setUp>, a: Turn) => void]>([
    ['ends', (_, a) => a.leave()],
    ['has left the queue', (_, a) => a.outOfQueue()],
    ['is killed', ({ dead }) => void dead.add('a')],
  ])('keeps its groups to itself until it %s', (_, end) => {
    const runs = setUp();
    const [a, b] = [runs.open('a'), runs.open('b')];
    a.look('web01');
    a.lend();
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    end(runs, a);
    expect(b.look('web01')).toEqual(MINE);
    expect(runs.names()).toEqual(['turn-web01.1']);
  });

  test('is alive in another pid namespace for as long as it touches what says so', () => {
    const { open, passes, folder } = setUp();
    const a = open('a', { ticket: ticketOf('a', { bootId: 'boot pid:[2] time:[1]' }) });
    a.look('web01');
    a.lend();
    const b = open('b');
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    passes(STALE_MS - 1);
    inFolder(folder)('web01').touch('a');
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    passes(STALE_MS - 1);
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    passes(1);
    expect(b.look('web01')).toEqual(MINE);
  });

  test('touches what says so, as it touches its ticket, until it ends', () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const { open, folder } = setUp();
    const touched: TicketPlace[] = [];
    const touch = (place: TicketPlace) => void touched.push(place);
    const a = open('a', { filesOf: (node) => ({ ...inFolder(folder)(node), touch }) });
    a.look('web01');
    vi.advanceTimersByTime(10_000);
    a.lend();
    vi.advanceTimersByTime(10_000);
    a.leave();
    vi.advanceTimersByTime(10_000);
    expect(touched).toEqual([1, 'a']);
  });

  test('is dead there after a minute, though two tickets tell of it', () => {
    const { open, passes } = setUp();
    const a = open('a', { ticket: ticketOf('a', { bootId: 'boot pid:[2] time:[1]' }) });
    a.look('web01');
    a.lend();
    const c = open('c', db);
    expect(c.look('web01')).toEqual(MINE);
    // In line again, and not served.
    expect(a.look('web01')).toMatchObject(heldBy('c'));
    c.leave();
    const d = open('d', db);
    expect(d.look('web01')).toMatchObject(heldBy('a'));
    passes(STALE_MS - 1);
    expect(d.look('web01')).toMatchObject(heldBy('a'));
    passes(1);
    expect(d.look('web01')).toEqual(MINE);
  });

  test('inside another run keeps nothing, and has its turn', () => {
    const { open, host, names } = setUp();
    const around = { pid: process.ppid, startTime: startTime(process.ppid) ?? '' };
    const alive = { ...host, startTime: (pid: number) => (pid === around.pid ? around.startTime : '7') };
    open('a', { ticket: ticketOf('a', around) }).look('web01');
    const inner = open('b', { host: alive });
    expect(inner.look('web01')).toEqual(MINE);
    inner.lend();
    expect(inner.look('web01')).toEqual(MINE);
    expect(names()).toEqual(['turn-web01.1']);
  });

  test('has a run that is inside another one wait, too, where they have a group in common', () => {
    const { open, host } = setUp();
    const around = { pid: process.ppid, startTime: startTime(process.ppid) ?? '' };
    const alive = { ...host, startTime: (pid: number) => (pid === around.pid ? around.startTime : '7') };
    const queued = open('q');
    queued.look('web01');
    queued.lend();
    open('a', { ticket: ticketOf('a', { ...around, ...db }), ...db }).look('web01');
    expect(open('b', { host: alive }).look('web01')).toMatchObject(heldBy('q'));
    expect(open('c', { host: alive, ...db }).look('web01')).toEqual(MINE);
    queued.outOfQueue();
    expect(open('b', { host: alive }).look('web01')).toEqual(MINE);
  });

  test.each([
    'queued-web01.',
    'queued-web01.a.b',
    'queued-web01.1/2',
    'queued-web0.a',
    `queued-web01.${'x'.repeat(65)}`,
  ])('%s does not say so', (name) => expect(runOf(name, 'queued-web01.')).toBeUndefined());
});

test('a run that leaves takes nobody else’s ticket with it, whatever number that has', () => {
  const { open, folder } = setUp();
  const [a, b, c] = [open('a'), open('b'), open('c')];
  a.look('web01');
  rmSync(`${folder}/turn-web01.1`);
  b.look('web01');
  a.leave();
  expect(c.look('web01')).toMatchObject(heldBy('b'));
});

test('a run whose ticket was cleared while it joined makes another', () => {
  const { folder, ...runs } = setUp();
  const files = inFolder(folder)('web01');
  let isFirst = true;
  const create: TurnFiles['create'] = (number, ticket) => {
    if (!isFirst) return files.create(number, ticket);
    isFirst = false;
    // By now another has the number that was cleared.
    return files.create(number, ticketOf('b', { bootId: 'other' }));
  };
  expect(runs.open('a', { filesOf: () => ({ ...files, create }) }).look('web01')).toEqual(MINE);
  expect(runs.open('c').look('web01')).toMatchObject(heldBy('a'));
});

describe('a holder', () => {
  test('that is dead is followed, and its ticket cleared', () => {
    const { open, dead, names } = setUp();
    open('a').look('web01');
    const b = open('b');
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    dead.add('a');
    expect(b.look('web01')).toEqual(MINE);
    expect(names()).toEqual(['turn-web01.2']);
  });

  test.each([
    ['of another boot is dead', { bootId: 'other pid:[1] time:[1]' }, MINE],
    ['whose pid another process has is dead', { startTime: '8' }, MINE],
    ['of this boot is alive', {}, heldBy('a')],
    ['in another pid namespace is alive', { bootId: 'boot pid:[2] time:[1]' }, heldBy('a')],
  ])('%s', (_, more, seen) => {
    const { open } = setUp();
    open('a', { ticket: ticketOf('a', more) }).look('web01');
    expect(open('b').look('web01')).toMatchObject(seen);
  });

  test('whose start can not be seen is alive', () => {
    const { open, host, dead } = setUp();
    open('a').look('web01');
    dead.add('a');
    expect(open('b', { host: { ...host, hidden: () => true } }).look('web01')).toMatchObject(heldBy('a'));
  });

  test('in another pid namespace is dead once it has not touched its ticket for a minute', () => {
    const { open, passes, folder } = setUp();
    const elsewhere = ticketOf('a', { bootId: 'boot pid:[2] time:[1]' });
    open('a', { ticket: elsewhere }).look('web01');
    const b = open('b');
    b.look('web01');
    passes(STALE_MS - 1);
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    inFolder(folder)('web01').touch(1);
    passes(1);
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    passes(STALE_MS - 1);
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    passes(1);
    expect(b.look('web01')).toEqual(MINE);
  });

  test('in another pid namespace is not taken for dead by its pid, which means nothing here', () => {
    const { open, left, dead } = setUp();
    open('a', { ticket: ticketOf('a', { bootId: 'boot pid:[2] time:[1]' }) }).look('web01');
    dead.add('a');
    left.set('a', [12]);
    expect(open('b').look('web01')).toMatchObject(heldBy('a'));
  });

  test('that is dead, but whose processes are not, still has the turn, and they are named', () => {
    const { open, dead, left } = setUp();
    open('a').look('web01');
    dead.add('a');
    left.set('a', [12, 13]);
    const b = open('b');
    expect(b.look('web01')).toMatchObject({ kind: 'left-over', by: { run: 'a' }, pids: [12, 13] });
    left.clear();
    expect(b.look('web01')).toEqual(MINE);
  });

  test.each([
    [
      'that this process descends from',
      { pid: process.ppid, startTime: startTime(process.ppid) ?? '' },
      MINE,
    ],
    ['with the pid of such a process, but another start', { pid: process.ppid, startTime: '1' }, heldBy('a')],
    ['that is this very process’s child', { pid: 1_000_000 }, heldBy('a')],
  ])('%s: %j', (_, more, seen) => {
    const { open, host, names } = setUp();
    const alive = {
      ...host,
      startTime: (pid: number) => ('startTime' in more && pid === more.pid ? more.startTime : '7'),
    };
    open('a', { ticket: ticketOf('a', { startTime: '7', ...more }) }).look('web01');
    const inner = open('b', { host: alive });
    expect(inner.look('web01')).toMatchObject(seen);
    if (seen === MINE) expect(names()).toEqual(['turn-web01.1']);
  });

  test('in another pid namespace that names the run around this one has the turn for it', () => {
    const { open } = setUp();
    open('a', { ticket: ticketOf('a', { bootId: 'boot pid:[2] time:[1]' }) }).look('web01');
    expect(open('b', { inside: 'a' }).look('web01')).toEqual(MINE);
    expect(open('c', { inside: 'x' }).look('web01')).toMatchObject(heldBy('a'));
  });
});

describe('what is no ticket', () => {
  test.each<[string, (path: string) => void]>([
    ['a huge file', (path) => writeFileSync(path, Buffer.alloc(4_000_000, 0x7b))],
    ['a link to somewhere', (path) => symlinkSync('/etc/passwd', path)],
    ['a link that is JSON', (path) => symlinkSync('{"v":2,"run":"x"}', path)],
    ['a folder', (path) => mkdirSync(path)],
  ])('%s keeps nobody out', (_, make) => {
    const { open, folder } = setUp();
    make(`${folder}/turn-web01.41`);
    const [a, b] = [open('a'), open('b')];
    expect(a.look('web01')).toEqual(MINE);
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    a.leave();
    expect(b.look('web01')).toEqual(MINE);
  });

  test.each(['turn-web01.0', 'turn-web01.01', 'turn-web01.', 'turn-web01.1x', 'turn-web01.1e3', 'web01.1'])(
    '%s is not looked at',
    (name) => expect(numberOf(name, 'turn-web01.')).toBeUndefined(),
  );

  test('a number too large for the next one ends the taking of turns, and is said', () => {
    const { open, folder } = setUp();
    symlinkSync('x', `${folder}/turn-web01.999999999999999`);
    expect(open('a').look('web01')).toMatchObject({ kind: 'nowhere' });
  });
});

describe('a folder', () => {
  test.each<[string, (folder: string) => string]>([
    ['that others can write', (folder) => (chmodSync(folder, 0o777), folder)],
    ['that is a link', (folder) => (symlinkSync(folder, `${folder}/link`), `${folder}/link`)],
    ['that is a file', (folder) => (writeFileSync(`${folder}/file`, ''), `${folder}/file`)],
    ['that can not be made', () => '/proc/self/none/turns'],
  ])('%s is not used, and it is said why', (_, spoil) => {
    const { open } = hostOf(inFolder(spoil(folderOf())));
    expect(open('a').look('web01')).toMatchObject({
      kind: 'nowhere',
      why: expect.stringMatching(/\w/) as string,
    });
  });

  test('that others can write from now on is left while the run waits', () => {
    const { open, folder } = setUp();
    open('a').look('web01');
    const b = open('b');
    expect(b.look('web01')).toMatchObject(heldBy('a'));
    chmodSync(folder, 0o777);
    expect(b.look('web01')).toMatchObject({ kind: 'nowhere' });
  });

  test('is the same for all runs of a user, with a login or without', () => {
    expect(turnFolders(0, undefined)).toEqual(['/run/runlock', '/tmp/runlock-0']);
    expect(turnFolders(1000, '')).toEqual(['/tmp/runlock-1000']);
    expect(turnFolders(1000, '/srv/turns')).toEqual(['/srv/turns']);
  });
});

describe('a ticket', () => {
  test('is read as it was written', () => {
    const ticket = ticketOf('a', { behind: 'b', command: 'Übung "x"' });
    expect(decodeTicket(encodeTicket(ticket))).toEqual({ v: 1, ...ticket });
  });

  test('always fits into a link: groups that have no room are left out', () => {
    const groups = Array.from({ length: 20 }, (_, at) => `${'g'.repeat(500)}/${at}`);
    const text = encodeTicket(ticketOf('a', { groups, command: 'c'.repeat(5_000) }));
    expect(Buffer.byteLength(text)).toBeLessThan(4_096);
    expect(decodeTicket(text)?.groups).toEqual(groups.slice(0, 7));
  });

  const written = JSON.parse(encodeTicket(ticketOf('a', { behind: 'b' }))) as Record<string, unknown>;
  test.each(Object.keys(written))('without a valid %s is none', (field) => {
    expect(decodeTicket(JSON.stringify({ ...written, [field]: [1] }))).toBeUndefined();
  });
});

test('decide: the lowest living ticket below the run’s own has the turn', () => {
  const living = (number: number) => (number % 2 === 0 ? ticketOf(String(number)) : undefined);
  expect(decide([1, 2, 3, 4, 5], living, 5)).toMatchObject(heldBy('2'));
  expect(decide([1, 3, 5, 6], living, 5)).toEqual({ kind: 'free', dead: [1, 3] });
  expect(decide([1, 6], living)).toMatchObject(heldBy('6'));
  expect(decide([], living)).toEqual({ kind: 'free', dead: [] });
});

describe('whatever others do between any two steps of a run that joins', () => {
  /** Tickets in memory; `between` is called before each operation. */
  function memory() {
    const links = new Map<TicketPlace, Ticket>();
    const filesOf = (between: () => void) => (): TurnFiles => {
      const step = <T>(act: () => T): T => (between(), act());
      return {
        ...{ folder: 'memory', isTrusted: () => true, touchedMs: () => 0, touch: () => undefined },
        numbers: () =>
          step(() => [...links.keys()].filter((place) => typeof place === 'number').sort((a, b) => a - b)),
        queued: () => step(() => [...links.keys()].filter((place) => typeof place === 'string')),
        read: (place) => step(() => links.get(place)),
        create: (place, ticket) => step(() => (links.has(place) ? false : (links.set(place, ticket), true))),
        remove: (place) => step(() => void links.delete(place)),
      };
    };
    return filesOf;
  }

  /** What the others do at one moment: one of them looks, lends the turn, leaves or dies. */
  const DEEDS = ['looks', 'lends', 'leaves', 'dies'].flatMap((deed) => [`b ${deed}`, `c ${deed}`]);
  const STEPS = 12;
  /** As `a`'s, or others. */
  const GROUPS: Readonly<Record<string, readonly string[]>> = { b: ['prod/db'], c: ['prod/web'] };

  /**
   * Does `before` first, then lets `a` look twice, lend and look, with each deed of `plan` before the step with its number.
   */
  function play(before: readonly string[], plan: ReadonlyMap<number, readonly string[]>): void {
    const filesOf = memory();
    const ends: (() => void)[] = [];
    const quiet = hostOf(
      filesOf(() => undefined),
      (act) => void ends.push(act),
    );
    const holding = new Set<string>();
    /** Who has lent it since. */
    const queued = new Set<string>();
    const fail = (what: string) => {
      throw new Error(`${what}: ${JSON.stringify([before, [...plan]])}`);
    };
    const others = new Map<string, { readonly run: string; readonly turn: Turn }>();
    let count = 0;
    const turnOf = (name: string) => {
      const run = `${name}${(count += 1)}`;
      const other = others.get(name) ?? { run, turn: quiet.open(run, { groups: GROUPS[name] ?? [] }) };
      others.set(name, other);
      return other.turn;
    };
    const takes = (name: string, turn: Turn) => {
      if (turn.look('web01').kind !== 'mine') return;
      holding.add(name);
      queued.delete(name);
      if (holding.size > 1) fail(`${[...holding].join(' and ')} have the turn`);
      if (name !== 'b' && (queued.has('a') || queued.has('c'))) fail(`${name} passes one of its group`);
    };
    const act = (deed: string) => {
      const [name = '', does = ''] = deed.split(' ');
      if (does === 'looks') {
        takes(name, turnOf(name));
        return;
      }
      const other = others.get(name);
      if (does === 'lends') {
        if (!holding.has(name) && !queued.has(name)) return;
        other?.turn.lend();
        holding.delete(name);
        queued.add(name);
        return;
      }
      queued.delete(name);
      if (does === 'leaves') other?.turn.leave();
      else if (other) quiet.dead.add(other.run);
      if (does === 'dies') others.delete(name);
      holding.delete(name);
    };
    for (const deed of before) act(deed);
    let step = 0;
    let isOver = false;
    const between = () => !isOver && plan.get((step += 1))?.forEach(act);
    const a = quiet.open('a', { filesOf: filesOf(() => void between()) });
    takes('a', a);
    takes('a', a);
    if (holding.has('a')) {
      holding.delete('a');
      a.lend();
      queued.add('a');
      takes('a', a);
    }
    isOver = true;
    // Nobody is kept out for ever: when the others have left, it has the turn.
    for (const name of ['b', 'c']) act(`${name} leaves`);
    takes('a', a);
    if (!holding.has('a')) fail('a is kept out');
    for (const end of ends) end();
  }

  const BEFORE = [
    [],
    ['b looks'],
    ['b looks', 'b dies'],
    ['b looks', 'c looks', 'b dies'],
    ['b looks', 'b lends', 'c looks'],
    ['c looks', 'c lends', 'b looks'],
    ['b looks', 'c looks'],
  ];

  test.each(BEFORE.map((before) => [before]))('after %j, never two have the turn at once', (before) => {
    for (let first = 1; first <= STEPS; first++)
      for (const one of DEEDS) {
        play(before, new Map([[first, [one]]]));
        for (const two of DEEDS) {
          for (let second = first; second <= STEPS; second++)
            if (second === first) play(before, new Map([[first, [one, two]]]));
            else
              play(
                before,
                new Map([
                  [first, [one]],
                  [second, [two]],
                ]),
              );
          // What nobody has can't be given back.
          if (one.endsWith('looks'))
            for (const three of DEEDS) play(before, new Map([[first, [one, two, three]]]));
        }
      }
  });
});

test('a ticket that finds no room is named by its place, without what stands in it', () => {
  const folder = folderOf();
  const { open } = hostOf((node) => ({
    ...openTurnFiles([folder], uid, node),
    create: (number, ticket) => {
      symlinkSync(encodeTicket(ticket), `${folder}/no-such-folder/${number}`);
      return true;
    },
  }));
  expect(open('a').look('web01')).toEqual({ kind: 'nowhere', why: `ENOENT: ${folder}/no-such-folder/1` });
});
