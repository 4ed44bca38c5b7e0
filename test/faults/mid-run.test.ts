// Hands and faults that reach into a group's keys while a run is under way and others wait behind it.
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { gapMs, grants, servedBehind, startScene, survivors, IN_ORDER } from '../support/history/behind.ts';
import type { Scene } from '../support/history/behind.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Claim, Fleet } from '../support/history/fleet.ts';
import { HOLDS, untilDead } from '../support/history/steps.ts';
import { eventually } from '../support/processes.ts';
import { spawnRunlock } from '../support/program.ts';

const agent = useAgent({ acl: true });

const base = ({ group }: Fleet) => `runlock/${group}`;
const owner = (fleet: Fleet) => `${base(fleet)}/.slot/0/owner`;
const lock = (fleet: Fleet) => `${base(fleet)}/.slot/0/lock`;

/** One fault at a time happens to a fleet, so each has a group of its own. */
let count = 0;
const fleetOf = (hold: string) => startFleet(agent, { group: `mid-${count++}`, hold });

const destroy = (session: string | undefined) => agent.http('PUT', `/v1/session/destroy/${session ?? ''}`);

const release = (fleet: Fleet, node: string, ...more: string[]) =>
  spawnRunlock(agent, ['release', fleet.group, '--owner', node, ...more]).ended;

/** Lock and claim are the run's again, while nobody else was served. */
async function takesItBack(fleet: Fleet, { run, trace }: Scene): Promise<void> {
  await run.says(/reacquired the lock of .*; the run continues/, 30_000);
  await eventually(async () => expect(await fleet.lockedBy()).toBeDefined(), 30_000);
  expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'running', run: trace.run });
  expect(await grants(fleet)).toEqual(['web01']);
}

/** The run ends as if nothing had happened, then the others have their turn, and nothing is left. */
async function endsWell(fleet: Fleet, scene: Scene): Promise<string[]> {
  scene.run.tell();
  expect((await scene.run.ended).status).toBe(0);
  const order = await servedBehind(fleet, scene);
  const records = order.map((node) => `.runs/${node}`).sort();
  expect(await fleet.keys()).toEqual(['.last', ...records, '.tail']);
  return order;
}

/** The claim of a node that never ran here, written by hand. */
async function overwriteClaim(fleet: Fleet): Promise<void> {
  const claim = JSON.parse((await agent.kv.get(owner(fleet)))?.Value ?? '{}') as Claim;
  fleet.act('by-hand');
  await agent.kv.put(owner(fleet), JSON.stringify({ ...claim, node: 'web99', run: 'another' }));
}

/** A token of the run's own, and how to revoke it. */
async function ownToken(): Promise<{ env: { CONSUL_HTTP_TOKEN: string }; revoke: () => Promise<unknown> }> {
  const rules = 'session_prefix "" { policy = "write" } key_prefix "runlock/" { policy = "write" }';
  const token = await agent.token(rules);
  const self = await agent.http('GET', '/v1/acl/token/self', undefined, { token });
  const { AccessorID } = self.json() as { AccessorID: string };
  return {
    env: { CONSUL_HTTP_TOKEN: token },
    revoke: () => agent.http('DELETE', `/v1/acl/token/${AccessorID}`),
  };
}

describe.concurrent('its token revoked', () => {
  test.for(['none', '5s'])(
    'hold %s: the whole tree is dead before the next is served, and the run ends with 79',
    { timeout: 180_000 },
    async (hold) => {
      await using fleet = fleetOf(hold);
      const { env, revoke } = await ownToken();
      const scene = await startScene(fleet, { run: { env, part: { deaf: true, grandchild: true } } });
      await revoke();
      await scene.run.says(/does not know the token.*; the run continues/, 30_000);
      const { status, stderr } = await scene.run.ended;
      expect(status, stderr).toBe(79);
      expect(survivors(scene)).toEqual([]);
      expect(await servedBehind(fleet, scene)).toEqual(IN_ORDER);
      expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
    },
  );

  test(
    'hold forever: the run goes on to its end, and nobody follows before an operator clears it',
    { timeout: 180_000 },
    async () => {
      await using fleet = fleetOf('forever');
      const { env, revoke } = await ownToken();
      const scene = await startScene(fleet, { run: { env } });
      await revoke();
      await scene.run.says(/does not know the token.*; the run continues/, 30_000);
      expect(survivors(scene)).toHaveLength(1);
      scene.run.tell();
      const { status, stderr } = await scene.run.ended;
      expect(status).toBe(0);
      expect(stderr).toContain(`the slot stays blocked by ${owner(fleet)}`);
      expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'running' });
      await eventually(async () => expect(await fleet.lockedBy()).toBeUndefined(), 60_000);
      expect(await grants(fleet)).toEqual(['web01']);
      fleet.act('clear', 'web01');
      expect(await release(fleet, 'web01', '--force')).toMatchObject({ status: 0 });
      expect(await servedBehind(fleet, scene)).toEqual(IN_ORDER);
      expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
    },
  );
});

