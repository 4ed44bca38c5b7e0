// The guard ended, stopped or hung up on, alone and together with its runlock. It is there while a command runs, and of a run that waits from when it is first in the queue.
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet, Node } from '../support/history/fleet.ts';
import { uptimeMs } from '../support/history/history.ts';
import type { RunTrace } from '../support/history/history.ts';
import {
  HOLDS,
  LONG,
  SOON_MS,
  VANISHED_MS,
  brief,
  expectServed,
  halt,
  impatient,
  lineUp,
  livingOf,
  occupy,
  stubborn,
  untilBeat,
  untilDead,
} from '../support/history/steps.ts';
import { end, eventually, guardOf, isAlive, untilGone } from '../support/processes.ts';

const agent = useAgent();

/** The guard waits for 30 s, and runlock beats every 5 s. */
const TOO_LONG_MS = 32_000;
const A_BEAT_MS = 7_000;

/** runlock dies now, and so does the whole tree: somebody is on duty. */
async function expectOnDuty(fleet: Fleet, { node, run }: { node: Node; run: RunTrace }): Promise<void> {
  node.send('SIGKILL');
  await untilDead(run, SOON_MS);
  expect(await fleet.claim()).toMatchObject({ state: 'running', node: node.name, run: run.run });
  expect(await fleet.run(node.name, impatient)).toMatchObject({ status: 0, stderr: '' });
  await expectServed(fleet, [node.name, node.name]);
}

/** SIGKILL of runlock and its guard, with no time for one to see the other go. */
async function killBoth(fleet: Fleet, node: Node): Promise<void> {
  const guard = await node.guard();
  node.send('SIGSTOP');
  process.kill(guard, 'SIGKILL');
  node.send('SIGKILL');
  await untilGone(node.pid, SOON_MS);
  expect(await fleet.claim()).toMatchObject({ state: 'running', node: node.name });
}

test.concurrent.each(['forever', 'none'])(
  'SIGSTOP of runlock and its guard, hold %s, just not for too long: it goes on',
  LONG,
  async (hold) => {
    await using fleet = startFleet(agent, { group: `both-stop-${hold}`, hold });
    const { node, run } = await occupy(fleet, 'web01', stubborn);
    const guard = await node.guard();
    // Between two beats of runlock, which says something as soon as it goes on.
    await untilBeat(fleet, run, uptimeMs() + 2_000);
    using stopped = halt(guard, 'group');
    node.send('SIGSTOP');
    await untilBeat(fleet, run, uptimeMs() + TOO_LONG_MS);
    stopped.resume();
    node.send('SIGCONT');
    await untilBeat(fleet, run, uptimeMs() + A_BEAT_MS);
    expect(guardOf(node.pid)).toBe(guard);
    await expectOnDuty(fleet, { node, run });
  },
);

test.concurrent(
  'a run that is first in the queue, and no other, has its guard already, also when it runs',
  async () => {
    await using fleet = startFleet(agent, { group: 'guard-first' });
    const { node: holder } = await occupy(fleet, 'web01');
    const [first, second] = await lineUp(fleet, ['web02', 'web03'], stubborn);
    if (!first || !second) throw new Error('two were started');
    const guard = await first.guard();
    expect(() => guardOf(second.pid)).toThrow('no guard');
    holder.tell();
    const run = await first.running(SOON_MS);
    expect(guardOf(first.pid)).toBe(guard);
    await second.guard();
    first.send('SIGKILL');
    await untilDead(run, SOON_MS);
    await untilGone(guard, SOON_MS);
    second.send('SIGTERM');
    expect((await second.ended).status).toBe(143);
    expect(await fleet.run('web02', impatient)).toMatchObject({ status: 0, stderr: '' });
    await expectServed(fleet, ['web01', 'web02', 'web02']);
  },
);

test.concurrent(
  'SIGKILL of the guard of a run that is first in the queue: another is on duty when it runs',
  async () => {
    await using fleet = startFleet(agent, { group: 'guard-first-kill' });
    const { node: holder } = await occupy(fleet, 'web01');
    const [node] = await lineUp(fleet, ['web02'], stubborn);
    if (!node) throw new Error('one was started');
    const guard = await node.guard();
    process.kill(guard, 'SIGKILL');
    await untilGone(guard, SOON_MS);
    holder.tell();
    const run = await node.running(SOON_MS);
    expect(guardOf(node.pid)).not.toBe(guard);
    node.send('SIGKILL');
    await untilDead(run, SOON_MS);
    expect(await fleet.run('web02', impatient)).toMatchObject({ status: 0, stderr: '' });
    await expectServed(fleet, ['web01', 'web02', 'web02']);
  },
);

