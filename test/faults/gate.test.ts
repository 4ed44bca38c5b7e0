// The health gate around runs, on five nodes with real health checks: seen from outside by a watcher of the test's own.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TestContext } from 'vitest';
import type { Node } from '../support/history/fleet.ts';
import { endsWith, startGated } from '../support/history/gated.ts';
import type { Gated, GatedOptions } from '../support/history/gated.ts';
import { SOON_MS } from '../support/history/steps.ts';
import { eventually } from '../support/processes.ts';
import { spawnRunlock } from '../support/program.ts';
import { STEPS } from '../support/proxy-steps.ts';
import { startProxy } from '../support/proxy.ts';
import { startServices } from '../support/services.ts';
import type { Services } from '../support/services.ts';

const LONG = { timeout: 150_000 };
const ALL = ['web01', 'web02', 'web03', 'web04', 'web05'];

let services: Services;
beforeAll(async () => {
  services = await startServices({ nodes: 5, services: [] });
});
afterAll(() => services[Symbol.asyncDispose]());

const scene = (context: TestContext, name: string, options: GatedOptions = {}) =>
  startGated(services, context, { name, ...options });

describe.concurrent('a rolling run over five nodes with two slots', LONG, () => {
  test.for([1, 2])('never has more than %s offline', async (limit, context) => {
    const rolling = await scene(context, `rolling-${limit}`, {
      ...{ slots: 2, limit, args: ['--maintenance', '--healthy-within', '30s'] },
    });
    const nodes = ALL.map((name) => rolling.start(name));
    const restart = async (node: Node) => {
      await node.running(SOON_MS);
      await rolling.breakDown(node.name, 'stopped');
      node.tell();
      await rolling.answer(node.name, 200);
    };
    await Promise.all(nodes.map(restart));
    await endsWith(0, ...nodes);
    expect(await rolling.watcher.most()).toBeLessThanOrEqual(limit);
    expect(await rolling.watcher.everOffline()).toHaveLength(5);
    for (const name of ALL) await rolling.untilNothingLeft(name);
    expect(await rolling.fleet.verdict()).toMatchObject({ broken: [], judged: { runs: 5 } });
  });
});

