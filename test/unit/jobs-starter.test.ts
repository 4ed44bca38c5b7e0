// Starting a job: whatever is lost and whoever starts it again, it is written once, and completely.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { stopped } from '../../src/jobs/stage.ts';
import { startJob } from '../../src/jobs/starter.ts';
import type { NewRequest, Target } from '../../src/jobs/starter.ts';
import { encodeSpec, encodeStage } from '../../src/jobs/records.ts';
import { viewJob } from '../../src/jobs/view.ts';
import { instant, memoryConsul } from '../support/memory-consul.ts';
import type { Fate, MemoryConsul } from '../support/memory-consul.ts';
import { nowMs, place, spec } from '../support/jobs.ts';

const ref = { principal: 'ops', id: 'deploy-1' };
const { task, params, home, maxFailures, offline, pauseMs, until, by, at, nonce } = spec;
const asked = { task, params, home, maxFailures, offline, pauseMs, until, by, at, nonce } as const;
type Asked = NewRequest['spec'];
const nodes = (count: number): Target[] =>
  Array.from({ length: count }, (_, i) => [`web${i}`, i === 0 ? 0 : i % 7 === 6 ? -1 : 1] as const);
const request = (targets: readonly Target[], more: Partial<Asked> = {}): NewRequest => ({
  ...{ ref, targets, spec: { ...asked, ...more } },
});
const starter = ({ consul }: MemoryConsul) => ({
  ...{ consul, prefix: 'p', deps: instant(nowMs), signal: new AbortController().signal },
});
const { keys, requests } = place('p');
const pointers = (memory: MemoryConsul) => memory.keys().filter((key) => key.includes('/inbox/'));

test('a start writes request, lists, pointers, and opens the first stage', async () => {
  const memory = memoryConsul();
  const said: string[] = [];
  const onFilled = (done: number, all: number) => said.push(`${done}/${all}`);
  const { job, isNew } = await startJob({ ...starter(memory), onFilled }, request(nodes(130)));
  expect(isNew).toBe(true);
  expect(job.stage.value).toMatchObject({ kind: 'open', stage: 0, rev: 1 });
  expect(job.spec.value).toMatchObject({ chunks: 3, filled: 3, stages: [1, 111] });
  expect(memory.value(keys.tally)).toMatchObject({ states: { offline: 18 } });
  expect(pointers(memory)).toHaveLength(112);
  expect(memory.value(requests.pointer('web129', ref.id))).toEqual({ v: 1, nonce: 'n1', chunk: 2 });
  expect(said).toEqual(['0/3', '1/3', '2/3', '3/3']);
  expect(memory.sent()).toHaveLength(5);
  const view = await viewJob({ ...starter(memory), ref }, { signal: new AbortController().signal });
  expect(view?.targets.map(({ node, stage }) => [node, stage])).toEqual(nodes(130));
  expect(view?.counts).toEqual({ queued: 112, offline: 18 });
});

test('whatever answers are lost, the same job stands at the end, and each list was written once', async () => {
  const fates = fc.array(fc.constantFrom<Fate>('answered', 'lost', 'failed'), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(fates, fc.integer({ min: 1, max: 150 }), async (drawn, count) => {
      const memory = memoryConsul((sent) => drawn[sent] ?? 'answered');
      const { job, isNew } = await startJob(starter(memory), request(nodes(count)));
      expect([isNew, job.stage.value.kind]).toEqual([true, 'open']);
      expect(job.spec.value.filled).toBe(job.spec.value.chunks);
      expect(job.stage.value.rev).toBe(1);
      expect(pointers(memory)).toHaveLength(nodes(count).filter(([, stage]) => stage >= 0).length);
    }),
    { numRuns: 60 },
  );
});

test('a starter that died is followed by the next, wherever it stopped', async () => {
  for (let steps = 0; steps <= 4; steps += 1) {
    const over = new AbortController();
    const memory = memoryConsul((sent) => {
      if (sent >= steps) over.abort();
      return sent < steps ? 'answered' : sent === steps ? 'failed' : 'answered';
    });
    const died = startJob({ ...starter(memory), signal: over.signal }, request(nodes(130)));
    await expect(died).rejects.toThrow();
    const later = request(nodes(130), { nonce: 'n2', by: 'bob@ci', at: '2026-03-02T12:00:00.000Z' });
    const { isNew, job } = await startJob(starter(memory), later);
    expect(isNew).toBe(steps === 0);
    expect(job.spec.value).toMatchObject({ filled: 3, nonce: steps === 0 ? 'n2' : 'n1' });
    expect(job.stage.value.kind).toBe('open');
  }
});

