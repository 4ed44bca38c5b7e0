/** When who follows a job does what whoever looks at one does (`tendJob`). */
import { CLOCK_DIFFERENCE_MS } from '../lock/decide.ts';
import type { JobRef } from './keys.ts';
import { noSights, tendJob } from './tend.ts';
import type { Tender } from './tend.ts';
import type { JobView } from './view.ts';

export interface Looker extends Tender {
  readonly ref: JobRef;
}

/** A lock that goes wakes nobody who watches the job, so locks are looked at this often while targets run. */
const TEND_MS = 30_000;

/**
 * For one look after another. Each says in how many milliseconds the next one is due if nothing changes; Infinity: none is.
 * @throws RunlockError when Consul can't be reached.
 */
export function createLooker(looker: Looker): (view: JobView) => Promise<number> {
  const { clock } = looker.deps;
  let sights = noSights;
  let tendedMs = -Infinity;
  return async (view) => {
    if (view.isOver) return Infinity;
    const endsInMs = expiresInMs(view, clock.now());
    const needsTending = endsInMs <= 0 || view.targets.some(({ state }) => state === 'running');
    if (!needsTending && view.job.spec.value.offline === 'wait') return endsInMs;
    if (clock.monotonicMs() - tendedMs >= TEND_MS) {
      tendedMs = clock.monotonicMs();
      ({ sights } = await tendJob(looker, view, sights));
    }
    const nextMs = Math.max(1, tendedMs + TEND_MS - clock.monotonicMs());
    return endsInMs <= 0 ? nextMs : Math.min(nextMs, endsInMs);
  };
}

/** Infinity: it is stopped already. */
function expiresInMs({ job }: JobView, nowMs: number): number {
  const { kind } = job.stage.value;
  if (kind === 'stopped' || kind === 'done') return Infinity;
  return Date.parse(job.spec.value.until) + CLOCK_DIFFERENCE_MS - nowMs;
}
