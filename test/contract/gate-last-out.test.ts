// The last of a node's runs that needs its maintenance ends it: whoever leaves or goes out at the same moment, on a real agent.
import { afterEach, beforeAll, expect, test } from 'vitest';
import { enter } from '../../src/gate/enter.ts';
import type { EnterRequest } from '../../src/gate/enter.ts';
import { exitAtLast } from '../../src/gate/exit.ts';
import type { Exit } from '../../src/gate/exit.ts';
import { useAgent } from '../support/use-agent.ts';
import { succeeded } from '../support/consul-api.ts';
import { gateEffects, never } from '../support/gate.ts';
import { eventually } from '../support/processes.ts';

const agent = useAgent({ name: 'web01' });
beforeAll(async () => {
  for (const name of ['web', 'db']) {
    const service = { Name: name, ID: `${name}-1`, Check: { TTL: '600s', Status: 'passing' } };
    succeeded(await agent.http('PUT', '/v1/agent/service/register', service), 'registering');
  }
});
afterEach(async () => {
  for (const name of ['web', 'db'])
    succeeded(await agent.http('PUT', `/v1/agent/service/maintenance/${name}-1?enable=false`), 'maintenance');
  await agent.kv.deleteTree('');
});

const effects = () => gateEffects(agent.env);
const request = (run: string, more: Partial<EnterRequest<string>> = {}): EnterRequest<string> => ({
  ...{ prefix: 'runlock', node: 'web01', services: ['web'], scope: 'service', run, groups: [`prod/${run}`] },
  look: () => Promise.resolve(undefined),
  ...more,
});
const exit = (run: string, how: Exit['how'] = 'good'): Exit => ({
  ...{ prefix: 'runlock', node: 'web01', run, services: ['web'], how },
  mark: { services: ['web'], groups: [`prod/${run}`] },
});

/** The run's claim in the group of its name. */
async function claim(run: string, more: object = {}): Promise<void> {
  const runner = { pid: 1, startTime: '1', bootId: 'b' };
  const value = {
    v: 1,
    node: 'web01',
    state: 'running',
    run,
    since: new Date().toISOString(),
    command: 'true',
  };
  const text = JSON.stringify({ ...value, hold: 'forever', ...runner, ...more });
  await agent.kv.put(`runlock/prod/${run}/.slot/0/owner`, text);
}

async function goesOut(run: string, more: Partial<EnterRequest<string>> = {}): Promise<void> {
  await claim(run);
  expect(await enter(effects(), request(run, more), never)).toMatchObject({ kind: 'entered' });
}

async function reasons(): Promise<string[]> {
  const checks = succeeded(await agent.http('GET', '/v1/agent/checks'), 'checks').json() as object;
  const all = Object.entries(checks) as [string, { Notes: string }][];
  return all.flatMap(([id, { Notes }]) => (id.startsWith('_') ? [Notes] : []));
}
const marks = () => agent.kv.keys('runlock/.gate/.out/');

test('two that leave at the same moment, again and again: it is never left on', async () => {
  for (let i = 0; i < 15; i++) {
    await goesOut(`a${i}`);
    await goesOut(`b${i}`);
    const both = await Promise.all([`a${i}`, `b${i}`].map((run) => exitAtLast(effects(), exit(run))));
    expect(both.map(({ kind }) => kind)).toEqual(['done', 'done']);
    expect(await reasons()).toEqual([]);
    expect(await marks()).toEqual([]);
  }
});

test('the other ends it between the look at its claim and the next step: nothing is left', async () => {
  await goesOut('a');
  await goesOut('b');
  const real = effects();
  const list: typeof real.consul.list = async (...asked) => {
    const seen = await real.consul.list(...asked);
    await exitAtLast(effects(), exit('b'));
    return seen;
  };
  const left = await exitAtLast({ ...real, consul: { ...real.consul, list } }, exit('a'));
  expect(left).toMatchObject({ kind: 'done', kept: [{ by: { run: 'b' } }] });
  expect(await reasons()).toEqual([]);
  expect(await marks()).toEqual([]);
});

