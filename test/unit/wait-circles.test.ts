// Runs that wait for each other: which circles are named, which are not, and in what words.
import { describe, expect, test } from 'vitest';
import type { Entry } from '../../src/consul/consul.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import { encodeState } from '../../src/state/document.ts';
import type { StateDocument } from '../../src/state/document.ts';
import { stateKey } from '../../src/state/path.ts';
import { viewGroups } from '../../src/view/groups.ts';
import { outsideKey, outsideRecord } from '../support/outside.ts';
import type { Waits } from '../support/outside.ts';

const now = Date.UTC(2026, 2, 1, 12);
const minute = 60_000;
const ago = (ms: number) => new Date(now - ms).toISOString();

let index = 100;
function entry(key: string, value: object | string, session?: string): Entry {
  index += 1;
  const text = typeof value === 'string' ? value : encode(value);
  return {
    key,
    value: text,
    createIndex: index,
    modifyIndex: index,
    ...(session !== undefined && { session }),
  };
}
const waits = (node: string, group: string, more: Partial<Waits> = {}) =>
  [group, ...(more.also ?? [])].map((each) =>
    entry(
      outsideKey({ node, group: each }),
      outsideRecord({ node, group, since: ago(minute), ...more }),
      `s-${node}`,
    ),
  );
const ticket = (node: string, group: string, groups?: readonly string[], publish?: readonly string[]) =>
  entry(
    groupKeys('runlock', group).queue(`q-${node}`),
    {
      ...{ node, run: `run-of-${node}`, since: ago(minute), command: 'sh', pid: 1 },
      ...(groups && { groups }),
      ...(publish && { publish }),
    },
    `q-${node}`,
  );
interface Claimed {
  readonly node: string;
  readonly group: string;
  readonly slot?: number;
  readonly state?: string;
  readonly alive?: boolean;
  readonly run?: string;
  readonly groups?: readonly string[];
  readonly fields?: object;
}
function claim({
  node,
  group,
  slot = 0,
  state = 'failed',
  alive = state === 'running',
  run = `old-${node}`,
  ...more
}: Claimed) {
  const keys = groupKeys('runlock', group);
  const record = {
    ...{
      node,
      state,
      run,
      since: ago(minute),
      command: 'sh',
      hold: 'forever',
      pid: 1,
      startTime: '1',
      bootId: 'b',
    },
    ...(more.groups && { groups: more.groups }),
    ...more.fields,
  };
  return [entry(keys.owner(slot), record), ...(alive ? [entry(keys.lock(slot), { run }, `l-${node}`)] : [])];
}
const record = (node: string, group: string, outcome = 'succeeded') =>
  entry(groupKeys('runlock', group).run(node), {
    ...{
      node,
      run: `old-${node}`,
      outcome,
      command: 'sh',
      slot: 0,
      endedAt: ago(minute),
      waitedMs: 0,
      ranMs: 0,
    },
  });
const state = (path: string, fields: Partial<StateDocument> = {}) =>
  entry(
    stateKey('runlock', path),
    encodeState({ value: '1', change: 'c', by: 'anna@host', at: ago(minute), ...fields }),
  );

type Stored = Entry | readonly Entry[];
const circlesOf = (...entries: Stored[]) =>
  viewGroups(
    { entries: entries.flat(), waits: { instances: new Map(), refused: new Map(), unread: new Set() } },
    { prefix: 'runlock', groups: [], now },
  ).circles ?? [];
const nodesOf = (...entries: Stored[]) =>
  circlesOf(...entries).map(({ runs }) => runs.map(({ node }) => node));