test.concurrent.each(['SIGKILL', 'SIGTERM'] as const)(
  '%s of a run that is first in the queue: its guard goes with it, and ends nothing',
  async (signal) => {
    await using fleet = startFleet(agent, { group: `guard-first-${signal}` });
    const { node: holder, run } = await occupy(fleet, 'web01');
    const [node] = await lineUp(fleet, ['web02']);
    if (!node) throw new Error('one was started');
    const guard = await node.guard();
    node.send(signal);
    await node.ended;
    if (signal === 'SIGTERM') expect(isAlive(guard)).toBe(false);
    await untilGone(guard, SOON_MS);
    await untilBeat(fleet, run, uptimeMs());
    holder.tell();
    expect((await holder.ended).status).toBe(0);
  },
);

describe.concurrent('SIGKILL of runlock and its guard at once', () => {
  test(
    'hold none: nobody is left to end the command, and 60 s later the next runs beside it',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'limit', hold: 'none' });
      const { node, run } = await occupy(fleet, 'web01', stubborn);
      const [next] = await lineUp(fleet, ['web02'], brief);
      await killBoth(fleet, node);
      await next?.running(VANISHED_MS);
      expect((await next?.ended)?.status).toBe(0);
      await untilBeat(fleet, run, uptimeMs());
      // A hold that ends needs one of the two; with `forever` nobody would have followed.
      const { broken, judged } = await fleet.verdict();
      expect(broken.map(({ promise }) => promise)).toEqual([1]);
      expect(judged.runs).toBe(2);
    },
  );

  test.each(HOLDS)(
    'hold %s: its orphan keeps others out, and its node names it and stays away',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `both-kill-${hold}`, hold });
      const { node, run } = await occupy(fleet, 'web01', stubborn);
      await killBoth(fleet, node);
      const again = await fleet.run('web01');
      expect(again.status).toBe(75);
      expect(again.stderr).toContain('processes of an earlier run of ');
      for (const pid of livingOf(run)) expect(again.stderr).toContain(String(pid));
      expect((await fleet.run('web02', impatient)).status).toBe(75);
      expect(livingOf(run)).toHaveLength(2);
      livingOf(run).forEach(end);
      await untilDead(run, SOON_MS);
      // Its shells are gone; their last `sleep` ends by itself and counts until then.
      await eventually(
        async () => expect(await fleet.run('web01', impatient)).toMatchObject({ status: 0, stderr: '' }),
        SOON_MS,
      );
      await expectServed(fleet, ['web01', 'web01']);
    },
  );
});

test.concurrent.each(HOLDS)(
  'SIGKILL of the guard, hold %s: the run goes on under a new one, which is on duty',
  LONG,
  async (hold) => {
    await using fleet = startFleet(agent, { group: `guard-kill-${hold}`, hold });
    const { node, run } = await occupy(fleet, 'web01', stubborn);
    const first = await node.guard();
    fleet.act('kill', 'web01');
    process.kill(first, 'SIGKILL');
    await eventually(() => expect(guardOf(node.pid)).not.toBe(first), SOON_MS);
    await untilBeat(fleet, run, uptimeMs());
    await expectOnDuty(fleet, { node, run });
  },
);

test.concurrent.each(HOLDS)(
  'SIGHUP of the guard and its helpers, hold %s: it stays on duty, and the run goes on',
  LONG,
  async (hold) => {
    await using fleet = startFleet(agent, { group: `guard-hup-${hold}`, hold });
    const { node, run } = await occupy(fleet, 'web01', stubborn);
    const guard = await node.guard();
    process.kill(guard, 'SIGHUP');
    process.kill(-guard, 'SIGHUP');
    await untilBeat(fleet, run, uptimeMs());
    expect(guardOf(node.pid)).toBe(guard);
    await expectOnDuty(fleet, { node, run });
  },
);

test.concurrent.each(HOLDS)(
  'SIGKILL of the guard while runlock is stopped, hold %s: it goes on under a new one',
  LONG,
  async (hold) => {
    await using fleet = startFleet(agent, { group: `kill-stopped-${hold}`, hold });
    const { node, run } = await occupy(fleet, 'web01', stubborn);
    const first = await node.guard();
    node.send('SIGSTOP');
    fleet.act('kill', 'web01');
    process.kill(first, 'SIGKILL');
    node.send('SIGCONT');
    await eventually(() => expect(guardOf(node.pid)).not.toBe(first), SOON_MS);
    await untilBeat(fleet, run, uptimeMs());
    await expectOnDuty(fleet, { node, run });
  },
);

