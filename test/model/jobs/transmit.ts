// The very steps of src/jobs/transactions.ts and src/lock/transactions.ts, on the store in memory.
import { isFinal } from '../../../src/jobs/records.ts';
import type { Seen, SeenJob, SeenTarget } from '../../../src/jobs/transactions.ts';
import type { TargetDocument } from '../../../src/jobs/documents.ts';
import { groupKeys } from '../../../src/lock/keys.ts';
import type { HeldSeat, RunStep } from '../../../src/lock/transactions.ts';
import { transact } from '../store.ts';
import type { Store } from '../store.ts';
import { POINTER, documentIn, keys, place, requests, specIn, stageIn, tallyIn } from './world.ts';
import type { Job, Run, Sent, Target, TxName, Whole, World } from './world.ts';

/** A promise that a step breaks. */
export class Broken extends Error {}

const numbers = new Map<string, number>();
/**
 * A document's index stands for the document itself, for `rev` lets every one occur once. Only a restore brings one back;
 * so the model allows more than Consul, whose indexes never come back.
 */
function indexOf(value: string): number {
  const known = numbers.get(value);
  if (known !== undefined) return known;
  numbers.set(value, numbers.size + 1);
  return numbers.size;
}

const seen = <T>(text: string, value: T): Seen<T> => ({ value, index: indexOf(text) });

export const seenJob = (whole: Whole): SeenJob => ({
  ...place,
  spec: seen(whole.spec, specIn(whole)),
  stage: seen(whole.stage, stageIn(whole)),
  tally: seen(whole.tally, tallyIn(whole)),
});

/** A target's own keys have one name, whoever it is. */
export const NODE = 'n';

export function seenTarget(whole: Whole, target: Target): SeenTarget {
  const document = documentIn(target);
  return {
    ...{ ...seenJob(whole), node: NODE, targetStage: target.stage },
    ...(document && { document: seen(target.document, document) }),
  };
}

export const pointerIndex = ({ pointer }: Target): number => indexOf(pointer);

const group = groupKeys('p', 'g');
const ownerOf = ({ id, returns }: Pick<Run, 'id' | 'returns'>): string => `claim of ${id}, ${returns}`;
const sessionOf = (run: number): string => `s${run}`;

/** The slot of a run: the queue is left out, so each has its own. */
export const held = (run: Run): HeldSeat => ({
  seat: { keys: group, session: sessionOf(run.id), slot: run.id },
  index: indexOf(ownerOf(run)),
});

/** The claim of a run as it is now. */
export const ownerSeen = (run: Run) => ({ key: group.owner(run.id), index: indexOf(ownerOf(run)) });

type Pairs = (readonly [key: string, value: string, session?: string])[];

function storeOf(pairs: Pairs): Store {
  const there = pairs.filter(([, value]) => value !== '');
  const sessions = there.flatMap(([, , session]) => session ?? []);
  const entries = there.map(([key, value, session]) => {
    const index = indexOf(value);
    return { key, value, createIndex: index, modifyIndex: index, ...(session !== undefined && { session }) };
  });
  return { entries, sessions, index: 0 };
}

const wholePairs = ({ spec, stage, tally }: Whole): Pairs => [
  [requests.spec('j'), spec],
  [keys.stage, stage],
  [keys.tally, tally],
];

type Claimed = Pick<Run, 'id' | 'returns' | 'hasSession'>;

/** Claims and locks of the runs. */
const runPairs = (runs: readonly Claimed[]): Pairs =>
  runs.flatMap((run): Pairs => {
    const claim = [group.owner(run.id), ownerOf(run)] as const;
    return run.hasSession ? [claim, [group.lock(run.id), `lock of ${run.id}`, sessionOf(run.id)]] : [claim];
  });

const operations = (steps: readonly RunStep[]) => steps.map(({ operation }) => operation);

const valueIn = (store: Store, key: string): string =>
  store.entries.find((entry) => entry.key === key)?.value ?? '';

const wholeIn = (store: Store): Whole => ({
  spec: valueIn(store, requests.spec('j')),
  stage: valueIn(store, keys.stage),
  tally: valueIn(store, keys.tally),
});

