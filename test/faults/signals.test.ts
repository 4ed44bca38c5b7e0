// Signals to a runlock that has no command yet: while it waits, while it is the first in the queue, while it is granted its slot.
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet, Node } from '../support/history/fleet.ts';
import {
  LONG,
  SESSION_MS,
  SOON_MS,
  VANISHED_MS,
  brief,
  expectServed,
  lineUp,
  occupy,
  served,
  untilDead,
  untilUnlocked,
} from '../support/history/steps.ts';
import { spawnRunlock } from '../support/program.ts';
import { eventually, untilGone } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Proxy, ProxyRequest } from '../support/proxy.ts';

// Who waits has no claim, so its hold is of no matter there.

const agent = useAgent();

/** Long enough a TTL for a stop that is shorter. */
const patient = { part: { beats: 3 }, args: ['--session-ttl', '60s'] };

const endedWell = async (nodes: readonly (Node | undefined)[]) => {
  for (const node of nodes) expect(await node?.ended).toMatchObject({ status: 0, stderr: '' });
};

/** The ticket of a run is gone together with its session. */
const untilTicketGone = (fleet: Fleet, session: string) =>
  eventually(async () => expect(await fleet.keys()).not.toContain(`.queue/${session}`), SESSION_MS);

/** Only a grant from the queue writes `.last`. */
const isGrant = ({ path, body }: ProxyRequest) =>
  path.startsWith('/v1/txn') &&
  (JSON.parse(body) as { KV: { Verb: string; Key: string } }[]).some(
    ({ KV }) => KV.Verb === 'set' && KV.Key.endsWith('/.last'),
  );

/** web01's turn is over while web02 is granted the slot, and stopped before it hears of it. */
async function stopAtGrant(fleet: Fleet, proxy: Proxy): Promise<{ stopped: Node; behind: Node }> {
  const { node: first } = await occupy(fleet, 'web01');
  const [stopped] = await lineUp(fleet, ['web02'], { ...brief, agent: proxy });
  const [behind] = await lineUp(fleet, ['web03']);
  if (!stopped || !behind) throw new Error('nobody waits');
  // The agent gets the grant once its run is stopped, however late this test comes to that.
  const stop = proxy.seen(isGrant).then(() => stopped.send('SIGSTOP'));
  proxy.rule({ match: isGrant, times: 1, do: { until: stop } });
  first.tell();
  await stop;
  await eventually(async () => expect(await fleet.claim()).toMatchObject({ node: 'web02' }), SOON_MS);
  return { stopped, behind };
}

test.concurrent(
  'SIGKILL of the run and then of the first in the queue, hold none: the next looks for 60 s',
  LONG,
  async () => {
    await using fleet = startFleet(agent, { group: 'two-dead', hold: 'none' });
    const { node: holder, run } = await occupy(fleet, 'web01', { part: { deaf: true } });
    const [first, second, third] = await lineUp(fleet, ['web02', 'web03', 'web04'], brief);
    holder.send('SIGKILL');
    await untilDead(run, SOON_MS);
    first?.send('SIGKILL');
    expect((await second?.ended)?.status).toBe(0);
    expect((await third?.ended)?.status).toBe(0);
    await expectServed(fleet, ['web01', 'web03', 'web04']);
  },
);

