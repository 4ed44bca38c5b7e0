// `npm run soak -- --minutes N [--seed S] [--nodes 100] [--slots 3] [--at-once 60] [--plan]`: many nodes of real groups
// under random faults, judged in the end by the promises of docs/protocol.md. The same seed replays the same plan;
// `--plan` prints nothing but that. What was done is in build/soak.log, the history of a broken promise beside it.
import { randomInt } from 'node:crypto';
import { createWriteStream, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { describePlan, planSoak } from '../test/support/soak/plan.ts';
import type { SoakPlan } from '../test/support/soak/plan.ts';
import { soak } from '../test/support/soak/driver.ts';
import type { SoakResult } from '../test/support/soak/driver.ts';
import { describeResult, faultsOf } from '../test/support/soak/report.ts';

const LOG = 'build/soak.log';
const HISTORY = 'build/soak-history.json';
const number = { type: 'string' } as const;

function readOptions() {
  const { values } = parseArgs({
    options: {
      ...{ minutes: number, seed: number, nodes: number, slots: number, 'at-once': number },
      plan: { type: 'boolean', default: false },
    },
  });
  const toNumber = (name: 'minutes' | 'seed' | 'nodes' | 'slots' | 'at-once', fallback: number) => {
    const value = Number(values[name] ?? fallback);
    if (value > 0) return value;
    throw new Error(`--${name} ${values[name] ?? ''} is no number above 0`);
  };
  const [minutes, nodes, slots] = [toNumber('minutes', 10), toNumber('nodes', 100), toNumber('slots', 3)];
  const seed = toNumber('seed', randomInt(1, 1_000_000));
  return {
    plan: planSoak({ seed, minutes, nodes, slots }),
    atOnce: toNumber('at-once', 60),
    only: values.plan,
  };
}

async function main(): Promise<number> {
  const { plan, atOnce, only } = readOptions();
  const { seed, minutes } = plan.options;
  if (only) {
    console.log(describePlan(plan).join('\n'));
    return 0;
  }
  console.log(`seed ${seed}: ${plan.events.length} events in ${minutes} minutes; what is done: ${LOG}`);
  const log = createWriteStream(LOG);
  log.write(`seed ${seed}\n${describePlan(plan).join('\n')}\n\n`);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => stop.abort(new Error(`ended by ${name}`)));
  try {
    const result = await soak(plan, { signal: stop.signal, atOnce, say: (line) => log.write(`${line}\n`) });
    return report(plan, result);
  } catch (error) {
    const reason: unknown = stop.signal.aborted ? stop.signal.reason : error;
    console.error(`soak (seed ${seed}): ${reason instanceof Error ? reason.message : String(reason)}`);
    return 1;
  } finally {
    log.end();
  }
}

function report(plan: SoakPlan, result: SoakResult): number {
  console.log(describeResult(plan, result));
  if (faultsOf(result).length === 0) return 0;
  const histories = result.groups.map(({ name, history }) => ({ name, history }));
  writeFileSync(HISTORY, JSON.stringify(histories));
  console.log(`the whole history: ${HISTORY}`);
  return 1;
}

process.exitCode = await main().catch((error: unknown) => {
  console.error(`soak: ${error instanceof Error ? error.message : String(error)}`);
  return 64;
});
