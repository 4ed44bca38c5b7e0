// What whoever looks does for a job: past its end, for runs that are gone, for agents that are not there; and its removal.
import { describe, expect, test } from 'vitest';
import { encodeTarget } from '../../src/jobs/records.ts';
import { startJob } from '../../src/jobs/starter.ts';
import { stopJob } from '../../src/jobs/end.ts';
import { collectJob, noSights, tendJob } from '../../src/jobs/tend.ts';
import type { Sights } from '../../src/jobs/tend.ts';
import { viewJob } from '../../src/jobs/view.ts';
import type { JobView } from '../../src/jobs/view.ts';
import { jobGroup } from '../../src/jobs/keys.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { encode } from '../../src/lock/records.ts';
import { at, nowMs, place, spec } from '../support/jobs.ts';
import { instant, memoryConsul } from '../support/memory-consul.ts';
import type { Fate } from '../support/memory-consul.ts';

const ref = { principal: 'ops', id: 'deploy-1' };
const { keys, requests } = place('p');
const slots = groupKeys('p', spec.home);
const { signal } = new AbortController();
const MINUTE = 60_000;

async function ready({ offline = 'skip' as const, fates = [] as Fate[], hidden = ' ', noop = false } = {}) {
  let begun = Infinity;
  const memory = memoryConsul(
    (sent) => fates[sent - begun] ?? 'answered',
    (key) => key.includes(hidden),
  );
  let [ms, wallMs] = [0, nowMs];
  const still = instant(nowMs);
  const clock = { ...still.clock, monotonicMs: () => ms, now: () => wallMs, earliest: () => wallMs };
  const of = { consul: memory.consul, prefix: 'p', deps: { ...still, clock }, signal };
  const { task, params, home, pauseMs, until, by, nonce } = spec;
  await startJob(of, {
    ref,
    spec: {
      task,
      params,
      home,
      pauseMs,
      until,
      by,
      nonce,
      at,
      maxFailures: 1,
      offline,
      ...(noop && { noop }),
    },
    targets: [
      ['web01', 0],
      ['web02', 1],
    ],
  });
  begun = memory.sent().length;
  const view = async () => (await viewJob({ ...of, ref }, { signal })) as JobView;
  const tend = async (before: Sights, after: number) => {
    ms = after;
    return tendJob(of, await view(), before);
  };
  return { ...memory, of, view, tend, setWall: (to: number) => void (wallMs = to) };
}

const runs = (put: (key: string, value: string) => void) => {
  put(keys.node('web01'), encodeTarget({ rev: 1, state: 'running', run: 'r1' }));
};
const claim = {
  ...{ node: 'web01', state: 'running', run: 'r1', since: at, command: 'c', hold: 'forever' },
  ...{ pid: 1, startTime: '1', bootId: 'b' },
};

