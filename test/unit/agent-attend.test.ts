// What an agent does about one request where the node's own word can't be written, or what is stored can't be read.
import { expect, onTestFinished, test } from 'vitest';
import { attend } from '../../src/agent/attend.ts';
import { digestOf } from '../../src/agent/task/digest.ts';
import type { Task } from '../../src/agent/task/definition.ts';
import { encodeRun } from '../../src/lock/records.ts';
import type { Attended, Attending } from '../../src/agent/attend.ts';
import type { Known } from '../../src/agent/known.ts';
import type { Runs, StartRequest } from '../../src/agent/runs.ts';
import { changing } from '../../src/agent/watched.ts';
import type { AgentWays } from '../../src/agent/ways.ts';
import type { Operation } from '../../src/consul/consul.ts';
import { RunlockError } from '../../src/errors.ts';
import type { RunEvent } from '../../src/events/events.ts';
import { encodeTarget } from '../../src/jobs/records.ts';
import { startJob } from '../../src/jobs/starter.ts';
import { at, nowMs, place, spec } from '../support/jobs.ts';
import { instant, memoryConsul } from '../support/memory-consul.ts';
import { eventually } from '../support/processes.ts';

const ref = { principal: 'ops', id: 'deploy-1' };
const { keys, requests } = place('p');

async function attending({ lastEnd = false, isAlive = false, mayWrite = true } = {}) {
  const memory = memoryConsul();
  const over = new AbortController();
  const { signal } = over;
  const events: RunEvent[] = [];
  const emit = (event: RunEvent) => void events.push(event);
  const host = { bootId: 'b', survivors: () => ({ pids: [], guarded: false }) };
  let ms = 0;
  const clock = {
    ...instant(nowMs).clock,
    monotonicMs: () => ms,
    sleep: async (forMs: number, options: { signal: AbortSignal }) => {
      await new Promise((resolve) => setImmediate(resolve));
      options.signal.throwIfAborted();
      ms += forMs;
    },
  };
  const deps = { random: () => 0.5, clock, host, emit } as unknown as AgentWays['deps'];
  const { task, params, home, pauseMs, until, by, nonce } = spec;
  const asked = {
    task,
    params,
    home,
    pauseMs,
    until,
    by,
    at,
    nonce,
    maxFailures: 0,
    offline: 'wait',
  } as const;
  await startJob(
    { consul: memory.consul, prefix: 'p', deps, signal },
    { ref, spec: asked, targets: [['web01', 0]] },
  );
  memory.put(keys.node('web01'), encodeTarget({ rev: 1, state: 'accepted', acceptedAt: at }));
  const refuse = (operations: readonly Operation[]) =>
    mayWrite
      ? memory.consul.transact(operations, { signal, rule: '' })
      : Promise.reject(new RunlockError('forbidden', 'no'));
  const consul = { ...memory.consul, transact: refuse };
  const shown = { name: task, groups: [home], allow: ['ops'], params: [], on: [], when: [], publish: [] };
  const known = changing({
    ...{
      place: { kind: 'registered', node: 'web01' },
      pause: undefined,
      serving: { kind: 'served' },
      failing: {},
    },
    files: {
      tasks: [
        {
          task: { name: task, params: [], command: ['true'] },
          shown,
          needsHealth: false,
          publish: [],
          during: [],
        },
      ],
      faults: [],
    },
  } as unknown as Known);
  const started: StartRequest[] = [];
  const runs = {
    isAlive: () => isAlive || started.length > 0,
    notBeforeMs: () => 0,
    lastEnd: () => (lastEnd && started.length === 0 ? { text: 'busy', isUnfit: false } : undefined),
    room: () => Promise.resolve(),
    start: (request: StartRequest) => void started.push(request),
    ended: () => new Promise(() => undefined),
    forget: () => undefined,
  } as unknown as Runs;
  const ways = {
    ...{ consul, deps, prefix: 'p', node: 'web01', known, runs, state: { path: '/dev/null/state' } },
    refresh: () => Promise.resolve({ tasks: [], faults: [] }),
    posting: { uid: 0 },
  } as unknown as AgentWays;
  const unreadable: string[] = [];
  const request = changing<Attended>({ ref, order: 1, older: 0 });
  const given: Attending = {
    ...{ ways, runs, request },
    watches: { take: () => false, give: () => undefined },
    looks: { inside: (act) => act() },
    read: () => undefined,
    unreadable: (why) => void unreadable.push(why),
  };
  return {
    ...{ memory, events, started, unreadable },
    begin: () => {
      const work = attend(given, signal).catch(() => undefined);
      onTestFinished(() => over.abort());
      return work;
    },
  };
}

test('why a try came to nothing is told; the next goes on, also where that can not be written', async () => {
  for (const mayWrite of [true, false]) {
    const { begin, started, memory } = await attending({ lastEnd: true, mayWrite });
    void begin();
    await eventually(() => expect(started).toHaveLength(1));
    const told = memory.value(keys.node('web01')) as { readonly why?: string };
    expect(told.why?.includes('busy') === true).toBe(mayWrite);
  }
});

test('a request that can not be read is left alone, but not while its process lives', async () => {
  const idle = await attending();
  idle.memory.put(requests.spec(ref.id), 'junk');
  await idle.begin();
  expect(idle.unreadable).toEqual([expect.stringContaining(requests.spec(ref.id))]);
  const busy = await attending({ isAlive: true });
  busy.memory.put(requests.spec(ref.id), 'junk');
  void busy.begin();
  await eventually(() => expect(busy.events.map(({ event }) => event)).toEqual(['agent-part-failed']));
  expect(busy.unreadable).toEqual([]);
});

test.each([
  ['began after its stage was opened: nothing starts', 1, 0],
  ['began before: it has its own', -1, 1],
])('a request for which a run by hand %s', async (_, later, starts) => {
  const { begin, started, memory } = await attending();
  const what = { task: { name: spec.task } as Task, words: ['true'], uid: 0 };
  const stageIndex = (await memory.consul.get(keys.stage, { signal: AbortSignal.timeout(9_000) })).entry
    ?.modifyIndex;
  // The claim that the record tells of is as old as that.
  for (let i = 0; i < 3; i += 1) memory.put('p/other', `${i}`);
  const run = { node: 'web01', run: 'cron', outcome: 'succeeded', command: 'true', slot: 0, endedAt: at };
  const record = { ...run, waitedMs: 0, ranMs: 0, outcome: 'succeeded' } as const;
  const task = { digest: digestOf(what), from: (stageIndex ?? 0) + later };
  memory.put(`p/${spec.home}/.runs/web01`, encodeRun({ ...record, task }));
  const work = begin();
  if (starts === 0) await work;
  else await eventually(() => expect(started).toHaveLength(1));
  expect(started).toHaveLength(starts);
  const document = memory.value(keys.node('web01')) as object;
  expect(document).toMatchObject(
    starts === 0 ? { state: 'good', run: 'cron', served: true } : { state: 'accepted' },
  );
});
