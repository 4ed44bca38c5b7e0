// Does what a plan says, to whoever is there at that moment.
import { markedPids } from '../../../src/process/process-tree.ts';
import { guardOf } from '../processes.ts';
import { trouble } from './faults.ts';
import { lookAt } from './looks.ts';
import type { Claim, Present } from './looks.ts';
import type { Deed } from './plan.ts';
import { identify } from './world.ts';
import type { Group, Live, World } from './world.ts';

/** What is done to processes and to Consul; the starts of runs are the driver's. */
export type Fault = Exclude<Deed, { kind: 'start' }>;
type Targeted = Extract<Deed, { whom: string }>;
type Of<Kind extends Deed['kind']> = Extract<Deed, { kind: Kind }>;

/** Says whom it hit, once it is over; undefined: there was nobody to hit. */
export async function perform(world: World, deed: Fault): Promise<string | undefined> {
  switch (deed.kind) {
    case 'kill':
    case 'stop':
    case 'ask':
    case 'destroy-session':
      return hit(world, deed);
    case 'evict':
      return evict(world, deed);
    case 'operate':
      return operate(world, groupOf(world, deed), deed.clears);
    case 'pause-server':
    case 'pause-agent':
    case 'restart-agent':
    case 'network':
      return trouble(world, deed);
  }
}

function groupOf({ groups }: World, { group }: { group: string }): Group {
  const found = groups.get(group);
  if (!found) throw new Error(`no group ${group}`);
  return found;
}

async function hit(world: World, deed: Targeted): Promise<string | undefined> {
  const group = groupOf(world, deed);
  const look = await lookAt(world, group);
  const all = deed.whom === 'running' ? look?.running : look?.waiting;
  const free = (all ?? []).filter(({ live }) => !live.busy && live.isAlive());
  const target = free[deed.whom === 'first' ? 0 : Math.floor(deed.pick * free.length)];
  if (!target) return undefined;
  target.live.busy = true;
  try {
    const isHit = await hitOne(world, { group, ...target }, deed);
    return isHit ? `${target.live.node.name} (${target.live.node.pid})` : undefined;
  } finally {
    target.live.busy = false;
  }
}

async function hitOne(
  world: World,
  { group, live, session }: Present & { group: Group },
  deed: Targeted,
): Promise<boolean> {
  switch (deed.kind) {
    case 'kill':
      return kill(group, live, deed);
    case 'stop':
      return stop(world, live, deed);
    case 'ask':
      live.marks.add('asked');
      group.fleet.act('stop', live.node.name);
      return identify(live.node.pid).signal(deed.signal);
    case 'destroy-session': {
      const answer = await world.server.http('PUT', `/v1/session/destroy/${session}`).catch(() => undefined);
      return answer?.status === 200;
    }
  }
}

/** Undefined: it has none, for it has started nothing. */
function findGuard(live: Live): ReturnType<typeof identify> | undefined {
  try {
    return identify(guardOf(live.node.pid));
  } catch {
    return undefined;
  }
}

function kill(group: Group, live: Live, { who, awayMs }: Of<'kill'>): boolean {
  const guard = who === 'runlock' ? undefined : findGuard(live);
  // The death of a guard alone explains nothing: another one takes its place.
  if (who === 'guard') return guard?.signal('SIGKILL') ?? false;
  live.marks.add('killed');
  const { name } = live.node;
  group.fleet.act('kill', name);
  if (awayMs > 0) group.away.set(name, performance.now() + awayMs);
  guard?.signal('SIGKILL');
  return identify(live.node.pid).signal('SIGKILL');
}

async function stop(world: World, live: Live, { who, forMs }: Of<'stop'>): Promise<boolean> {
  const victim = who === 'guard' ? findGuard(live) : identify(live.node.pid);
  if (victim?.signal('SIGSTOP') !== true) return false;
  if (who === 'runlock') live.marks.add('stopped');
  await world.lull(forMs);
  victim.signal('SIGCONT');
  return true;
}

/**
 * Far less than a session lives: once that is gone, `release --force` clears what nobody watches, and may be wrong
 * about the command, as it says itself.
 */
const EVICT_MS = 3_000;

async function evict(world: World, deed: Of<'evict'>): Promise<string | undefined> {
  const group = groupOf(world, deed);
  const look = await lookAt(world, group);
  const well = (look?.running ?? []).filter(
    ({ live }) => !live.busy && live.isAlive() && world.isWell(live.gate),
  );
  const target = well[Math.floor(deed.pick * well.length)];
  if (!target) return undefined;
  const { live } = target;
  live.busy = true;
  live.marks.add('evicted');
  group.fleet.act('evict', live.node.name);
  const args = ['release', group.plan.name, '--owner', live.node.name, '--force'];
  const { status } = await world.operate(args, EVICT_MS);
  live.busy = false;
  return `${live.node.name} (status ${status})`;
}

/**
 * Of ten claims that nobody stands behind, `clears` are cleared; the nodes of the others run again, and well. Where the
 * session lives on, it is left to its end, or, when all has to be calm, to the node's next run.
 */
export async function operate(world: World, group: Group, clears: number): Promise<string | undefined> {
  const look = await lookAt(world, group);
  const stale = (look?.stale ?? []).filter(({ node }) => !isBusy(group, node) && !isAway(group, node));
  const done = await Promise.all(
    stale.map(async (claim, i) => {
      const isLocked = claim.lockedBy !== undefined;
      if (isLocked && !world.calm.signal.aborted) return undefined;
      const isCleared = !isLocked && (i * 7 + group.ended.length) % 10 < clears;
      return isCleared ? clear(world, group, claim) : again(world, group, claim);
    }),
  );
  const said = done.filter((text) => text !== undefined);
  return said.length > 0 ? said.join(', ') : undefined;
}

const isBusy = (group: Group, name: string) =>
  group.reserved.has(name) || [...group.living].some(({ node }) => node.name === name);

export const isAway = (group: Group, name: string) => (group.away.get(name) ?? 0) > performance.now();

function again(world: World, group: Group, { node: name, state }: Claim): string {
  const gate = world.agents.findIndex((_, agent) => !world.isTroubled(`agent ${agent}`));
  // What is held makes exec busy; its node asks for it again.
  const how = state === 'held' ? ({ halves: 'release' } as const) : {};
  world.launch(group, { name, gate: Math.max(0, gate), part: { beats: 2 }, ...how });
  return `${name} runs again after ${state}`;
}

/** As an operator should: looks at the node first. */
async function clear(world: World, group: Group, { node, run, state }: Claim): Promise<string | undefined> {
  if (markedPids(run).length > 0) return undefined;
  const force = ['failed', 'interrupted', 'rebooting'].includes(state) ? [] : ['--force'];
  group.reserved.add(node);
  group.fleet.act('clear', node);
  const args = ['release', group.plan.name, '--owner', node, ...force];
  const { status, stderr } = await world.operate(args);
  group.reserved.delete(node);
  return `${node} cleared after ${state}${status === 0 ? '' : ` (status ${status}: ${stderr.trim()})`}`;
}
