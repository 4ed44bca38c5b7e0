// What a run knows of its slot: each state of a lease, and what each event makes of it.
import { describe, expect, test } from 'vitest';
import {
  deadAfterMs,
  deadlineMs,
  initialState,
  isWatched,
  news,
  next,
  pauseMs,
  termAtMs,
} from '../../src/lock/lease-state.ts';
import type { LeaseEvent, LeaseState, Terms } from '../../src/lock/lease-state.ts';

const TTL_MS = 30_000;
const FOREVER: Terms = { hold: 'forever', ttlMs: TTL_MS, killAfterMs: 10_000 };
const FINITE: Terms = { ...FOREVER, hold: 'none' };
const EVICTED = { kind: 'evicted', by: 'ann' } as const;
const LOST = { kind: 'lost', why: 'another has it' } as const;

const proved = (sentMs = 2_000): LeaseEvent => ({ kind: 'proved', sentMs });
const missing: LeaseEvent = { kind: 'missing' };
const refused = (by: Extract<LeaseEvent, { kind: 'refused' }>['by']): LeaseEvent => ({ kind: 'refused', by });
/** Without an answer, or with a refusal, after so many milliseconds. */
const silent = (nowMs = 0): LeaseEvent => ({ kind: 'failed', fault: 'no answer', isTransient: true, nowMs });
const denied = (fault = 'denied'): LeaseEvent => ({ kind: 'failed', fault, isTransient: false, nowMs: 0 });
const unanswered: LeaseEvent = { kind: 'unanswered' };
const newSession: LeaseEvent = { kind: 'new-session' };
const lost = (why: Extract<LeaseEvent, { kind: 'lost' }>['why'] = LOST): LeaseEvent => ({
  kind: 'lost',
  why,
});
const tick = (nowMs: number): LeaseEvent => ({ kind: 'tick', nowMs });
const released: LeaseEvent = { kind: 'released' };

/** A lease proved at 1,000 ms, to which all of this happened. */
const after = (events: readonly LeaseEvent[], terms = FOREVER): LeaseState =>
  events.reduce((state, event) => next(state, event, terms), initialState(1_000));

/** What is said on the way. */
function said(events: readonly LeaseEvent[], terms = FOREVER) {
  return events.flatMap((_, i) => {
    const one = news(after(events.slice(0, i), terms), after(events.slice(0, i + 1), terms));
    return one
      ? [one.kind === 'unseen' ? `unseen: ${one.fault}` : one.kind === 'seen' ? 'seen' : one.by]
      : [];
  });
}

/** The ways into each state. */
const states = {
  held: [],
  unknown: [silent()],
  recovering: [missing],
  lost: [lost()],
  released: [released],
} satisfies Record<LeaseState['kind'], LeaseEvent[]>;

test('a slot is held from its grant on, and proved by it', () => {
  expect(initialState(1_000)).toEqual({ kind: 'held', provedMs: 1_000 });
});

describe('what follows', () => {
  const events = {
    proved: proved(),
    missing,
    'refused for a change': refused('change'),
    'refused for a lock': refused('lock'),
    silent: silent(),
    denied: denied(),
    unanswered,
    'new-session': newSession,
    lost: lost(),
    tick: tick(1e9),
    released,
  };
  type Row = Record<keyof typeof events, LeaseState['kind']>;
  /** `stays`: it is watched on. */
  const watched = (stays: LeaseState['kind']): Row => ({
    proved: 'held',
    missing: 'recovering',
    'refused for a change': 'recovering',
    'refused for a lock': 'recovering',
    silent: 'unknown',
    denied: 'unknown',
    unanswered: stays,
    'new-session': stays,
    lost: 'lost',
    tick: stays,
    released: 'released',
  });
  const final = (stays: LeaseState['kind']): Row => ({
    proved: stays,
    missing: stays,
    'refused for a change': stays,
    'refused for a lock': stays,
    silent: stays,
    denied: stays,
    unanswered: stays,
    'new-session': stays,
    lost: stays,
    tick: stays,
    released: 'released',
  });
  const table: Record<LeaseState['kind'], Row> = {
    held: watched('held'),
    unknown: watched('unknown'),
    recovering: watched('recovering'),
    lost: final('lost'),
    released: final('released'),
  };
  const rows = Object.entries(table).flatMap(([from, row]) =>
    Object.entries(row).map(([event, to]) => [from, event, to] as const),
  );

  test.each(rows)('when it is %s and hears %s: %s', (from, event, to) => {
    const before = after(states[from as LeaseState['kind']]);
    expect(before.kind).toBe(from);
    expect(next(before, events[event as keyof typeof events], FOREVER).kind).toBe(to);
  });

  test('is watched until it is lost or released', () => {
    const watching = Object.entries(states).filter(([, events]) => isWatched(after(events)));
    expect(watching.map(([kind]) => kind)).toEqual(['held', 'unknown', 'recovering']);
  });
});

