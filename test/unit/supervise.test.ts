// A run under leases and a gate that do as the test says: what it passes on, and what it puts back.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { ExecDeps } from '../../src/runner/options.ts';
import { judgeRun } from '../../src/runner/gated.ts';
import type { Gated } from '../../src/runner/gated.ts';
import type { RunGate } from '../../src/runner/gate-session.ts';
import { NO_NOTE } from '../../src/runner/run-note.ts';
import { firstOver, hear } from '../../src/runner/slots.ts';
import type { HeldSlots } from '../../src/runner/slots.ts';
import { superviseRun } from '../../src/runner/supervise.ts';
import * as keys from '../../src/runner/terminal-keys.ts';
import type { Spare } from '../../src/process/guard/guard.ts';
import { newRun } from '../../src/process/process-tree.ts';
import type { SignalSource, StopSignal } from '../../src/platform/signals.ts';
import type { Lease } from '../../src/lock/lease.ts';
import { groupKeys } from '../../src/lock/keys.ts';
import { clock } from '../../src/platform/deps.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import type { Emit, Over } from '../../src/events/events.ts';
import { eventually } from '../support/processes.ts';
import { runFilesInMemory } from '../support/run-files.ts';
import { stage } from '../support/stage.ts';

type Hear = (signal: NodeJS.Signals) => void;

function setUp() {
  const { runId, folder } = stage();
  const order: string[] = [];
  const over = new AbortController();
  let why: Over | undefined;
  const lease: Lease = {
    over: over.signal,
    whyOver: () => why,
    holding: () => slots[0].grant,
    deadlineMs: () => Infinity,
    checkDeadline: () => undefined,
    rest: () => Promise.resolve(slots[0].grant),
    know: () => undefined,
    stop: () => Promise.resolve(),
    decline: () => (order.push('decline'), Promise.resolve(true)),
    release: ({ outcome }) => (order.push(outcome), Promise.resolve({ kind: 'released' })),
  };
  const keys = groupKeys('runlock', 'web');
  const grant = {
    context: { keys, run: { id: runId, node: 'web01', command: 'sh' } },
    slot: 0,
    owner: { index: 1 },
  };
  const slots = [{ grant, lease, waitedMs: 0 }] as unknown as HeldSlots;
  let hear: Hear = () => undefined;
  let hearStop: (signal: StopSignal) => void = () => undefined;
  const signals: SignalSource = {
    ignored: [],
    listen: (listener) => void (hear = listener),
    onStop: (listener) => {
      hearStop = listener;
      return () => undefined;
    },
    stop: () => undefined,
  };
  let askedHealth: (signal: AbortSignal) => void = () => undefined;
  const isAsked = new Promise<AbortSignal>((resolve) => (askedHealth = resolve));
  const gate = {
    node: 'web01',
    backOut: () => (order.push('back out'), Promise.resolve()),
    leave: () => (order.push('leave'), Promise.resolve()),
    stay: () => void order.push('stay'),
    health: (signal: AbortSignal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
        askedHealth(signal);
      }),
  } as Partial<RunGate> as RunGate;
  const deps = {
    ...{ clock, inherited: () => [], emit: () => undefined, signals, shareTerminal: false },
    env: { PATH: process.env['PATH'] },
    runFiles: runFilesInMemory(),
  } as Partial<ExecDeps> as ExecDeps;
  const options = {
    ...{ killAfterMs: 5_000, sessionTtlMs: 10_000, command: 'sh', file: '/bin/sh' },
    ...{ args: ['-c', 'exec sleep 60'], meanings: { ok: [0], reboot: [] } },
    gated: {
      gate,
      judge: (held: HeldSlots, ran: Parameters<Gated['judge']>[1]) => judgeRun(deps, held, { gate, ...ran }),
    },
    note: NO_NOTE,
  } as unknown as Parameters<typeof superviseRun>[2];
  return {
    ...{ deps, slots, gate, options, order, isAsked, folder },
    tell: (signal: NodeJS.Signals) => hear(signal),
    tellStop: (signal: StopSignal) => hearStop(signal),
    end: (reason: Over) => {
      why = reason;
      over.abort(reason);
    },
  };
}

test('a signal while the command is being started ends it: it was started, so its node keeps all', async () => {
  const { deps, slots, options, order } = setUp();
  let isFirst = true;
  const listen = (listener: Hear) => {
    if (isFirst) listener('SIGTERM');
    isFirst = false;
  };
  const ran = await superviseRun({ ...deps, signals: { ...deps.signals, listen } }, slots, options);
  expect(ran).toMatchObject({ kind: 'ended', ending: { kind: 'signalled', signal: 'SIGTERM' } });
  expect(order).toEqual(['stay', 'interrupted']);
});

