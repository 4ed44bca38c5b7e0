// The two transactions around a command that publishes, through a proxy that breaks them, and a runlock that is killed.
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { eventually, untilGone } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { FAULTS, STEPS } from '../support/proxy-steps.ts';
import { runlock } from '../support/runlock.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });
const LONG = { timeout: 90_000 };

type Document = Readonly<Record<string, unknown>> & { readonly index: number };

async function stored(path: string): Promise<Document | undefined> {
  const pair = await agent.kv.get(`runlock/.state/${path}/.value`);
  return pair && { ...(JSON.parse(pair.Value) as object), index: pair.ModifyIndex };
}

const recordedAt = async (key: string) => (await agent.kv.get(key))?.ModifyIndex;

describe('the start of a command', () => {
  test.each(Object.entries(FAULTS))(
    '%s: its command runs once, and its state is there',
    LONG,
    async (name, fault) => {
      await using proxy = await startProxy(agent);
      const group = groupOf(agent, `fs/${name}`, { env: proxy.env });
      proxy.rule({ match: STEPS.start, times: 1, do: fault });
      const script = 'echo ran; exec sleep 60';
      const run = group.start('web01', '--during', `fs/${name}=1`, '--', 'sh', '-c', script);
      await eventually(() => expect(run.stdout()).toBe('ran\n'), 30_000);
      const during = await stored(`fs/${name}`);
      expect(during).toMatchObject({ value: '1' });
      // What arrives late changes nothing.
      for (const { status } of await proxy.release()) expect([200, 409]).toContain(status);
      expect(await stored(`fs/${name}`)).toEqual(during);
      run.signal('SIGTERM');
      expect((await run.ended).stdout).toBe('ran\n');
    },
  );

  test(
    'held up until another node has the slot: 79, nothing starts, its state is not there',
    LONG,
    async () => {
      await using proxy = await startProxy(agent);
      const group = groupOf(agent, 'fs/over', { env: proxy.env });
      let open = () => {};
      proxy.rule({ match: STEPS.start, do: { until: new Promise<void>((resolve) => (open = resolve)) } });
      const run = group.start('web01', '--during', 'fs/over=1', '--', 'echo', 'ran');
      await proxy.seen(STEPS.start);
      run.signal('SIGSTOP');
      const claim = await group.claim();
      await agent.kv.put(group.key('.slot/0/owner'), JSON.stringify({ ...claim, node: 'web02', run: 'r2' }));
      open();
      run.signal('SIGCONT');
      expect(await run.ended).toMatchObject({ status: 79, stdout: '' });
      expect(await stored('fs/over')).toBeUndefined();
    },
  );

  test('with its session lost: the lock is taken back first, then the command starts', LONG, async () => {
    await using proxy = await startProxy(agent);
    const group = groupOf(agent, 'fs/session', { env: proxy.env });
    let open = () => {};
    proxy.rule({
      match: STEPS.start,
      times: 1,
      do: { until: new Promise<void>((resolve) => (open = resolve)) },
    });
    const run = group.start('web01', '--during', 'fs/session=1', '--', 'echo', 'ran');
    await proxy.seen(STEPS.start);
    const [session] = await group.sessions();
    await agent.http('PUT', `/v1/session/destroy/${session}`);
    open();
    expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
  });

  test(
    'under way when its runlock is killed: what arrives after its session is gone sets nothing',
    LONG,
    async () => {
      await using proxy = await startProxy(agent);
      const group = groupOf(agent, 'fs/killed', { env: proxy.env });
      proxy.rule({ match: STEPS.start, do: 'late' });
      const run = group.start('web01', '--during', 'fs/killed=1', '--', 'echo', 'ran');
      await proxy.seen(STEPS.start);
      run.signal('SIGKILL');
      await run.ended;
      await untilGone(run.pid);
      const [session] = await group.sessions();
      await agent.http('PUT', `/v1/session/destroy/${session}`);
      expect((await proxy.release()).map(({ status }) => status)).not.toContain(200);
      expect(await stored('fs/killed')).toBeUndefined();
      expect((await runlock(agent, ['release', 'fs/killed', '--owner', 'web01', '--force'])).status).toBe(0);
    },
  );

  test('told to stop meanwhile: all is as before, also a state that it replaced', LONG, async () => {
    await using proxy = await startProxy(agent);
    const group = groupOf(agent, 'fs/stop', { env: proxy.env });
    await runlock(agent, ['state', 'set', 'fs/stop', 'before']);
    proxy.rule({ match: STEPS.start, do: 'drop-after' });
    const run = group.start('web01', '--during', 'fs/stop=1', '--', 'echo', 'ran');
    await eventually(async () => expect(await stored('fs/stop')).toMatchObject({ value: '1' }));
    run.signal('SIGTERM');
    expect(await run.ended).toMatchObject({ status: 143, stdout: '' });
    expect(await stored('fs/stop')).toMatchObject({ value: 'before' });
    expect(await group.claim()).toBeUndefined();
  });
});

