/** A job, and what became of each of its targets, from what is stored. Pure. */
import type { Entry } from '../consul/consul.ts';
import { isRunlockError } from '../errors.ts';
import type { Spec, Stage, StopReason, TargetDocument } from '../jobs/documents.ts';
import { jobKeys, jobText, requestKeys } from '../jobs/keys.ts';
import type { JobRef } from '../jobs/keys.ts';
import { decodeStage, decodeTarget, decodeTargets } from '../jobs/records.ts';
import { isEnded, isOver, isUnderWay, shownState } from '../jobs/stage.ts';
import type { ShownState } from '../jobs/stage.ts';

/** What `job show --json` prints. Times are ISO 8601 in UTC; names ending in Ms are milliseconds. */
export interface JobView {
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
  readonly state: JobState;
  readonly stopped?: {
    readonly why: StopReason;
    readonly by?: string;
    readonly reason?: string;
    readonly at: string;
    readonly kill?: true;
  };
  /** When the last target of a job that was not stopped ended. */
  readonly doneAt?: string;
  readonly targets: readonly TargetView[];
  /** How many targets are in which state; together they are all. */
  readonly states: Readonly<Partial<Record<ShownState, number>>>;
  /** Records that could not be read. */
  readonly problems: readonly string[];
}

/**
 * `incomplete`: the request is still being written, nothing of it starts. `stopping`: it is stopped, but some of its runs
 * are still under way. `unknown`: what tells can't be read.
 */
export type JobState = 'incomplete' | 'open' | 'stopping' | 'stopped' | 'done' | 'unknown';

export interface TargetView {
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
  readonly lastLine?: string;
  readonly logBytes?: number;
  /** How its run ended after its state was final. */
  readonly late?: string;
}

export interface JobFacts {
  readonly prefix: string;
  readonly ref: JobRef;
  /** Wall-clock milliseconds. */
  readonly now: number;
}

/**
 * The request and its targets' lists, and all below the job's own folder, in any order.
 * @throws RunlockError `incompatible`: the request can't be read.
 */
export function viewJob(
  spec: Spec,
  entries: readonly Entry[],
  { prefix, ref, now }: JobFacts,
): { readonly view: JobView; readonly stage: Stage | undefined } {
  const problems: string[] = [];
  const attempt = <T>(decode: () => T): T | undefined => {
    try {
      return decode();
    } catch (error) {
      if (!isRunlockError(error, 'incompatible')) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  const keys = jobKeys(prefix, spec.home, ref);
  const stageEntry = entries.find(({ key }) => key === keys.stage);
  const stage = stageEntry && attempt(() => decodeStage(stageEntry));
  if (!stageEntry) problems.push(`${keys.stage}: this key is missing, so nothing of the job can start`);
  const documents = new Map<string, TargetDocument>();
  for (const entry of entries.filter(({ key }) => key.startsWith(keys.nodesPrefix))) {
    const document = attempt(() => decodeTarget(entry));
    if (document) documents.set(entry.key.slice(keys.nodesPrefix.length), document);
  }
  const below = requestKeys(prefix, ref.principal).targetsPrefix(ref.id);
  const lists = entries.filter(({ key }) => key.startsWith(below)).sort(byNumber(below));
  const targets = lists
    .flatMap((entry) => attempt(() => decodeTargets(entry))?.targets ?? [])
    .map(([node, targetStage]) => viewTarget({ node, stage: targetStage }, documents.get(node), stage));
  const underWay = [...documents.values()].filter(isUnderWay).length;
  const { params, task, home, by, reason, until, timeoutMs, noop, of } = spec;
  const view: JobView = {
    v: 1,
    prefix,
    at: new Date(now).toISOString(),
    job: jobText(ref),
    ...{ principal: ref.principal, id: ref.id, task, params, home, by },
    ...(reason !== undefined && { reason }),
    ...{ askedAt: spec.at, until },
    ...(timeoutMs !== undefined && { timeoutMs }),
    ...(noop && { noop }),
    ...(of !== undefined && { of }),
    state: stateOf(stage, underWay),
    ...(stage?.kind === 'stopped' && { stopped: stopOf(stage) }),
    ...(stage?.kind === 'done' && { doneAt: stage.at }),
    targets,
    states: countStates(targets),
    problems,
  };
  return { view, stage };
}

/** Lists are numbered; `10` comes after `9`. */
const byNumber =
  (below: string) =>
  (a: Entry, b: Entry): number =>
    Number(a.key.slice(below.length)) - Number(b.key.slice(below.length));

function stateOf(stage: Stage | undefined, underWay: number): JobState {
  if (!stage) return 'unknown';
  if (stage.kind === 'fill') return 'incomplete';
  if (stage.kind === 'stopped' && !isOver(stage, underWay)) return 'stopping';
  return stage.kind;
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

function viewTarget(
  { node, stage: targetStage }: Pick<TargetView, 'node' | 'stage'>,
  document: TargetDocument | undefined,
  stage: Stage | undefined,
): TargetView {
  const unknown: Stage = { rev: 0, kind: 'fill' };
  const state = shownState(document, targetStage, stage ?? unknown);
  if (!document) return { node, stage: targetStage, state };
  // `rev` and `state` are shown otherwise, and the boot is of no use to people.
  const shown = ['run', 'served', 'acceptedAt', 'startedAt', 'endedAt', 'exitCode', 'why'] as const;
  const more = ['lastLine', 'logBytes', 'late'] as const;
  const kept = [...shown, ...more].filter((field) => document[field] !== undefined);
  return {
    ...{ node, stage: targetStage, state },
    ...Object.fromEntries(kept.map((field) => [field, document[field]])),
  };
}

export function countStates(targets: readonly Pick<TargetView, 'state'>[]): JobView['states'] {
  const counts: Partial<Record<ShownState, number>> = {};
  for (const { state } of targets) counts[state] = (counts[state] ?? 0) + 1;
  return counts;
}

/** Whether nothing of the job happens any more. */
export const isJobOver = ({ state }: Pick<JobView, 'state'>): boolean =>
  state === 'done' || state === 'stopped';

/** Whether each target has been accepted or has ended, so that a starter need not wait any longer. */
export const isAnswered = ({ state, targets }: JobView): boolean =>
  isJobOver({ state }) || (state !== 'incomplete' && targets.every((target) => target.state !== 'queued'));

/** A target that changes no more. */
export const isTargetEnded = ({ state }: Pick<TargetView, 'state'>): boolean => isEnded(state);
