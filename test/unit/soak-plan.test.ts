// The plan of a soak: a broken promise is worth little if its seed does not lead to it again.
import { expect, test } from 'vitest';
import { describePlan, planSoak } from '../support/soak/plan.ts';
import { random } from '../support/soak/random.ts';
import type { SoakEvent, SoakOptions } from '../support/soak/plan.ts';

const options: SoakOptions = { seed: 7, minutes: 10, nodes: 100, slots: 3 };
const eventsOf = <Kind extends SoakEvent['kind']>(more: Partial<SoakOptions>, kind: Kind) =>
  planSoak({ ...options, ...more }).events.filter(
    (event): event is Extract<SoakEvent, { kind: Kind }> => event.kind === kind,
  );

const textOf = (more: Partial<SoakOptions> = {}) =>
  describePlan(planSoak({ ...options, ...more })).join('\n');

test('the same seed gives the same plan, to the last event', () => {
  expect(textOf()).toBe(textOf());
  expect(describePlan(planSoak(options))).toHaveLength(planSoak(options).events.length);
});

test('another seed gives another plan', () => {
  const others = [8, 9, 70, 2 ** 31].map((seed) => textOf({ seed }));
  expect(new Set([textOf(), ...others]).size).toBe(5);
});

test('chance is the same on every machine, and another for every purpose', () => {
  const stream = random(7, 'kills');
  const numbers = Array.from({ length: 4 }, () => stream.whole(0, 1_000_000));
  expect(numbers).toMatchInlineSnapshot(`
    [
      607261,
      380742,
      955589,
      103053,
    ]
  `);
  expect(random(7, 'stops').next()).not.toBe(random(7, 'kills').next());
});

test('events come in the order of their time, within the time that was asked for', () => {
  const { events, lengthMs } = planSoak(options);
  const times = events.map(({ atMs }) => atMs);
  expect(times).toEqual([...times].sort((a, b) => a - b));
  expect(times[0]).toBeGreaterThanOrEqual(0);
  expect(times.at(-1)).toBeLessThanOrEqual(lengthMs);
  expect(lengthMs).toBe(600_000);
});

test('some acquire and release instead of exec, some crash between, only where there is a hold', () => {
  const starts = eventsOf({}, 'start');
  const halves = starts.filter((event) => event.halves !== undefined);
  expect(new Set(halves.map((event) => event.halves))).toEqual(new Set(['release', 'crash']));
  expect(new Set(halves.map(({ group }) => group))).toEqual(new Set(['soak/forever', 'soak/timed']));
  expect(halves.length / starts.length).toBeGreaterThan(0.1);
  // A second and a half of work ends before a hold of five seconds does.
  for (const { part, lengthMs } of halves) {
    expect(part.beats).toBeLessThanOrEqual(30);
    expect(lengthMs).toBeUndefined();
  }
});

test.each([0.5, 10])(
  'in %s minutes all nodes of the main group start, and every kind of fault comes',
  (minutes) => {
    const { groups, events } = planSoak({ ...options, minutes });
    const started = new Set(eventsOf({ minutes }, 'start').map(({ node }) => node));
    expect(groups[0]?.nodes).toHaveLength(100);
    expect(groups[0]?.nodes.filter((node) => !started.has(node))).toEqual([]);
    const kinds = new Set(events.map(({ kind }) => kind));
    for (const kind of ['kill', 'stop', 'ask', 'destroy-session', 'operate', 'network'])
      expect(kinds).toContain(kind);
  },
);

test('a long plan meets every deadline: the guard’s silence, a session’s life, a cut-off run', () => {
  const stops = eventsOf({ minutes: 60 }, 'stop');
  const pauses = eventsOf({ minutes: 60 }, 'pause-agent').map(({ forMs }) => forMs);
  expect(stops.some(({ who, forMs }) => who === 'runlock' && forMs > 30_000)).toBe(true);
  expect(pauses.some((forMs) => forMs > 20_000 && forMs < 60_000)).toBe(true);
  expect(pauses.some((forMs) => forMs > 60_000)).toBe(true);
});

test('nothing is planned that runlock does not promise to stand: a guard stopped long, or killed', () => {
  const stops = eventsOf({ minutes: 60 }, 'stop');
  expect(stops.filter(({ who, forMs }) => who === 'guard' && forMs > 20_000)).toEqual([]);
  expect(stops.filter(({ forMs }) => forMs > 45_000)).toEqual([]);
  const both = eventsOf({ minutes: 60 }, 'kill').filter(({ who }) => who === 'both');
  expect(new Set(both.map(({ group }) => group))).toEqual(new Set(['soak/forever']));
});
