// An operator sends a run away that only waits: it leaves the queue, says so, and never comes back by itself.
import { writeFileSync } from 'node:fs';
import { hostname, userInfo } from 'node:os';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import { STEPS, writes } from '../support/proxy-steps.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const me = `${userInfo().username}@${hostname()}`;
const queue = async (group: string) => (await on(group).tickets()).map(({ node }) => node);
const tail = async (group: string) => (await agent.kv.get(`runlock/${group}/.tail`))?.Value;
const away = (group: string, node = 'web01', ...more: string[]) =>
  runlock(agent, ['release', group, '--owner', node, '--force', ...more]);

/** A claim of another node that keeps the group until it is released. */
const hold = (group: string) => runlock(agent, ['acquire', group, '--node', 'web09']);
const unhold = (group: string) => runlock(agent, ['release', group, '--node', 'web09']);

/** A run that joins the queue of `group`, which is its last one; its renewals come each 3.3 s. */
async function waiter(group: string, node = 'web01', ...more: string[]) {
  const { folder, lines } = stage();
  const script = `echo >>${folder}/started`;
  const before = (await queue(group)).length;
  const run = on(group).start(node, '--session-ttl', '10s', ...more, '--', 'sh', '-c', script);
  await on(group).waiting(before + 1);
  return { ...run, started: () => lines('started').length };
}

const sentAway = (group: string, node = 'web01') =>
  `runlock: ${me} removed ${node} from the queue of ${group}; nothing was started\n`;

describe('that waits for its node’s own claim, outside the queue', () => {
  /** A run of web01, whose claim is kept in slot 1, under `-n 1`. */
  async function returner(group: string) {
    const { start, hold, keys } = groupOf(agent, group, { args: ['--session-ttl', '10s'] });
    const { folder, lines } = stage();
    const { end: free } = await hold('web09');
    expect((await start('web01', '-n', '2', '--', 'false').ended).status).toBe(1);
    const run = start('web01', '--', 'sh', '-c', `echo >>${folder}/started`);
    await eventually(async () => expect(await keys()).toContain('.node/web01'));
    return { ...run, free, started: () => lines('started').length };
  }
  const sentTwice = (group: string, slot: number, how = 'its runlock has exited') =>
    `cleared the failed claim of web01 on slot ${slot} of ${group}\nremoved the run of web01 that was waiting for this claim in ${group}; ${how}\n`;

  test('to move it below its --slots: --force clears the claim and ends the wait, with 79', async () => {
    const run = await returner('back');
    expect(await away('back')).toEqual({ status: 0, stdout: sentTwice('back', 1), stderr: '' });
    expect(await run.ended).toMatchObject({ status: 79, stderr: sentAway('back') });
    expect(run.started()).toBe(0);
    expect(await on('back').keys()).not.toContain('.node/web01');
    await run.free();
    expect(await on('back').keys()).toEqual(['.last', '.runs/web01', '.runs/web09', '.tail']);
  });

  test('to take it back after a freeze: the same', async () => {
    const exec = ['exec', '-g', 'cold', '--node', 'web01', '--session-ttl', '10s', '--'];
    expect((await runlock(agent, [...exec, 'false'])).status).toBe(1);
    await runlock(agent, ['freeze', 'cold', '--reason', 'new disks']);
    const run = startRunlock(agent, [...exec, 'true']);
    await eventually(async () => expect(await on('cold').keys()).toContain('.node/web01'));
    expect(await away('cold')).toEqual({ status: 0, stdout: sentTwice('cold', 0), stderr: '' });
    expect(await run.ended).toMatchObject({ status: 79, stderr: sentAway('cold') });
  });

  test('whose runlock is dead: its session goes with the claim', async () => {
    const run = await returner('dead-back');
    run.signal('SIGKILL');
    await run.ended;
    const how = 'its runlock was already dead';
    expect((await away('dead-back')).stdout).toBe(sentTwice('dead-back', 1, how));
    await run.free();
  });

  test('without --force the claim alone goes, and the run queues as any other', async () => {
    const run = await returner('claim-alone');
    const done = await runlock(agent, ['release', 'claim-alone', '--owner', 'web01']);
    expect(done.stdout).toBe('cleared the failed claim of web01 on slot 1 of claim-alone\n');
    await eventually(async () => expect(await queue('claim-alone')).toEqual(['web01']));
    await run.free();
    expect((await run.ended).status).toBe(0);
    expect(run.started()).toBe(1);
  });
});

test('without --force it is refused, and goes on waiting', async () => {
  await hold('plain');
  const run = await waiter('plain');
  const before = await agent.kv.tree('runlock/plain/');
  const refused = await runlock(agent, ['release', 'plain', '--owner', 'web01']);
  expect(refused).toMatchObject({ status: 75, stdout: '' });
  expect(refused.stderr).toMatch(
    /^runlock: web01 has no claim in plain, but has been waiting there for \d+s to run sh \(run \S+\); to remove it from the queue: 'runlock release plain --owner web01 --force'\n$/,
  );
  expect(await agent.kv.tree('runlock/plain/')).toEqual(before);
  await unhold('plain');
  expect(await run.ended).toMatchObject({ status: 0 });
});

