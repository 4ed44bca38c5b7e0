/**
 * Every transaction of a job (docs/protocol.md, "Jobs"), as a list of steps. Consul applies all steps or none. Pure.
 * What they rest on was read in one transaction (src/jobs/read.ts). What a run of a job proves at its start and writes
 * at its end is added to the steps of the lock (`start`, `release`, `finish`, `endHeld`), in the same transaction.
 */
import type { Operation } from '../consul/consul.ts';
import type { JobObstacle, RunStep, SeenKey, WriteState } from '../lock/transactions.ts';
import { stillAs } from '../lock/transactions.ts';
import type { FinalState, Spec, Stage, Tally, TargetDocument, Targets } from './documents.ts';
import type { JobKeys, RequestKeys } from './keys.ts';
import {
  encodePointer,
  encodeSpec,
  encodeStage,
  encodeTail,
  encodeTally,
  encodeTarget,
  encodeTargets,
  encodeWatching,
} from './records.ts';
import { NO_STAGE, countFinal, next } from './stage.ts';

/** Operations in one transaction of Consul. */
export const MOST_OPERATIONS = 64;

/** Where a job's keys are. */
export interface JobPlace {
  readonly id: string;
  readonly keys: JobKeys;
  readonly requests: RequestKeys;
}

/** A document, and its index when it was read. */
export interface Seen<T> {
  readonly value: T;
  readonly index: number;
}

/** A job as it was read, all of it at one moment. */
export interface SeenJob extends JobPlace {
  readonly spec: Seen<Spec>;
  readonly stage: Seen<Stage>;
  readonly tally: Seen<Tally>;
}

/** One target of it, read at the same moment. */
export interface SeenTarget extends SeenJob {
  readonly node: string;
  /** -1: it belongs to none. */
  readonly targetStage: number;
  /** Absent: the target is queued. */
  readonly document?: Seen<TargetDocument>;
}

const step = (means: JobObstacle, operation: Operation): RunStep => ({ means, operation });

const unchanged = (means: JobObstacle, key: string, index: number): RunStep => ({
  means,
  operation: { verb: 'check-index', key, index },
});

/** Index 0 means: create the key, and fail if it exists. */
const write = (means: JobObstacle, { key, value }: WriteState, index: number): RunStep => ({
  means,
  operation: { verb: 'cas', key, value, index },
});

const removeSeen = (key: string, index: number): RunStep => ({
  means: 'target',
  operation: { verb: 'delete-cas', key, index },
});

const stageIs = ({ keys, stage }: Pick<SeenJob, 'keys' | 'stage'>): RunStep =>
  unchanged('stage', keys.stage, stage.index);

const specIs = ({ id, requests, spec }: Pick<SeenJob, 'id' | 'requests' | 'spec'>): RunStep =>
  unchanged('spec', requests.spec(id), spec.index);

const writeStage = ({ keys }: JobPlace, stage: Stage, index: number): RunStep =>
  write('stage', { key: keys.stage, value: encodeStage(stage) }, index);

/** The document as it was read, and no other, becomes this one. */
const writeTarget = ({ keys, node, document }: SeenTarget, change: Omit<TargetDocument, 'rev'>): RunStep => {
  const value = encodeTarget({ ...document?.value, ...change, rev: (document?.value.rev ?? -1) + 1 });
  return write('target', { key: keys.node(node), value }, document?.index ?? 0);
};

/** What a starter writes first. */
export interface NewJob extends JobPlace {
  readonly spec: Spec;
  readonly tally: Tally;
  /** The stage of the job that this one retries, which must still be over. */
  readonly retried?: SeenKey;
}

/** Begins a job. Nobody acts on it while its stage is `fill`. */
export function create({ id, keys, requests, spec, tally, retried }: NewJob): RunStep[] {
  const stage = encodeStage({ rev: 0, kind: 'fill' });
  return [
    ...(retried ? [step('stage', stillAs(retried))] : []),
    write('spec', { key: requests.spec(id), value: encodeSpec(spec) }, 0),
    write('stage', { key: keys.stage, value: stage }, 0),
    write('tally', { key: keys.tally, value: encodeTally(tally) }, 0),
  ];
}

