// Carries a plan out against real agents, lets all come to quiet, and has it judged.
import { setTimeout as sleep } from 'node:timers/promises';
import { judge } from '../history/checker.ts';
import type { Verdict } from '../history/checker.ts';
import type { History } from '../history/history.ts';
import { isAway, operate, perform } from './deeds.ts';
import { lookAt } from './looks.ts';
import type { SoakEvent, SoakPlan } from './plan.ts';
import { UNREACHABLE, leftOf, surprisesOf } from './quiet.ts';
import { startWorld } from './world.ts';
import type { Ended, Group, World } from './world.ts';

export interface SoakControl {
  /** Ends everything at once. */
  readonly signal?: AbortSignal;
  /** How many runlock processes may be there at the same time: each takes about 60 MB. */
  readonly atOnce: number;
  /** Hears each deed, when it is over. */
  readonly say?: (line: string) => void;
}

export interface GroupResult {
  readonly name: string;
  readonly verdict: Verdict;
  readonly history: History;
  readonly ended: readonly Ended[];
}

export interface SoakResult {
  readonly groups: readonly GroupResult[];
  /** What was done, by kind: how often it was planned, and how often somebody was there to be hit. */
  readonly deeds: ReadonlyMap<string, { planned: number; hit: number }>;
  /** Whatever is wrong, promises aside: an end that nothing explains, something that is left. */
  readonly surprises: readonly string[];
}

type Start = Extract<SoakEvent, { kind: 'start' }>;

/** What the timeline keeps in mind. */
interface Course {
  readonly world: World;
  readonly control: SoakControl;
  /** Starts whose time has come, and that wait for room. */
  readonly due: Start[];
  /** The first start of each node that was started. */
  readonly seen: Map<string, Start>;
  readonly deeds: Map<string, { planned: number; hit: number }>;
  readonly underWay: Set<Promise<void>>;
  readonly surprises: string[];
  readonly sinceMs: number;
  /** Whether some pause is longer than a run whose hold ends may go on. */
  readonly isLong: boolean;
}

const TICK_MS = 20;
/** With `hold = none` a run is killed after so long without a word from Consul. */
const CUT_OFF_MS = 55_000;

/** @throws the signal's reason when it aborts; nothing is left running then either. */
export async function soak(plan: SoakPlan, control: SoakControl): Promise<SoakResult> {
  const world = await startWorld(plan);
  const course: Course = {
    ...{ world, control, due: [], seen: new Map(), deeds: new Map(), underWay: new Set(), surprises: [] },
    sinceMs: performance.now(),
    isLong: plan.events.some((event) => event.kind === 'pause-agent' && event.forMs > CUT_OFF_MS),
  };
  try {
    await follow(course, plan.events);
    await comeToQuiet(course);
    return await judgeAll(course);
  } finally {
    // Whatever was stopped goes on, and no agent is started after the others have ended.
    world.calm.abort();
    await Promise.all(course.underWay);
    await world[Symbol.asyncDispose]();
  }
}

async function follow(course: Course, planned: readonly SoakEvent[]): Promise<void> {
  const events = [...planned];
  while (events.length > 0) {
    while ((events[0]?.atMs ?? Infinity) <= performance.now() - course.sinceMs) begin(course, events.shift());
    fill(course);
    await sleep(TICK_MS, undefined, ended(course.control));
  }
}

const ended = ({ signal }: SoakControl) => (signal ? { signal } : {});

function begin(course: Course, event: SoakEvent | undefined): void {
  if (!event) return;
  const count = course.deeds.get(event.kind) ?? { planned: 0, hit: 0 };
  course.deeds.set(event.kind, count);
  count.planned += 1;
  if (event.kind === 'start') {
    course.due.push(event);
    return;
  }
  const done = perform(course.world, event).then(
    (whom) => {
      if (whom === undefined) return;
      count.hit += 1;
      say(course, `${event.kind}: ${whom}; ${JSON.stringify(event)}`);
    },
    (error: unknown) => void course.surprises.push(`${JSON.stringify(event)} failed: ${String(error)}`),
  );
  course.underWay.add(done);
  void done.finally(() => course.underWay.delete(done));
}

function say({ control, sinceMs }: Course, line: string): void {
  control.say?.(`${((performance.now() - sinceMs) / 1000).toFixed(1).padStart(7)} ${line}`);
}

