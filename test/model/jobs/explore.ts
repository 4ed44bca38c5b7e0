// Visits every state that a small job can reach, breadth first, so that a broken promise comes with a shortest trace.
import { jobNexts } from './job.ts';
import { isExcused, isQuiet, judge } from './promises.ts';
import { isFinal } from '../../../src/jobs/records.ts';
import { targetNexts } from './target.ts';
import { documentIn, initialState, stageIn } from './world.ts';
import type { Job, State, Target, World } from './world.ts';

export interface Explored {
  readonly states: number;
  readonly steps: number;
  /** States that nothing but a fault can change any more. */
  readonly ends: number;
  readonly ms: number;
  readonly outcome: Outcome;
}

export type Outcome =
  | { readonly kind: 'kept' }
  /** More states than were allowed; none of those that were visited breaks a promise. */
  | { readonly kind: 'unfinished' }
  | { readonly kind: 'broken'; readonly promise: string; readonly trace: readonly string[] };

export const STUCK = 'promise 6: nothing more can happen, and the job is not over';
export const ENDLESS = 'promise 6: steps without a fault can go on for ever';

/** Jobs and targets, each once, by numbers: a state is a job's and its targets' numbers. */
interface Table<T> {
  readonly numbers: Map<string, number>;
  readonly all: T[];
}
const newTable = <T>(): Table<T> => ({ numbers: new Map(), all: [] });

function numberOf<T>({ numbers, all }: Table<T>, value: T): number {
  const text = JSON.stringify(value);
  const known = numbers.get(text);
  if (known !== undefined) return known;
  numbers.set(text, all.length);
  return all.push(value) - 1;
}

interface Step {
  readonly label: string;
  readonly isFault: boolean;
  /** Absent: `broken` says which promise it breaks. */
  readonly key?: string;
  readonly broken?: string;
}

/** By numbers; `all`: the targets, where they may have changed. */
interface WholeStep extends Omit<Step, 'key'> {
  readonly after?: number;
  readonly all?: readonly number[];
}

