/** A group's plan of runs, and the best schedule that any lock could give it. Pure. All times are milliseconds. */
import { lognormal, sample } from './in-process-chance.ts';

export interface Habits {
  readonly nodes: number;
  readonly everyMs: number;
  readonly times: number;
  /** Each start of a node is put off by a random time up to this. */
  readonly splayMs: number;
  readonly duration: { readonly median: number; readonly sigma: number };
  /** Share of the runs that fail. */
  readonly failing: number;
}

export interface PlannedRun {
  readonly node: string;
  readonly atMs: number;
  readonly durationMs: number;
  readonly fails: boolean;
}

/** In the order in which they want to start. A node whose last run failed does not fail again at once. */
export function planRuns(habits: Habits, random: () => number): PlannedRun[] {
  const { nodes, everyMs, times, splayMs, duration, failing } = habits;
  let failed = new Set<number>();
  const runs = Array.from({ length: times }, (_, time) => {
    const picked = sample(random, Math.round(failing * nodes), nodes);
    const fails = new Set([...picked].filter((node) => !failed.has(node)));
    failed = fails;
    return Array.from({ length: nodes }, (__, node) => ({
      node: `node-${node}`,
      atMs: time * everyMs + random() * splayMs,
      durationMs: lognormal(random, duration),
      fails: fails.has(node),
    }));
  });
  return runs.flat().sort((a, b) => a.atMs - b.atMs);
}

/** The same plan, so many times as fast. */
export function quicken(runs: readonly PlannedRun[], speed: number): PlannedRun[] {
  return runs.map((run) => ({ ...run, atMs: run.atMs / speed, durationMs: run.durationMs / speed }));
}

/** What the lock takes: to begin with a free slot, and to hand one over. */
export interface Lost {
  directMs(): number;
  handOverMs(): number;
}

const NOTHING_LOST: Lost = { directMs: () => 0, handOverMs: () => 0 };

/**
 * How long each run waits: first come, first served, no slot idle while somebody waits for it. A failed run keeps its
 * slot until its node comes again, which begins at once and gives the slot back.
 * @throws Error when a node would come before its last run has ended: that one would be refused, not queued.
 */
export function schedule(runs: readonly PlannedRun[], slots: number, lost = NOTHING_LOST): number[] {
  const freeMs: number[] = Array.from({ length: slots }, () => 0);
  const kept = new Set<string>();
  const endMs = new Map<string, number>();
  return runs.map((run, i) => {
    const { node, atMs, durationMs, fails } = run;
    if ((endMs.get(node) ?? 0) > atMs) throw new Error(`${node} comes again while it runs: too few slots`);
    const isReturn = kept.delete(node);
    const slot = freeMs.indexOf(Math.min(...freeMs));
    const free = freeMs[slot] ?? 0;
    const mustWait = !isReturn && free > atMs;
    const startMs = mustWait ? free + lost.handOverMs() : atMs + lost.directMs();
    endMs.set(node, startMs + durationMs);
    if (isReturn) return startMs - atMs;
    freeMs[slot] = startMs + durationMs;
    if (fails) {
      kept.add(node);
      const next = runs.slice(i + 1).find((later) => later.node === node);
      freeMs[slot] = next ? next.atMs + lost.directMs() + next.durationMs : Infinity;
    }
    return startMs - atMs;
  });
}
