// Conditions: how they are written, and what is true of what was read. Pure.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { judge } from '../../src/conditions/judge.ts';
import type { Judging, World } from '../../src/conditions/judge.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import { sourcesOf } from '../../src/conditions/sources.ts';
import type { Entry } from '../../src/consul/consul.ts';
import type { Instance } from '../../src/gate/instances.ts';
import { encode, encodeRun } from '../../src/lock/records.ts';
import type { Claim, ClaimState, Outcome } from '../../src/lock/records.ts';
import { encodeState } from '../../src/state/document.ts';

const NOW_MS = Date.UTC(2026, 2, 1, 12);
const at = (ms: number) => new Date(NOW_MS + ms).toISOString();
const where = { prefix: 'runlock', groups: ['default'] };

let index = 100;
const entry = (key: string, value: string, session?: string): Entry => {
  index += 1;
  return { key, value, createIndex: index, modifyIndex: index, ...(session && { session }) };
};
const stateAt = (path: string, value: string, until?: string) =>
  entry(
    `runlock/.state/${path}/.value`,
    encodeState({ value, change: `c-${value}`, by: 'db01', at: at(-180_000), ...(until && { until }) }),
  );
const claim = (node: string, state: ClaimState, fields: Partial<Claim> = {}): string =>
  encode({
    ...{ node, state, run: `run-${node}`, since: at(-60_000), command: 'chef', hold: 'forever' },
    ...{ pid: 1, startTime: '1', bootId: 'b' },
    ...fields,
  });
const owner = (group: string, slot: number, value: string) =>
  entry(`runlock/${group}/.slot/${slot}/owner`, value);
const lock = (group: string, slot: number) =>
  entry(`runlock/${group}/.slot/${slot}/lock`, encode({ run: 'r' }), 'session');
const run = (group: string, node: string, outcome: Outcome, endedAt = at(-60_000)) =>
  entry(
    `runlock/${group}/.runs/${node}`,
    encodeRun({
      ...{ node, run: `run-${node}`, outcome, command: 'chef', slot: 0, endedAt },
      ...{ waitedMs: 0, ranMs: 0 },
    }),
  );
const instance = (node: string, state: Instance['state']): Instance => ({
  ...{ node, serviceId: 'web', service: 'web', state, maintenance: [] },
});

function look(text: string, entries: readonly Entry[], more: Partial<World & Judging> = {}) {
  const { instances = new Map(), since, nowMs = NOW_MS } = more;
  const [judged] = judge([parseCondition(text)], { entries, instances }, { ...where, nowMs, since });
  if (!judged) throw new Error('nothing was judged');
  return judged;
}
const holds = (text: string, entries: readonly Entry[], more?: Partial<World & Judging>) =>
  look(text, entries, more).holds;

