// Who reads a log through Consul: what the node's agent answers, whom it answers nothing, and that nothing is left.
import { appendFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { toReaders } from '../../src/agent/inbox.ts';
import { logReaders, paced } from '../../src/agent/log-readers.ts';
import type { AgentWays } from '../../src/agent/ways.ts';
import type { LogRequest } from '../../src/jobs/documents.ts';
import { send } from '../../src/consul/txn.ts';
import { acceptTarget, endTarget, stopJob } from '../../src/jobs/end.ts';
import { logPieceKey, requestKeys } from '../../src/jobs/keys.ts';
import { answerPiece, askForPiece } from '../../src/jobs/logs.ts';
import { encodeLogRequest } from '../../src/jobs/records.ts';
import { startJob } from '../../src/jobs/starter.ts';
import { at, spec } from '../support/jobs.ts';
import { manualClock } from '../support/manual-clock.ts';
import { memoryConsul } from '../support/memory-consul.ts';
import { eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';

const ref = { principal: 'ops', id: 'deploy-1' };
const node = 'web0';
const requests = requestKeys('p', 'ops');
const READER = 'reader000001';
const keyOf = (reader = READER) => ({
  request: requests.logRequest(node, reader),
  piece: logPieceKey({ prefix: 'p', home: spec.home, ref }, { node, reader }),
});

interface Task {
  readonly allow?: readonly string[];
  readonly tail?: boolean;
  readonly name?: string;
  readonly mostBytes?: number;
}

async function agentWithLog({ allow = ['ops'], tail = true, name = spec.task, mostBytes }: Task = {}) {
  const file = `${stage().folder}/j.log`;
  const time = manualClock();
  const memory = memoryConsul();
  memory.openSession('s1');
  const stop = new AbortController();
  const { signal } = stop;
  const deps = { clock: time.clock, random: () => 0.5 };
  const of = { consul: memory.consul, prefix: 'p', deps, ref, signal, node };
  const { task, params, home, pauseMs, until, by, nonce } = spec;
  await startJob(of, {
    ref,
    spec: { task, params, home, pauseMs, until, by, nonce, at, maxFailures: 0, offline: 'skip' },
    targets: [[node, 0]],
  });
  await acceptTarget(of);
  let isAlive = false;
  const files = { tasks: [{ task: { name, tail }, shown: { allow } }], faults: [] };
  const ways = {
    ...{ consul: memory.consul, deps, prefix: 'p', node },
    known: { look: () => ({ value: { files }, change: 0 }) },
    presence: { session: 's1' },
    runs: { isAlive: () => isAlive, logOf: () => file },
    posting: { uid: process.getuid?.() ?? 0 },
  } as unknown as AgentWays;
  const paces: number[] = [];
  const pace = () => Promise.resolve(void paces.push(1));
  const readers = logReaders(
    { ways, principal: 'ops', pace, ...(mostBytes !== undefined && { mostBytes }) },
    signal,
  );
  const hear = () => {
    const { entries } = memory.store();
    readers.hear(toReaders(requests.logsPrefix(node), entries));
  };
  const ask = (more: Partial<LogRequest> = {}, reader = READER) => {
    const asked = { id: ref.id, nonce: spec.nonce, home: spec.home, chunk: 0, piece: 0, ...more };
    memory.put(keyOf(reader).request, encodeLogRequest(asked));
    hear();
  };
  const piece = (reader = READER) => memory.value(keyOf(reader).piece) as Record<string, unknown> | null;
  const answer = (n: number, reader = READER) =>
    eventually(() => {
      expect(piece(reader)).toMatchObject({ piece: n });
      return piece(reader) ?? {};
    });
  /** Time goes on until then: the agent also waits for the disk. */
  const passing = <T>(holds: () => T, stepMs = 500) =>
    eventually(async () => {
      await time.pass(stepMs);
      return holds();
    });
  const later = (n: number) =>
    passing(() => {
      expect(piece()).toMatchObject({ piece: n });
      return piece() ?? {};
    });
  const text = async (n: number) => Buffer.from((await answer(n))['bytes'] as string, 'base64').toString();
  return {
    ...{ ...memory, ...time, of, file, stop, hear, ask, piece, answer, text, paces, readers, later, passing },
    lives: (now: boolean) => (isAlive = now),
    end: () => endTarget(of, { end: () => ({ state: 'good', endedAt: at }) }),
    left: () => memory.keys().filter((key) => key.includes('/.logs/')),
  };
}

const KIB_48 = 49_152;

describe('a reader gets', () => {
  test('a piece for each that it asks for, of 48 KiB at most, the last one marked', async () => {
    const agent = await agentWithLog();
    writeFileSync(agent.file, `${'x'.repeat(KIB_48)}end\n`);
    agent.ask();
    expect(await agent.answer(0)).toMatchObject({ kind: 'bytes', from: 0, size: KIB_48 + 4 });
    expect(agent.piece()?.['ended']).toBeUndefined();
    agent.ask({ piece: 1, from: KIB_48 });
    expect(await agent.text(1)).toBe('end\n');
    expect(agent.piece()).toMatchObject({ from: KIB_48, ended: true });
    expect(agent.paces).toHaveLength(2);
    // It is the session's, so it goes with the agent.
    agent.endSession('s1');
    expect(agent.left()).toEqual([keyOf().request]);
  });

  test('what a run writes while it is followed, and its end only when the target has ended', async () => {
    const agent = await agentWithLog();
    const follow = true as const;
    agent.lives(true);
    agent.ask({ follow });
    // There is no file yet, but somebody who answers.
    expect(await agent.answer(0)).toMatchObject({ bytes: '', size: 0 });
    agent.ask({ follow, piece: 1, from: 0 });
    await agent.settle();
    writeFileSync(agent.file, 'one\n');
    await agent.later(1);
    expect(await agent.text(1)).toBe('one\n');
    expect(agent.piece()?.['ended']).toBeUndefined();
    agent.ask({ follow, piece: 2, from: 4 });
    // Nothing new: it answers all the same, so that who asks knows that somebody is there.
    const askedMs = agent.clock.monotonicMs();
    expect(await agent.later(2)).toMatchObject({ bytes: '' });
    expect(agent.clock.monotonicMs() - askedMs).toBeGreaterThanOrEqual(10_000);
    // Its process has gone; another one may come until the target has ended.
    agent.lives(false);
    agent.ask({ follow, piece: 3, from: 4 });
    const unended = await agent.later(3);
    expect(unended).toMatchObject({ bytes: '' });
    expect(unended['ended']).toBeUndefined();
    appendFileSync(agent.file, 'two\n');
    await agent.end();
    agent.ask({ follow, piece: 4, from: 4 });
    expect(await agent.text(4)).toBe('two\n');
    agent.ask({ follow, piece: 5, from: 8 });
    expect(await agent.later(5)).toMatchObject({ bytes: '', ended: true });
  });

  test('the reason if there is no log, also when who follows has waited for one', async () => {
    const agent = await agentWithLog();
    agent.ask();
    expect(await agent.answer(0)).toMatchObject({
      kind: 'refused',
      why: expect.stringMatching(/j\.log is not there/) as string,
    });
    await agent.end();
    agent.ask({ piece: 1, follow: true });
    expect(await agent.answer(1)).toMatchObject({ kind: 'refused' });
  });

  test.each<[string, Task, Partial<LogRequest>, RegExp]>([
    ['tail = false', { tail: false }, {}, /has tail = false, so its output stays on the node/],
    ['another principal', { allow: ['ci'] }, {}, /does not allow ops any more/],
    ['no such task', { name: 'other' }, {}, /no task chef any more/],
    ['another job of that id', {}, { nonce: 'n2' }, /another job has this id/],
  ])('nothing, but the reason: %s', async (_, task, request, why) => {
    const agent = await agentWithLog(task);
    writeFileSync(agent.file, 'secret\n');
    agent.ask(request);
    expect(await agent.answer(0)).toEqual({
      ...{ v: 1, kind: 'refused', piece: 0 },
      why: expect.stringMatching(why) as string,
    });
  });
});

describe('nothing is left', () => {
  test('of a reader that has left, even if its answer was not read', async () => {
    const agent = await agentWithLog();
    writeFileSync(agent.file, 'x\n');
    agent.ask();
    await agent.answer(0);
    agent.remove(keyOf().request);
    agent.hear();
    await eventually(() => expect(agent.left()).toEqual([]));
    await agent.readers.ended();
  });

  test('of a reader that has asked for nothing for 30 s; one that goes on asking stays', async () => {
    const agent = await agentWithLog();
    writeFileSync(agent.file, 'x\n');
    agent.ask();
    await agent.answer(0);
    await agent.settle();
    await agent.pass(29_000);
    agent.ask({ piece: 1, from: 0 });
    await agent.answer(1);
    expect(agent.left()).toHaveLength(2);
    await agent.passing(() => expect(agent.left()).toEqual([]), 5_000);
    expect(agent.clock.monotonicMs()).toBeGreaterThanOrEqual(59_000);
  });

  test.each([
    ['what is no request', 'rubbish'],
    [
      'a request for no job of this node',
      encodeLogRequest({ id: 'x', nonce: 'n', home: spec.home, chunk: 0, piece: 0 }),
    ],
    [
      'another group than the job’s',
      encodeLogRequest({ id: ref.id, nonce: 'n1', home: 'prod/db', chunk: 0, piece: 0 }),
    ],
  ])('of %s', async (_, value) => {
    const agent = await agentWithLog();
    writeFileSync(agent.file, 'x\n');
    agent.put(keyOf().request, value);
    agent.hear();
    await eventually(() => expect(agent.left()).toEqual([]));
  });

  test('of an answer that comes after its reader, or its job, has gone', async () => {
    const agent = await agentWithLog();
    agent.lives(true);
    agent.ask({ follow: true, piece: 1, from: 0 });
    await agent.settle();
    // The agent waits for output; its inbox has not told it yet.
    agent.remove(keyOf().request);
    writeFileSync(agent.file, 'late\n');
    await agent.passing(() =>
      expect(agent.sent().some((steps) => steps.some(({ verb }) => verb === 'lock'))).toBe(true),
    );
    expect(agent.left()).toEqual([]);
    agent.hear();

    await stopJob({ ...agent.of, home: spec.home }, { why: 'cancelled', by: 'x' });
    agent.ask({ follow: true, piece: 1, from: 5 }, 'reader000002');
    for (const key of agent.keys().filter((each) => !each.includes('/.logs/'))) agent.remove(key);
    await agent.passing(() => expect(agent.left()).toEqual([]));
  });
});

test('eight readers are answered at once, the others when one of them has left', async () => {
  const agent = await agentWithLog();
  writeFileSync(agent.file, 'x\n');
  const names = Array.from({ length: 9 }, (_, i) => `reader00000${i}`);
  for (const name of names) agent.ask({}, name);
  for (const name of names.slice(0, 8)) await agent.answer(0, name);
  await agent.settle();
  expect(agent.piece(names[8])).toBeNull();
  agent.remove(keyOf(names[0]).request);
  agent.hear();
  await agent.answer(0, names[8]);
});

test('a reader gets so many bytes in all', async () => {
  const agent = await agentWithLog({ mostBytes: 300_000 });
  writeFileSync(agent.file, 'x'.repeat(KIB_48));
  let piece = 0;
  for (;;) {
    agent.ask({ piece, from: 0 });
    const { kind, why } = await agent.answer(piece);
    if (kind === 'refused') {
      expect(why).toContain('300,000 bytes');
      break;
    }
    piece += 1;
  }
  expect(piece).toBe(5);
});

test('pieces of a node are a tenth of a second apart, whoever reads', async () => {
  const { clock, pass } = manualClock();
  const { signal } = new AbortController();
  const pace = paced(clock);
  let sent = 0;
  for (let i = 0; i < 5; i += 1) void pace(signal).then(() => (sent += 1));
  await pass(0);
  expect(sent).toBe(1);
  await pass(99);
  expect(sent).toBe(1);
  await pass(1);
  expect(sent).toBe(2);
  await pass(300);
  expect(sent).toBe(5);
});

test('only names of readers are readers, the first one first', () => {
  const entry = (key: string, createIndex: number) => ({
    key: `f/${key}`,
    createIndex,
    modifyIndex: 9,
    value: '',
  });
  const entries = [entry('bbbbbbbb', 2), entry('aaaaaaaa', 3), entry('short', 1), entry('a/aaaaaaaa', 1)];
  expect(toReaders('f/', entries).map(({ reader }) => reader)).toEqual(['bbbbbbbb', 'aaaaaaaa']);
});

test('nobody asks or answers for a target whose document has changed or gone', async () => {
  const { consul, openSession, put, remove, store } = memoryConsul();
  openSession('s1');
  const options = { signal: new AbortController().signal, rule: '' };
  const seen = (key: string) => {
    put(key, `${store().index}`);
    return { key, index: store().index };
  };
  const piece = { kind: 'refused', piece: 0, why: 'x' } as const;
  const request = { id: 'j', nonce: 'n', home: 'h', chunk: 0, piece: 0 };
  for (const change of [() => put('doc', 'other'), () => remove('doc')]) {
    const [document, asked] = [seen('doc'), seen('request')];
    change();
    const answer = answerPiece(document, asked, { key: 'piece', piece, session: 's1' });
    for (const steps of [answer, askForPiece(document, 'new', request)])
      expect(await send(consul, steps, options)).toMatchObject({ kind: 'refused', obstacle: 'target' });
  }
  expect(store().entries.map(({ key }) => key)).toEqual(['request']);
});