describe.concurrent('the gate', LONG, () => {
  test('two peers down: a healthy third waits, and says for whom; a sick one goes ahead', async (context) => {
    const { fleet, watcher, start, answer } = await scene(context, 'two-down', { limit: 2 });
    for (const name of ['web01', 'web02']) await answer(name, 500);
    await watcher.untilOffline('web01', 'web02');
    const third = start('web03', { part: { beats: 2 } });
    await third.says(/web03 is waiting for the gate of two-down: web01 \(.*500.*\), web02 \(.*500/, SOON_MS);
    // It holds no place; the record of the wait is for people.
    expect((await fleet.keys()).filter((key) => !key.startsWith('.outside/'))).toEqual([]);
    const sick = start('web01');
    await sick.running(SOON_MS);
    await answer('web01', 200);
    await watcher.untilOffline('web02');
    sick.tell();
    await endsWith(0, sick, third);
    expect((await fleet.history()).runs.map(({ node }) => node)).toEqual(['web01', 'web03']);
    expect(await fleet.broken()).toEqual([]);
  });

  // It stayed in the queue before, with its place: the sick node behind it, for which the gate was closed, waited for it.
  test('a peer that falls ill while the run is in the queue: that one goes ahead, it joins anew', async (context) => {
    const { fleet, watcher, start, answer } = await scene(context, 'fell-ill', { args: ['--maintenance'] });
    // Offers nothing of the service, so nobody counts it.
    const first = fleet.start('ops01');
    await first.running(SOON_MS);
    const second = start('web02', { part: { beats: 2 } });
    await second.waiting(SOON_MS);
    await answer('web03', 500);
    await watcher.untilOffline('web03');
    const sick = start('web03', { part: { beats: 2 } });
    await second.says(
      /web02 is leaving the queue: the gate has closed .*web03.*web02 rejoins when the gate opens/,
      SOON_MS,
    );
    await sick.waiting(SOON_MS);
    first.tell();
    await endsWith(0, first, sick);
    expect((await fleet.history()).runs.map(({ node }) => node)).toEqual(['ops01', 'web03']);
    await answer('web03', 200);
    await endsWith(0, second);
    expect((await fleet.history()).runs.map(({ node }) => node)).toEqual(['ops01', 'web03', 'web02']);
    expect(await fleet.broken()).toEqual([]);
  });

  test('those in the queue keep their places while a run before them has its node out of service', async (context) => {
    const { fleet, start } = await scene(context, 'places', { args: ['--maintenance'] });
    const first = fleet.start('ops01');
    await first.running(SOON_MS);
    const others: Node[] = [];
    for (const name of ['web02', 'web03', 'web04']) {
      const node = start(name, { part: { beats: 2 } });
      await node.waiting(SOON_MS);
      others.push(node);
    }
    first.tell();
    await endsWith(0, first, ...others);
    for (const node of others) expect(node.stderr()).not.toContain('leaves the queue');
    const order = (await fleet.history()).runs.map(({ node }) => node);
    expect(order).toEqual(['ops01', 'web02', 'web03', 'web04']);
    expect(await fleet.broken()).toEqual([]);
  });

  test('a run that breaks its service, though its command did well, stops the rollout there', async (context) => {
    const args = ['--maintenance', '--healthy-within', '2s'];
    const { name, fleet, watcher, start, answer, breakDown, maintenance } = await scene(context, 'broke', {
      limit: 2,
      args,
    });
    const first = start('web01');
    const { run } = await first.running(SOON_MS);
    await breakDown('web01', 500);
    first.tell();
    await endsWith(80, first);
    expect(first.stderr()).toMatch(/exited 0 .*but web01 did not become healthy in time \(broke: .*500/);
    expect(first.stderr()).toContain('web01 stays in maintenance (its run ended as unhealthy)');
    expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'failed', run });
    expect(await maintenance('web01')).toEqual([`runlock ${run}`]);
    // Its maintenance alone would leave room for one more: the claim keeps them all out.
    const second = start('web02', { args: ['-w', '1s'] });
    await endsWith(75, second);
    expect(second.stderr()).toMatch(
      /no slot available in broke .*web01 failed \d+s ago \(bash, services unhealthy afterwards\)/,
    );
    const status = await spawnRunlock(services.server, ['status', name]).ended;
    expect(status.stdout).toContain('(bash, services unhealthy afterwards)');
    const history = await spawnRunlock(services.server, ['history', name]).ended;
    expect(history.stdout).toMatch(/web01 .* unhealthy +0 /);
    await answer('web01', 200);
    const again = start('web01', { part: { beats: 1 } });
    const next = start('web02', { part: { beats: 1 } });
    await endsWith(0, again, next);
    await watcher.untilOffline();
    expect(await fleet.broken()).toEqual([]);
  });

  test('somebody else’s maintenance stays, before, while and after', async (context) => {
    const foreign = await scene(context, 'foreign', { args: ['--maintenance', '--healthy-within', '10s'] });
    await services.node('web01').maintain(true, { service: 'foreign', reason: 'disk change' });
    context.onTestFinished(() => services.node('web01').maintain(false, { service: 'foreign' }));
    await foreign.watcher.untilOffline('web01');
    const node = foreign.start('web01');
    await node.running(SOON_MS);
    expect(await foreign.maintenance('web01')).toEqual(['disk change']);
    node.tell();
    await endsWith(0, node);
    expect(node.stderr()).toContain('stays in maintenance, not set by runlock ("disk change")');
    expect(await foreign.maintenance('web01')).toEqual(['disk change']);
    expect(await foreign.fleet.broken()).toEqual([]);
  });

  test('in two groups: closed while it waits for the second slot, the first is given back', async (context) => {
    const { name, fleet, watcher, start, answer } = await scene(context, 'groups', {
      args: ['-g', 'groups-rack'],
    });
    const rack = spawnRunlock(services.server, [
      'exec',
      '-g',
      'groups-rack',
      '--release-on-signal',
      '--',
      'sleep',
      '3600',
    ]);
    let isOver = false;
    context.onTestFinished(async () => {
      if (!isOver) rack.signal('SIGKILL');
      await rack.ended;
    });
    const held = (group: string) => services.server.kv.get(`runlock/${group}/.slot/0/owner`);
    await eventually(async () => expect(await held('groups-rack')).toBeDefined(), SOON_MS);
    const second = start('web02', { part: { beats: 2 } });
    await eventually(async () => expect(await held(name)).toBeDefined(), SOON_MS);
    await answer('web03', 500);
    await watcher.untilOffline('web03');
    await second.says(/web02 is leaving the queue: the gate has closed/, SOON_MS);
    await eventually(async () => expect(await held(name)).toBeUndefined(), SOON_MS);
    await answer('web03', 200);
    rack.signal('SIGTERM');
    await rack.ended;
    isOver = true;
    await endsWith(0, second);
    expect(await fleet.broken()).toEqual([]);
  });

  test('closed once it has its slot: given back at once, nothing starts before the peer is well', async (context) => {
    const { fleet, watcher, start, answer } = await scene(context, 'granted', { args: ['--maintenance'] });
    const proxy = await startProxy(services.node('web02').agent);
    context.onTestFinished(() => proxy.close());
    // From its grant until the peer has fallen ill its next look is held back.
    let letGo: () => void = () => undefined;
    const until = new Promise<void>((resolve) => (letGo = resolve));
    let granted = false;
    proxy.rule({
      match: (request) => {
        granted ||= STEPS.grant(request);
        return granted && request.path.startsWith('/v1/health/') && !request.path.includes('index=');
      },
      do: { until },
    });
    const node = start('web02', { agent: proxy, part: { beats: 2 } });
    await eventually(async () => expect(await fleet.claim()).toBeDefined(), SOON_MS);
    await answer('web03', 500);
    await watcher.untilOffline('web03');
    letGo();
    await node.says(/web02 is releasing its slot: the gate has closed .*web03/, SOON_MS);
    await eventually(async () => expect(await fleet.claim()).toBeUndefined(), SOON_MS);
    await answer('web03', 200);
    await endsWith(0, node);
    expect(await fleet.broken()).toEqual([]);
  });
});