describe.concurrent('SIGSTOP of runlock just as its slot is granted', () => {
  test.each(['none', '5s'])(
    'hold %s, until another has taken it over: continued, it starts nothing and queues again',
    LONG,
    async (hold) => {
      await using proxy = await startProxy(agent);
      await using fleet = startFleet(agent, { group: `granted-${hold}`, hold });
      const { stopped, behind: heir } = await stopAtGrant(fleet, proxy);
      await heir.running(VANISHED_MS);
      const [last] = await lineUp(fleet, ['web04'], brief);
      stopped.send('SIGCONT');
      await stopped.waiting(SOON_MS);
      expect(await served(fleet)).toEqual(['web01', 'web03']);
      heir.tell();
      await endedWell([heir, last]);
      expect((await stopped.ended).status).toBe(0);
      await expectServed(fleet, ['web01', 'web03', 'web04', 'web02']);
    },
  );

  test('hold forever, until its session is gone: it gives back what it never heard of', LONG, async () => {
    await using proxy = await startProxy(agent);
    await using fleet = startFleet(agent, { group: 'granted-forever' });
    const { stopped, behind } = await stopAtGrant(fleet, proxy);
    await untilUnlocked(fleet);
    expect(await served(fleet)).toEqual(['web01']);
    stopped.send('SIGCONT');
    await behind.running(SOON_MS);
    await stopped.waiting(SOON_MS);
    behind.tell();
    await endedWell([behind]);
    expect((await stopped.ended).status).toBe(0);
    await expectServed(fleet, ['web01', 'web03', 'web02']);
  });

  test(
    'hold forever, until an operator has cleared its claim: it starts nothing and queues again',
    LONG,
    async () => {
      await using proxy = await startProxy(agent);
      await using fleet = startFleet(agent, { group: 'granted-cleared' });
      const { stopped, behind } = await stopAtGrant(fleet, proxy);
      await untilUnlocked(fleet);
      fleet.act('clear', 'web02');
      const clear = ['release', fleet.group, '--owner', 'web02', '--force'];
      expect((await spawnRunlock(agent, clear).ended).status).toBe(0);
      await behind.running(SOON_MS);
      stopped.send('SIGCONT');
      await stopped.waiting(SOON_MS);
      expect(await served(fleet)).toEqual(['web01', 'web03']);
      behind.tell();
      await endedWell([behind]);
      expect((await stopped.ended).status).toBe(0);
      await expectServed(fleet, ['web01', 'web03', 'web02']);
    },
  );
});

test.concurrent(
  'SIGSTOP of runlock while it waits, for longer than its session lives: it queues again',
  LONG,
  async () => {
    await using fleet = startFleet(agent, { group: 'waiting-stop' });
    const { node: holder } = await occupy(fleet, 'web01');
    const [first, stopped, behind] = await lineUp(fleet, ['web02', 'web03', 'web04'], brief);
    if (!stopped) throw new Error('nobody waits');
    const ticket = await stopped.waiting();
    stopped.send('SIGSTOP');
    await untilTicketGone(fleet, ticket);
    const [newcomer] = await lineUp(fleet, ['web05'], brief);
    stopped.send('SIGCONT');
    expect(await stopped.waiting(SOON_MS)).not.toBe(ticket);
    holder.tell();
    await endedWell([holder, first, behind, newcomer, stopped]);
    await expectServed(fleet, ['web01', 'web02', 'web04', 'web05', 'web03']);
  },
);

test.concurrent(
  'SIGSTOP and SIGCONT of runlock while it waits, before its session ends: it keeps its place',
  LONG,
  async () => {
    await using fleet = startFleet(agent, { group: 'waiting-pause' });
    const { node: holder } = await occupy(fleet, 'web01');
    const [first, stopped, behind] = await lineUp(fleet, ['web02', 'web03', 'web04'], patient);
    stopped?.send('SIGSTOP');
    holder.tell();
    await endedWell([holder, first]);
    stopped?.send('SIGCONT');
    await endedWell([stopped, behind]);
    await expectServed(fleet, ['web01', 'web02', 'web03', 'web04']);
  },
);