describe('by states', () => {
  const web = waits('web01', 'web', { when: ['state:db/schema=42'], publish: ['web/ready'] });
  const db = waits('db01', 'db', { when: ['state:web/ready'], publish: ['db/schema'] });

  test('two runs that publish what the other waits for are named, in order, with what to do', () => {
    expect(circlesOf(web, db)).toEqual([
      {
        runs: [
          {
            ...{ node: 'db01', run: 'run-of-db01', groups: ['db'] },
            ...{ waitsFor: 'state:web/ready', because: 'web01 publishes it' },
          },
          {
            ...{ node: 'web01', run: 'run-of-web01', groups: ['web'] },
            ...{ waitsFor: 'state:db/schema=42', because: 'db01 publishes it' },
          },
        ],
        why:
          'db01 (db) is waiting for state:web/ready (web01 publishes it); web01 (web) is waiting for ' +
          'state:db/schema=42 (db01 publishes it); none of them can start',
        next: "stop one of these runs and start it with other conditions, or set the state by hand with 'runlock state set web/ready VALUE'",
      },
    ]);
  });

  test('one that another run publishes, too, which can start, is none', () => {
    expect(nodesOf(web, db, waits('db02', 'db', { publish: ['db/schema'] }))).toEqual([]);
    expect(nodesOf(web, db, waits('db02', 'db', { when: ['state:x'], publish: ['db/schema'] }))).toEqual([]);
    // It waits for one of them.
    const behind = waits('db02', 'db', { when: ['state:web/ready'], publish: ['db/schema'] });
    expect(nodesOf(web, db, behind)).toEqual([['db01', 'web01']]);
  });

  test('is none while there may be runs that were not read, but for a state that its claim keeps', () => {
    const partly = (...entries: Stored[]) =>
      viewGroups(
        {
          entries: entries.flat(),
          waits: { instances: new Map(), refused: new Map(), unread: new Set(), isPartial: true },
        },
        { prefix: 'runlock', groups: [], now },
      ).circles;
    expect(partly(web, db)).toBeUndefined();
    const gone = waits('web01', 'web', { when: ['not:state:db/locked'] });
    const back = waits('db01', 'db', { when: ['good:web01@web'] });
    const locked = state('db/locked', { while: { group: 'db', slot: 0, root: 'old-db01' } });
    expect(partly(gone, back, claim({ node: 'db01', group: 'db' }), locked)).toHaveLength(1);
  });

  test('one that a run with a slot or a place in the queue publishes, too, is none', () => {
    const fields = { publish: ['x', 'db/schema'] };
    const running = { node: 'db02', group: 'db', state: 'running', fields };
    expect(nodesOf(web, db, claim(running))).toEqual([]);
    expect(nodesOf(web, db, claim({ ...running, fields: { publish: ['x'] } }))).toHaveLength(1);
    // What it was to publish at its good end, it no longer will.
    const shown = (state: string) =>
      viewGroups({ entries: claim({ ...running, state }) }, { prefix: 'runlock', groups: [], now }).groups[0]
        ?.slots[0];
    expect(shown('running')).toHaveProperty('publish');
    for (const state of ['failed', 'evicted']) {
      expect(nodesOf(web, db, claim({ ...running, state }))).toHaveLength(1);
      expect(shown(state)).not.toHaveProperty('publish');
    }
    const queued = ticket('db02', 'db', undefined, ['db/schema']);
    expect(nodesOf(web, db, queued)).toEqual([]);
    expect(nodesOf(web, db, claim({ node: 'db03', group: 'db', state: 'running' }), queued)).toEqual([]);
    // It has a slot, and waits for a claim that only one of them would end.
    const several = { groups: ['app', 'db'], run: 'run-of-db02' };
    const first = claim({ ...running, ...several, group: 'app' });
    const second = ticket('db02', 'db', several.groups, ['db/schema']);
    expect(nodesOf(web, db, first, second)).toEqual([]);
    expect(nodesOf(web, db, first, second, claim({ node: 'db01', group: 'db' }))).toHaveLength(1);
  });

  test('one that a run publishes, too, which waits for its own node’s claim, is none', () => {
    const mark = (more: object) =>
      entry(
        groupKeys('runlock', 'db').node('db02'),
        { run: 'new', since: ago(minute), pid: 1, startTime: '1', bootId: 'b', ...more },
        's-db02',
      );
    const own = claim({ node: 'db02', group: 'db', slot: 1 });
    expect(nodesOf(web, db, own, mark({ publish: ['db/schema'] }))).toEqual([]);
    expect(nodesOf(web, db, own, mark({}))).toHaveLength(1);
  });

  test('no longer, when a state is as its run wants it', () => {
    expect(nodesOf(web, db, state('web/ready'))).toEqual([]);
    expect(nodesOf(web, db, state('db/schema', { value: '42' }))).toEqual([]);
    expect(nodesOf(web, db, state('db/schema'))).toHaveLength(1);
  });

  test('not where the node that set it last has a run under way, which may set it again', () => {
    const set = state('db/schema', { by: 'db09', run: 'old-db09', published: true });
    expect(nodesOf(web, db, set)).toHaveLength(1);
    expect(nodesOf(web, db, set, claim({ node: 'db09', group: 'db', state: 'running' }))).toEqual([]);
  });

  test('not where only part of the conditions leads into it, if nobody else is stuck', () => {
    // One of the two that could publish it waits for something of which nobody knows.
    expect(nodesOf(web, waits('db01', 'db', { when: ['healthy:web'], publish: ['db/schema'] }))).toEqual([]);
    const more = waits('db01', 'db', {
      when: ['state:web/ready', 'healthy:web', 'frozen:x'],
      publish: ['db/schema'],
    });
    expect(nodesOf(web, more)).toHaveLength(1);
  });

  test('`--during` counts as well, and a run that waits for what itself publishes', () => {
    expect(
      nodesOf(web, waits('db01', 'db', { when: ['state:web/ready'], during: ['db/schema'] })),
    ).toHaveLength(1);
    const [own, ...more] = circlesOf(waits('a', 'g', { when: ['state:x=1'], publish: ['x'] }));
    expect([own?.why, more]).toEqual([
      'a (g) is waiting for state:x=1 (a publishes it); the run is waiting for itself',
      [],
    ]);
    expect(own?.next).toContain("'runlock state set x 1'");
  });

  test('a state that should be another is set by its publishers, or ends with its time', () => {
    const other = waits('web01', 'web', { when: ['state:db/schema!=1'], publish: ['web/ready'] });
    expect(nodesOf(other, db, state('db/schema'))).toHaveLength(1);
    expect(nodesOf(other, db, state('db/schema', { until: new Date(now + minute).toISOString() }))).toEqual(
      [],
    );
  });

  test('a state that should go is gone with the claim that keeps it', () => {
    const gone = waits('web01', 'web', { when: ['not:state:db/locked'], publish: ['web/ready'] });
    const root = { group: 'db', slot: 0, root: 'old-db01' };
    const failed = claim({ node: 'db01', group: 'db' });
    expect(nodesOf(gone, db, state('db/locked'))).toEqual([]);
    expect(nodesOf(gone, db, failed, state('db/locked', { while: root }))).toEqual([['db01', 'web01']]);
  });
});