/** The steps as the world sends them: one that is broken leaves some out. */
export const stepsOf = (world: World, tx: TxName, steps: readonly RunStep[]): readonly RunStep[] =>
  world.mutate?.(tx, steps) ?? steps;

/** What the job and one of its targets are after a request arrives; undefined: it is refused. @throws Broken */
export function applyToTarget(
  job: Job,
  target: Target,
  { tx, steps, spec, run }: Sent,
): { readonly job: Job; readonly target: Target } | undefined {
  const lives = target.runs.some(({ id }) => id === run?.id);
  const claimed: readonly Claimed[] = lives || !run ? target.runs : [...target.runs, run];
  const pairs: Pairs = [
    ...wholePairs(job),
    [keys.node(NODE), target.document],
    [requests.pointer(NODE, 'j'), target.pointer],
    ...runPairs(claimed),
  ];
  const { answer, store } = transact(storeOf(pairs), operations(steps));
  if (answer.kind === 'refused') return undefined;
  const whole = wholeIn(store);
  const after = {
    ...target,
    document: valueIn(store, keys.node(NODE)),
    pointer: valueIn(store, requests.pointer(NODE, 'j')),
  };
  judgeStage(job, whole);
  judgeTarget(job, target, after);
  if (spec !== undefined && spec !== job.spec)
    throw new Broken('promise 4: a start of what was asked before');
  const hasLock = target.runs.some(({ id, hasSession }) => id === run?.id && hasSession);
  if (tx === 'lost' && hasLock) throw new Broken('a run that has its lock is lost');
  return { job: { ...job, ...whole }, target: after };
}

/** The same for what concerns the whole job. */
export function applyToJob(
  job: Job,
  targets: readonly Target[],
  { steps }: Pick<Sent, 'steps'>,
): { readonly job: Job; readonly targets: readonly Target[] } | undefined {
  const pairs: Pairs = [
    ...wholePairs(job),
    // Which lists are written is known by what the request says, and by who was told.
    ...targets.map(({ told }, i) => [requests.targets('j', i), told ? 'list' : ''] as const),
    ...targets.map(({ pointer }, i) => [requests.pointer(nodeOf(i), 'j'), pointer] as const),
  ];
  const { answer, store } = transact(storeOf(pairs), operations(steps));
  if (answer.kind === 'refused') return undefined;
  const whole = wholeIn(store);
  judgeStage(job, whole);
  const after = targets.map((target, i) => ({
    ...target,
    // All pointers are alike: which list names the node is known by its place.
    pointer: valueIn(store, requests.pointer(nodeOf(i), 'j')) === '' ? '' : POINTER,
    told: target.told || valueIn(store, requests.targets('j', i)) !== '',
  }));
  return { job: { ...job, ...whole }, targets: after };
}

export const nodeOf = (target: number): string => `n${target}`;

/** @throws Broken */
function judgeStage(before: Whole, after: Whole): void {
  if (before.stage === '' || before.stage === after.stage) return;
  const [was, is] = [stageIn(before), stageIn(after)];
  if (was.kind === 'stopped' || was.kind === 'done')
    throw new Broken('promise 6: a job that had ended goes on');
  if (was.kind === 'open' && is.kind === 'open' && is.stage <= was.stage)
    throw new Broken('a stage opens again, or goes back');
}

/** @throws Broken */
function judgeTarget(job: Whole, before: Target, after: Target): void {
  if (before.document === after.document) return;
  const [was, is] = [documentIn(before), documentIn(after)];
  if (was && isFinal(was.state) && was.state !== is?.state)
    throw new Broken('promise 6: a final state changes');
  const unbegun = ['refused', 'offline', 'expired'];
  if (was?.state === 'running' && unbegun.includes(is?.state ?? ''))
    throw new Broken('promise 6: a target whose command runs ends as if it had not begun');
  if (is?.state === 'running' && was?.run !== is.run) judgeStart(job, before, was);
}

function judgeStart(job: Whole, target: Target, was: TargetDocument | undefined): void {
  const stage = stageIn(job);
  if (stage.kind !== 'open') throw new Broken('promise 8: a start after the stop');
  if (stage.stage < target.stage) throw new Broken('a target starts before its stage');
  if (was?.state === 'running') throw new Broken('promise 5: a start over a start');
}
