// Live output: when a run writes its last line for who watches its job, and when who watches says so.
import { describe, expect, test } from 'vitest';
import type { Consul } from '../../src/consul/consul.ts';
import { createAnnouncer } from '../../src/jobs/announce.ts';
import { lookAt } from '../../src/jobs/read.ts';
import { encodeStage, encodeTail, encodeTarget } from '../../src/jobs/records.ts';
import { startJob } from '../../src/jobs/starter.ts';
import { final, startTarget } from '../../src/jobs/transactions.ts';
import type { SeenTarget } from '../../src/jobs/transactions.ts';
import { viewJob } from '../../src/jobs/view.ts';
import type { JobView } from '../../src/jobs/view.ts';
import type { RunStep } from '../../src/lock/transactions.ts';
import { followStage, watchedUntilMs } from '../../src/runner/job-stage.ts';
import { liveLine } from '../../src/runner/job-tail.ts';
import { reportJob } from '../../src/view/job.ts';
import { at, nowMs, place, spec } from '../support/jobs.ts';
import { manualClock } from '../support/manual-clock.ts';
import { memoryConsul } from '../support/memory-consul.ts';
import type { Fate } from '../support/memory-consul.ts';

const ref = { principal: 'ops', id: 'deploy-1' };
const { keys } = place('p');
const MINUTE = 60_000;

async function liveJob({ targets = 1, fates = [] as Fate[], hidden = ' ' } = {}) {
  let begun = Infinity;
  const time = manualClock();
  const memory = memoryConsul(
    (sent) => fates[sent - begun] ?? 'answered',
    (key) => key.includes(hidden),
  );
  const deps = { clock: time.clock, random: () => 0.5 };
  const stop = new AbortController();
  const of = { consul: memory.consul, prefix: 'p', deps, ref, signal: stop.signal };
  const { task, params, home, pauseMs, until, by, nonce } = spec;
  await startJob(of, {
    ref,
    spec: { task, params, home, pauseMs, until, by, nonce, at, maxFailures: 0, offline: 'skip' },
    targets: Array.from({ length: targets }, (_, i) => [`web${i}`, 0] as const),
  });
  const target = async (): Promise<SeenTarget> => {
    const look = await lookAt(of, { node: 'web0' }, of);
    if (look.kind !== 'target') throw new Error(look.kind);
    return look.target;
  };
  const send = async (stepsOf: (seen: SeenTarget) => readonly RunStep[]) => {
    const steps = stepsOf(await target());
    await memory.consul.transact(
      steps.map(({ operation }) => operation),
      of,
    );
  };
  const run = () => send((seen) => startTarget(seen, { run: 'r1', bootId: 'b', at }));
  const view = async () => (await viewJob(of, of)) as JobView;
  const begin = () => void (begun = memory.sent().length);
  return { ...memory, ...time, of, stop, send, run, view, begin };
}

const run = { node: 'web0', run: 'r1', home: spec.home, stateFolder: '/s', lastLine: () => undefined };

/** A run of a target that is running. */
async function liveRun({ slots = 1, ...options }: Parameters<typeof liveJob>[0] & { slots?: number } = {}) {
  const job = await liveJob(options);
  await job.run();
  job.begin();
  const live = liveLine({ of: { ...job.of, ...run }, slots, signal: job.stop.signal });
  let written = job.sent().length;
  /** Lines that were sent since the last call. */
  const lines = () => {
    const news = job.sent().slice(written);
    written = job.sent().length;
    return news
      .filter((steps) => steps.some(({ verb }) => verb === 'set'))
      .map((steps) => {
        expect(steps.map(({ verb, key }) => [verb, key])).toEqual([
          ['check-index', keys.node('web0')],
          ['set', keys.tail('web0')],
        ]);
        return (JSON.parse((steps[1] as { value: string }).value) as { line: string }).line;
      });
  };
  return { ...job, live, lines, hear: (line: string) => (live.hear(line), job.settle()) };
}

