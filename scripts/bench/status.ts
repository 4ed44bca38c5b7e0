/** `status` of a large fleet, as a whole process. */
import { RUNLOCK } from './contenders.ts';
import { fillFleet } from './in-process-fleet.ts';
import { startServer } from './in-process-crowd.ts';
import { inTurns, median } from './pairs.ts';
import type { Measured, PartOptions, Row } from './report.ts';
import { usageOf } from './usage.ts';
import type { Usage } from './usage.ts';

const COMMANDS = {
  text: [RUNLOCK, 'status'],
  json: [RUNLOCK, 'status', '--json'],
} as const;
const KINDS = ['text', 'json'] as const;
type Usages = Readonly<Record<(typeof KINDS)[number], readonly Usage[]>>;

/** What a small machine can spare. */
const MOST_MB = 256;

const EMPTY = 'nothing stored';

export async function measureStatus({ quick, say }: PartOptions): Promise<Measured> {
  const fleet = quick
    ? { groups: 20, nodesEach: 10, waitingEach: 2 }
    : { groups: 1000, nodesEach: 10, waitingEach: 2 };
  const rounds = quick ? 2 : 9;
  const agent = await startServer();
  try {
    const { PATH = '', HOME = '' } = process.env;
    const env = { PATH, HOME, ...agent.env };
    const measure = () => inTurns(KINDS, rounds, (kind) => usageOf(COMMANDS[kind], env));
    const empty = await measure();
    const keys = await fillFleet(agent, fleet);
    const full = await measure();
    const rows = toRows(full, empty);
    for (const row of rows) say(`${row.what}: ${row.runlock.toFixed(0)} ${row.unit}`);
    const how = `${fleet.groups.toLocaleString('en-GB')} groups of ${fleet.nodesEach} nodes each, all with their last \
run’s record; in every group one node runs and ${fleet.waitingEach} wait, each with a session: \
${keys.toLocaleString('en-GB')} keys. The whole process, from fork to its end, output to nowhere; beside it the same \
where nothing is stored.`;
    return { rows, raw: { fleet, keys, empty, full }, how };
  } finally {
    await agent[Symbol.asyncDispose]();
  }
}

function toRows(full: Usages, empty: Usages): Row[] {
  const row = (what: string, unit: string, of: (usage: Usage) => number, kind: keyof Usages): Row => ({
    section: '`status` of a large fleet',
    what: kind === 'text' ? what : `${what}, --json`,
    unit,
    runlock: median(full[kind].map(of)),
    others: { [EMPTY]: median(empty[kind].map(of)) },
  });
  return KINDS.flatMap((kind) => {
    const memory = row('peak memory', 'MB', ({ peakMb }) => peakMb, kind);
    const wall = row('wall time', 'ms', ({ wallMs }) => wallMs, kind);
    return [
      { ...wall, reach: { text: 'under 1,000 ms', met: wall.runlock < 1000 } },
      row('CPU time', 'ms', ({ cpuMs }) => cpuMs, kind),
      { ...memory, reach: { text: `at most ${MOST_MB} MB`, met: memory.runlock <= MOST_MB } },
    ];
  });
}
