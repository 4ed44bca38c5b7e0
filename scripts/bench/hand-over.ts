/** From the end of one command to the start of the next while many processes wait; whether they come in order. */
import { NAMES, withRing } from './contenders.ts';
import type { Name } from './contenders.ts';
import { figure } from './markdown.ts';
import { inTurns, median, pairsOf, percentile } from './pairs.ts';
import { queueUp } from './queue-up.ts';
import type { Round } from './queue-up.ts';
import { atMost } from './report.ts';
import type { Measured, PartOptions, Row, Series } from './report.ts';

const how = `One process holds the lock, and others join one after the other, each only when the one before is seen to \
wait: runlock by its ticket in Consul, \`consul lock\` by its session, flock by /proc/locks. Then the holder ends. Every \
command is a bash that notes when it starts and when it ends, 50 ms apart, by its own clock. So every hand-over includes \
forking and starting bash, as the figures of flock show. All processes share one machine. \`consul lock\` starts no shell \
(\`-shell=false\`). Resident memory is that of one waiting process and its descendants alone on a machine; the \
proportional share divides the pages that the waiting processes have in common.`;

interface Plan {
  readonly waiting: number;
  readonly rounds: number;
}

const FULL: readonly Plan[] = [
  { waiting: 20, rounds: 3 },
  { waiting: 100, rounds: 2 },
];
const QUICK: readonly Plan[] = [
  { waiting: 3, rounds: 1 },
  { waiting: 5, rounds: 1 },
];

type Turns = Readonly<Record<Name, readonly Round[]>>;

export async function measureHandOver({ quick, say }: PartOptions): Promise<Measured> {
  const plans = quick ? QUICK : FULL;
  const results = await withRing(async (ring) => {
    const all: { plan: Plan; turns: Turns }[] = [];
    for (const plan of plans) {
      const turns = await inTurns(NAMES, plan.rounds, async (name, round) => {
        const lock = `bench/${plan.waiting}-${round}`;
        const result = await queueUp(ring, name, { waiting: plan.waiting, lock });
        say(`hand-over, ${plan.waiting} waiting, ${name}: ${median(result.handOversMs).toFixed(1)} ms`);
        return result;
      });
      all.push({ plan, turns });
    }
    return all;
  });
  const [fewest, most] = [results[0], results.at(-1)];
  return {
    rows: [
      ...results.flatMap(({ plan, turns }) => handOverRows(plan, turns)),
      ...(fewest ? memoryRows(fewest.plan, fewest.turns) : []),
    ],
    raw: results,
    series: most ? toSeries(most.plan, most.turns) : [],
    how,
  };
}

const perName = (pick: (name: Name) => number) => ({
  runlock: pick('runlock'),
  others: Object.fromEntries(NAMES.filter((name) => name !== 'runlock').map((name) => [name, pick(name)])),
});

const handOvers = (turns: Turns, name: Name) => turns[name].flatMap(({ handOversMs }) => handOversMs);

function handOverRows({ waiting, rounds }: Plan, turns: Turns): Row[] {
  const section = 'Hand-over: from the end of one command to the start of the next';
  const row = (what: string, of: (values: readonly number[]) => number, most: number): Row => {
    const figures = perName((name) => of(handOvers(turns, name)));
    return { section, what, unit: 'ms', ...figures, reach: atMost(most, 'consul lock', figures) };
  };
  const wrong = perName((name) => turns[name].reduce((sum, { outOfOrder }) => sum + outOfOrder, 0));
  return [
    row(`median, ${waiting} waiting`, median, 0.9),
    row(
      `95th percentile, ${waiting} waiting`,
      (values) => percentile(values, 0.95),
      waiting < 100 ? 0.9 : 0.5,
    ),
    {
      section,
      what: `pairs served out of order, ${waiting} waiting`,
      unit: `of ${figure(rounds * pairsOf(waiting))}`,
      ...wrong,
      reach: { text: '0', met: wrong.runlock === 0 },
    },
  ];
}

function memoryRows({ waiting }: Plan, turns: Turns): Row[] {
  const row = (what: string, field: 'rssKb' | 'pssKb'): Row => {
    const of = (name: Name) => turns[name].flatMap(({ memory }) => memory.map((one) => one[field]));
    const figures = perName((name) => median(of(name)) / 1024);
    const section = 'Memory of a waiting process';
    return { section, what, unit: 'MB', ...figures, reach: atMost(1, 'consul lock', figures) };
  };
  return [row('resident (RSS)', 'rssKb'), row(`proportional share (PSS) of one of ${waiting}`, 'pssKb')];
}

const SHARES = Array.from({ length: 100 }, (_, i) => i + 1);

/** Each hand-over time that a share of them does not exceed, in %. */
function toSeries({ waiting }: Plan, turns: Turns): Series[] {
  return NAMES.map((name) => {
    const all = handOvers(turns, name);
    const points = SHARES.map((percent) => [percent, percentile(all, percent / 100)] as const);
    return { chart: 'hand-over', name: `${name}, ${waiting} waiting`, points };
  });
}