/** `maxStates`: gives up, unfinished, beyond. */
export function explore(world: World, { maxStates = Infinity } = {}): Explored {
  const startedMs = performance.now();
  const jobs = newTable<Job>();
  const targets = newTable<Target>();
  const ofTarget = new Map<
    string,
    readonly { label: string; isFault: boolean; to?: string; broken?: string }[]
  >();
  const ofJob = new Map<number, readonly WholeStep[]>();
  const toKey = (job: number, those: readonly number[]) => `${job} ${those.join(' ')}`;
  const stateOf = (key: string): { job: number; those: number[] } => {
    const [job = 0, ...those] = key.split(' ').map(Number);
    return { job, those };
  };
  const full = (key: string): State => {
    const { job, those } = stateOf(key);
    return { job: jobs.all[job] as Job, targets: those.map((each) => targets.all[each] as Target) };
  };
  /** Targets of one stage are alike, once all of them are told. */
  const canonical = (job: number, those: readonly number[]): string => {
    const isFilled =
      world.fromReady || jobs.all[job]?.stage === '' ? world.fromReady : isReady(jobs.all[job]);
    if (!isFilled) return toKey(job, those);
    const merged = those.map((each) => settled(each, job));
    const sorted: number[] = [];
    let at = 0;
    for (const size of world.stages) {
      sorted.push(...merged.slice(at, at + size).sort((a, b) => a - b));
      at += size;
    }
    return toKey(job, sorted);
  };
  const isReady = (job: Job | undefined): boolean => job !== undefined && stageIn(job).kind !== 'fill';
  const settledOf = new Map<string, number>();
  /** Targets that have ended, with nothing under way, are one. */
  const settled = (number: number, job: number): number => {
    const target = targets.all[number] as Target;
    const kind = jobs.all[job] ? stageIn(jobs.all[job]).kind : 'fill';
    const key = `${number} ${kind === 'stopped'}`;
    const known = settledOf.get(key);
    if (known !== undefined) return known;
    const after = numberOf(targets, settle(world, target, kind === 'stopped'));
    settledOf.set(key, after);
    return after;
  };
  /** What happens to a job that is ready does not rest on its targets, nor change them. */
  const wholeSteps = (key: string, job: number): readonly WholeStep[] => {
    const now = jobs.all[job] as Job;
    const isAlone = now.stage !== '' && isReady(now) && now.sent.length === 0 && world.faults.restore === 0;
    const known = isAlone ? ofJob.get(job) : undefined;
    if (known) return known;
    const { targets: there } = full(key);
    const nexts = jobNexts(world, { job: now, targets: isAlone ? [] : there });
    const found = nexts.map(({ label, isFault, state, broken }): WholeStep => {
      if (!state) return { label, isFault, ...(broken !== undefined && { broken }) };
      const all = isAlone ? {} : { all: state.targets.map((each) => numberOf(targets, each)) };
      return { label, isFault, after: numberOf(jobs, state.job), ...all };
    });
    if (isAlone) ofJob.set(job, found);
    return found;
  };
  const stepsFrom = (key: string): Step[] => {
    const { job, those } = stateOf(key);
    const own = those.flatMap((target, i) => {
      const memo = `${job} ${target}`;
      let nexts = ofTarget.get(memo);
      if (!nexts) {
        nexts = targetNexts(world, jobs.all[job] as Job, targets.all[target] as Target).map((next) => ({
          label: next.label,
          isFault: next.isFault,
          ...(next.broken !== undefined && { broken: next.broken }),
          ...(next.after && {
            to: `${numberOf(jobs, next.after.job)} ${numberOf(targets, next.after.target)}`,
          }),
        }));
        ofTarget.set(memo, nexts);
      }
      return nexts.map(({ label, isFault, to, broken }): Step => {
        const step = { label: `target ${i}: ${label}`, isFault };
        if (to === undefined) return { ...step, broken: broken ?? '' };
        const [after = 0, changed = 0] = to.split(' ').map(Number);
        return { ...step, key: canonical(after, those.with(i, changed)) };
      });
    });
    const whole = wholeSteps(key, job).map(({ label, isFault, after, all, broken }): Step => {
      if (after === undefined) return { label, isFault, broken: broken ?? '' };
      return { label, isFault, key: canonical(after, all ?? those) };
    });
    return [...own, ...whole];
  };
  const { job, targets: initial } = initialState(world);
  const first = canonical(
    numberOf(jobs, job),
    initial.map((each) => numberOf(targets, each)),
  );
  const ids = new Map([[first, 0]]);
  const keys = [first];
  const parents = [-1];
  /** Steps without a fault, for circles. */
  const free: number[][] = [];
  let [steps, ends] = [0, 0];
  const trace = (id: number, last?: string): string[] => {
    const path: number[] = [];
    for (let at = id; at > 0; at = parents[at] ?? 0) path.unshift(at);
    const labels = path.map((to) => {
      const from = keys[parents[to] ?? 0] ?? '';
      return stepsFrom(from).find(({ key }) => key === keys[to])?.label ?? '?';
    });
    return last === undefined ? labels : [...labels, last];
  };
  const visit = (): Outcome => {
    for (let id = 0; id < keys.length; id += 1) {
      if (keys.length > maxStates) return { kind: 'unfinished' };
      const own = keys[id] ?? '';
      const goesOn: number[] = [];
      for (const { label, isFault, key, broken } of stepsFrom(own)) {
        steps += 1;
        if (key === undefined) return { kind: 'broken', promise: broken ?? '', trace: trace(id, label) };
        if (key === own) continue;
        let to = ids.get(key);
        if (to === undefined) {
          to = keys.length;
          ids.set(key, to);
          keys.push(key);
          parents.push(id);
          const promise = judge(world, full(key));
          if (promise !== undefined) return { kind: 'broken', promise, trace: trace(id, label) };
        }
        if (!isFault) goesOn.push(to);
      }
      free.push(goesOn);
      if (goesOn.length > 0) continue;
      ends += 1;
      const state = full(own);
      if (!isQuiet(state) && (world.expires || !isExcused(state)))
        return { kind: 'broken', promise: STUCK, trace: trace(id) };
    }
    const circle = findCircle(free);
    return circle === undefined
      ? { kind: 'kept' }
      : { kind: 'broken', promise: ENDLESS, trace: trace(circle) };
  };
  const outcome = visit();
  return { states: keys.length, steps, ends, ms: Math.round(performance.now() - startedMs), outcome };
}

/** Without a restore nobody looks again at what has ended. */
function settle({ faults, change }: World, target: Target, isStopped: boolean): Target {
  if (faults.restore > 0 || change !== undefined) return target;
  const document = documentIn(target);
  const isIdle = target.runs.length === 0 && target.sent.length === 0;
  const isOver = document !== undefined && isFinal(document.state);
  if (!isIdle || !(isOver || (isStopped && document?.state !== 'running'))) return target;
  const none = { host: true, agent: true, pointer: '', commands: 0, ledger: '' } as const;
  return { ...target, ...none, ...(isOver ? {} : { document: '' }) };
}

/** A state from which steps without a fault lead back to it. */
function findCircle(free: readonly (readonly number[])[]): number | undefined {
  const into = new Int32Array(free.length);
  for (const those of free) for (const to of those) into[to] = (into[to] ?? 0) + 1;
  const pending = [...into.keys()].filter((id) => into[id] === 0);
  let left = free.length;
  for (let id = pending.pop(); id !== undefined; id = pending.pop()) {
    left -= 1;
    for (const to of free[id] ?? []) {
      into[to] = (into[to] ?? 0) - 1;
      if (into[to] === 0) pending.push(to);
    }
  }
  return left === 0 ? undefined : into.findIndex((count) => count > 0);
}
