// Commands that are hard to end, and what they leave behind.
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { command } from '../support/history/checker.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet } from '../support/history/fleet.ts';
import { uptimeMs } from '../support/history/history.ts';
import type { RunTrace } from '../support/history/history.ts';
import {
  HOLDS,
  LONG,
  SOON_MS,
  brief,
  expectServed,
  impatient,
  lineUp,
  livingOf,
  occupy,
  untilBeat,
  untilDead,
} from '../support/history/steps.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { spawnRunlock } from '../support/program.ts';

const agent = useAgent();

const daemonOf = (run: RunTrace): number => run.processes.find(({ role }) => role === 'daemon')?.pid ?? 0;

/** What the witnesses of the run have noted by now. */
const traceOf = async (fleet: Fleet, { run }: RunTrace): Promise<RunTrace> => {
  const trace = (await fleet.history()).runs.find((one) => one.run === run);
  if (!trace) throw new Error(`no run ${run}`);
  return trace;
};

/** The next run started only after the last beat of the one before it. */
async function expectAfter(fleet: Fleet, before: RunTrace, next: string): Promise<void> {
  const { runs } = await fleet.history();
  const follower = runs.find(({ node }) => node === next);
  const lastMs = Math.max(...(await traceOf(fleet, before)).processes.map((one) => one.lastMs));
  expect(follower?.processes[0]?.startMs).toBeGreaterThanOrEqual(lastMs);
}

describe.concurrent('a command that ignores TERM', () => {
  test.each(HOLDS)(
    'its setsid grandchild too, hold %s: both end, and only then who may follow starts',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `deaf-${hold}`, hold });
      const { node, run } = await occupy(fleet, 'web01', { part: { deaf: true, grandchild: true } });
      const [next] = await lineUp(fleet, ['web02'], brief);
      const toldMs = uptimeMs();
      node.send('SIGTERM');
      expect((await node.ended).status).toBe(137);
      expect(livingOf(run)).toEqual([]);
      if (hold === 'forever') {
        expect(await fleet.claim()).toMatchObject({ state: 'interrupted', node: 'web01' });
        expect((await fleet.run('web03', impatient)).status).toBe(75);
        expect((await fleet.run('web01', impatient)).status).toBe(0);
      }
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      const { processes } = await traceOf(fleet, run);
      // The fleet's --kill-after is 1 s; a beat may be 50 ms old, and more on a busy machine.
      for (const { lastMs } of processes) expect(lastMs).toBeGreaterThan(toldMs + 500);
      await expectAfter(fleet, run, 'web02');
      await expectServed(fleet, hold === 'forever' ? ['web01', 'web01', 'web02'] : ['web01', 'web02']);
    },
  );

  test(
    '--release-on-signal: TERM of runlock ends it, and the next in line follows at once',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'deaf-released' });
      const part = { deaf: true, grandchild: true };
      const { node, run } = await occupy(fleet, 'web01', { part, args: ['--release-on-signal'] });
      const [next] = await lineUp(fleet, ['web02'], brief);
      fleet.act('let-go', 'web01');
      node.send('SIGTERM');
      expect(await node.ended).toEqual({ status: 137, stdout: '', stderr: '' });
      expect(livingOf(run)).toEqual([]);
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      await expectAfter(fleet, run, 'web02');
      await expectServed(fleet, ['web01', 'web02']);
    },
  );

  test.each(HOLDS)(
    'and runs longer than --timeout, hold %s: it is killed, its slot is kept as ever',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `late-${hold}`, hold });
      const late = { part: { deaf: true, grandchild: true }, args: ['--timeout', '3s'] };
      const { node, run } = await occupy(fleet, 'web01', late);
      const [next] = await lineUp(fleet, ['web02'], brief);
      expect((await node.ended).status).toBe(124);
      expect(livingOf(run)).toEqual([]);
      if (hold === 'forever') {
        expect(await fleet.claim()).toMatchObject({ state: 'failed', node: 'web01' });
        expect((await fleet.run('web03', impatient)).status).toBe(75);
        expect((await fleet.run('web01', impatient)).status).toBe(0);
      }
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      await expectAfter(fleet, run, 'web02');
      await expectServed(fleet, hold === 'forever' ? ['web01', 'web01', 'web02'] : ['web01', 'web02']);
    },
  );

  test.each(HOLDS)(
    'and is evicted, hold %s: it is killed, 79, and only then the next in line starts',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `evicted-${hold}`, hold });
      const { node, run } = await occupy(fleet, 'web01', { part: { deaf: true, grandchild: true } });
      const [next] = await lineUp(fleet, ['web02'], brief);
      fleet.act('evict', 'web01');
      const evict = ['release', fleet.group, '--owner', 'web01', '--force'];
      const operator = spawnRunlock(agent, evict);
      expect((await node.ended).status).toBe(79);
      expect((await operator.ended).status).toBe(0);
      expect(livingOf(run)).toEqual([]);
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      await expectAfter(fleet, run, 'web02');
      await expectServed(fleet, ['web01', 'web02']);
    },
  );
});

