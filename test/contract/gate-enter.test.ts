// Going out of service behind an open gate: never two at once that see the same open gate. On real agents.
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { enter } from '../../src/gate/enter.ts';
import type { EnterRequest } from '../../src/gate/enter.ts';
import { endModes } from '../../src/gate/maintenance.ts';
import { gateEffects, never } from '../support/gate.ts';
import { eventually } from '../support/processes.ts';
import { readHealth, startServices } from '../support/services.ts';
import type { ServiceNode, Services } from '../support/services.ts';
import { watchService } from '../support/services-watcher.ts';

let services: Services;
beforeAll(async () => {
  services = await startServices({ nodes: 3, services: ['web', 'db'] });
});
afterEach(async () => {
  for (const node of services.nodes) {
    for (const service of ['web', 'db']) await node.maintain(false, { service });
    await node.maintain(false);
  }
  // Marks of who went out by hand stay until they leave; here the maintenance is ended without that.
  await services.server.kv.deleteTree('runlock/.gate/.out/');
  expect(await services.server.kv.keys('runlock/')).toEqual([]);
});
afterAll(() => services[Symbol.asyncDispose]());

/** Open where nobody else is offline. */
const alone = (node: string) => async () => {
  const { instances } = await readHealth(services.server, 'web');
  const offline = instances.filter((one) => one.critical.length > 0 && one.node !== node);
  return offline.length === 0 ? undefined : offline.map((one) => one.node);
};

const request = (node: string, more: Partial<EnterRequest<string[]>> = {}): EnterRequest<string[]> => ({
  ...{ prefix: 'runlock', node, services: ['web'], scope: 'service', run: `run-${node}`, groups: [] },
  ...(more.scope === 'node' && { services: ['web', 'db'] }),
  look: alone(node),
  ...more,
});

const effects = (node: ServiceNode, said?: string[]) => gateEffects(node.agent.env, said);
const web01 = () => services.node('web01');

/** Enters, again and again until the gate is open, stays a moment, and leaves. */
async function takeTurn(node: ServiceNode, scope: 'service' | 'node', order: string[]): Promise<void> {
  const own = effects(node);
  await eventually(async () => {
    const entered = await enter(own, request(node.name, { scope }), never);
    if (entered.kind !== 'entered') throw new Error(JSON.stringify(entered));
    order.push(node.name);
    await endModes(own, entered.taken, { signal: never });
  }, 30_000);
}

test.each(['service', 'node'] as const)(
  'three that enter at once, by %s maintenance, again and again: one offline at most',
  async (scope) => {
    const watcher = watchService(services.server, 'web');
    onTestFinished(() => watcher.stop());
    const order: string[] = [];
    const turns = async (node: ServiceNode) => {
      for (let i = 0; i < 3; i++) await takeTurn(node, scope, order);
    };
    await Promise.all(services.nodes.map(turns));
    expect(order).toHaveLength(9);
    expect(await watcher.most()).toBe(1);
    expect(await watcher.everOffline()).toHaveLength(3);
  },
);

test('the catalogue shows it before the lock goes', async () => {
  const { server } = services;
  let looked = false;
  const watching = (async () => {
    await eventually(async () =>
      expect(await server.kv.keys('runlock/.gate/web')).toEqual(['runlock/.gate/web']),
    );
    await eventually(async () => expect(await server.kv.keys('runlock/.gate/web')).toEqual([]));
    const { instances } = await readHealth(server, 'web');
    expect(instances.find((one) => one.node === 'web01')?.maintenance).toEqual(['runlock run-web01']);
    looked = true;
  })();
  const slow = async () => {
    await eventually(async () => expect(await server.kv.keys('runlock/.gate/web')).not.toEqual([]));
    return undefined;
  };
  expect(await enter(effects(web01()), request('web01', { look: slow }), never)).toMatchObject({
    kind: 'entered',
    taken: [{ how: 'set', service: 'web' }],
  });
  await watching;
  expect(looked).toBe(true);
});

test('closed: nothing is changed', async () => {
  const closed = await enter(
    effects(web01()),
    request('web01', { look: () => Promise.resolve(['web02']) }),
    never,
  );
  expect(closed).toEqual({ kind: 'closed', closed: ['web02'] });
  expect(await web01().maintenances()).toEqual([]);
});

