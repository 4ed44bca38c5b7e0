// Services, their health and maintenance, on a real agent: what the health gate decides by.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connect } from '../../src/consul/consul.ts';
import type { Consul } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { succeeded } from '../support/consul-api.ts';
import { startAgent } from '../support/consul.ts';
import { useAgent } from '../support/use-agent.ts';
import { startProxy } from '../support/proxy.ts';

const agent = useAgent({ name: 'web01', acl: true });
let consul: Consul;

const clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms: number) => new Promise<void>((done) => setTimeout(done, ms)),
};
const open = { signal: AbortSignal.timeout(60_000), retryForMs: 0 };
const to = (env: Readonly<Record<string, string>>) =>
  connect(consulSettings(env), { clock, emit: () => undefined });

beforeEach(async () => {
  consul = to(agent.env);
  const checks = [{ CheckID: 'http', Name: 'answers', TTL: '600s' }];
  const service = { Name: 'web', ID: 'web/1 a', Port: 80, Checks: checks };
  succeeded(await agent.http('PUT', '/v1/agent/service/register', service), 'registering');
});
afterEach(async () => {
  consul.close();
  await agent.http('PUT', '/v1/agent/maintenance?enable=false');
  await agent.http('PUT', `/v1/agent/service/deregister/${encodeURIComponent('web/1 a')}`);
});

/** Waits for the catalogue to show what the agent says, by blocking queries. */
async function shown(is: (statuses: readonly string[]) => boolean): Promise<string[]> {
  for (let index: number | undefined; ;) {
    const seen = await consul.health('web', { ...open, index, waitMs: 60_000 });
    const statuses = seen.entries
      .flatMap((each) => each.checks.map(({ id, status }) => `${id} ${status}`))
      .sort();
    if (is(statuses)) return statuses;
    ({ index } = seen);
  }
}

const MAINTENANCE = '_service_maintenance:web/1 a critical';

describe('a service', () => {
  test('is seen with its own checks and those of its node, from the servers', async () => {
    await shown((statuses) => statuses.length === 2);
    const { entries } = await consul.health('web', open);
    const address = new URL(agent.url).hostname;
    const http = { node: 'web01', id: 'http', name: 'answers', status: 'critical', notes: '', output: '' };
    expect(entries).toMatchObject([{ node: 'web01', serviceId: 'web/1 a', service: 'web', address }]);
    expect(entries[0]?.checks).toContainEqual({ ...http, serviceId: 'web/1 a' });
    expect(entries[0]?.checks).toContainEqual(
      expect.objectContaining({ id: 'serfHealth', status: 'passing', serviceId: '' }),
    );
  });

  test('is waited for at the servers, not in a view of the agent, which may be old or empty', async () => {
    await using proxy = await startProxy(agent);
    const through = to(proxy.env);
    const { index } = await through.health('web', open);
    expect((await through.health('web', { ...open, index, waitMs: 10 })).entries).toHaveLength(1);
    through.close();
    expect(proxy.requests.map(({ path }) => path.includes('near=_agent'))).toEqual([false, true]);
  });

  test('that nobody offers has no instances, and an index to wait for one', async () => {
    const { entries, index } = await consul.health('wbe', open);
    expect(entries).toEqual([]);
    expect(index).toBeGreaterThan(0);
  });

  test('is what its node offers, by agent and by catalogue; a server is not in its own list', async () => {
    await shown((statuses) => statuses.length === 2);
    const offered = [{ id: 'web/1 a', service: 'web' }];
    expect(await consul.agentServices(open)).toEqual(offered);
    expect(await consul.nodeServices('web01', open)).toEqual(offered);
    expect(await consul.nodeServices('web99', open)).toBeUndefined();
    expect(await consul.agentSelf(open)).toEqual({ node: 'web01' });
  });
});

