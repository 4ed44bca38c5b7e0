// Taking a node out of service at its own agent, and putting it back: on real agents.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { endModes, endModesAtLast, modesOf, takeOut } from '../../src/gate/maintenance.ts';
import type { Out } from '../../src/gate/maintenance.ts';
import { createToken } from '../support/consul-api.ts';
import { gateEffects, never } from '../support/gate.ts';
import { startServices } from '../support/services.ts';
import type { ServiceNode, Services } from '../support/services.ts';

let services: Services;
let web01: ServiceNode;
beforeAll(async () => {
  services = await startServices({ nodes: 1, services: ['web', 'db'], acl: true });
  web01 = services.node('web01');
});
afterEach(async () => {
  for (const service of ['web', 'db']) await web01.maintain(false, { service });
  await web01.maintain(false);
});
afterAll(() => services[Symbol.asyncDispose]());

const limits = { signal: never };
const agent = () => gateEffects(web01.agent.env);
const out = (more: Partial<Out> = {}): Out => ({ services: ['web'], scope: 'service', run: 'r1', ...more });
const web = { scope: 'service', service: 'web', serviceId: 'web-1' };

test('on names the run and takes out the named service alone; off ends it', async () => {
  const taken = await takeOut(agent(), out(), limits);
  expect(taken).toEqual([{ ...web, reason: 'runlock r1', run: 'r1', how: 'set' }]);
  expect(await web01.maintenances()).toEqual(['runlock r1']);
  expect(await endModes(agent(), taken, limits)).toHaveLength(1);
  expect(await web01.maintenances()).toEqual([]);
});

test('node scope takes out the whole node', async () => {
  const taken = await takeOut(agent(), out({ scope: 'node' }), limits);
  expect(taken).toEqual([
    { scope: 'node', service: '', serviceId: '', reason: 'runlock r1', run: 'r1', how: 'set' },
  ]);
  await endModes(agent(), taken, limits);
  expect(await web01.maintenances()).toEqual([]);
});

test('twice on and twice off is as once', async () => {
  await takeOut(agent(), out(), limits);
  const again = await takeOut(agent(), out(), limits);
  expect(again).toMatchObject([{ run: 'r1', how: 'adopted' }]);
  await endModes(agent(), again, limits);
  expect(await endModes(agent(), again, limits)).toEqual([]);
  expect(await web01.maintenances()).toEqual([]);
});

test('an earlier run’s is adopted as it stands, and can be ended', async () => {
  await takeOut(agent(), out({ run: 'earlier' }), limits);
  const taken = await takeOut(agent(), out({ run: 'r2' }), limits);
  expect(taken).toMatchObject([{ run: 'earlier', how: 'adopted' }]);
  expect(await web01.maintenances()).toEqual(['runlock earlier']);
  await endModes(agent(), taken, limits);
  expect(await web01.maintenances()).toEqual([]);
});

test.each(['by hand', 'runlock', 'runlock r1 and more', ''])(
  'somebody else’s (reason %j) is neither replaced nor ended',
  async (reason) => {
    await web01.maintain(true, { service: 'web', reason });
    const [stood] = await web01.maintenances();
    const taken = await takeOut(agent(), out({ services: ['web', 'db'] }), limits);
    expect(taken.map(({ service, how }) => [service, how]).sort()).toEqual([
      ['db', 'set'],
      ['web', 'foreign'],
    ]);
    expect(await endModes(agent(), taken, limits)).toMatchObject([{ service: 'db' }]);
    expect(await web01.maintenances()).toEqual([stood]);
  },
);

test('what somebody set in the place of the run’s own is not ended', async () => {
  const taken = await takeOut(agent(), out(), limits);
  await web01.maintain(false, { service: 'web' });
  await web01.maintain(true, { service: 'web', reason: 'by hand' });
  expect(await endModes(agent(), taken, limits)).toEqual([]);
  expect(await web01.maintenances()).toEqual(['by hand']);
});

test('a service that the agent does not offer is none to take out', async () => {
  expect(await takeOut(agent(), out({ services: ['mail'] }), limits)).toEqual([]);
});

test('the agent restarted in between: it is still on, and is ended', async () => {
  const taken = await takeOut(agent(), out(), limits);
  await web01.agent.restart();
  expect(await modesOf(agent(), ['web'], limits)).toMatchObject([{ run: 'r1' }]);
  expect(await endModesAtLast(agent(), taken)).toEqual({ stays: [], why: '' });
  expect(await web01.maintenances()).toEqual([]);
});

test('the agent down at the end: tried again until it is back', async () => {
  const taken = await takeOut(agent(), out(), limits);
  await web01.agent.kill();
  const ended = endModesAtLast(agent(), taken);
  await web01.agent.restart();
  expect(await ended).toEqual({ stays: [], why: '' });
  expect(await web01.maintenances()).toEqual([]);
});

test('the agent down for good: what stays is said, with why', async () => {
  const taken = await takeOut(agent(), out(), limits);
  await web01.agent.kill();
  const ended = await endModesAtLast(agent(), taken, 500);
  expect(ended).toMatchObject({ stays: [{ service: 'web', run: 'r1' }] });
  expect(ended.why).toContain('unreachable');
  await web01.agent.restart();
});

test('without the right it is refused, and the rule is named', async () => {
  const token = await createToken(services.server.http, 'service "web" { policy = "read" }');
  const weak = gateEffects({ ...web01.agent.env, CONSUL_HTTP_TOKEN: token });
  await expect(takeOut(weak, out(), limits)).rejects.toMatchObject({
    code: 'forbidden',
    message: expect.stringContaining('service "web" { policy = "write" }') as string,
  });
  await expect(takeOut(weak, out({ scope: 'node' }), limits)).rejects.toMatchObject({
    code: 'forbidden',
    message: expect.stringContaining('node "NODE" { policy = "write" }') as string,
  });
});
