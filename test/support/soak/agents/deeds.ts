// Does what the plan of a soak with agents says.
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { markedPids } from '../../../../src/process/process-tree.ts';
import { uptimeMs } from '../../history/history.ts';
import { read } from '../../history/observer.ts';
import type { StoredPair } from '../../history/observer.ts';
import { guardOf } from '../../processes.ts';
import { trouble } from '../faults.ts';
import { identify } from '../world.ts';
import { rebootFile, spoilFile } from './commands.ts';
import { DOOR, GROUPS, homeOf } from './nodes.ts';
import { isOver } from './observed.ts';
import type { AgentsDeed, JobPlan } from './plan.ts';
import type { AgentsWorld, Asked, SoakNode } from './world.ts';

type Of<Kind extends AgentsDeed['kind']> = Extract<AgentsDeed, { kind: Kind }>;

/** Says whom it hit, once it is over; undefined: there was nobody to hit. */
export async function performOnAgents(world: AgentsWorld, deed: AgentsDeed): Promise<string | undefined> {
  switch (deed.kind) {
    case 'pause-server':
    case 'pause-agent':
    case 'restart-agent':
    case 'network':
      return troubled(world, deed);
    case 'job':
      return ask(world, deed.job, deed.gate);
    case 'start-again':
      return startAgain(world, deed.pick);
    case 'cancel':
      return cancel(world, deed);
    case 'watch':
      return watch(world, deed);
    case 'rewrite':
      world.node(deed.node).write(deed.value);
      return deed.node;
    case 'input':
      return said(await world.run(['state', 'set', deed.path, deed.value]), deed.path);
    case 'door':
      return said(await setDoor(world, deed.isOpen), DOOR);
    case 'spoil':
      writeFileSync(spoilFile(world.node(deed.node).folder, deed.task), '');
      return deed.node;
    case 'by-hand':
      return byHand(world, deed);
    case 'end-agent':
    case 'stop-agent':
    case 'reboot':
      return hitAgent(world, deed);
    case 'kill-run':
    case 'stop-run':
      return hitRun(world, deed);
    case 'destroy-session':
      return destroySession(world, deed.pick);
    case 'pause':
      return pause(world, deed);
    case 'operate':
      return operateOn(world);
  }
}

const said = ({ status }: { readonly status: number }, what: string) => `${what} (status ${status})`;

export const setDoor = (world: AgentsWorld, isOpen: boolean) =>
  world.run(['state', 'set', DOOR, isOpen ? 'open' : 'shut']);

/** Whoever is behind it may be cut off for too long. */
async function troubled(
  world: AgentsWorld,
  deed: Of<'pause-server' | 'pause-agent' | 'restart-agent' | 'network'>,
): Promise<string | undefined> {
  const fromMs = uptimeMs();
  const whom = await trouble(world, deed);
  if (whom === undefined) return undefined;
  const isBehind = ({ plan: { gate } }: SoakNode) =>
    ['server', `agent ${world.agentOf(gate)}`, `gate ${gate}`].includes(whom);
  for (const node of world.nodes.filter(isBehind))
    world.hits.push({ kind: deed.kind, node: node.plan.name, fromMs, untilMs: uptimeMs() });
  return whom;
}

const SAFE_STATUSES = [0, 1, 2, 3, 4, 69, 75, 78, 130, 137];

async function ask(world: AgentsWorld, job: JobPlan, gate: number): Promise<string> {
  const name = `${job.principal}/${job.id}`;
  const args = [
    ...['job', 'start', job.task, '--principal', job.principal, '--id', job.id],
    ...['--node', job.nodes.join(','), '--expires', `${job.expiresMs}ms`],
    ...['--param', `beats=${job.beats}`, '--param', job.isUnfit ? 'code=zero' : `code=${job.code}`],
    ...(job.timeoutMs === undefined ? [] : ['--timeout', `${job.timeoutMs}ms`]),
    ...(job.watch ? ['--watch'] : []),
  ];
  const asked: Asked = { job, name, args, statuses: [] };
  world.observing.job(name, homeOf(job));
  world.asked.push(asked);
  const status = await start(world, asked, gate);
  return `${name} (status ${status})`;
}

