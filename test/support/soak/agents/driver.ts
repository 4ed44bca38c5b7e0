// Carries the plan of a soak with agents out, lets all come to quiet, and has it judged.
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { performOnAgents } from './deeds.ts';
import { countStates, judgeAgents } from './judge.ts';
import type { AgentsHistory } from './judge.ts';
import type { AgentsEvent, AgentsPlan } from './plan.ts';
import { lostPointers } from './pointers.ts';
import { bugsSaid, drain, historyOf, leftOf, makeWell, sweep } from './quiet.ts';
import { startAgentsWorld } from './world.ts';
import type { AgentsWorld } from './world.ts';

export interface AgentsControl {
  /** Ends everything at once. */
  readonly signal?: AbortSignal;
  /** Hears each deed, when it is over. */
  readonly say: (line: string) => void;
  /** A folder that gets what the hosts of the nodes had, with what agents said, if anything is wrong. */
  readonly keep?: string;
}

export interface AgentsResult {
  readonly history: AgentsHistory;
  readonly deeds: ReadonlyMap<string, { planned: number; hit: number }>;
  /** Whatever is wrong. */
  readonly faults: readonly string[];
}

const TICK_MS = 20;
/** Between two looks at what must hold at every moment. */
const LOOK_MS = 2_000;
/** Where Consul is away, and requests pile up, new ones wait. */
const MOST_REQUESTS = 12;

interface Course {
  readonly world: AgentsWorld;
  readonly control: AgentsControl;
  readonly deeds: Map<string, { planned: number; hit: number }>;
  /** Faults. */
  readonly underWay: Set<Promise<void>>;
  /** What people do, which may wait for what others do in the end. */
  readonly requests: Set<Promise<void>>;
  readonly sinceMs: number;
}

/** @throws the signal's reason when it aborts; nothing is left running then either. */
export async function soakAgents(plan: AgentsPlan, control: AgentsControl): Promise<AgentsResult> {
  const world = await startAgentsWorld(plan);
  const course: Course = {
    ...{
      world,
      control,
      deeds: new Map(),
      underWay: new Set(),
      requests: new Set(),
      sinceMs: performance.now(),
    },
  };
  const saying = { ...control, say: (line: string) => say(course, line) };
  try {
    await follow(course, plan.events);
    say(course, 'all faults end');
    world.calm.abort();
    await makeWell(world);
    await Promise.all(course.underWay);
    await makeWell(world);
    world.surprises.push(...(await drain(world, saying)));
    await Promise.all(course.requests);
    say(course, 'the last job');
    if (world.surprises.length === 0) world.surprises.push(...(await sweep(world, saying)));
    say(course, 'all agents end');
    world.surprises.push(...(await leftOf(world, saying)));
    await world.observing.lookAtAll();
    const history = await historyOf(world);
    const faults = [...judgeAgents(history), ...world.surprises, ...bugsSaid(world)];
    if (faults.length > 0 && control.keep !== undefined) keepHosts(world, control.keep);
    return { history, deeds: course.deeds, faults };
  } finally {
    world.calm.abort();
    await world[Symbol.asyncDispose]();
    await Promise.all([...course.underWay, ...course.requests]);
  }
}

function keepHosts({ root, said }: AgentsWorld, folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  // Named pipes can't be copied.
  cpSync(root, folder, { recursive: true, filter: (file) => !file.endsWith('/never') });
  for (const [i, { node, stderr }] of said.entries())
    writeFileSync(join(folder, node, `agent-${i}.log`), stderr);
}

async function follow(course: Course, planned: readonly AgentsEvent[]): Promise<void> {
  const { signal } = course.control;
  const events = [...planned];
  let lookedMs = performance.now();
  while (events.length > 0) {
    if (performance.now() - lookedMs > LOOK_MS) {
      // Where Consul does not answer, the next look comes later.
      lookedMs = Infinity;
      track(
        course.underWay,
        lookAtPointers(course).finally(() => (lookedMs = performance.now())),
      );
    }
    while ((events[0]?.atMs ?? Infinity) <= performance.now() - course.sinceMs) begin(course, events.shift());
    await sleep(TICK_MS, undefined, signal && { signal });
  }
}

async function lookAtPointers({ world }: Course): Promise<void> {
  await world.observing.look().catch(() => undefined);
  for (const lost of await lostPointers(world))
    if (!world.surprises.includes(lost)) world.surprises.push(lost);
}

function track(set: Set<Promise<void>>, done: Promise<void>): void {
  set.add(done);
  void done.finally(() => set.delete(done));
}

const REQUESTS = ['job', 'start-again', 'cancel', 'watch', 'by-hand', 'input', 'door'];

function begin(course: Course, event: AgentsEvent | undefined): void {
  if (!event) return;
  const count = course.deeds.get(event.kind) ?? { planned: 0, hit: 0 };
  course.deeds.set(event.kind, count);
  count.planned += 1;
  const isRequest = REQUESTS.includes(event.kind);
  if (isRequest && course.requests.size >= MOST_REQUESTS) return;
  const set = isRequest ? course.requests : course.underWay;
  const done = performOnAgents(course.world, event).then(
    (whom) => {
      if (whom === undefined) return;
      count.hit += 1;
      say(course, `${event.kind}: ${whom}; ${JSON.stringify(event)}`);
    },
    (error: unknown) => void course.world.surprises.push(`${JSON.stringify(event)} failed: ${String(error)}`),
  );
  track(set, done);
}

function say({ control, sinceMs }: Course, line: string): void {
  control.say(`${((performance.now() - sinceMs) / 1000).toFixed(1).padStart(7)} ${line}`);
}

export function describeAgentsResult(
  { options }: AgentsPlan,
  { history, deeds, faults }: AgentsResult,
): string {
  const { commands, jobs, states } = history;
  const seen = jobs.filter(({ looks }) => looks.length > 0);
  const counts = [...countStates(jobs)]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([state, n]) => `${n} ${state}`);
  const depth = commands.reduce((most, { chain }) => Math.max(most, chain.length), 0);
  const done = [...deeds].map(([kind, { planned, hit }]) => `${kind} ${hit}/${planned}`);
  return [
    `seed ${options.seed}: ${options.minutes} minutes, ${options.nodes} agents`,
    `${seen.length} of ${jobs.length} jobs were taken on; their targets: ${counts.join(', ')}`,
    `${commands.length} commands ran, ${commands.filter(({ task }) => task === 'react').length} by a change, ` +
      `in chains of up to ${depth}; ${states.length} changes of states`,
    `done of what was planned: ${done.sort().join(', ')}`,
    ...(faults.length > 0 ? faults : ['no promise is broken, and nothing is left']),
  ].join('\n');
}
