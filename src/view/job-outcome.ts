/** How a job ended, as an exit status. Pure. */
import { FAILURES } from '../jobs/documents.ts';
import type { ShownState } from '../jobs/stage.ts';
import type { JobReport } from './job.ts';

/** Exit statuses of `job start` and `job watch`. */
export const JOB_EXIT = { good: 0, failed: 1, stopped: 2, cancelled: 3, neverRan: 4 } as const;

/**
 * - 0: every target is good.
 * - 3: an operator cancelled the job before that.
 * - 2: the job was stopped, and targets never started because of that.
 * - 1: some targets failed.
 * - 4: none failed, but some never ran: they refused, were offline, or their time was over.
 */
export function exitOf({ states, stopped }: Pick<JobReport, 'states' | 'stopped'>): number {
  const count = (...names: readonly ShownState[]) =>
    names.reduce((sum, name) => sum + (states[name] ?? 0), 0);
  const total = Object.values(states).reduce((sum, each) => sum + each, 0);
  if (total > 0 && count('good') === total) return JOB_EXIT.good;
  if (stopped?.why === 'cancelled') return JOB_EXIT.cancelled;
  if (count('not-started') > 0) return JOB_EXIT.stopped;
  if (count(...FAILURES) > 0) return JOB_EXIT.failed;
  return count('cancelled') > 0 ? JOB_EXIT.cancelled : JOB_EXIT.neverRan;
}

/** As `exitOf`, for a job that goes on: whether its targets accepted it. 0: none refused. */
export const exitOfAnswers = ({ states }: Pick<JobReport, 'states'>): number =>
  (states.refused ?? 0) + (states.expired ?? 0) + (states.offline ?? 0) > 0
    ? JOB_EXIT.neverRan
    : JOB_EXIT.good;