async function start(world: AgentsWorld, { args, ...asked }: Asked, gate?: number): Promise<number> {
  const limitMs = 150_000;
  const result = await world.run(args, { limitMs, ...(gate !== undefined && { gate }) });
  asked.statuses.push(result.status);
  if (!SAFE_STATUSES.includes(result.status))
    world.surprises.push(`job start ${asked.name} exited ${result.status}: ${result.stderr}`);
  return result.status;
}

/** A pipeline that repeats its start: the same job. */
async function startAgain(world: AgentsWorld, pick: number): Promise<string | undefined> {
  const asked = world.asked.at(-1 - Math.floor(pick * 5));
  if (!asked) return undefined;
  return `${asked.name} (status ${await start(world, asked)})`;
}

/** Jobs that were never completely written are written now. */
export async function completeJobs(world: AgentsWorld): Promise<void> {
  const jobs = world.observing.jobs();
  for (const asked of world.asked)
    if (jobs.get(asked.name)?.at(-1)?.stage.value.kind === 'fill')
      await start(world, { ...asked, args: asked.args.filter((word) => word !== '--watch') });
}

function openJob({ asked, observing }: AgentsWorld, pick: number): Asked | undefined {
  const jobs = observing.jobs();
  const open = asked.slice(-30).filter(({ name }) => !isOver(jobs.get(name) ?? []));
  return open[Math.floor(pick * open.length)];
}

async function cancel(world: AgentsWorld, { pick, kill }: Of<'cancel'>): Promise<string | undefined> {
  const asked = openJob(world, pick);
  if (!asked) return undefined;
  const { principal, id, nodes } = asked.job;
  const fromMs = uptimeMs();
  const args = [
    'job',
    'cancel',
    id,
    '--principal',
    principal,
    '--reason',
    'soak',
    ...(kill ? ['--kill'] : []),
  ];
  const result = await world.run(args);
  for (const node of kill ? nodes : [])
    world.hits.push({ kind: `cancel ${asked.name}`, node, fromMs, untilMs: uptimeMs() });
  return said(result, asked.name);
}

async function watch(world: AgentsWorld, { pick, gate }: Of<'watch'>): Promise<string | undefined> {
  const asked = openJob(world, pick);
  if (!asked) return undefined;
  const { principal, id } = asked.job;
  const result = await world.run(['job', 'watch', id, '--principal', principal], { gate, limitMs: 150_000 });
  return said(result, asked.name);
}

/** Rather where a run is under way: it has to wait for its turn. */
async function byHand(world: AgentsWorld, { node: name, task, beats }: Of<'by-hand'>): Promise<string> {
  const working = world.nodes.filter((each) => each.living().length > 0);
  const node = working[beats % Math.max(1, working.length)] ?? world.node(name);
  const result = await world.adopt(node.spawn(['task', 'run', task, '--param', `beats=${beats}`]), 150_000);
  return said(result, `${task} on ${node.plan.name}`);
}

async function hitAgent(
  world: AgentsWorld,
  deed: Of<'end-agent' | 'stop-agent' | 'reboot'>,
): Promise<string | undefined> {
  const waiting =
    deed.kind === 'reboot' ? world.nodes.find((each) => wantsReboot(each) && !each.busy) : undefined;
  const node = waiting ?? world.node(deed.node);
  if (node.busy || !node.agent) return undefined;
  node.busy = true;
  try {
    if (deed.kind === 'stop-agent') {
      const victim = identify(node.agent.pid);
      victim.signal('SIGSTOP');
      await world.lull(deed.forMs);
      victim.signal('SIGCONT');
    } else {
      if (deed.kind === 'reboot') await reboot(world, node);
      else await world.endAgent(node, deed.signal);
      await world.lull(deed.awayMs);
      world.startAgent(node);
    }
    return node.plan.name;
  } finally {
    node.busy = false;
  }
}

export const wantsReboot = ({ folder }: SoakNode): boolean => existsSync(rebootFile(folder));

export async function reboot(world: AgentsWorld, node: SoakNode): Promise<void> {
  const fromMs = uptimeMs();
  node.agent = undefined;
  await node.crash();
  rmSync(rebootFile(node.folder), { force: true });
  world.hits.push({ kind: 'reboot', node: node.plan.name, fromMs, untilMs: uptimeMs() });
}