describe('maintenance', () => {
  test('of a service goes on and off, whatever its id, and wakes who waits for the service', async () => {
    await shown((statuses) => statuses.length === 2);
    expect(await consul.serviceMaintenance('web/1 a', { on: true, reason: 'runlock a & b' }, open)).toBe(
      true,
    );
    expect(await shown((statuses) => statuses.length === 3)).toContain(MAINTENANCE);
    expect(await consul.agentChecks(open)).toContainEqual(
      expect.objectContaining({
        id: '_service_maintenance:web/1 a',
        notes: 'runlock a & b',
        serviceId: 'web/1 a',
      }),
    );
    expect(await consul.serviceMaintenance('web/1 a', { on: false }, open)).toBe(true);
    expect(await shown((statuses) => statuses.length === 2)).not.toContain(MAINTENANCE);
  });

  test('of a node is a check of each of its instances', async () => {
    await consul.nodeMaintenance({ on: true, reason: 'disk' }, open);
    expect(await shown((statuses) => statuses.length === 3)).toContain('_node_maintenance critical');
    expect(await consul.agentChecks(open)).toContainEqual(
      expect.objectContaining({ id: '_node_maintenance', notes: 'disk', serviceId: '' }),
    );
  });

  test('keeps the reason that it was set with, until it is taken off', async () => {
    await consul.serviceMaintenance('web/1 a', { on: true, reason: 'first' }, open);
    await consul.serviceMaintenance('web/1 a', { on: true, reason: 'second' }, open);
    const reasons = (await consul.agentChecks(open))
      .filter(({ id }) => id.startsWith('_'))
      .map(({ notes }) => notes);
    expect(reasons).toEqual(['first']);
  });

  test('of a service that the agent does not have is said to be none', async () => {
    expect(await consul.serviceMaintenance('wbe', { on: true, reason: 'x' }, open)).toBe(false);
    await using withoutAcl = await startAgent();
    const other = to(withoutAcl.env);
    expect(await other.serviceMaintenance('wbe', { on: true, reason: 'x' }, open)).toBe(false);
    other.close();
  });
});

describe('what a token may do', () => {
  test('is said by Consul for each name, and is everything where there are no ACLs', async () => {
    const names = [
      { resource: 'service', name: 'web', access: 'write' },
      { resource: 'node', name: 'web01', access: 'read' },
      { resource: 'node', name: 'web01', access: 'write' },
      { resource: 'node', name: 'web02', access: 'read' },
    ] as const;
    const rules = 'service "web" { policy = "write" } node "web01" { policy = "read" }';
    const poor = to({ ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(rules) });
    expect(await poor.may(names, open)).toEqual([true, true, false, false]);
    poor.close();
    await using withoutAcl = await startAgent();
    const other = to(withoutAcl.env);
    expect(await other.may(names, open)).toEqual([true, true, true, true]);
    other.close();
  });
});

test('of more rights than Consul answers about at once all are asked for', async () => {
  const names = Array.from({ length: 150 }, (_, i) => `service-${i}`);
  const rules = names.filter((_, i) => i % 3 === 0).map((name) => `service "${name}" { policy = "read" }`);
  const poor = to({ ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(rules.join(' ')) });
  const rights = names.map((name) => ({ resource: 'service', name, access: 'read' }) as const);
  expect(await poor.may(rights, open)).toEqual(names.map((_, i) => i % 3 === 0));
  poor.close();
});

describe('a token without rights', () => {
  test('sees no instances and no services, and is refused maintenance with the rule by name', async () => {
    await shown((statuses) => statuses.length === 2);
    const poor = to({ ...agent.env, CONSUL_HTTP_TOKEN: await agent.token('key "a" { policy = "read" }') });
    expect((await poor.health('web', open)).entries).toEqual([]);
    expect(await poor.agentServices(open)).toEqual([]);
    expect(await poor.agentChecks(open)).toEqual([]);
    const rule = 'service "web" { policy = "write" }';
    await expect(poor.serviceMaintenance('web/1 a', { on: true }, { ...open, rule })).rejects.toMatchObject({
      code: 'forbidden',
      message: expect.stringContaining(rule) as string,
    });
    await expect(poor.nodeMaintenance({ on: true }, { ...open, rule: 'node' })).rejects.toMatchObject({
      code: 'forbidden',
    });
    poor.close();
  });
});
