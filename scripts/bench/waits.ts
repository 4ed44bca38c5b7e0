/** From `state set` to the end of those who wait for it, as whole processes, beside Consul's own watch. */
import { setTimeout as sleep } from 'node:timers/promises';
import { startAgent } from '../../test/support/consul.ts';
import { consulBinary } from '../../test/support/provision.ts';
import { RUNLOCK } from './contenders.ts';
import { inTurns, median } from './pairs.ts';
import { start } from './processes.ts';
import type { Process } from './processes.ts';
import { atMost } from './report.ts';
import type { Measured, PartOptions, Row } from './report.ts';

const section = 'From `state set` to the end of who waits for it';
const WATCH = 'consul watch';
const NAMES = ['runlock', WATCH] as const;
type Name = (typeof NAMES)[number];

const how = `\`runlock state set\` ends one or many \`runlock wait --until state:PATH=VALUE\`; beside it \`consul kv put\`, \
and as many \`consul watch -type=key\` that start a handler (\`-shell=false\`). All are whole processes on one machine. The time \
is from before the start of the process that sets the value; until a bash behind each \`runlock wait\` notes that it has ended, or \
the bash that is the handler notes that it has been started. The last of them counts, and the one in the middle.`;

const FULL = [
  { waiting: 1, rounds: 21 },
  { waiting: 100, rounds: 5 },
] as const;
const QUICK = [{ waiting: 2, rounds: 1 }] as const;

/** When each of the waiting heard of one change, in milliseconds from before it was made. */
type Round = readonly number[];
type Results = Readonly<Record<Name, readonly Round[]>>;

export async function measureWaits({ quick, say }: PartOptions): Promise<Measured> {
  const binary = await consulBinary();
  const rows: Row[] = [];
  const raw: object[] = [];
  for (const { waiting, rounds } of quick ? QUICK : FULL) {
    const results = await withAgent(async (place) => {
      const turns = {
        runlock: () => oneRound(place, waiting, ofRunlock()),
        [WATCH]: () => oneRound(place, waiting, ofConsul(binary)),
      };
      // The first of each is not counted.
      const all = await inTurns(NAMES, rounds + 1, (name) => turns[name]());
      return { runlock: all.runlock.slice(1), [WATCH]: all[WATCH].slice(1) };
    });
    const own = toRows(results, waiting);
    for (const { what, runlock, others } of own)
      say(`waits, ${what}: ${runlock.toFixed(1)} ms, ${WATCH} ${(others[WATCH] ?? NaN).toFixed(1)} ms`);
    rows.push(...own);
    raw.push({ waiting, results });
  }
  return { rows, raw, how };
}

interface Place {
  readonly env: Readonly<Record<string, string>>;
}

/** After the last one has said that it waits, it sends its query, and its start is over. */
const QUIET_MS = 500;

async function withAgent<T>(use: (place: Place) => Promise<T>): Promise<T> {
  // Consul lets one address have 200 connections; a hundred waiting processes have more.
  const agent = await startAgent({ name: 'bench', config: { limits: { http_max_conns_per_client: 2_000 } } });
  const { PATH = '', HOME = '' } = process.env;
  try {
    // In this locale bash notes times with a decimal point.
    return await use({ env: { PATH, HOME, LC_ALL: 'C', ...agent.env } });
  } finally {
    await agent[Symbol.asyncDispose]();
  }
}

interface Change {
  /** What is there before; then each of those who wait has been started. */
  readonly before: readonly string[];
  /** Prints what `waits` matches when it waits, and the time when it has heard of the change. */
  readonly waiter: readonly string[];
  readonly waits: RegExp;
  readonly change: readonly string[];
  /** It goes on watching when it has heard of the change. */
  readonly goesOn: boolean;
}

let changes = 0;

const NOTE = 'echo "$EPOCHREALTIME"';
const quoted = (words: readonly string[]) => words.map((word) => `'${word}'`).join(' ');

function ofRunlock(): Change {
  const path = `bench/s${(changes += 1)}`;
  const set = (value: string) => [RUNLOCK, 'state', 'set', path, value];
  const wait = [RUNLOCK, 'wait', '-v', '--timeout', '60s', '--until', `state:${path}=1`];
  return {
    before: set('0'),
    waiter: ['bash', '-c', `${quoted(wait)} 2>&1 && ${NOTE}`],
    waits: /does not hold/,
    change: set('1'),
    goesOn: false,
  };
}

function ofConsul(binary: string): Change {
  const key = `bench/k${(changes += 1)}`;
  const put = (value: string) => [binary, 'kv', 'put', key, value];
  // It calls its handler once at its start too, with what is there; the value comes on stdin as base64: MQ== is 1.
  const handler = `t=$EPOCHREALTIME; read -r found; case $found in *'"MQ=="'*) echo "$t";; *) echo waits;; esac`;
  return {
    before: put('0'),
    waiter: [binary, 'watch', '-shell=false', '-type=key', `-key=${key}`, 'bash', '-c', handler],
    waits: /waits/,
    change: put('1'),
    goesOn: true,
  };
}

async function oneRound({ env }: Place, waiting: number, change: Change): Promise<Round> {
  await start(change.before, env).ended;
  const waiters = Array.from({ length: waiting }, () => start(change.waiter, env));
  for (const { says } of waiters) await says(change.waits);
  await sleep(QUIET_MS);
  const begun = start(['bash', '-c', `${NOTE}; exec ${quoted(change.change)} >/dev/null`], env);
  const startedMs = toMs(await begun.line);
  await begun.ended;
  const heardMs = await Promise.all(
    waiters.map(async ({ says }) => toMs(await says(/^[0-9.]+$/)) - startedMs),
  );
  await (change.goesOn ? endAll(waiters) : Promise.all(waiters.map(({ ended }) => ended)));
  return heardMs;
}

/** From bash's $EPOCHREALTIME. */
const toMs = (line: string): number => {
  const ms = Number(line) * 1000;
  if (line === '' || Number.isNaN(ms)) throw new Error('a process ended that should have waited');
  return ms;
};

/** Ends processes that only watch. */
async function endAll(waiters: readonly Process[]): Promise<void> {
  for (const { pid } of waiters) process.kill(-pid, 'SIGTERM');
  await Promise.allSettled(waiters.map(({ ended }) => ended));
}

function toRows(results: Results, waiting: number): Row[] {
  const row = (what: string, of: (round: Round) => number): Row => {
    const middle = (name: Name) => median(results[name].map(of));
    const figures = { runlock: middle('runlock'), others: { [WATCH]: middle(WATCH) } };
    const reach = atMost(1.5, WATCH, figures);
    return { section, what, unit: 'ms', ...figures, reach };
  };
  const last = (round: Round) => Math.max(...round);
  if (waiting === 1) return [row('1 waiting', last)];
  return [
    row(`${waiting} waiting, the one in the middle`, (round) => median(round)),
    row(`${waiting} waiting, the last one`, last),
  ];
}