describe.concurrent('a command that leaves a daemon', () => {
  test.each(HOLDS)(
    'which ignores TERM, and fails, hold %s: it is ended before anybody follows',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `failed-${hold}`, hold });
      const part = { daemon: true, deaf: true };
      const { node, run } = await occupy(fleet, 'web01', { part });
      const [next] = await lineUp(fleet, ['web02'], brief);
      node.tell(3);
      expect((await node.ended).status).toBe(3);
      expect(livingOf(run)).toEqual([]);
      if (hold === 'forever') expect((await fleet.run('web01', impatient)).status).toBe(0);
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      expect(command(await traceOf(fleet, run))?.exitCode).toBe(3);
      await expectAfter(fleet, run, 'web02');
      await expectServed(fleet, hold === 'forever' ? ['web01', 'web01', 'web02'] : ['web01', 'web02']);
    },
  );

  test.each(HOLDS)(
    'and succeeds, hold %s: the daemon stays, also in the next run; the slot is free',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `daemon-${hold}`, hold });
      const { node, run } = await occupy(fleet, 'web01', { part: { daemon: true } });
      const guard = await node.guard();
      const [next] = await lineUp(fleet, ['web02'], brief);
      node.tell();
      // Its standard output is the daemon's too, so runlock is gone before this says so.
      await eventually(() => expect(isAlive(node.pid)).toBe(false), SOON_MS);
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      expect(isAlive(guard)).toBe(false);
      expect(await fleet.claim()).toBeUndefined();
      expect(await fleet.run('web01', impatient)).toMatchObject({ status: 0, stderr: '' });
      expect(livingOf(run)).toEqual([daemonOf(run)]);
      const sinceMs = uptimeMs();
      await eventually(async () => {
        const { processes } = await traceOf(fleet, run);
        const lastMs = processes.find(({ role }) => role === 'daemon')?.lastMs;
        expect(lastMs).toBeGreaterThan(sinceMs);
      }, SOON_MS);
      await expectServed(fleet, ['web01', 'web02', 'web01']);
    },
  );

  test.each(
    HOLDS.flatMap((hold) =>
      (['SIGTERM', 'SIGHUP', 'SIGKILL'] as const).map((signal) => [hold, signal] as const),
    ),
  )('hold %s, and %s of runlock: the daemon is ended with the rest', LONG, async (hold, signal) => {
    await using fleet = startFleet(agent, { group: `daemon-${hold}-${signal}`, hold });
    const { node, run } = await occupy(fleet, 'web01', { part: { daemon: true, grandchild: true } });
    await untilBeat(fleet, run, uptimeMs());
    node.send(signal);
    await untilDead(run, SOON_MS);
    const statuses = { SIGTERM: 143, SIGHUP: 129, SIGKILL: 137 };
    expect((await node.ended).status).toBe(statuses[signal]);
    expect(await fleet.run('web01', impatient)).toMatchObject({ status: 0, stderr: '' });
    await expectServed(fleet, ['web01', 'web01']);
  });
});