describe('by runs', () => {
  test('good: waits for the node’s next run, of each node that is not good', () => {
    const web = waits('web01', 'web', { when: ['good:db01@db'] });
    expect(nodesOf(web, waits('db01', 'db', { when: ['good:web01@web'] }))).toEqual([['db01', 'web01']]);
    expect(nodesOf(web, waits('db01', 'other', { when: ['good:web01@web'] }))).toEqual([]);
    const all = waits('db01', 'db', { when: ['good:*@web'] });
    expect(nodesOf(web, all)).toEqual([]);
    expect(nodesOf(web, all, record('web01', 'web', 'failed'), record('web02', 'web'))).toHaveLength(1);
    expect(nodesOf(web, all, record('web01', 'web'), record('web02', 'web', 'failed'))).toEqual([]);
  });

  test('not while a run of that node is under way', () => {
    const web = waits('web01', 'web', { when: ['good:db01@db'] });
    const db = waits('db01', 'db', { when: ['good:web01@web'] });
    expect(nodesOf(web, db, claim({ node: 'web01', group: 'web', state: 'running' }))).toEqual([]);
    expect(nodesOf(web, db, claim({ node: 'web02', group: 'web', state: 'running' }))).toHaveLength(1);
  });

  test('without a group it is about the run’s own groups; active: waits for a start', () => {
    const web = waits('web01', 'site', { when: ['active:db01'] });
    expect(nodesOf(web, waits('db01', 'site', { when: ['good:web01'] }))).toEqual([['web01', 'db01']]);
    expect(nodesOf(web, waits('db01', 'db', { when: ['good:web01'] }))).toEqual([]);
  });

  test('not:idle: waits for any run of the group', () => {
    const web = waits('web01', 'web', { when: ['not:idle:db'] });
    const stuck = waits('db01', 'db', { when: ['good:web01@web'] });
    expect(nodesOf(web, stuck)).toHaveLength(1);
    expect(nodesOf(web, stuck, waits('db02', 'db'))).toEqual([]);
  });
});

