import { describe, expect, test } from 'vitest';
import { RunlockError } from '../../src/errors.ts';
import { gateKey, groupKeys, parseKey } from '../../src/lock/keys.ts';
import { isName } from '../../src/text/words.ts';
import { decodeOutside } from '../../src/lock/outside.ts';
import * as stores from '../../src/lock/records.ts';

const { encode } = stores;
const keys = groupKeys('runlock', 'prod/web');

describe('keys', () => {
  test('of prod/web lie below its prefix, under names that start with a dot', () => {
    expect(keys.prefix).toBe('runlock/prod/web/');
    expect(keys.queuePrefix).toBe('runlock/prod/web/.queue/');
    expect(keys.queue('s1')).toBe('runlock/prod/web/.queue/s1');
    expect(keys.node('web01')).toBe('runlock/prod/web/.node/web01');
    expect(keys.tail).toBe('runlock/prod/web/.tail');
    expect(keys.last).toBe('runlock/prod/web/.last');
    expect(keys.slotPrefix).toBe('runlock/prod/web/.slot/');
    expect(keys.slot(2)).toBe('runlock/prod/web/.slot/2/');
    expect(keys.lock(2)).toBe('runlock/prod/web/.slot/2/lock');
    expect(keys.owner(2)).toBe('runlock/prod/web/.slot/2/owner');
    expect(keys.run('web01')).toBe('runlock/prod/web/.runs/web01');
    expect(keys.outside('web01')).toBe('runlock/prod/web/.outside/web01');
  });

  test("of a group's freezes are its own first and the root's last", () => {
    expect(keys.freezes).toEqual(['runlock/prod/web/.freeze', 'runlock/prod/.freeze', 'runlock/.freeze']);
    expect(groupKeys('a/b', 'default').freezes).toEqual(['a/b/default/.freeze', 'a/b/.freeze']);
  });

  test('of prod and of prod/web never collide', () => {
    const all = (group: string) => {
      const own = groupKeys('runlock', group);
      const single = [own.tail, own.last, own.freezes[0], own.queue('web'), own.node('web'), own.run('web')];
      return [...single, own.outside('web'), own.lock(0), own.owner(0)];
    };
    const [prod, web] = [all('prod'), all('prod/web')];
    expect(new Set([...prod, ...web]).size).toBe(prod.length + web.length);
  });
});

describe('parseKey', () => {
  test.each([
    [keys.queue('s1'), { kind: 'ticket', session: 's1' }],
    [keys.node('web01'), { kind: 'node', node: 'web01' }],
    [keys.tail, { kind: 'tail' }],
    [keys.last, { kind: 'last' }],
    [keys.lock(0), { kind: 'lock', slot: 0 }],
    [keys.owner(12), { kind: 'owner', slot: 12 }],
    [keys.freezes[0] ?? '', { kind: 'freeze' }],
    [keys.outside('web01'), { kind: 'outside', node: 'web01' }],
    [keys.run('web01.example.org'), { kind: 'run', node: 'web01.example.org' }],
  ])('reads %s back as what it was made of', (key, kind) => {
    expect(parseKey('runlock', key)).toEqual({ group: 'prod/web', key: kind });
  });

  test.each(['.queue/', '.node/', '.runs/', '.slot/', '.slot/0/', '.tail/', '.freeze/'])(
    'knows the empty key of the folder %s as nothing of runlock',
    (folder) => {
      const other = { group: 'prod/web', key: { kind: 'other' } };
      expect(parseKey('runlock', `runlock/prod/web/${folder}`)).toEqual(other);
    },
  );

  test("knows the root's freeze by its empty group", () => {
    expect(parseKey('runlock', 'runlock/.freeze')).toEqual({ group: '', key: { kind: 'freeze' } });
  });

  test('takes a prefix of several segments', () => {
    expect(parseKey('ops/locks', 'ops/locks/prod/.tail')).toEqual({ group: 'prod', key: { kind: 'tail' } });
  });

  test.each([
    'runlock/prod/.slot/x/owner',
    'runlock/prod/.slot/0/else',
    'runlock/prod/.slot/0/owner/deeper',
    'runlock/prod/.slot/-1/owner',
    'runlock/prod/.slot',
    'runlock/prod/.queue/a/b',
    'runlock/prod/.outside/a/b',
    'runlock/prod/.unheard-of',
    'runlock/prod/notes',
  ])('calls %s nobody’s', (key) => {
    expect(parseKey('runlock', key)?.key).toEqual({ kind: 'other' });
  });

  test('takes no key from elsewhere', () => {
    expect(parseKey('runlock', 'runlocks/prod/.tail')).toBeUndefined();
    expect(parseKey('runlock', 'runlock')).toBeUndefined();
  });
});

