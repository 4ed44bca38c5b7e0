// The end of a soak with agents: all that was begun is ended, and nothing may be left.
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { read } from '../../history/observer.ts';
import type { StoredPair } from '../../history/observer.ts';
import { eventually } from '../../processes.ts';
import { spoilFile } from './commands.ts';
import { completeJobs, operateOn, reboot, setDoor, wantsReboot } from './deeds.ts';
import { homeOf } from './nodes.ts';
import { isOver } from './observed.ts';
import { missedBy } from './judge.ts';
import type { AgentsHistory } from './judge.ts';
import type { JobPlan } from './plan.ts';
import type { AgentsWorld } from './world.ts';

export interface QuietOptions {
  readonly signal?: AbortSignal;
  readonly say: (line: string) => void;
}

/** The pauses of what was refused again and again grow up to five minutes. */
const DRAIN_MS = 360_000;
const SAY_MS = 15_000;
const PAUSE_MS = 500;
/** A connection that was idle may just have been closed. */
const PATIENCE_MS = 30_000;
const SEEN_MS = 1_000;

export async function historyOf(world: AgentsWorld): Promise<AgentsHistory> {
  const seen = await world.observing.look();
  const looks = world.observing.jobs();
  return {
    ...seen,
    nodes: world.nodes.map(({ plan }) => plan),
    commands: world.nodes.flatMap((node) => node.commands()),
    jobs: world.asked.map(({ name, job }) => ({ name, job, looks: looks.get(name) ?? [] })),
    hits: world.hits,
  };
}

/** Until all jobs are over, nothing runs, and every change has had its run. @returns what is not so in the end. */
export async function drain(world: AgentsWorld, { signal, say }: QuietOptions): Promise<readonly string[]> {
  const endMs = performance.now() + DRAIN_MS;
  let saidMs = performance.now();
  for (let isCalm = false; ;) {
    const open = await whatIsOpen(world);
    if (performance.now() - saidMs > SAY_MS) {
      saidMs = performance.now();
      say(`still open:\n${open.join('\n')}`);
    }
    // Twice in a row: between two looks a run may begin that the first one did not see.
    if (open.length === 0 && isCalm) return [];
    isCalm = open.length === 0;
    if (performance.now() > endMs) return open;
    for (const node of world.nodes.filter(wantsReboot)) {
      await reboot(world, node);
      world.startAgent(node);
    }
    await completeJobs(world);
    const whom = await operateOn(world);
    if (whom !== undefined) say(`operate: ${whom}; to end with`);
    await resetTriggers(world, say);
    await sleep(isCalm ? SEEN_MS : PAUSE_MS, undefined, signal && { signal });
  }
}

/** Before: agents are there and may work, doors are open, nothing fails any more. */
export async function makeWell(world: AgentsWorld): Promise<void> {
  for (const node of world.nodes) {
    rmSync(spoilFile(node.folder, 'react'), { force: true });
    if (!node.agent && !node.busy) world.startAgent(node);
  }
  await setDoor(world, true);
}

async function whatIsOpen(world: AgentsWorld): Promise<readonly string[]> {
  const history = await historyOf(world);
  const jobs = history.jobs.filter(({ looks }) => looks.length > 0 && !isOver(looks));
  const runs = world.nodes.flatMap((node) =>
    node.living().map(({ of, pid }) => `${of} (${pid}) on ${node.plan.name}`),
  );
  const claims = await keysOf(world, 'soak/', /\/\.slot\/\d+\/owner$/);
  const pointers = await keysOf(world, '.requests/', /\/inbox\/[^/]+\/(?!\.open$)/);
  return [
    ...jobs.map(({ name, looks }) => `${name} is not over: ${describe(looks.at(-1))}`),
    ...runs.map((run) => `${run} has not ended`),
    ...[...pointers, ...claims].map((key) => `${key} is left`),
    ...history.nodes.flatMap((node) => missedBy(node, history)),
    ...(await unsettled(world)),
  ];
}

const describe = (look: AgentsHistory['jobs'][number]['looks'][number] | undefined) =>
  JSON.stringify([look?.stage.value, [...(look?.targets ?? [])].map(([node, { value }]) => [node, value])]);

function tree({ server }: AgentsWorld, prefix: string): Promise<readonly StoredPair[]> {
  return eventually(async () => {
    const answer = await server.http('GET', `/v1/kv/runlock/${prefix}?recurse&consistent`);
    if (answer.status !== 200 && answer.status !== 404)
      throw new Error(`status ${answer.status} of ${prefix}`);
    return answer.status === 404 ? [] : (answer.json() as StoredPair[]);
  }, PATIENCE_MS);
}

async function keysOf(world: AgentsWorld, prefix: string, pattern: RegExp): Promise<readonly string[]> {
  return (await tree(world, prefix)).map(({ Key }) => Key).filter((key) => pattern.test(key));
}

interface CursorSeen {
  readonly run?: string;
  readonly failures?: number;
  readonly stalledAt?: string;
  readonly trippedAt?: string;
  readonly refused?: object;
  readonly marks?: Readonly<Record<string, { readonly mark?: string }>>;
}

async function cursors(
  world: AgentsWorld,
): Promise<readonly (readonly [node: string, cursor: CursorSeen])[]> {
  return (await tree(world, '.triggers/')).map((pair) => [
    pair.Key.split('/')[2] ?? '',
    read(pair) as CursorSeen,
  ]);
}