/** Writes the next list of targets, and wakes its nodes, but for those that were offline at the start. */
export function fill(job: Omit<SeenJob, 'tally'>, list: Targets): RunStep[] {
  const { id, requests, spec } = job;
  const { filled, nonce } = spec.value;
  const value = encodePointer({ nonce, chunk: filled });
  const more = encodeSpec({ ...spec.value, filled: filled + 1 });
  const awake = list.targets.filter(([, stage]) => stage !== NO_STAGE);
  return [
    stageIs(job),
    write('spec', { key: requests.spec(id), value: more }, spec.index),
    write('spec', { key: requests.targets(id, filled), value: encodeTargets(list) }, 0),
    ...awake.map(([node]) => step('target', { verb: 'set', key: requests.pointer(node, id), value })),
  ];
}

/** All lists are written: the job begins. `stage`: what `ready` says of the tally that was read. */
export const markReady = (job: SeenJob, stage: Stage): RunStep[] => [
  specIs(job),
  unchanged('tally', job.keys.tally, job.tally.index),
  writeStage(job, stage, job.stage.index),
];

/** Stops a job. `stage`: what `stopped` says. */
export const stop = (job: Omit<SeenJob, 'spec' | 'tally'>, stage: Stage): RunStep[] => [
  writeStage({ ...job }, stage, job.stage.index),
];

/** A node takes its part on, in a job whose stage is open. */
export const accept = (target: SeenTarget, at: string): RunStep[] => [
  stageIs(target),
  writeTarget(target, { state: 'accepted', acceptedAt: at }),
];

/** Says, for people, what a target waits for. */
export const note = (target: SeenTarget, why: string): RunStep[] => [
  stageIs(target),
  writeTarget(target, { state: 'waiting', why }),
];

/** The run that starts a target's command. */
export interface JobRun {
  readonly run: string;
  readonly bootId: string;
  readonly at: string;
}

/**
 * For `start`: the job still lets this target begin, and asks for what was read; the target is running. In the order of
 * Consul's log no start follows the stop of its job.
 */
export function startTarget(target: SeenTarget, { run, bootId, at }: JobRun): RunStep[] {
  const started = { state: 'running', run, bootId, startedAt: at } as const;
  return [stageIs(target), specIs(target), writeTarget(without(target), started)];
}

/** What a target waited for is over. */
function without(target: SeenTarget): SeenTarget {
  if (!target.document) return target;
  const { value, index } = target.document;
  const { why, ...rest } = value;
  return why === undefined ? target : { ...target, document: { value: rest, index } };
}

/** A target's end. */
export type End = Omit<TargetDocument, 'rev' | 'state'> & { readonly state: FinalState };

export interface Ended {
  readonly end: End;
  readonly nowMs: number;
  /** The node itself, which needs its pointer no more; nobody else may delete it. */
  readonly isNode?: true;
}

/**
 * The end of a target: its document, as it was read, gets its final state, the tally counts it, and what that makes of
 * the stage is in the same transaction, so that no start comes between. For the end of a run, and by itself.
 */
export function final(target: SeenTarget, { end, nowMs, isNode }: Ended): RunStep[] {
  const { id, keys, requests, node, spec, stage, tally } = target;
  const counted = countFinal(tally.value, target.targetStage, end.state);
  const after = next(stage.value, counted, { rules: spec.value, nowMs });
  return [
    after ? writeStage(target, after, stage.index) : stageIs(target),
    writeTarget(target, end),
    write('tally', { key: keys.tally, value: encodeTally(counted) }, tally.index),
    ...(isNode ? [step('target', { verb: 'delete', key: requests.pointer(node, id) })] : []),
    step('target', { verb: 'delete', key: keys.tail(node) }),
  ];
}

