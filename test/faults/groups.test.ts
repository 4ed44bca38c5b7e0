// A run in several groups: what happens to it in one of them leaves the promises of every one of them kept.
import { expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet } from '../support/history/fleet.ts';
import { LONG, SOON_MS, brief, lineUp, occupy, served } from '../support/history/steps.ts';
import { eventually, untilGone } from '../support/processes.ts';

const agent = useAgent();

/** Two groups: runs of the first fleet that are given `both` are in the second one's group too, after their own. */
function twoFleets(name: string): { first: Fleet; second: Fleet; both: { args: string[] } } {
  const [a, b] = [`${name}/a`, `${name}/b`];
  const first = startFleet(agent, { group: a });
  return { first, second: startFleet(agent, { group: b, beside: first }), both: { args: ['-g', b] } };
}

const unbroken = async (fleet: Fleet, order: readonly string[]) => {
  expect(await served(fleet)).toEqual(order);
  expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: order.length } });
};

test.concurrent(
  'SIGKILL of runlock while it holds one group and waits for another: only that one goes on',
  LONG,
  async () => {
    const { first, second, both } = twoFleets('kill');
    await using firstFleet = first;
    await using secondFleet = second;
    const { node: holder } = await occupy(secondFleet, 'web09');
    const dead = firstFleet.start('web01', both);
    await eventually(
      async () => expect(await secondFleet.keys()).toContainEqual(expect.stringMatching(/^\.queue\//)),
      SOON_MS,
    );
    const [behind] = await lineUp(firstFleet, ['web02'], brief);
    const [after] = await lineUp(secondFleet, ['web08'], brief);
    expect(await firstFleet.claim()).toMatchObject({ node: 'web01', state: 'running' });
    dead.send('SIGKILL');
    await untilGone(dead.pid);
    holder.tell();
    expect((await holder.ended).status).toBe(0);
    expect((await after?.ended)?.status).toBe(0);
    expect(await served(firstFleet)).toEqual([]);
    const again = await occupy(firstFleet, 'web01', both);
    expect(await secondFleet.claim()).toMatchObject({ node: 'web01', run: again.run.run });
    again.node.tell();
    expect((await again.node.ended).status).toBe(0);
    expect((await behind?.ended)?.status).toBe(0);
    await unbroken(firstFleet, ['web01', 'web02']);
    await unbroken(secondFleet, ['web09', 'web08', 'web01']);
  },
);

test.concurrent.each(['a', 'b'])(
  'the session of one of its groups (%s) destroyed while it runs in two: it takes it back',
  LONG,
  async (which) => {
    const { first, second, both } = twoFleets(`session-${which}`);
    await using firstFleet = first;
    await using secondFleet = second;
    const { node, run } = await occupy(firstFleet, 'web01', both);
    const [behind] = await lineUp(firstFleet, ['web02'], brief);
    const [after] = await lineUp(secondFleet, ['web09'], brief);
    const struck = which === 'a' ? firstFleet : secondFleet;
    await agent.http('PUT', `/v1/session/destroy/${(await struck.lockedBy()) ?? ''}`);
    await node.says(new RegExp(`reacquired the lock of ${struck.group}; the run continues`), SOON_MS);
    for (const fleet of [firstFleet, secondFleet])
      expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'running', run: run.run });
    expect(await served(firstFleet)).toEqual(['web01']);
    expect(await served(secondFleet)).toEqual(['web01']);
    node.tell();
    expect((await node.ended).status).toBe(0);
    expect((await behind?.ended)?.status).toBe(0);
    expect((await after?.ended)?.status).toBe(0);
    await unbroken(firstFleet, ['web01', 'web02']);
    await unbroken(secondFleet, ['web01', 'web09']);
  },
);
