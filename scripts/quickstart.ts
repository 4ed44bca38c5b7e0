// `npm start`: a real Consul agent, three nodes of one group, and a change that breaks the first of them; then two nodes with
// an agent each, and a state that starts a task. Every statement is checked; the first that does not hold ends it with 1. Nothing is left behind, whichever way it ends.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { endAgents, startAgent } from '../test/support/consul.ts';
import type { Agent } from '../test/support/consul.ts';
import { fetchingOn, megabytes, sizeOf } from '../test/support/fetching.ts';
import { cacheFolder, consulBinary } from '../test/support/provision.ts';
import { NODES, endTheirRuns, setUpNode } from './quickstart-agents.ts';
import { whatToRun } from './quickstart-command.ts';

const GROUP = 'prod/web';
const LIMIT_MS = 60_000;
const RUNLOCK = process.env['RUNLOCK_BIN'] ?? resolve('bin/runlock.js');

interface Run {
  /** Asks it to end. */
  readonly end: () => void;
  readonly ended: Promise<number>;
  /** Exit status, once it has ended. */
  status: number | undefined;
}

interface Stage {
  readonly agent: Agent;
  readonly folder: string;
  readonly env: NodeJS.ProcessEnv;
  /** What every node runs. */
  readonly command: readonly string[];
}

const bold = process.stdout.isTTY && !process.env['NO_COLOR'];
const colours = bold ? { FORCE_COLOR: '1', ANSIBLE_FORCE_COLOR: '1' } : {};
const say = (line: string) => console.log(line);
const title = (line: string) => say(bold ? `\n\x1b[1m${line}\x1b[0m` : `\n${line}`);

/** Aborted by a signal, or when it takes too long. */
const stop = new AbortController();
const { signal } = stop;
const stopped = once(signal, 'abort').then(() => Promise.reject(signal.reason as Error));
stopped.catch(() => undefined);
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(name, () => stop.abort(new Error(`ended by ${name}`)));
for (const stream of [process.stdout, process.stderr])
  stream.on('error', () => stop.abort(new Error('stdout or stderr was closed')));

const running = new Set<Run>();
/** Of nodes. */
const agents = new Set<Run>();

function check(holds: boolean, statement: string): void {
  if (!holds) throw new Error(`expected, but not seen: ${statement}`);
}

/** The words after `runlock`, as an operator types them. */
const show = (args: readonly string[]) => say(`$ runlock ${args.join(' ')}`);

