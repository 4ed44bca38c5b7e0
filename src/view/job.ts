/** A job, and what became of each of its targets, from what is stored. Pure. */
import type { Selection, Spec, Stage, StopReason } from '../jobs/documents.ts';
import { jobText } from '../jobs/keys.ts';
import { isEnded } from '../jobs/stage.ts';
import type { ShownState } from '../jobs/stage.ts';
import type { JobView, TargetView } from '../jobs/view.ts';

/** What `job show --json` prints. Times are ISO 8601 in UTC; names ending in Ms are milliseconds. */
export interface JobReport {
  readonly v: 1;
  readonly prefix: string;
  /** When the data was read, by the reader's clock. */
  readonly at: string;
  /** `ops/deploy-42` */
  readonly job: string;
  readonly principal: string;
  readonly id: string;
  readonly task: string;
  readonly params: Readonly<Record<string, string>>;
  /** The group that the job belongs to. */
  readonly home: string;
  /** Who asked, by the asker's own word. */
  readonly by: string;
  readonly reason?: string;
  readonly askedAt: string;
  /** Nothing of it starts after this. */
  readonly until: string;
  readonly timeoutMs?: number;
  readonly noop?: true;
  /** The job that this one retries. */
  readonly of?: string;
  /** What found its targets. */
  readonly selection?: Selection;
  readonly canary?: string;
  readonly steps?: readonly string[];
  /** How many targets each stage has. */
  readonly stages: readonly number[];
  /** The stage that is open, from 0, and when its first target may start, after a pause. */
  readonly stage?: number;
  readonly notBefore?: string;
  readonly pauseMs?: number;
  readonly splayMs?: number;
  readonly maxRunning?: number;
  /** It is stopped by one failure more. */
  readonly maxFailures: number;
  readonly offline: Spec['offline'];
  readonly state: JobState;
  /** Of an incomplete request: how many of its lists of targets are written. */
  readonly written?: { readonly lists: number; readonly of: number };
  readonly stopped?: {
    readonly why: StopReason;
    readonly by?: string;
    readonly reason?: string;
    readonly at: string;
    readonly kill?: true;
  };
  /** When the last target of a job that was not stopped ended. */
  readonly doneAt?: string;
  readonly targets: readonly TargetReport[];
  /** How many targets are in which state; together they are all. */
  readonly states: Readonly<Partial<Record<ShownState, number>>>;
  /** Records that could not be read. */
  readonly problems: readonly string[];
}

/**
 * `incomplete`: the request is still being written, nothing of it starts. `stopping`: it is stopped, but some of its runs
 * are still under way.
 */
export type JobState = 'incomplete' | 'open' | 'stopping' | 'stopped' | 'done';

export interface TargetReport {
  readonly node: string;
  /** From 0; -1: it was offline when the job began. */
  readonly stage: number;
  readonly state: ShownState;
  readonly run?: string;
  /** The run was another's, and served this request too. */
  readonly served?: true;
  readonly acceptedAt?: string;
  readonly startedAt?: string;
  readonly endedAt?: string;
  readonly exitCode?: number;
  /** Why it was refused, what it waits for. */
  readonly why?: string;
  /** The group in which its run waits. Absent: no run of it waits. */
  readonly waitsIn?: string;
  /** In the queue there, from 1; absent: it waits without a place. */
  readonly place?: number;
  /** Of its output; of a run that is under way: as it was at most some seconds ago, while somebody watches. */
  readonly lastLine?: string;
  /** No live session holds the slots of its run, so it may have ended. Absent: one does, or nobody could look. */
  readonly sessionGone?: true;
  /** How its run ended after its state was final. */
  readonly late?: string;
}

/** @param nowMs wall-clock milliseconds. @param gone by node, the runs whose session is gone. */
export function reportJob(
  { ref, job, targets, counts, isOver, isComplete }: JobView,
  {
    prefix,
    nowMs,
    gone,
  }: {
    readonly prefix: string;
    readonly nowMs: number;
    readonly gone?: ReadonlyMap<string, { readonly run: string }>;
  },
): JobReport {
  const { params, task, home, by, at, reason, until, timeoutMs, noop, of, stages, maxFailures, offline } =
    job.spec.value;
  const stage = job.stage.value;
  return {
    v: 1,
    prefix,
    at: new Date(nowMs).toISOString(),
    job: jobText(ref),
    principal: ref.principal,
    id: ref.id,
    task,
    params,
    home,
    by,
    ...(reason !== undefined && { reason }),
    askedAt: at,
    until,
    ...(timeoutMs !== undefined && { timeoutMs }),
    ...(noop && { noop }),
    ...(of !== undefined && { of }),
    ...rolloutOf(job.spec.value),
    stages,
    maxFailures,
    offline,
    ...(stage.kind === 'open' && { stage: stage.stage }),
    ...(stage.kind === 'open' && stage.notBefore !== undefined && { notBefore: stage.notBefore }),
    state: stateOf(stage, isOver),
    ...(!isComplete && { written: { lists: job.spec.value.filled, of: job.spec.value.chunks } }),
    ...(stage.kind === 'stopped' && { stopped: stopOf(stage) }),
    ...(stage.kind === 'done' && { doneAt: stage.at }),
    targets: targets.map((target) => reportTarget(target, gone?.get(target.node)?.run)),
    states: counts,
    problems: targets.flatMap(({ fault }) => fault ?? []),
  };
}

const rolloutOf = ({ selection, canary, steps, pauseMs, splayMs, maxRunning }: Spec) => ({
  ...(selection && { selection }),
  ...(canary !== undefined && { canary }),
  ...(steps && { steps }),
  ...(pauseMs > 0 && { pauseMs }),
  ...(splayMs !== undefined && { splayMs }),
  ...(maxRunning !== undefined && { maxRunning }),
});

export function stateOf(stage: Stage, isOver: boolean): JobState {
  if (stage.kind === 'fill') return 'incomplete';
  return stage.kind === 'stopped' && !isOver ? 'stopping' : stage.kind;
}

function stopOf({ why, by, reason, at, kill }: Extract<Stage, { kind: 'stopped' }>) {
  return {
    why,
    ...(by !== undefined && { by }),
    ...(reason !== undefined && { reason }),
    at,
    ...(kill && { kill }),
  };
}

/** `rev` and the boot are of no use to people, and the state is the one that counts. */
const SHOWN = [
  ...(['run', 'served', 'acceptedAt', 'startedAt', 'endedAt', 'exitCode', 'why'] as const),
  ...(['lastLine', 'late'] as const),
];

function reportTarget(
  { node, stage, state, document, line }: TargetView,
  goneRun: string | undefined,
): TargetReport {
  const kept = document ? SHOWN.filter((field) => document[field] !== undefined) : [];
  return {
    node,
    stage,
    state,
    ...Object.fromEntries(kept.map((field) => [field, document?.[field]])),
    ...(line !== undefined && { lastLine: line }),
    ...(goneRun !== undefined && state === 'running' && document?.run === goneRun && { sessionGone: true }),
  };
}

/** Whether nothing of the job happens any more. */
export const isJobOver = ({ state }: Pick<JobReport, 'state'>): boolean =>
  state === 'done' || state === 'stopped';

/** Whether each target has been accepted or has ended, so that a starter need not wait any longer. */
export const isAnswered = ({ state, targets }: JobReport): boolean =>
  isJobOver({ state }) || (state !== 'incomplete' && targets.every((target) => target.state !== 'queued'));

/** A target that changes no more. */
export const isTargetEnded = ({ state }: Pick<TargetReport, 'state'>): boolean => isEnded(state);
