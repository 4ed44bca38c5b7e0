// docs/waiting.md, "Four nodes": the order of what happens, whoever starts first, fails or is killed.
import { describe, expect, test } from 'vitest';
import { ageless } from '../support/console-blocks.ts';
import { DONE, NODES, commandsOf, fourNodes, steps } from '../support/four-nodes.ts';
import type { Place } from '../support/four-nodes.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const permutations = <T>(all: readonly T[]): T[][] =>
  all.length < 2
    ? [[...all]]
    : all.flatMap((one) => permutations(all.filter((other) => other !== one)).map((rest) => [one, ...rest]));

/** Each play takes a second or two of a core. */
const LONG = { timeout: 180_000 };

describe('with real Ansible', () => {
  test('the page, word for word: all at once, then a migration that fails', LONG, async () => {
    const shop = await fourNodes(agent, 'ansible');
    const atOnce = NODES.map((node) => shop.start(node));
    for (const { ended, output } of atOnce) expect(await ended, output()).toBe(0);
    expect(shop.log()).toMatch(DONE);
    shop.break();
    for (const { node, command, status, prints } of steps.filter(({ block }) => block > 0)) {
      const { ended, output } = shop.run(node, command);
      expect({ command, status: await ended, text: output() }).toEqual({ command, status, text: output() });
      for (const line of prints) expect(ageless(output()), command).toContain(ageless(line));
    }
  });

  test(
    'a failed migration stops the applications and the balancer; repaired, all goes on',
    LONG,
    async () => {
      const shop = await fourNodes(agent, 'ansible', 'broken');
      shop.break();
      const started = [...NODES].reverse().map((node) => ({ node, ...shop.start(node, '-v') }));
      const failed = await Promise.race(
        started.map(async (one) => ((await one.ended) === 0 ? new Promise<never>(() => undefined) : one)),
      );
      expect(await failed.ended, failed.output()).toBe(2);
      const others = started.filter(({ node }) => node !== failed.node);
      const other = others.find(({ node }) => node.startsWith('django'));
      await other?.says(/is waiting for a slot of shop\/migration/);
      expect(shop.log()).toBe(`mysql loaded\n${failed.node} migrates\n`);
      expect(await shop.state('db/schema')).toBeUndefined();
      shop.repair();
      expect(await shop.start(failed.node).ended).toBe(0);
      for (const { ended, output } of others) expect(await ended, output()).toBe(0);
      const done = shop.log();
      expect(done.replace(`${failed.node} migrates\n`, '')).toMatch(DONE);
      // Once loaded, it is not loaded again.
      expect(await shop.start('mysql').ended).toBe(0);
      expect(shop.log()).toBe(done);
    },
  );
});