async function hitRun(world: AgentsWorld, deed: Of<'kill-run' | 'stop-run'>): Promise<string | undefined> {
  const all = world.nodes.flatMap((node) => node.living().map((run) => ({ ...run, node })));
  const target = all[Math.floor(deed.pick * all.length)];
  if (!target) return undefined;
  const runlock = identify(target.pid);
  const guard = findGuard(target.pid);
  const fromMs = uptimeMs();
  let isHit = false;
  if (deed.kind === 'kill-run') {
    if (deed.who !== 'runlock') isHit = guard?.signal('SIGKILL') ?? false;
    if (deed.who !== 'guard') isHit = runlock.signal('SIGKILL') || isHit;
  } else {
    const victim = deed.who === 'guard' ? guard : runlock;
    isHit = victim?.signal('SIGSTOP') ?? false;
    if (isHit) await world.lull(deed.forMs);
    victim?.signal('SIGCONT');
  }
  if (!isHit) return undefined;
  const { name } = target.node.plan;
  world.hits.push({ kind: `${deed.kind} ${deed.who} ${target.of}`, node: name, fromMs, untilMs: uptimeMs() });
  return `${target.of} on ${name} (${target.pid})`;
}

function findGuard(pid: number): ReturnType<typeof identify> | undefined {
  try {
    return identify(guardOf(pid));
  } catch {
    return undefined;
  }
}

async function destroySession({ server }: AgentsWorld, pick: number): Promise<string | undefined> {
  const answer = await server.http('GET', '/v1/session/list').catch(() => undefined);
  if (answer?.status !== 200) return undefined;
  const sessions = (answer.json() as { ID: string; Name: string }[]).filter(({ Name }) =>
    Name.startsWith('runlock'),
  );
  const session = sessions[Math.floor(pick * sessions.length)];
  if (!session) return undefined;
  const gone = await server.http('PUT', `/v1/session/destroy/${session.ID}`).catch(() => undefined);
  return gone?.status === 200 ? `${session.Name} ${session.ID}` : undefined;
}

async function pause(world: AgentsWorld, { node: name, forMs }: Of<'pause'>): Promise<string> {
  const node = world.node(name);
  await world.adopt(node.spawn(['agent', 'pause', '--reason', 'soak']));
  await world.lull(forMs);
  const { status, stderr } = await world.adopt(node.spawn(['agent', 'resume']));
  if (status !== 0) world.surprises.push(`agent resume on ${name} exited ${status}: ${stderr}`);
  return name;
}

interface Stale {
  readonly node: string;
  readonly run: string;
  readonly state: string;
}

/** Clears the claims that nobody stands behind, as an operator should who has looked at the node. */
export async function operateOn(world: AgentsWorld): Promise<string | undefined> {
  const cleared: string[] = [];
  for (const group of GROUPS)
    for (const { node, run, state } of await staleIn(world, group)) {
      const force = ['failed', 'interrupted', 'rebooting'].includes(state) ? [] : ['--force'];
      const { status } = await world.run(['release', group, '--owner', node, ...force], { limitMs: 10_000 });
      world.hits.push({ kind: `clear ${run}`, node, fromMs: uptimeMs(), untilMs: uptimeMs() });
      cleared.push(`${node} of ${group} after ${state} (status ${status})`);
    }
  return cleared.length > 0 ? cleared.join(', ') : undefined;
}

const STALE = ['failed', 'interrupted', 'abandoned'];
/** When all is over: of runs that were killed, in groups in which nobody else waits, and of reboots of jobs that had ended. */
const STALE_AT_LAST = [...STALE, 'running', 'evicted', 'rebooting'];

async function staleIn({ server, calm, nodes }: AgentsWorld, group: string): Promise<readonly Stale[]> {
  const path = `/v1/kv/runlock/${group}/.slot/?recurse&consistent`;
  const answer = await server.http('GET', path, undefined, { timeoutMs: 3_000 }).catch(() => undefined);
  const pairs = answer?.status === 200 ? (answer.json() as StoredPair[]) : [];
  const isLast =
    calm.signal.aborted && nodes.every((node) => node.living().length === 0 && !wantsReboot(node));
  const stale = isLast ? STALE_AT_LAST : STALE;
  const locked = new Set(pairs.filter(({ Session }) => Session !== undefined).map(({ Key }) => Key));
  return pairs
    .filter(({ Key }) => Key.endsWith('/owner') && !locked.has(Key.replace(/owner$/, 'lock')))
    .map((pair) => read(pair) as unknown as Stale)
    .filter(({ state, run }) => stale.includes(state) && markedPids(run).length === 0);
}
