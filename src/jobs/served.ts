/**
 * Whether a target need not be run, because a good run of the same task with the same parameters has begun after it was
 * asked for (docs/adr/0058). Pure.
 */
import type { RunRecord, TaskRun } from '../lock/records.ts';
import { whyNotStart } from './stage.ts';
import type { End, Seen, SeenTarget } from './transactions.ts';

/** What the document of a target says of the run that has served it. */
export interface ServedEnd extends Omit<End, 'endedAt'> {
  readonly state: 'good';
  readonly run: string;
  readonly served: true;
  readonly why: string;
}

export interface Serving {
  /** The node's last run in each group of the task; undefined: none is known. */
  readonly runs: readonly (Seen<RunRecord> | undefined)[];
  /** Of the run that would start for the target. */
  readonly digest: string;
  readonly nowMs: number;
}

/** Whether a run for it could start now: a try is served by nothing. */
export function mayBeServed({ spec, stage, targetStage, document }: SeenTarget, nowMs: number): boolean {
  const { noop = false, until } = spec.value;
  const startable = { stage: stage.value, targetStage, document: document?.value, until };
  const not = whyNotStart(startable, nowMs);
  return !noop && (!not || (not.kind === 'not-yet' && not.why === 'pause'));
}

/**
 * The stage's index is that of its opening: while it is open nothing else writes it. A run whose claim has a greater one
 * began later, whatever any clock says. A record of another cluster's may have an index that its own key has not reached.
 */
export function servedBy(target: SeenTarget, { runs, digest, nowMs }: Serving): ServedEnd | undefined {
  if (!mayBeServed(target, nowMs)) return undefined;
  const opened = target.stage.index;
  const [first] = runs;
  if (!first?.value.task) return undefined;
  const { run, task } = first.value;
  const isServing = (seen: Seen<RunRecord> | undefined): boolean =>
    seen?.value.task !== undefined &&
    seen.value.run === run &&
    seen.value.outcome === 'succeeded' &&
    seen.value.task.digest === digest &&
    seen.value.task.from > opened &&
    seen.value.task.from <= seen.index;
  if (!runs.every(isServing)) return undefined;
  return { state: 'good', run, served: true, why: `served by ${whose(task)}` };
}

const whose = ({ job, triggered }: TaskRun): string =>
  job === undefined ? (triggered ? 'a run that a change started' : 'a run by hand') : `the run of job ${job}`;
