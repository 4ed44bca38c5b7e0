/** What a run costs Consul, and how long a hand-over takes, while up to 10,000 wait in this one process. */
import type { Agent } from '../../test/support/consul.ts';
import { herdCrowd } from './herd.ts';
import { queueUp, startServer } from './in-process-crowd.ts';
import type { Cost, Crowd, Plan, Round } from './in-process-crowd.ts';
import { lockCrowd } from './in-process-lock.ts';
import { countTraffic } from './in-process-traffic.ts';
import { median, percentile } from './pairs.ts';
import type { Measured, PartOptions, Row, Series } from './report.ts';

const section = 'Requests, bytes and the agent’s CPU for one run, many waiting in one process';
const HERD = 'everybody on the key';

const how = `All wait in one Node.js process, each with a session of its own, on a Consul server that keeps its data on \
disk. They join one after the other; then the first few hundred at most have their turn while the \
others wait on; each turn is as long as it takes until all of them wait again (runlock 10 ms, the herd up to 500 ms). runlock is its own lock code, from the session to its end, the watch over the held slot included. *${HERD}* is a \
small client that sends what \`consul lock\` sends. A run’s cost is what joining takes, divided by those who joined, and \
what being served takes, divided by those who were served. Requests and bytes are counted at the client’s sockets, \
without renewals of sessions and without what keeps a watch alive (a blocking query whose time is over without a change): \
those grow with the time that a run waits. Bytes go both ways. A hand-over is the time from the call that gives the slot back to the \
moment when the next one knows that it has it.`;

const FULL = {
  lock: [
    { waiting: 20, served: 20, rounds: 10, runMs: 10 },
    { waiting: 300, served: 300, rounds: 1, runMs: 10 },
    { waiting: 1000, served: 500, rounds: 1, runMs: 10 },
    { waiting: 3000, served: 500, rounds: 1, runMs: 10 },
    { waiting: 10_000, served: 500, rounds: 1, runMs: 10 },
  ],
  herd: [
    { waiting: 20, served: 20, rounds: 3, runMs: 50 },
    { waiting: 300, served: 30, rounds: 1, runMs: 200 },
    { waiting: 1000, served: 30, rounds: 1, runMs: 500 },
  ],
} as const;
const QUICK = {
  lock: [
    { waiting: 3, served: 3, rounds: 1, runMs: 10 },
    { waiting: 12, served: 6, rounds: 1, runMs: 10 },
  ],
  herd: [{ waiting: 3, served: 3, rounds: 1, runMs: 10 }],
} as const;

interface Result extends Plan {
  readonly join: Cost;
  readonly serve: Cost;
  readonly handOversMs: readonly number[];
}

export async function measureWaiters({ quick, say }: PartOptions): Promise<Measured> {
  const plans = quick ? QUICK : FULL;
  const measure = async (name: string, open: (agent: Agent) => Crowd, todo: readonly Plan[]) => {
    const results: Result[] = [];
    for (const plan of todo) {
      const result = await measureOne(open, plan);
      results.push(result);
      const { requests, cpuMs } = costOf(result);
      const middle = median(result.handOversMs).toFixed(1);
      say(
        `${name}, ${plan.waiting} waiting: ${requests.toFixed(1)} requests, ${cpuMs.toFixed(1)} ms of CPU, hand-over ${middle} ms`,
      );
    }
    return results;
  };
  const lock = await measure('runlock', lockCrowd, plans.lock);
  const herd = await measure(HERD, herdCrowd, plans.herd);
  const series: Series[] = [
    { chart: 'requests', name: 'runlock', points: toPoints(lock) },
    { chart: 'requests', name: HERD, points: toPoints(herd) },
  ];
  return { rows: toRows(lock, herd), raw: { lock, herd }, series, how };
}

/** A short round, which is not counted, comes first: neither program is measured cold. */
async function measureOne(open: (agent: Agent) => Crowd, plan: Plan): Promise<Result> {
  const agent = await startServer();
  const traffic = countTraffic();
  const crowd = open(agent);
  try {
    const warmUp = Math.min(20, plan.waiting);
    await queueUp(crowd, { agent, traffic }, { ...plan, waiting: warmUp, served: warmUp });
    const rounds: Round[] = [];
    for (let i = 0; i < plan.rounds; i++) rounds.push(await queueUp(crowd, { agent, traffic }, plan));
    return {
      ...plan,
      join: meanOf(rounds.map(({ join }) => join)),
      serve: meanOf(rounds.map(({ serve }) => serve)),
      handOversMs: rounds.flatMap(({ handOversMs }) => handOversMs),
    };
  } finally {
    crowd.close();
    traffic.stop();
    await agent[Symbol.asyncDispose]();
  }
}

function combine(costs: readonly Cost[], of: (values: readonly number[]) => number): Cost {
  const each = (name: keyof Cost) => of(costs.map((cost) => cost[name]));
  return {
    requests: each('requests'),
    renewals: each('renewals'),
    watches: each('watches'),
    bodies: each('bodies'),
    wire: each('wire'),
    cpuMs: each('cpuMs'),
  };
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
const meanOf = (costs: readonly Cost[]) => combine(costs, (values) => sum(values) / values.length);
const costOf = ({ join, serve }: Result) => combine([join, serve], sum);

const toPoints = (results: readonly Result[]) =>
  results.map((result) => [result.waiting, costOf(result).requests] as const);

const KB = 1000;

function toRows(lock: readonly Result[], herd: readonly Result[]): Row[] {
  const row = (what: string, unit: string, of: (result: Result) => number): Row[] =>
    lock.map((result) => {
      const other = herd.find(({ waiting }) => waiting === result.waiting);
      return {
        section,
        what: `${what}, ${result.waiting.toLocaleString('en-GB')} waiting`,
        unit,
        runlock: of(result),
        others: other ? { [HERD]: of(other) } : {},
      };
    });
  const requests = row('requests', 'requests', (result) => costOf(result).requests);
  const slowest = row('hand-over, 99th percentile', 'ms', ({ handOversMs }) => percentile(handOversMs, 0.99));
  return [
    ...requests.map(withReach(12)),
    ...row('requests that keep a watch alive', 'requests', (result) => costOf(result).watches),
    ...row('bytes in bodies', 'kB', (result) => costOf(result).bodies / KB),
    ...row('bytes with HTTP’s headers', 'kB', (result) => costOf(result).wire / KB),
    ...row('the agent’s CPU', 'ms', (result) => costOf(result).cpuMs),
    ...row('hand-over, median', 'ms', ({ handOversMs }) => median(handOversMs)),
    ...slowest.slice(0, -1),
    ...slowest.slice(-1).map(withReach(30)),
    ...growth(lock),
  ];
}

const withReach =
  (most: number) =>
  (row: Row): Row => ({ ...row, reach: { text: `at most ${most} ${row.unit}`, met: row.runlock <= most } });

/** What the longest queue costs, of what the shortest one costs. */
function growth(lock: readonly Result[]): Row[] {
  const [fewest, most] = [lock[0], lock.at(-1)];
  if (!fewest || !most) return [];
  const row = (name: 'requests' | 'bodies', what: string): Row => {
    const times = costOf(most)[name] / costOf(fewest)[name];
    const label = `${what}, ${most.waiting.toLocaleString('en-GB')} waiting against ${fewest.waiting}`;
    const reach = { text: 'flat: at most 1.1 ×', met: times <= 1.1 };
    return { section, what: label, unit: '×', runlock: times, others: {}, reach };
  };
  return [row('requests', 'requests'), row('bodies', 'bytes in bodies')];
}
