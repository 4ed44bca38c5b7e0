// Changes of a target by others than its run: sent again until they took effect, or nothing is left to do.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { contend, contendersOf, jitterMs } from '../../src/jobs/contend.ts';
import type { Plan } from '../../src/jobs/contend.ts';
import { acceptTarget, dropPointer, endTarget, stopJob } from '../../src/jobs/end.ts';
import type { EndRequest } from '../../src/jobs/end.ts';
import { lookAt } from '../../src/jobs/read.ts';
import { encodePointer, encodeStage, encodeTarget, encodeTargets } from '../../src/jobs/records.ts';
import { startJob } from '../../src/jobs/starter.ts';
import { startTarget, final } from '../../src/jobs/transactions.ts';
import { viewJob } from '../../src/jobs/view.ts';
import { at, nowMs, place, seenTarget, spec } from '../support/jobs.ts';
import { fakeConsul } from '../support/fake-consul.ts';
import { instant, memoryConsul } from '../support/memory-consul.ts';
import type { Fate } from '../support/memory-consul.ts';

const ref = { principal: 'ops', id: 'deploy-1' };
const { keys, requests } = place('p');
const signal = new AbortController().signal;
const pointer = requests.pointer('web01', ref.id);

/** A job that is ready: web01 in its first stage, the others in its second. `fates`: of what is sent after that. */
async function readyJob(fates: readonly Fate[] = [], isHidden: (key: string) => boolean = () => false) {
  let begun = Infinity;
  let hides = false;
  const memory = memoryConsul(
    (sent) => fates[sent - begun] ?? 'answered',
    (key) => hides && isHidden(key),
  );
  const { task, params, home, maxFailures, offline, pauseMs, until, by, nonce } = spec;
  const asked = { task, params, home, maxFailures, offline, pauseMs, until, by, nonce, at };
  const of = { consul: memory.consul, prefix: 'p', deps: instant(nowMs), signal, ref };
  await startJob(of, {
    ...{ ref, spec: asked },
    targets: [
      ['web01', 0],
      ['web02', 1],
      ['web03', 1],
      ['web04', -1],
    ],
  });
  begun = memory.sent().length;
  hides = true;
  const find = (key: string) => {
    const entry = memory.store().entries.find((each) => each.key === key);
    return entry && { value: entry.value, index: entry.modifyIndex };
  };
  const target = () => seenTarget(place('p'), find);
  const send = (steps: ReturnType<typeof final>) =>
    memory.consul.transact(
      steps.map(({ operation }) => operation),
      { signal },
    );
  return { ...memory, of: { ...of, node: 'web01' }, target, send };
}

const refused: EndRequest = {
  end: () => ({ state: 'refused', endedAt: at, why: 'no such task' }),
  isNode: true,
};