describe('a run', () => {
  test('writes nothing while nobody watches, and what it last heard once somebody does', async () => {
    const { live, lines, hear, settle } = await liveRun();
    live.begin();
    await hear('one');
    await hear('two');
    expect(lines()).toEqual([]);
    live.watched(nowMs + MINUTE);
    await settle();
    expect(lines()).toEqual(['two']);
  });

  test('writes nothing before its command has begun', async () => {
    const { live, lines, hear, settle } = await liveRun();
    live.watched(nowMs + MINUTE);
    await hear('one');
    expect(lines()).toEqual([]);
    live.begin();
    await settle();
    expect(lines()).toEqual(['one']);
  });

  test('writes once in two seconds, the newest line, the same one never again', async () => {
    const { live, lines, hear, pass } = await liveRun();
    live.watched(nowMs + MINUTE);
    live.begin();
    for (const line of ['one', 'two', 'three']) await hear(line);
    expect(lines()).toEqual(['one']);
    await pass(1_999);
    expect(lines()).toEqual([]);
    await pass(1);
    expect(lines()).toEqual(['three']);
    await pass(10_000);
    await hear('three');
    expect(lines()).toEqual([]);
    await hear('x'.repeat(300));
    expect(lines()).toEqual(['x'.repeat(200)]);
  });

  test.each([
    [60, 100, 3_000],
    [1_000, 100, 5_000],
  ])(
    'is one of those that can be under way at once: %i slots, %i targets, %i ms',
    async (slots, targets, ms) => {
      const { live, lines, hear, pass } = await liveRun({ slots, targets });
      live.watched(nowMs + MINUTE);
      live.begin();
      await hear('one');
      await hear('two');
      await pass(ms - 1);
      expect(lines()).toEqual(['one']);
      await pass(1);
      expect(lines()).toEqual(['two']);
    },
  );

  test('writes no more once nobody watches, the watch is past its end, or the run has ended', async () => {
    const { live, lines, hear, pass, settle, stop } = await liveRun();
    live.begin();
    live.watched(nowMs + 5_000);
    await hear('one');
    live.watched(0);
    await pass(2_000);
    await hear('two');
    expect(lines()).toEqual(['one']);
    live.watched(nowMs + 5_000);
    await settle();
    expect(lines()).toEqual(['two']);
    await pass(3_000);
    await hear('three');
    expect(lines()).toEqual([]);
    stop.abort();
    live.watched(nowMs + MINUTE);
    await settle();
    expect(lines()).toEqual([]);
  });

  test('whose target has ended leaves nothing behind', async () => {
    const { live, lines, hear, send, pass, keys: stored } = await liveRun();
    live.begin();
    live.watched(nowMs + MINUTE);
    await hear('one');
    await send((seen) => final(seen, { end: { state: 'lost', endedAt: at }, nowMs }));
    expect(stored()).not.toContain(keys.tail('web0'));
    lines();
    await pass(2_000);
    await hear('two');
    // Refused; then it looks, and writes no more.
    expect(lines()).toEqual(['two']);
    for (let i = 0; i < 3; i += 1) await pass(MINUTE);
    live.watched(nowMs + 10 * MINUTE);
    await hear('three');
    expect(lines()).toEqual([]);
    expect(stored()).not.toContain(keys.tail('web0'));
  });

  test('tries again after a fault, later each time', async () => {
    const { live, lines, hear, pass } = await liveRun({ fates: ['failed', 'failed', 'answered'] });
    live.begin();
    live.watched(nowMs + MINUTE);
    await hear('one');
    await pass(1_500);
    await pass(2_999);
    expect(lines()).toEqual(['one', 'one']);
    await pass(1);
    expect(lines()).toEqual(['one']);
    await pass(MINUTE);
    expect(lines()).toEqual([]);
  });

  test('hears at once who watches already, and of the stage only what is new', async () => {
    const job = await liveJob();
    const until = new Date(nowMs + MINUTE).toISOString();
    job.put(keys.watched('w'), JSON.stringify({ v: 1, until }));
    // The stage changes after that.
    job.put(keys.stage, encodeStage({ rev: 7, kind: 'open', stage: 0, since: at }));
    const { entry } = await job.consul.get(keys.stage, job.of);
    const heard: unknown[] = [];
    const list: Consul['list'] = (prefix, { index = 0 }) => {
      if (index < job.store().index) return job.consul.list(prefix, job.of);
      if (heard.length > 1) job.stop.abort();
      else job.put(keys.stage, encodeStage({ rev: 8, kind: 'done', at }));
      return job.consul.list(prefix, job.of);
    };
    const of = { ...job.of, ...run, consul: { ...job.consul, list } };
    const watched = (untilMs: number) => heard.push(untilMs);
    await followStage(
      job.of.deps,
      { of, from: entry?.modifyIndex ?? 0, signal: job.of.signal, watched },
      (now) => {
        heard.push(now?.kind);
        return Promise.resolve();
      },
    );
    expect(heard.slice(0, 3)).toEqual([nowMs + MINUTE, nowMs + MINUTE, 'done']);
  });

  test('hears of the last of those who watch; a mark that can not be read is nobody’s', () => {
    const mark = (value: object) => ({ ...{ key: 'k', value: JSON.stringify(value), modifyIndex: 1 } });
    const marks = [
      mark({ v: 1, until: new Date(5_000).toISOString() }),
      mark({ v: 1, until: new Date(9_000).toISOString() }),
      mark({ v: 9, until: new Date(20_000).toISOString() }),
      mark({ v: 1, until: 'soon' }),
    ];
    expect(watchedUntilMs(marks as unknown as Parameters<typeof watchedUntilMs>[0])).toBe(9_000);
    expect(watchedUntilMs([])).toBe(0);
  });
});

