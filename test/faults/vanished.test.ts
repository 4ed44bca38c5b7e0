// A run whose runlock is killed, or says nothing any more: the guard ends the command, and the claim keeps others out.
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { startFleet } from '../support/history/fleet.ts';
import { uptimeMs } from '../support/history/history.ts';
import {
  HOLDS,
  LONG,
  SOON_MS,
  VANISHED_MS,
  brief,
  expectServed,
  impatient,
  lineUp,
  livingOf,
  occupy,
  stubborn,
  untilBeat,
  untilDead,
  untilUnlocked,
} from '../support/history/steps.ts';
import { eventually, isAlive, untilGone } from '../support/processes.ts';
import { groupOf } from '../support/group.ts';

const agent = useAgent();

const ENDING_HOLDS = ['5s', 'none'] as const;

describe.concurrent('SIGSTOP of runlock while it runs', () => {
  test.each(ENDING_HOLDS)(
    'hold %s, until another has taken over: the tree is dead before, and it says so',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `stop-${hold}`, hold });
      const { node: stopped, run } = await occupy(fleet, 'web01', stubborn);
      const [next] = await lineUp(fleet, ['web02']);
      const [behind] = await lineUp(fleet, ['web03'], brief);
      const guard = await stopped.guard();
      stopped.send('SIGSTOP');
      await untilDead(run, VANISHED_MS);
      expect(await fleet.claim()).toMatchObject({ state: 'running', node: 'web01' });
      await next?.running(VANISHED_MS);
      expect(isAlive(guard)).toBe(false);
      const claim = await fleet.claim();
      stopped.send('SIGCONT');
      const { status, stderr } = await stopped.ended;
      expect(status).toBe(79);
      expect(stderr).toMatch(/runlock did not respond in time/);
      expect(stderr).toMatch(/slot 0 of .* no longer belongs to this run; nothing to release/);
      expect(await fleet.claim()).toEqual(claim);
      expect(await groupOf(agent, fleet.group).lastRun('web01')).toMatchObject({
        outcome: 'lost',
        exitCode: 137,
      });
      next?.tell();
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      expect(await behind?.ended).toMatchObject({ status: 0, stderr: '' });
      await expectServed(fleet, ['web01', 'web02', 'web03']);
    },
  );

  test.each(HOLDS)(
    'hold %s, for longer than its guard waits: the tree is dead, the run counts as failed',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `silent-${hold}`, hold });
      const { node: stopped, run } = await occupy(fleet, 'web01', stubborn);
      const [next] = await lineUp(fleet, ['web02'], brief);
      const guard = await stopped.guard();
      stopped.send('SIGSTOP');
      await untilDead(run, VANISHED_MS);
      await untilGone(guard, SOON_MS);
      stopped.send('SIGCONT');
      const { status, stderr } = await stopped.ended;
      expect(status).toBe(137);
      expect(stderr).toMatch(/runlock did not respond in time/);
      if (hold !== 'none') expect(stderr).toMatch(/web01 still holds slot 0/);
      if (hold === 'forever') expect(await fleet.run('web01')).toMatchObject({ status: 0 });
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      await expectServed(fleet, hold === 'forever' ? ['web01', 'web01', 'web02'] : ['web01', 'web02']);
    },
  );

  test.each(HOLDS)(
    'hold %s, until its session is gone: continued, it takes its lock back and goes on',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `pause-${hold}`, hold });
      const { node: stopped, run } = await occupy(fleet, 'web01', stubborn);
      const [next] = await lineUp(fleet, ['web02'], brief);
      stopped.send('SIGSTOP');
      await untilUnlocked(fleet);
      stopped.send('SIGCONT');
      await stopped.says(/reacquired the lock of .*; the run continues/, SOON_MS);
      await untilBeat(fleet, run, uptimeMs());
      expect(await fleet.claim()).toMatchObject({ state: 'running', node: 'web01', run: run.run });
      stopped.tell();
      expect((await stopped.ended).status).toBe(0);
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      await expectServed(fleet, ['web01', 'web02']);
    },
  );

  test.each(HOLDS)(
    'hold %s: its node is busy, and runlock says which process stands in the way',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `busy-${hold}`, hold });
      const { node: stopped, run } = await occupy(fleet, 'web01', stubborn);
      stopped.send('SIGSTOP');
      // With more patience it would wait for its node's turn.
      const again = await fleet.run('web01', { args: ['-v', '--wait', '0'] });
      expect(again.status).toBe(75);
      expect(again.stderr).toContain(
        `web01 is already running or queued in busy-${hold} (pid ${stopped.pid}`,
      );
      stopped.send('SIGCONT');
      await untilBeat(fleet, run, uptimeMs());
      stopped.tell();
      expect((await stopped.ended).status).toBe(0);
      await expectServed(fleet, ['web01']);
    },
  );
});

