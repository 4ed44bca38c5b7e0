/**
 * A group's day, in two steps. First some half hours of it, many times as fast, with the project's own lock code on a
 * real Consul: all of that is measured, and what the lock takes weighs as many times more than it would. It adds to the
 * waits whatever the runs last, so the same half hours at their real speed are those waits without it, and it once. Then
 * the whole day, computed with what the lock took in the first step. Each is compared with the best schedule of the very
 * same runs (in-process-schedule.ts).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { seeded } from './in-process-chance.ts';
import { startServer } from './in-process-crowd.ts';
import { openGroup } from './in-process-lock.ts';
import type { Group } from './in-process-lock.ts';
import { planRuns, quicken, schedule } from './in-process-schedule.ts';
import type { Habits, Lost, PlannedRun } from './in-process-schedule.ts';
import { median } from './pairs.ts';
import type { Measured, PartOptions, Row } from './report.ts';

const MINUTE_MS = 60_000;
const HALF_HOURS_A_DAY = 48;
const SEED = 1;

const FULL = { nodes: 500, slots: 24, times: 2, speed: 36 };
// Slow enough for a machine that has other things to do: each node has to be done before it comes again.
const QUICK = { nodes: 40, slots: 4, times: 2, speed: 300 };

const toHabits = (nodes: number, times: number): Habits => ({
  nodes,
  times,
  everyMs: 30 * MINUTE_MS,
  splayMs: 15 * MINUTE_MS,
  duration: { median: 45_000, sigma: 0.5 },
  failing: 0.01,
});

export async function measureDay({ quick, say }: PartOptions): Promise<Measured> {
  const { nodes, slots, times, speed } = quick ? QUICK : FULL;
  const runs = planRuns(toHabits(nodes, times), seeded(SEED));
  const best = schedule(runs, slots);
  say(`${runs.length} runs in ${times} half hours, ${speed} times as fast`);
  const real = await replay(quicken(runs, speed), slots);
  const waits = real.waitsMs.map((waitMs) => waitMs * speed);
  const realSpeed = real.waitsMs.map((waitMs, i) => {
    const bestMs = best[i] ?? NaN;
    return bestMs + waitMs - bestMs / speed;
  });
  const day = planRuns(toHabits(nodes, HALF_HOURS_A_DAY), seeded(SEED));
  const dayBest = schedule(day, slots);
  const dayWaits = schedule(day, slots, drawFrom(real, seeded(SEED)));
  const rows = [
    ...toRows(`${times} half hours, ${speed} times as fast`, waits, best),
    ...toRows(`${times} half hours, the lock’s time at its real weight`, realSpeed, best).map(withReach),
    ...toRows('a day, computed', dayWaits, dayBest).map(withReach),
  ];
  for (const row of rows)
    say(`${row.what}: ${row.runlock.toFixed(1)} s, at best ${row.others[BEST]?.toFixed(1)} s`);
  const handOver = median(real.handOversMs);
  return {
    rows,
    raw: { seed: SEED, slots, speed, habits: toHabits(nodes, times), best, waits, ...real },
    how: describe({ nodes, slots, speed, handOver }),
  };
}

const BEST = 'the best possible schedule';

function describe(it: { nodes: number; slots: number; speed: number; handOver: number }): string {
  return `${it.nodes} nodes share ${it.slots} slots. Every half hour each node wants to run, at a random moment of the \
first quarter of an hour. Run times are lognormal, with a median of 45 s (sigma 0.5). One run in a hundred fails: its node \
keeps the slot, runs again half an hour later, at once and in that slot, and releases it. The best possible schedule has \
the same runs and rules, serves first come, first served, and loses no time. The half hours that are ${it.speed} times as \
fast run the real lock code on a real Consul, all nodes in one process. There the lock’s own time (median hand-over of a \
slot: ${it.handOver.toFixed(1)} ms) weighs ${it.speed} times as much as in reality, and so do the nodes that join in a \
second. *At its real weight* counts the time above the best schedule once. The day is computed: the same queue at real \
speed, with times drawn from those that the lock took in the fast half hours.`;
}

interface Replayed {
  /** In the plan's order, from the moment when the run was due. */
  readonly waitsMs: readonly number[];
  /** What it took to begin where nobody had to be waited for. */
  readonly directsMs: readonly number[];
  /** From the call that gave a slot back to the moment when the next one knew that it had it. */
  readonly handOversMs: readonly number[];
}

async function replay(runs: readonly PlannedRun[], slots: number): Promise<Replayed> {
  const agent = await startServer();
  const group = openGroup(agent, slots);
  try {
    // Neither program is measured cold.
    for (let i = 0; i < 20; i++) await (await group.enter('warm-up')).leave();
    return await follow(runs, group);
  } finally {
    group.dismiss();
    group.close();
    await agent[Symbol.asyncDispose]();
  }
}

async function follow(runs: readonly PlannedRun[], group: Group): Promise<Replayed> {
  const startMs = performance.now();
  const freedMs = new Map<number, number>();
  const directsMs: number[] = [];
  const handOversMs: number[] = [];
  const now = () => performance.now() - startMs;
  const waits = runs.map(async ({ node, atMs, durationMs, fails }) => {
    await sleep(atMs - now());
    const held = await group.enter(node);
    const grantedMs = now();
    const freed = freedMs.get(held.slot) ?? 0;
    // Who came before the slot was free has waited for it; of the others, the slot waited for them.
    if (freed > atMs) handOversMs.push(grantedMs - freed);
    else directsMs.push(grantedMs - atMs);
    await sleep(durationMs);
    freedMs.set(held.slot, now());
    await held.leave(fails ? 'failed' : 'succeeded');
    return grantedMs - atMs;
  });
  return { waitsMs: await Promise.all(waits), directsMs, handOversMs };
}

function drawFrom({ directsMs, handOversMs }: Replayed, random: () => number): Lost {
  const draw = (values: readonly number[]) => values[Math.floor(random() * values.length)] ?? 0;
  return { directMs: () => draw(directsMs), handOverMs: () => draw(handOversMs) };
}

function toRows(what: string, waitsMs: readonly number[], bestMs: readonly number[]): Row[] {
  const row = (name: string, of: (values: readonly number[]) => number): Row => ({
    section: 'A group’s day',
    what: `${name} wait, ${what}`,
    unit: 's',
    runlock: of(waitsMs) / 1000,
    others: { [BEST]: of(bestMs) / 1000 },
  });
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return [row('longest', (values) => Math.max(...values)), row('mean', mean)];
}

function withReach(row: Row): Row {
  const met = row.runlock <= 1.02 * (row.others[BEST] ?? NaN);
  return { ...row, reach: { text: `within 2 % of ${BEST}`, met } };
}
