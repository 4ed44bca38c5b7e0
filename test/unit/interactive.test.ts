// Ctrl-C and Ctrl-Z of a run in a terminal: what is decided, on a clock that moves when somebody waits for it.
import { expect, test } from 'vitest';
import type { Supervised } from '../../src/process/command.ts';
import type { ExecDeps } from '../../src/runner/options.ts';
import { hearStops } from '../../src/runner/terminal-keys.ts';
import { watchInterrupts } from '../../src/runner/terminal-keys.ts';
import type { HeldSlots } from '../../src/runner/slots.ts';
import type { StopSignal } from '../../src/platform/signals.ts';
import { sentenceOf } from '../../src/events/sentence.ts';
import type { Emit } from '../../src/events/events.ts';
import { eventually } from '../support/processes.ts';

function setUp({ deadlineMs = Infinity } = {}) {
  let nowMs = 0;
  const order: string[] = [];
  const state = { isStopped: false, stopsAtMs: Infinity, continues: 'both' };
  let hear: ((signal: StopSignal) => void) | undefined;
  let end: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => (end = resolve));
  const clock = {
    monotonicMs: () => nowMs,
    sleep: (ms: number, { signal }: { signal: AbortSignal }) =>
      new Promise<void>((resolve, reject) => {
        const done = () => (signal.aborted ? reject(signal.reason as Error) : resolve());
        setImmediate(() => {
          if (!signal.aborted) nowMs += ms;
          done();
        });
      }),
  };
  const signals = {
    onStop: (listener: (signal: StopSignal) => void) => {
      hear = listener;
      return () => void (hear = undefined);
    },
    stop: (signal: StopSignal) => {
      order.push(`stop ${signal}`);
      // The shell continues it, and the command with it.
      if (state.continues === 'both') state.isStopped = false;
      if (state.continues === 'until the next') {
        state.continues = 'both';
        setImmediate(() => hear?.('SIGTSTP'));
      }
    },
  };
  const emit: Emit = (event) => {
    const { level, message } = sentenceOf(event);
    order.push(`${level}: ${message}`);
  };
  const deps = { clock, emit, signals, shareTerminal: true } as unknown as ExecDeps;
  const command = {
    // How it ended is nobody's question here.
    ended: ended as Promise<unknown> as Supervised['ended'],
    signal: (signal: string) => (order.push(`command ${signal}`), Promise.resolve()),
    isStopped: () => state.isStopped || nowMs >= state.stopsAtMs,
    resume: () => void order.push('resume'),
  };
  const guard = {
    beat: (ms: number) => void order.push(`beat ${ms}`),
    lastBeat: (ms: number) => (order.push(`last beat ${ms}`), Promise.resolve()),
  };
  const slots = [{ lease: { deadlineMs: () => deadlineMs } }] as unknown as HeldSlots;
  const it = { slots, command, guard } as unknown as Parameters<ReturnType<typeof hearStops>['follow']>[0];
  return {
    deps,
    it,
    command,
    order,
    state,
    press: (signal: StopSignal) => hear?.(signal),
    hears: () => hear,
    end,
    now: () => nowMs,
  };
}

test('runlock stops when its command has, after the guard was told that this may last', async () => {
  const { deps, it, order, state, press } = setUp();
  hearStops(deps).follow(it);
  state.isStopped = true;
  press('SIGTSTP');
  await eventually(() => expect(order).toHaveLength(4));
  const stopped = ['command SIGTSTP', 'last beat Infinity', 'stop SIGTSTP', 'beat 30000'];
  expect(order).toEqual(stopped);
  state.isStopped = true;
  press('SIGTTIN');
  await eventually(() => expect(order).toHaveLength(8));
  expect(order.slice(4)).toEqual(stopped.map((line) => line.replace('TSTP', 'TTIN')));
});

test('a Ctrl-Z while the command is being started stops both as soon as it is there', async () => {
  const { deps, it, order, state, press } = setUp();
  const stops = hearStops(deps);
  state.isStopped = true;
  press('SIGTSTP');
  expect(order).toEqual([]);
  stops.follow(it);
  await eventually(() => expect(order).toContain('stop SIGTSTP'));
});