test.concurrent.each(HOLDS)(
  'SIGHUP of runlock while it runs, hold %s: its whole tree gets it, its hold is kept',
  LONG,
  async (hold) => {
    await using fleet = startFleet(agent, { group: `hup-${hold}`, hold });
    const { node: hung, run } = await occupy(fleet, 'web01', stubborn);
    const [next] = await lineUp(fleet, ['web02'], brief);
    hung.send('SIGHUP');
    expect((await hung.ended).status).toBe(129);
    expect(livingOf(run)).toEqual([]);
    if (hold === 'forever') {
      expect(await fleet.claim()).toMatchObject({ state: 'interrupted', node: 'web01' });
      expect(await fleet.run('web01', impatient)).toMatchObject({ status: 0, stderr: '' });
    }
    expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
    expect(await fleet.claim()).toBeUndefined();
    await expectServed(fleet, hold === 'forever' ? ['web01', 'web01', 'web02'] : ['web01', 'web02']);
  },
);

describe.concurrent('SIGKILL of runlock while it runs', () => {
  test.each(ENDING_HOLDS)(
    'hold %s: the whole tree is dead in seconds; the next follows after 60 s and the hold',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `kill-${hold}`, hold });
      const { node: dead, run } = await occupy(fleet, 'web01', stubborn);
      const [next, behind] = await lineUp(fleet, ['web02', 'web03'], brief);
      dead.send('SIGKILL');
      const killedMs = performance.now();
      await untilDead(run, SOON_MS);
      expect(performance.now() - killedMs).toBeLessThan(5_000);
      expect(await fleet.claim()).toMatchObject({ state: 'running', node: 'web01' });
      expect((await fleet.run('web04', impatient)).status).toBe(75);
      await next?.running(VANISHED_MS);
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      expect(await behind?.ended).toMatchObject({ status: 0, stderr: '' });
      await expectServed(fleet, ['web01', 'web02', 'web03']);
    },
  );

  test(
    'hold none, and nobody who waits for 60 s: the next count on from who saw it first',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'kill-brief', hold: 'none' });
      const { node: dead, run } = await occupy(fleet, 'web01', stubborn);
      dead.send('SIGKILL');
      await untilDead(run, SOON_MS);
      await untilUnlocked(fleet);
      const seenMs = performance.now();
      expect((await fleet.run('web02', impatient)).status).toBe(75);
      const since = (await fleet.claim())?.missingSince;
      expect(since).toBeDefined();
      const nodes: string[] = [];
      while (nodes.length < 5) {
        nodes.push(`web${nodes.length + 3}`);
        const { status } = await fleet.run(nodes.at(-1) ?? '', { args: ['-w', '20s'], ...brief });
        if (status === 0) break;
        expect(status).toBe(75);
        expect((await fleet.claim())?.missingSince).toBe(since);
      }
      expect(performance.now() - seenMs).toBeGreaterThan(60_000);
      await expectServed(fleet, ['web01', nodes.at(-1) ?? '']);
    },
  );

  test(
    'hold forever: the whole tree is dead in seconds, and nobody follows until its node is back',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'kill-forever' });
      const { node: dead, run } = await occupy(fleet, 'web01', stubborn);
      const [next] = await lineUp(fleet, ['web02'], brief);
      dead.send('SIGKILL');
      const killedMs = performance.now();
      await untilDead(run, SOON_MS);
      expect(performance.now() - killedMs).toBeLessThan(5_000);
      expect(await fleet.claim()).toMatchObject({ state: 'running', node: 'web01' });
      // The first in the queue has looked for 60 s, and has said so; that opens nothing.
      await eventually(
        async () => expect(await fleet.claim()).toMatchObject({ state: 'abandoned', node: 'web01' }),
        VANISHED_MS,
      );
      expect(await fleet.claim()).not.toHaveProperty('heldUntil');
      expect((await fleet.run('web03', impatient)).status).toBe(75);
      expect(await fleet.run('web01', impatient)).toMatchObject({ status: 0, stderr: '' });
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      await expectServed(fleet, ['web01', 'web01', 'web02']);
    },
  );

  test.each(HOLDS)(
    'hold %s: its node’s next run takes the claim back at once, before those who wait',
    LONG,
    async (hold) => {
      await using fleet = startFleet(agent, { group: `back-${hold}`, hold });
      const { node: dead, run } = await occupy(fleet, 'web01', stubborn);
      const [next] = await lineUp(fleet, ['web02'], brief);
      dead.send('SIGKILL');
      await eventually(() => expect(isAlive(dead.pid)).toBe(false), SOON_MS);
      expect(await fleet.run('web01', impatient)).toMatchObject({ status: 0, stderr: '' });
      expect(livingOf(run)).toEqual([]);
      expect(await next?.ended).toMatchObject({ status: 0, stderr: '' });
      await expectServed(fleet, ['web01', 'web01', 'web02']);
    },
  );
});
