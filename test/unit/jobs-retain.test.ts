// Which old jobs a start removes: those that are over, of its own principal, a few at a time.
import { describe, expect, test } from 'vitest';
import { acceptTarget, endTarget, stopJob } from '../../src/jobs/end.ts';
import { encodeSpec } from '../../src/jobs/records.ts';
import { oldJobs, retainJobs } from '../../src/jobs/retain.ts';
import { startJob } from '../../src/jobs/starter.ts';
import { nowMs, spec } from '../support/jobs.ts';
import { instant, memoryConsul } from '../support/memory-consul.ts';

const DAY_MS = 86_400_000;
const { signal } = new AbortController();
const retention = { jobs: 2, ageMs: 30 * DAY_MS };
const at = (days: number) => new Date(nowMs - days * DAY_MS).toISOString();

function world(random?: () => number) {
  const memory = memoryConsul(() => 'answered');
  const of = { consul: memory.consul, prefix: 'p', deps: instant(nowMs, random), signal };
  const { task, params, home, pauseMs, by, nonce } = spec;
  const refOf = (id: string, principal = 'ops') => ({ principal, id });
  const start = (id: string, days = 0, principal = 'ops', untilMs = nowMs + DAY_MS) =>
    startJob(of, {
      ref: refOf(id, principal),
      spec: {
        ...{ task, params, home, pauseMs, by, nonce: `${nonce}${id}`, maxFailures: 0, offline: 'wait' },
        ...{ at: at(days), until: new Date(untilMs).toISOString() },
      },
      targets: [['web01', 0]],
    });
  const stop = (id: string, principal = 'ops') =>
    stopJob({ ...of, ref: refOf(id, principal), home }, { why: 'cancelled' });
  const left = async () => {
    const { entries } = await memory.consul.list('p/.requests/', { signal, rule: '' });
    return entries.flatMap(({ key }) => /\.requests\/(.*)\/spec\/(.*)$/.exec(key)?.slice(1).join('/') ?? []);
  };
  const all = async () =>
    (await memory.consul.list('p/', { signal, rule: '' })).entries.map(({ key }) => key);
  return { of, refOf, start, stop, left, all };
}

describe('the next start of the principal', () => {
  test('removes what is over beyond the newest, or too old; with all that is left of it', async () => {
    const { of, refOf, start, stop, left, all } = world();
    for (const [id, days] of [
      ['a', 1],
      ['b', 1],
      ['old', 31],
      ['new', 0],
    ] as const)
      await start(id, days);
    await start('theirs', 40, 'ci');
    for (const id of ['a', 'b', 'old', 'new']) await stop(id);
    await stop('theirs', 'ci');
    // `a` and `b` are no longer among the newest two, `old` is, and is too old.
    expect(await retainJobs(of, refOf('new'), retention)).toBe(3);
    expect((await left()).sort()).toEqual(['ci/theirs', 'ops/new']);
    expect((await all()).filter((key) => /\/(?:a|b|old)(?:\/|$)/.test(key))).toEqual([]);
  });

  test('keeps what is not over, however old, and what it can not read', async () => {
    const { of, refOf, start, stop, left } = world();
    for (const id of ['open', 'running', 'over', 'x', 'y']) await start(id, 90);
    const target = { ...of, ref: refOf('running'), node: 'web01' };
    await acceptTarget(target);
    await of.consul.transact([{ verb: 'set', key: 'p/.requests/ops/spec/junk', value: 'junk' }], {
      signal,
      rule: '',
    });
    await stop('over');
    expect(await retainJobs(of, refOf('y'), { ...retention, jobs: 0 })).toBe(1);
    expect((await left()).sort()).toEqual(['junk', 'open', 'running', 'x', 'y'].map((id) => `ops/${id}`));
    expect(await endTarget(target, { end: () => ({ state: 'good', endedAt: at(0) }), isNode: true })).toEqual(
      {
        kind: 'ended',
        state: 'good',
      },
    );
  });

  test('stops what is past its end and was looked at by nobody, so that another one removes it', async () => {
    const { of, refOf, start, left } = world();
    await start('forgotten', 60, 'ops', nowMs - DAY_MS);
    await start('new');
    expect(await retainJobs(of, refOf('new'), retention)).toBe(0);
    expect(await retainJobs(of, refOf('new'), retention)).toBe(1);
    expect(await left()).toEqual(['ops/new']);
  });

  test('looks at five jobs at most, and never at its own', async () => {
    const { of, refOf, start, stop, left } = world();
    for (let i = 0; i < 9; i += 1) {
      await start(`j${i}`, 60);
      await stop(`j${i}`);
    }
    expect(await retainJobs(of, refOf('j0'), { ...retention, jobs: 0 })).toBe(5);
    expect(await left()).toContain('ops/j0');
  });

  test('leaves its own alone, also if it is the oldest', async () => {
    const { of, refOf, start, stop, left } = world();
    for (const id of ['own', 'a', 'b']) {
      await start(id, 60);
      await stop(id);
    }
    expect(await retainJobs(of, refOf('own'), { ...retention, jobs: 0 })).toBe(2);
    expect(await left()).toEqual(['ops/own']);
  });

  test('looks at others than the oldest too, which may never be over', async () => {
    const { of, refOf, start, stop, left } = world(() => 0.99);
    for (const id of ['o1', 'o2', 'o3', 'o4', 'o5', 'over', 'new']) await start(id, 60);
    await stop('over');
    expect(await retainJobs(of, refOf('new'), { ...retention, jobs: 1 })).toBe(1);
    expect(await left()).not.toContain('ops/over');
  });

  test('by two at once removes each once, and an end that comes late finds nothing', async () => {
    const { of, refOf, start, stop, left } = world();
    for (const id of ['a', 'b', 'c', 'd']) await start(id, 60);
    await acceptTarget({ ...of, ref: refOf('a'), node: 'web01' });
    for (const id of ['a', 'b', 'c']) await stop(id);
    const removed = await Promise.all([
      retainJobs(of, refOf('d'), retention),
      retainJobs(of, refOf('d'), retention),
    ]);
    expect(Math.max(...removed)).toBeLessThanOrEqual(3);
    expect(await left()).toEqual(['ops/d']);
    const late = { ...of, ref: refOf('a'), node: 'web01' };
    expect(await endTarget(late, { end: () => ({ state: 'good', endedAt: at(0) }) })).toMatchObject({
      kind: 'none',
    });
    expect(await left()).toEqual(['ops/d']);
  });
});

test('the newest by Consul’s own order stay, whatever a request says of its time', () => {
  const folder = 'p/.requests/ops/spec/';
  const entry = (id: string, createIndex: number, days: number, value?: string) => ({
    ...{ key: folder + id, flags: 0, lockIndex: 0, createIndex, modifyIndex: createIndex },
    value: value ?? encodeSpec({ ...spec, at: at(days) }),
  });
  const specs = [
    entry('c', 3, 0),
    entry('a', 1, -9),
    entry('b', 2, 29),
    entry('d', 4, 31),
    entry('e', 5, 0, 'junk'),
  ];
  const old = (jobs: number) => oldJobs(specs, { folder, nowMs, retention: { jobs, ageMs: 30 * DAY_MS } });
  expect(old(10)).toEqual(['d']);
  expect(old(3)).toEqual(['a', 'b', 'd']);
  expect(old(0)).toEqual(['a', 'b', 'c', 'd', 'e']);
});
