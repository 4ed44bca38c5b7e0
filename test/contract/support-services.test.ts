// Tests of the gate rest on nodes that offer services: what test/support/services promises is tested here.
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { startServices } from '../support/services.ts';
import type { Health, Services } from '../support/services.ts';
import { watchService } from '../support/services-watcher.ts';
import type { Watcher } from '../support/services-watcher.ts';

let services: Services;
beforeAll(async () => {
  services = await startServices({ nodes: 3 });
});
afterAll(() => services[Symbol.asyncDispose]());

function watch(): Watcher {
  const watcher = watchService(services.server, 'web');
  onTestFinished(() => watcher.stop());
  return watcher;
}

test.each<Health>([500, 'hang', 'stopped'])(
  'a server that answers with %s takes its instance offline, and 200 brings it back',
  async (health) => {
    const watcher = watch();
    await watcher.untilOffline();
    await services.node('web02').instance('web').answer(health);
    await watcher.untilOffline('web02');
    await services.node('web02').instance('web').answer(200);
    await watcher.untilOffline();
    expect(await watcher.most()).toBe(1);
    expect(await watcher.everOffline()).toEqual(['web02']);
    const [, down] = await watcher.looks();
    expect(down).toMatchObject({
      total: 3,
      offline: [{ node: 'web02', critical: ['service:web-1'], maintenance: [] }],
    });
  },
);

test('maintenance of a service or a node outlasts a restart of the agent, however it ends', async () => {
  const watcher = watch();
  const web01 = services.node('web01');
  await web01.maintain(true, { service: 'web', reason: 'one' });
  await services.node('web03').maintain(true, { reason: 'two' });
  await watcher.untilOffline('web01', 'web03');
  for (const how of ['graceful', 'kill'] as const) {
    await web01.agent.restart(how);
    expect(await web01.maintenances()).toEqual(['one']);
    await watcher.untilOffline('web01', 'web03');
  }
  const seen = (await watcher.looks()).at(-1);
  expect(seen?.offline.map(({ maintenance }) => maintenance)).toEqual([['one'], ['two']]);
  await web01.maintain(false, { service: 'web' });
  await services.node('web03').maintain(false);
  await watcher.untilOffline();
  expect(await web01.maintenances()).toEqual([]);
});