test('a command begins only when a guard that was given hours for the wait has its new life', async () => {
  const { deps, slots, options, order } = setUp();
  const gone = new AbortController();
  const spare: Spare = {
    post: () => undefined,
    take: () => ({
      ...{ endMs: clock.monotonicMs() + 9_999_000, left: gone.signal, pids: () => [] },
      gone: new Promise((resolve) => hear(gone.signal, () => resolve({ status: 0, reason: undefined }))),
      // As a pipe that takes its time.
      write: (message) => clock.sleep(50, { signal: gone.signal }).then(() => void order.push(message)),
      dismiss: () => gone.abort(),
    }),
    dismiss: () => Promise.resolve(),
  };
  const note = { ...NO_NOTE, started: () => void order.push('started') };
  await superviseRun(deps, slots, {
    ...{ ...options, args: ['-c', 'exit 0'], gated: undefined, spare, note },
  });
  expect(order[0]).toMatch(/^beat \d+ 0 0/);
  expect(order[1]).toBe('started');
});

/** All of its slots, or all but the last, are given back when a signal ends it. */
const releasing = (slots: HeldSlots, all: boolean): HeldSlots =>
  [...slots, ...slots].map((slot, i, { length }) => {
    const { context } = slot.grant;
    const run = { ...context.run, ...((all || i < length - 1) && { releaseOnSignal: true as const }) };
    return { ...slot, grant: { ...slot.grant, context: { ...context, run } } };
  }) as unknown as HeldSlots;

test.each([
  [true, 'leave'],
  [false, 'stay'],
])('a node that was stopped goes back in service only if it keeps no slot (%s): %s', async (all, what) => {
  const { deps, slots, gate, order } = setUp();
  const stopped = { outcome: 'interrupted', cause: { kind: 'signal' } } as const;
  await judgeRun(deps, releasing(slots, all), { ...stopped, gate });
  expect(order).toEqual([what]);
});

test('the guard lets the command live as long as its lease, however often it hears of runlock', async () => {
  const { deps, slots, options } = setUp();
  const said: string[] = [];
  const deadlineMs = clock.monotonicMs() + 3_000;
  const [slot] = slots;
  const ending = [
    { ...slot, lease: { ...slot.lease, deadlineMs: () => deadlineMs } },
  ] as unknown as HeldSlots;
  const emit: Emit = (event) => void said.push(sentenceOf(event).message);
  const ran = await superviseRun({ ...deps, emit }, ending, { ...options, nonce: (await newRun()).nonce });
  expect(ran).toMatchObject({ kind: 'ended', ending: { kind: 'signalled', signal: 'SIGTERM' } });
  expect(said).toContain('runlock did not respond in time, so its guard process killed the command');
  expect(clock.monotonicMs()).toBeLessThan(deadlineMs + 10_000);
});

test('a run too late to start puts its node back in service before it gives its slots up', async () => {
  const { deps, slots, options, order, end } = setUp();
  end({ kind: 'cut-off' });
  expect(await superviseRun(deps, slots, options)).toMatchObject({ kind: 'lost' });
  expect(order).toEqual(['back out', 'decline']);
});

test('a command that can not start puts its node back in service before the slots are given up', async () => {
  const { deps, slots, options, order } = setUp();
  await expect(superviseRun(deps, slots, { ...options, file: '/nonexistent' })).rejects.toMatchObject({
    code: 'not-found',
  });
  expect(order).toEqual(['back out', 'decline']);
});

const ran = { outcome: 'succeeded', cause: undefined } as const;

test.each<[Over, string]>([
  [{ kind: 'evicted', by: 'root@host' }, 'evicted'],
  [{ kind: 'cut-off' }, 'lost'],
])('a slot that is over (%j) ends the wait for health, and maintenance stays', async (over, outcome) => {
  const { deps, slots, gate, order, isAsked, end } = setUp();
  const judging = judgeRun(deps, slots, { ...ran, gate });
  await isAsked;
  end(over);
  expect(await judging).toMatchObject({ outcome, cause: { kind: over.kind, group: 'web' } });
  expect(order).toEqual(['stay']);
});

test('a signal that ends runs ends the wait for health, and USR1 and USR2, which don’t, do not', async () => {
  const { deps, slots, gate, order, isAsked, tell } = setUp();
  const judging = judgeRun(deps, slots, { ...ran, gate });
  const signal = await isAsked;
  tell('SIGUSR1');
  tell('SIGUSR2');
  expect(signal.aborted).toBe(false);
  tell('SIGTERM');
  expect(await judging).toMatchObject({ outcome: 'interrupted', told: 'SIGTERM' });
  // Nobody knows whether its services are well.
  expect(order).toEqual(['stay']);
});

