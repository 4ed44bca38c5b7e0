// Requests that are lost before or after they took effect, or arrive late: through a proxy that breaks real connections.
import { writeFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import type { Agent } from '../support/consul.ts';
import { startFleet } from '../support/history/fleet.ts';
import type { Fleet } from '../support/history/fleet.ts';
import { LONG, SOON_MS } from '../support/history/steps.ts';
import { readRuns } from '../support/history/witness.ts';
import { eventually, scene } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Proxy } from '../support/proxy.ts';
import { STEPS, writes } from '../support/proxy-steps.ts';
import { runlock, startRunlock } from '../support/runlock.ts';

const agent = useAgent();

async function through(): Promise<Proxy & { agent: Pick<Agent, 'env'> }> {
  const proxy = await startProxy(agent);
  onTestFinished(() => proxy.close());
  return Object.assign(proxy, { agent: proxy });
}

/** web01 waits behind a proxy, first in line after a run; web02 waits behind it. */
async function lineUp(fleet: Fleet, proxy: Proxy) {
  const holder = fleet.start('holder');
  await holder.running(SOON_MS);
  const first = fleet.start('web01', { agent: proxy });
  await first.waiting(SOON_MS);
  const second = fleet.start('web02', { part: { beats: 3 } });
  await second.waiting(SOON_MS);
  return { holder, first, second };
}

/** web01 was told to stop in the middle of its turn: only the others have run, and nothing of it is left. */
async function passedOn(fleet: Fleet): Promise<void> {
  expect(readRuns(fleet.folder).map(({ node }) => node)).toEqual(['holder', 'web02']);
  expect(await fleet.keys()).toEqual(['.last', '.runs/holder', '.runs/web02', '.tail']);
  const { broken, judged } = await fleet.verdict();
  expect(broken).toEqual([]);
  expect(judged.runs).toBe(2);
}

describe.concurrent.each(['forever', '5s', 'none'])('hold %s', (hold) => {
  test(
    'a grant that arrives after its run gave up starts nothing; the next in line is served',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: `late-${hold}`, hold });
      await using proxy = await startProxy(agent);
      const { holder, first, second } = await lineUp(fleet, proxy);
      proxy.rule({ match: STEPS.grant, do: 'late' });
      holder.tell();
      await proxy.seen(STEPS.grant);
      first.send('SIGTERM');
      expect((await first.ended).status).toBe(143);
      const late = await proxy.release();
      expect(late.map(({ status }) => status)).toEqual(late.map(() => 409));
      expect(late.length).toBeGreaterThan(0);
      expect(await second.ended).toMatchObject({ status: 0, stderr: '' });
      await passedOn(fleet);
    },
  );

  test('a grant that took effect unseen, before its run was told to stop, is undone', LONG, async () => {
    await using fleet = startFleet(agent, { group: `unseen-${hold}`, hold });
    await using proxy = await startProxy(agent);
    const { holder, first, second } = await lineUp(fleet, proxy);
    proxy.rule({ match: STEPS.grant, times: 1, do: 'drop-after' });
    // The look that would find the grant never comes back, so the run does not know of it when the signal comes.
    const removeLook = proxy.rule({ match: STEPS.look, do: 'hang' });
    holder.tell();
    await eventually(async () => expect(await fleet.claim()).toMatchObject({ node: 'web01' }));
    first.send('SIGTERM');
    removeLook();
    expect((await first.ended).status).toBe(143);
    expect(await second.ended).toMatchObject({ status: 0, stderr: '' });
    await passedOn(fleet);
  });

  test.each(['drop-before', 'drop-after', 'late'] as const)(
    'a claim that was deleted, and the way back to it lost (%s): the run claims again',
    LONG,
    async (action) => {
      await using fleet = startFleet(agent, { group: `again-${action}-${hold}`, hold });
      await using proxy = await startProxy(agent);
      const run = fleet.start('web01', { agent: proxy });
      await run.running(SOON_MS);
      const next = fleet.start('web02', { part: { beats: 3 } });
      await next.waiting(SOON_MS);
      const session = (await agent.kv.get(`runlock/${fleet.group}/.slot/0/lock`))?.Session;
      proxy.rule({ match: STEPS['claim again'], times: 1, do: action });
      fleet.act('by-hand', 'web01');
      await agent.kv.delete(`runlock/${fleet.group}/.slot/0/owner`);
      await proxy.seen(STEPS['claim again']);
      await eventually(async () => expect(await fleet.claim()).toMatchObject({ node: 'web01' }), SOON_MS);
      expect((await agent.kv.get(`runlock/${fleet.group}/.slot/0/lock`))?.Session).toBe(session);
      await proxy.release();
      run.tell();
      expect((await run.ended).status).toBe(0);
      expect((await next.ended).status).toBe(0);
      expect(await fleet.keys()).toEqual(['.last', '.runs/web01', '.runs/web02', '.tail']);
      const { broken, judged } = await fleet.verdict();
      expect(broken).toEqual([]);
      expect(judged.runs).toBe(2);
    },
  );

  test(
    'a release that can not be sent says what stays behind; what arrives late changes nothing',
    LONG,
    async () => {
      await using fleet = startFleet(agent, { group: `stays-${hold}`, hold });
      await using proxy = await startProxy(agent);
      proxy.rule({ match: STEPS.release, do: 'late' });
      const run = fleet.start('web01', { agent: proxy });
      await run.running(SOON_MS);
      const waiter = fleet.start('web02', { part: { beats: 3 } });
      await waiter.waiting(SOON_MS);
      run.tell(7);
      const { status, stderr } = await run.ended;
      expect(status).toBe(7);
      expect(stderr).toContain(`the slot stays blocked by runlock/${fleet.group}/.slot/0/owner`);
      expect(stderr).toContain(`to clear by hand: 'runlock release ${fleet.group} --owner web01`);
      const late = await proxy.release();
      expect(late.length).toBeGreaterThan(1);
      expect(late.map(({ status: answer }) => answer)).toEqual(late.map(() => 409));
      expect(await fleet.claim()).toMatchObject({ node: 'web01', state: 'running' });
      expect(await fleet.run('web01', { args: ['-w', '0'] })).toMatchObject({ status: 0, stderr: '' });
      expect(await waiter.ended).toMatchObject({ status: 0, stderr: '' });
      expect(readRuns(fleet.folder).map(({ node }) => node)).toEqual(['web01', 'web01', 'web02']);
      expect(await fleet.broken()).toEqual([]);
    },
  );
});

