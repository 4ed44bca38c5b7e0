// Many real agents in this process, on one Consul: what each of them asks and writes when all are asked for something at once.
import { expect, onTestFinished, test } from 'vitest';
import { startAgents } from '../support/agents-in-process.ts';
import type { Fleet, FleetOptions } from '../support/agents-in-process.ts';
import { askFor } from '../support/asked-jobs.ts';
import { eventually } from '../support/processes.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const NODES = Number(process.env['RUNLOCK_TEST_NODES'] ?? 20);
// All of them have one address here, and a host has one agent.
const consul = useAgent({ config: { limits: { http_max_conns_per_client: 16_384 } } });

async function started(options: Omit<FleetOptions, 'count'>) {
  const fleet = await startAgents(consul, { count: NODES, ...options });
  onTestFinished(() => fleet.end());
  return fleet;
}

const quiet = (fleet: Fleet) => eventually(() => expect(fleet.isQuiet()).toBe(true), 60_000);

test('a request for all of them is accepted by each with one write, and ended with one more', async () => {
  const group = 'many/jobs';
  const fleet = await started({ group });
  await quiet(fleet);
  fleet.clear();
  fleet.admit(false);
  const job = await askFor(consul, group, { targets: fleet.nodes.map((node) => [node, 0] as const) });
  await eventually(() => expect(fleet.moments.accepted.size).toBe(NODES), 60_000);
  expect(fleet.agents.writes).toBe(NODES);
  expect(fleet.agents.requests / NODES).toBeLessThanOrEqual(12);
  fleet.admit(true);
  await eventually(async () => {
    const stage = (await consul.kv.get(`runlock/${group}/.jobs/ops/${job.ref.id}/stage`))?.Value ?? '{}';
    expect(JSON.parse(stage)).toMatchObject({ kind: 'done' });
  }, 60_000);
  expect(fleet.moments.begun.size).toBe(NODES);
  // All count in one tally: some try again. The agents themselves write nothing more.
  expect(fleet.agents.writes).toBe(NODES);
  expect(fleet.runs.writes / NODES).toBeLessThanOrEqual(8);
  expect(fleet.faults).toEqual([]);
});

test('a change that all have a trigger on costs each of them four requests at most', async () => {
  const fleet = await started({ group: 'many/triggers', on: 'state:many/go' });
  await quiet(fleet);
  fleet.clear();
  await runlock(consul, ['state', 'set', 'many/go', '1']);
  await eventually(() => expect(fleet.moments.begun.size).toBe(NODES), 60_000);
  await quiet(fleet);
  expect(fleet.agents.requests / NODES).toBeLessThanOrEqual(4);
  expect(fleet.agents.writes).toBe(0);
  expect(fleet.faults).toEqual([]);
});