test('who goes out while another ends the maintenance waits for that, and is out by its own', async () => {
  await goesOut('a');
  const real = effects();
  let entering: Promise<unknown> = Promise.resolve();
  const serviceMaintenance: typeof real.consul.serviceMaintenance = async (...change) => {
    await claim('b');
    entering = enter(effects(), request('b'), never);
    // It has its mark by now, and would take what is on for its own.
    await eventually(async () => expect(await marks()).toContain('runlock/.gate/.out/web01/b'));
    return real.consul.serviceMaintenance(...change);
  };
  const agentOf = { consul: { ...real.consul, serviceMaintenance }, deps: real.deps };
  await exitAtLast({ ...real, agent: agentOf }, exit('a'));
  expect(await entering).toMatchObject({ kind: 'entered', taken: [{ how: 'set', run: 'b' }] });
  expect(await reasons()).toEqual(['runlock b']);
});

test('one that ends before the other is through the gate leaves it on; closed for that, it ends', async () => {
  await goesOut('a');
  await claim('b');
  const look = async () => {
    const left = await exitAtLast(effects(), exit('a'));
    expect(left).toMatchObject({ kind: 'done', ended: [], kept: [{ by: { run: 'b' } }] });
    return 'closed';
  };
  expect(await enter(effects(), request('b', { look }), never)).toEqual({ kind: 'closed', closed: 'closed' });
  expect(await reasons()).toEqual([]);
  expect(await marks()).toEqual([]);
});

test('one that backs out undoes its own, and nothing that a failed run left', async () => {
  await goesOut('a');
  await claim('a', { state: 'failed' });
  await goesOut('b', { services: ['web', 'db'] });
  const both = {
    ...exit('b', 'undo'),
    services: ['web', 'db'],
    mark: { services: ['web', 'db'], groups: ['prod/b'] },
  };
  expect(await exitAtLast(effects(), both)).toMatchObject({ ended: [{ service: 'db' }] });
  expect(await reasons()).toEqual(['runlock a']);
  // Without its claim nothing stands behind it; but only a good run ends what another left.
  await agent.kv.deleteTree('runlock/prod/');
  await goesOut('c');
  expect(await exitAtLast(effects(), exit('c', 'undo'))).toMatchObject({ ended: [] });
  expect(await reasons()).toEqual(['runlock a']);
  expect(await exitAtLast(effects(), { ...exit('d'), mark: undefined })).toMatchObject({
    ended: [{ service: 'web' }],
  });
  expect(await marks()).toEqual([]);
});

test('a mark that can’t be read, or whose claims may not be, is taken to be needed', async () => {
  await goesOut('a');
  await agent.kv.put('runlock/.gate/.out/web01/newer', JSON.stringify({ v: 2 }));
  expect(await exitAtLast(effects(), exit('a'))).toMatchObject({
    ...{ ended: [], kept: [{ by: { run: 'newer' }, standing: { kind: 'unknown' } }] },
  });
  await agent.kv.delete('runlock/.gate/.out/web01/newer');
  await goesOut('b');
  await claim('b', { v: 7 });
  expect(await exitAtLast(effects(), exit('c'))).toMatchObject({ kept: [{ standing: { kind: 'unknown' } }] });
  expect(await reasons()).toEqual(['runlock a']);
});

test('killed while it was ending the maintenance: who goes out next waits for a while only', async () => {
  await goesOut('a');
  const killed = { v: 1, services: ['web'], groups: ['prod/a'], state: 'leaving' };
  await agent.kv.put('runlock/.gate/.out/web01/a', JSON.stringify(killed));
  await claim('b');
  const own = effects();
  let asked = 0;
  // Each look at the clock is ten seconds later.
  const clock = { ...own.deps.clock, monotonicMs: () => ++asked * 10_000 };
  const deps = { ...own.deps, clock };
  const { setMark } = await import('../../src/gate/marks.ts');
  const marker = { prefix: 'runlock', node: 'web01', run: 'b' };
  const mark = { services: ['web'], groups: ['prod/b'] };
  const set = await setMark({ consul: own.consul, deps }, marker, { mark, inside: false, signal: never });
  expect(set).toEqual({ others: [], before: undefined });
  expect(await marks()).toEqual(['runlock/.gate/.out/web01/b']);
});

