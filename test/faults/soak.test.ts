// Random faults from a printed seed; `npm run soak` is the long one. SOAK_SEED replays another plan.
import { expect, test } from 'vitest';
import { soak } from '../support/soak/driver.ts';
import { planSoak } from '../support/soak/plan.ts';
import { describeResult, faultsOf } from '../support/soak/report.ts';

const seed = Number(process.env['SOAK_SEED'] ?? 20_240_501);

test(`100 nodes, 3 slots, faults from seed ${seed}: no promise is broken, all comes to quiet`, async () => {
  const plan = planSoak({ seed, minutes: 0.4, nodes: 100, slots: 3 });
  const deeds: string[] = [];
  const result = await soak(plan, { atOnce: 40, say: (line) => deeds.push(line) });
  console.log(describeResult(plan, result));
  expect(faultsOf(result), deeds.join('\n')).toEqual([]);
  const main = result.groups.find(({ name }) => name === 'soak/forever');
  // Killed while they waited, or asked to end: some of the hundred never got to run.
  expect(main?.verdict.judged.runs).toBeGreaterThanOrEqual(80);
  expect(main?.verdict.judged.inOrder).toBeGreaterThanOrEqual(60);
  expect(main?.verdict.judged.claims).toBeGreaterThanOrEqual(60);
  for (const { verdict } of result.groups) expect(verdict.judged.runs).toBeGreaterThan(0);
  const faults = [...result.deeds].filter(([kind]) => kind !== 'start').map(([, { hit }]) => hit);
  expect(faults.reduce((sum, hit) => sum + hit, 0)).toBeGreaterThanOrEqual(10);
}, 240_000);