describe('one look', () => {
  test('finds request, target and pointer', async () => {
    const { of } = await readyJob();
    const look = await lookAt(of, of, { signal });
    expect(look).toMatchObject({
      ...{ kind: 'target', known: { home: 'prod/web', chunk: 0 }, pointer: { key: pointer } },
      target: { node: 'web01', targetStage: 0, stage: { value: { kind: 'open', stage: 0 } } },
    });
    expect(look).not.toHaveProperty('target.document');
  });

  test('finds the same without the pointer, where an earlier one found it', async () => {
    const { of, remove } = await readyJob();
    remove(pointer);
    const look = await lookAt(of, { node: 'web02', known: { home: 'prod/web', chunk: 0 } }, { signal });
    expect(look).toMatchObject({ kind: 'target', target: { targetStage: 1 } });
  });

  test('finds the job that has the name now, where an earlier one found another', async () => {
    const { of } = await readyJob();
    const look = await lookAt(of, { node: 'web02', known: { home: 'prod/db', chunk: 7 } }, { signal });
    expect(look).toMatchObject({ kind: 'target', known: { home: 'prod/web', chunk: 0 } });
  });

  test('tells a request that is gone', async () => {
    const { of, remove } = await readyJob();
    remove(requests.spec(ref.id));
    expect(await lookAt(of, of, { signal })).toMatchObject({ kind: 'gone', pointer: { key: pointer } });
  });

  test.each([
    ['the request', requests.spec(ref.id)],
    ['its pointer', pointer],
    ['the list', requests.targets(ref.id, 0)],
    ['its stage', keys.stage],
    ['its document', keys.node('web01')],
  ])('never takes %s for gone that may not be read', async (_, hidden) => {
    const { of } = await readyJob([], (key) => key === hidden);
    await expect(lookAt(of, of, { signal })).rejects.toMatchObject({ code: 'forbidden' });
  });

  test('finds that a list does not name the node, whatever its pointer says', async () => {
    const { of, put } = await readyJob();
    const other = { ...of, node: 'web09' };
    expect(await lookAt(other, other, { signal })).toMatchObject({ kind: 'unmeant' });
    put(requests.pointer('web09', ref.id), encodePointer({ nonce: 'n1', chunk: 5 }));
    expect(await lookAt(other, other, { signal })).toMatchObject({ kind: 'unmeant', pointer: {} });
    put(requests.pointer('web09', ref.id), 'no pointer at all');
    expect(await lookAt(other, other, { signal })).toMatchObject({ kind: 'unmeant' });
    put(requests.targets(ref.id, 0), encodeTargets({ targets: [['web01', 2]] }));
    expect(await lookAt(of, of, { signal })).toMatchObject({ kind: 'unmeant' });
  });

  test.each([keys.stage, keys.tally])('says which part of a job was deleted by hand: %s', async (key) => {
    const { of, remove } = await readyJob();
    remove(key);
    const look = await lookAt(of, of, { signal });
    expect(look).toMatchObject({ kind: 'broken', pointer: {} });
    const said = expect.stringMatching(
      /is missing.*consul kv delete -recurse .*\.jobs\/ops\/deploy-1\/'.*consul kv delete .*\.requests\/ops\/spec\/deploy-1'/,
    ) as string;
    expect(look).toMatchObject({ why: said });
    await expect(viewJob(of, { signal })).rejects.toMatchObject({ code: 'incompatible', message: said });
    // Nobody can start it any more: its node need not look at it again.
    expect(await dropPointer(of)).toEqual({ kind: 'dropped' });
  });

  test('says which part of a job belongs to another', async () => {
    const { of, put } = await readyJob();
    put(keys.stage, encodeStage({ rev: 1, kind: 'open', stage: 2, since: at }));
    await expect(lookAt(of, of, { signal })).rejects.toMatchObject({ code: 'incompatible' });
  });
});

