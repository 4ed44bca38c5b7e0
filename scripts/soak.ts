// `npm run soak -- [--part groups|agents] --minutes N [--seed S] [--nodes N] [--slots 3] [--at-once 60] [--plan]`: many
// nodes under random faults, judged in the end by the promises of docs/protocol.md. `groups`: 100 nodes of real groups.
// `agents`: 30 agents, requests at random, and a chain of tasks that changes start. The same seed replays the same plan;
// `--plan` prints nothing but that. What was done is in build/soak.log, the history of a broken promise beside it.
import { randomInt } from 'node:crypto';
import { createWriteStream, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { describeAgentsResult, soakAgents } from '../test/support/soak/agents/driver.ts';
import { describeAgentsPlan, planAgents } from '../test/support/soak/agents/plan.ts';
import { soak } from '../test/support/soak/driver.ts';
import { describePlan, planSoak } from '../test/support/soak/plan.ts';
import { describeResult, faultsOf } from '../test/support/soak/report.ts';

const LOG = 'build/soak.log';
const HISTORY = 'build/soak-history.json';
/** Of agents: folders, logs and states of their hosts. */
const HOSTS = 'build/soak-hosts';
const number = { type: 'string' } as const;

interface Control {
  readonly signal: AbortSignal;
  readonly say: (line: string) => void;
}

/** One kind of soak, with its plan. */
interface Part {
  readonly seed: number;
  readonly minutes: number;
  readonly plan: readonly string[];
  /** Resolves with what to print, and the history of what was broken. */
  run(control: Control): Promise<{ readonly text: string; readonly broken?: unknown }>;
}

function readOptions(): { readonly part: Part; readonly only: boolean } {
  const { values } = parseArgs({
    options: {
      ...{ minutes: number, seed: number, nodes: number, slots: number, 'at-once': number },
      part: { type: 'string', default: 'groups' },
      plan: { type: 'boolean', default: false },
    },
  });
  const toNumber = (name: 'minutes' | 'seed' | 'nodes' | 'slots' | 'at-once', fallback: number) => {
    const value = Number(values[name] ?? fallback);
    if (value > 0) return value;
    throw new Error(`--${name} ${values[name] ?? ''} is no number above 0`);
  };
  const common = { minutes: toNumber('minutes', 10), seed: toNumber('seed', randomInt(1, 1_000_000)) };
  const only = values.plan;
  switch (values.part) {
    case 'groups': {
      const options = { ...common, nodes: toNumber('nodes', 100), slots: toNumber('slots', 3) };
      return { only, part: groupsPart(options, toNumber('at-once', 60)) };
    }
    case 'agents':
      return { only, part: agentsPart({ ...common, nodes: toNumber('nodes', 30) }) };
    default:
      throw new Error(`--part ${values.part} is neither groups nor agents`);
  }
}

function groupsPart(options: Parameters<typeof planSoak>[0], atOnce: number): Part {
  const plan = planSoak(options);
  return {
    ...{ seed: options.seed, minutes: options.minutes, plan: describePlan(plan) },
    run: async (control) => {
      const result = await soak(plan, { ...control, atOnce });
      const broken = result.groups.map(({ name, history }) => ({ name, history }));
      return { text: describeResult(plan, result), ...(faultsOf(result).length > 0 && { broken }) };
    },
  };
}

function agentsPart(options: Parameters<typeof planAgents>[0]): Part {
  const plan = planAgents(options);
  return {
    ...{ seed: options.seed, minutes: options.minutes, plan: describeAgentsPlan(plan) },
    run: async (control) => {
      const result = await soakAgents(plan, { ...control, keep: HOSTS });
      const { history, faults } = result;
      return { text: describeAgentsResult(plan, result), ...(faults.length > 0 && { broken: history }) };
    },
  };
}

async function main(): Promise<number> {
  const { part, only } = readOptions();
  const { seed, minutes, plan } = part;
  if (only) {
    console.log(plan.join('\n'));
    return 0;
  }
  console.log(`seed ${seed}: ${plan.length} events in ${minutes} minutes; what is done: ${LOG}`);
  const log = createWriteStream(LOG);
  log.write(`seed ${seed}\n${plan.join('\n')}\n\n`);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => stop.abort(new Error(`ended by ${name}`)));
  try {
    const say = (line: string) => log.write(`${line}\n`);
    const { text, broken } = await part.run({ signal: stop.signal, say });
    console.log(text);
    if (broken === undefined) return 0;
    writeFileSync(
      HISTORY,
      JSON.stringify(broken, (_, value: unknown) => (value instanceof Map ? [...value] : value)),
    );
    console.log(`the whole history: ${HISTORY}`);
    return 1;
  } catch (error) {
    const reason: unknown = stop.signal.aborted ? stop.signal.reason : error;
    console.error(`soak (seed ${seed}): ${reason instanceof Error ? reason.message : String(reason)}`);
    return 1;
  } finally {
    log.end();
  }
}

process.exitCode = await main().catch((error: unknown) => {
  console.error(`soak: ${error instanceof Error ? error.message : String(error)}`);
  return 64;
});
