/** What one change costs those who wait for it, thousands in this one process, and what waiting costs meanwhile. */
import { setMaxListeners } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { wait } from '../../src/commands/wait/wait.ts';
import type { WaitOptions } from '../../src/commands/wait/wait.ts';
import { parseCondition } from '../../src/conditions/parse.ts';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { encodeState } from '../../src/state/document.ts';
import { stateKey } from '../../src/state/path.ts';
import type { Agent } from '../../test/support/consul.ts';
import { startServer } from './in-process-crowd.ts';
import { processDeps } from './in-process-lock.ts';
import { countQueries, countTraffic } from './in-process-traffic.ts';
import { inTurns, median } from './pairs.ts';
import { atMost } from './report.ts';
import type { Measured, PartOptions, Row } from './report.ts';

// A wait for 20 conditions adds as many listeners to one signal, as in the program itself.
setMaxListeners(0);

const section = 'One change, many waiting in one process';
const BARE = 'bare queries';
const NAMES = ['runlock', BARE] as const;
type Name = (typeof NAMES)[number];

const how = `All wait for one state in one Node.js process, on a Consul server that keeps its data on disk: runlock by the \
code of \`runlock wait\`, *${BARE}* by one blocking query each of \`node:http\`, whose answer is parsed. Then the state is set. \
The time is from before the request that sets it until the last of them has ended; bytes are those at this process’s \
sockets meanwhile, HTTP’s headers included. What a wait sends while nothing changes is counted for a minute. A look of 20 \
conditions is what is read, once one of 20 states has changed, to judge them all.`;

/** Of one change. */
interface Woken {
  readonly lastMs: number;
  readonly bytes: number;
}

interface Crowd {
  /** Resolves when it has heard of the change. */
  readonly hears: (index: number) => Promise<void>;
  readonly close: () => void;
}

export async function measureFanOut({ quick, say }: PartOptions): Promise<Measured> {
  const waiting = quick ? 20 : 3_000;
  const agent = await startServer();
  try {
    const woken = await inTurns(NAMES, quick ? 1 : 4, (name) => wake(agent, CROWDS[name], waiting));
    const quiet = await countQuiet(agent, quick ? 300 : 60_000);
    const reads = await countReads(agent, 20);
    const rows = toRows(woken, { waiting, quiet, reads });
    for (const { what, runlock, unit } of rows) say(`fan-out, ${what}: ${runlock.toFixed(1)} ${unit}`);
    return { rows, raw: { waiting, woken, quiet, reads }, how };
  } finally {
    await agent[Symbol.asyncDispose]();
  }
}

let states = 0;
const nextPath = () => `bench/s${(states += 1)}`;
const keyOf = (path: string) => stateKey('runlock', path);

const set = (agent: Agent, path: string, value: string) =>
  agent.kv.put(
    keyOf(path),
    encodeState({ value, change: crypto.randomUUID(), by: 'web1', at: new Date().toISOString() }),
  );

async function indexOf(agent: Agent, path: string): Promise<number> {
  return (await agent.kv.get(keyOf(path)))?.ModifyIndex ?? 0;
}

const CROWDS: Readonly<Record<Name, (agent: Agent, path: string) => Crowd>> = {
  runlock: (agent, path) => {
    const { ask, close } = openWaits(agent);
    return { hears: () => ask([`state:${path}=1`]), close };
  },
  [BARE]: (agent, path) => {
    const connections = new http.Agent({ keepAlive: true });
    const [host, port] = agent.address.split(':');
    const hears = (index: number) =>
      new Promise<void>((resolve, reject) => {
        const query = `consistent=1&index=${index}&wait=25000ms`;
        const request = http.get({ host, port, agent: connections, path: `/v1/kv/${keyOf(path)}?${query}` });
        request.on('error', reject);
        request.on('response', (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
          response.on('end', () => {
            const [entry] = JSON.parse(text) as { ModifyIndex: number }[];
            if (entry && entry.ModifyIndex > index) resolve();
            else reject(new Error('a query ended that should have waited'));
          });
        });
      });
    return { hears, close: () => connections.destroy() };
  },
};

