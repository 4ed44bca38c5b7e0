// A network between runlock and its agent that is slow, silent, or takes no more connections, while others wait in line.
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet, Node } from '../support/history/fleet.ts';
import { SOON_MS, untilDead } from '../support/history/steps.ts';
import { readRuns } from '../support/history/witness.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { STEPS } from '../support/proxy-steps.ts';

const LONG = { timeout: 150_000 };

const agent = useAgent();

const groupOf = (...words: string[]) => words.join('-');

const order = (fleet: Fleet) => readRuns(fleet.folder).map(({ node }) => node);

/** Nothing is left but what stays of good runs, and no promise was broken. */
async function ended(fleet: Fleet, nodes: readonly string[]): Promise<void> {
  expect((await fleet.keys()).sort()).toEqual(['.last', ...nodes.map((node) => `.runs/${node}`), '.tail']);
  const { broken, judged } = await fleet.verdict();
  expect(broken).toEqual([]);
  expect(judged.runs).toBe(nodes.length);
  expect(judged.claims).toBeGreaterThan(0);
}

describe.concurrent('before there is a slot', () => {
  test(
    'a watch that is never answered: who waits notices by itself, late, and has kept its place',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'watch' });
      const holder = fleet.start('holder');
      await holder.running(SOON_MS);
      await using proxy = await startProxy(agent);
      proxy.rule({ match: STEPS.watch, times: 1, do: 'hang' });
      const second = fleet.start('web01', { part: { beats: 1 }, ...{ agent: proxy } });
      await second.waiting(SOON_MS);
      const third = fleet.start('web02', { part: { beats: 1 } });
      await third.waiting(SOON_MS);
      await proxy.seen(STEPS.watch);
      holder.tell();
      expect(await second.ended).toMatchObject({ status: 0 });
      expect(await third.ended).toMatchObject({ status: 0 });
      expect(order(fleet)).toEqual(['holder', 'web01', 'web02']);
      await ended(fleet, ['holder', 'web01', 'web02']);
    },
  );

  test(
    'an agent that accepts and never answers, from the start: exit 69, nothing has started',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'silent' });
      await using proxy = await startProxy(agent);
      proxy.rule({ do: 'hang' });
      const { status, stdout, stderr } = await fleet.run('web01', { agent: proxy });
      expect({ status, stdout }).toEqual({ status: 69, stdout: '' });
      expect(stderr).toMatch(/^runlock: Consul at .* unreachable \(request timed out .*\n$/);
      expect(await fleet.keys()).toEqual([]);
      expect(await fleet.run('web02')).toMatchObject({ status: 0, stderr: '' });
      expect(order(fleet)).toEqual(['web02']);
      expect(await fleet.broken()).toEqual([]);
    },
  );

  test(
    'no connection is accepted from the start: exit 69, says so, and has started nothing',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'full' });
      await using proxy = await startProxy(agent);
      proxy.maxConnections = 0;
      const { status, stdout, stderr } = await fleet.run('web01', { agent: proxy });
      expect({ status, stdout }).toEqual({ status: 69, stdout: '' });
      expect(stderr).toMatch(/^runlock: Consul at .* unreachable \(.*\n$/);
      expect(await fleet.keys()).toEqual([]);
      expect(await fleet.run('web02')).toMatchObject({ status: 0, stderr: '' });
      expect(await fleet.broken()).toEqual([]);
    },
  );
});