test('a slot that is over after something else had ended the wait is not what ended it', () => {
  const { slots, end } = setUp();
  const [over, signal] = [new AbortController(), new AbortController()];
  signal.abort(new Error('told to stop'));
  end({ kind: 'cut-off' });
  over.abort(new Error('over'));
  const either = AbortSignal.any([signal.signal, over.signal]);
  expect(firstOver(slots, { over: over.signal, signal: either })).toBeUndefined();
  expect(firstOver(slots, { over: over.signal, signal: over.signal })).toBe(slots[0]);
});

test('a release that takes Consul two seconds is said, and the command’s end; a quick one is not', async () => {
  const { deps, slots, options } = setUp();
  const said: string[] = [];
  let isSaid: () => void = () => undefined;
  const saying = new Promise<void>((resolve) => (isSaid = resolve));
  const emit: Emit = (event) => {
    said.push(sentenceOf(event).message);
    if (event.event === 'releasing') isSaid();
  };
  const run = { ...options, args: ['-c', 'exit 3'], gated: undefined };
  await superviseRun({ ...deps, emit }, slots, { ...run, nonce: (await newRun()).nonce });
  expect(said.join('\n')).not.toMatch(/waiting for Consul/);
  const [slot] = slots;
  const release: Lease['release'] = async () => {
    await saying;
    return { kind: 'released' };
  };
  const silent = [{ ...slot, lease: { ...slot.lease, release } }] as unknown as HeldSlots;
  await superviseRun({ ...deps, emit }, silent, { ...run, nonce: (await newRun()).nonce });
  // Once: the quick one was over when its time came.
  expect(said.filter((message) => message.includes('waiting for Consul'))).toEqual([
    'sh exited 3; waiting for Consul to release slot 0 of web',
  ]);
});

test.each([0, 3])(
  'that the run ended, and how, is written down before its slot is given back: %i',
  async (code) => {
    const { deps, slots, options, order } = setUp();
    const note: typeof NO_NOTE = {
      ...NO_NOTE,
      ended: (outcome, exitCode) => void order.push(`noted ${outcome} ${exitCode}`),
      left: (groups) => void order.push(`left ${groups.length}`),
    };
    const run = { ...options, args: ['-c', `exit ${code}`], gated: undefined, note };
    await superviseRun(deps, slots, { ...run, nonce: (await newRun()).nonce });
    const outcome = code === 0 ? 'succeeded' : 'failed';
    expect(order).toEqual([`noted ${outcome} ${code}`, outcome, 'left 0']);
  },
);

test('a command that has something to do before it stops is waited for: runlock stops after it', async () => {
  const { deps, slots, options, tell, tellStop, folder } = setUp();
  const perl = `$SIG{TSTP} = sub { select undef, undef, undef, 0.7; kill STOP => $$ }; open F, ">${folder}/command.pid"; print F "$$\n"; close F; select undef, undef, undef, 0.02 while 1`;
  const script = `exec perl -e '${perl}'`;
  const stopped: (string | undefined)[] = [];
  const stateOf = (pid: number) => /^State:\s+(\S)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  // It is there before it is written.
  const pid = () =>
    eventually(() => {
      const text = readFileSync(`${folder}/command.pid`, 'utf8');
      expect(text).toMatch(/^\d+\n$/);
      return Number(text);
    });
  const stop = async () => void stopped.push(stateOf(await pid()));
  const signals: SignalSource = { ...deps.signals, stop: () => void stop() };
  const run = { ...options, args: ['-c', script], gated: undefined };
  const ran = superviseRun({ ...deps, signals, shareTerminal: true }, slots, {
    ...{ ...run, nonce: (await newRun()).nonce, keys },
  });
  const command = await pid();
  tellStop('SIGTSTP');
  await eventually(() => expect(stopped).toEqual(['T']));
  // Whoever continues runlock continues the command.
  await eventually(() => expect(stateOf(command)).not.toBe('T'));
  tell('SIGTERM');
  expect(await ran).toMatchObject({ kind: 'ended', ending: { kind: 'signalled', signal: 'SIGTERM' } });
});

test('without a terminal a stop is a stop, and nobody hears it before', async () => {
  const { deps, slots, options } = setUp();
  let heard = 0;
  const signals: SignalSource = { ...deps.signals, onStop: () => (heard++, () => undefined) };
  const run = { ...options, args: ['-c', 'exit 0'], gated: undefined, nonce: (await newRun()).nonce };
  await superviseRun({ ...deps, signals }, slots, run);
  expect(heard).toBe(0);
  await superviseRun({ ...deps, signals, shareTerminal: true }, slots, { ...run, keys });
  expect(heard).toBe(1);
});
