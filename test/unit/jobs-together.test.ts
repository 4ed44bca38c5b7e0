// Keys read at one moment: what is not there, what may not be read, and what comes and goes meanwhile.
import { describe, expect, test } from 'vitest';
import type { Consul } from '../../src/consul/consul.ts';
import { readTogether } from '../../src/jobs/together.ts';
import { memoryConsul } from '../support/memory-consul.ts';

const options = { signal: new AbortController().signal };
const wanted = ['p/a', 'p/b', 'p/c'].map((key) => ({ key, rule: `rule of ${key}` }));

describe('keys read together', () => {
  test('are those that are there', async () => {
    const { consul, put } = memoryConsul();
    put('p/a', '1');
    put('p/a1', 'begins like it');
    put('p/c', '3');
    const found = await readTogether(consul, wanted, options);
    expect([...found].map(([key, { value }]) => [key, value])).toEqual([
      ['p/a', '1'],
      ['p/c', '3'],
    ]);
  });

  test('need not be guessed right', async () => {
    const { consul, put } = memoryConsul();
    put('p/a', '1');
    const wrong = wanted.map((each) => ({ ...each, absent: each.key === 'p/a' }));
    expect([...(await readTogether(consul, wrong, options)).keys()]).toEqual(['p/a']);
  });

  test.each(['p/a', 'p/b'])('%s is never taken for missing where it may not be read', async (key) => {
    const { consul, put } = memoryConsul(undefined, (each) => each === key);
    put('p/a', '1');
    await expect(readTogether(consul, wanted, options)).rejects.toMatchObject({ code: 'forbidden' });
  });

  test('ask for each missing key with its own rule', async () => {
    const { consul } = memoryConsul();
    const rules: unknown[] = [];
    const get: Consul['get'] = (key, asked) => {
      rules.push(asked.rule);
      return consul.get(key, asked);
    };
    await readTogether({ ...consul, tryRead: consul.tryRead.bind(consul), get }, wanted, options);
    expect(rules).toEqual(wanted.map(({ rule }) => rule));
  });

  test('that turn up meanwhile are found', async () => {
    const { consul, put } = memoryConsul();
    const late: Consul['tryRead'] = (operations, asked) => {
      put('p/a', '1');
      return consul.tryRead(operations, asked);
    };
    const turning = new Proxy(consul, {
      get: (all, name) => (name === 'tryRead' ? late : (Reflect.get(all, name) as unknown)),
    });
    const absent = wanted.map((each) => ({ ...each, absent: true }));
    expect([...(await readTogether(turning, absent, options)).keys()]).toEqual(['p/a']);
  });

  test('of which one is left out for no reason, again and again, are given up', async () => {
    let reads = 0;
    const { consul, put } = memoryConsul();
    put('p/a', '1');
    const silent = new Proxy(consul, {
      get: (all, name) =>
        name === 'tryRead'
          ? () => Promise.resolve({ kind: 'done', entries: (reads += 1) > 0 ? [] : [] })
          : (Reflect.get(all, name) as unknown),
    });
    await expect(readTogether(silent, wanted.slice(0, 1), options)).rejects.toMatchObject({
      code: 'refused',
    });
    expect(reads).toBe(20);
  });
});
