// `acquire` and `release` as two halves of exec: what is held between them needs no process and no session.
import { hostname } from 'node:os';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { RUNLOCK } from '../support/program.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const acquireArgs = (group: string, node: string, ...more: string[]) => [
  ...['acquire', group, '--node', node, '--session-ttl', '10s'],
  ...more,
];
const acquire = (group: string, node = 'web01', ...more: string[]) =>
  runlock(agent, acquireArgs(group, node, ...more));
const release = (group: string, node = 'web01', ...more: string[]) =>
  runlock(agent, ['release', group, '--node', node, ...more]);
const exec = (group: string, node: string, ...command: string[]) =>
  on(group).exec(node, '-w', '0', '--', ...command);

const held = (text: string) => JSON.parse(text) as { run: string; fencingToken: number; heldUntil: string };

const silent = { status: 0, stdout: '', stderr: '' };
const HELD = ['.last', '.slot/0/owner', '.tail'];

describe('what is held', () => {
  test('is a claim alone: no process and no session stays, and every other run of the group waits', async () => {
    expect(await acquire('alone')).toEqual(silent);
    expect(await on('alone').keys()).toEqual(HELD);
    expect(await on('alone').sessions()).toEqual([]);
    expect(await on('alone').claim()).toMatchObject({ state: 'held', node: 'web01', hold: 'forever' });
    for (const busy of [await acquire('alone', 'web02', '-w', '0'), await exec('alone', 'web02', 'true')]) {
      expect(busy).toMatchObject({ status: 75, stdout: '' });
      expect(busy.stderr).toMatch(
        /^runlock: busy: no slot available in alone \(slot 0: web01 held for \ds \(acquire\)\)/,
      );
    }
    const status = await runlock(agent, ['status', 'alone']);
    expect(status.stdout).toContain('slot 0: web01 acquired the slot');
    expect(status.stdout).toContain(
      // Once without the host, which is not web01 here: of two machines with one name nobody knew whom to ask.
      `next: wait until web01 releases the slot, or ask the people who work on web01 (on ${hostname()})`,
    );
    // It stood there once, and what it cleared was at work.
    expect(status.stdout).not.toContain('fix:');
  });

  test('is given back by release, recorded with its time, and the next in the queue goes', async () => {
    await acquire('back');
    const next = startRunlock(agent, ['exec', '-g', 'back', '--node', 'web02', '--', 'true']);
    await on('back').waiting();
    const done = await release('back');
    expect(done).toMatchObject({ status: 0, stderr: '' });
    expect(done.stdout).toMatch(/^web01 released slot 0 of back after \d+s\n$/);
    expect((await next.ended).status).toBe(0);
    expect(await on('back').keys()).toEqual(['.last', '.runs/web01', '.runs/web02', '.tail']);
    const record = await on('back').lastRun('web01');
    expect(record).toMatchObject({ outcome: 'succeeded', command: 'acquire', slot: 0 });
    expect(record).toHaveProperty(
      'ranMs',
      expect.toSatisfy((ms: number) => ms > 0 && ms < 60_000),
    );
    expect(record).not.toHaveProperty('exitCode');
  });

  test('stays as failed after release --failed, and the next acquire of the node needs no queue', async () => {
    await acquire('failed');
    await release('failed');
    const good = (await on('failed').lastRun('web01')) as { endedAt?: string } | undefined;
    await acquire('failed');
    const next = startRunlock(agent, acquireArgs('failed', 'web02'));
    await on('failed').waiting();
    const done = await release('failed', 'web01', '--failed', '--exit-code', '3');
    expect(done).toMatchObject({ status: 0, stderr: '' });
    expect(done.stdout).toMatch(
      /^web01 failed after \d+s and still holds slot 0 of failed until a run succeeds; to clear: 'runlock release failed --owner web01'\n$/,
    );
    expect(await on('failed').claim()).toMatchObject({ state: 'failed', exitCode: 3 });
    expect(await on('failed').lastRun('web01')).toMatchObject({
      ...{ outcome: 'failed', exitCode: 3, lastGoodAt: good?.endedAt },
    });
    expect((await exec('failed', 'web03', 'true')).status).toBe(75);
    expect(await acquire('failed', 'web01', '-w', '0')).toEqual(silent);
    expect(await on('failed').claim()).toMatchObject({ state: 'held', node: 'web01' });
    await release('failed');
    expect(await next.ended).toEqual(silent);
    expect(await on('failed').claim()).toMatchObject({ state: 'held', node: 'web02' });
  });

  test('is given back with a lock key beside it that no session holds, which goes too', async () => {
    await acquire('stray');
    await agent.kv.put('runlock/stray/.slot/0/lock', 'by hand');
    expect(await release('stray')).toMatchObject({ status: 0, stderr: '' });
    expect(await on('stray').keys()).toEqual(['.last', '.runs/web01', '.tail']);
  });

  test("is cleared by an operator, who is not the node's own word: nothing is recorded", async () => {
    await acquire('operator');
    const done = await runlock(agent, ['release', 'operator', '--owner', 'web01', '--force']);
    expect(done.stdout).toBe(
      'cleared the held claim of web01 on slot 0 of operator; its work may still be going on: check web01 before other nodes start\n',
    );
    expect(await on('operator').keys()).toEqual(['.last', '.tail']);
  });

  test('with a hold that ends is taken over then', async () => {
    await acquire('ends', 'web01', '--hold', '1s');
    const claim = (await on('ends').claim()) as { heldUntil?: string } | undefined;
    const until = Date.parse(claim?.heldUntil ?? '');
    const next = await runlock(agent, acquireArgs('ends', 'web02', '-w', '30s', '--json'));
    expect(next.status).toBe(0);
    expect(Date.now()).toBeGreaterThanOrEqual(until + 5_000);
    expect(await on('ends').claim()).toMatchObject({ state: 'held', node: 'web02' });
    expect((await release('ends')).stdout).toBe('nothing to release: web01 has no claim in ends\n');
  });

  test('counts as a slot of N, and waits its turn', async () => {
    expect(await acquire('slots', 'web01', '-n', '2')).toEqual(silent);
    expect(await acquire('slots', 'web02', '-n', '2')).toEqual(silent);
    const third = startRunlock(agent, acquireArgs('slots', 'web03', '-n', '2'));
    await on('slots').waiting();
    const fourth = startRunlock(agent, acquireArgs('slots', 'web04', '-n', '2'));
    await on('slots').waiting(2);
    await release('slots', 'web02');
    expect(await third.ended).toEqual(silent);
    expect(await on('slots').keys('.queue/')).toHaveLength(1);
    await release('slots', 'web01');
    expect(await fourth.ended).toEqual(silent);
  });
});

