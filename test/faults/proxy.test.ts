// A network that loses, delays and cuts what goes between runlock and its agent, while others wait in line.
import { afterAll, describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet, Node, NodeOptions } from '../support/history/fleet.ts';
import { HOLDS, SOON_MS } from '../support/history/steps.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match, Proxy } from '../support/proxy.ts';
import { FAULTS, LOSSES, STEPS } from '../support/proxy-steps.ts';

const LONG = { timeout: 150_000 };

const agent = useAgent();
const proxies = new Set<Proxy>();
afterAll(async () => {
  await Promise.all([...proxies].map((proxy) => proxy.close()));
});

interface Member {
  readonly node: Node;
  readonly proxy: Proxy;
}

/** A node behind a proxy of its own, which breaks a step of it. */
async function join(
  fleet: Fleet,
  name: string,
  { step, times, ...options }: NodeOptions & { step: keyof typeof STEPS; times: number },
): Promise<Member> {
  const proxy = await startProxy(agent);
  proxies.add(proxy);
  proxy.rule({ match: STEPS[step], times, do: FAULTS[name] ?? 'hang' });
  return { proxy, node: fleet.start(name, { ...options, ...{ agent: proxy } }) };
}

/** One node a fault, in this order, behind a holder that still runs. */
async function queueUp(
  fleet: Fleet,
  { step, faults, times = 1 }: { step: keyof typeof STEPS; faults: readonly string[]; times?: number },
) {
  const holder = fleet.start('holder');
  await holder.running(SOON_MS);
  const line: Member[] = [];
  for (const name of faults) {
    const member = await join(fleet, name, { step, times, part: { beats: 3 } });
    await member.node.waiting(SOON_MS);
    line.push(member);
  }
  return { holder, line, names: ['holder', ...faults] };
}

/** All of them succeed; what `late` kept back arrives while the next one runs. */
async function served(line: readonly Member[]): Promise<void> {
  for (const { node, proxy } of line) {
    const { status, stderr } = await node.ended;
    expect({ name: node.name, status, stderr }).toMatchObject({ status: 0 });
    await proxy.release();
    expect(proxy.counts().requests).toBeGreaterThan(0);
  }
}

const order = async (fleet: Fleet) => (await fleet.history()).runs.map(({ node }) => node);

/** Nothing is left but what stays of good runs, and the next one is let in at once. */
async function ended(fleet: Fleet, nodes: readonly string[], sessionsEndMs = 0): Promise<void> {
  expect(await fleet.run('last', { args: ['-w', '0'] })).toMatchObject({ status: 0, stderr: '' });
  const runs = [...nodes, 'last'].map((node) => `.runs/${node}`).sort();
  expect((await fleet.keys()).sort()).toEqual(['.last', ...runs, '.tail']);
  await eventually(async () => expect(await fleet.broken()).toEqual([]), sessionsEndMs);
  const { judged } = await fleet.verdict();
  expect(judged.runs).toBeGreaterThan(nodes.length);
  expect(judged.claims).toBeGreaterThan(0);
}

const groupOf = (...words: string[]) => words.join('-').replaceAll(' ', '-');

/** All faults with one hold, and with the others those after which nobody knows what took effect. */
const faultsOf = (hold: string) => Object.keys(hold === 'forever' ? FAULTS : LOSSES);

describe.concurrent('before there is a slot, where the hold does not matter', () => {
  test.each(['session create', 'enqueue', 'session destroy'] as const)(
    '%s requests that are lost, late, cut, unanswered, slow or refused: all run once',
    LONG,
    async (step) => {
      await using fleet = startFleet(agent, { group: groupOf(step, 'line') });
      // Where the very first request is not answered, nobody waits: that is said at once.
      const faults = Object.keys(FAULTS).filter((fault) => step !== 'session create' || fault !== 'hang');
      const { holder, line, names } = await queueUp(fleet, { step, faults });
      holder.tell();
      await served(line);
      expect(await order(fleet)).toEqual(names);
      // Nobody knows a session whose making went unseen, nor can end one whose end went unheard: its TTL does.
      await ended(fleet, names, step === 'enqueue' ? 0 : 40_000);
    },
  );

  test(
    'renewals of waiting nodes that are lost, cut, unanswered, slow or refused: places are kept',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: 'renew-line' });
      const { holder, line, names } = await queueUp(fleet, {
        step: 'renew',
        faults: Object.keys(FAULTS),
        times: 2,
      });
      const tickets = await Promise.all(line.map(({ node }) => node.waiting(SOON_MS)));
      for (const { proxy } of line) await proxy.seen(STEPS.renew, 4);
      expect(await Promise.all(line.map(({ node }) => node.waiting(SOON_MS)))).toEqual(tickets);
      holder.tell();
      await served(line);
      expect(await order(fleet)).toEqual(names);
      await ended(fleet, names);
    },
  );

  test(
    'the return to a failed claim that is lost, late, unanswered or refused: before who waits',
    LONG,
    async () => {
      const names = Object.keys(FAULTS);
      await using fleet = startFleet(agent, { group: 'come-back', slots: names.length });
      const failed = names.map((name) => fleet.run(name, { part: { exitCode: 3, beats: 20 } }));
      for (const run of failed) expect((await run).status).toBe(3);
      const waiter = fleet.start('waiter', { part: { beats: 1 } });
      await waiter.waiting(SOON_MS);
      const options = { step: 'come back', times: 1, part: { beats: 100 } } as const;
      const back = await Promise.all(names.map((name) => join(fleet, name, options)));
      await Promise.all(back.map(({ node }) => node.running(SOON_MS)));
      await served(back);
      expect(await waiter.ended).toMatchObject({ status: 0, stderr: '' });
      expect((await order(fleet)).sort()).toEqual([...names, ...names, 'waiter'].sort());
      await ended(fleet, [...names, 'waiter']);
    },
  );
});