test('the whole node out: a service that nobody has looked at is named, and nothing is changed', async () => {
  const look = () => Promise.reject(new Error('looked all the same'));
  const scoped = { scope: 'node', services: ['web'], look } as const;
  expect(await enter(effects(web01()), request('web01', scoped), never)).toEqual({
    kind: 'more',
    services: ['db'],
  });
  expect(await web01().maintenances()).toEqual([]);
  expect(await services.server.kv.keys('runlock/')).toEqual([]);
});

test('several services are entered together; somebody else’s maintenance of one stays', async () => {
  await web01().maintain(true, { service: 'db', reason: 'by hand' });
  const both = { services: ['web', 'db'], look: () => Promise.resolve(undefined) };
  const entered = await enter(effects(web01()), request('web01', both), never);
  expect(entered.kind === 'entered' && entered.taken.map(({ service, how }) => [service, how])).toEqual([
    ['db', 'foreign'],
    ['web', 'set'],
  ]);
  expect(await web01().maintenances()).toEqual(['by hand', 'runlock run-web01']);
});

test('told to stop while another holds the lock: nothing is left', async () => {
  const { server } = services;
  const made = await server.http('PUT', '/v1/session/create', {
    TTL: '30s',
    Behavior: 'delete',
    LockDelay: '0s',
  });
  const { ID: session } = made.json() as { ID: string };
  await server.kv.put('runlock/.gate/web', '{}', { acquire: session });
  const stop = new AbortController();
  const entering = enter(effects(web01()), request('web01'), stop.signal);
  await untilSessions(2);
  stop.abort(new Error('told to stop'));
  await expect(entering).rejects.toThrow('told to stop');
  expect(await web01().maintenances()).toEqual([]);
  await server.http('PUT', `/v1/session/destroy/${session}`);
  await untilSessions(0);
});

/** Effects whose time for all of it is over when they are told. */
function limited(node: ServiceNode) {
  const own = effects(node);
  let pass: () => void = () => undefined;
  const passed = new Promise<void>((resolve) => (pass = resolve));
  const { clock } = own.deps;
  const sleep: typeof clock.sleep = (ms, options) => (ms === 120_000 ? passed : clock.sleep(ms, options));
  const deps = { ...own.deps, clock: { ...clock, sleep } };
  return { own: { ...own, deps, agent: { consul: own.consul, deps } }, pass: () => pass() };
}

test('the lock kept by another for two minutes: busy, and it is said who keeps it', async () => {
  const { server } = services;
  const made = await server.http('PUT', '/v1/session/create', {
    TTL: '30s',
    Behavior: 'delete',
    LockDelay: '0s',
  });
  const { ID: session } = made.json() as { ID: string };
  await server.kv.put('runlock/.gate/web', '{"v":1,"run":"r9"}', { acquire: session });
  const { own, pass } = limited(web01());
  const waited = { isSeen: false };
  const get: typeof own.consul.get = (key, options) => {
    waited.isSeen ||= options.index !== undefined;
    return own.consul.get(key, options);
  };
  const entering = enter({ ...own, consul: { ...own.consul, get } }, request('web01'), never);
  const ended = expect(entering).rejects.toMatchObject({
    code: 'busy',
    message:
      'web01 did not go out of service: run r9 held the lock of the gate, runlock/.gate/web, for 120s; check that run, or try again',
  });
  await eventually(() => expect(waited.isSeen).toBe(true));
  pass();
  await ended;
  await server.http('PUT', `/v1/session/destroy/${session}`);
  await untilSessions(0);
  expect(await web01().maintenances()).toEqual([]);
});

test('too slow in all: unreachable, nothing is left', async () => {
  const { own, pass } = limited(web01());
  const look = (signal: AbortSignal) =>
    new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
      pass();
    });
  await expect(enter(own, request('web01', { look }), never)).rejects.toMatchObject({
    code: 'unreachable',
    message: expect.stringMatching(
      /^web01 did not go out of service within 120s: .*did not answer in time$/,
    ) as string,
  });
  await untilSessions(0);
  expect(await services.server.kv.keys('runlock/')).toEqual([]);
});