describe('by claims', () => {
  const failed = claim({ node: 'db01', group: 'db' });
  const web = waits('web01', 'web', { when: ['idle:db'] });
  const back = waits('db01', 'db', { when: ['good:web01@web'] });

  test('idle: and not:blocked: wait for the node whose claim keeps a slot, while it waits itself', () => {
    const [circle] = circlesOf(web, failed, back);
    expect(circle?.why).toBe(
      'db01 (db) is waiting for good:web01@web (only a run of web01 can make this true); web01 (web) is waiting for idle:db ' +
        '(db01 holds slot 0 of db); none of them can start',
    );
    expect(circle?.next).toBe('stop one of these runs and start it with other conditions');
    expect(nodesOf(waits('web01', 'web', { when: ['not:blocked:db'] }), failed, back)).toHaveLength(1);
    // Its next run has not come yet, or is another's.
    expect(nodesOf(web, failed)).toEqual([]);
    expect(nodesOf(web, failed, waits('db02', 'db', { when: ['good:web01@web'] }))).toEqual([]);
  });

  test('not a claim whose hold ends, that acquire holds, or of a run that is under way', () => {
    const ends = { heldUntil: new Date(now + minute).toISOString() };
    expect(nodesOf(web, back, claim({ node: 'db01', group: 'db', fields: ends }))).toEqual([]);
    expect(nodesOf(web, back, claim({ node: 'db01', group: 'db', state: 'held' }))).toEqual([]);
    expect(nodesOf(web, back, claim({ node: 'db01', group: 'db', state: 'running' }))).toEqual([]);
    const vanished = { node: 'db01', group: 'db', state: 'running', alive: false };
    expect(nodesOf(web, back, claim(vanished))).toHaveLength(1);
    expect(nodesOf(web, back, claim({ ...vanished, fields: { hold: 'none' } }))).toEqual([]);
    expect(nodesOf(web, back, claim({ node: 'db01', group: 'db', state: 'rebooting' }))).toHaveLength(1);
  });

  test('a run that waits for its own node’s claim to go waits for itself', () => {
    const [circle] = circlesOf(failed, waits('db01', 'db', { when: ['idle:db'] }));
    expect(circle?.why).toBe(
      'db01 (db) is waiting for idle:db (db01 holds slot 0 of db); the run is waiting for itself',
    );
  });
});