/** Every cursor has the marks of the states as they are now, and names no run. */
async function unsettled(world: AgentsWorld): Promise<readonly string[]> {
  const states = new Map(
    (await tree(world, '.state/soak/')).map((pair) => [
      pair.Key.slice('runlock/.state/'.length).replace(/\/\.value$/, ''),
      read(pair)['change'],
    ]),
  );
  return (await cursors(world)).flatMap(([node, { run, marks = {}, refused }]) => [
    ...(run === undefined ? [] : [`the cursor of ${node} still names the run ${run}`]),
    ...(refused === undefined ? [] : [`a start on ${node} was refused as a loop`]),
    ...Object.entries(marks).flatMap(([name, { mark }]) => {
      const change = states.get(name.replace(/^state:/, ''));
      const isSame = typeof change !== 'string' || mark?.includes(change) === true;
      return isSame ? [] : [`the cursor of ${node} has ${mark ?? 'no mark'} of ${name}, which is ${change}`];
    }),
  ]);
}

/** As an operator, who does not want to wait for back-offs of up to an hour. */
async function resetTriggers(world: AgentsWorld, say: (line: string) => void): Promise<void> {
  for (const [name, { failures, stalledAt, trippedAt }] of await cursors(world)) {
    if (failures === undefined && stalledAt === undefined && trippedAt === undefined) continue;
    const { status } = await world.adopt(world.node(name).spawn(['agent', 'reset', 'react']));
    say(
      `reset of react on ${name} (status ${status}): ${failures ?? 0} failures, ${stalledAt ?? trippedAt ?? ''}`,
    );
  }
}

/** One more request to each head of the chain, with new values for all: everything behind it has to run. */
export async function sweep(world: AgentsWorld, options: QuietOptions): Promise<readonly string[]> {
  for (const node of world.nodes) node.write('sweep');
  const heads = world.nodes.filter(({ plan }) => plan.role === 'a').map(({ plan }) => plan.name);
  const job: JobPlan = {
    ...{ principal: 'ops', id: 'sweep', role: 'a', nodes: heads, task: 'deploy', beats: 1, code: 0 },
    ...{ expiresMs: 300_000, isUnfit: false, watch: true },
  };
  world.observing.job('ops/sweep', homeOf(job));
  const before = (await historyOf(world)).commands.length;
  const args = [
    'job',
    'start',
    'deploy',
    '--id',
    'sweep',
    '--node',
    heads.join(','),
    '--param',
    'beats=1',
    '--watch',
  ];
  const { status, stderr } = await world.run(args, { limitMs: 300_000 });
  world.asked.push({ job, name: 'ops/sweep', args, statuses: [status] });
  if (status !== 0) return [`the last job exited ${status}: ${stderr}`];
  const open = await drain(world, options);
  const after = (await historyOf(world)).commands.length - before;
  // d and e run once more, whoever of them was still waiting for a round; b and c for certain.
  const least = world.nodes.filter(({ plan }) => plan.role !== 'd').length;
  return after >= least
    ? open
    : [...open, `after the last job only ${after} commands ran, of ${least} at least`];
}

/** Consul ends a session within twice its TTL; then as long again for a busy machine. */
const LAST_SESSION_MS = 120_000;

export async function leftOf(world: AgentsWorld, { signal }: QuietOptions): Promise<readonly string[]> {
  for (const node of world.nodes) await world.endAgent(node, 'SIGTERM');
  const endMs = performance.now() + LAST_SESSION_MS;
  for (;;) {
    const left = await look(world);
    if (left.length === 0 || performance.now() > endMs) return left;
    await sleep(PAUSE_MS, undefined, signal && { signal });
  }
}

/** What may stay: those who watched a job and were killed, until it is removed; records of last runs, queues' ends, jobs with what was asked, states, cursors, empty inboxes. */
const STAYS =
  /^runlock\/(?:soak\/[a-z]\/(?:\.tail|\.last|\.runs\/[^/]+|\.jobs\/.+\/(?:stage|stage\/watched\/[^/]+|tally|nodes\/[^/]+))|\.state\/soak\/.+|\.triggers\/[^/]+\/react|\.requests\/(?:ops|ci)\/(?:spec\/.+|targets\/.+|inbox\/[^/]+\/\.open))$/;

async function look(world: AgentsWorld): Promise<readonly string[]> {
  const keys = (await tree(world, '')).map(({ Key }) => Key).filter((key) => !STAYS.test(key));
  const sessions = await eventually(async () => {
    const answer = await world.server.http('GET', '/v1/session/list?consistent');
    return answer.json() as { ID: string; Name: string }[];
  }, PATIENCE_MS);
  const hosts = world.nodes.flatMap((node) => [
    ...node.processes().map((pid) => `process ${pid} of ${node.plan.name} is left`),
    ...node.leftFiles().map((file) => `${file} is left`),
  ]);
  return [
    ...keys.map((key) => `${key} is left`),
    ...sessions.map(({ ID, Name }) => `session ${ID} (${Name}) is left`),
    ...hosts,
  ];
}

const BUG = /report this as a bug|please report this|"code":"bug"|^\s+at .*:\d+:\d+\)?$/m;

/** Nothing that runlock says may be a sign of its own fault. */
export function bugsSaid(world: AgentsWorld): readonly string[] {
  const agents = world.said.map(({ node, stderr }) => ({ file: `the agent of ${node}`, text: stderr }));
  const logs = world.nodes.flatMap((node) => node.logs());
  return [...agents, ...logs].flatMap(({ file, text }) => (BUG.test(text) ? [`${file} said:\n${text}`] : []));
}