describe('a target', () => {
  test('accepts once, whatever answers are lost', async () => {
    for (const fates of [[], ['lost'], ['failed'], ['failed', 'lost']] as Fate[][]) {
      const { of, value } = await readyJob(fates);
      expect(await acceptTarget(of)).toEqual({ kind: 'accepted' });
      expect(value(keys.node('web01'))).toEqual({ v: 1, rev: 0, state: 'accepted', acceptedAt: at });
    }
  });

  test('follows from a look that is given, or a new one if that is old', async () => {
    const { of, value } = await readyJob();
    const seen = await lookAt(of, of, { signal });
    const consul = fakeConsul({ transact: (...sent) => of.consul.transact(...sent) });
    expect(await acceptTarget({ ...of, seen, consul })).toEqual({ kind: 'accepted' });
    expect(value(keys.node('web01'))).toMatchObject({ state: 'accepted' });
    expect(await acceptTarget({ ...of, seen })).toEqual({ kind: 'accepted' });
  });

  test('accepts nothing that is stopped, past its end, offline, or further already', async () => {
    const { of, target, send, put } = await readyJob();
    const late = { ...of, deps: instant(Date.parse(spec.until)) };
    expect(await acceptTarget(late)).toMatchObject({ kind: 'not-now' });
    expect(await acceptTarget({ ...of, node: 'web04', known: { home: 'prod/web', chunk: 0 } })).toMatchObject(
      {
        kind: 'not-now',
      },
    );
    await acceptTarget(of);
    await send(startTarget(target(), { run: 'r1', bootId: 'b', at }));
    expect(await acceptTarget(of)).toMatchObject({ kind: 'not-now' });
    put(keys.node('web01'), encodeTarget({ rev: 0, state: 'accepted' }));
    await stopJob({ ...of, home: 'prod/web' }, { why: 'cancelled' });
    expect(await acceptTarget({ ...of, node: 'web02', known: { home: 'prod/web', chunk: 0 } })).toMatchObject(
      {
        kind: 'not-now',
      },
    );
  });

  test('ends once, whatever answers are lost, and its pointer goes', async () => {
    for (const fates of [[], ['lost'], ['failed'], ['failed', 'lost']] as Fate[][]) {
      const { of, value, keys: all } = await readyJob(fates);
      expect(await endTarget(of, refused)).toEqual({ kind: 'ended', state: 'refused' });
      expect(value(keys.tally)).toMatchObject({ rev: 1, states: { offline: 1, refused: 1 } });
      expect(value(keys.stage)).toMatchObject({ kind: 'stopped', why: 'unproven' });
      expect(all()).not.toContain(pointer);
      const later = { ...of, known: { home: 'prod/web', chunk: 0 } };
      const again = await endTarget(later, { end: () => ({ state: 'lost', endedAt: at }) });
      expect(again).toEqual({ kind: 'already', state: 'refused' });
    }
  });

  test('that was ended by the stop of its job is not written', async () => {
    const { of, sent } = await readyJob();
    await stopJob({ ...of, home: 'prod/web' }, { why: 'expired' });
    const count = sent().length;
    expect(await endTarget(of, refused)).toEqual({ kind: 'already', state: 'expired' });
    expect(sent()).toHaveLength(count);
  });

  test('is not ended for a reason that does not hold any more', async () => {
    const { of } = await readyJob();
    const only: EndRequest = {
      end: ({ document }) => (document ? { state: 'lost', endedAt: at } : undefined),
    };
    expect(await endTarget(of, only)).toMatchObject({ kind: 'changed', target: { node: 'web01' } });
  });

  test('is lost only while its claim is as it was', async () => {
    const { of, put, store } = await readyJob();
    put('p/owner', '1');
    const { index } = store();
    const lost: EndRequest = {
      end: () => ({ state: 'lost', endedAt: at }),
      owners: [{ key: 'p/owner', index }],
    };
    put('p/owner', '2');
    expect(await endTarget(of, lost)).toMatchObject({ kind: 'changed' });
    expect(
      await endTarget(of, { ...lost, owners: [{ key: 'p/owner', index: store().index }] }),
    ).toMatchObject({
      kind: 'ended',
    });
  });

  test('of a request that is gone, or names it not, has no end', async () => {
    const { of, remove } = await readyJob();
    expect(await endTarget({ ...of, node: 'web09' }, refused)).toMatchObject({ kind: 'none' });
    remove(requests.spec(ref.id));
    expect(await endTarget(of, refused)).toMatchObject({ kind: 'none', look: { kind: 'gone' } });
  });

  test('of many that end at once is counted each time', async () => {
    const { of, value } = await readyJob();
    const ends = ['web01', 'web02', 'web03'].map((node) =>
      endTarget({ ...of, node }, { end: () => ({ state: 'good', endedAt: at }) }),
    );
    expect(await Promise.all(ends)).toEqual(ends.map(() => ({ kind: 'ended', state: 'good' })));
    expect(value(keys.tally)).toMatchObject({ rev: 3, states: { good: 3 } });
    expect(value(keys.stage)).toMatchObject({ kind: 'done' });
    const view = await viewJob(of, { signal });
    expect(view).toMatchObject({
      isOver: true,
      isComplete: true,
      failures: 0,
      counts: { good: 3, offline: 1 },
    });
  });
});

describe('a pointer', () => {
  test('stays while its target is open or runs, and goes with its end', async () => {
    const { of, target, send, keys: all } = await readyJob();
    expect(await dropPointer(of)).toMatchObject({ kind: 'needed' });
    await acceptTarget(of);
    await send(startTarget(target(), { run: 'r1', bootId: 'b', at }));
    await stopJob({ ...of, home: 'prod/web' }, { why: 'cancelled' });
    expect(await dropPointer(of)).toMatchObject({ kind: 'needed' });
    await send(final(target(), { end: { state: 'good', endedAt: at }, nowMs }));
    expect(all()).toContain(pointer);
    expect(await dropPointer(of)).toEqual({ kind: 'dropped' });
    expect(all()).not.toContain(pointer);
    expect(await dropPointer(of)).toEqual({ kind: 'dropped' });
  });

  test('goes with the stop, the request, and where no list names its node', async () => {
    const stoppedJob = await readyJob();
    await stopJob({ ...stoppedJob.of, home: 'prod/web' }, { why: 'cancelled' });
    expect(await dropPointer(stoppedJob.of)).toEqual({ kind: 'dropped' });
    expect(stoppedJob.keys()).not.toContain(pointer);
    const gone = await readyJob(['lost']);
    gone.remove(requests.spec(ref.id));
    expect(await dropPointer(gone.of)).toEqual({ kind: 'dropped' });
    expect(gone.keys()).not.toContain(pointer);
    const unmeant = await readyJob();
    unmeant.put(requests.pointer('web09', ref.id), encodePointer({ nonce: 'n1', chunk: 0 }));
    expect(await dropPointer({ ...unmeant.of, node: 'web09' })).toEqual({ kind: 'dropped' });
    expect(unmeant.keys()).not.toContain(requests.pointer('web09', ref.id));
  });
});