describe.concurrent.each(HOLDS)('hold %s', (hold) => {
  test.each(['grant', 'release'] as const)(
    'a %s that is lost, late, cut, unanswered, slow or refused: all run once, in order',
    LONG,
    async (step) => {
      await using fleet = startFleet(agent, { group: groupOf(step, hold), hold });
      const { holder, line, names } = await queueUp(fleet, { step, faults: faultsOf(hold) });
      holder.tell();
      await served(line);
      expect(await order(fleet)).toEqual(names);
      await ended(fleet, names);
    },
  );

  test(
    'the release of a failed run that is lost, late or unanswered: its claim stays as held',
    LONG,
    async () => {
      const names = Object.keys(LOSSES);
      await using fleet = startFleet(agent, { group: groupOf('failing', hold), hold, slots: names.length });
      const runs = await Promise.all(names.map((name) => join(fleet, name, { step: 'release', times: 1 })));
      for (const { node } of runs) await node.running(SOON_MS);
      const waiter = fleet.start('waiter', { part: { beats: 1 } });
      await waiter.waiting(SOON_MS);
      for (const { node, proxy } of runs) {
        node.tell(3);
        expect(await node.ended).toMatchObject({ status: 3 });
        await proxy.release();
      }
      const claims = await Promise.all(names.map((_, slot) => fleet.claim(slot)));
      if (hold === 'forever') {
        expect(claims.map((claim) => claim?.state)).toEqual(names.map(() => 'failed'));
        const again = names.map((name) => fleet.run(name, { args: ['-w', '0'] }));
        for (const run of again) expect(await run).toMatchObject({ status: 0, stderr: '' });
      } else if (hold === 'none') expect(claims.filter((claim) => claim?.state === 'failed')).toEqual([]);
      expect(await waiter.ended).toMatchObject({ status: 0, stderr: '' });
      expect(await fleet.broken()).toEqual([]);
      expect((await fleet.verdict()).judged.claims).toBeGreaterThan(0);
    },
  );

  test(
    'renewals of running nodes that are lost, cut, unanswered or refused twice: sessions stay',
    LONG,
    async () => {
      const names = faultsOf(hold);
      await using fleet = startFleet(agent, { group: groupOf('renew', hold), hold, slots: names.length });
      const runs = await Promise.all(names.map((name) => join(fleet, name, { step: 'renew', times: 2 })));
      for (const { node } of runs) await node.running(SOON_MS);
      const locks = () => Promise.all(names.map(async (_, slot) => fleet.lockedBy(slot)));
      const before = await locks();
      const waiter = fleet.start('waiter', { part: { beats: 1 } });
      await waiter.waiting(SOON_MS);
      for (const { proxy } of runs) await proxy.seen(STEPS.renew, 4);
      expect(await locks()).toEqual(before);
      expect(before.filter((session) => session === undefined)).toEqual([]);
      for (const { node, proxy } of runs) {
        node.tell();
        expect(await node.ended).toMatchObject({ status: 0, stderr: '' });
        await proxy.release();
      }
      expect(await waiter.ended).toMatchObject({ status: 0, stderr: '' });
      expect((await order(fleet)).at(-1)).toBe('waiter');
      await ended(fleet, [...names, 'waiter']);
    },
  );
});

describe.concurrent('a grant that takes effect after it was given up', () => {
  const line = async (fleet: Fleet, proxy: Proxy) => {
    const holder = fleet.start('holder');
    await holder.running(SOON_MS);
    const first = fleet.start('web01', { part: { beats: 3 }, ...{ agent: proxy } });
    await first.waiting(SOON_MS);
    const second = fleet.start('web02', { part: { beats: 3 } });
    await second.waiting(SOON_MS);
    return { holder, both: [first, second] };
  };

  test.each([
    ['the next look', 'look'],
    ['the next try', 'grant'],
  ] as const)(
    'before %s: it is found, the run starts once, and keeps its turn',
    LONG,
    async (_before, rule) => {
      await using fleet = startFleet(agent, { group: groupOf('late', rule) });
      await using proxy = await startProxy(agent);
      const { holder, both } = await line(fleet, proxy);
      proxy.rule({ match: STEPS.grant, times: 1, do: 'late' });
      const slow = (match: Match) => proxy.rule({ match, times: 1, do: { delayMs: 1_000 } });
      holder.tell();
      await proxy.seen(STEPS.grant);
      const looks = proxy.requests.filter(STEPS.look).length;
      slow(STEPS[rule]);
      await (rule === 'grant' ? proxy.seen(STEPS.grant, 2) : proxy.seen(STEPS.look, looks + 1));
      expect((await proxy.release()).map(({ status }) => status)).toEqual([200]);
      for (const node of both) expect(await node.ended).toMatchObject({ status: 0, stderr: '' });
      expect(await order(fleet)).toEqual(['holder', 'web01', 'web02']);
      await ended(fleet, ['holder', 'web01', 'web02']);
    },
  );
});