const byHand = (more: Partial<EnterRequest<string>> = {}) => request('hand', { groups: [], ...more });

test.each([
  ['before it was out', 'serviceMaintenance'],
  ['when it was out', 'transact'],
] as const)('by hand, killed %s: its mark goes with its session, a good run ends the rest', async (_, at) => {
  const real = effects();
  // Nothing more is sent once the process is dead: not even what would undo it.
  let dead = false;
  const killed = new Promise<void>((resolve) => {
    const die = () => {
      dead = true;
      resolve();
      return new Promise<never>(() => undefined);
    };
    const transact: typeof real.consul.transact = (operations, options) => {
      const isLast = at === 'transact' && operations.some(({ verb }) => verb === 'unlock');
      return dead || isLast ? die() : real.consul.transact(operations, options);
    };
    const serviceMaintenance: typeof real.consul.serviceMaintenance = (...change) =>
      dead || at === 'serviceMaintenance' ? die() : real.consul.serviceMaintenance(...change);
    const consul = { ...real.consul, transact, serviceMaintenance };
    const self = { ...real, consul, agent: { consul, deps: real.deps } };
    void enter(self, byHand(), AbortSignal.any([])).catch(() => undefined);
  });
  await killed;
  expect(await marks()).toEqual(['runlock/.gate/.out/web01/hand']);
  expect(await reasons()).toEqual(at === 'transact' ? ['runlock hand'] : []);
  const all = succeeded(await agent.http('GET', '/v1/session/list'), 'sessions').json() as { ID: string }[];
  // As their TTL ends them, sooner.
  for (const { ID: id } of all) succeeded(await agent.http('PUT', `/v1/session/destroy/${id}`), 'destroying');
  expect(await marks()).toEqual([]);
  await goesOut('a');
  expect(await exitAtLast(effects(), exit('a'))).toMatchObject({ kind: 'done', kept: [] });
  expect(await reasons()).toEqual([]);
});

// The locks are the services', so a hand may be about to take the whole node out.
test('the whole node’s mark by hand stays where its maintenance is not on; the service’s goes', async () => {
  const hand = { v: 1, services: [], node: true, groups: [] };
  await agent.kv.put('runlock/.gate/.out/web01/hand', JSON.stringify(hand));
  const over = { v: 1, services: ['web'], groups: [] };
  await agent.kv.put('runlock/.gate/.out/web01/over', JSON.stringify(over));
  await goesOut('a');
  expect(await marks()).toEqual(['runlock/.gate/.out/web01/a', 'runlock/.gate/.out/web01/hand']);
});

test('by hand, and out: its mark stays when its session is over', async () => {
  expect(await enter(effects(), byHand(), never)).toMatchObject({ kind: 'entered' });
  expect(succeeded(await agent.http('GET', '/v1/session/list'), 'sessions').json()).toEqual([]);
  expect(await marks()).toEqual(['runlock/.gate/.out/web01/hand']);
  await goesOut('a');
  expect(await exitAtLast(effects(), exit('a'))).toMatchObject({ kept: [{ standing: { kind: 'by-hand' } }] });
});

test.each([
  ['the agent offers none of the services', { services: ['nowhere'] }],
  ['all is in somebody else’s maintenance', {}],
])('by hand, where %s: no mark is left', async (why, more) => {
  if (why.startsWith('all'))
    succeeded(
      await agent.http('PUT', '/v1/agent/service/maintenance/web-1?enable=true&reason=disk'),
      'maintenance',
    );
  expect(await enter(effects(), byHand(more), never)).toMatchObject({ kind: 'entered' });
  expect(await marks()).toEqual([]);
});
