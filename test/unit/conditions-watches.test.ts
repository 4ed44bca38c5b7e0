// How the sources of conditions share blocking queries, and how what came and went is told from what never was.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { judge } from '../../src/conditions/judge.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import { look } from '../../src/conditions/read.ts';
import { sourcesOf } from '../../src/conditions/sources.ts';
import { countChanges } from '../../src/conditions/traces.ts';
import type { Trace } from '../../src/conditions/traces.ts';
import { watchConditions } from '../../src/conditions/watch.ts';
import { MOST_WATCHES, planWatches } from '../../src/conditions/watches.ts';
import { RunlockError } from '../../src/errors.ts';
import { encode, encodeRun } from '../../src/lock/records.ts';
import { encodeState } from '../../src/state/document.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const where = { prefix: 'runlock', groups: ['default'] };
const { signal } = new AbortController();

const plan = (...texts: string[]) =>
  planWatches(sourcesOf(texts.map(parseCondition), where)).map((watch) =>
    watch.kind === 'source'
      ? watch.source.kind === 'service'
        ? watch.source.service
        : watch.source.key
      : watch.kind === 'folder'
        ? `${watch.folder}*`
        : watch.services.map(({ service }) => service).join('+'),
  );
const many = (count: number, text: (i: number) => string) => Array.from({ length: count }, (_, i) => text(i));

describe('the watches of one wait', () => {
  test('are one for each source, as long as there are few', () => {
    expect(plan('state:a', 'idle:g', 'healthy:s', 'agent:n')).toEqual([
      ...['runlock/.state/a/.value', 'runlock/g/.slot/', 'runlock/.agents/n', 's'],
    ]);
    expect(plan(...many(8, (i) => `state:s${i}`))).toHaveLength(8);
    expect(plan(...many(8, (i) => `healthy:s${i}`))).toHaveLength(8);
  });

  test('of more keys follow what these have in common, the deepest folder first', () => {
    const near = many(7, (i) => `state:near/s${i}`);
    expect(plan(...near, 'idle:g', 'frozen:h')).toEqual([
      ...['runlock/.freeze', 'runlock/g/.slot/', 'runlock/h/.freeze', 'runlock/.state/near/*'],
    ]);
    expect(plan(...many(64, (i) => `idle:g${i}`))).toEqual(['runlock/*']);
  });

  test('of more services ask each of them in turn, and leave half of the watches to keys', () => {
    expect(plan(...many(10, (i) => `healthy:s${i}`))).toEqual([
      ...['s0+s8', 's1+s9', 's2', 's3', 's4', 's5', 's6', 's7'],
    ]);
    const both = plan(...many(8, (i) => `healthy:s${i}`), ...many(8, (i) => `state:p${i}/x`));
    expect(both).toEqual(['runlock/.state/*', 's0+s4', 's1+s5', 's2+s6', 's3+s7']);
  });

  test('are never more than allowed, and each source has one', () => {
    const path = fc
      .array(fc.constantFrom('a', 'b', 'ab', 'c'), { minLength: 1, maxLength: 4 })
      .map((parts) => parts.join('/'));
    const condition = fc.oneof(
      path.map((at) => `state:${at}`),
      path.map((at) => `idle:${at}`),
      path.map((at) => `good:*@${at}`),
      fc.nat(31).map((i) => `healthy:s${i}`),
    );
    fc.assert(
      fc.property(fc.array(condition, { maxLength: 60 }), (texts) => {
        const sources = sourcesOf(texts.map(parseCondition), where);
        const watches = planWatches(sources);
        expect(watches.length).toBeLessThanOrEqual(MOST_WATCHES);
        for (const source of sources)
          expect(
            watches.filter((watch) =>
              watch.kind === 'source'
                ? watch.source === source
                : watch.kind === 'folder'
                  ? source.kind !== 'service' && source.key.startsWith(watch.folder)
                  : source.kind === 'service' && watch.services.includes(source),
            ),
          ).toHaveLength(1);
      }),
    );
  });
});

/** Consul's index of the last change below a prefix; what has no keys and no deletions has that of all. */
function storeOf(indexes: Record<string, { index: number; names?: readonly string[] }>, last: number) {
  const store = { indexes, last };
  const opened: string[] = [];
  const consul = fakeConsul({
    indexOf: (prefix) => {
      const { index, names = [prefix] } = store.indexes[prefix] ?? { index: store.last, names: [] };
      return Promise.resolve({ index, names });
    },
    transact: ([operation]) => {
      opened.push(operation?.key ?? '');
      return Promise.resolve({ kind: 'done', entries: [] });
    },
  });
  const count = countChanges(consul);
  return {
    store,
    opened,
    count: async (trace: Trace) => (await count([trace], { signal })).get(trace.prefix),
  };
}