test('a lost session at the end of a run, and a lost answer on the way back: the slot is free', async () => {
  const proxy = await through();
  const { folder, clean, pid } = scene();
  onTestFinished(clean);
  const command = `echo $$ >${folder}/command.pid; while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
  const args = ['exec', '-g', 'twice', '--node', 'web01', '--session-ttl', '10s', '--', 'sh', '-c', command];
  const run = startRunlock(proxy.agent, args);
  await pid('command');
  // Nothing of the watch comes through, so that the loss is only met when the run ends.
  proxy.rule({ match: STEPS.watch, do: 'hang' });
  proxy.sever();
  const session = (await agent.kv.get('runlock/twice/.slot/0/lock'))?.Session;
  await agent.http('PUT', `/v1/session/destroy/${session ?? ''}`);
  proxy.rule({ match: writes('lock', '/.slot/0/lock'), times: 1, do: 'drop-after' });
  writeFileSync(`${folder}/end`, '');
  expect(await run.ended).toMatchObject({ status: 0 });
  const base = 'runlock/twice';
  expect(await agent.kv.keys(`${base}/`)).toEqual([`${base}/.last`, `${base}/.runs/web01`, `${base}/.tail`]);
});

test('a return whose answer was lost, and that starts nothing, leaves the failed claim as it was', async () => {
  const failed = await runlock(agent, ['exec', '-g', 'undo', '--node', 'web01', '--', 'sh', '-c', 'exit 3']);
  expect(failed.status).toBe(3);
  const before = await agent.kv.get('runlock/undo/.slot/0/owner');
  const proxy = await through();
  const { folder, clean } = scene();
  onTestFinished(clean);
  writeFileSync(`${folder}/broken`, '#!/no/such/interpreter\n', { mode: 0o755 });
  proxy.rule({ match: writes('lock', '/.slot/0/lock'), times: 1, do: 'drop-after' });
  const run = await runlock(proxy.agent, ['exec', '-g', 'undo', '--node', 'web01', '--', `${folder}/broken`]);
  expect(run.status).toBe(126);
  expect((await agent.kv.get('runlock/undo/.slot/0/owner'))?.Value).toBe(before?.Value);
  expect(proxy.counts().requests).toBeLessThan(40);
});

test('a grant that is refused for a while is asked for ever more seldom', async () => {
  const proxy = await through();
  proxy.rule({ match: STEPS.grant, do: { status: 429, body: 'slow down' } });
  const run = await runlock(proxy.agent, ['exec', '-g', 'slow', '--node', 'web01', '-w', '3s', '--', 'true']);
  // Not busy: the slot is free, nobody else is there, and Consul takes no more requests.
  expect(run).toMatchObject({ status: 69, stderr: expect.stringContaining('HTTP 429: slow down') as string });
  expect(proxy.counts().requests).toBeLessThan(60);
  expect(await agent.kv.keys('runlock/slow/.slot/')).toEqual([]);
});

test('tickets and locks that no session holds, as after a restore, stand in nobody’s way', async () => {
  const ticket = {
    v: 1,
    node: 'web09',
    run: 'old',
    since: new Date(0).toISOString(),
    command: 'true',
    pid: 1,
  };
  await agent.kv.put('runlock/stray/.queue/11111111-2222-3333-4444-555555555555', JSON.stringify(ticket));
  const run = await runlock(agent, [
    'exec',
    '-g',
    'stray',
    '--node',
    'web01',
    '-w',
    '10s',
    '--',
    'sh',
    '-c',
    'exit 3',
  ]);
  expect(run.status).toBe(3);
  await agent.kv.put('runlock/stray/.slot/0/lock', JSON.stringify({ v: 1, run: 'old' }));
  const released = await runlock(agent, ['release', 'stray', '--owner', 'web01']);
  expect(released.stdout).toContain('cleared the failed claim of web01');
  expect(await agent.kv.keys('runlock/stray/.slot/')).toEqual([]);
});