test('a node that releases what it does not hold sends no run of its own away', async () => {
  await hold('own');
  const run = await waiter('own');
  expect(await runlock(agent, ['release', 'own', '--node', 'web01'])).toEqual({
    ...{ status: 0, stdout: 'nothing to release: web01 has no claim in own\n', stderr: '' },
  });
  await unhold('own');
  expect(await run.ended).toMatchObject({ status: 0 });
});

describe('with --force', () => {
  test('the first in the queue leaves: 79, it says who sent it away, and does not queue again', async () => {
    await hold('first');
    const run = await waiter('first');
    const last = await tail('first');
    expect(await away('first')).toEqual({
      ...{ status: 0, stdout: 'removed web01 from the queue of first; its runlock has exited\n', stderr: '' },
    });
    expect(await run.ended).toEqual({ status: 79, stdout: '', stderr: sentAway('first') });
    expect(await tail('first')).toBe(last);
    await unhold('first');
    expect(run.started()).toBe(0);
    expect(await on('first').keys()).toEqual(['.last', '.runs/web09', '.tail']);
    expect(await on('first').sessions()).toEqual([]);
  });

  test('one in the middle leaves, and those behind it keep their order', async () => {
    await hold('middle');
    const runs = [
      await waiter('middle', 'web01'),
      await waiter('middle', 'web02'),
      await waiter('middle', 'web03'),
    ];
    expect(await away('middle', 'web02', '--json')).toMatchObject({ status: 0 });
    expect(await runs[1]?.ended).toMatchObject({ status: 79, stderr: sentAway('middle', 'web02') });
    await unhold('middle');
    expect(await Promise.all([runs[0]?.ended, runs[2]?.ended])).toMatchObject([{ status: 0 }, { status: 0 }]);
    expect(runs.map(({ started }) => started())).toEqual([1, 0, 1]);
  });

  test('it is out of the queue at once: a slot that comes free before it hears is not its own', async () => {
    await hold('at-once');
    const run = await waiter('at-once');
    const next = await waiter('at-once', 'web02');
    // Its session lives on: the operator's request to end it does not get through.
    const proxy = await startProxy(agent);
    onTestFinished(proxy.close);
    proxy.rule({ match: STEPS['session destroy'], do: 'hang' });
    startRunlock(proxy, ['release', 'at-once', '--owner', 'web01', '--force']);
    await proxy.seen(STEPS['session destroy']);
    await unhold('at-once');
    expect(await next.ended).toMatchObject({ status: 0 });
    expect(await run.ended).toMatchObject({ status: 79, stderr: sentAway('at-once') });
    expect(run.started()).toBe(0);
  });

  test('a code for busy (-E) is not used: to try again on busy would undo the operator’s word', async () => {
    await hold('code');
    const run = await waiter('code', 'web01', '-E', '0');
    expect(await away('code')).toMatchObject({ status: 0 });
    expect((await run.ended).status).toBe(79);
  });

  test('a run that has one group and waits for the next gives the first one back', async () => {
    await hold('several/b');
    const args = ['-g', 'several/a', '--log-format', 'json'];
    const run = await waiter('several/b', 'web01', ...args);
    expect(await on('several/a').keys()).toContain('.slot/0/owner');
    expect(await away('several/b')).toMatchObject({ status: 0 });
    const { status, stderr } = await run.ended;
    expect(status).toBe(79);
    const events = stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string; group: string; by?: string });
    expect(events).toContainEqual(
      expect.objectContaining({
        event: 'sent-away',
        level: 'error',
        group: 'several/b',
        node: 'web01',
        by: me,
      }),
    );
    expect(events).toContainEqual(expect.objectContaining({ event: 'given-back', group: 'several/a' }));
    expect(await on('several/a').keys()).toEqual(['.last', '.tail']);
    expect(run.started()).toBe(0);
  });

  test('an acquire that waits holds nothing afterwards: 79', async () => {
    await hold('half');
    const args = ['acquire', 'half', '--node', 'web01', '--session-ttl', '10s'];
    const run = startRunlock(agent, args);
    await eventually(async () => expect(await queue('half')).toEqual(['web01']));
    expect(await away('half')).toMatchObject({ status: 0 });
    expect(await run.ended).toEqual({ status: 79, stdout: '', stderr: sentAway('half') });
  });

  test('one whose runlock is dead: its session goes at once, and nothing of it stays', async () => {
    await hold('dead');
    const run = await waiter('dead');
    run.signal('SIGKILL');
    await run.ended;
    expect(await away('dead', 'web01', '--json')).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/"kind": "sent-away",[^]*"how": "dead"/) as string,
    });
    expect(await on('dead').keys()).toEqual(['.last', '.slot/0/owner', '.tail']);
    expect(await on('dead').sessions()).toEqual([]);
  });

  test('one that is stopped: said to be silent; continued, it leaves and does not queue again', async () => {
    await hold('stopped');
    const run = await waiter('stopped');
    const last = await tail('stopped');
    run.signal('SIGSTOP');
    const done = await away('stopped');
    expect(done).toMatchObject({ status: 0 });
    expect(done.stdout).toMatch(
      /^removed web01 from the queue .* has not answered \(stopped, dead, or cut off from Consul\)/,
    );
    expect(await queue('stopped')).toEqual([]);
    run.signal('SIGCONT');
    expect(await run.ended).toMatchObject({ status: 79, stderr: sentAway('stopped') });
    expect(await tail('stopped')).toBe(last);
    expect(await on('stopped').keys()).toEqual(['.last', '.slot/0/owner', '.tail']);
  }, 60_000);

  test('what it left for a run that never came back keeps its node from nothing', async () => {
    await hold('later');
    const run = await waiter('later');
    run.signal('SIGSTOP');
    await away('later');
    run.signal('SIGKILL');
    await run.ended;
    expect(await on('later').keys()).toContain('.node/web01');
    await unhold('later');
    expect((await runlock(agent, ['exec', '-g', 'later', '--node', 'web01', '--', 'true'])).status).toBe(0);
    expect(await on('later').keys()).toEqual(['.last', '.runs/web01', '.runs/web09', '.tail']);
  }, 60_000);

  test('that gets its slot at that very moment: refused, and the run goes on', async () => {
    await hold('moment');
    const { folder } = stage();
    const args = ['exec', '-g', 'moment', '--node', 'web01', '--session-ttl', '10s', '--'];
    const loop = `echo >>${folder}/started; while ! [ -e ${folder}/end ]; do sleep 0.05; done`;
    const run = startRunlock(agent, [...args, 'sh', '-c', loop]);
    await eventually(async () => expect(await queue('moment')).toEqual(['web01']));
    const proxy = await startProxy(agent);
    onTestFinished(proxy.close);
    let go: () => void = () => undefined;
    const granted = new Promise<void>((resolve) => (go = resolve));
    proxy.rule({ match: writes('unlock', '/.node/'), times: 1, do: { until: granted } });
    const sending = startRunlock(proxy, ['release', 'moment', '--owner', 'web01', '--force']);
    await proxy.seen(writes('unlock', '/.node/'));
    await unhold('moment');
    await eventually(async () => expect(await on('moment').keys()).toContain('.slot/0/lock'));
    go();
    const { status, stdout, stderr } = await sending.ended;
    expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
    expect(stderr).toMatch(
      /^runlock: web01 has just acquired slot 0 of moment and is running sh \(run \S+\); nothing was done; to evict it: 'runlock release moment --owner web01 --force'\n$/,
    );
    writeFileSync(`${folder}/end`, '');
    expect((await run.ended).status).toBe(0);
  });

  test('whose join was never answered: it is sent away all the same', async () => {
    await hold('unheard');
    const proxy = await startProxy(agent);
    onTestFinished(proxy.close);
    let went: () => void = () => undefined;
    const joined = new Promise<void>((resolve) => (went = resolve));
    proxy.rule({ match: STEPS.enqueue, times: 1, do: { done: went } });
    const args = ['exec', '-g', 'unheard', '--node', 'web01', '--session-ttl', '10s', '--', 'true'];
    const run = startRunlock(proxy, args);
    await joined;
    expect(await away('unheard')).toMatchObject({ status: 0 });
    expect(await run.ended).toMatchObject({ status: 79, stderr: sentAway('unheard') });
  }, 60_000);
});