describe('the parser', () => {
  test.each([
    ['state:db/schema', { kind: 'state', path: 'db/schema', not: false }],
    ['state:db/schema=42', { kind: 'state', path: 'db/schema', is: 'equal', value: '42' }],
    ['state:db/schema!=42', { kind: 'state', path: 'db/schema', is: 'other', value: '42' }],
    ['state:a=', { kind: 'state', path: 'a', is: 'equal', value: '' }],
    ['state:a=b=c!=d:e', { kind: 'state', path: 'a', is: 'equal', value: 'b=c!=d:e' }],
    ['state:a=one\ntwo', { kind: 'state', path: 'a', is: 'equal', value: 'one\ntwo' }],
    ['not:state:a', { kind: 'state', path: 'a', not: true }],
    ['idle:prod/db', { kind: 'idle', group: 'prod/db' }],
    ['blocked:prod/db', { kind: 'blocked', group: 'prod/db' }],
    ['active:db01', { kind: 'active', node: 'db01' }],
    ['active:db01@prod/db', { kind: 'active', node: 'db01', group: 'prod/db' }],
    ['good:*@prod/db', { kind: 'good', node: '*', group: 'prod/db' }],
    ['good:web01.example.com', { kind: 'good', node: 'web01.example.com' }],
    ['healthy:web', { kind: 'healthy', service: 'web', instances: 1 }],
    ['healthy:web:12', { kind: 'healthy', service: 'web', instances: 12 }],
    ['frozen:prod', { kind: 'frozen', group: 'prod' }],
    ['frozen:/', { kind: 'frozen', group: '' }],
    ['agent:web01', { kind: 'agent', node: 'web01' }],
  ])('reads %j', (text, meant) => {
    expect(parseCondition(text)).toMatchObject({ ...meant, text });
  });

  test.each([
    ['', "character 1: unknown kind of condition ''; the kinds are state, idle, "],
    ['stat:x', "character 1: unknown kind of condition 'stat'; did you mean 'state:'?"],
    ['not:helthy:x', "character 5: unknown kind of condition 'helthy'; did you mean 'healthy:'?"],
    ['xyzzy:x', "character 1: unknown kind of condition 'xyzzy'; the kinds are state, idle, "],
    ['nto:idle:x', "did you mean 'not:'?"],
    ['not:not:idle:x', "character 5: unknown kind of condition 'not'; give 'not:' once"],
    ['idle', "character 4: 'idle' needs a name, as in idle:prod/db"],
    ['state:', "character 7: '' is not a valid state path"],
    ['state:a/.b', "character 9: 'a/.b' is not a valid state path"],
    ['state:a!b', "character 7: 'a!b' is not a valid state path"],
    ['idle:prod//db', "character 11: 'prod//db' is not a valid group"],
    ['active:*', "character 8: '*' is not a valid node name; only good: takes '*'"],
    ['good:db01@', "character 11: '' is not a valid group"],
    ['healthy:web:0', "character 13: '0' is not a number of instances from 1"],
    ['healthy:web:1:2', "character 13: '1:2' is not a number of instances"],
    ['agent:a b', "character 7: 'a b' is not a valid node name"],
    [`state:a=${'x'.repeat(4_097)}`, 'this value has 4,097 bytes'],
  ])('refuses %j, and names the place', (text, message) => {
    expect(() => parseCondition(text)).toThrow(message);
  });

  const segment = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_-]{0,6}$/);
  const path = fc.array(segment, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));

  test('keeps every value as it is, whatever is in it', () => {
    fc.assert(
      fc.property(path, fc.string({ unit: 'grapheme' }), fc.boolean(), (where, value, equal) => {
        const read = parseCondition(`state:${where}${equal ? '=' : '!='}${value}`);
        expect(read).toMatchObject({ path: where, value, is: equal ? 'equal' : 'other' });
      }),
    );
  });

  test('throws nothing but wrong usage, and names a place in the text, whatever it is given', () => {
    const words = fc.constantFrom(
      ...['not:', 'state:', 'idle:', 'good:', 'healthy:', ':', '=', '!=', '@', '*', '/', 'a', '.', ' '],
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(words).map((all) => all.join('')),
        ),
        (text) => {
          try {
            expect(parseCondition(text).text).toBe(text);
          } catch (error) {
            const [, place] = /^character (\d+): /.exec((error as Error).message) ?? [];
            expect((error as { code?: string }).code).toBe('usage');
            if (place !== undefined) {
              expect(Number(place)).toBeGreaterThanOrEqual(1);
              expect(Number(place)).toBeLessThanOrEqual(text.length + 1);
            }
          }
        },
      ),
    );
  });
});

