// Whether a node's services are healthy again, where nobody can say.
import { expect, onTestFinished, test } from 'vitest';
import { clock } from '../../src/platform/deps.ts';
import { connect } from '../../src/consul/consul.ts';
import { consulSettings } from '../../src/consul/env.ts';
import { untilHealthy } from '../../src/gate/healthy.ts';
import { useAgent } from '../support/use-agent.ts';
import { never } from '../support/gate.ts';
import { startProxy } from '../support/proxy.ts';

const agent = useAgent();

const asked = { services: ['web'], offered: [], node: 'web01', withinMs: 30_000, stableMs: 0 };

test('Consul away: waited for, but not for ever', async () => {
  const proxy = await startProxy(agent);
  onTestFinished(() => proxy.close());
  const consul = connect(consulSettings(proxy.env), { clock, emit: () => undefined });
  onTestFinished(() => consul.close());
  const isHealth = ({ path }: { path: string }) => path.startsWith('/v1/health/');
  const back = proxy.rule({ match: isHealth, do: 'drop-before' });
  const waits: { forMs: number; end: () => void }[] = [];
  const told = {
    ...clock,
    sleep: (forMs: number) => new Promise<void>((end) => void waits.push({ forMs, end })),
  };
  const given = untilHealthy({ consul, clock: told }, asked, never);
  await proxy.seen(isHealth, 3);
  expect(waits.map(({ forMs }) => forMs)).toEqual([50_000]);
  waits[0]?.end();
  expect(await given).toMatchObject({
    kind: 'unhealthy',
    why: expect.stringContaining('unreachable') as string,
  });
  const waited = untilHealthy({ consul, clock: told }, asked, never);
  await proxy.seen(isHealth, 5);
  back();
  expect(await waited).toEqual({ kind: 'healthy' });
});
