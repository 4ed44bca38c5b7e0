/** How a job ended, as an exit status. Pure. */
import { FAILURES } from '../jobs/documents.ts';
import type { ShownState } from '../jobs/stage.ts';
import type { JobReport } from './job.ts';

/** Exit statuses of `job start` and `job watch`. */
export const JOB_EXIT = { good: 0, failed: 1, stopped: 2, cancelled: 3, neverRan: 4 } as const;

/**
 * - 0: every target is good.
 * - 3: targets were cancelled. A cancel that came too late for all of them has changed nothing, and counts for nothing.
 * - 2: the job was stopped, and targets never started because of that.
 * - 1: some targets failed.
 * - 4: none failed, but some never ran: they refused, were offline, their time was over, or their records can't be read.
 */
export function exitOf({ states }: Pick<JobReport, 'states'>): number {
  const count = (...names: readonly ShownState[]) =>
    names.reduce((sum, name) => sum + (states[name] ?? 0), 0);
  const total = Object.values(states).reduce((sum, each) => sum + each, 0);
  if (total > 0 && count('good') === total) return JOB_EXIT.good;
  if (count('cancelled') > 0) return JOB_EXIT.cancelled;
  if (count('not-started') > 0) return JOB_EXIT.stopped;
  return count(...FAILURES) > 0 ? JOB_EXIT.failed : JOB_EXIT.neverRan;
}

/** As `exitOf`, for a job that goes on: whether its targets accepted it. 0: none refused. */
export const exitOfAnswers = ({ states }: Pick<JobReport, 'states'>): number =>
  (states.refused ?? 0) + (states.expired ?? 0) + (states.offline ?? 0) + (states.unreadable ?? 0) > 0
    ? JOB_EXIT.neverRan
    : JOB_EXIT.good;