describe.concurrent("its claim overwritten by hand with another node's", () => {
  test.for([
    ['none', 59_000],
    ['5s', 69_000],
  ] as const)(
    'hold %s: the command is killed, 79; the next follows after 60 s and that claim’s hold',
    { timeout: 180_000 },
    async ([hold, leastMs]) => {
      await using fleet = fleetOf(hold);
      const scene = await startScene(fleet);
      await overwriteClaim(fleet);
      await saysItWasLost(scene);
      expect(await fleet.claim()).toMatchObject({ node: 'web99', run: 'another' });
      expect(await servedBehind(fleet, scene)).toEqual(IN_ORDER);
      expect(await gapMs(fleet, 'web01', 'web02')).toBeGreaterThan(leastMs);
      expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
    },
  );

  test(
    'hold forever: the command is killed, 79, and nobody follows before an operator clears that',
    { timeout: 180_000 },
    async () => {
      await using fleet = fleetOf('forever');
      const scene = await startScene(fleet);
      await overwriteClaim(fleet);
      await saysItWasLost(scene);
      await eventually(
        async () => expect(await fleet.claim()).toMatchObject({ node: 'web99', state: 'abandoned' }),
        120_000,
      );
      expect(await grants(fleet)).toEqual(['web01']);
      // A mark is no look at the node: it once was enough to clear the claim without a word.
      expect(await release(fleet, 'web99')).toMatchObject({ status: 75 });
      expect(await release(fleet, 'web99', '--force')).toMatchObject({ status: 0 });
      expect(await servedBehind(fleet, scene)).toEqual(IN_ORDER);
      expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
    },
  );

  async function saysItWasLost(scene: Scene): Promise<void> {
    const { status, stderr } = await scene.run.ended;
    expect(status, stderr).toBe(79);
    expect(stderr).toMatch(
      /^runlock: lost the lock of .* \(its claim names web99 .*\); killed the command; .*\n$/,
    );
    expect(survivors(scene)).toEqual([]);
  }
});

test.concurrent(
  'leftovers of a failed run that ignore TERM get all of --kill-after',
  { timeout: 180_000 },
  async () => {
    await using fleet = fleetOf('forever');
    const part = { grandchild: true, deaf: true, beats: 20, exitCode: 3 };
    const run = fleet.start('web01', { part, args: ['--kill-after', '33s'] });
    await run.running();
    expect((await run.ended).status).toBe(3);
    const [trace] = (await fleet.history()).runs;
    const lastOf = (name: string) => trace?.processes.find(({ role }) => role === name)?.lastMs ?? NaN;
    expect(lastOf('grandchild') - lastOf('command')).toBeGreaterThan(32_000);
    expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'failed' });
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 1 } });
  },
);

test.concurrent(
  'hold none with the least time that is allowed: a good run is not taken for cut off',
  { timeout: 180_000 },
  async () => {
    await using fleet = fleetOf('none');
    const args = ['--kill-after', '46300ms'];
    expect(await fleet.run('web01', { args, part: { beats: 250 } })).toMatchObject({ status: 0, stderr: '' });
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 1 } });
  },
);

