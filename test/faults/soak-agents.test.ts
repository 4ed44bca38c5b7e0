// Agents under random faults from a printed seed; `npm run soak -- --part agents` is the long one. SOAK_SEED replays another plan.
import { expect, test } from 'vitest';
import { describeAgentsResult, soakAgents } from '../support/soak/agents/driver.ts';
import { planAgents } from '../support/soak/agents/plan.ts';

const seed = Number(process.env['SOAK_SEED'] ?? 20_261_201);

test(`10 agents, requests and a chain of triggers, faults from seed ${seed}: nothing lost or twice`, async () => {
  const plan = planAgents({ seed, minutes: 0.12, nodes: 10 });
  const deeds: string[] = [];
  const result = await soakAgents(plan, { say: (line) => deeds.push(line) });
  console.log(describeAgentsResult(plan, result));
  expect(result.faults, deeds.join('\n')).toEqual([]);
  const { commands, jobs } = result.history;
  // The last job comes when all faults are over: those that it asks run it, and the chain behind them, on any machine.
  expect(jobs.some(({ looks }) => looks.length > 0)).toBe(true);
  expect(commands.filter(({ job }) => job !== undefined).length).toBeGreaterThanOrEqual(2);
  // From a request to the last of the chain.
  expect(Math.max(...commands.map(({ chain }) => chain.length))).toBeGreaterThanOrEqual(3);
  const faults = [...result.deeds.values()].reduce((sum, { hit }) => sum + hit, 0);
  expect(faults).toBeGreaterThanOrEqual(5);
}, 900_000);