describe('what came and went', () => {
  const slots = { prefix: 'runlock/g/.slot/' };
  const freeze = { prefix: 'runlock/g/.freeze' };
  const around = ['runlock/g/.tail', 'runlock/g/sub/'];

  test('below a prefix that has an index of its own is each change of it', async () => {
    const { store, count } = storeOf({ [slots.prefix]: { index: 10 } }, 20);
    expect(await count(slots)).toBe(0);
    store.last = 30;
    expect(await count(slots)).toBe(0);
    store.indexes[slots.prefix] = { index: 31 };
    expect(await count(slots)).toBe(1);
    expect(await count(slots)).toBe(1);
  });

  test('is told from writes elsewhere, where nothing ever was', async () => {
    const { store, count } = storeOf({ 'runlock/g/': { index: 5 } }, 20);
    expect(await count(slots)).toBe(0);
    store.last = 30;
    expect(await count(slots)).toBe(0);
    // It came, and went with the write 31.
    store.last = 31;
    store.indexes = { [slots.prefix]: { index: 31, names: [] }, 'runlock/g/': { index: 31 } };
    expect(await count(slots)).toBe(1);
    store.last = 40;
    expect(await count(slots)).toBe(1);
  });

  test.each(['runlock/g/.tail', 'runlock/g/s'])(
    'is told from a write beside it that Consul’s last one was: %s',
    async (beside) => {
      const { store, count } = storeOf({ 'runlock/g/': { index: 20 } }, 20);
      expect(await count(freeze)).toBe(0);
      store.last = 30;
      store.indexes = { 'runlock/g/': { index: 30, names: around }, [beside]: { index: 30 } };
      expect(await count(freeze)).toBe(0);
      store.last = 31;
      store.indexes = { 'runlock/g/': { index: 31, names: around }, [beside]: { index: 30 } };
      expect(await count(freeze)).toBe(1);
    },
  );

  test('with a run is not told from that run’s own record', async () => {
    const { store, count } = storeOf({ 'runlock/g/': { index: 20 } }, 20);
    expect(await count(slots)).toBe(0);
    store.last = 30;
    store.indexes = {
      ...{ 'runlock/g/': { index: 30, names: ['runlock/g/.runs/'] } },
      ...{ 'runlock/g/.runs/': { index: 30 }, [slots.prefix]: { index: 30, names: [] } },
    };
    expect(await count(slots)).toBe(1);
  });

  test('is assumed where the index goes back, as after a snapshot', async () => {
    const { store, count } = storeOf({ [slots.prefix]: { index: 30 } }, 30);
    expect(await count(slots)).toBe(0);
    store.indexes = { [slots.prefix]: { index: 12 } };
    expect(await count(slots)).toBe(1);
  });

  test('is assumed also where nothing is left, and the last write was elsewhere', async () => {
    const { store, count } = storeOf({ [slots.prefix]: { index: 30 } }, 30);
    expect(await count(slots)).toBe(0);
    store.indexes = { [slots.prefix]: { index: 12, names: [] }, 'runlock/g/': { index: 11 } };
    expect(await count(slots)).toBe(1);
  });

  test('is not told from a neighbour that begins alike', async () => {
    const node = { prefix: 'runlock/g/.node/web1' };
    const folder = 'runlock/g/.node/';
    const names = ['web', 'web10', 'web2', 'db1'].map((name) => folder + name);
    const { store, count } = storeOf({ [folder]: { index: 20 } }, 20);
    expect(await count(node)).toBe(0);
    // It came and went with the write 30, which all prefixes show that it begins with.
    store.indexes = {
      ...{ [folder]: { index: 30, names }, [node.prefix]: { index: 30, names: [] } },
      ...{ [`${folder}w`]: { index: 30 }, [`${folder}web`]: { index: 30 } },
      ...{ [`${folder}web10`]: { index: 5 }, [`${folder}web2`]: { index: 6 }, [`${folder}d`]: { index: 7 } },
    };
    expect(await count(node)).toBe(1);
    // This write was to a neighbour.
    store.last = 31;
    store.indexes = {
      ...{ [folder]: { index: 31, names }, [node.prefix]: { index: 31, names: [] } },
      ...{ [`${folder}web2`]: { index: 31 }, [`${folder}d`]: { index: 7 }, [`${folder}web10`]: { index: 5 } },
    };
    expect(await count(node)).toBe(1);
  });

  test('of a state gets a key that gives it an index, once', async () => {
    const trace = { prefix: 'runlock/.state/a/', open: 'runlock/.state/a/.open' };
    const { opened, count } = storeOf({}, 30);
    await count(trace);
    expect(opened).toEqual(['runlock/.state/a/.open']);
    await count(trace);
    expect(opened).toHaveLength(1);
  });
});