/** For the end of a run whose host reboots: no final state, its claim keeps the slot. */
export const reboot = (target: SeenTarget, more: Omit<TargetDocument, 'rev' | 'state'>): RunStep[] => [
  writeTarget(target, { ...more, state: 'rebooting' }),
];

/** Says, for people, how a run ended whose target had its final state already. */
export const late = (target: SeenTarget, outcome: string): RunStep[] =>
  target.document ? [writeTarget(target, { ...target.document.value, late: outcome })] : [];

/**
 * By who looks: nothing has changed of the claims of a target's run (index 0: there is none) since they were seen to be
 * without a lock for too long. A run that takes its lock back changes its claim.
 */
export const lost = (target: SeenTarget, owners: readonly SeenKey[], ended: Ended): RunStep[] => [
  ...owners.map((owner): RunStep => ({ means: 'owner', operation: stillAs(owner) })),
  ...final(target, ended),
];

/** A node removes its pointer: its target has ended (`document`), or the job was stopped before it began (`stage`). */
export function drop(target: SeenTarget, because: 'document' | 'stage', pointerIndex: number): RunStep[] {
  const { id, keys, requests, node, document } = target;
  const key = requests.pointer(node, id);
  return [
    because === 'stage' ? stageIs(target) : unchanged('target', keys.node(node), document?.index ?? 0),
    removeSeen(key, pointerIndex),
  ];
}

/** A node removes a pointer whose request is gone. One that was set again has another index, and stays. */
export const dropOrphan = (pointer: SeenKey): RunStep[] => [removeSeen(pointer.key, pointer.index)];

/** Live output, while the target's document is as it was read: a later one would be found by nobody. */
export const tail = ({ keys, node, document }: SeenTarget, line: string): RunStep[] => [
  unchanged('target', keys.node(node), document?.index ?? 0),
  step('target', { verb: 'set', key: keys.tail(node), value: encodeTail({ line }) }),
];

/** Somebody looks at the job's output, while its stage is as it was read: a later mark would be removed by nobody. */
export const markWatched = (
  job: Pick<SeenJob, 'keys' | 'stage'>,
  { watch, until }: { readonly watch: string; readonly until: string },
): RunStep[] => [
  stageIs(job),
  step('stage', { verb: 'set', key: job.keys.watched(watch), value: encodeWatching({ until }) }),
];

export const unmarkWatched = (keys: JobKeys, watch: string): RunStep[] => [
  step('stage', { verb: 'delete', key: keys.watched(watch) }),
];

/** Removes pointers that are left of a job that is over, at most 63 at once; then `collect`. */
export const dropPointers = (job: Omit<SeenJob, 'spec' | 'tally'>, nodes: readonly string[]): RunStep[] => [
  stageIs(job),
  ...nodes.map((node) => step('target', { verb: 'delete', key: job.requests.pointer(node, job.id) })),
];

/** Removes a job that is over. */
export const collect = (job: Omit<SeenJob, 'spec' | 'tally'>): RunStep[] => [
  stageIs(job),
  step('target', { verb: 'delete-tree', key: job.keys.prefix }),
  step('target', { verb: 'delete-tree', key: job.requests.targetsPrefix(job.id) }),
  step('spec', { verb: 'delete', key: job.requests.spec(job.id) }),
];

/** Of a run of a job. */
export interface RunSize {
  readonly groups: number;
  readonly publish: number;
  readonly during: number;
  /** States that it starts under. */
  readonly conditions: number;
}

/** Operations of the transaction that ends it: 6 a group, 5 of the job, 1 of a trigger. */
export const endOperations = ({ groups, publish, during }: RunSize): number =>
  6 * groups + publish + during + 6;

/** Operations of the transaction that starts it. */
export const startOperations = ({ groups, during, conditions }: RunSize): number =>
  2 * groups + 3 + conditions + during;

/** Whether a run of a job starts and ends in one transaction each. */
export const fits = (size: RunSize): boolean =>
  Math.max(endOperations(size), startOperations(size)) <= MOST_OPERATIONS;