describe('who watches', () => {
  const marks = ({ keys: stored, value }: Awaited<ReturnType<typeof liveJob>>) =>
    stored()
      .filter((key) => key.startsWith(keys.watched('')))
      .map((key) => (value(key) as { until: string }).until);
  const inMs = (ms: number) => new Date(nowMs + ms).toISOString();

  test('says so while something runs, again after 30 s, and no more at its end', async () => {
    const job = await liveJob();
    const announcer = createAnnouncer(job.of);
    await announcer.look(await job.view());
    expect(marks(job)).toEqual([]);
    await job.run();
    await announcer.look(await job.view());
    expect(marks(job)).toEqual([inMs(90_000)]);
    await job.pass(29_999);
    await announcer.look(await job.view());
    expect(marks(job)).toEqual([inMs(90_000)]);
    await job.pass(1);
    await announcer.look(await job.view());
    expect(marks(job)).toEqual([inMs(120_000)]);
    job.stop.abort();
    await announcer.leave();
    expect(marks(job)).toEqual([]);
  });

  test('says nothing of a job that has moved on since the look, or that may not be written', async () => {
    const job = await liveJob();
    await job.run();
    const before = await job.view();
    await job.send((seen) => final(seen, { end: { state: 'good', endedAt: at }, nowMs }));
    await createAnnouncer(job.of).look(before);
    expect(marks(job)).toEqual([]);

    const other = await liveJob();
    await other.run();
    let asked = 0;
    const { RunlockError } = await import('../../src/errors.ts');
    const consul = {
      ...other.of.consul,
      transact: () => {
        asked += 1;
        return Promise.reject(new RunlockError('forbidden', 'no right'));
      },
    };
    const announcer = createAnnouncer({ ...other.of, consul });
    const seen = await other.view();
    await announcer.look(seen);
    await other.pass(MINUTE);
    await announcer.look(seen);
    await announcer.leave();
    expect(asked).toBe(1);
  });

  test('tries again at the next look when Consul did not answer, and removes what may be there', async () => {
    const job = await liveJob({ fates: ['failed', 'lost'] });
    await job.run();
    job.begin();
    const announcer = createAnnouncer(job.of);
    await announcer.look(await job.view());
    expect(marks(job)).toEqual([]);
    await announcer.look(await job.view());
    expect(marks(job)).toHaveLength(1);
    await announcer.leave();
    expect(marks(job)).toEqual([]);
  });

  test('sees the line of a run that is under way, cut to what people read, and no other', async () => {
    const job = await liveJob({ targets: 2 });
    const lastLines = async () =>
      reportJob(await job.view(), { prefix: 'p', nowMs }).targets.map(({ lastLine }) => lastLine);
    job.put(keys.tail('web0'), encodeTail({ line: 'x'.repeat(300) }));
    expect(await lastLines()).toEqual([undefined, undefined]);
    await job.run();
    expect(await lastLines()).toEqual(['x'.repeat(200), undefined]);
    job.put(keys.node('web0'), encodeTarget({ rev: 3, state: 'rebooting', run: 'r1' }));
    expect(await lastLines()).toEqual([undefined, undefined]);
    job.put(keys.node('web0'), encodeTarget({ rev: 4, state: 'running', run: 'r1' }));
    job.put(keys.tail('web0'), 'rubbish');
    expect(await lastLines()).toEqual([undefined, undefined]);
    expect((await job.view()).targets[0]).not.toHaveProperty('fault');
  });
});