describe('by who may not end its session', () => {
  async function withoutTheRight(group: string) {
    const words = ['', 'node_', 'session_'].map((kind) =>
      kind === '' ? 'key_prefix "runlock/" { policy = "write" }' : `${kind}prefix "" { policy = "read" }`,
    );
    const token = await guarded.token(words.join('\n'));
    const env = { ...guarded.env, CONSUL_HTTP_TOKEN: token };
    const { hold, start, waiting } = groupOf(guarded, group);
    const holder = await hold('web09');
    const run = start('web01', '--session-ttl', '10s', '--', 'true');
    await waiting(1);
    return { holder, run, sending: startRunlock({ env }, ['release', group, '--owner', 'web01', '--force']) };
  }
  const warned =
    /refused .*; the token needs the rule: session_prefix .*; so the removed run may exit only when/;

  test('it exits when its turn comes, and both lines say so', async () => {
    const { holder, run, sending } = await withoutTheRight('late');
    const { status, stdout, stderr } = await sending.ended;
    expect({ status, stdout }).toEqual({
      ...{
        status: 0,
        stdout: 'removed web01 from the queue of late; its runlock on web01 exits when its turn comes\n',
      },
    });
    expect(stderr).toMatch(warned);
    await holder.end();
    expect(await run.ended).toMatchObject({ status: 79 });
  }, 60_000);

  test('it has exited if its turn came meanwhile', async () => {
    const { holder, run, sending } = await withoutTheRight('soon');
    await sending.says(warned);
    await holder.end();
    expect(await run.ended).toMatchObject({ status: 79 });
    const how = 'its runlock has exited';
    expect((await sending.ended).stdout).toBe(`removed web01 from the queue of soon; ${how}\n`);
  });
});

const guarded = useAgent({ acl: true });