const runner = { pid: 4711, startTime: '123456', bootId: 'b00t' };
const since = '2026-03-01T12:00:00.000Z';
const records = [
  {
    what: 'claim',
    decode: stores.decodeClaim,
    record: {
      ...runner,
      node: 'web01',
      state: 'running',
      run: 'r1',
      since,
      command: 'chef-client',
      hold: 'forever',
    },
  },
  {
    what: 'claim of a failed run',
    decode: stores.decodeClaim,
    optional: ['exitCode', 'heldUntil', 'by', 'maintenance'],
    record: {
      ...{
        ...runner,
        node: 'web01',
        state: 'failed',
        run: 'r1',
        since,
        command: 'chef-client',
        hold: 3_600_000,
      },
      ...{ exitCode: 1, heldUntil: since, by: 'ops', maintenance: { services: ['web'], node: true } },
    },
  },
  {
    what: 'ticket',
    decode: stores.decodeTicket,
    record: { node: 'web02', run: 'r2', since, command: 'puppet', pid: 12 },
  },
  { what: 'node mark', decode: stores.decodeNodeMark, record: { ...runner, run: 'r1', since } },
  { what: 'lock', decode: stores.decodeLockMark, record: { run: 'r1' } },
  { what: 'queue mark', decode: stores.decodeQueueMark, record: { session: 's1' } },
  { what: 'freeze', decode: stores.decodeFreeze, record: { by: 'ops', reason: 'disks', since } },
  {
    what: 'freeze with an end',
    decode: stores.decodeFreeze,
    optional: ['until'],
    record: { by: 'ops', reason: '', since, until: since },
  },
  {
    what: 'record of a run that waits outside',
    decode: decodeOutside,
    optional: ['gate', 'tries'],
    record: {
      ...{ run: 'r1', since, groups: ['prod/web'], when: ['state:db/schema=4\n2'], command: 'chef-client' },
      ...{ publish: ['web/up'], during: ['web/busy'], tries: 2 },
      gate: { services: ['web'], maxOffline: { percent: 25 }, minHealthy: 2, allowUnknown: true },
    },
  },
  {
    what: 'run record',
    decode: stores.decodeRun,
    optional: ['exitCode'],
    record: {
      ...{ node: 'web01', run: 'r1', outcome: 'timed-out', exitCode: 124, command: 'chef-client', slot: 0 },
      ...{ endedAt: since, waitedMs: 5, ranMs: 60_000 },
    },
  },
];

describe.each(records)('a $what', ({ decode, record, optional = [] }) => {
  const key = 'runlock/prod/web/.slot/0/owner';
  const problem = (value: string): unknown => {
    try {
      return decode({ key, value });
    } catch (error) {
      return error;
    }
  };

  test('comes back as it was written', () => {
    expect(decode({ key, value: encode(record) })).toMatchObject(record);
  });

  test('with a number or a time that no run has is an error, and never a crash', () => {
    const wild = [
      1e300,
      -1,
      1e308,
      Number.MAX_SAFE_INTEGER,
      '+275760-09-13T00:00:00Z',
      '-000001-01-01T00:00:00Z',
    ];
    const bounded = [
      'hold',
      'exitCode',
      'waitedMs',
      'ranMs',
      'since',
      'heldUntil',
      'missingSince',
      'endedAt',
      'until',
    ];
    for (const field of Object.keys(record).filter((name) => bounded.includes(name)))
      for (const value of wild)
        expect(problem(encode({ ...record, [field]: value })), `${field} ${value}`).toMatchObject({
          code: 'incompatible',
        });
  });

  test('of a newer runlock is an error that names the key and says so', () => {
    const error = problem(JSON.stringify({ ...record, v: 2 }));
    expect(error).toBeInstanceOf(RunlockError);
    expect(error).toMatchObject({
      code: 'incompatible',
      message: expect.stringMatching(/newer runlock.*format 2/) as string,
    });
    expect((error as RunlockError).message).toContain(key);
  });

  test('without one of its fields is an error', () => {
    for (const field of Object.keys(record).filter((name) => !optional.includes(name))) {
      expect(problem(encode({ ...record, [field]: undefined })), field).toMatchObject({
        code: 'incompatible',
      });
    }
  });

  test.each(['', 'garbage', '{', 'null', '[]', '"v"', '1', '{}', '{"v":1}'])(
    'that is %j is an error that names the key',
    (value) => {
      const error = problem(value);
      expect(error).toMatchObject({ code: 'incompatible' });
      expect((error as RunlockError).message).toContain(key);
    },
  );
});

