import { describe, expect, test } from 'vitest';
import { viewGroups } from '../../src/view/groups.ts';
import { readGroups } from '../../src/view/read.ts';
import type { GroupView } from '../../src/view/report.ts';
import type { Entry } from '../../src/consul/consul.ts';
import { RunlockError } from '../../src/errors.ts';
import { encode } from '../../src/lock/records.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const now = Date.UTC(2026, 2, 1, 12);
const [second, minute, hour] = [1_000, 60_000, 3_600_000];
const ago = (ms: number) => new Date(now - ms).toISOString();
const web = groupKeys('runlock', 'prod/web');
const signal = new AbortController().signal;

let index = 100;
function entry(key: string, record: object | string, changes: Partial<Entry> = {}): Entry {
  index += 1;
  const value = typeof record === 'string' ? record : encode(record);
  return { key, value, createIndex: index, modifyIndex: index, ...changes };
}

function claim(changes: object = {}, { keys = web, slot = 0 } = {}): Entry {
  const running = {
    node: 'web01',
    state: 'running',
    run: 'r1',
    since: ago(4 * minute),
    command: 'chef-client',
  };
  const runner = { pid: 4711, startTime: '1', bootId: 'b' };
  return entry(keys.owner(slot), { ...runner, ...running, hold: 'forever', ...changes });
}

function lock({ keys = web, slot = 0 } = {}): Entry {
  return entry(keys.lock(slot), { run: 'r1' }, { session: 's1' });
}

function ticket(node: string, changes: Partial<Entry> = {}, keys = web): Entry {
  const record = { node, run: 'r9', since: ago(3 * minute + 12 * second), command: 'chef-client', pid: 99 };
  return entry(keys.queue(`session-of-${node}`), record, { session: `session-of-${node}`, ...changes });
}

function freeze(key: string, changes: object = {}): Entry {
  return entry(key, { by: 'ops', reason: 'new disks', since: ago(2 * hour), ...changes });
}

function view(entries: Entry[], group = 'prod/web'): GroupView {
  const found = viewGroups({ entries }, { prefix: 'runlock', groups: [group], now }).groups[0];
  if (!found) throw new Error('no such group');
  return found;
}

function mark(node: string, session: string | undefined, changes: object = {}): Entry {
  const record = {
    run: 'r2',
    since: ago(minute),
    pid: 7,
    startTime: '1',
    bootId: 'b',
    host: 'h',
    ...changes,
  };
  return entry(web.node(node), record, session === undefined ? {} : { session });
}

describe('a run that waits for its node’s own claim', () => {
  const failed = claim({ state: 'failed', exitCode: 1 }, { keys: web, slot: 1 });
  const back = {
    ...{ node: 'web01', slot: 1, run: 'r2', since: ago(minute), waitedMs: minute, pid: 7 },
    ...{ session: 's2', host: 'h' },
  };

  test('beyond its --slots is shown, with what it waits for; it is nobody’s to repair', () => {
    const seen = view([failed, mark('web01', 's2')]);
    const why =
      "slot 1 is beyond the run's --slots; the run starts in a lower slot once fewer than --slots slots are taken";
    expect(seen.returning).toEqual([{ ...back, why }]);
    expect(seen.queue).toEqual([]);
    expect(seen.why).toContain(`web01 is waiting to run again: ${why}`);
    expect(seen.next).toBe('wait: web01 is back, and its claim is cleared when its run succeeds');
    expect(seen).not.toHaveProperty('fix');
  });

  test('in a frozen group is shown, and counted as one that waits', () => {
    const seen = view([failed, mark('web01', 's2'), freeze(`${web.prefix}.freeze`)]);
    expect(seen.returning).toEqual([{ ...back, why: 'takes slot 1 back when the freeze ends' }]);
    expect(seen.why).toMatch(/; 1 run waiting; slot 1: web01 failed /);
  });

  test.each<[string, Entry[]]>([
    ['that is in the queue', [mark('web01', 's2'), ticket('web01', { session: 's2' })]],
    ['that has a slot', [mark('web01', 's1'), lock()]],
    ['whose mark no session holds', [mark('web01', undefined)]],
    [
      'whose claim is its own: it is under way, and somebody took its lock',
      [mark('web01', 's2', { run: 'r1' })],
    ],
    ['that has no claim', [mark('web02', 's2')]],
  ])('is not one %s', (_, entries) => {
    expect(view([failed, ...entries])).not.toHaveProperty('returning');
  });
});

