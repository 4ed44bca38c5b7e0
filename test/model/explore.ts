/** Visits every state that can be reached, breadth first, so that the first broken promise comes with a shortest trace. */
import { hash } from 'node:crypto';
import { canonical, parseState } from './canonical.ts';
import { actorOf } from './next.ts';
import type { Next } from './next.ts';
import { processSteps } from './process.ts';
import { judgeMoment } from './promises.ts';
import { list } from './store.ts';
import { surroundingSteps } from './surroundings.ts';
import { initialState, keys, secondKeys } from './world.ts';
import type { State, World } from './world.ts';

export interface Explored {
  readonly states: number;
  readonly steps: number;
  /** States in which nothing is held, waited for or under way. */
  readonly quiet: number;
  readonly ms: number;
  readonly outcome: Outcome;
}

export type Outcome =
  | { readonly kind: 'kept' }
  /** More states than were allowed; none of those that were visited breaks a promise. */
  | { readonly kind: 'unfinished' }
  | { readonly kind: 'broken'; readonly promise: string; readonly trace: readonly string[] };

export const STUCK = 'from here no quiet end can be reached';

/** Every step that the world may take. */
export function nexts(world: World, state: State): Next[] {
  const steps = state.processes.flatMap((_, i) => processSteps(actorOf(world, state, i)));
  return [...steps, ...surroundingSteps(world, state)];
}

const judgeNext = (world: World, next: Next): string | undefined =>
  next.broken ?? (world.mayOverlap ? undefined : judgeMoment(next.state));

const digest = (text: string): string => hash('md5', text, 'base64');

interface Visited {
  readonly ids: Map<string, number>;
  readonly digests: string[];
  readonly parents: number[];
  /** Where each state's steps begin in `targets`; states are expanded in the order of their numbers. */
  readonly offsets: number[];
  readonly targets: number[];
  readonly quiet: number[];
}

/** `maxStates`: gives up, unfinished, beyond. */
export function explore(world: World, { maxStates = Infinity } = {}): Explored {
  const startedMs = performance.now();
  const visited: Visited = { ids: new Map(), digests: [], parents: [], offsets: [], targets: [], quiet: [] };
  const outcome = visitAll(world, visited, maxStates);
  const { ids, targets, quiet } = visited;
  const figures = { states: ids.size, steps: targets.length, quiet: quiet.length };
  return { ...figures, ms: Math.round(performance.now() - startedMs), outcome };
}

function visitAll(world: World, visited: Visited, maxStates: number): Outcome {
  const texts: (string | undefined)[] = [];
  const visit = (state: State, parent: number): number => {
    const text = canonical(state);
    const key = digest(text);
    const known = visited.ids.get(key);
    if (known !== undefined) return known;
    const id = visited.ids.size;
    visited.ids.set(key, id);
    visited.digests.push(key);
    visited.parents.push(parent);
    texts.push(text);
    return id;
  };
  visit(initialState(world), -1);
  for (let id = 0; id < texts.length; id++) {
    if (texts.length > maxStates) return { kind: 'unfinished' };
    const state = parseState(texts[id] ?? '');
    texts[id] = undefined;
    visited.offsets.push(visited.targets.length);
    if (isQuiet(state)) visited.quiet.push(id);
    for (const next of nexts(world, state)) {
      const promise = judgeNext(world, next);
      if (promise !== undefined)
        return { kind: 'broken', promise, trace: trace(world, visited, { id, promise }) };
      visited.targets.push(visit(next.state, id));
    }
  }
  const stuck = findStuck(visited);
  if (stuck === undefined) return { kind: 'kept' };
  return { kind: 'broken', promise: STUCK, trace: trace(world, visited, { id: stuck, promise: STUCK }) };
}

/** Every process has ended, and only records, `.tail` and `.last` are left of it all, or a lock key that somebody left. */
function isQuiet({ store, processes, late, operator, ghosts }: State): boolean {
  const records = processes.flatMap(({ node }) => [keys.run(node), secondKeys.run(node)]);
  const stays = new Set([keys.tail, keys.last, ...records, ...ghosts.map((_, slot) => keys.lock(slot))]);
  const left = [...list(store, keys.prefix), ...list(store, secondKeys.prefix)].filter(
    ({ key, session }) => session !== undefined || !stays.has(key),
  );
  const isOver = processes.every(({ at, runs }) => at.pc === 'idle' && runs === 0);
  return isOver && left.length === 0 && late.length === 0 && !operator;
}

/** The first state from which no quiet one can be reached. */
function findStuck({ offsets, targets, quiet }: Visited): number | undefined {
  const count = offsets.length;
  const begins = new Int32Array(count + 2);
  for (const target of targets) begins[target + 2] = (begins[target + 2] ?? 0) + 1;
  for (let id = 2; id < begins.length; id++) begins[id] = (begins[id] ?? 0) + (begins[id - 1] ?? 0);
  const sources = new Int32Array(targets.length);
  for (let id = 0; id < count; id++) {
    for (let at = offsets[id] ?? 0; at < (offsets[id + 1] ?? targets.length); at++) {
      const target = targets[at] ?? 0;
      const place = begins[target + 1] ?? 0;
      sources[place] = id;
      begins[target + 1] = place + 1;
    }
  }
  const reaches = new Uint8Array(count);
  const pending = [...quiet];
  for (const id of quiet) reaches[id] = 1;
  for (let id = pending.pop(); id !== undefined; id = pending.pop()) {
    for (let at = begins[id] ?? 0; at < (begins[id + 1] ?? 0); at++) {
      const source = sources[at] ?? 0;
      if (reaches[source] === 1) continue;
      reaches[source] = 1;
      pending.push(source);
    }
  }
  const stuck = reaches.indexOf(0);
  return stuck === -1 ? undefined : stuck;
}

/** How the state was reached, with the same names from beginning to end, and the step that broke the promise. */
function trace(world: World, visited: Visited, { id, promise }: { id: number; promise: string }): string[] {
  const path: number[] = [];
  for (let at = id; at > 0; at = visited.parents[at] ?? 0) path.unshift(at);
  const lines: string[] = [];
  let state = initialState(world);
  for (const step of path) {
    const wanted = visited.digests[step];
    const next = nexts(world, state).find((candidate) => digest(canonical(candidate.state)) === wanted);
    if (!next) throw new Error('the trace cannot be followed');
    lines.push(next.label);
    state = next.state;
  }
  const last = nexts(world, state).find((next) => judgeNext(world, next) === promise);
  return [...lines, ...(last ? [last.label] : [])];
}
