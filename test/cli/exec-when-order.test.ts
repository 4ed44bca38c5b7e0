// In which order a run looks at its gate and its conditions (docs/adr/0033): together, without a slot; together again
// with all slots, before maintenance; then at the states alone, in the transaction that starts the command.
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { STEPS, writes } from '../support/proxy-steps.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

const set = async (path: string, value: string) => {
  expect((await runlock(agent, ['state', 'set', path, value])).status).toBe(0);
};

/** A service of this node; `peer`: the health of an instance on another. */
const offer = async (name: string, peer?: string) => {
  await agent.http('PUT', '/v1/agent/service/register', { Name: name, ID: name });
  if (peer !== undefined) await setPeer(name, peer);
};
const setPeer = (name: string, status: string) =>
  agent.http('PUT', '/v1/catalog/register', {
    ...{ Node: `peer-${name}`, Address: '127.0.0.9', Service: { Service: name, ID: name } },
    Check: { Node: `peer-${name}`, CheckID: name, Name: name, ServiceID: name, Status: status },
  });

const maintenanceOf = async (name: string) => {
  const checks = (await agent.http('GET', '/v1/agent/checks')).json() as object;
  return Object.keys(checks).filter((id) => id === `_service_maintenance:${name}`);
};

const times = (text: string, pattern: RegExp) => text.match(new RegExp(pattern, 'g'))?.length ?? 0;

describe('a run with --maintenance and a condition on the health of its own service', () => {
  // It went in and out of maintenance for ever: the last look came after it, and its own maintenance made it false.
  test('goes out of service once, and runs', async () => {
    await offer('own');
    const group = groupOf(agent, 'order/own');
    const gate = ['--service', 'own', '--maintenance', '--gate-stable', '0', '--settle', '300ms'];
    const { status, stdout, stderr } = await group.exec(
      ...(['node1', '-v', '-w', '20s', ...gate, '--when', 'healthy:own:1', '--', 'echo', 'ran'] as const),
    );
    expect({ status, stdout }).toEqual({ status: 0, stdout: 'ran\n' });
    expect(times(stderr, /is in maintenance|put .* into maintenance|out of service/)).toBeGreaterThan(0);
    expect(stderr).not.toContain('--when is no longer met');
    expect(await maintenanceOf('own')).toEqual([]);
  });

  test('does not go out of service if the condition is false with the slots held', async () => {
    await offer('turned', 'passing');
    const group = groupOf(agent, 'order/turned');
    const holder = await group.hold('web00');
    await using proxy = await startProxy(agent);
    const gate = ['--service', 'turned', '--maintenance', '--gate-stable', '0', '--max-offline', '2'];
    const args = ['-v', '-n', '1', ...gate, '--when', 'healthy:turned:2', '--', 'echo', 'ran'];
    const run = groupOf({ ...agent, env: proxy.env }, 'order/turned').start('node1', ...args);
    await group.waiting(1);
    await setPeer('turned', 'critical');
    await holder.end();
    await run.says(/released the slot of order\/turned, because --when is no longer met/);
    expect(proxy.requests.filter(STEPS['maintenance on'])).toEqual([]);
    await eventually(async () => expect(await group.keys('.slot/')).toEqual([]));
    await setPeer('turned', 'passing');
    expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  });
});

describe('a condition that turns false between ticket and grant', () => {
  test('has the slots of all groups given up at once, and nothing started', async () => {
    const group = groupOf(agent, 'order/a', { args: ['-g', 'order/b'] });
    const second = groupOf(agent, 'order/b');
    await set('oa/x', '1');
    const holder = await second.hold('web00');
    const run = group.start('web01', '-v', '-w', '30s', '--when', 'state:oa/x=1', '--', 'echo', 'ran');
    await second.waiting(1);
    expect(await group.claim()).toMatchObject({ node: 'web01' });
    await set('oa/x', '2');
    await holder.end();
    await run.says(/released the slot of order\/a,order\/b, because --when is no longer met/);
    for (const each of [group, second])
      await eventually(async () => expect(await each.keys('.slot/')).toEqual([]));
    expect((await second.exec('web02', '-w', '0', '--', 'true')).status).toBe(0);
    expect(run.stdout()).toBe('');
    await set('oa/x', '1');
    expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  });
});