describe.concurrent('while it is the first in the queue', () => {
  test(
    'SIGKILL of runlock: the next in line is served when that session has ended by itself',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'first-kill' });
      const { node: holder } = await occupy(fleet, 'web01');
      const [first, second, third] = await lineUp(fleet, ['web02', 'web03', 'web04'], brief);
      first?.send('SIGKILL');
      await untilGone(first?.pid ?? 0);
      holder.tell();
      await endedWell([holder, second, third]);
      await expectServed(fleet, ['web01', 'web03', 'web04']);
    },
  );

  test(
    'SIGSTOP of runlock, for longer than its session lives: the next runs, it queues again',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'first-stop' });
      const { node: holder } = await occupy(fleet, 'web01');
      const [stopped] = await lineUp(fleet, ['web02'], brief);
      const [next] = await lineUp(fleet, ['web03']);
      if (!stopped || !next) throw new Error('nobody waits');
      stopped.send('SIGSTOP');
      holder.tell();
      await next.running(SESSION_MS);
      const [newcomer] = await lineUp(fleet, ['web04'], brief);
      stopped.send('SIGCONT');
      await stopped.waiting(SOON_MS);
      expect(await served(fleet)).toEqual(['web01', 'web03']);
      next.tell();
      await endedWell([holder, next, newcomer, stopped]);
      await expectServed(fleet, ['web01', 'web03', 'web04', 'web02']);
    },
  );

  test(
    'SIGSTOP and SIGCONT of runlock, before its session ends: the free slot waits for it',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'first-pause' });
      const { node: holder } = await occupy(fleet, 'web01');
      const [stopped, behind] = await lineUp(fleet, ['web02', 'web03'], patient);
      stopped?.send('SIGSTOP');
      holder.tell();
      await endedWell([holder]);
      expect(await fleet.claim()).toBeUndefined();
      stopped?.send('SIGCONT');
      await endedWell([stopped, behind]);
      await expectServed(fleet, ['web01', 'web02', 'web03']);
    },
  );
});

test.concurrent.each(['web02', 'web03'])(
  'SIGHUP of runlock while it waits (%s; the first is web02): 129, those behind move up',
  LONG,
  async (name) => {
    await using fleet = startFleet(agent, { group: `hup-${name}` });
    const { node: holder } = await occupy(fleet, 'web01');
    const waiting = await lineUp(fleet, ['web02', 'web03', 'web04'], brief);
    const hung = waiting.find((node) => node.name === name);
    const ticket = await hung?.waiting();
    hung?.send('SIGHUP');
    expect(await hung?.ended).toEqual({ status: 129, stdout: '', stderr: '' });
    const keys = await fleet.keys();
    expect(keys).not.toContain(`.queue/${ticket ?? ''}`);
    expect(keys).not.toContain(`.node/${name}`);
    const others = waiting.filter((node) => node !== hung);
    holder.tell();
    await endedWell([holder, ...others]);
    await expectServed(fleet, ['web01', ...others.map((node) => node.name)]);
  },
);

describe.concurrent('SIGKILL of runlock while it waits', () => {
  test('those behind it are served in order when its session has ended by itself', LONG, async () => {
    await using fleet = startFleet(agent, { group: 'waiting-kill' });
    const { node: holder } = await occupy(fleet, 'web01');
    const [first, dead, last] = await lineUp(fleet, ['web02', 'web03', 'web04'], brief);
    dead?.send('SIGKILL');
    await untilGone(dead?.pid ?? 0);
    holder.tell();
    await endedWell([holder, first, last]);
    await expectServed(fleet, ['web01', 'web02', 'web04']);
  });

  test('its node’s next run ends that session at once and joins as the last', LONG, async () => {
    await using fleet = startFleet(agent, { group: 'waiting-again' });
    const { node: holder } = await occupy(fleet, 'web01');
    const [first, dead, behind] = await lineUp(fleet, ['web02', 'web03', 'web04'], brief);
    const ticket = await dead?.waiting();
    dead?.send('SIGKILL');
    await untilGone(dead?.pid ?? 0);
    const [again] = await lineUp(fleet, ['web03'], brief);
    expect(await fleet.keys()).not.toContain(`.queue/${ticket ?? ''}`);
    holder.tell();
    await endedWell([holder, first, behind, again]);
    await expectServed(fleet, ['web01', 'web02', 'web04', 'web03']);
  });
});