describe('the end of a run that publishes', () => {
  test.each(Object.entries(FAULTS))('%s: published once, with its record', LONG, async (name, fault) => {
    await using proxy = await startProxy(agent);
    const group = groupOf(agent, `fe/${name}`, { env: proxy.env });
    proxy.rule({ match: STEPS.release, times: 1, do: fault });
    const { status } = await group.exec(
      'web01',
      '--publish',
      `fe/${name}=1`,
      '--during',
      `fd/${name}=1`,
      '--',
      'true',
    );
    expect(status).toBe(0);
    const published = await stored(`fe/${name}`);
    const index = await recordedAt(group.key('.runs/web01'));
    expect(published).toMatchObject({ value: '1', index });
    expect(await stored(`fd/${name}`)).toBeUndefined();
    await runlock(agent, ['state', 'set', `fe/${name}`, 'later']);
    const later = await stored(`fe/${name}`);
    // A late one has no second effect.
    for (const { status } of await proxy.release()) expect(status).toBe(409);
    expect(await stored(`fe/${name}`)).toEqual(later);
    expect(await recordedAt(group.key('.runs/web01'))).toBe(index);
  });

  test('with its session lost, and the answer too: takes the lock back, and publishes', LONG, async () => {
    await using proxy = await startProxy(agent);
    const group = groupOf(agent, 'fe/session', { env: proxy.env });
    const open = proxy.rule({ match: STEPS.release, do: 'drop-before' });
    const run = group.start('web01', '--publish', 'fe/session=1', '--', 'true');
    await proxy.seen(STEPS.release);
    const [session] = await group.sessions();
    await agent.http('PUT', `/v1/session/destroy/${session}`);
    open();
    expect((await run.ended).status).toBe(0);
    expect(await stored('fe/session')).toMatchObject({ index: await recordedAt(group.key('.runs/web01')) });
  });

  test('under way when its runlock is killed: published and recorded, or neither', LONG, async () => {
    await using proxy = await startProxy(agent);
    for (const isBefore of [true, false]) {
      const name = `fe/killed-${isBefore}`;
      const group = groupOf(agent, name, { env: proxy.env });
      const open = proxy.rule({ match: STEPS.release, do: 'late' });
      const run = group.start('web01', '--publish', `${name}=1`, '--', 'true');
      await proxy.seen(STEPS.release, isBefore ? 1 : 2);
      run.signal('SIGKILL');
      await run.ended;
      const [session] = await group.sessions();
      if (isBefore) await agent.http('PUT', `/v1/session/destroy/${session}`);
      await proxy.release();
      open();
      const index = await recordedAt(group.key('.runs/web01'));
      expect((await stored(name))?.index).toBe(index);
      expect(index === undefined).toBe(isBefore);
    }
  });

  const isPublish = ({ path, body }: { path: string; body: string }) =>
    path.startsWith('/v1/txn') && body.includes('.state/') && body.includes('/.runs/');

  test.each([
    [
      'right',
      'for want of the right',
      403,
      'Permission denied',
      /key_prefix "runlock\/.state\/fe\/" { policy = "write" }/,
    ],
    [
      'large',
      'as too large (413)',
      413,
      'Request body(600000 bytes) too large',
      /600000 bytes\) too large\); nothing was published/,
    ],
  ])(
    'that Consul refuses (%s: %s): 79, recorded as lost, nothing published',
    LONG,
    async (name, _, code, body, says) => {
      await using proxy = await startProxy(agent);
      const group = groupOf(agent, `fe/refused-${name}`, { env: proxy.env });
      proxy.rule({ match: isPublish, do: { status: code, body } });
      const { status, stderr } = await group.exec('web01', '--publish', `fe/${name}=1`, '--', 'true');
      expect(status).toBe(79);
      expect(stderr).toContain('its success could not be recorded');
      expect(stderr).toMatch(says);
      expect(await group.lastRun('web01')).toMatchObject({ outcome: 'lost' });
      expect(await group.claim()).toMatchObject({ state: 'failed' });
      expect(await stored(`fe/${name}`)).toBeUndefined();
    },
  );

  test(
    'whose answer is lost, and then nothing but refusals: unknown, and not called refused',
    LONG,
    async () => {
      await using proxy = await startProxy(agent);
      const group = groupOf(agent, 'fe/unsure', { env: proxy.env });
      const holder = await group.hold('web01', '--publish', 'fe/unsure=1');
      proxy.rule({ match: isPublish, do: 'drop-after', times: 1 });
      const isAfter = () => proxy.requests.some(isPublish);
      proxy.rule({ match: isAfter, do: { status: 413, body: 'Request body too large' } });
      holder.tell();
      const { status, stderr } = await holder.ended;
      expect(status).toBe(79);
      expect(stderr).toContain('whether its states were published is unknown');
      expect(await stored('fe/unsure')).toMatchObject({ value: '1' });
    },
  );
});
