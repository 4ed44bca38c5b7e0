/** One long random way through the model, with real time scales: for worlds that are too large to be visited whole. */
import { actorOf } from './next.ts';
import type { Next } from './next.ts';
import { processSteps } from './process.ts';
import { judgeMoment } from './promises.ts';
import { surroundingSteps, time } from './surroundings.ts';
import { initialState } from './world.ts';
import type { State, World } from './world.ts';

/** `who`: a process, or, below 0, the surroundings; `which` of its steps; after `ms` milliseconds. */
export interface Event {
  readonly who: number;
  readonly which: number;
  readonly ms: number;
}

export interface Walked {
  readonly labels: readonly string[];
  readonly state: State;
  readonly broken?: string;
}

/** Follows the events until one breaks a promise. */
export function walk(world: World, events: readonly Event[]): Walked {
  const labels: string[] = [];
  let state = initialState(world);
  for (const { who, which, ms } of events) {
    for (const next of [wait(world, state, ms), choose(world, state, { who, which })]) {
      if (!next) continue;
      labels.push(next.label);
      state = next.state;
      const broken = next.broken ?? judgeMoment(state);
      if (broken !== undefined) return { labels, state, broken };
    }
  }
  return { labels, state };
}

/** Time goes on, unless a command must be dead first: then it is its turn. */
function wait(world: World, state: State, ms: number): Next | undefined {
  if (ms === 0) return undefined;
  const timed = { ...world, tickMs: ms };
  const [passed] = time(timed, state);
  if (passed) return passed;
  const late = state.processes.flatMap((_, i) => processSteps(actorOf(timed, state, i)));
  return late.find((next) => next.label.includes('is cut off'));
}

function choose(world: World, state: State, { who, which }: Omit<Event, 'ms'>): Next | undefined {
  const still = { ...world, tickMs: 0 };
  const nexts =
    who < 0
      ? surroundingSteps(still, state)
      : processSteps(actorOf(still, state, who % state.processes.length));
  return nexts[which % nexts.length];
}
