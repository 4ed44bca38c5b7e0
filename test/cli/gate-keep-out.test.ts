// A node out of service stays so while its command runs, also when the command registers its services anew.
import { writeFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { succeeded } from '../support/consul-api.ts';
import { useAgent } from '../support/use-agent.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { STEPS } from '../support/proxy-steps.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent({ name: 'web01' });
const put = async (path: string, body?: object) =>
  succeeded(await agent.http('PUT', `/v1/${path}`, body), path);
const register = (id: string, query = '') =>
  put(`agent/service/register${query}`, { Name: 'web', ID: id, Check: { TTL: '600s', Status: 'passing' } });
const deregister = (id: string) => put(`agent/service/deregister/${id}`);

afterEach(async () => {
  for (const id of Object.keys((await agent.http('GET', '/v1/agent/services')).json() as object))
    await deregister(id);
  await put('agent/maintenance?enable=false');
  await agent.http('PUT', '/v1/catalog/deregister', { Node: 'web02' });
  await agent.kv.deleteTree('runlock/');
});

async function maintenances(): Promise<string[]> {
  const checks = succeeded(await agent.http('GET', '/v1/agent/checks'), 'checks').json() as object;
  return Object.keys(checks).filter((id) => id.startsWith('_'));
}

/** A run whose node is out of service, until it is told to end with this code. */
async function out(code = 0, more: readonly string[] = []) {
  const { folder, lines } = stage();
  const script = `echo ran >${folder}/ran; until [ -e ${folder}/end ]; do sleep 0.05; done; exit ${code}`;
  const gate = ['--service', 'web', '--maintenance', '--gate-stable', '0', '-w', '0', ...more];
  const run = startRunlock(agent, ['exec', '-g', 'prod/web', ...gate, '--', 'sh', '-c', script]);
  await eventually(() => expect(lines('ran')).toHaveLength(1));
  return {
    run,
    end: () => {
      writeFileSync(`${folder}/end`, '');
      return run.ended;
    },
  };
}
const WEB = ['_service_maintenance:web-1'];
const AGAIN = /^runlock: web on web01 was re-registered during the run; put it back into maintenance$/m;

// It was in service under the running command, and nobody heard of it.
test.each([
  ['the same', 'web-1'],
  ['another', 'web-2'],
])('registered anew under %s id, an instance is out of service until the run is good', async (_, id) => {
  await register('web-1');
  const { run, end } = await out();
  expect(await maintenances()).toEqual(WEB);
  await deregister('web-1');
  await register(id);
  await run.says(AGAIN, 30_000);
  expect(await maintenances()).toEqual([`_service_maintenance:${id}`]);
  const { status, stderr } = await end();
  expect(status).toBe(0);
  expect(stderr.match(new RegExp(AGAIN, 'gm'))).toHaveLength(1);
  expect(await maintenances()).toEqual([]);
  expect(await agent.kv.keys('runlock/.gate/')).toEqual([]);
});

test('one that is out again stays out after a failed run', async () => {
  await register('web-1');
  const { run, end } = await out(3);
  await deregister('web-1');
  await register('web-1');
  await run.says(AGAIN, 30_000);
  expect((await end()).status).toBe(3);
  expect(await maintenances()).toEqual(WEB);
});

// The first try had gone back into service for its condition, and nobody looked after the second one.
test('a run that went back to wait for its condition keeps its node out once it starts', async () => {
  const set = (value: string) => runlock(agent, ['state', 'set', 'keep-out/a', value]);
  await set('1');
  await register('web-1');
  await using proxy = await startProxy(agent);
  // With its slot, and out of service: then the condition turns false.
  const changed = proxy.seen(STEPS['maintenance on']).then(() => set('2'));
  proxy.rule({ match: STEPS['maintenance on'], times: 1, do: { until: changed } });
  const { folder, lines } = stage();
  const script = `echo ran >${folder}/ran; until [ -e ${folder}/end ]; do sleep 0.05; done`;
  const gate = ['--service', 'web', '--maintenance', '--gate-stable', '0'];
  const words = ['exec', '-v', '-g', 'prod/web', ...gate, '--when', 'state:keep-out/a=1'];
  const run = startRunlock(proxy, [...words, '--', 'sh', '-c', script]);
  await run.says(/released the slot of prod\/web/);
  await set('1');
  await eventually(() => expect(lines('ran')).toHaveLength(1), 30_000);
  expect(await maintenances()).toEqual(WEB);
  await deregister('web-1');
  await register('web-1');
  await run.says(AGAIN, 30_000);
  expect(await maintenances()).toEqual(WEB);
  writeFileSync(`${folder}/end`, '');
  expect((await run.ended).status).toBe(0);
  expect(await maintenances()).toEqual([]);
});

test('what somebody has put back is said once, and stays in service', async () => {
  await register('web-1');
  const { run, end } = await out();
  await put('agent/service/maintenance/web-1?enable=false');
  await run.says(/^runlock: web on web01 is back in service during the run: someone ended/m, 30_000);
  expect(await maintenances()).toEqual([]);
  const { status, stderr } = await end();
  expect(status).toBe(0);
  expect(stderr.trim().split('\n')).toHaveLength(1);
});

test('registered anew while a peer has fallen ill, it stays in service until that one is well', async () => {
  const peer = (status: string) =>
    put('catalog/register', {
      ...{ Node: 'web02', Address: '127.0.0.1', Service: { ID: 'web-1', Service: 'web' } },
      Check: { Node: 'web02', CheckID: 'up', Name: 'up', Status: status, ServiceID: 'web-1' },
    });
  await peer('passing');
  await register('web-1');
  const { run, end } = await out();
  await peer('critical');
  await deregister('web-1');
  await register('web-1');
  await run.says(/re-registered during the run and stays in service: its gate has closed/, 30_000);
  expect(await maintenances()).toEqual([]);
  await peer('passing');
  await run.says(AGAIN, 60_000);
  expect(await maintenances()).toEqual(WEB);
  expect((await end()).status).toBe(0);
  expect(await maintenances()).toEqual([]);
});