describe('through the queue', () => {
  const failed = claim({ node: 'db01', group: 'db' });
  const back = waits('db01', 'db', { when: ['good:web01@db'] });

  test('the first waits for a slot, the next one for it', () => {
    const queue = [ticket('web02', 'db'), ticket('web01', 'db')];
    expect(circlesOf(failed, back, queue)[0]?.why).toBe(
      'db01 (db) is waiting for good:web01@db (only a run of web01 can make this true); web01 (db) is waiting for a slot of db ' +
        '(web02 is ahead); web02 (db) is waiting for a slot of db (db01 holds slot 0 of db); none of them can start',
    );
  });

  test('not while another slot moves, or may be free', () => {
    const moves = claim({ node: 'db02', group: 'db', slot: 1, state: 'running' });
    expect(nodesOf(failed, back, ticket('web01', 'db'), moves)).toEqual([]);
    expect(nodesOf(claim({ node: 'db01', group: 'db', slot: 1 }), back, ticket('web01', 'db'))).toEqual([]);
    const both = [failed, claim({ node: 'db03', group: 'db', slot: 1 })];
    expect(nodesOf(...both, back, ticket('web01', 'db'))).toEqual([]);
    expect(
      nodesOf(...both, back, waits('db03', 'db', { when: ['good:db01@db'] }), ticket('web01', 'db')),
    ).toHaveLength(1);
  });

  test('a run that waits in one group while it holds a slot of another keeps both', () => {
    const groups = ['a', 'b'];
    const first = [
      claim({ node: 'web01', group: 'a', state: 'running', run: 'run-of-web01', groups }),
      ticket('web01', 'b', groups),
    ];
    const second = [claim({ node: 'web02', group: 'b' }), ticket('web02', 'a', groups)];
    expect(circlesOf(...first, ...second)[0]?.why).toBe(
      'web02 (a and 1 more) is waiting for a slot of a (web01 holds slot 0 of a); web01 (a and 1 more) is waiting ' +
        'for a slot of b (web02 holds slot 0 of b); none of them can start',
    );
    // Nobody waits for a slot that is kept by a node whose run has not come.
    expect(nodesOf(...first, claim({ node: 'web02', group: 'b' }))).toEqual([]);
  });
});

describe('what is named', () => {
  test('is each circle once, across groups, without those that only wait for it', () => {
    const ring = (name: string, many: number) =>
      Array.from({ length: many }, (_, i) =>
        waits(`${name}${i}`, `g${i}`, { when: [`state:${name}${(i + 1) % many}`], publish: [`${name}${i}`] }),
      ).flat();
    const late = waits('late', 'z', { when: ['state:a0'] });
    expect(nodesOf(ring('a', 3), ring('b', 2), late)).toEqual([
      ['a0', 'a1', 'a2'],
      ['b0', 'b1'],
    ]);
    expect(circlesOf(ring('a', 20))[0]?.why).toMatch(/; a7 .*; 12 more runs are part of this; none of them/);
  });

  test('is one way around of many, and how many more runs are in it', () => {
    const all = Array.from({ length: 5 }, (_, i) =>
      waits(`n${i}`, 'g', { when: [0, 1, 2, 3, 4].filter((j) => j !== i).map((j) => `good:n${j}@g`) }),
    ).flat();
    expect(circlesOf(all)).toMatchObject([{ runs: [{ node: 'n0' }, { node: 'n1' }], others: 3 }]);
    expect(circlesOf(all)[0]?.why).toContain('; 3 more runs are part of this; none of them can start');
  });

  test('counts a run in several groups once', () => {
    const web = waits('web01', 'web', { also: ['lb'], when: ['state:a'], publish: ['b'] });
    expect(nodesOf(web, waits('db01', 'db', { when: ['state:b'], publish: ['a'] }))).toEqual([
      ['db01', 'web01'],
    ]);
  });

  test('of named groups is what one of them is in', () => {
    const entries = [
      ...waits('web01', 'web', { when: ['state:a'], publish: ['b'] }),
      ...waits('db01', 'db', { when: ['state:b'], publish: ['a'] }),
    ];
    const found = { entries, waits: { instances: new Map(), refused: new Map(), unread: new Set<string>() } };
    const named = (group: string) => viewGroups(found, { prefix: 'runlock', groups: [group], now }).circles;
    expect(named('db')).toHaveLength(1);
    expect(named('other')).toBeUndefined();
  });

  test('of ten thousand hostile runs is found in linear time', { timeout: 60_000 }, () => {
    const many = Array.from({ length: 10_000 }, (_, i) =>
      waits(`n${i}`, 'g', {
        when: ['state:x', 'idle:g', 'good:*@g', 'not:idle:g', 'active:n1'],
        publish: ['x'],
      }),
    ).flat();
    const started = performance.now();
    expect(circlesOf(many)).toMatchObject([{ others: 9_999 }]);
    // A look at each pair would be a hundred million.
    expect(performance.now() - started).toBeLessThan(30_000);
  });
});