describe('the last proof', () => {
  test.each(['held', 'unknown', 'recovering'] as const)('is moved by a new one, when it is %s', (kind) => {
    expect(after([...states[kind], proved(2_000)])).toEqual({ kind: 'held', provedMs: 2_000 });
  });

  test('is moved by nothing else', () => {
    const others = [missing, refused('lock'), silent(9_000), unanswered, newSession, lost(), tick(9_000)];
    for (const event of others) expect(after([event]).provedMs).toBe(1_000);
  });

  test.each(['lost', 'released'] as const)('is moved no more once it is %s', (kind) => {
    expect(after([...states[kind], proved(2_000)]).provedMs).toBe(1_000);
  });
});

describe('the command must end', () => {
  const dueMs = 1_000 + deadAfterMs('none') - FINITE.killAfterMs;

  test('when the slot is lost, and for that reason', () => {
    expect(after([]).over).toBeUndefined();
    expect(after([lost(EVICTED)])).toEqual({ kind: 'lost', provedMs: 1_000, over: EVICTED });
  });

  test.each(['held', 'unknown', 'recovering'] as const)('when time is up, when it is %s', (kind) => {
    expect(after([...states[kind], tick(dueMs - 1)], FINITE).over).toBeUndefined();
    expect(after([...states[kind], tick(dueMs)], FINITE).over).toEqual({ kind: 'cut-off' });
  });

  test('later, with each proof', () => {
    const later = after([proved(1_500)], FINITE);
    expect(next(later, tick(dueMs), FINITE).over).toBeUndefined();
    expect(termAtMs(later, FINITE)).toBe(dueMs + 500);
    expect(deadlineMs(later, FINITE)).toBe(dueMs + 500 + FINITE.killAfterMs);
  });

  test('for no time that passes, with hold forever', () => {
    expect(after([tick(Number.MAX_SAFE_INTEGER)]).over).toBeUndefined();
    expect(deadlineMs(after([]), FOREVER)).toBe(Infinity);
  });

  test('for the first reason alone', () => {
    const cutOff = { kind: 'cut-off' };
    expect(after([tick(dueMs), lost(EVICTED)], FINITE)).toMatchObject({ kind: 'lost', over: cutOff });
    expect(after([lost(EVICTED), tick(dueMs)], FINITE).over).toEqual(EVICTED);
    expect(after([lost(EVICTED), lost(LOST)], FINITE).over).toEqual(EVICTED);
  });

  test('and the reason stays, whatever comes: the slot is watched on until it is given back', () => {
    const cutOff = { kind: 'cut-off' };
    for (const event of [
      proved(),
      missing,
      silent(),
      denied(),
      refused('lock'),
      unanswered,
      newSession,
      released,
    ])
      expect(after([tick(dueMs), event], FINITE).over).toEqual(cutOff);
    expect(after([tick(dueMs), missing], FINITE).kind).toBe('recovering');
  });

  test('for nothing that comes after the release', () => {
    for (const event of [lost(EVICTED), tick(dueMs)])
      expect(after([released, event], FINITE).over).toBeUndefined();
  });
});

describe('a claim that had no answer may still arrive', () => {
  test.each(['held', 'unknown', 'recovering', 'lost', 'released'] as const)(
    'until there is another session, when it is %s',
    (kind) => {
      const sent = after([...states[kind], unanswered]);
      expect(sent.unanswered).toBe(true);
      expect(next(sent, newSession, FOREVER)).toEqual(after(states[kind]));
    },
  );

  test('also after a look that shows all as it should be, and as the run ends', () => {
    for (const event of [proved(), missing, silent(), refused('lock'), lost(), released])
      expect(after([missing, unanswered, event]).unanswered).toBe(true);
  });
});

