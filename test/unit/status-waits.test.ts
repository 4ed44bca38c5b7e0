// Runs that wait without a slot, as `status` judges what they wait for.
import { describe, expect, test } from 'vitest';
import { RunlockError } from '../../src/errors.ts';
import type { Consul, Entry } from '../../src/consul/consul.ts';
import type { Instance } from '../../src/gate/instances.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import { encodeState } from '../../src/state/document.ts';
import { stateKey } from '../../src/state/path.ts';
import { viewGroups } from '../../src/view/groups.ts';
import { readGroups } from '../../src/view/read.ts';
import type { OutsideView } from '../../src/view/report.ts';
import { sourcesOfWaits, waitingRuns } from '../../src/view/waits.ts';
import type { WaitFacts } from '../../src/view/waits.ts';
import { fakeConsul } from '../support/fake-consul.ts';
import { outsideKey, outsideRecord } from '../support/outside.ts';
import type { Waits } from '../support/outside.ts';

const now = Date.UTC(2026, 2, 1, 12);
const minute = 60_000;
const ago = (ms: number) => new Date(now - ms).toISOString();
const { signal } = new AbortController();

let index = 100;
function entry(key: string, value: string, changes: Partial<Entry> = {}): Entry {
  index += 1;
  return { key, value, createIndex: index, modifyIndex: index, ...changes };
}
const waits = (fields: Partial<Waits> = {}, changes: Partial<Entry> = {}): Entry => {
  const all = { node: 'web01', group: 'prod/web', since: ago(3 * minute), ...fields };
  return entry(outsideKey(all), outsideRecord(all), { session: `s-${all.node}`, ...changes });
};
const state = (path: string, value: string) =>
  entry(stateKey('runlock', path), encodeState({ value, change: 'c', by: 'db01', at: ago(3 * minute) }));
const claim = (group: string, fields: object = {}, alive = true) => {
  const keys = groupKeys('runlock', group);
  const runner = { pid: 1, startTime: '1', bootId: 'b', hold: 'forever', command: 'chef-client' };
  const record = { node: 'db01', state: 'running', run: 'r1', since: ago(4 * minute), ...runner, ...fields };
  const lock = entry(keys.lock(0), encode({ run: 'r1' }), { session: 's1' });
  return [entry(keys.owner(0), encode(record)), ...(alive ? [lock] : [])];
};

const reportOf = (entries: readonly Entry[], facts: Partial<WaitFacts> = {}) =>
  viewGroups(
    { entries, waits: { instances: new Map(), refused: new Map(), unread: new Set(), ...facts } },
    { prefix: 'runlock', groups: [], now },
  );
const groupOf = (entries: readonly Entry[], facts?: Partial<WaitFacts>) => {
  const found = reportOf(entries, facts).groups.find(({ group }) => group === 'prod/web');
  if (!found) throw new Error('no such group');
  return found;
};
const only = (entries: readonly Entry[], facts?: Partial<WaitFacts>): OutsideView => {
  const [one, ...more] = groupOf(entries, facts).outside ?? [];
  if (!one || more.length > 0) throw new Error('not one run');
  return one;
};

