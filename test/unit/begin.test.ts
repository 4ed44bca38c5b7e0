// The last transaction before a command: an answer that a stopped run hears too late proves nothing.
import { expect, test } from 'vitest';
import type { Answer } from '../../src/consul/consul.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { begin } from '../../src/runner/begin.ts';
import type { ExecDeps } from '../../src/runner/options.ts';
import type { HeldSlots } from '../../src/runner/slots.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const keys = groupKeys('runlock', 'web');
const { signal } = new AbortController();

/** Starts with answers that take so long; counts how often the transaction was sent. */
async function start(...answersMs: number[]) {
  let nowMs = 0;
  let sent = 0;
  const transact = (): Promise<Answer> => {
    nowMs += answersMs[sent++] ?? 0;
    return Promise.resolve({ kind: 'done', entries: [] });
  };
  const clock = { now: () => nowMs, monotonicMs: () => nowMs, sleep: () => Promise.resolve() };
  const deps = {
    clock,
    random: () => 0,
    consul: fakeConsul({ transact, readAll: () => Promise.resolve([]) }),
  };
  const context = { keys, run: { node: 'web01', id: 'r1' } };
  const holding = { context, session: { id: 's1' }, slot: 0, owner: { index: 7, claim: { run: 'r1' } } };
  const lease = { over: signal, checkDeadline: () => undefined, holding: () => holding };
  const slots = [{ lease, grant: holding, waitedMs: 0 }] as unknown as HeldSlots;
  const giveUp = () => Promise.reject(new Error('gave up'));
  const request = { parts: [], signal, giveUp };
  const { kind } = await begin(deps as unknown as ExecDeps, slots, request);
  return { kind, sent };
}

test('a run that was stopped while it was answered proves again that it has its slots', async () => {
  expect(await start(5_000)).toEqual({ kind: 'begun', sent: 1 });
  expect(await start(60_000, 10)).toEqual({ kind: 'begun', sent: 2 });
});