test('two starters at once make one job', async () => {
  const memory = memoryConsul();
  const both = await Promise.all(
    ['n1', 'n2'].map((nonce) => startJob(starter(memory), request(nodes(130), { nonce }))),
  );
  expect(both.filter(({ isNew }) => isNew)).toHaveLength(1);
  expect(both.map(({ job }) => job.stage.value.rev)).toEqual([1, 1]);
  expect(pointers(memory)).toHaveLength(112);
});

describe('a name that is taken is refused', () => {
  const others: [string, Partial<Asked>, string][] = [
    ['by another task', { task: 'puppet' }, 'task'],
    ['by other parameters', { params: { a: 'b' } }, 'params'],
    ['by another limit', { maxFailures: 1 }, 'maxFailures'],
    ['by one that changes nothing', { noop: true }, 'noop'],
  ];
  test.each(others)('%s', async (_, more, what) => {
    const memory = memoryConsul();
    await startJob(starter(memory), request(nodes(3)));
    await expect(startJob(starter(memory), request(nodes(3), more))).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringContaining(`other ${what}`) as string,
    });
  });

  test('by other targets', async () => {
    const memory = memoryConsul();
    await startJob(starter(memory), request([['web1', 0]]));
    const other = startJob(starter(memory), request([['web2', 0]]));
    await expect(other).rejects.toMatchObject({ code: 'usage' });
    await expect(other).rejects.toThrow(/other targets/);
  });

  test('by a job of another group', async () => {
    const memory = memoryConsul();
    await startJob(starter(memory), request(nodes(3)));
    await expect(startJob(starter(memory), request(nodes(3), { home: 'prod/db' }))).rejects.toThrow(
      /prod\/web/,
    );
  });

  test('but not by the same with its parameters in another order, and another end', async () => {
    const memory = memoryConsul();
    await startJob(starter(memory), request(nodes(3), { params: { a: '1', b: '2' } }));
    const params = { b: '2', a: '1' };
    const more = { nonce: 'n2', params, until: '2026-03-01T17:00:00.000Z', reason: 'again' };
    expect((await startJob(starter(memory), request(nodes(3), more))).isNew).toBe(false);
  });
});

test('a job that was stopped while it was written is followed, not filled', async () => {
  const stop = () => {
    const after = stopped({ rev: 0, kind: 'fill' }, { why: 'cancelled' }, nowMs);
    if (after) memory.put(keys.stage, encodeStage(after));
  };
  const memory: MemoryConsul = memoryConsul((sent) => {
    if (sent === 2) stop();
    return 'answered';
  });
  const { job } = await startJob(starter(memory), request(nodes(130)));
  expect(job.stage.value).toMatchObject({ kind: 'stopped', why: 'cancelled' });
  expect(job.spec.value.filled).toBe(1);
});

test('a job that is removed while it is written is not written again', async () => {
  const memory: MemoryConsul = memoryConsul((sent) => {
    if (sent === 1) for (const key of memory.keys()) memory.remove(key);
    return 'answered';
  });
  await expect(startJob(starter(memory), request(nodes(3)))).rejects.toMatchObject({ code: 'refused' });
  expect(memory.keys()).toEqual([]);
});

test('a retry is refused once the job before has changed', async () => {
  const memory = memoryConsul();
  memory.put('p/old/stage', 'over');
  const index = memory.store().index;
  const retry = (id: string) => ({
    ...request(nodes(3)),
    ...{ ref: { principal: 'ops', id }, retried: { key: 'p/old/stage', index } },
  });
  expect((await startJob(starter(memory), retry('r1'))).isNew).toBe(true);
  memory.put('p/old/stage', 'changed');
  await expect(startJob(starter(memory), retry('r2'))).rejects.toMatchObject({ code: 'refused' });
  memory.remove('p/old/stage');
  await expect(startJob(starter(memory), retry('r3'))).rejects.toMatchObject({ code: 'refused' });
});

test('without targets, with one twice, or with too many, nothing is written', async () => {
  const memory = memoryConsul();
  const twice: Target[] = [
    ['web1', 0],
    ['web1', 1],
  ];
  for (const targets of [[], twice, nodes(60_001), [['web1', 100]] as Target[]])
    await expect(startJob(starter(memory), request(targets))).rejects.toMatchObject({ code: 'usage' });
  expect(memory.keys()).toEqual([]);
});

test('a job of which a part was deleted by hand says which', async () => {
  const memory = memoryConsul();
  await startJob(starter(memory), request(nodes(3)));
  memory.remove(keys.tally);
  await expect(startJob(starter(memory), request(nodes(3)))).rejects.toThrow(keys.tally);
  memory.put(requests.spec(ref.id), encodeSpec({ ...spec, home: 'x' }).replace('"v":1', '"v":2'));
  await expect(startJob(starter(memory), request(nodes(3)))).rejects.toThrow(/newer runlock/);
});