describe('who looks at a job', () => {
  test('stops it 5 s past its end, and not before', async () => {
    const { tend, setWall, value, put } = await ready();
    put('p/.agents/web01', '{}');
    setWall(Date.parse(spec.until) + 4_999);
    expect((await tend(noSights, 0)).deeds).toEqual([]);
    setWall(Date.parse(spec.until) + 5_000);
    expect((await tend(noSights, 0)).deeds).toEqual([{ kind: 'expired' }]);
    expect(value(keys.stage)).toMatchObject({ kind: 'stopped', why: 'expired' });
  });

  test('ends a run that is gone for a minute as lost, once', async () => {
    const { tend, put, value } = await ready();
    runs(put);
    put(slots.owner(0), encode(claim));
    const first = await tend(noSights, 0);
    expect(first.deeds).toEqual([]);
    expect((await tend(first.sights, MINUTE - 1)).deeds).toEqual([]);
    expect((await tend(first.sights, MINUTE)).deeds).toEqual([{ kind: 'lost', node: 'web01' }]);
    expect(value(keys.node('web01'))).toMatchObject({ state: 'lost', run: 'r1' });
    expect(value(keys.tally)).toMatchObject({ states: { lost: 1 } });
  });

  test('looks for a run that only tries in the group of the job, where it has its claim', async () => {
    const { tend, put } = await ready({ noop: true });
    runs(put);
    const own = groupKeys('p', jobGroup(spec.home, ref));
    put(own.owner(0), encode({ ...claim, state: 'rebooting' }));
    const { sights } = await tend(noSights, 0);
    expect((await tend(sights, MINUTE)).deeds).toEqual([]);
    put(own.owner(0), encode(claim));
    const later = await tend(noSights, 0);
    expect((await tend(later.sights, MINUTE)).deeds).toEqual([{ kind: 'lost', node: 'web01' }]);
  });

  test('ends a run whose reboot nobody waits for any more as lost, and no other', async () => {
    const { tend, put, value, remove } = await ready();
    const target = { rev: 1, state: 'rebooting', run: 'r1', endedAt: at, holds: true } as const;
    put(keys.node('web01'), encodeTarget(target));
    put(slots.owner(0), encode({ ...claim, state: 'rebooting' }));
    const record = { node: 'web01', run: 'r1', outcome: 'rebooting', command: 'c', slot: 0 };
    put(slots.run('web01'), encode({ ...record, endedAt: at, waitedMs: 0, ranMs: 0 }));
    const { sights } = await tend(noSights, 0);
    expect((await tend(sights, MINUTE)).deeds).toEqual([]);
    remove(slots.owner(0));
    const later = await tend(noSights, 0);
    expect((await tend(later.sights, MINUTE - 1)).deeds).toEqual([]);
    expect((await tend(later.sights, MINUTE)).deeds).toEqual([{ kind: 'lost', node: 'web01' }]);
    expect(value(keys.node('web01'))).toMatchObject({
      state: 'lost',
      why: expect.stringContaining('its slot was cleared') as string,
    });
  });

  test('ends no run whose claim has changed', async () => {
    const { tend, put, value } = await ready();
    runs(put);
    put(slots.owner(0), encode(claim));
    const { sights } = await tend(noSights, 0);
    put(slots.owner(0), encode({ ...claim, returns: 1 }));
    expect((await tend(sights, MINUTE)).deeds).toEqual([]);
    expect(value(keys.node('web01'))).toMatchObject({ state: 'running' });
  });

  test('calls offline whose agent was not there for a minute, of the stages that are open', async () => {
    const { tend, put, value } = await ready();
    const first = await tend(noSights, 0);
    expect([...first.sights.away.keys()]).toEqual(['web01']);
    put('p/.agents/web01', '{}');
    const back = await tend(first.sights, 30_000);
    expect(back.sights.away.size).toBe(0);
    const gone = await ready();
    const { sights } = await gone.tend(noSights, 0);
    expect((await gone.tend(sights, MINUTE)).deeds).toEqual([{ kind: 'offline', node: 'web01' }]);
    expect(gone.value(keys.node('web01'))).toMatchObject({ state: 'offline' });
    expect(value(keys.tally)).toMatchObject({ rev: 0 });
  });

  test('waits for an agent where the job says so', async () => {
    const { tend } = await ready({ offline: 'wait' as never });
    expect((await tend(noSights, 0)).sights.away.size).toBe(0);
  });

  test.each(['.slot', '.node', '.agents'])('does nothing by what it may not read: %s', async (hidden) => {
    const { tend, put, sent } = await ready({ hidden });
    runs(put);
    if (hidden === '.agents') put(keys.node('web01'), encodeTarget({ rev: 1, state: 'accepted' }));
    const before = sent().length;
    const { sights } = await tend(noSights, 0);
    expect((await tend(sights, MINUTE)).deeds).toEqual([]);
    expect(sent()).toHaveLength(before);
  });

  test('leaves a job alone that is over', async () => {
    const { of, tend } = await ready();
    await stopJob({ ...of, ref, home: spec.home }, { why: 'cancelled' });
    expect(await tend(noSights, MINUTE)).toEqual({ sights: noSights, deeds: [] });
  });
});

describe('a job that is removed', () => {
  test.each([[[]], [['lost']], [['failed', 'lost']], [['answered', 'lost']]] as Fate[][][])(
    'leaves nothing, whatever answers are lost: %j',
    async (fates) => {
      const { of, keys: all } = await ready({ fates: ['answered', ...fates] });
      await stopJob({ ...of, ref, home: spec.home }, { why: 'cancelled' });
      expect(await collectJob(of, ref)).toBe('removed');
      expect(all()).toEqual([]);
      expect(await collectJob(of, ref)).toBe('kept');
    },
  );

  test('is not removed while it goes on', async () => {
    const { of, put, keys: all } = await ready();
    expect(await collectJob(of, ref)).toBe('kept');
    runs(put);
    await stopJob({ ...of, ref, home: spec.home }, { why: 'cancelled' });
    expect(await collectJob(of, ref)).toBe('kept');
    expect(all()).toContain(requests.pointer('web01', ref.id));
  });
});
