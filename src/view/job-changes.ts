/** What is new in a job since the last look. Pure. */
import { isJobOver } from './job.ts';
import type { JobReport, TargetReport } from './job.ts';

/** One line of `job watch`; with `--json` one object. */
export type JobChange =
  /** The first look. */
  | {
      readonly event: 'job';
      readonly job: string;
      readonly task: string;
      readonly home: string;
      readonly until: string;
      readonly state: JobReport['state'];
      readonly targets: number;
      readonly stages: readonly number[];
      readonly selection?: JobReport['selection'];
    }
  /** The next stage is open: `stage` of `stages`, from 0. */
  | {
      readonly event: 'stage';
      readonly job: string;
      readonly stage: number;
      readonly stages: readonly number[];
      readonly notBefore?: string;
    }
  | ({ readonly event: 'target'; readonly job: string } & TargetReport)
  | ({ readonly event: 'stopped'; readonly job: string } & NonNullable<JobReport['stopped']>)
  /** A record that can't be read. */
  | { readonly event: 'problem'; readonly job: string; readonly problem: string }
  /** Nothing of the job happens any more. */
  | {
      readonly event: 'over';
      readonly job: string;
      readonly state: JobReport['state'];
      readonly states: JobReport['states'];
      readonly stopped?: JobReport['stopped'];
    };

/** In the order in which people want to read them. @param before undefined: nothing was told yet. */
export function changesOf(before: JobReport | undefined, after: JobReport): readonly JobChange[] {
  const { job, task, home, until, state, stopped, stages, stage, selection, notBefore } = after;
  const known = new Map(before?.targets.map((target) => [target.node, markOf(target)]));
  const told = new Set(before?.problems);
  // A job that nobody has answered yet is one line.
  const news = after.targets.filter((target) => markOf(target) !== (known.get(target.node) ?? QUEUED));
  const isStopped = stopped && (!before?.stopped || before.stopped.kill !== stopped.kill);
  const isOver = isJobOver(after) && !(before && isJobOver(before));
  return [
    ...(before
      ? []
      : [
          {
            event: 'job',
            job,
            task,
            home,
            until,
            state,
            targets: after.targets.length,
            stages,
            ...(selection && { selection }),
          } as const,
        ]),
    ...(stage !== undefined && stage > 0 && stage !== before?.stage
      ? [{ event: 'stage', job, stage, stages, ...(notBefore !== undefined && { notBefore }) } as const]
      : []),
    ...news.map((target) => ({ event: 'target', job, ...target }) as const),
    ...(isStopped ? [{ event: 'stopped', job, ...stopped } as const] : []),
    ...after.problems
      .filter((problem) => !told.has(problem))
      .map((problem) => ({ event: 'problem', job, problem }) as const),
    ...(isOver
      ? [{ event: 'over', job, state, states: after.states, ...(stopped && { stopped }) } as const]
      : []),
  ];
}

const QUEUED = 'queued';

/** Two looks with the same mark show the same. */
const markOf = ({ state, why = '', late = '', lastLine = '', waitsIn }: TargetReport): string => {
  // Once: each end of a run moves all places of the queue.
  if (waitsIn !== undefined) return JSON.stringify([state, waitsIn]);
  // The last line of a run that has ended comes with its end.
  const line = state === 'running' ? lastLine : '';
  return why === '' && late === '' && line === '' ? state : JSON.stringify([state, why, late, line]);
};
