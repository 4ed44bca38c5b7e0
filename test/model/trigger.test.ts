// Every order of changes, looks, crashes and ends around one trigger: no change missed, no run for nothing (promise 7).
import { describe, expect, test } from 'vitest';
import type { Sight } from '../../src/conditions/marks.ts';
import type { Cursor } from '../../src/jobs/cursor.ts';
import { observed, started, succeeded } from '../../src/jobs/trigger-cursor.ts';
import { asks } from '../../src/jobs/trigger.ts';
import type { Place, Rules } from '../../src/jobs/trigger.ts';

const RULES: Rules = { minIntervalMs: 0, onFirst: 'run', perHour: 1_000 };

/** How the trigger works, or one way to get it wrong. */
type Way =
  | 'as it is'
  /** The agent moves the cursor, after the run's record. */
  | 'agent moves'
  /** The marks are read at the end of the run. */
  | 'marks at the end'
  /** The end overwrites what the agent has seen during the run. */
  | 'no merge'
  /** That a condition turned false is not written. */
  | 'no flips';

/** A state has a new mark at each change; health has none. */
type Kind = 'state' | 'health';

interface World {
  /** The changes so far: even ones of health make it true. */
  readonly change: number;
  /** The newest change to false that the agent has seen. */
  readonly noted: number;
  /** Newest change that a recorded good run began after. */
  readonly ran: number;
  readonly cursor: Cursor['marks'];
  readonly agent: boolean;
  /** The agent is to write this; only where it moves the cursor. */
  readonly owed?: Cursor['marks'];
  readonly exec?: Exec;
  readonly changes: number;
  readonly crashes: number;
  readonly kills: number;
  readonly losses: number;
}

/** `marks`: when the command began. */
interface Exec {
  readonly at: 'queued' | 'running' | 'ended';
  readonly began?: { readonly change: number; readonly marks: Cursor['marks'] };
}

const START: World = {
  ...{ change: 0, noted: 0, ran: 0, cursor: {}, agent: true },
  ...{ changes: 4, crashes: 2, kills: 1, losses: 1 },
};

const holds = (kind: Kind, change: number) => change > 0 && (kind === 'state' || change % 2 === 1);
const sightOf = (kind: Kind, change: number): Sight => ({
  ...{
    name: 'c',
    holds: holds(kind, change),
    mark: kind === 'state' ? `c${change}` : '',
    changes: [],
    is: '',
  },
});
const placeOf = (marks: Cursor['marks']): Place => ({
  ...{ cursor: { since: new Date(0).toISOString(), marks }, asksAnew: true, isWritten: true },
});

interface Step {
  readonly name: string;
  readonly to: World;
  readonly bad?: string;
}

function steps(world: World, kind: Kind, way: Way): Step[] {
  const { change, cursor, agent, exec, owed } = world;
  const sight = sightOf(kind, change);
  const place = placeOf(cursor);
  const all: Step[] = [];
  const add = (name: string, to: Partial<World>, bad?: string) =>
    all.push({ name, to: { ...world, ...to }, ...(bad !== undefined && { bad }) });
  if (world.changes > 0) add('a change', { change: change + 1, changes: world.changes - 1 });
  if (agent && world.crashes > 0)
    add('the agent dies', { agent: false, crashes: world.crashes - 1, ...gone('owed') });
  if (!agent) add('the agent starts', { agent: true });
  const seen = agent && way !== 'no flips' ? observed([sight], place)?.marks : undefined;
  if (agent && !sight.holds && world.noted < change)
    add('the agent sees it false', { cursor: seen ?? cursor, noted: change });
  if (agent && owed) add('the agent moves the cursor', { cursor: owed, ...gone('owed') });
  if (agent && !exec && !owed && asks(sight, place))
    add(
      'the agent starts a run',
      { exec: { at: 'queued' } },
      change > world.ran ? undefined : 'a run for nothing',
    );
  if (exec && world.kills > 0) add('the exec is killed', { kills: world.kills - 1, ...gone('exec') });
  if (exec?.at === 'queued')
    if (asks(sight, place)) {
      const begun = started({ run: 'r', sights: [sight], place }, RULES, 0);
      add('the command begins', {
        cursor: begun.marks,
        exec: { at: 'running', began: { change, marks: cursor } },
      });
    } else add('nothing asks any more', gone('exec'));
  if (exec?.at === 'running') add('the command ends', { exec: { ...exec, at: 'ended' } });
  if (exec?.at === 'ended' && exec.began) {
    const { began } = exec;
    const saw = sightOf(kind, way === 'marks at the end' ? change : began.change);
    const base = way === 'no merge' ? began.marks : cursor;
    const begun = { run: 'r', sights: [saw], place: placeOf(began.marks) };
    const { marks } = succeeded(begun, placeOf(base).cursor, 0);
    const done = { ran: Math.max(world.ran, began.change), ...gone('exec') };
    if (way === 'agent moves') add('the run is recorded', { ...done, ...(agent && { owed: marks }) });
    else {
      add('the run is recorded, with the cursor', { ...done, cursor: marks });
      if (world.losses > 0)
        add('so it is, and the answer is lost', { ...done, cursor: marks, losses: world.losses - 1 });
    }
  }
  return all;
}

/** So that a field is absent. */
function gone(name: 'exec' | 'owed'): Partial<World> {
  return { [name]: undefined };
}

const isFault = (name: string) => ['a change', 'the agent dies', 'the exec is killed'].includes(name);

/** What can be seen of the changes: each of a state; that health turned false, if the agent looked meanwhile. */
const news = (world: World, kind: Kind) => (kind === 'state' ? world.change : world.noted);

function explore(kind: Kind, way: Way): { states: number; quiet: number; broken: readonly string[] } {
  const from = new Map<string, readonly [string, string] | undefined>();
  const first = JSON.stringify(START);
  from.set(first, undefined);
  const todo: World[] = [START];
  const traceOf = (key: string): string[] => {
    const step = from.get(key);
    return step ? [...traceOf(step[0]), step[1]] : [];
  };
  let quiet = 0;
  for (let world = todo.pop(); world; world = todo.pop()) {
    const key = JSON.stringify(world);
    const all = steps(world, kind, way);
    for (const { name, to, bad } of all) {
      if (bad !== undefined) return { states: from.size, quiet, broken: [...traceOf(key), name, bad] };
      const next = JSON.stringify(to);
      if (from.has(next)) continue;
      from.set(next, [key, name]);
      todo.push(to);
    }
    if (all.some(({ name }) => !isFault(name))) continue;
    quiet += 1;
    const isMissed = holds(kind, world.change) && world.ran < news(world, kind);
    if (isMissed) return { states: from.size, quiet, broken: [...traceOf(key), 'a change was missed'] };
  }
  return { states: from.size, quiet, broken: [] };
}

describe('a trigger misses no change that it can see, and starts no run for nothing', () => {
  test.each<Kind>(['state', 'health'])('of %s', (kind) => {
    const { states, quiet, broken } = explore(kind, 'as it is');
    expect(broken).toEqual([]);
    expect(states).toBeGreaterThan(500);
    expect(quiet).toBeGreaterThan(0);
  });

  test.each<[Way, Kind, string]>([
    ['agent moves', 'state', 'a run for nothing'],
    ['marks at the end', 'state', 'a change was missed'],
    ['no merge', 'health', 'a change was missed'],
    ['no flips', 'health', 'a change was missed'],
  ])('which is broken where it works another way: %s', (way, kind, broken) => {
    expect(explore(kind, way).broken.at(-1)).toBe(broken);
  });
});
