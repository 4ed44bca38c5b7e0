/**
 * What whoever looks at a job does for it: stops it when its time is over, and ends targets whose run is provably gone. So
 * no job goes on for ever, though nobody controls it. Who has no right to write just looks.
 */
import { FIRST_CONTACT } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import { CLOCK_DIFFERENCE_MS } from '../lock/decide.ts';
import { groupKeys } from '../lock/keys.ts';
import type { Contender } from './contend.ts';
import { endTarget, stopJob } from './end.ts';
import { goneRuns, watchRuns } from './gone.ts';
import type { Watched } from './gone.ts';
import type { JobRef } from './keys.ts';
import { isExpired, isUnderWay } from './stage.ts';
import type { SeenTarget } from './transactions.ts';
import type { JobView } from './view.ts';

export interface Looker extends Omit<Contender, 'rule'> {
  readonly prefix: string;
  readonly ref: JobRef;
}

/** A lock that goes wakes nobody who watches the job, so locks are looked at this often while targets run. */
const LOCKS_MS = 30_000;

/**
 * For one look after another. Each says in how many milliseconds the next one is due if nothing changes; Infinity: none is.
 * @throws RunlockError when Consul can't be reached.
 */
export function createLooker(looker: Looker): (view: JobView) => Promise<number> {
  const { clock } = looker.deps;
  let watched: Watched = new Map();
  let mayWrite = true;
  let lookedMs = -Infinity;
  return async (view) => {
    if (view.isOver || !mayWrite) return Infinity;
    try {
      if (await expire(looker, view)) return 0;
      const endMs = expiresInMs(view, clock.now());
      if (!view.targets.some(({ document }) => document && isUnderWay(document))) return endMs;
      const leftMs = lookedMs + LOCKS_MS - clock.monotonicMs();
      if (leftMs > 0) return Math.min(endMs, leftMs);
      lookedMs = clock.monotonicMs();
      watched = await seeLocks(looker, view, watched);
      await endGone(looker, view, watched);
      return Math.min(endMs, LOCKS_MS);
    } catch (error) {
      if (!isRunlockError(error, 'forbidden')) throw error;
      mayWrite = false;
      return Infinity;
    }
  };
}

/** Infinity: it is stopped already. */
function expiresInMs({ job }: JobView, nowMs: number): number {
  const { kind } = job.stage.value;
  if (kind === 'stopped' || kind === 'done') return Infinity;
  return Math.max(1, Date.parse(job.spec.value.until) + CLOCK_DIFFERENCE_MS - nowMs);
}

/** Whether it has stopped the job, because its time is over. */
export async function expire(looker: Looker, { ref, job }: JobView): Promise<boolean> {
  const { kind } = job.stage.value;
  if (kind === 'stopped' || kind === 'done') return false;
  const { until, home } = job.spec.value;
  if (!isExpired(until, looker.deps.clock.now())) return false;
  const result = await stopJob({ ...looker, ref, home }, { why: 'expired' });
  return result.kind === 'stopped';
}

async function seeLocks(
  { consul, deps, prefix, signal }: Looker,
  { job, targets }: JobView,
  before: Watched,
): Promise<Watched> {
  const keys = groupKeys(prefix, job.spec.value.home);
  const trees = [keys.slotPrefix, keys.node('')];
  const limits = { ...FIRST_CONTACT, signal };
  const entries = await consul.readAll(
    trees.map((key) => ({ verb: 'get-tree', key })),
    limits,
  );
  // A transaction leaves out what this token may not read: what is hidden must not look gone.
  for (const key of trees)
    await consul.get(`${key}.may-read`, { ...limits, rule: `key_prefix "${key}" { policy = "read" }` });
  return watchRuns(before, { targets, keys, entries }, deps.clock.monotonicMs());
}

async function endGone(looker: Looker, { targets }: JobView, watched: Watched): Promise<void> {
  const { clock } = looker.deps;
  for (const [node, { run, evidence }] of goneRuns(watched, clock.monotonicMs())) {
    if (targets.find((each) => each.node === node)?.document?.run !== run) continue;
    const end = ({ document }: SeenTarget) =>
      document?.value.state === 'running' && document.value.run === run
        ? ({ state: 'lost', endedAt: new Date(clock.now()).toISOString(), why: LOST } as const)
        : undefined;
    await endTarget({ ...looker, node }, { end, owners: [evidence] });
  }
}

const LOST = 'its run is gone, and how it ended is not known';