describe('a run that waits outside', () => {
  test('is shown with who, since when, and each condition with what is so instead', () => {
    const when = ['state:db/schema=42', 'not:state:db/lock', 'idle:prod/db'];
    const group = groupOf([waits({ when, tries: 2 }), state('db/schema', '41'), ...claim('prod/db')]);
    expect(group).toMatchObject({ known: true, state: 'waiting', queue: [] });
    expect(group.outside).toEqual([
      {
        ...{ node: 'web01', run: 'run-of-web01', since: ago(3 * minute), waitedMs: 3 * minute },
        ...{ command: 'chef-client', session: 's-web01', groups: ['prod/web'], tries: 2 },
        when: [
          { condition: 'state:db/schema=42', holds: false, is: 'db/schema is 41, set by db01 3m ago' },
          { condition: 'not:state:db/lock', holds: true, is: 'db/lock is not set' },
          {
            ...{ condition: 'idle:prod/db', holds: false },
            is: 'prod/db is not idle: db01 has been running chef-client for 4m',
          },
        ],
        ...{ gate: [], publish: [], during: [] },
        why:
          'state:db/schema=42: db/schema is 41, set by db01 3m ago; ' +
          'idle:prod/db: prod/db is not idle: db01 has been running chef-client for 4m',
      },
    ]);
    expect(group.why).toBe(
      'web01 is waiting for state:db/schema=42: db/schema is 41, set by db01 3m ago (and 1 more)',
    );
  });

  test('is none without its session, nor once it is in the queue or has a slot', () => {
    const when = ['state:a'];
    const gone: Entry = { ...waits({ when }), session: undefined } as unknown as Entry;
    expect(groupOf([gone])).toMatchObject({ state: 'idle' });
    expect(groupOf([gone])).not.toHaveProperty('outside');
    const queued = { node: 'web01', run: 'run-of-web01', since: ago(0), command: 'sh', pid: 1 };
    const ticket = entry('runlock/prod/web/.queue/s', encode(queued), { session: 's' });
    expect(groupOf([waits({ when }), ticket])).not.toHaveProperty('outside');
    expect(groupOf([waits({ when }), ...claim('prod/web', { run: 'run-of-web01' })])).not.toHaveProperty(
      'outside',
    );
  });

  test('is about to go on when all is as it wants', () => {
    expect(only([waits({ when: ['state:a'] }), state('a', '1')]).why).toBe('its conditions are met now');
    expect(groupOf([waits({ when: ['state:a'] }), state('a', '1')]).why).toBe(
      'web01 is about to ask for a slot',
    );
  });

  test('counts with the others: the one that waits longest first', () => {
    const late = waits({ node: 'web02', when: ['state:b'], since: ago(9 * minute) });
    const { outside, why } = groupOf([waits({ when: ['state:a'] }), late, waits({ node: 'web03' })]);
    expect(outside?.map(({ node }) => node)).toEqual(['web02', 'web01', 'web03']);
    expect(why).toBe('web02 is waiting for state:b: b is not set; 2 more runs are waiting without a slot');
  });

  test('judges a condition without a group in the run’s own groups', () => {
    const both = [
      waits({ when: ['good:db01'] }),
      waits({ node: 'web02', group: 'prod/db', when: ['good:db01'] }),
    ];
    const record = {
      node: 'db01',
      run: 'r',
      outcome: 'succeeded',
      command: 'sh',
      slot: 0,
      endedAt: ago(minute),
    };
    const run = entry('runlock/prod/db/.runs/db01', encode({ ...record, waitedMs: 0, ranMs: 0 }));
    const [db, web] = reportOf([...both, run]).groups;
    expect(db?.outside?.[0]?.when[0]).toMatchObject({ holds: true });
    expect(web?.outside?.[0]?.when[0]).toMatchObject({
      holds: false,
      is: 'no run of db01 in prod/web is recorded',
    });
  });
});

describe('what can’t be told is said', () => {
  test('what the token may not read, by the rule that is missing', () => {
    const rule = 'key_prefix "runlock/.state/db/" { policy = "read" }';
    const refused = new Map([[stateKey('runlock', 'db/secret'), rule]]);
    const run = only([waits({ when: ['not:state:db/secret'] })], { refused });
    expect(run.when).toEqual([
      {
        condition: 'not:state:db/secret',
        is: `this token may not read it; it needs the rule: ${rule}`,
        needs: rule,
      },
    ]);
    expect(run.why).toBe(`not:state:db/secret: this token may not read it; it needs the rule: ${rule}`);
  });

  test('what is not read yet, what can’t be read, and a condition of a newer runlock', () => {
    const unread = new Set([stateKey('runlock', 'a')]);
    const bad = entry(stateKey('runlock', 'b'), 'rubbish');
    const when = ['state:a', 'state:b', 'moon:full'];
    expect(only([waits({ when }), bad], { unread }).when).toEqual([
      { condition: 'state:a', is: 'not read yet' },
      { condition: 'state:b', is: expect.stringContaining('not a state that runlock wrote') as string },
      { condition: 'moon:full', is: 'this version of runlock does not know such a condition' },
    ]);
  });

  test('a record that is none is a problem of its group', () => {
    const bad = entry('runlock/prod/web/.outside/web01', '{"v":1}', { session: 's' });
    const { problems, state: is } = groupOf([bad]);
    expect([is, problems]).toEqual(['idle', [expect.stringContaining('runlock/prod/web/.outside/web01')]]);
  });
});

describe('the gate', () => {
  const instance = (node: string, changes: Partial<Instance> = {}): Instance => ({
    ...{ node, serviceId: 'web-1', service: 'web', state: 'healthy', maintenance: [], ...changes },
  });
  const gate = { services: ['web'], maxOffline: 1 };
  const instances = new Map([
    ['web', [instance('web01'), instance('web02', { state: 'offline', why: 'http: refused' })]],
  ]);

  test('of a waiting run is judged anew: what is offline, and that others run', () => {
    const run = only([waits({ gate })], { instances });
    const why = '1 of 2 offline: web-1 on web02 (http: refused); with web01 2 would be offline (max 1)';
    expect(run).toMatchObject({ gate: [{ service: 'web', open: false, why }], why: `gate of web: ${why}` });
    const healthy = new Map([['web', [instance('web01'), instance('web02')]]]);
    expect(only([waits({ gate })], { instances: healthy }).why).toBe('its gate is open now');
    const busy = only([waits({ gate }), ...claim('prod/web', { node: 'web02' })], { instances: healthy });
    expect(busy.why).toContain('web-1 on web02 (runs now)');
  });

  test('that can’t be seen is said', () => {
    const refused = new Map([['web', 'service "web" { policy = "read" }']]);
    expect(only([waits({ gate })], { refused }).gate).toEqual([
      {
        service: 'web',
        why: 'this token may not see its instances; it needs the rule: service "web" { policy = "read" }',
      },
    ]);
  });
});

