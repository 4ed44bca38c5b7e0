// The wall clock of an agent's host jumps: requests end by it, and nothing is put off for as long as the jump.
import { describe, expect, test } from 'vitest';
import { agentHost } from '../support/agent-host.ts';
import type { AgentHost } from '../support/agent-host.ts';
import { eventually } from '../support/processes.ts';
import { spawnRunlock } from '../support/program.ts';
import { useAgent } from '../support/use-agent.ts';

const consul = useAgent({ name: 'node1' });
const LONG = { timeout: 120_000 };
const HOUR_MS = 3_600_000;
const inTenMinutes = () => new Date(Date.now() + HOUR_MS / 6).toISOString();
const seen = (host: AgentHost, aheadMs: number) => eventually(() => host.clock.hasSeen(aheadMs), 45_000);

/** Runs of the trigger, all of which are over and known. */
const covered = (host: AgentHost, runs: number) =>
  eventually(async () => {
    const cursor = await host.cursor();
    expect([host.triggered(), cursor?.run, typeof cursor?.goodAt]).toEqual([runs, undefined, 'string']);
  }, 45_000);

describe.concurrent('a request', LONG, () => {
  test('over its end by a jump forwards, before it has begun: expired on this node', async () => {
    await using host = agentHost(consul, 'c-until');
    await host.run('pause');
    await host.start();
    const job = await host.ask({ until: inTenMinutes() });
    host.clock.jump(HOUR_MS);
    host.finish();
    await host.run('resume');
    await job.becomes('expired');
    expect(job.runs()).toBe(0);
    await host.keepsPromises();
  });

  test('over its end by a jump forwards, while it runs: the run goes on to its end', async () => {
    await using host = agentHost(consul, 'c-runs');
    await host.start();
    const job = await host.ask({ until: inTenMinutes() });
    await job.begun();
    host.clock.jump(HOUR_MS);
    await seen(host, HOUR_MS);
    host.finish();
    await job.becomes('good');
    expect(job.runs()).toBe(1);
    await host.keepsPromises();
  });

  test('that could not begin, and the clock jumps back: it is tried again as soon as ever', async () => {
    await using host = agentHost(consul, 'c-back', { more: 'wait = "1s"\nhold = "forever"' });
    const holds = spawnRunlock(consul, ['exec', '-g', host.group, '--node', 'other', '--', 'false']);
    expect((await holds.ended).status).toBe(1);
    const agent = await host.start();
    const job = await host.ask();
    const tries = () => agent.stderr().match(/exited 75/g)?.length ?? 0;
    await eventually(() => expect(tries()).toBeGreaterThan(0), 45_000);
    host.clock.jump(-HOUR_MS);
    // One may have been under way.
    const before = tries();
    await eventually(() => expect(tries()).toBeGreaterThan(before + 1), 45_000);
    host.finish();
    const cleared = spawnRunlock(consul, ['release', host.group, '--owner', 'other', '--force']);
    expect((await cleared.ended).status).toBe(0);
    await job.becomes('good', host.node, 60_000);
    expect(job.runs()).toBe(1);
    await host.keepsPromises();
  });
});

describe.concurrent('a trigger', LONG, () => {
  test.for([HOUR_MS, -HOUR_MS])(
    'with a debounce, during which the clock jumps by %d ms: one run',
    async (ms) => {
      const path = `c/debounce${ms}`;
      await using host = agentHost(consul, `c-debounce${ms}`, {
        more: `on = ["state:${path}"]\ndebounce = "3s"`,
      });
      host.finish();
      await host.start();
      await host.change(path, '1');
      host.clock.jump(ms);
      await host.change(path, '2');
      await covered(host, 1);
      await seen(host, ms);
      await host.keepsPromises();
    },
  );

  test.for([HOUR_MS, -HOUR_MS])(
    'with min_interval, after whose run the clock jumps by %d ms: the next change has its run',
    async (ms) => {
      const path = `c/interval${ms}`;
      await using host = agentHost(consul, `c-interval${ms}`, {
        more: `on = ["state:${path}"]\nmin_interval = "5s"`,
      });
      host.finish();
      await host.start();
      await host.change(path, '1');
      await covered(host, 1);
      host.clock.jump(ms);
      await host.change(path, '2');
      await covered(host, 2);
      await host.keepsPromises();
    },
  );

  test('with max_age, and the clock jumps back and forth: no more than a run for each jump', async () => {
    await using host = agentHost(consul, 'c-age', { more: 'on = ["state:c/age"]\nmax_age = "30m"' });
    host.finish();
    await host.start();
    await host.change('c/age', '1');
    await covered(host, 1);
    // Its last good run is an hour ahead then, which is not believed.
    host.clock.jump(-HOUR_MS);
    await host.change('c/age', '2');
    await covered(host, 2);
    // Its last good run is two hours ago then.
    host.clock.jump(HOUR_MS);
    await host.change('c/age', '3');
    await covered(host, 3);
    await host.change('c/age', '4');
    await covered(host, 4);
    await host.keepsPromises();
  });
});