/** Starts what is due, as far as there is room. */
function fill(course: Course): void {
  const { world, due, control, seen } = course;
  const living = () => [...world.groups.values()].reduce((sum, group) => sum + group.living.size, 0);
  while (due.length > 0 && living() < control.atOnce) {
    const start = due.shift();
    const group = start && world.groups.get(start.group);
    if (!group || !mayStart(group, start)) continue;
    const { node: name, gate, part, lengthMs, halves } = start;
    const how = { ...(lengthMs !== undefined && { lengthMs }), ...(halves && { halves }) };
    world.launch(group, { name, gate, part, ...how });
    if (!seen.has(name)) seen.set(name, start);
    const count = course.deeds.get('start');
    if (count) count.hit += 1;
  }
}

/** Two of a node that work in the same hold would end it for each other. */
function mayStart(group: Group, { node: name, beside, halves }: Start): boolean {
  if (isAway(group, name) || group.reserved.has(name)) return false;
  const earlier = [...group.living].filter(({ node }) => node.name === name);
  const may = earlier.every(({ isTold, isHalves }) => !isTold && !(halves && isHalves));
  return earlier.length === 0 || (beside && may);
}

const DRAIN_MS = 180_000;

/** Faults end, everybody who is left gets to end, and failed claims are cleared. */
async function comeToQuiet(course: Course): Promise<void> {
  const { world, control, due, seen } = course;
  const groups = [...world.groups.values()];
  world.calm.abort();
  for (const { away } of groups) away.clear();
  await Promise.all(course.underWay);
  // A slow machine has not started all that was due; every node takes part all the same.
  due.splice(0, due.length, ...due.filter(({ node }, i) => !seen.has(node) && isFirst(due, i)));
  // Nor has it always got a word from Consul in time: whoever went away for that comes again.
  due.push(...[...seen.values()].filter((start) => wasTurnedAway(world, start)));
  const endMs = performance.now() + DRAIN_MS;
  while (!(await isDrained(course))) {
    if (performance.now() > endMs) {
      course.surprises.push(...groups.flatMap(describeStuck));
      return;
    }
    fill(course);
    for (const group of groups) {
      for (const { node } of group.living) node.tell();
      const whom = await operate(world, group, 5);
      if (whom !== undefined) say(course, `operate: ${whom}; to end with`);
    }
    await sleep(10 * TICK_MS, undefined, ended(control));
  }
  course.surprises.push(...(await untilNothingLeft(world, control)));
}

const isFirst = (due: readonly Start[], at: number) =>
  due.findIndex(({ node }) => node === due[at]?.node) === at;

/** It never had the slot, and has gone because Consul did not answer. */
function wasTurnedAway({ groups }: World, { node: name, group }: Start): boolean {
  const ends = groups.get(group)?.ended.filter(({ node }) => node === name) ?? [];
  return ends.some(({ status }) => status === UNREACHABLE) && ends.every(({ run }) => run === undefined);
}

async function isDrained({ world, due }: Course): Promise<boolean> {
  for (const group of world.groups.values()) {
    if (due.length > 0 || group.living.size > 0) return false;
    const look = await lookAt(world, group);
    if (look?.stale.length !== 0) return false;
  }
  return true;
}

function describeStuck({ plan, living }: Group): string[] {
  return [...living].map(
    ({ node }) => `${node.name} of ${plan.name} did not come to an end; it says:\n${node.stderr()}`,
  );
}

/** Consul ends a session within twice its TTL; then as long again for a busy machine. */
const LAST_SESSION_MS = 40_000;

async function untilNothingLeft(world: World, control: SoakControl): Promise<string[]> {
  const endMs = performance.now() + LAST_SESSION_MS;
  for (;;) {
    const left = await leftOf(world);
    if (left.length === 0 || performance.now() > endMs) return left;
    await sleep(10 * TICK_MS, undefined, ended(control));
  }
}

async function judgeAll(course: Course): Promise<SoakResult> {
  const groups: GroupResult[] = [];
  for (const { plan, fleet, ended: all } of course.world.groups.values()) {
    const history = await fleet.history();
    groups.push({ name: plan.name, verdict: judge(history), history, ended: all });
    const mayBeCutOff = plan.hold !== 'forever' && course.isLong;
    course.surprises.push(...surprisesOf({ mayBeCutOff, ended: all, history }));
  }
  return { groups, deeds: course.deeds, surprises: course.surprises };
}