describe('what is read', () => {
  const runs = (...entries: Entry[]) => waitingRuns('runlock', entries);

  test('is each thing once, however many runs wait for it', () => {
    const when = ['state:a', 'state:a=1', 'not:state:a', 'healthy:web', 'healthy:web:2'];
    const many = Array.from({ length: 50 }, (_, i) =>
      waits({ node: `web${i}`, when, gate: { services: ['web'], maxOffline: 1 } }),
    );
    expect(sourcesOfWaits('runlock', runs(...many))).toMatchObject([
      { kind: 'key', key: 'runlock/.state/a/.value' },
      { kind: 'service', service: 'web' },
    ]);
  });

  interface Store {
    readonly entries: readonly Entry[];
    readonly forbidden?: readonly string[];
    readonly knowsRights?: boolean;
    /** What a listing of this shows nothing of. */
    readonly hides?: string;
  }

  function store({ entries, forbidden = [], knowsRights = true, hides }: Store) {
    const asked: string[] = [];
    const list: Consul['list'] = (start) => {
      asked.push(`list ${start}`);
      const seen = hides === start ? [] : entries;
      return Promise.resolve({ entries: seen.filter(({ key }) => key.startsWith(start)), index: 1 });
    };
    const get: Consul['get'] = (key) => {
      asked.push(`get ${key}`);
      if (forbidden.includes(key)) return Promise.reject(new RunlockError('forbidden', key));
      return Promise.resolve({ entry: entries.find((each) => each.key === key), index: 1 });
    };
    const readAll: Consul['readAll'] = (operations) => {
      asked.push(`read ${operations.length}`);
      const starts = operations.map(({ key }) => key);
      return Promise.resolve(entries.filter(({ key }) => starts.some((start) => key.startsWith(start))));
    };
    const may: Consul['may'] = (rights) => {
      asked.push(`may ${rights.length}`);
      return Promise.resolve(rights.map(({ name }) => (knowsRights ? !forbidden.includes(name) : undefined)));
    };
    return { consul: fakeConsul({ list, get, readAll, may }), asked };
  }

  const read = async (from: Store, groups: readonly string[]) => {
    const { consul, asked } = store(from);
    return { report: await readGroups(consul, { prefix: 'runlock', groups, now, signal }), asked };
  };

  test('of all groups is the one listing, and one question about rights for what is not there', async () => {
    const entries = [waits({ when: ['state:a', 'state:b', 'state:c'] }), state('b', '1')];
    const { report, asked } = await read({ entries, forbidden: [stateKey('runlock', 'c')] }, []);
    // The third: whether it may see all groups.
    expect(asked).toEqual(['list runlock/', 'may 3']);
    expect(report.groups[0]?.outside?.[0]?.when).toEqual([
      { condition: 'state:a', holds: false, is: 'a is not set' },
      { condition: 'state:b', holds: true, is: 'b is 1, set by db01 3m ago' },
      {
        condition: 'state:c',
        is: expect.stringContaining('may not read it') as string,
        needs: 'key_prefix "runlock/.state/c/" { policy = "read" }',
      },
    ]);
  });

  test('of named groups is as few transactions of 64 as it takes', async () => {
    const when = Array.from({ length: 100 }, (_, i) => `state:s${i}`);
    const { report, asked } = await read(
      { entries: [waits({ when }), state('s7', '1'), state('s7x', '1')] },
      ['prod/web'],
    );
    expect(asked.filter((each) => /^read|^may/.test(each))).toEqual(['read 64', 'read 36', 'may 99']);
    expect(report.groups[0]?.outside?.[0]?.when.filter(({ holds }) => holds)).toHaveLength(1);
  });

  test('of named groups has those that a condition names, too, and no more than so many', async () => {
    const when = Array.from({ length: 100 }, (_, i) => `idle:g${i}`);
    const more = Array.from({ length: 100 }, (_, i) => `idle:h${i}`);
    const { asked } = await read({ entries: [waits({ when }), waits({ node: 'web02', when: more })] }, [
      'prod/web',
    ]);
    expect(asked).toContain('list runlock/g0/');
    expect(asked.filter((each) => /^list/.test(each))).toHaveLength(129);
  });

  test('where Consul does not know the question about rights, each key is asked for', async () => {
    const { asked } = await read(
      { entries: [waits({ when: ['state:a', 'idle:x'] })], knowsRights: false },
      [],
    );
    expect(asked).toEqual([
      'list runlock/',
      'may 3',
      'get runlock/.state/a/.value',
      'get runlock/x/.slot/.may-read',
      'get runlock/.may-read',
    ]);
  });

  test('is also the claim under which a state of --during stands, together with the state', async () => {
    const claimed = { group: 'prod/db', slot: 0, root: 'r1' };
    const document = { value: '1', change: 'c', by: 'db01', at: ago(minute), while: claimed };
    const entries = [
      waits({ when: ['state:x'] }),
      entry(stateKey('runlock', 'x'), encodeState(document)),
      ...claim('prod/db'),
    ];
    const forbidden = ['runlock/prod/db/.slot/0/owner'];
    const named = await read({ entries }, ['prod/web']);
    expect(named.asked.filter((each) => each.startsWith('read'))).toEqual(['read 1', 'read 2']);
    expect(named.report.groups[0]?.outside?.[0]?.when).toMatchObject([{ holds: true }]);
    const over = await read({ entries: entries.slice(0, 2) }, ['prod/web']);
    expect(over.report.groups[0]?.outside?.[0]?.when).toMatchObject([{ holds: false }]);
    const gone = await read({ entries: entries.slice(0, 2), forbidden }, ['prod/web']);
    expect(gone.report.groups[0]?.outside?.[0]?.when[0]?.is).toBe(
      'this token may not read it; it needs the rule: key_prefix "runlock/prod/db/.slot/" { policy = "read" }',
    );
    const all = await read({ entries: entries.slice(0, 2), forbidden }, []);
    expect(all.asked).toEqual(['list runlock/', 'may 2']);
    expect(all.report.groups[0]?.outside?.[0]?.when[0]).not.toHaveProperty('holds');
  });

  describe('of a circle of waits by states', () => {
    const web = waits({ when: ['state:db/schema'], publish: ['web/ready'] });
    const db = waits({ node: 'db01', group: 'db', when: ['state:web/ready'], publish: ['db/schema'] });
    const other = waits({ node: 'cron', group: 'jobs', publish: ['web/ready'] });
    const named = ['prod/web', 'db'];
    const forbidden = ['runlock/.may-read'];

    test('of named groups is everything: a run of any group may set the state', async () => {
      const { report, asked } = await read({ entries: [web, db] }, named);
      expect(report.circles).toHaveLength(1);
      expect(report.groups.map(({ group }) => group)).toEqual(['db', 'prod/web']);
      expect(asked.filter((each) => each === 'list runlock/')).toHaveLength(1);
      const open = await read({ entries: [web, db, other] }, named);
      expect(open.report).not.toHaveProperty('circles');
      const { asked: few } = await read({ entries: [web, other] }, named);
      expect(few).not.toContain('list runlock/');
    });

    test('is none where the token may not see all groups', async () => {
      expect((await read({ entries: [web, db], forbidden }, [])).report).not.toHaveProperty('circles');
      const { report } = await read({ entries: [web, db], forbidden, hides: 'runlock/' }, named);
      expect(report).not.toHaveProperty('circles');
      expect(report.circlesNeed).toBe('key_prefix "runlock/" { policy = "read" }');
      expect(report.groups.map(({ outside }) => outside?.length)).toEqual([1, 1]);
      const byRuns = [
        waits({ when: ['good:db01@db'] }),
        waits({ node: 'db01', group: 'db', when: ['good:web01@prod/web'] }),
      ];
      expect((await read({ entries: byRuns, forbidden }, named)).report.circles).toHaveLength(1);
    });
  });

  test('is nothing more where nobody waits outside', async () => {
    expect((await read({ entries: [state('b', '1')] }, [])).asked).toEqual(['list runlock/']);
  });
});

test('of thousands of runs, each with conditions of its own, every key is looked at a few times', () => {
  const many = 2_000;
  const entries = Array.from({ length: many }, (_, i) => [
    waits({ node: `n${i}`, group: `g${i}`, when: [`state:s${i}=1`, `idle:g${i + 1}`, `good:*@g${i + 2}`] }),
    state(`s${i}`, '0'),
  ]).flat();
  let looks = 0;
  const watched = entries.map(({ key, ...more }) =>
    Object.defineProperty({ ...more } as Entry, 'key', { enumerable: true, get: () => ((looks += 1), key) }),
  );
  const { groups, circles } = reportOf(watched);
  expect(groups).toHaveLength(many);
  expect(circles).toBeUndefined();
  expect(groups[0]?.outside?.[0]?.when.map(({ holds }) => holds)).toEqual([false, true, false]);
  // Sorted and searched in: its logarithm, and not as often as there are runs.
  expect(looks / entries.length).toBeLessThan(150);
});