function spawnRunlock({ env }: Stage, args: readonly string[]) {
  signal.throwIfAborted();
  // A session of its own keeps the terminal's Ctrl-C away: it is for this program, which then ends them in order.
  return spawn(RUNLOCK, args, { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Starts the node's run; each line of its output shows its name. */
function startRun(stage: Stage, node: string): Run {
  const args = ['exec', '-v', '-g', GROUP, '--node', node, '--', ...stage.command];
  return startLines(stage, node, args);
}

/** Starts runlock; each line of its output shows the name. */
function startLines(stage: Stage, name: string, args: readonly string[], among = running): Run {
  show(args);
  const child = spawnRunlock(stage, args);
  const print = (stream: Readable) =>
    createInterface(stream).on('line', (line) => line === '' || say(`${name} | ${line}`));
  print(child.stdout);
  print(child.stderr);
  const end = () => void child.kill('SIGTERM');
  signal.addEventListener('abort', end);
  const ended = once(child, 'close').then(([code, by]: (number | NodeJS.Signals | null)[]) => {
    signal.removeEventListener('abort', end);
    among.delete(run);
    run.status = typeof code === 'number' ? code : 128 + constants.signals[by as NodeJS.Signals];
    return run.status;
  });
  const run: Run = { end, ended, status: undefined };
  among.add(run);
  return run;
}

async function runStatus(stage: Stage, ...more: string[]): Promise<string> {
  const child = spawnRunlock(stage, ['status', ...more]);
  const [stdout] = await Promise.all([text(child.stdout), once(child, 'close')]);
  return stdout;
}

interface Group {
  readonly slots: readonly { state: string; node?: string; exitCode?: number }[];
  readonly queue: readonly { node: string }[];
  readonly why: string;
}

/** Shows the status, and returns the same as data. */
async function showStatus(stage: Stage): Promise<Group> {
  show(['status', GROUP]);
  say((await runStatus(stage, GROUP)).trimEnd());
  const { groups } = JSON.parse(await runStatus(stage, GROUP, '--json')) as { groups: Group[] };
  return groups[0] ?? { slots: [], queue: [], why: '' };
}

/** Waits, by Consul's own watch, until the keys of a group, or of a folder, are as wanted. */
async function until(
  { agent }: Stage,
  wanted: (keys: readonly string[]) => boolean,
  folder = GROUP,
): Promise<void> {
  const path = `/v1/kv/runlock/${folder}/?keys&wait=2s&index=`;
  for (let index = '0'; ;) {
    const answer = await Promise.race([agent.http('GET', path + index), stopped]);
    if (wanted(answer.status === 404 ? [] : (answer.json() as string[]))) return;
    index = String(answer.headers['x-consul-index']);
  }
}

/** Starts the node's run behind the others, and waits until it stands in the queue. */
async function queueUp(stage: Stage, node: string, place: number): Promise<Run> {
  const run = startRun(stage, node);
  await until(stage, (keys) => {
    check(run.status === undefined, `${node} waits`);
    return keys.filter((key) => key.includes('/.queue/')).length === place;
  });
  return run;
}

/** What stays on this machine, and how to be rid of it. */
async function sayWhatStays(): Promise<void> {
  const cache = cacheFolder();
  const size = await sizeOf(cache);
  if (size === 0) return;
  title('What stays on this machine');
  say(
    `Consul and Ansible, where this machine has none: ${megabytes(size)} in ${cache}, for the next start and the tests.`,
  );
  say(`To remove them: rm -r ${cache}`);
}

/** The number of the grant under which the node's configuration was written; 0: it was not. */
function grantOf({ folder }: Stage, node: string): number {
  const file = join(folder, `${node}.conf`);
  return existsSync(file) ? Number(/grant (\d+)/.exec(readFileSync(file, 'utf8'))?.[1]) : 0;
}

/** Where in Consul's own order of events the node's last run gave its slot back. */
async function endOf({ agent }: Stage, node: string): Promise<number> {
  return (await agent.kv.get(`runlock/${GROUP}/.runs/${node}`))?.ModifyIndex ?? 0;
}

async function tour(stage: Stage): Promise<void> {
  const broken = join(stage.folder, 'broken');
  title('A change that breaks the first node: web01 starts, web02 and web03 wait in the queue');
  say(`$ touch ${broken}`);
  writeFileSync(broken, '');
  const failing = startRun(stage, 'web01');
  let over = false;
  await until(stage, (keys) => {
    const granted = keys.some((key) => key.endsWith('/owner'));
    check(granted || !over, 'web01 gets the slot');
    // It may have ended since these keys were read: then the next look tells.
    over = failing.status !== undefined;
    return granted;
  });
  const second = await queueUp(stage, 'web02', 1);
  const third = await queueUp(stage, 'web03', 2);
  check((await failing.ended) === 2, "web01's run fails, and its exit code arrives");
  const first = grantOf(stage, 'web01');

  title('The group is blocked, so no other node breaks');
  const { slots, queue } = await showStatus(stage);
  check(slots[0]?.state === 'failed' && slots[0].node === 'web01', 'the failed web01 keeps the slot');
  check(queue.map(({ node }) => node).join() === 'web02,web03', 'web02 and web03 wait, in this order');
  check(grantOf(stage, 'web02') + grantOf(stage, 'web03') === 0, 'web02 and web03 are untouched');

  title("The cause is repaired: web01's next run unblocks the group, and the others follow in order");
  say(`$ rm ${broken}`);
  rmSync(broken);
  const runs = [startRun(stage, 'web01'), second, third];
  const codes = await Promise.all(runs.map(({ ended }) => ended));
  check(codes.join() === '0,0,0', 'all three runs succeed');
  const moments = [first];
  for (const node of ['web01', 'web02', 'web03'])
    moments.push(grantOf(stage, node), await endOf(stage, node));
  check(
    moments.every((moment, i) => moment > (moments[i - 1] ?? 0)),
    `one run at a time, first come, first served (${moments.join(' < ')})`,
  );

  title('All three nodes have the change');
  const last = await showStatus(stage);
  check(last.slots[0]?.state === 'free' && last.queue.length === 0, 'no run is left, running or waiting');
}

/** One node's agent starts a task because of what another node's run has published. */
async function tourOfAgents(stage: Stage): Promise<void> {
  title('Two nodes with an agent: a job on db01 publishes a state, and that starts a task on web01');
  const started = NODES.map((node) => {
    const { task, settings } = setUpNode(stage.folder, node);
    say(task);
    const own = { ...stage, env: { ...stage.env, ...settings } };
    // This Consul has no ACLs, so anyone could ask in anybody's name.
    const args = ['agent', '--node', node, '--requests', 'trust-everybody'];
    return startLines(own, `${node}'s agent`, args, agents);
  });
  const allLive = () =>
    check(
      started.every(({ status }) => status === undefined),
      'both agents are running',
    );
  const has =
    (...names: string[]) =>
    (keys: readonly string[]) => {
      allLive();
      return names.every((name) => keys.some((key) => key.endsWith(`/${name}`)));
    };
  await until(stage, has(...NODES), '.agents');
  const job = startLines(stage, 'ops', [
    'job',
    'start',
    'migrate',
    '--node',
    'db01',
    '--principal',
    'ops',
    '--watch',
  ]);
  check((await job.ended) === 0, 'the job is good');
  await until(stage, has('.runs/web01'), 'prod/app');
  show(['status', '--node', 'web01']);
  say((await runStatus(stage, '--node', 'web01')).trimEnd());
  const { lastRuns } = JSON.parse(await runStatus(stage, '--node', 'web01', '--json')) as {
    lastRuns: { group: string; outcome: string }[];
  };
  const own = lastRuns.find(({ group }) => group === 'prod/app');
  check(own?.outcome === 'succeeded', 'the state has started a good run on web01');
  for (const { end } of started) end();
  await Promise.all(started.map(({ ended }) => ended));
}

async function prepare(folder: string): Promise<Stage> {
  title('A throw-away Consul agent');
  const fetching = fetchingOn(process.stdout);
  const { command, settings, note } = await whatToRun(folder, fetching);
  signal.throwIfAborted();
  if (note !== undefined) say(note);
  await consulBinary(fetching);
  signal.throwIfAborted();
  const agent = await startAgent({ name: 'quickstart' });
  signal.throwIfAborted();
  const address = agent.env['CONSUL_HTTP_ADDR'] ?? agent.address;
  say(`$ export CONSUL_HTTP_ADDR=${address}`);
  const own = Object.entries(process.env).filter(
    ([name]) => !/^(?:RUNLOCK_|CONSUL_|ANSIBLE_|INVOCATION_ID$)/.test(name),
  );
  // What stands in the usual file is about another Consul.
  // What a tool that is killed leaves behind goes with the folder.
  const mine = { RUNLOCK_CONFIG: '/dev/null', TMPDIR: folder, ...agent.env, ...settings, ...colours };
  const env = { ...Object.fromEntries(own), ...mine };
  return { agent, folder, env, command };
}

async function main(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'runlock-quickstart-'));
  try {
    const stage = await prepare(folder);
    const late = setTimeout(() => stop.abort(new Error(`not done after ${LIMIT_MS / 1000} s`)), LIMIT_MS);
    await tour(stage)
      .then(() => tourOfAgents(stage))
      .finally(() => clearTimeout(late));
    await sayWhatStays();
    return 0;
  } catch (error) {
    const reason: unknown = signal.aborted ? signal.reason : error;
    console.error(`quickstart: ${reason instanceof Error ? reason.message : String(reason)}`);
    return 1;
  } finally {
    if (!signal.aborted) stop.abort(new Error('over'));
    await Promise.all([...running, ...agents].map(({ ended }) => ended));
    await endTheirRuns(folder);
    await endAgents();
    rmSync(folder, { recursive: true, force: true });
  }
}

process.exitCode = await main();