describe('asking again', () => {
  test('while it is held succeeds at once and changes nothing but the fencing token', async () => {
    const first = await acquire('again', 'web01', '--json');
    expect(first).toMatchObject({ status: 0, stderr: '' });
    const again = await acquire('again', 'web01', '--json', '-w', '0', '-v');
    expect(again.status).toBe(0);
    expect(again.stderr).toMatch(
      /web01 already holds slot 0 of again \(acquired \ds ago\); to release: 'runlock release again'/,
    );
    expect(await on('again').keys()).toEqual(HELD);
    const { fencingToken } = held(again.stdout);
    expect(fencingToken).toBe((await agent.kv.get('runlock/again/.slot/0/owner'))?.ModifyIndex);
    expect(fencingToken).toBeGreaterThan(held(first.stdout).fencingToken);
    expect(JSON.parse(again.stdout)).toEqual({ ...held(first.stdout), already: true, fencingToken });
    expect(JSON.parse(first.stdout)).toEqual({
      ...{ v: 1, already: false, group: 'again', node: 'web01', slot: 0 },
      run: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
      fencingToken: expect.any(Number) as number,
      since: expect.stringMatching(/^\d{4}-.*Z$/) as string,
      waitedMs: expect.any(Number) as number,
    });
  });

  test('lets a hold that ends begin anew, or last for ever', async () => {
    const first = held((await acquire('anew', 'web01', '--hold', '1h', '--json')).stdout);
    const again = held((await acquire('anew', 'web01', '--hold', '2h', '--json')).stdout);
    expect(Date.parse(again.heldUntil) - Date.parse(first.heldUntil)).toBeGreaterThanOrEqual(3_600_000);
    expect(again.run).toBe(first.run);
    expect(again.fencingToken).toBeGreaterThan(first.fencingToken);
    const last = held((await acquire('anew', 'web01', '--json')).stdout);
    expect(last).not.toHaveProperty('heldUntil');
    expect(await on('anew').claim()).not.toHaveProperty('heldUntil');
  });

  test('succeeds in a frozen group too, where a new one waits', async () => {
    await acquire('frozen');
    await on('frozen').freeze('ops', 'weekend');
    expect(await acquire('frozen', 'web01', '-w', '0')).toEqual(silent);
    expect((await release('frozen')).status).toBe(0);
    const busy = await acquire('frozen', 'web01', '-w', '0');
    expect(busy.status).toBe(75);
    expect(busy.stderr).toContain('by ops (weekend)');
  });

  test('on another machine with the same node name is busy: it never believes that it holds it', async () => {
    await acquire('namesake');
    const key = 'runlock/namesake/.slot/0/owner';
    const there = { ...(await on('namesake').claim()), machine: 'b'.repeat(32), host: 'b', bootId: 'b' };
    await agent.kv.put(key, JSON.stringify(there));
    const { status, stdout, stderr } = await acquire('namesake', 'web01', '--json');
    expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
    expect(stderr).toMatch(
      /^runlock: busy: another host \(b\) holds slot 0 of namesake as web01, by 'runlock acquire' \ds ago\. Wait for its release, or check that no work is going on there and run 'runlock release namesake --owner web01'\. If this host is a different node, give it its own name with --node\n$/,
    );
    expect(await on('namesake').claim()).toEqual(there);
  });

  test('by several processes of one node at the same time gives it one slot', async () => {
    const asked = ['1', '2', '3', '4', '5'].map(() =>
      acquire('race', 'web01', '-n', '5', '-w', '0', '--json'),
    );
    const answers = await Promise.all(asked);
    expect(answers.filter(({ status }) => status !== 0 && status !== 75)).toEqual([]);
    const runs = answers.filter(({ status }) => status === 0).map(({ stdout }) => held(stdout).run);
    expect(new Set(runs).size).toBe(1);
    expect(await on('race').keys()).toEqual(HELD);
    expect(await on('race').sessions()).toEqual([]);
  });

  test.each([
    ['release', [], 'web01 has no claim in none'],
    ['release --failed', ['--failed'], 'web01 has no claim in none'],
  ])('%s with nothing held is harmless, and says so', async (_, more, said) => {
    expect(await release('none', 'web01', ...more)).toEqual({
      ...{ status: 0, stdout: `nothing to release: ${said}\n`, stderr: '' },
    });
    expect(await on('none').keys()).toEqual([]);
  });

  test('release --failed once more leaves the failed claim alone', async () => {
    await acquire('twice');
    await release('twice', 'web01', '--failed');
    const before = await agent.kv.tree('runlock/twice/');
    const again = await release('twice', 'web01', '--failed', '--json');
    expect(again.status).toBe(0);
    expect(JSON.parse(again.stdout)).toEqual({
      ...{ v: 1, kind: 'nothing', node: 'web01', group: 'twice', claim: 'failed' },
    });
    expect(await agent.kv.tree('runlock/twice/')).toEqual(before);
  });
});