describe('with a stand-in for Ansible', () => {
  test('all at once, in each of the 24 orders: each step comes after those that it needs', async () => {
    const names = permutations(NODES);
    expect(names).toHaveLength(24);
    const next = names.entries();
    const worker = async () => {
      for (const [i, order] of next) {
        const shop = await fourNodes(agent, 'stand-in', `orders/${i}`);
        const all = order.map((node) => shop.start(node));
        for (const { ended, output } of all) expect(await ended, `${order.join()}: ${output()}`).toBe(0);
        expect(shop.log(), order.join()).toMatch(DONE);
      }
    };
    await Promise.all(Array.from({ length: 6 }, worker));
  });

  interface Late {
    readonly late: string;
    /** What was done last before. */
    readonly last: string;
    /** Who waits for which state. */
    readonly waits: Readonly<Record<string, string>>;
  }
  const whileLate: readonly Late[] = [
    { late: 'mysql', last: '', waits: { django1: 'db/loaded=1', django2: 'db/loaded=1' } },
    { late: 'django1', last: 'django2 restart shop', waits: { haproxy: 'app/django1=42' } },
    { late: 'django2', last: 'django1 restart shop', waits: { haproxy: 'app/django2=42' } },
  ];

  test.for(whileLate)('while $late is late, nothing that needs it starts', async ({ late, last, waits }) => {
    const shop = await fourNodes(agent, 'stand-in', `late/${late}`);
    const started = NODES.filter((node) => node !== late).map(
      (node) => [node, shop.start(node, '-v')] as const,
    );
    for (const [node, { says }] of started)
      if (waits[node] !== undefined)
        await says(new RegExp(`waiting until --when is met, [^;]*: state:${waits[node]}: [^;]*\n`));
    expect(shop.log().trimEnd().split('\n').at(-1)).toBe(last);
    await shop.start(late).ended;
    for (const [, { ended, output }] of started) expect(await ended, output()).toBe(0);
    expect(shop.log()).toMatch(DONE);
  });

  const needed: Readonly<Record<string, readonly string[]>> = {
    mysql: [],
    migrate: ['db/loaded=1'],
    app: ['db/schema=42'],
    haproxy: ['app/django1=42', 'app/django2=42'],
  };

  test('each command starts nothing as long as one state that it needs is not set', async () => {
    const shop = await fourNodes(agent, 'stand-in', 'needed');
    const set = Object.values(needed).flat();
    for (const node of NODES) {
      for (const command of commandsOf(node)) {
        const [, playbook = ''] = /(\w+)\.yml$/.exec(command) ?? [];
        for (const missing of needed[playbook] ?? []) {
          const others = set.filter((each) => each !== missing).map((each) => each.replace('=', ' '));
          const [path = ''] = missing.split('=');
          const before = [...others.map((words) => `state set ${words}`), `state delete ${path}`];
          const { ended, output } = shop.run(
            node,
            [
              ...before.map((words) => `runlock ${words} >/dev/null`),
              command.replace('exec', 'exec -w 0'),
            ].join(' && '),
          );
          expect(await ended, `${command}: ${output()}`).toBe(75);
          expect(output()).toContain(`busy: --when is not met: state:${missing}: `);
          expect(output()).not.toContain('; state:');
        }
      }
    }
    expect(shop.log()).toBe('');
  });

  /** Both application nodes are under way, and one of them is in its migration. */
  async function atMigration(prefix: string, place: Place) {
    const shop = await fourNodes(agent, 'stand-in', prefix);
    const held = shop.hold(place);
    const all = new Map(NODES.map((node) => [node as string, shop.start(node, '-v')]));
    const node = await held.reached();
    const other = node === 'django1' ? 'django2' : 'django1';
    await all.get(other)?.says(/is waiting for a slot of shop\/migration/);
    return { shop, all, node, other, go: held.go };
  }

  test.for(['before', 'after'] as const)(
    'a run killed %s the migration publishes nothing; its next run goes on, and it is done once',
    async (place) => {
      const { shop, all, node, other, go } = await atMigration(`killed/${place}`, place);
      all.get(node)?.kill();
      expect(await all.get(node)?.ended).toBe(137);
      expect(await shop.state('db/schema')).toBeUndefined();
      go();
      const again = shop.start(node);
      expect(await again.ended, again.output()).toBe(0);
      for (const one of ['mysql', other, 'haproxy']) expect(await all.get(one)?.ended).toBe(0);
      const lines = shop.log().split(/(?<=\n)/);
      expect(lines.filter((line) => line === `${node} migrates\n`)).toHaveLength(2);
      expect(lines).toHaveLength(7);
      expect([...new Set(lines)].join('')).toMatch(DONE);
    },
  );

  test('a node killed while the other one migrates makes its runs later, and migrates nothing', async () => {
    const { shop, all, node, other, go } = await atMigration('killed/waiting', 'before');
    all.get(other)?.kill();
    expect(await all.get(other)?.ended).toBe(137);
    go();
    expect(await all.get(node)?.ended).toBe(0);
    await all.get('haproxy')?.says(new RegExp(`: state:app/${other}=42: [^;]*\n`));
    const again = shop.start(other);
    expect(await again.ended, again.output()).toBe(0);
    expect(await all.get('haproxy')?.ended).toBe(0);
    expect(shop.log()).toMatch(DONE);
  });

  test('the same runs once more load and migrate nothing', async () => {
    const shop = await fourNodes(agent, 'stand-in', 'again');
    for (let times = 0; times < 2; times += 1) {
      const all = NODES.map((node) => shop.start(node));
      for (const { ended, output } of all) expect(await ended, output()).toBe(0);
    }
    const lines = shop.log().split(/(?<=\n)/);
    expect(lines.slice(0, 6).join('')).toMatch(DONE);
    expect(lines.slice(6).sort()).toEqual(lines.slice(3, 6).sort());
  });
});