test('whoever continues runlock alone continues the command', async () => {
  const { deps, it, order, state, press } = setUp();
  hearStops(deps).follow(it);
  Object.assign(state, { isStopped: true, continues: 'runlock' });
  press('SIGTSTP');
  await eventually(() => expect(order.at(-1)).toBe('resume'));
});

test('a Ctrl-Z right after fg stops both again, and is not taken for the one before', async () => {
  const { deps, it, order, state, press } = setUp();
  hearStops(deps).follow(it);
  Object.assign(state, { isStopped: true, continues: 'until the next' });
  press('SIGTSTP');
  await eventually(() => expect(order.filter((line) => line === 'stop SIGTSTP')).toHaveLength(2));
  expect(order).not.toContain('resume');
});

test('a lease that ends is the guard’s while the run is stopped, and whoever stopped it is told', async () => {
  const { deps, it, order, state, press } = setUp({ deadlineMs: 50_000 });
  hearStops(deps).follow(it);
  state.isStopped = true;
  press('SIGTSTP');
  await eventually(() => expect(order).toContain('beat 30000'));
  expect(order).toEqual([
    'command SIGTSTP',
    "warning: stopped by Ctrl-Z; continue within 49s (fg or bg), or the command is killed: a stopped run can't renew its lock",
    'last beat 49000',
    'stop SIGTSTP',
    'beat 30000',
  ]);
});

test('a command that stops a little later, as an editor does, is waited for', async () => {
  const { deps, it, order, state, press } = setUp();
  hearStops(deps).follow(it);
  state.stopsAtMs = 600;
  press('SIGTSTP');
  await eventually(() => expect(order).toContain('stop SIGTSTP'));
});

test('a command that ignores Ctrl-Z goes on, and so does runlock', async () => {
  const { deps, it, order, press, now } = setUp();
  const pause = hearStops(deps).follow(it);
  // Each time it looks for 5 s whether the command stops, and hears the next Ctrl-Z after that.
  press('SIGTSTP');
  await eventually(() => expect(now()).toBeGreaterThanOrEqual(5_000));
  press('SIGTSTP');
  await eventually(() => expect(now()).toBeGreaterThanOrEqual(10_000));
  expect(order).toEqual(['command SIGTSTP', 'command SIGTSTP']);
  expect(pause.isOn()).toBe(false);
});

test('a command that has ended is no reason to stop', async () => {
  const { deps, it, order, press, end } = setUp();
  const pause = hearStops(deps).follow(it);
  end();
  press('SIGTSTP');
  await eventually(() => expect(order).toEqual(['command SIGTSTP']));
  pause.dismiss();
  press('SIGTSTP');
  expect(order).toHaveLength(1);
});

function press(options = { command: '/usr/bin/tool', killAfterMs: 10_000 }) {
  const { deps, command, order, end, now } = setUp();
  const pressed = watchInterrupts(deps, { command, options, end: () => void order.push('end') });
  return { order, end, now, press: (atMs: number) => pressed(atMs) };
}

const SAID =
  'warning: forwarded Ctrl-C to tool, which is still running; press Ctrl-C again within 3s to kill it (SIGTERM, then SIGKILL after 10s)';

test('a command that goes on after Ctrl-C: the next one within 3 s of that word ends it', async () => {
  const it = press();
  it.press(0);
  await eventually(() => expect(it.order).toEqual([SAID]));
  it.press(3_400);
  expect(it.order).toEqual([SAID, 'end']);
  it.press(3_500);
  expect(it.order).toEqual([SAID, 'end']);
});

test('a Ctrl-C that comes later is a first one again', async () => {
  const it = press();
  it.press(0);
  await eventually(() => expect(it.order).toEqual([SAID]));
  it.press(3_600);
  await eventually(() => expect(it.order).toEqual([SAID, SAID]));
});

test('two at once end it, without a word', async () => {
  const it = press();
  it.press(0);
  it.press(200);
  expect(it.order).toEqual(['end']);
  await new Promise(setImmediate);
  expect(it.order).toEqual(['end']);
});

test('nothing is said of a command that ends by it', async () => {
  const it = press();
  it.press(0);
  it.end();
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  expect(it.order).toEqual([]);
});
