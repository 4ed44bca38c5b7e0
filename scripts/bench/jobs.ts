/** What a request for a task takes until its command says something, and what a node's agent costs meanwhile. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startAgent } from '../../test/support/consul.ts';
import type { Agent } from '../../test/support/consul.ts';
import { consulBinary } from '../../test/support/provision.ts';
import { howAgents, measureAgents } from './agents.ts';
import { RUNLOCK } from './contenders.ts';
import { inTurns, median } from './pairs.ts';
import { endProcesses, memoryOf, start } from './processes.ts';
import { atMost } from './report.ts';
import type { Measured, PartOptions, Row } from './report.ts';

const how = `One node with a Consul agent (\`disable_remote_exec = false\`) and a \`runlock agent\`. In turns, \`runlock job \
start\` asks for a task, and \`consul exec\` for the same command, which prints the time. Measured is the time from the start \
of the program that asks to what the command prints. The idle agent is measured after that, while nothing is asked for. ${howAgents}`;

const section = 'A request, until the command says something';
const NAMES = ['runlock', 'consul exec'] as const;
/** Clock ticks a second, as /proc counts them. */
const TICKS = 100;

export async function measureJobs({ quick, say }: PartOptions): Promise<Measured> {
  const folder = mkdtempSync(join(tmpdir(), 'runlock-bench-jobs-'));
  const consul = await startAgent({ name: 'node1', config: { disable_remote_exec: false } });
  try {
    const env = await startNode(consul, folder);
    const consulFile = await consulBinary();
    const ask = {
      runlock: (round: number) => askRunlock(env, folder, round),
      'consul exec': () => askConsul([consulFile, 'exec', '-node', 'node1', 'date +%s%N'], env),
    };
    const raw = await inTurns(NAMES, quick ? 2 : 21, (name, round) => ask[name](round));
    const others = { 'consul exec': median(raw['consul exec']) };
    const figures = { runlock: median(raw.runlock), others };
    const reach = atMost(1, 'consul exec', figures);
    const idle = await idleCost(Number(readFileSync(join(folder, 'pid'), 'utf8')), quick ? 1_000 : 20_000);
    const rows: Row[] = [
      { section, what: 'to the first line of output', unit: 'ms', ...figures, reach },
      { section, what: 'the idle agent, resident (RSS)', unit: 'MB', runlock: idle.rssMb, others: {} },
      { section, what: 'the idle agent, CPU time a minute', unit: 'ms', runlock: idle.cpuMs, others: {} },
    ];
    for (const row of rows) say(`jobs, ${row.what}: ${row.runlock.toFixed(1)} ${row.unit}`);
    const agents = await measureAgents(quick, say);
    return { rows: [...rows, ...agents.rows], raw: { ...raw, idle, agents: agents.raw }, how };
  } finally {
    // The agent writes into the folder to its end.
    await endProcesses();
    await consul[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The environment of everything that is asked for. */
async function startNode(consul: Agent, folder: string): Promise<NodeJS.ProcessEnv> {
  const at = { tasks: join(folder, 'tasks.d'), state: join(folder, 'state'), logs: join(folder, 'log') };
  for (const each of Object.values(at)) mkdirSync(each, { mode: 0o755 });
  const script = `date +%s%N >${folder}/out.new; mv ${folder}/out.new ${folder}/out`;
  const text = `command = ["/bin/sh", "-c", "${script}"]\nallow = ["ops"]\ngroup = "bench/jobs"\n`;
  writeFileSync(join(at.tasks, 'bench.toml'), text, { mode: 0o600 });
  const env = {
    ...{ PATH: process.env['PATH'], HOME: folder, ...consul.env, RUNLOCK_CONFIG: '/dev/null' },
    ...{ RUNLOCK_TASKS_DIR: at.tasks, RUNLOCK_STATE_DIR: at.state, RUNLOCK_LOG_DIR: at.logs },
    ...{ RUNLOCK_REQUESTS: 'trust-everybody', RUNLOCK_PRINCIPAL: 'ops' },
  };
  const agent = start([RUNLOCK, 'agent'], env);
  writeFileSync(join(folder, 'pid'), String(agent.pid));
  for (let tries = 0; (await consul.kv.get('runlock/.agents/node1'))?.Session === undefined; tries += 1) {
    if (tries > 100) throw new Error(`the agent of ${hostname()} is not ready after 10 s`);
    await sleep(100);
  }
  return env;
}

/** In milliseconds. Waits until the job is over, so that the next one does not wait for it. */
async function askRunlock(env: NodeJS.ProcessEnv, folder: string, round: number): Promise<number> {
  const sentMs = Date.now();
  const words = [
    'job',
    'start',
    'bench',
    '--node',
    'node1',
    '--id',
    `bench-${process.pid}-${round}`,
    '--watch',
  ];
  await start([RUNLOCK, ...words], env).ended;
  return timeIn(readFileSync(join(folder, 'out'), 'utf8')) - sentMs;
}

async function askConsul(command: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const sentMs = Date.now();
  const { says, ended } = start(command, env);
  const line = await says(/\b\d{19}\b/);
  await ended;
  return timeIn(line) - sentMs;
}

function timeIn(text: string): number {
  const [, ns] = /\b(\d{19})\b/.exec(text) ?? [];
  if (ns === undefined) throw new Error(`no time in ${JSON.stringify(text)}`);
  return Number(BigInt(ns) / 1_000n) / 1e3;
}

async function idleCost(pid: number, forMs: number) {
  const beforeMs = cpuMs(pid);
  await sleep(forMs);
  return { rssMb: memoryOf(pid).rssKb / 1024, cpuMs: ((cpuMs(pid) - beforeMs) * 60_000) / forMs };
}

/** User and system time so far. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1_000) / TICKS;
}