describe('state:', () => {
  const set = [stateAt('db/schema', '41')];

  test.each([
    ['state:db/schema', true, false],
    ['state:db/schema=41', true, false],
    ['state:db/schema=42', false, false],
    ['state:db/schema!=42', true, true],
    ['state:db/schema!=41', false, true],
    ['not:state:db/schema', false, true],
    ['not:state:db/schema=42', true, true],
  ])('%s: set to 41 %s, not set %s', (text, whenSet, whenNot) => {
    expect([holds(text, set), holds(text, [])]).toEqual([whenSet, whenNot]);
  });

  test('says what it is, who set that and when', () => {
    expect(look('state:db/schema=42', set).is).toBe('db/schema is 41, set by db01 3m ago');
    expect(look('state:db/schema=42', []).is).toBe('db/schema is not set');
  });

  test('past its end is not set, 5 s later than it says, and tells when that is', () => {
    const ends = [stateAt('a', '1', at(-4_000))];
    expect(look('state:a', ends)).toMatchObject({ holds: true, changesInMs: 1_000 });
    const ended = look('state:a', [stateAt('a', '1', at(-5_000))]);
    expect(ended).toMatchObject({ holds: false, changesInMs: Infinity, mark: 'ended c-1' });
    expect(ended.is).toMatch(/^a has ended \(it was 1, set by db01 /);
  });

  test('shows no escape of a value to a terminal', () => {
    expect(look('state:a', [stateAt('a', '\x1b[31m')]).is).not.toContain('\x1b');
  });
});

describe('idle: and blocked:', () => {
  test.each<[string, Entry[], boolean, boolean]>([
    ['nothing there', [], true, false],
    ['a run', [owner('g', 0, claim('a', 'running')), lock('g', 0)], false, false],
    ['a run that lost its lock', [owner('g', 0, claim('a', 'running'))], false, false],
    ['a failed claim', [owner('g', 0, claim('a', 'failed'))], false, true],
    ['an interrupted claim', [owner('g', 0, claim('a', 'interrupted'))], false, true],
    ['a rebooting claim', [owner('g', 3, claim('a', 'rebooting'))], false, true],
    ['an abandoned claim', [owner('g', 0, claim('a', 'abandoned'))], false, true],
    ['a held claim', [owner('g', 0, claim('a', 'held'))], false, true],
    ['a claim that keeps on', [owner('g', 0, claim('a', 'failed', { heldUntil: at(-4_900) }))], false, true],
    ['a claim past its hold', [owner('g', 0, claim('a', 'failed', { heldUntil: at(-5_000) }))], true, false],
    ['a lock without a claim', [lock('g', 0)], false, false],
    ['a run of another group', [owner('g2', 0, claim('a', 'running')), lock('g2', 0)], true, false],
    ['a run of a group below', [owner('g/h', 0, claim('a', 'running'))], true, false],
  ])('%s', (_name, entries, idle, blocked) => {
    expect([holds('idle:g', entries), holds('blocked:g', entries)]).toEqual([idle, blocked]);
    expect([holds('not:idle:g', entries), holds('not:blocked:g', entries)]).toEqual([!idle, !blocked]);
  });

  test('tell when a hold ends', () => {
    const kept = [owner('g', 0, claim('a', 'failed', { heldUntil: at(7_000) }))];
    expect(look('idle:g', kept).changesInMs).toBe(12_000);
    expect(look('blocked:g', kept)).toMatchObject({ changesInMs: 12_000 });
    expect(look('blocked:g', kept).is).toBe('g is blocked: slot 0 is held by a (failed 1m ago)');
  });
});

test('active: is a run under way of this very node, in the named group or those of the command', () => {
  const runs = [
    owner('default', 0, claim('db01', 'running')),
    owner('g', 0, claim('db02', 'evicted')),
    owner('g', 1, claim('db03', 'failed')),
    owner('g', 2, claim('db01', 'held')),
  ];
  expect(
    ['db01', 'db01@g', 'db02', 'db02@g', 'db03@g', 'db0@g'].map((node) => holds(`active:${node}`, runs)),
  ).toEqual([true, false, false, true, false, false]);
  expect(look('active:db01', runs)).toMatchObject({ runs: ['run-db01'] });
  expect(look('active:db02@g', runs).is).toContain('in g');
});

describe('good:', () => {
  const records = [
    run('g', 'db01', 'succeeded'),
    run('g', 'db010', 'failed'),
    run('default', 'db01', 'lost'),
  ];

  test('is the last run of this very node', () => {
    expect(
      ['db01@g', 'db010@g', 'db02@g', 'db01', '*@g', '*@none'].map((node) => holds(`good:${node}`, records)),
    ).toEqual([true, false, false, false, false, false]);
    expect(holds('good:*@g', records.slice(0, 1))).toBe(true);
    expect(look('good:db02@g', records).is).toBe('no run of db02 in g is recorded');
    expect(look('good:*@g', records).is).toBe('the last run of db010 in g failed 1m ago');
  });

  test.each<Outcome>(['failed', 'unhealthy', 'rebooting', 'interrupted', 'timed-out', 'evicted', 'lost'])(
    'is not one that was %s',
    (outcome) => expect(holds('good:a@g', [run('g', 'a', outcome)])).toBe(false),
  );

  test('takes no notice of the key of a folder, which Consul’s own page makes', () => {
    const folder = { key: 'runlock/g/.runs/', value: '', createIndex: 1, modifyIndex: 1 };
    expect(holds('good:*@g', [folder, ...records.slice(0, 1)])).toBe(true);
  });

  test('since a duration, a time or an index', () => {
    const one = run('g', 'a', 'succeeded', at(-60_000));
    const within = (ms: number) => look('good:a@g', [one], { since: { kind: 'age', ms } });
    expect([within(60_000).holds, within(60_001).holds]).toEqual([false, true]);
    expect(within(61_000).changesInMs).toBe(1_000);
    const from = (ms: number) => holds('good:a@g', [one], { since: { kind: 'time', atMs: NOW_MS - ms } });
    expect([from(60_000), from(59_999)]).toEqual([true, false]);
    const past = (than: number) => holds('good:a@g', [one], { since: { kind: 'index', index: than } });
    expect([past(one.modifyIndex - 1), past(one.modifyIndex)]).toEqual([true, false]);
  });

  test('without a group is that of all groups that the command is about', () => {
    const both = { ...where, groups: ['g', 'h'], nowMs: NOW_MS };
    const world = (...entries: Entry[]) => ({ entries, instances: new Map() });
    const good = (...entries: Entry[]) =>
      judge([parseCondition('good:a')], world(...entries), both)[0]?.holds;
    expect(good(run('g', 'a', 'succeeded'), run('h', 'a', 'succeeded'))).toBe(true);
    expect(good(run('g', 'a', 'succeeded'), run('h', 'a', 'failed'))).toBe(false);
    expect(good(run('g', 'a', 'succeeded'))).toBe(false);
  });
});

test('healthy: counts the instances that are', () => {
  const instances = new Map([
    ['web', [instance('a', 'healthy'), instance('b', 'offline'), instance('c', 'healthy')]],
  ]);
  expect(
    ['web', 'web:2', 'web:3', 'none'].map((name) => holds(`healthy:${name}`, [], { instances })),
  ).toEqual([true, true, false, false]);
  expect(look('healthy:web:3', [], { instances }).is).toBe('2 of 3 instances of web are healthy');
});

test('frozen: by its own freeze or one above, until its end', () => {
  const freeze = (key: string, until?: string) =>
    entry(key, encode({ by: 'anna', reason: 'r', since: at(-60_000), ...(until && { until }) }));
  expect(holds('frozen:a/b', [])).toBe(false);
  for (const key of ['runlock/a/b/.freeze', 'runlock/a/.freeze', 'runlock/.freeze'])
    expect(look('frozen:a/b', [freeze(key)])).toMatchObject({
      holds: true,
      is: 'a/b was frozen 1m ago by anna: r',
    });
  expect(holds('frozen:a/b', [freeze('runlock/a/c/.freeze')])).toBe(false);
  expect(look('frozen:a', [freeze('runlock/a/.freeze', at(1_000))]).changesInMs).toBe(1_000);
  expect(holds('frozen:a', [freeze('runlock/a/.freeze', at(0))])).toBe(false);
});

test('agent: is there while a session holds its key', () => {
  expect(holds('agent:a', [entry('runlock/.agents/a', '{}', 'session')])).toBe(true);
  expect(holds('agent:a', [entry('runlock/.agents/a', '{}')])).toBe(false);
  expect(holds('agent:a', [entry('runlock/.agents/ab', '{}', 'session')])).toBe(false);
});

describe('for every condition', () => {
  const texts = fc.constantFrom(
    ...['state:a', 'state:a=1', 'state:a!=1', 'idle:g', 'blocked:g', 'active:n@g', 'good:n@g', 'good:*@g'],
    ...['healthy:s', 'frozen:g', 'agent:n'],
  );
  const endings = fc.option(fc.integer({ min: -20_000, max: 20_000 }).map(at), { nil: undefined });
  const entries = fc.tuple(
    fc.option(
      fc.tuple(fc.constantFrom('1', '2'), endings).map(([value, until]) => stateAt('a', value, until)),
    ),
    fc.option(
      fc
        .tuple(fc.constantFrom<ClaimState>('running', 'failed', 'held'), endings)
        .map(([state, heldUntil]) => owner('g', 0, claim('n', state, { ...(heldUntil && { heldUntil }) }))),
    ),
    fc.option(fc.constantFrom<Outcome>('succeeded', 'failed').map((outcome) => run('g', 'n', outcome))),
  );
  const worlds = entries.map((found): World => ({
    entries: found.filter((one) => one !== null),
    instances: new Map(),
  }));

  test('not: is its contrary, with the same mark', () => {
    fc.assert(
      fc.property(texts, worlds, (text, { entries }) => {
        const [one, other] = [look(text, entries), look(`not:${text}`, entries)];
        expect(other).toMatchObject({ holds: !one.holds, mark: one.mark, is: one.is });
      }),
    );
  });

  test('nothing changes before the time that it tells, and no time that it tells is past', () => {
    fc.assert(
      fc.property(texts, worlds, fc.integer({ min: 0, max: 60_000 }), (text, { entries }, laterMs) => {
        const now = look(text, entries);
        expect(now.changesInMs).toBeGreaterThan(0);
        fc.pre(laterMs < now.changesInMs);
        expect(holds(text, entries, { nowMs: NOW_MS + laterMs })).toBe(now.holds);
      }),
    );
  });

  test('the order in which it was read does not matter', () => {
    fc.assert(
      fc.property(texts, worlds, (text, { entries }) => {
        const [one, other] = [look(text, entries), look(text, [...entries].reverse())];
        expect(other).toEqual(one);
      }),
    );
  });
});

describe('what is read', () => {
  const keysOf = (...texts: string[]) =>
    sourcesOf(texts.map(parseCondition), where).map((source) =>
      source.kind === 'service' ? source.service : `${source.kind} ${source.key}`,
    );

  test('is each key once, whatever number of conditions rest on it', () => {
    expect(keysOf('state:a', 'not:state:a=1', 'idle:g', 'blocked:g', 'active:n@g', 'healthy:s:2')).toEqual([
      ...['key runlock/.state/a/.value', 'tree runlock/g/.slot/', 's'],
    ]);
    expect(keysOf('good:n', 'good:*', 'frozen:a/b', 'agent:n')).toEqual([
      ...['key runlock/default/.runs/n', 'tree runlock/default/.runs/', 'key runlock/a/b/.freeze'],
      ...['key runlock/a/.freeze', 'key runlock/.freeze', 'key runlock/.agents/n'],
    ]);
  });

  test('is at most what one transaction can read', () => {
    const states = (count: number) => Array.from({ length: count }, (_, i) => `state:s${i}`);
    expect(keysOf(...states(64))).toHaveLength(64);
    expect(() => keysOf(...states(65))).toThrow(/need 65 reads, but one consistent read takes 64 at most/);
  });
});