/** `runlock wait`, as often as it is asked, over connections that all share. */
function openWaits(agent: Agent) {
  const deps = processDeps();
  const consul = connect(consulSettings(agent.env), { clock: deps.clock, emit: deps.emit });
  const ended = new AbortController();
  setMaxListeners(0, ended.signal);
  const ask = async (conditions: readonly string[]) => {
    const options: WaitOptions = {
      ...{ prefix: 'runlock', groups: ['default'], any: false, timeoutMs: 600_000, stableMs: 0 },
      goals: conditions.map((text) => ({ option: 'until', condition: parseCondition(text) })),
    };
    const { kind } = await wait({ consul, deps, looked: () => undefined }, options, ended.signal);
    if (kind !== 'met') throw new Error('a wait timed out');
  };
  const close = () => {
    ended.abort();
    consul.close();
  };
  return { ask, close };
}

/** After the last request, for as long as Consul may take to have it wait. */
const QUIET_MS = 1_000;

async function wake(
  agent: Agent,
  open: (agent: Agent, path: string) => Crowd,
  waiting: number,
): Promise<Woken> {
  const path = nextPath();
  await set(agent, path, '0');
  const index = await indexOf(agent, path);
  const queries = countQueries();
  const crowd = open(agent, path);
  const traffic = countTraffic();
  try {
    const heard = Array.from({ length: waiting }, () => crowd.hears(index));
    const all = Promise.all(heard);
    all.catch(() => undefined);
    while (queries.blocking() < waiting) await sleep(50);
    await sleep(QUIET_MS);
    const before = traffic.now().wire;
    const startedMs = performance.now();
    await set(agent, path, '1');
    await all;
    const lastMs = performance.now() - startedMs;
    return { lastMs, bytes: traffic.now().wire - before };
  } finally {
    traffic.stop();
    queries.stop();
    crowd.close();
  }
}

/** What 20 waits send in a while, by wait and minute. */
async function countQuiet(agent: Agent, whileMs: number): Promise<number> {
  const path = nextPath();
  await set(agent, path, '0');
  const { ask, close } = openWaits(agent);
  const queries = countQueries();
  const waits = 20;
  for (let i = 0; i < waits; i += 1) ask([`state:${path}=1`]).catch(() => undefined);
  while (queries.blocking() < waits) await sleep(20);
  const before = queries.all();
  await sleep(whileMs);
  const sent = queries.all() - before;
  queries.stop();
  close();
  return (sent / waits) * (60_000 / whileMs);
}

/** What is read for one look at so many states, after one of them has changed. */
async function countReads(agent: Agent, count: number): Promise<number> {
  const paths = Array.from({ length: count }, nextPath);
  for (const path of paths) await set(agent, path, '0');
  const [first = ''] = paths;
  const { ask, close } = openWaits(agent);
  const queries = countQueries();
  const done = ask([...paths.slice(1).map((path) => `state:${path}=0`), `state:${first}=1`]);
  while (queries.blocking() === 0) await sleep(20);
  await sleep(QUIET_MS);
  const before = queries.all() - queries.blocking();
  await set(agent, first, '1');
  await done;
  const reads = queries.all() - queries.blocking() - before;
  queries.stop();
  close();
  // The one that sets the state.
  return reads - 1;
}

function toRows(
  woken: Readonly<Record<Name, readonly Woken[]>>,
  { waiting, quiet, reads }: { readonly waiting: number; readonly quiet: number; readonly reads: number },
): Row[] {
  const many = `${waiting.toLocaleString('en-GB')} waiting`;
  const row = (what: string, unit: string, of: (one: Woken) => number): Row => {
    const middle = (name: Name) => median(woken[name].map(of));
    const figures = { runlock: middle('runlock'), others: { [BARE]: middle(BARE) } };
    return { section, what: `${what}, ${many}`, unit, ...figures, reach: atMost(1.2, BARE, figures) };
  };
  const alone = { section, others: {} };
  return [
    row('the last one woken', 'ms', ({ lastMs }) => lastMs),
    row('bytes', 'kB', ({ bytes }) => bytes / 1000),
    {
      ...{ ...alone, what: 'requests a minute of one that waits', unit: 'requests', runlock: quiet },
      reach: { text: 'at most 3 requests', met: quiet <= 3 },
    },
    {
      ...{ ...alone, what: 'reads for one look at 20 conditions', unit: 'reads', runlock: reads },
      reach: { text: 'one', met: reads === 1 },
    },
  ];
}
