// A run of a job, `task run --job`: how it starts, what its end is called, and when it starts nothing.
import { describe, expect, test } from 'vitest';
import { jobFor } from '../support/job-runs.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

describe('the end of a run is the end of its target', () => {
  test.each([
    ['good', 'echo $RUNLOCK_JOB', 'good', 0, undefined],
    ['failed', 'echo out; exit 3', 'failed', 3, 'failed'],
    ['timed-out', 'sleep 60', 'timed-out', 124, 'failed'],
    ['reboot', 'exit 35', 'rebooting', 35, 'rebooting'],
  ] as const)('%s', async (name, script, state, status, claim) => {
    const job = await jobFor(agent, `jr/${name}`, script, {
      options: 'reboot_codes = [35]\ntimeout = "1h"',
      spec: { timeoutMs: name === 'timed-out' ? 300 : 60_000 },
    });
    const run = await job.run().ended;
    expect(run).toMatchObject({ status });
    if (name === 'good') expect(run.stdout).toBe(`ops/${job.ref.id}\n`);
    const { stage, tally, document } = await job.look();
    const isFinal = state !== 'rebooting';
    expect(document?.value).toMatchObject({ state, run: expect.any(String) as string });
    expect(tally.value.states).toEqual(isFinal ? { [state]: 1 } : {});
    expect(stage.value.kind).toBe(state === 'good' ? 'done' : isFinal ? 'stopped' : 'open');
    // The pointer goes with the final state.
    const pointer = await agent.kv.get(`runlock/.requests/ops/inbox/node1/${job.ref.id}`);
    expect(pointer === undefined).toBe(isFinal);
    expect(await job.group.claim()).toEqual(
      claim === undefined ? undefined : expect.objectContaining({ state: claim }),
    );
    const last = await agent.kv.get(job.group.key('.runs/node1'));
    // One transaction.
    expect((await agent.kv.get(`runlock/jr/${name}/.jobs/ops/${job.ref.id}/nodes/node1`))?.ModifyIndex).toBe(
      last?.ModifyIndex,
    );
    expect(job.ledger()).toMatchObject({ nonce: 'n1', run: document?.value.run, end: { state } });
  });
});