describe('it is said', () => {
  test('once what refuses to be read, and what does so then', () => {
    expect(said([denied('a'), denied('a'), denied('b'), denied('b')])).toEqual(['unseen: a', 'unseen: b']);
  });

  test('that Consul is silent once that has lasted for 30 s, with hold forever alone', () => {
    const events = [silent(5_000), silent(34_999), silent(35_000), silent(99_000)];
    expect(said(events.slice(0, 2))).toEqual([]);
    expect(said(events)).toEqual(['unseen: no answer']);
    expect(said(events, FINITE)).toEqual([]);
  });

  test('of a silence after a refusal nothing more, and its time counts from its first moment', () => {
    expect(said([denied(), silent(0), silent(99_000)])).toEqual(['unseen: denied']);
    expect(said([silent(0), missing, silent(30_000)])).toEqual(['unseen: no answer']);
    expect(said([silent(0), proved(), silent(30_000)])).toEqual([]);
  });

  test('that all is well again, where it was said that it was not', () => {
    expect(said([denied(), proved(), proved()])).toEqual(['unseen: denied', 'seen']);
    expect(said([silent(), proved()])).toEqual([]);
    expect(said([denied(), missing, refused('lock'), proved()])).toEqual(['unseen: denied', 'seen']);
    expect(said([denied(), lost()])).toEqual(['unseen: denied']);
  });

  test.each(['lock', 'node'] as const)('at the third time, once, that another session has the %s', (by) => {
    const times = (n: number) => Array.from({ length: n }, () => [missing, refused(by)]).flat();
    expect(said(times(2))).toEqual([]);
    expect(said(times(9))).toEqual([by]);
    expect(said([...times(2), missing, refused('change'), silent(), ...times(9)])).toEqual([by]);
    expect(said([...times(3), missing, proved(), ...times(3)])).toEqual([by, by]);
  });

  test('nothing of a claim that only changes', () => {
    expect(said(Array.from({ length: 9 }, () => [missing, refused('change')]).flat())).toEqual([]);
  });
});

describe('the pause before the next look', () => {
  const pauses = (events: readonly LeaseEvent[], terms = FOREVER, random = 1) =>
    events.map((_, i) => pauseMs(after(events.slice(0, i + 1), terms), terms, () => random));
  const nine = (event: LeaseEvent) => Array.from({ length: 9 }, () => event);

  test('grows to 5 s in a silence, and to 30 s after refusals, spread by chance', () => {
    expect(pauses(nine(silent())).slice(0, 5)).toEqual([1_000, 2_000, 4_000, 5_000, 5_000]);
    expect(pauses(nine(denied())).slice(3, 7)).toEqual([8_000, 16_000, 30_000, 30_000]);
    expect(pauses([denied()], FOREVER, 0)).toEqual([500]);
    expect(pauses([denied(), denied(), silent(), proved(), denied()])).toEqual([
      1_000, 2_000, 4_000, 0, 1_000,
    ]);
  });

  test('goes on growing where the slot can be read, and not be taken back', () => {
    expect(pauses([denied(), missing, denied(), missing, denied()])).toEqual([1_000, 0, 2_000, 0, 4_000]);
  });

  test('grows to a minute while another session has the lock, each try being a write', () => {
    const tries = Array.from({ length: 9 }, () => [missing, refused('lock')]).flat();
    const all = pauses(tries).filter((ms) => ms > 0);
    expect(all).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
  });

  test('is short where the claim changed meanwhile, and shorter where there is one again', () => {
    const events = [missing, refused('lock'), missing, refused('lock'), missing, refused('change')];
    expect(pauses(events).at(-1)).toBe(500);
    expect(pauses([missing, refused('claim')]).at(-1)).toBe(100);
  });

  test('with a hold that ends is never longer than a look may wait, for looks are the proofs', () => {
    const tries = Array.from({ length: 9 }, () => [missing, refused('lock')]).flat();
    for (const events of [nine(silent()), nine(denied()), tries])
      expect(Math.max(...pauses(events, FINITE))).toBe(TTL_MS / 6);
  });

  test('is none where the slot is held, or nobody watches any more', () => {
    expect(pauses([proved(), lost(), released])).toEqual([0, 0, 0]);
  });
});