describe.concurrent('TERM', LONG, () => {
  const out = { args: ['--maintenance'] };

  /** Nothing was started: neither slot nor maintenance is left. */
  async function told(moment: Gated, node: Node, status = 143): Promise<void> {
    node.send('SIGTERM');
    await endsWith(status, node);
    await moment.untilNothingLeft(node.name);
    expect(await moment.fleet.broken()).toEqual([]);
  }

  /** It was stopped half-way: slot and maintenance stay, others stay out, and the node's next good run ends both. */
  async function stopped(moment: Gated, node: Node): Promise<void> {
    const { run } = (await moment.fleet.claim()) ?? {};
    const next = moment.start('web02', { part: { beats: 1 } });
    await next.says(/web02 is waiting/, SOON_MS);
    node.send('SIGTERM');
    await endsWith(143, node);
    expect(await moment.fleet.claim()).toMatchObject({ node: 'web01', state: 'interrupted', run });
    expect(await services.node('web01').maintenances(moment.name)).toEqual([`runlock ${run ?? ''}`]);
    expect(node.stderr()).toMatch(/web01 still holds slot 0/);
    await moment.answer('web01', 200);
    const again = moment.start('web01', { part: { beats: 1 } });
    await endsWith(0, again, next);
    await moment.untilNothingLeft('web01');
    expect(await moment.fleet.broken()).toEqual([]);
  }

  test('waiting at the gate', async (context) => {
    const moment = await scene(context, 'term-gate', out);
    await moment.answer('web02', 500);
    await moment.watcher.untilOffline('web02');
    const node = moment.start('web01');
    await node.says(/web01 is waiting for the gate/, SOON_MS);
    await told(moment, node);
  });

  test('waiting in the queue', async (context) => {
    const moment = await scene(context, 'term-queue', out);
    const first = moment.fleet.start('ops01');
    await first.running(SOON_MS);
    const node = moment.start('web01');
    await node.waiting(SOON_MS);
    node.send('SIGTERM');
    await endsWith(143, node);
    first.tell();
    await endsWith(0, first);
    await moment.untilNothingLeft('web01');
    expect(await moment.fleet.broken()).toEqual([]);
  });

  test('about to go out of service', async (context) => {
    const moment = await scene(context, 'term-enter', out);
    const { server } = services;
    const asked = { TTL: '60s', Behavior: 'delete', LockDelay: '0s', Checks: [] };
    const { ID } = (await server.http('PUT', '/v1/session/create', asked)).json() as { ID: string };
    await server.kv.put('runlock/.gate/term-enter', '{}', { acquire: ID });
    const node = moment.start('web01');
    await eventually(
      async () => expect(await moment.fleet.claim()).toMatchObject({ node: 'web01' }),
      SOON_MS,
    );
    node.send('SIGTERM');
    await endsWith(143, node);
    await server.http('PUT', `/v1/session/destroy/${ID}`);
    await moment.untilNothingLeft('web01');
    expect(await moment.fleet.broken()).toEqual([]);
  });

  test('out of service, and settling', async (context) => {
    const moment = await scene(context, 'term-settle', { args: ['--maintenance', '--settle', '1h'] });
    const node = moment.start('web01');
    await node.says(/term-settle on web01 is in maintenance/, SOON_MS);
    await told(moment, node);
  });

  test('running', async (context) => {
    const moment = await scene(context, 'term-run', out);
    const node = moment.start('web01');
    await node.running(SOON_MS);
    await stopped(moment, node);
  });

  test('running, with --release-on-signal', async (context) => {
    const moment = await scene(context, 'term-release', { args: ['--maintenance', '--release-on-signal'] });
    const node = moment.start('web01');
    await node.running(SOON_MS);
    moment.fleet.act('let-go', 'web01');
    await told(moment, node);
  });

  test('running, by a command that ends well when it is told: nobody waits for its services', async (context) => {
    const moment = await scene(context, 'term-well', { args: ['--maintenance', '--healthy-within', '1h'] });
    await moment.answer('web01', 500);
    await moment.watcher.untilOffline('web01');
    const folder = mkdtempSync(join(tmpdir(), 'runlock-gate-'));
    context.onTestFinished(() => rmSync(folder, { recursive: true }));
    const command = `trap 'exit 0' TERM; touch ${folder}/started; while :; do sleep 0.1; done`;
    const args = ['exec', '-g', 'term-well', '--service', 'term-well', '--gate-stable', '0', '--maintenance'];
    const more = ['--healthy-within', '1h', '--', 'sh', '-c', command];
    const node = spawnRunlock(services.node('web01').agent, [...args, ...more]);
    await eventually(() => expect(existsSync(`${folder}/started`)).toBe(true), SOON_MS);
    node.signal('SIGTERM');
    expect(await node.ended).toMatchObject({ status: 0 });
    expect(await services.node('web01').maintenances('term-well')).toEqual([]);
    expect(await moment.fleet.claim()).toBeUndefined();
  });

  test('waiting for the health of its services', async (context) => {
    const moment = await scene(context, 'term-health', { args: ['--maintenance', '--healthy-within', '1h'] });
    const node = moment.start('web01');
    await node.running(SOON_MS);
    await moment.breakDown('web01', 500);
    node.tell();
    await node.says(
      /command succeeded; keeping the slot and waiting up to 1h for the services of web01 to become healthy/,
      SOON_MS,
    );
    await stopped(moment, node);
  });
});

