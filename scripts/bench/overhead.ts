/** What the lock, and a start alone, cost a command that nobody makes wait. */
import { statSync } from 'node:fs';
import { consulBinary } from '../../test/support/provision.ts';
import { NAMES, NPM, RUNLOCK, withRing } from './contenders.ts';
import { inTurns, median } from './pairs.ts';
import { atMost } from './report.ts';
import type { Measured, PartOptions, Row } from './report.ts';
import { usageOf } from './usage.ts';
import type { Usage } from './usage.ts';

const how = `Each program runs \`true\` under a lock that no other process wants, as under cron: no terminal, \
output to nowhere. Wall time is from fork to the end of the process. CPU is user and system time of the process and of \
all its descendants, as wait4(2) counts it; what the Consul agent spends is not in it. Peak memory is the largest \
process's resident set. runlock is the single file, *by npm* is the same on this machine's Node.js, and \`node -e 0\` is \
what Node.js itself costs.`;

const PROGRAMS = [...NAMES, 'runlock by npm', 'node -e 0'] as const;
type Program = (typeof PROGRAMS)[number];

export async function measureOverhead({ quick, say }: PartOptions): Promise<Measured> {
  const rounds = quick ? 2 : 21;
  const warmUp = quick ? 0 : 2;
  const raw = await withRing(({ contenders, env }) => {
    const locked = NAMES.map(
      (name) => [name, contenders[name].wrap('bench/overhead', 'web1', ['true'])] as const,
    );
    const commands: Partial<Record<Program, readonly string[]>> = {
      ...Object.fromEntries(locked),
      'runlock by npm': [NPM, ...contenders.runlock.wrap('bench/overhead', 'web1', ['true']).slice(1)],
      'node -e 0': [process.execPath, '-e', '0'],
    };
    return inTurns(PROGRAMS, warmUp + rounds, (name) => usageOf(commands[name] ?? [], env));
  });
  const counted = Object.fromEntries(PROGRAMS.map((name) => [name, raw[name].slice(warmUp)]));
  const rows = toRows(counted as Record<Program, Usage[]>);
  for (const row of rows) say(`overhead, ${row.what}: ${row.runlock.toFixed(1)} ${row.unit}`);
  return { rows, raw: { warmUp, usages: raw }, how };
}

function toRows(usages: Record<Program, readonly Usage[]>): Row[] {
  const row = (what: string, unit: string, pick: (usage: Usage) => number, without?: Program): Row => {
    const of = (name: Program) => median(usages[name].map(pick));
    const names = PROGRAMS.filter((name) => name !== 'runlock' && name !== without);
    const others = Object.fromEntries(names.map((name) => [name, of(name)]));
    const figures = { runlock: of('runlock'), others };
    return { section, what, unit, ...figures, reach: atMost(1, 'consul lock', figures) };
  };
  return [
    row('wall time', 'ms', ({ wallMs }) => wallMs),
    row('CPU time', 'ms', ({ cpuMs }) => cpuMs),
    {
      ...row('peak memory', 'MB', ({ peakMb }) => peakMb, 'flock'),
      note: 'flock takes less than the program that measures it, so its figure would be that program’s.',
    },
  ];
}

const section = 'An uncontended run of `true`';

/** What every start costs, whatever it is to do. */
export async function measureStart({ quick, say }: PartOptions): Promise<Measured> {
  const binary = await consulBinary();
  const commands = {
    runlock: [RUNLOCK, '--version'],
    consul: [binary, 'version'],
    'runlock by npm': [NPM, '--version'],
  };
  const names = Object.keys(commands) as (keyof typeof commands)[];
  const { PATH = '' } = process.env;
  const raw = await inTurns(names, quick ? 2 : 21, (name) => usageOf(commands[name], { PATH }));
  const row = (what: string, unit: string, pick: (usage: Usage) => number): Row => {
    const [runlock = NaN, ...others] = names.map((name) => median(raw[name].map(pick)));
    return {
      ...{ section: 'The version and no more', what, unit, runlock },
      others: Object.fromEntries(names.slice(1).map((name, i) => [name, others[i] ?? NaN])),
    };
  };
  const rows = [
    row('wall time', 'ms', ({ wallMs }) => wallMs),
    row('CPU time', 'ms', ({ cpuMs }) => cpuMs),
    row('peak memory', 'MB', ({ peakMb }) => peakMb),
    {
      ...{ section: 'The version and no more', what: 'size of the program', unit: 'MB' },
      ...{ runlock: statSync(RUNLOCK).size / 1e6, others: { consul: statSync(binary).size / 1e6 } },
    },
  ];
  for (const { what, runlock, unit } of rows) say(`start, ${what}: ${runlock.toFixed(1)} ${unit}`);
  const how = '`runlock --version` beside `consul version`, measured as the whole run above.';
  return { rows, raw, how };
}