test('told to stop when it is out already: back in service, what was there before stays', async () => {
  await web01().maintain(true, { service: 'db', reason: 'runlock earlier' });
  const stop = new AbortController();
  const real = effects(web01());
  const consul: typeof real.consul = {
    ...real.consul,
    health: async () => {
      expect(await web01().maintenances()).toEqual(['runlock earlier', 'runlock run-web01']);
      stop.abort(new Error('told to stop'));
      throw stop.signal.reason;
    },
  };
  const both = { services: ['web', 'db'], look: () => Promise.resolve(undefined) };
  await expect(enter({ ...real, consul }, request('web01', both), stop.signal)).rejects.toThrow(
    'told to stop',
  );
  expect(await web01().maintenances()).toEqual(['runlock earlier']);
});

test('the lock lost in between: out again, and entered anew', async () => {
  const { server } = services;
  let looks = 0;
  const look = async () => {
    looks += 1;
    if (looks > 1) return undefined;
    const lock = await server.kv.get('runlock/.gate/web');
    await server.http('PUT', `/v1/session/destroy/${lock?.Session ?? ''}`);
    return undefined;
  };
  const entered = await enter(effects(web01()), request('web01', { look }), never);
  expect(entered).toMatchObject({ kind: 'entered', taken: [{ how: 'set' }] });
  expect(looks).toBe(2);
});

async function untilSessions(count: number): Promise<void> {
  await eventually(async () => {
    const sessions = (await services.server.http('GET', '/v1/session/list')).json() as { Name: string }[];
    expect(sessions).toHaveLength(count);
  });
}

test('stopped between look and change until others may have entered: looks again first', async () => {
  const own = effects(web01());
  let passedMs = 0;
  let asked = 0;
  let looks = 0;
  const monotonicMs = () => own.deps.clock.monotonicMs() + passedMs;
  const deps = { ...own.deps, clock: { ...own.deps.clock, monotonicMs } };
  const agentServices: typeof own.consul.agentServices = (options) => {
    // The second time it is asked right before the change.
    if (++asked === 2) passedMs = 10_000;
    return own.consul.agentServices(options);
  };
  const changes: number[] = [];
  const serviceMaintenance: typeof own.consul.serviceMaintenance = (...change) => {
    changes.push(looks);
    return own.consul.serviceMaintenance(...change);
  };
  const consul = { ...own.consul, agentServices, serviceMaintenance };
  const look = () => {
    looks++;
    return alone('web01')();
  };
  const agent = { consul, deps };
  const entered = await enter({ consul: own.consul, deps, agent }, request('web01', { look }), never);
  expect(entered.kind).toBe('entered');
  expect(changes).toEqual([2]);
});

test('its agent silent between look and change until others may have entered: looks again first', async () => {
  const own = effects(web01());
  let asked = 0;
  let looks = 0;
  let reads = 0;
  // Most of the time is over when the answer comes that the lock was held when that was asked.
  const monotonicMs = () => own.deps.clock.monotonicMs() + (looks > 0 && ++reads > 2 ? 9_800 : 0);
  const deps = { ...own.deps, clock: { ...own.deps.clock, monotonicMs } };
  const agentServices: typeof own.consul.agentServices = (options) => {
    // The second time it is asked right before the change.
    if (++asked !== 2) return own.consul.agentServices(options);
    return new Promise((_, reject) => {
      options.signal.addEventListener('abort', () => reject(options.signal.reason as Error));
    });
  };
  const consul = { ...own.consul, agentServices };
  const look = () => {
    looks++;
    return alone('web01')();
  };
  const agent = { consul, deps };
  const entered = await enter({ consul: own.consul, deps, agent }, request('web01', { look }), never);
  expect(entered).toMatchObject({ kind: 'entered', taken: [{ how: 'set' }] });
  expect(looks).toBe(2);
});

test('its agent away for half a minute: it is told so, and neither lock nor session is left', async () => {
  const { consul, deps } = effects(web01());
  // Half a minute of it is a second and a half.
  const clock = { ...deps.clock, monotonicMs: () => deps.clock.monotonicMs() * 20 };
  const away = connect(consulSettings({ CONSUL_HTTP_ADDR: '127.0.0.1:1' }), { clock, emit: deps.emit });
  onTestFinished(() => away.close());
  const entering = enter({ consul, deps, agent: { consul: away, deps } }, request('web01'), never);
  await expect(entering).rejects.toMatchObject({ code: 'unreachable' });
  await untilSessions(0);
});