describe('a claim', () => {
  const claim = records[0]?.record ?? {};
  const stored = (changes: object) => ({ key: 'k', value: encode({ ...claim, ...changes }) });

  test.each([
    [{ state: 'sleeping' }],
    [{ hold: 0 }],
    [{ hold: -1 }],
    [{ hold: 'a while' }],
    [{ node: '../web01' }],
    [{ node: 'web01;reboot' }],
    [{ since: 'yesterday-ish' }],
    [{ exitCode: '1' }],
    [{ heldUntil: 5 }],
    [{ maintenance: null }],
    [{ maintenance: 'web' }],
    [{ maintenance: { services: ['web', 1] } }],
    [{ maintenance: { services: [], node: 'web01' } }],
  ])('with %j is an error', (changes) => {
    expect(() => stores.decodeClaim(stored(changes))).toThrow(RunlockError);
  });

  test('with a field that this version does not know is still a claim', () => {
    expect(stores.decodeClaim(stored({ colour: 'green' }))).toMatchObject(claim);
  });
});

describe('isName', () => {
  test.each(['web01', 'web01.example.org', '_x', 'A-b_c.d', '0'])('takes %j', (name) => {
    expect(isName(name)).toBe(true);
  });

  test.each(['', '.queue', '-x', 'a/b', 'a..b', 'a b', 'wéb', 'a\n', 'a;b', '..', 'a\u202eb'])(
    'refuses %j',
    (name) => {
      expect(isName(name)).toBe(false);
    },
  );
});

test('a service has one gate, in whatever case it is spelt', () => {
  expect(gateKey('p', 'Shop.v1')).toBe('p/.gate/shop_v1');
  expect(gateKey('p', 'Shop')).toBe(gateKey('p', 'shop'));
});

describe('a record of a run that waits outside, written by another', () => {
  const record = {
    ...{
      run: 'r1',
      since,
      groups: ['prod/web'],
      when: ['idle:prod/db'],
      publish: [],
      during: [],
      command: 'c',
    },
  };
  const gate = { services: ['web'], maxOffline: 1 };
  const stored = (changes: object) => ({ key: 'k', value: encode({ ...record, ...changes }) });

  test.each([
    [{ run: 7 }],
    [{ run: 'r'.repeat(8_193) }],
    [{ since: 'yesterday-ish' }],
    [{ since: 1e300 }],
    [{ groups: 'prod/web' }],
    [{ groups: ['prod/../web'] }],
    [{ groups: ['prod/web\u001b[2J'] }],
    [{ groups: [''] }],
    [{ when: { 0: 'idle:x' } }],
    [{ when: [null] }],
    [{ when: ['x'.repeat(8_193)] }],
    [{ when: Array.from({ length: 129 }, () => 'idle:x') }],
    [{ publish: [['a']] }],
    [{ during: null }],
    [{ command: {} }],
    [{ tries: -1 }],
    [{ tries: 1.5 }],
    [{ gate: [] }],
    [{ gate: 'web' }],
    [{ gate: null }],
    [{ gate: { ...gate, services: 'web' } }],
    [{ gate: { ...gate, services: [{}] } }],
    [{ gate: { ...gate, maxOffline: -1 } }],
    [{ gate: { ...gate, maxOffline: 'all' } }],
    [{ gate: { ...gate, maxOffline: null } }],
    [{ gate: { ...gate, maxOffline: { percent: 1e9 } } }],
    [{ gate: { ...gate, minHealthy: '1' } }],
    [{ gate: { ...gate, allowUnknown: 'yes' } }],
  ])('with %j is an error, and never a crash', (changes) => {
    expect(() => decodeOutside(stored(changes))).toThrow(RunlockError);
  });

  test('keeps its texts as they are, and gives nothing that it does not know', () => {
    const read = decodeOutside(stored({ when: ['state:a=\u001b[2J'], gate: { ...gate, x: 1 }, toString: 1 }));
    expect(read.when).toEqual(['state:a=\u001b[2J']);
    expect(Object.keys(read).sort()).toEqual([...Object.keys(record), 'gate'].sort());
    expect(read.gate).toEqual(gate);
  });
});
