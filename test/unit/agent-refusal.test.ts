// Why a node's files refuse a request, in words for who asked; and when targets look.
import { describe, expect, test } from 'vitest';
import type { ServedTask } from '../../src/agent/known.ts';
import { whyRefused } from '../../src/agent/refusal.ts';
import { spreadMs } from '../../src/agent/spread.ts';

const chef = {
  task: {
    ...{ name: 'chef', command: ['/bin/echo', '{word}'] },
    params: [{ name: 'word', match: '[a-z]+', fallback: 'a', dash: false }],
  },
  shown: { name: 'chef', allow: ['ops'], groups: ['prod/db', 'prod/web'], params: ['word'] },
} as unknown as ServedTask;
const files = { tasks: [chef], faults: ['/etc/runlock/tasks.d/bad.toml:2: unknown key'] };
const asking = { principal: 'ops', older: 0, spec: { task: 'chef', params: {}, home: 'prod/db' } };

test('a request that the files allow is not refused', () => {
  expect(whyRefused(asking, files)).toBeUndefined();
  expect(whyRefused({ ...asking, older: 99 }, files)).toBeUndefined();
});

describe('refused', () => {
  test.each<[object, RegExp]>([
    [{ spec: { ...asking.spec, task: 'none' } }, /^this node has no task none$/],
    [{ spec: { ...asking.spec, task: 'bad' } }, /^task bad can't be used: .*bad\.toml:2: unknown key$/],
    [{ principal: 'ci' }, /^task chef does not allow ci;/],
    [{ spec: { ...asking.spec, home: 'prod/web' } }, /not|started for prod\/web/],
    [{ spec: { ...asking.spec, home: 'prod/app' } }, /started for prod\/app$/],
    [{ older: 100 }, /^too many: 100 older requests of ops/],
    [{ spec: { ...asking.spec, noop: true } }, /^task chef has no noop command; /],
    [{ spec: { ...asking.spec, params: { word: 'A1' } } }, /^parameter word: 'A1' is not allowed/],
    [{ spec: { ...asking.spec, params: { other: 'a' } } }, /has no parameter 'other'/],
  ])('%j', (more, why) => {
    expect(whyRefused({ ...asking, ...more }, files)).toMatch(why);
  });
});

test('targets of a large job look about 500 a second, those of a small one at once', () => {
  expect(spreadMs('web01', 499)).toBe(0);
  const all = Array.from({ length: 5_000 }, (_, i) => spreadMs(`web${i}`, 5_000));
  expect(Math.min(...all)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...all)).toBeLessThan(10_000);
  const perSecond = Array.from(
    { length: 10 },
    (_, s) => all.filter((ms) => Math.floor(ms / 1_000) === s).length,
  );
  expect(Math.max(...perSecond)).toBeLessThan(600);
});