describe('the agent', LONG, () => {
  test.for(['graceful', 'kill'] as const)(
    'restarted (%s) while the command runs: its node stays out of service until the end',
    async (how, context) => {
      const args = ['--maintenance', '--healthy-within', '60s'];
      const restarted = await scene(context, `restart-${how}`, { nodes: ['web01', 'web02', 'web03'], args });
      const node = restarted.start('web01');
      const { run } = await node.running(SOON_MS);
      await services.node('web01').agent.restart(how);
      await eventually(
        async () => expect(await restarted.maintenance('web01')).toEqual([`runlock ${run}`]),
        SOON_MS,
      );
      node.tell();
      await endsWith(0, node);
      await restarted.untilNothingLeft('web01');
      await restarted.watcher.untilOffline();
      expect(await restarted.fleet.broken()).toEqual([]);
    },
  );

  test('away when the run ends well: maintenance is ended when it is back', async (context) => {
    const away = await scene(context, 'away', {
      nodes: ['web01', 'web02', 'web03'],
      args: ['--maintenance'],
    });
    // The lock's own way to Consul is well: the node's agent alone is away.
    const { agent } = services.node('web01');
    const { env } = services.server;
    const node = away.start('web01', { agent: { env }, args: ['--agent', agent.address] });
    await node.running(SOON_MS);
    await agent.kill();
    node.tell();
    await eventually(async () =>
      expect((await away.fleet.history()).runs[0]?.processes[0]?.exitCode).toBe(0),
    );
    await agent.restart();
    await endsWith(0, node);
    await away.untilNothingLeft('web01');
    expect(await away.fleet.broken()).toEqual([]);
  });
});