describe('a claim that names its machine', () => {
  test.each(['running', 'evicted', 'abandoned', 'held'])(
    '%s: says where to look, if that is not the node’s name',
    (state) => {
      const [there, own, domain, old] = ['host-b', 'web01', 'WEB01.example.com', undefined].map((host) =>
        view([claim({ state, ...(host && { host }) })]),
      );
      expect(there?.slots[0]).toMatchObject({ node: 'web01', host: 'host-b' });
      expect(there?.next).toMatch(/(?:check|work on) web01 \(on host-b\)/);
      for (const plain of [own, domain, old])
        expect(plain?.next).toMatch(/(?:check|work on) web01(?: first|$)/);
    },
  );
});

test.each(['.tail', '.last'])('rubbish in %s is a problem of its group, which names the key', (name) => {
  const { problems } = view([entry(`runlock/prod/web/${name}`, 'rubbish')]);
  expect(problems).toEqual([
    `runlock/prod/web/${name}: not a queue mark that runlock wrote; check the value with 'consul kv get runlock/prod/web/${name}', and delete the key if no run needs it`,
  ]);
});

test('a node’s mark that a session holds and nobody can read is a problem: its runs stop at it', () => {
  const entries = [
    entry(web.node('web01'), 'rubbish', { session: 's' }),
    entry(web.node('web02'), 'rubbish'),
  ];
  const { problems } = view(entries);
  expect(problems).toHaveLength(1);
  expect(problems[0]).toMatch(/^runlock\/prod\/web\/\.node\/web01: not a node mark/);
});