test.concurrent.each(HOLDS)(
  'SIGHUP of runlock and its guard, hold %s: the tree ends, the run counts as stopped',
  LONG,
  async (hold) => {
    await using fleet = startFleet(agent, { group: `both-hup-${hold}`, hold });
    const { node, run } = await occupy(fleet, 'web01', stubborn);
    const [next] = await lineUp(fleet, ['web02'], brief);
    const guard = await node.guard();
    process.kill(guard, 'SIGHUP');
    node.send('SIGHUP');
    expect((await node.ended).status).toBe(129);
    expect(livingOf(run)).toEqual([]);
    expect(isAlive(guard)).toBe(false);
    if (hold === 'forever') expect(await fleet.run('web01')).toMatchObject({ status: 0, stderr: '' });
    expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
    await expectServed(fleet, hold === 'forever' ? ['web01', 'web01', 'web02'] : ['web01', 'web02']);
  },
);

describe.concurrent('SIGSTOP of the guard', () => {
  test.each(
    (['alone', 'group'] as const).flatMap((how) =>
      (['forever', 'none'] as const).map((hold) => [how, hold] as const),
    ),
  )(
    '(%s), hold %s, for longer than it waits for a beat: continued, it is on duty',
    LONG,
    async (how, hold) => {
      await using fleet = startFleet(agent, { group: `guard-stop-${how}-${hold}`, hold });
      const { node, run } = await occupy(fleet, 'web01', stubborn);
      const guard = await node.guard();
      using stopped = halt(guard, how);
      await untilBeat(fleet, run, uptimeMs() + TOO_LONG_MS);
      stopped.resume();
      await untilBeat(fleet, run, uptimeMs() + A_BEAT_MS);
      expect(guardOf(node.pid)).toBe(guard);
      await expectOnDuty(fleet, { node, run });
    },
  );

  test(
    'and then of runlock, hold none: a beat that is read late gives no more life than when sent',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'late-beat', hold: 'none' });
      const { node, run } = await occupy(fleet, 'web01', stubborn);
      using guard = halt(await node.guard());
      await untilBeat(fleet, run, uptimeMs() + A_BEAT_MS);
      node.send('SIGSTOP');
      await untilBeat(fleet, run, uptimeMs() + 22_000);
      guard.resume();
      const resumedMs = uptimeMs();
      await untilDead(run, SOON_MS);
      // The last beat was sent up to 5 s before the stop, and gave 30 s.
      expect(uptimeMs() - resumedMs).toBeLessThan(20_000);
      node.send('SIGCONT');
      expect((await node.ended).status).toBe(137);
      expect(await fleet.run('web02')).toMatchObject({ status: 0, stderr: '' });
      await expectServed(fleet, ['web01', 'web02']);
    },
  );

  test.each(HOLDS)(
    'hold %s, and SIGKILL of runlock: others are kept out; continued, it ends the tree',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `stop-kill-${hold}`, hold });
      const { node, run } = await occupy(fleet, 'web01', stubborn);
      using guard = halt(await node.guard());
      node.send('SIGKILL');
      await untilGone(node.pid, SOON_MS);
      const again = await fleet.run('web01');
      expect(again.status).toBe(75);
      expect(again.stderr).toContain('processes of an earlier run of ');
      expect((await fleet.run('web02', impatient)).status).toBe(75);
      expect(livingOf(run)).toHaveLength(2);
      guard.resume();
      await untilDead(run, SOON_MS);
      expect(await fleet.run('web01', impatient)).toMatchObject({ status: 0, stderr: '' });
      await expectServed(fleet, ['web01', 'web01']);
    },
  );

  test.each(HOLDS)(
    'hold %s, until the command has ended: the run ends well, and the guard is gone too',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `stop-end-${hold}`, hold });
      const { node } = await occupy(fleet, 'web01');
      using guard = halt(await node.guard());
      node.tell();
      expect(await node.ended).toEqual({ status: 0, stdout: '', stderr: '' });
      expect(isAlive(guard.pid)).toBe(false);
      expect(await fleet.claim()).toBeUndefined();
      await expectServed(fleet, ['web01']);
    },
  );
});
