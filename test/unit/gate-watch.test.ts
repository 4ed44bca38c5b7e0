// The watch on a gate while its run is in the queue: one look that is refused does not end it.
import { expect, test } from 'vitest';
import type { Waiting } from '../../src/platform/deps.ts';
import type { ExecDeps } from '../../src/runner/options.ts';
import { enterFromOutside } from '../../src/runner/outside.ts';
import type { RunGate } from '../../src/runner/gate-session.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { RunlockError } from '../../src/errors.ts';
import type { Verdict } from '../../src/gate/decide.ts';
import { untilClosed } from '../../src/gate/wait.ts';
import { fakeConsul } from '../support/fake-consul.ts';

const never = new AbortController().signal;
const refused = () => new RunlockError('forbidden', 'Consul refused the request');

const CLOSED: readonly Verdict[] = [
  {
    ...{ service: 'web', open: false, because: 'too-many-offline', total: 3, limit: 1 },
    ...{ ownInstances: 1, own: 'healthy', offline: [{ node: 'web02', id: 'web-1', why: 'ill' }] },
  },
];

// The watch was over for good, and a closed gate kept its healthy run before the sick one.
test('looks again after a refusal, later and later, and leaves the queue when the gate is closed', async () => {
  const pauses: number[] = [];
  const said: string[] = [];
  let watched = 0;
  const patience = new AbortController();
  const gate: Partial<RunGate> = {
    node: 'web01',
    waitOutside: () => Promise.resolve(undefined),
    untilClosed: () => {
      if (++watched <= 8) return Promise.reject(refused());
      patience.abort();
      return Promise.resolve(CLOSED);
    },
  };
  const deps: Partial<ExecDeps> = {
    emit: ({ event }) => void said.push(String(event)),
    random: () => 1,
    clock: {
      monotonicMs: () => 0,
      sleep: (ms: number) => {
        pauses.push(ms);
        return Promise.resolve();
      },
    } as Partial<ExecDeps['clock']> as ExecDeps['clock'],
  };
  const take = ({ signal }: Waiting) =>
    new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
    });
  const from = {
    ...{ run: 'r1', group: 'web', gate: gate as RunGate, conditions: undefined, starts: undefined },
    waiting: { signal: never, patience: patience.signal, either: patience.signal },
    record: {
      during: <T>(_: Waiting, wait: () => Promise<T>) => wait(),
      gone: () => Promise.resolve(),
    },
    take,
    leaveTurn: () => undefined,
  };
  const taken = await enterFromOutside(deps as ExecDeps, from);
  expect(taken).toEqual({ kind: 'closed', verdicts: CLOSED, missing: [] });
  expect(pauses).toEqual([2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
  expect(said.slice(-2)).toEqual(['gate-unwatched', 'gate-left-queue']);
});

test('a look that is refused leaves no question of its watch open', async () => {
  const open: AbortSignal[] = [];
  const health = ((service: string, { index, signal }: { index?: number; signal: AbortSignal }) => {
    if (index === undefined) return Promise.resolve({ entries: [], index: 7 });
    if (service === 'db') return Promise.reject(refused());
    open.push(signal);
    return new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
    });
  }) as Consul['health'];
  const clock = {
    monotonicMs: () => 0,
    // The first alone is over, after which it looks.
    sleep: (ms: number) => (ms === 1_000 ? Promise.resolve() : new Promise(() => undefined)),
  } as Partial<ExecDeps['clock']> as ExecDeps['clock'];
  const gate = {
    ...{ services: ['db', 'web'], node: 'web01', stableMs: 0, maxOffline: 1, allowUnknown: true },
    seenHere: new Set<string>(),
  };
  const effects = { consul: fakeConsul({ health }), deps: { clock, random: () => 0 } };
  await expect(untilClosed(effects, gate, never)).rejects.toMatchObject({ code: 'forbidden' });
  expect(open.map(({ aborted }) => aborted)).toEqual([true]);
});

test('an index that goes backwards is that of another store: the watch asks anew, without one', async () => {
  const asked: (number | undefined)[] = [];
  const stop = new AbortController();
  const health = ((_service: string, { index }: { index?: number }) => {
    asked.push(index);
    if (asked.length === 4) {
      stop.abort(new Error('enough'));
      return Promise.reject(stop.signal.reason as Error);
    }
    return Promise.resolve({ entries: [], index: index === 7 ? 3 : 7 });
  }) as Consul['health'];
  const clock = {
    monotonicMs: () => 0,
    sleep: (ms: number) => (ms === 1_000 ? Promise.resolve() : new Promise(() => undefined)),
  } as Partial<ExecDeps['clock']> as ExecDeps['clock'];
  const gate = {
    ...{ services: ['web'], node: 'web01', stableMs: 0, maxOffline: 1, allowUnknown: true },
    seenHere: new Set<string>(),
  };
  const effects = { consul: fakeConsul({ health }), deps: { clock, random: () => 0 } };
  await expect(untilClosed(effects, gate, stop.signal)).rejects.toThrow('enough');
  expect(asked.slice(0, 4)).toEqual([undefined, 7, undefined, 7]);
});