describe('the report', () => {
  test('shows every group below the prefix by name, and foreign keys nowhere', () => {
    const entries = [
      ...[lock(), claim()],
      entry('runlock/prod/.tail', { session: 's' }),
      entry('runlock/dev/.runs/web01', 'not even read'),
      ...['runlock/notes', 'runlock/a b/.tail', 'runlock/prod/.new/x', 'runlock/'].map((key) =>
        entry(key, 'x'),
      ),
    ];
    const report = viewGroups({ entries }, { prefix: 'runlock', groups: [], now });
    expect(report).toMatchObject({ v: 1, prefix: 'runlock', at: '2026-03-01T12:00:00.000Z' });
    expect(report.groups.map(({ group }) => group)).toEqual(['dev', 'prod', 'prod/web']);
  });

  test('shows a slot as its claim says, alive when a session holds its lock', () => {
    const changes = { state: 'failed', exitCode: 1, hold: hour, heldUntil: ago(-hour), by: 'ops' };
    expect(view([claim(), lock(), claim(changes, { keys: web, slot: 3 })]).slots).toEqual([
      {
        ...{ slot: 0, state: 'running', alive: true, node: 'web01', since: ago(4 * minute), run: 'r1' },
        ...{ command: 'chef-client', hold: 'forever', pid: 4711 },
      },
      {
        ...{ slot: 3, state: 'failed', alive: false, node: 'web01', since: ago(4 * minute), run: 'r1' },
        ...{ command: 'chef-client', exitCode: 1, hold: hour, heldUntil: ago(-hour), pid: 4711, by: 'ops' },
      },
    ]);
  });

  test('shows slot 0 as free when nothing of it is stored', () => {
    expect(view([claim({}, { keys: web, slot: 1 })]).slots.map(({ slot, state }) => [slot, state])).toEqual([
      [0, 'free'],
      [1, 'running'],
    ]);
  });

  test('orders slots by number, not by key', () => {
    const slots = [10, 2, 1].map((slot) => claim({}, { keys: web, slot }));
    expect(view(slots).slots.map(({ slot }) => slot)).toEqual([0, 1, 2, 10]);
  });

  test('orders the queue by CreateIndex, not by key', () => {
    const [a, b, c] = [
      ticket('a', { createIndex: 30 }),
      ticket('b', { createIndex: 10 }),
      ticket('c', { createIndex: 20 }),
    ];
    expect(view([a, b, c]).queue).toMatchObject([
      { place: 1, node: 'b', waitedMs: 192_000, session: 'session-of-b', pid: 99 },
      { place: 2, node: 'c' },
      { place: 3, node: 'a' },
    ]);
  });

  test('is not taken down by what it cannot read, which keeps its place', () => {
    const newer = entry(web.owner(0), '{"v":7}');
    const garbage = entry(web.queue('s0'), 'garbage', { session: 's0', createIndex: 1 });
    const group = view([newer, garbage, ticket('web05'), entry(web.lock(1), '?', { session: 's' })]);
    expect(group.slots).toMatchObject([
      { slot: 0, state: 'unreadable', alive: false },
      { slot: 1, state: 'locked', alive: true },
    ]);
    expect(group.queue).toMatchObject([{ place: 2, node: 'web05' }]);
    expect(group.problems).toHaveLength(3);
    expect(group.problems.join()).toMatch(/slot\/0\/owner: .*newer runlock.*slot\/1\/lock.*queue\/s0/);
    expect(group.why).toMatch(/^slot 0: its claim can't be read, so no run can use the slot/);
    expect(group.fix).toBeUndefined();
  });

  test('says that a ticket without a session never leaves the queue', () => {
    const { key, value, createIndex, modifyIndex } = ticket('web05');
    const orphan = { key, value, createIndex, modifyIndex };
    expect(view([orphan]).problems).toEqual([expect.stringContaining(`consul kv delete ${orphan.key}`)]);
  });

  test('keeps the groups prod and prod/web apart', () => {
    const prod = groupKeys('runlock', 'prod');
    const entries = [ticket('web05'), claim({ node: 'db01' }, { keys: prod, slot: 0 })];
    expect(view(entries)).toMatchObject({ slots: [{ state: 'free' }], queue: [{ node: 'web05' }] });
    expect(view(entries, 'prod')).toMatchObject({ slots: [{ node: 'db01' }], queue: [] });
  });
});

describe('a group says why it stands still', () => {
  const failed = { state: 'failed', exitCode: 1, since: ago(2 * hour) };
  const gone =
    'slot 0: web01 has vanished or is cut off from Consul, and chef-client may still be running there; ' +
    'the next run of web01 takes the slot back;';
  const unseen = '60s after a waiting run notices this,';
  const clear = 'runlock release prod/web --owner web01';
  const look =
    /^check web01 first: chef-client may still be running there; .*'runlock release' \(asks for confirmation\)$/;
  const stranger =
    /^a session that belongs to no run holds runlock\/prod\/web\/\.slot\/0\/lock, .*'consul kv delete /;

  test.each<[string, Entry[], string, (string | undefined)?, RegExp?]>([
    ['nobody ever used it', [], 'group prod/web has not been used yet (or this token may not read it)'],
    // The tail's value was rubbish here once, of which nothing was said.
    ['idle', [entry(web.tail, { session: 's' })], 'idle: nothing running or waiting'],
    ['running', [claim(), lock()], 'slot 0: web01 has been running chef-client for 4m'],
    [
      'running with waiters',
      [claim(), lock(), ticket('web02'), ticket('web03')],
      'slot 0: web01 has been running chef-client for 4m; 2 runs waiting',
    ],
    [
      'several running',
      [0, 1, 2].flatMap((slot) => [claim({}, { keys: web, slot }), lock({ keys: web, slot })]),
      'slot 0: web01 has been running chef-client for 4m; 2 other slots are taken',
    ],
    ['a free slot and waiters', [ticket('web05')], 'web05 is next for slot 0'],
    [
      'a free slot and many waiters',
      [ticket('web05'), ticket('web06')],
      'web05 is next for slot 0 (2 runs waiting)',
    ],
    [
      'failed',
      [claim(failed)],
      'slot 0: web01 failed 2h ago (chef-client, exit 1) and holds the slot until a run succeeds or the claim is cleared',
      clear,
    ],
    [
      'interrupted',
      [claim({ state: 'interrupted', exitCode: 143, since: ago(2 * hour) })],
      'slot 0: web01 was interrupted by a signal 2h ago (chef-client, exit 143) and holds the slot until a run succeeds or the claim is cleared',
      undefined,
      /^wait for the next run of web01, which takes the slot back, or start a run on web01$/,
    ],
    [
      'failed, held for a while',
      [claim({ ...failed, hold: 3 * hour, heldUntil: ago(-hour) }), ticket('web02')],
      'slot 0: web01 failed 2h ago (chef-client, exit 1) and holds the slot until 2026-03-01T13:00:00Z (in 1h), unless released first; 1 run waiting',
      clear,
    ],
    [
      'failed, within the allowed difference of clocks',
      [claim({ ...failed, heldUntil: ago(4 * second) }), ticket('web02')],
      'slot 0: web01 failed 2h ago (chef-client, exit 1) and holds the slot until 2026-03-01T11:59:56Z (in 0s), unless released first; 1 run waiting',
      clear,
    ],
    [
      'failed, its hold over, with waiters',
      [claim({ ...failed, heldUntil: ago(minute) }), ticket('web02')],
      'web02 is next for slot 0',
    ],
    [
      'failed, its hold over',
      [claim({ ...failed, heldUntil: ago(minute) })],
      'slot 0: web01 failed 2h ago (chef-client, exit 1); its hold has expired',
    ],
    [
      'rebooting',
      [claim({ state: 'rebooting', exitCode: 35 })],
      'slot 0: web01 has been rebooting for 4m (chef-client, exit 35) and holds the slot until a run succeeds or the claim is cleared',
      undefined,
      /^wait for the next run of web01; if web01 does not come back, check it$/,
    ],
    [
      'held by acquire',
      [claim({ state: 'held' })],
      "slot 0: web01 acquired the slot 4m ago with 'runlock acquire' and holds the slot until released",
      undefined,
      /^wait until web01 releases the slot, or ask the people who work on web01$/,
    ],
    [
      'abandoned',
      [claim({ state: 'abandoned' })],
      'slot 0: web01 vanished 4m ago while running chef-client and holds the slot until a run succeeds or the claim is cleared',
      undefined,
      look,
    ],
    ['running without a lock', [claim()], `${gone} ${unseen} the claim counts as abandoned`, undefined, look],
    [
      'running without a lock, and somebody has seen it',
      [claim({ missingSince: ago(20_000) })],
      `${gone} a waiting run noticed this 20s ago; 60s after that, the claim counts as abandoned`,
      undefined,
      look,
    ],
    [
      'running without a lock or a hold',
      [claim({ hold: 'none' })],
      `${gone} ${unseen} the next run in the queue takes the slot`,
      undefined,
      look,
    ],
    [
      'evicted',
      [claim({ state: 'evicted', by: 'jane' }), lock()],
      'slot 0: jane evicted web01; the slot is released once chef-client has ended',
    ],
    [
      'evicted without a lock',
      [claim({ state: 'evicted', by: 'jane' })],
      `${gone} ${unseen} the claim counts as abandoned`,
      undefined,
      look,
    ],
    [
      'failed, and a session that is no run’s has the lock',
      [claim(failed), lock()],
      'slot 0: web01 failed 2h ago (chef-client, exit 1) and holds the slot until a run succeeds or the claim is cleared',
      undefined,
      stranger,
    ],
    [
      'held, and a session that is no run’s has the lock',
      [claim({ state: 'held' }), lock()],
      "slot 0: web01 acquired the slot 4m ago with 'runlock acquire' and holds the slot until released",
      undefined,
      stranger,
    ],
    [
      'a lock without a claim',
      [lock()],
      'slot 0: locked by a run whose claim is missing; that run claims the slot again or stops',
    ],
    [
      'two slots kept',
      [claim(failed), claim(failed, { keys: web, slot: 1 })],
      'slot 0: web01 failed 2h ago (chef-client, exit 1) and holds the slot until a run succeeds or the claim is cleared; 1 other slot is held',
      clear,
    ],
    [
      'one slot kept, one running',
      [
        claim(failed),
        claim({ node: 'web02' }, { keys: web, slot: 1 }),
        lock({ keys: web, slot: 1 }),
        ticket('web03'),
      ],
      'slot 0: web01 failed 2h ago (chef-client, exit 1) and holds the slot until a run succeeds or the claim is cleared; ' +
        'slot 1: web02 has been running chef-client for 4m; 1 run waiting',
      clear,
    ],
  ])('%s', (_, entries, why, fix, next) => {
    const group = view(entries);
    expect(group).toMatchObject({ known: entries.length > 0, why, problems: [] });
    // A command that clears what may still be at work stood here once, and whoever pasted it had two nodes at it.
    expect(group.fix).toBe(fix);
    if (next) expect(group.next).toMatch(next);
    else expect(group.next).toBe(fix && 'repair web01 and run it again, or clear its claim');
  });
});

describe('a freeze', () => {
  const root = 'runlock/.freeze';

  test('is shown with who, why and until when', () => {
    const group = view([
      freeze('runlock/prod/web/.freeze', { until: ago(-hour) }),
      claim({ state: 'failed' }),
      ticket('web02'),
    ]);
    expect(group.frozen).toEqual({
      ...{ at: 'prod/web', by: 'ops', reason: 'new disks', since: ago(2 * hour), until: ago(-hour) },
    });
    // What a thaw would not end was not said once.
    expect(group.why).toMatch(
      /^prod\/web was frozen 2h ago by ops \(new disks\); no new runs until 2026-03-01T13:00:00Z \(in 1h\); 1 run waiting; slot 0: web01 failed /,
    );
    expect(group.state).toBe('blocked');
    expect(group.fix).toBe('runlock thaw prod/web');
  });

  test('of an ancestor stops the group, the nearest first', () => {
    const entries = [
      freeze(root),
      freeze('runlock/prod/.freeze', { by: 'jane' }),
      freeze('runlock/other/.freeze'),
    ];
    expect(view(entries)).toMatchObject({
      frozen: { at: 'prod', by: 'jane' },
      why: 'prod (which includes prod/web) was frozen 2h ago by jane (new disks); no new runs until thawed; group prod/web has not been used yet (or this token may not read it)',
      fix: 'runlock thaw prod',
    });
    expect(view([...entries, ticket('web02')]).why).toMatch(/until thawed; 1 run waiting$/);
    expect(view(entries, 'dev')).toMatchObject({ frozen: { at: '' }, fix: 'runlock thaw /' });
  });

  test('past its end counts as absent, and hides none above it', () => {
    const over = freeze('runlock/prod/web/.freeze', { until: ago(0) });
    expect(view([over])).not.toHaveProperty('frozen');
    expect(view([over]).why).toMatch(/^idle/);
    expect(view([over, freeze(root)])).toMatchObject({ frozen: { at: '' } });
  });

  test('that cannot be read stops the group all the same', () => {
    const group = view([entry('runlock/prod/.freeze', 'garbage'), ticket('web02')]);
    expect(group.why).toMatch(/^no new runs/);
    expect(group.problems).toEqual([expect.stringContaining('runlock/prod/.freeze')]);
  });

  test('of the root is reported when no group is stored', () => {
    const report = viewGroups({ entries: [freeze(root)] }, { prefix: 'runlock', groups: [], now });
    expect(report).toMatchObject({ frozen: { at: '', by: 'ops' }, groups: [] });
  });
});

describe('status reads', () => {
  /** A store that answers as Consul does, and remembers what was asked. */
  function store(entries: Entry[], refuse: string[] = []) {
    const asked: string[] = [];
    const refused = new RunlockError('forbidden', 'needs key "…" { policy = "read" }');
    const consul = fakeConsul({
      list: (prefix) => {
        asked.push(prefix);
        return Promise.resolve({ entries: entries.filter(({ key }) => key.startsWith(prefix)), index: 1 });
      },
      get: (key) => {
        asked.push(key);
        if (refuse.includes(key)) return Promise.reject(refused);
        return Promise.resolve({ entry: entries.find((each) => each.key === key), index: 1 });
      },
    });
    return { consul, asked };
  }

  const everything = [claim(), lock(), freeze('runlock/.freeze'), entry('runlock/prod/web/old/.tail', 'x')];

  test('the whole prefix at once', async () => {
    const { consul, asked } = store(everything);
    const report = await readGroups(consul, { prefix: 'runlock', groups: [], now, signal });
    expect(asked).toEqual(['runlock/']);
    expect(report.groups.map(({ group }) => group)).toEqual(['prod/web', 'prod/web/old']);
  });

  // Those below were not shown once; `freeze` has always stopped them too.
  test('a named group, those below it, and the freezes above', async () => {
    const { consul, asked } = store(everything);
    const report = await readGroups(consul, {
      prefix: 'runlock',
      groups: ['prod/web', 'prod/web'],
      now,
      signal,
    });
    expect(asked.sort()).toEqual(['runlock/.freeze', 'runlock/prod/.freeze', 'runlock/prod/web/']);
    expect(report.groups).toMatchObject([
      { group: 'prod/web', known: true, frozen: { at: '' } },
      { group: 'prod/web/old' },
    ]);
  });

  test('a group that is only above others too: it is named, unknown and counted nowhere', async () => {
    const { consul, asked } = store([claim(), lock(), entry('runlock/prod-x/.tail', { session: 's' })]);
    const report = await readGroups(consul, { prefix: 'runlock', groups: ['prod'], now, signal });
    expect(asked.sort()).toEqual(['runlock/.freeze', 'runlock/prod/']);
    expect(report.groups).toMatchObject([
      { group: 'prod', known: false, state: 'idle' },
      { group: 'prod/web', known: true, state: 'running' },
    ]);
    expect(report.states).toEqual({ blocked: 0, waiting: 0, running: 1, idle: 0, frozen: 0 });
  });

  test('where its runs are beside it, without the groups below those', async () => {
    const groups = ['prod', 'prod/web'];
    const prod = groupKeys('runlock', 'prod');
    const { consul, asked } = store([
      ...[claim({ groups }), lock(), claim({ groups }, { keys: prod }), lock({ keys: prod })],
      ticket('web05'),
    ]);
    const report = await readGroups(consul, { prefix: 'runlock', groups: ['prod/web'], now, signal });
    expect(asked).toContain('runlock/prod/');
    expect(report.groups).toMatchObject([{ group: 'prod/web', queue: [{ node: 'web05' }] }]);
    expect(report.groups[0]?.queue).toHaveLength(1);
    expect(report.groups[0]?.slots[0]?.also).toEqual([{ group: 'prod', slot: 0, state: 'running' }]);
  });

  test('no ticket twice when a group and one below it are named', async () => {
    const { consul } = store([ticket('web05'), entry('runlock/prod/.freeze', 'garbage')]);
    const report = await readGroups(consul, { prefix: 'runlock', groups: ['prod/web', 'prod'], now, signal });
    expect(report.groups).toMatchObject([
      { group: 'prod', queue: [], problems: [expect.any(String)] },
      { group: 'prod/web', queue: [{ node: 'web05' }], problems: [expect.any(String)] },
    ]);
  });

  test('what it may, when a freeze above is refused', async () => {
    const { consul } = store([claim(), lock()], ['runlock/prod/.freeze']);
    const report = await readGroups(consul, { prefix: 'runlock', groups: ['prod/web'], now, signal });
    expect(report.groups).toMatchObject([
      { slots: [{ state: 'running' }], problems: [expect.stringContaining('policy = "read"')] },
    ]);
  });
});

test('groups that a hand made wait for each other in a circle are explained at once', () => {
  const names = Array.from({ length: 60 }, (_, i) => `ring/g${i}`);
  const entries = names.flatMap((group, i) => {
    const [here, there] = [group, names[(i + 1) % names.length] ?? ''].map((name) =>
      groupKeys('runlock', name),
    );
    if (!here || !there) return [];
    const run = { run: `r${i}`, groups: [here.group, there.group] };
    const waits = { node: `web${i}`, since: ago(minute), command: 'sh', pid: 1, ...run };
    return [
      ...[claim({ node: `web${i}`, ...run }, { keys: here }), lock({ keys: here })],
      entry(there.queue(`s${i}`), waits, { session: `s${i}` }),
    ];
  });
  const { groups } = viewGroups({ entries }, { prefix: 'runlock', groups: [], now });
  expect(groups).toHaveLength(60);
  const [first] = groups;
  // So many groups are followed, and no more.
  expect(first?.why.match(/waiting for a slot of/g)).toHaveLength(8);
  expect(first?.state).toBe('waiting');
});