describe.concurrent.each(HOLDS)('hold %s', { timeout: 120_000 }, (hold) => {
  test('its session destroyed: it takes its lock back, and those behind it are served after it', async () => {
    await using fleet = fleetOf(hold);
    const scene = await startScene(fleet);
    await destroy(await fleet.lockedBy());
    await takesItBack(fleet, scene);
    expect(await endsWell(fleet, scene)).toEqual(IN_ORDER);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
  });

  test('its lock key deleted: it takes its lock back, and those behind it are served after it', async () => {
    await using fleet = fleetOf(hold);
    const scene = await startScene(fleet);
    fleet.act('by-hand', 'web01');
    await agent.kv.delete(lock(fleet));
    await takesItBack(fleet, scene);
    expect(await endsWell(fleet, scene)).toEqual(IN_ORDER);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
  });

  test('its lock key overwritten: its session holds it, and those behind it are served after it', async () => {
    await using fleet = fleetOf(hold);
    const scene = await startScene(fleet);
    const session = await fleet.lockedBy();
    fleet.act('by-hand', 'web01');
    await agent.kv.put(lock(fleet), 'rubbish');
    expect(await fleet.lockedBy()).toBe(session);
    expect(await endsWell(fleet, scene)).toEqual(IN_ORDER);
    expect(scene.run.stderr()).toBe('');
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
  });

  test('its lock key taken by a session of somebody else: it has its lock again after that', async () => {
    await using fleet = fleetOf(hold);
    const scene = await startScene(fleet);
    const created = await agent.http('PUT', '/v1/session/create', { Name: 'somebody', LockDelay: '0s' });
    const { ID } = created.json() as { ID: string };
    fleet.act('by-hand', 'web01');
    await agent.kv.txn([
      { KV: { Verb: 'delete', Key: lock(fleet) } },
      { KV: { Verb: 'lock', Key: lock(fleet), Value: '', Session: ID } },
    ]);
    expect(await fleet.lockedBy()).toBe(ID);
    await destroy(ID);
    await takesItBack(fleet, scene);
    expect(await endsWell(fleet, scene)).toEqual(IN_ORDER);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
  });

  test('its claim deleted: it claims its slot again, and those behind it are served after it', async () => {
    await using fleet = fleetOf(hold);
    const scene = await startScene(fleet);
    fleet.act('by-hand', 'web01');
    await agent.kv.delete(owner(fleet));
    await takesItBack(fleet, scene);
    expect(await endsWell(fleet, scene)).toEqual(IN_ORDER);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
  });

  test('the whole prefix deleted: it claims its slot again, those behind it join anew', async () => {
    await using fleet = fleetOf(hold);
    const scene = await startScene(fleet);
    fleet.act('by-hand');
    await agent.kv.deleteTree(`${base(fleet)}/`);
    await takesItBack(fleet, scene);
    const [first, ...rest] = await endsWell(fleet, scene);
    expect(first).toBe('web01');
    expect(rest.sort()).toEqual(['web02', 'web03']);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
  });

  test('its claim overwritten with rubbish: it is killed, 79, and those behind it say so and leave', async () => {
    await using fleet = fleetOf(hold);
    const scene = await startScene(fleet);
    fleet.act('by-hand');
    await agent.kv.put(owner(fleet), 'rubbish');
    const { status, stderr } = await scene.run.ended;
    expect(status).toBe(79);
    expect(stderr).toContain('(its claim was overwritten); killed the command');
    expect(survivors(scene)).toEqual([]);
    for (const { ended } of scene.behind) {
      const next = await ended;
      expect(next.status).toBe(78);
      expect(next.stderr).toContain(`${owner(fleet)}: not a claim that runlock wrote`);
    }
    expect((await agent.kv.get(owner(fleet)))?.Value).toBe('rubbish');
    expect(await grants(fleet)).toEqual(['web01']);
    await agent.kv.delete(owner(fleet));
    expect(await fleet.run('web02')).toMatchObject({ status: 0 });
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 2 } });
  });

  test('evicted by an operator: the command is killed first, 79, and only then the next is served', async () => {
    await using fleet = fleetOf(hold);
    const scene = await startScene(fleet);
    fleet.act('evict', 'web01');
    expect(await release(fleet, 'web01', '--force')).toMatchObject({
      status: 0,
      stdout: `evicted web01 from slot 0 of ${fleet.group}; its command has ended\n`,
    });
    await untilDead(scene.trace, 100);
    expect((await scene.run.ended).status).toBe(79);
    expect(await servedBehind(fleet, scene)).toEqual(IN_ORDER);
    expect(await fleet.keys()).toEqual(['.last', ...IN_ORDER.map((node) => `.runs/${node}`), '.tail']);
    expect(await fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 3 } });
  });
});