describe('every truth that can come and go unseen', () => {
  const owner = (state: 'running' | 'failed') => ({
    ...{ key: 'runlock/g/.slot/0/owner', createIndex: 1, modifyIndex: 1 },
    value: encode({
      ...{ node: 'n', state, run: 'r', since: new Date(0).toISOString(), command: 'chef', hold: 'forever' },
      ...{ pid: 1, startTime: '1', bootId: 'b' },
    }),
  });
  const record = {
    ...{ key: 'runlock/g/.runs/n', createIndex: 1, modifyIndex: 1 },
    value: encodeRun({
      ...{ node: 'n', run: 'r', outcome: 'succeeded', command: 'chef', slot: 0 },
      ...{ endedAt: new Date(0).toISOString(), waitedMs: 0, ranMs: 0 },
    }),
  };
  const state = {
    ...{ key: 'runlock/.state/a/.value', createIndex: 1, modifyIndex: 1 },
    value: encodeState({ value: '1', change: 'c', by: 'n', at: new Date(0).toISOString() }),
  };
  const agent = { key: 'runlock/.agents/n', value: '{}', createIndex: 1, modifyIndex: 1, session: 's' };
  const freeze = {
    ...{ key: 'runlock/.freeze', createIndex: 1, modifyIndex: 1 },
    value: encode({ by: 'anna', reason: 'r', since: new Date(0).toISOString() }),
  };

  test.each([
    ['state:a', state, ['runlock/.state/a/']],
    ['state:a=1', state, ['runlock/.state/a/']],
    ['state:a!=1', state, ['runlock/.state/a/']],
    ['idle:g', owner('running'), ['runlock/g/.slot/']],
    ['blocked:g', owner('failed'), ['runlock/g/.slot/']],
    ['active:n@g', owner('running'), ['runlock/g/.node/n']],
    ['good:n@g', record, ['runlock/g/.runs/n']],
    ['frozen:g', freeze, ['runlock/g/.freeze', 'runlock/.freeze']],
    ['agent:n', agent, ['runlock/.agents/n']],
  ])('%s: has a trace where it is not there, and none where its mark tells', (text, entry, prefixes) => {
    const traces = (entries: readonly (typeof entry)[]) =>
      judge([parseCondition(text)], { entries, instances: new Map() }, { ...where, nowMs: 0 })[0]?.traces.map(
        ({ prefix }) => prefix,
      );
    expect(traces([])).toEqual(prefixes);
    expect(traces([entry])).toEqual([]);
  });
});

describe('what the token may read', () => {
  const sources = sourcesOf(['state:a', 'state:b', 'idle:g'].map(parseCondition), where);
  const asked = async (may: readonly (boolean | undefined)[]) => {
    const reads: string[] = [];
    const consul = fakeConsul({
      readAll: () => Promise.resolve([]),
      may: () => Promise.resolve(may),
      get: (key) => {
        reads.push(key);
        return Promise.resolve({ entry: undefined, index: 1 });
      },
    });
    await look(consul, { sources, proven: new Set() }, { signal });
    return reads;
  };

  test('is asked once for all; what Consul does not say, or denies, is read by itself', async () => {
    const keys = ['runlock/.state/a/.value', 'runlock/.state/b/.value', 'runlock/g/.slot/.may-read'];
    expect(await asked([true, true, true])).toEqual([]);
    expect(await asked([true, false, true])).toEqual(keys.slice(1, 2));
    expect(await asked([undefined, undefined, undefined])).toEqual(keys);
  });
});

test('that a key is gone is for a look to say, since the right to read it may have gone', async () => {
  const entry = {
    ...{ key: 'runlock/.state/a/.value', createIndex: 1, modifyIndex: 1 },
    value: encodeState({ value: '1', change: 'c', by: 'n', at: new Date(0).toISOString() }),
  };
  const forbidden = new RunlockError('forbidden', 'Permission denied');
  const answers = [Promise.resolve({ entry, index: 1 }), Promise.resolve({ entry: undefined, index: 2 })];
  const consul = fakeConsul({
    get: (_, { index }) =>
      answers.shift() ?? (index === undefined ? Promise.reject(forbidden) : new Promise(() => undefined)),
  });
  let nowMs = 0;
  const clock = {
    ...{ now: () => 0, earliest: () => 0, latest: () => 0, monotonicMs: () => nowMs },
    // Only short pauses end: what is seen must come from the watch.
    sleep: (ms: number) => (
      (nowMs += ms),
      ms > 10_000 ? new Promise<void>(() => undefined) : Promise.resolve()
    ),
  };
  const watched = watchConditions({ consul, clock, signal, ...where }, [parseCondition('not:state:a')], {
    since: () => undefined,
    decide: ({ judged }) => (judged[0]?.holds ? { done: 'gone' } : { againInMs: Infinity }),
  });
  await expect(watched).rejects.toBe(forbidden);
});