describe.concurrent.each(['forever', '5s', 'none'])('hold %s', (hold) => {
  test(
    'an agent that stops answering under a run: it goes on or is dead in time, as its hold says',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: groupOf('mute', hold), hold });
      await using proxy = await startProxy(agent);
      const run = fleet.start('web01', { part: { deaf: true, grandchild: true }, ...{ agent: proxy } });
      const trace = await run.running(SOON_MS);
      const session = await fleet.lockedBy();
      const waiter = fleet.start('web02', { part: { beats: 3 } });
      await waiter.waiting(SOON_MS);
      proxy.rule({ do: 'hang' });
      proxy.sever();
      if (hold === 'forever') {
        await eventually(async () => expect(await fleet.lockedBy()).toBeUndefined(), 60_000);
        expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'running' });
      } else await untilDead(trace, 90_000);
      proxy.clear();
      proxy.sever();
      if (hold === 'forever') {
        await eventually(async () => expect(await fleet.lockedBy()).toBeDefined(), 30_000);
        expect(await fleet.lockedBy()).not.toBe(session);
        run.tell();
      }
      expect((await run.ended).status).toBe(hold === 'forever' ? 0 : 79);
      expect((await waiter.ended).status).toBe(0);
      expect(order(fleet)).toEqual(['web01', 'web02']);
      await eventually(async () => expect(await fleet.broken()).toEqual([]), 40_000);
      expect((await fleet.verdict()).judged.claims).toBeGreaterThan(0);
    },
  );

  test(
    'renewals that are never answered: the run takes its lock back, nobody is let in beside it',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: groupOf('unrenewed', hold), hold });
      await using proxy = await startProxy(agent);
      proxy.rule({ match: STEPS.renew, do: 'hang' });
      const run = fleet.start('web01', { agent: proxy });
      await run.running(SOON_MS);
      const first = await fleet.lockedBy();
      const waiter = fleet.start('web02', { part: { beats: 1 } });
      await waiter.waiting(SOON_MS);
      await run.says(/reacquired the lock of .*; the run continues/, 60_000);
      expect(await eventually(() => fleet.lockedBy())).not.toBe(first);
      run.tell();
      expect(await run.ended).toMatchObject({ status: 0 });
      expect(await waiter.ended).toMatchObject({ status: 0, stderr: '' });
      expect(order(fleet)).toEqual(['web01', 'web02']);
      await ended(fleet, ['web01', 'web02']);
    },
  );

  test('every request takes a second longer: all who wait run once, in their order', LONG, async () => {
    await using fleet = startFleet(agent, { group: groupOf('slow', hold), hold });
    await using proxy = await startProxy(agent);
    proxy.rule({ do: { delayMs: 1_000 } });
    const names = ['web01', 'web02', 'web03'];
    const nodes: Node[] = [];
    for (const name of names) {
      const node = fleet.start(name, { ...{ agent: proxy } });
      await (nodes.length === 0 ? node.running(SOON_MS) : node.waiting(SOON_MS));
      nodes.push(node);
    }
    for (const node of nodes) node.tell();
    for (const node of nodes) expect(await node.ended).toMatchObject({ status: 0, stderr: '' });
    expect(order(fleet)).toEqual(names);
    await ended(fleet, names);
  });

  test(
    'no connection is accepted any more: the run goes on, who waits says so and gets its turn',
    LONG,
    async () => {
      const args = ['--session-ttl', '30s'];
      await using fleet = startFleet(agent, { group: groupOf('limit', hold), hold, args });
      await using proxy = await startProxy(agent);
      const run = fleet.start('web01', { agent: proxy });
      await run.running(SOON_MS);
      const session = await fleet.lockedBy();
      const second = fleet.start('web02', { part: { beats: 1 }, ...{ agent: proxy } });
      const ticket = await second.waiting(SOON_MS);
      const third = fleet.start('web03', { part: { beats: 1 } });
      await third.waiting(SOON_MS);
      proxy.maxConnections = 0;
      proxy.sever();
      await second.says(/Consul at .* unreachable .*Retrying/, 40_000);
      proxy.maxConnections = Infinity;
      await second.says(/is reachable again/, 20_000);
      expect(await second.waiting(SOON_MS)).toBe(ticket);
      expect(await fleet.lockedBy()).toBe(session);
      run.tell();
      for (const node of [run, second, third]) expect(await node.ended).toMatchObject({ status: 0 });
      expect(order(fleet)).toEqual(['web01', 'web02', 'web03']);
      await ended(fleet, ['web01', 'web02', 'web03']);
    },
  );
});
