// `npm run model`: explores the protocol's model (docs/model.md). Ends with 1 when a promise is broken.
import { parseArgs } from 'node:util';
import { configurations, larger, toWorld } from '../test/model/configurations.ts';
import type { Shape } from '../test/model/configurations.ts';
import { explore } from '../test/model/explore.ts';
import type { Explored } from '../test/model/explore.ts';
import {
  CHANGES,
  CHANGES_HEAD,
  TABLE_HEAD,
  allRows,
  changeText,
  rowText,
  tryChange,
  tryRow,
} from '../test/model/table.ts';
import { noFaults } from '../test/model/world.ts';
import * as jobs from '../test/model/jobs/configurations.ts';
import { explore as exploreJob } from '../test/model/jobs/explore.ts';
import type { Hold } from '../src/lock/records.ts';

const everything = { ...configurations, ...larger };

const USAGE = `usage: npm run model -- [options]

  --configuration NAME   one of: ${Object.keys(everything).join(', ')}
  --all                  every configuration, one after the other
  --jobs                 small jobs instead, all of them (docs/model.md, "Jobs")
  --mutants              leaves out every check, each in turn, and prints the table of docs/model.md

or a world of your own:
  --nodes a,b,b          one process each; the same name twice: two runs of one node (default a,b)
  --slots N              (default 1)
  --acquire 0,1          those processes, counted from 0, acquire and release instead of exec
  --publish 0,1          those publish a state, show another meanwhile, and start under a third
  --two-groups 0         those of them do so in two groups
  --runs N               how often each process starts (default 1)
  --hold forever|none|MS (default forever)
  --tick MS              how far time moves at a time; 0: it stands still (default 0)
  --ahead MS             how far each host's wall clock is ahead of the one before (default 0)
  --trusting             the operator clears claims without looking at their nodes
  --records              what is recorded of past runs is told apart too (one slot)
  --max-states N         gives up beyond (default 2000000)
  faults, and how often each may come (default 0):
  ${Object.keys(noFaults)
    .map((fault) => `--${dashed(fault)} N`)
    .join(' ')}
`;

function dashed(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

const text = { type: 'string' } as const;
const flag = { type: 'boolean' } as const;
const faultOptions = Object.fromEntries(Object.keys(noFaults).map((fault) => [dashed(fault), text]));

const { values } = parseArgs({
  options: {
    ...{
      configuration: text,
      all: flag,
      mutants: flag,
      jobs: flag,
      help: flag,
      trusting: flag,
      records: flag,
    },
    ...{ nodes: text, slots: text, runs: text, hold: text, tick: text, ahead: text, 'max-states': text },
    acquire: text,
    publish: text,
    'two-groups': text,
    ...faultOptions,
  },
});
const given: Readonly<Record<string, string | boolean | undefined>> = values;

function natural(name: string, otherwise: number): number {
  const value = given[name];
  if (value === undefined) return otherwise;
  if (!/^\d+$/.test(String(value))) throw new Error(`--${name} takes a number\n\n${USAGE}`);
  return Number(value);
}

function ownShape(): Shape {
  const hold = String(given['hold'] ?? 'forever');
  const names = String(given['nodes'] ?? 'a,b').split(',');
  const numbers = (name: string) =>
    given[name] === undefined ? [] : String(given[name]).split(',').map(Number);
  const distinct = [...new Set(names)];
  return {
    // The model has names of its own for nodes.
    nodes: names.map((name) => `n${distinct.indexOf(name)}`),
    acquires: numbers('acquire'),
    publishes: numbers('publish'),
    second: numbers('two-groups'),
    hold: (/^\d+$/.test(hold) ? Number(hold) : hold) as Hold,
    slots: natural('slots', 1),
    runs: natural('runs', 1),
    tickMs: natural('tick', 0),
    aheadMs: natural('ahead', 0),
    faults: Object.fromEntries(Object.keys(noFaults).map((fault) => [fault, natural(dashed(fault), 0)])),
    trusting: given['trusting'] === true,
    records: given['records'] === true,
  };
}

function report(name: string, { states, steps, quiet, ms, outcome }: Explored): void {
  const figures = `${states} states, ${steps} steps, ${quiet} quiet ends, ${(ms / 1000).toFixed(1)} s`;
  switch (outcome.kind) {
    case 'kept':
      console.log(`${name}: every promise is kept (${figures})`);
      break;
    case 'unfinished':
      console.log(`${name}: unfinished, no promise broken so far (${figures}); --max-states N allows more`);
      break;
    case 'broken':
      console.log(`${name}: BROKEN, ${outcome.promise} (${figures})\n  ${outcome.trace.join('\n  ')}`);
      process.exitCode = 1;
  }
}

/** Every end of a job is a quiet one. */
const withQuiet = ({ ends, ...explored }: ReturnType<typeof exploreJob>): Explored => ({
  ...explored,
  quiet: ends,
});

function printTables(): void {
  console.log(TABLE_HEAD);
  for (const row of allRows()) printRow(rowText(row), tryRow(row));
  console.log(`\n${CHANGES_HEAD}`);
  for (const change of CHANGES) printRow(changeText(change), tryChange(change));
}

function printRow(row: string, wrong: string | undefined): void {
  console.log(row);
  if (wrong === undefined) return;
  console.log(`\n**not so any more:** ${wrong}\n`);
  process.exitCode = 1;
}

const maxStates = natural('max-states', 2_000_000);
const chosen = given['configuration'];
const all: readonly (readonly [string, Shape])[] = Object.entries(everything);
if (given['help'] === true) console.log(USAGE);
else if (given['mutants'] === true) printTables();
else if (given['jobs'] === true)
  for (const [name, shape] of Object.entries({ ...jobs.configurations, ...jobs.larger }))
    report(name, withQuiet(exploreJob(jobs.toWorld(shape), { maxStates })));
else if (given['all'] === true)
  for (const [name, shape] of all) report(name, explore(toWorld(shape), { maxStates }));
else if (chosen !== undefined) {
  const found = all.find(([name]) => name === chosen);
  if (!found) throw new Error(`no configuration '${String(chosen)}'\n\n${USAGE}`);
  report(found[0], explore(toWorld(found[1]), { maxStates }));
} else report('model', explore(toWorld(ownShape()), { maxStates }));