describe('a state that changes between the last look and the start of the command', () => {
  const isStart = writes('check-index', '/.state/');

  test('has all given up, and the node back in service; when it is true again, the command runs', async () => {
    await offer('late');
    await set('os/x', '1');
    const group = groupOf(agent, 'order/start');
    await using proxy = await startProxy(agent);
    const changed = proxy.seen(isStart).then(() => set('os/x', '2'));
    proxy.rule({ match: isStart, times: 1, do: { until: changed } });
    const gate = ['--service', 'late', '--maintenance', '--gate-stable', '0'];
    const run = groupOf({ ...agent, env: proxy.env }, 'order/start').start(
      ...(['node1', '-v', '-w', '30s', ...gate, '--when', 'state:os/x=1', '--', 'echo', 'ran'] as const),
    );
    await run.says(/because --when is no longer met.*state:os\/x=1: the state has changed/);
    await eventually(async () => expect(await maintenanceOf('late')).toEqual([]));
    await eventually(async () => expect(await group.keys('.slot/')).toEqual([]));
    expect(run.stdout()).toBe('');
    await set('os/x', '1');
    expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  });

  test('is noticed until just before where it was absent, and `not:` asked for that', async () => {
    await offer('absent');
    await using proxy = await startProxy(agent);
    const changed = proxy.seen(STEPS['maintenance on']).then(() => set('os/absent', '1'));
    proxy.rule({ match: STEPS['maintenance on'], times: 1, do: { until: changed } });
    const group = groupOf({ ...agent, env: proxy.env }, 'order/absent');
    const gate = ['--service', 'absent', '--maintenance', '--gate-stable', '0'];
    const run = await group.exec(
      ...(['node1', '-w', '4s', ...gate, '--when', 'not:state:os/absent', '--', 'echo', 'ran'] as const),
    );
    expect(run).toMatchObject({ status: 75, stdout: '' });
    expect(run.stderr).toContain('busy: --when is not met: not:state:os/absent: os/absent is 1');
    expect(await maintenanceOf('absent')).toEqual([]);
  });

  test('needs no right but to read the state', async () => {
    const rules = ['key_prefix "runlock/g/"', 'key "runlock/.freeze"', 'session_prefix ""'];
    const read = 'key_prefix "runlock/.state/" { policy = "read" }';
    const write = rules.map((rule) => `${rule} { policy = "write" }`);
    const token = await guarded.token([...write, read].join('\n'));
    const as = { ...guarded, env: { ...guarded.env, CONSUL_HTTP_TOKEN: token } };
    await runlock(guarded, ['state', 'set', 'og/x', '1']);
    const when = ['--when', 'state:og/x=1', '--when', 'not:state:og/none'];
    expect(await groupOf(as, 'g').exec('n', '-w', '5s', ...when, '--', 'echo', 'ran')).toEqual({
      ...{ status: 0, stdout: 'ran\n', stderr: '' },
    });
  });
});

describe('a closed gate and a condition that is not met', () => {
  const closedAndUnmet = async (name: string) => {
    await offer(name, 'critical');
    const group = groupOf(agent, `order/${name}`);
    const gate = ['--service', name, '--gate-stable', '0'];
    const args = (wait: string) =>
      ['node1', '-v', '-w', wait, ...gate, '--when', `state:both/${name}`, '--', 'echo', 'ran'] as const;
    return { group, args };
  };
  const isGate = /node1 is waiting for the gate/;
  const isWhen = /waiting until --when is met/;

  test.each([
    ['gate', 'condition'],
    ['condition', 'gate'],
  ])('are both said once, and it starts when both are open: first the %s, then the %s', async (first) => {
    const name = `both-${first}`;
    const { group, args } = await closedAndUnmet(name);
    const run = group.start(...args('50s'));
    await run.says(isGate);
    await run.says(isWhen);
    const steps = [() => setPeer(name, 'passing'), () => set(`both/${name}`, '1')];
    if (first === 'condition') steps.reverse();
    await steps[0]?.();
    // What it does about it is nothing: no ticket, no slot. The other reason is still there.
    await runlock(agent, ['wait', '--until', `healthy:${name}`, '--timeout', '10s', '--stable', '1500ms']);
    expect((await group.keys()).filter((key) => !key.startsWith('.outside/'))).toEqual([]);
    expect(run.stdout()).toBe('');
    await steps[1]?.();
    expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
    expect([times(run.stderr(), isGate), times(run.stderr(), isWhen)]).toEqual([1, 1]);
  });

  test('are both said at the end of --wait', async () => {
    const { group, args } = await closedAndUnmet('both-end');
    for (const wait of ['0', '600ms']) {
      const { status, stdout, stderr } = await group.exec(...args(wait));
      expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
      expect(stderr).toMatch(/busy: .*the gate is closed|busy: .*gate/);
      expect(stderr).toContain('busy: --when is not met: state:both/both-end: both/both-end is not set');
    }
  });
});

const guarded = useAgent({ acl: true });