describe('a stop', () => {
  test('takes effect once, whatever answers are lost', async () => {
    for (const fates of [[], ['lost'], ['failed', 'lost']] as Fate[][]) {
      const { of, value } = await readyJob(fates);
      const job = { ...of, home: 'prod/web' };
      const result = await stopJob(job, { why: 'cancelled', by: 'ann' });
      expect(result).toMatchObject({ kind: 'stopped', stage: { why: 'cancelled', by: 'ann', rev: 2 } });
      expect(value(keys.stage)).toMatchObject({ kind: 'stopped', rev: 2 });
      expect(await stopJob(job, { why: 'expired' })).toMatchObject({
        kind: 'already',
        stage: { why: 'cancelled' },
      });
      expect(await stopJob(job, { why: 'cancelled', kill: true })).toMatchObject({
        stage: { kill: true, rev: 3 },
      });
    }
  });

  test('of a job that is not there changes nothing', async () => {
    const { of } = await readyJob();
    expect(await stopJob({ ...of, home: 'prod/db' }, { why: 'gone' })).toEqual({ kind: 'none' });
  });
});

describe('a view', () => {
  test('of a job that is not there is none', async () => {
    const { of } = await readyJob();
    expect(await viewJob({ ...of, ref: { ...ref, id: 'other' } }, { signal })).toBeUndefined();
  });

  test('shows each target once, and one whose document is no such thing with the reason', async () => {
    const { of, put } = await readyJob();
    put(keys.node('web02'), 'garbage');
    put(keys.node('web0'), encodeTarget({ rev: 0, state: 'good' }));
    const view = await viewJob(of, { signal });
    expect(view?.targets.map(({ node, state }) => [node, state])).toEqual([
      ['web01', 'queued'],
      ['web02', 'unreadable'],
      ['web03', 'queued'],
      ['web04', 'offline'],
    ]);
    expect(view?.targets[1]?.fault).toContain(keys.node('web02'));
    expect(view).toMatchObject({ isOver: false, counts: { queued: 2, unreadable: 1, offline: 1 } });
  });

  test('is refused where its parts may not be read', async () => {
    const { of } = await readyJob([], (key) => key === keys.stage);
    await expect(viewJob(of, { signal })).rejects.toMatchObject({ code: 'forbidden' });
  });
});

test('the pause after a refusal grows, with chance, up to a bound by how many contend', () => {
  fc.assert(
    fc.property(
      fc.nat({ max: 100 }),
      fc.nat({ max: 60_000 }),
      fc.double({ min: 0, max: 0.99, noNaN: true }),
      (n, others, chance) => {
        const most = Math.min(50 * 2 ** n, Math.max(50, 8 * others));
        expect(jitterMs(n, others, () => chance)).toBeCloseTo(chance * most, 3);
      },
    ),
  );
  expect(jitterMs(0, 1_000, () => 1)).toBe(50);
  expect(jitterMs(20, 1_000, () => 1)).toBe(8_000);
});

test('each refusal in a row doubles the pause before the next try', async () => {
  const { of } = await readyJob();
  const pauses: number[] = [];
  const clock = { ...of.deps.clock, sleep: (ms: number) => Promise.resolve(void pauses.push(ms)) };
  let tries = 0;
  const steps = [{ means: 'stage', operation: { verb: 'check-index', key: 'p/none', index: 7 } }] as const;
  const plan = (): Promise<Plan<string>> =>
    Promise.resolve(
      (tries += 1) > 4 ? { kind: 'over', value: 'over' } : { kind: 'send', steps, value: '', others: 1_000 },
    );
  await contend({ ...of, deps: { clock, random: () => 1 }, rule: '' }, plan);
  expect(pauses).toEqual([100, 200, 400, 800]);
});

test('those contend that have not ended yet, of the stages that are open', async () => {
  const { target } = await readyJob();
  expect(contendersOf(target())).toBe(1);
  const later = {
    ...target(),
    stage: { index: 1, value: { rev: 2, kind: 'open', stage: 1, since: at } as const },
  };
  expect(contendersOf(later)).toBe(3);
  const stage = { index: 1, value: { rev: 0, kind: 'fill' } as const };
  expect(contendersOf({ ...target(), stage })).toBe(3);
});