describe('with exec of the same node', () => {
  test('exec is busy while it is held, and says how it ends; it does not give it away', async () => {
    await acquire('mixed');
    const busy = await exec('mixed', 'web01', 'true');
    expect(busy).toMatchObject({ status: 75, stdout: '' });
    expect(busy.stderr).toMatch(
      /^runlock: busy: web01 already holds slot 0 of mixed, by 'runlock acquire' \ds ago; to release: 'runlock release mixed'\n$/,
    );
    expect(await on('mixed').claim()).toMatchObject({ state: 'held' });
    await release('mixed');
    expect((await exec('mixed', 'web01', 'true')).status).toBe(0);
  });

  test('acquire takes the claim of a failed exec back', async () => {
    expect((await exec('after', 'web01', 'false')).status).toBe(1);
    expect(await acquire('after', 'web01', '-w', '0')).toEqual(silent);
    await release('after');
    expect(await on('after').claim()).toBeUndefined();
  });

  test('inside exec both are refused with a word on why, and release --failed touches nothing', async () => {
    const script = `${RUNLOCK} "$@"; echo $?`;
    const inside = (verb: string, ...more: string[]) =>
      exec('nested', 'web01', 'sh', '-c', script, 'sh', verb, 'nested', '--node', 'web01', ...more);
    const acquired = await inside('acquire');
    expect(acquired.stdout).toBe('75\n');
    expect(acquired.stderr).toMatch(
      /busy: web01 is already running.*the enclosing 'runlock exec'.*remove acquire/,
    );
    expect((await inside('release')).stdout).toBe('75\n');
    expect((await inside('release', '--failed')).stdout).toBe(
      'nothing to release: web01 does not hold nested by acquire (its running claim stays)\n0\n',
    );
    expect(await on('nested').lastRun('web01')).toMatchObject({ outcome: 'succeeded' });
  });
});

test.each([
  [['acquire', '--hold', 'none'], {}, /--hold none: would hold nothing; use 'forever' or a duration/],
  [['acquire'], { RUNLOCK_HOLD: 'none' }, /RUNLOCK_HOLD=none: .*would hold nothing/],
  [['release', '--exit-code', '1'], {}, /--exit-code needs --failed/],
  [['release', '--failed', '--owner', 'web01'], {}, /--failed and --owner exclude each other/],
  [['release', '--failed', '--force'], {}, /--failed and --force exclude each other/],
])('%j is wrong usage', async (args, env, said) => {
  const { status, stdout, stderr } = await runlock(agent, args, { env });
  expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
  expect(stderr).toMatch(said);
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
});

test('a waiting acquire on a terminal shows its place and who has the slot; then that line goes', async () => {
  await acquire('live', 'web09');
  const screen = startInTerminal(agent, acquireArgs('live', 'web01'));
  await screen.shows(/waiting [1-9]s for live · place 1 · web09 held for \d+s \(acquire\)/);
  expect((await release('live', 'web09')).status).toBe(0);
  expect(await screen.ended).toBe(0);
  expect(screen.screen().split('\r\x1b[K').at(-1)).toMatch(
    /^runlock: web01 acquired slot 0 of live \(waited \d+s\); to release: 'runlock release live'\r\n$/,
  );
  expect((await on('live').claim())?.node).toBe('web01');
});
