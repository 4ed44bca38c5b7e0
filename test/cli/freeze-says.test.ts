// What an operator reads of freeze and thaw, and what they leave in Consul.
import { writeFileSync } from 'node:fs';
import { hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import type { Result } from '../support/program.ts';
import { startProxy } from '../support/proxy.ts';
import { writes } from '../support/proxy-steps.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const agent = useAgent();

const me = `${userInfo().username}@${hostname()}`;

const freeze = (...args: string[]) => runlock(agent, ['freeze', ...args]);
const thaw = (...args: string[]) => runlock(agent, ['thaw', ...args]);

const keyOf = (path: string) => `runlock/${path}/.freeze`;
const stored = async (path: string) =>
  JSON.parse((await agent.kv.get(keyOf(path)))?.Value ?? 'null') as Record<string, string> | null;

/** A freeze as runlock stores it. */
const byAnna = (fields: object = {}) =>
  JSON.stringify({ v: 1, by: 'anna@ops', reason: 'release day', since: new Date().toISOString(), ...fields });

const done = (stdout: string): Result => ({ status: 0, stdout, stderr: '' });

/** One line on stderr, nothing on stdout. */
function expectComplaint({ status, stdout, stderr }: Result, code: number, pattern: RegExp): void {
  expect({ status, stdout }).toEqual({ status: code, stdout: '' });
  expect(stderr).toMatch(/^runlock: [^\n]+\n$/);
  expect(stderr).toMatch(pattern);
}

test('where nothing is stored yet status says who froze all, since and until when, and the cure', async () => {
  const elsewhere = ['--prefix', 'new'];
  await freeze('/', '--reason', 'new disks', '--for', '2h', ...elsewhere);
  const { stdout } = await runlock(agent, ['status', ...elsewhere]);
  expect(stdout.replaceAll(/\d{4}-\S+Z \(in [^)]+\)/g, 'WHEN').replace(/\d+s ago/, 'Ns ago')).toBe(
    'nothing is stored below new/ (or this token may not read it)\n' +
      `every group was frozen Ns ago by ${me} (new disks); no new runs until WHEN\n` +
      'fix: runlock thaw / --prefix new\n',
  );
  const report = JSON.parse((await runlock(agent, ['status', '--json', ...elsewhere])).stdout) as object;
  expect(report).toMatchObject({
    v: 1,
    groups: [],
    frozen: { at: '', by: me },
    fix: 'runlock thaw / --prefix new',
  });
  expect(await thaw('/', ...elsewhere)).toMatchObject({ status: 0 });
});

describe('who froze it', () => {
  const by = async (group: string, env: Readonly<Record<string, string>>) => {
    const said = await runlock(agent, ['freeze', group, '--reason', 'x'], { env });
    expect(said).toMatchObject({ status: 0, stderr: '' });
    return (await stored(group))?.['by'];
  };

  test('is the person, not the account that sudo or doas lent', async () => {
    expect(await by('who/sudo', { SUDO_USER: 'alice', SUDO_UID: '1000' })).toBe(`alice@${hostname()}`);
    expect(await by('who/doas', { DOAS_USER: 'alice' })).toBe(`alice@${hostname()}`);
    expect(await by('who/root', { SUDO_USER: 'root' })).toBe(me);
    expect(await by('who/empty', { SUDO_USER: '' })).toBe(me);
  });

  test('is the account that it runs as, whatever the environment says', async () => {
    expect(await by('who/user', { USER: 'mallory', LOGNAME: 'mallory', USERNAME: 'mallory' })).toBe(me);
  });

  test('is a number where the account has no name, as in a container', async () => {
    const { folder } = stage();
    writeFileSync(join(folder, 'id'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    const named = await by('who/number', { PATH: `${folder}:${process.env['PATH'] ?? ''}` });
    expect(named).toBe(`uid-${process.getuid?.() ?? ''}@${hostname()}`);
  });
});

describe('what freeze says', () => {
  test('who, why, since when and until when stand in Consul, and in status as text and JSON', async () => {
    const before = Date.now();
    const said = await freeze('told/web', '--reason', ' release day ', '--for', '90m');
    const record = await stored('told/web');
    expect(record).toEqual({
      ...{ v: 1, by: me, reason: 'release day' },
      ...{ since: expect.any(String) as string, until: expect.any(String) as string },
    });
    const [since, until] = [record?.['since'] ?? '', record?.['until'] ?? ''];
    expect(Date.parse(since)).toBeGreaterThanOrEqual(before);
    expect(Math.abs(Date.parse(until) - Date.parse(since) - 5_400_000)).toBeLessThan(1_000);
    const short = until.replace(/\.\d+Z/, 'Z');
    expect({ ...said, stdout: said.stdout.replace(/\(in [^)]+\)/, '(in N)') }).toEqual(
      done(
        `froze told/web until ${short} (in N): release day\n` +
          `no new runs in told/web or below it; active runs finish; to thaw: 'runlock thaw told/web'\n`,
      ),
    );
    const { stdout } = await runlock(agent, ['status', 'told/web']);
    expect(stdout).toMatch(/^told\/web \(frozen\)\n/);
    expect(stdout.replace(/\d+s ago/, 'Ns ago')).toContain(
      `was frozen Ns ago by ${me} (release day); no new runs until ${short}`,
    );
    expect(stdout).toMatch(/\n {2}fix: runlock thaw told\/web\n/);
    const report = JSON.parse((await runlock(agent, ['status', '--json', 'told/web/a'])).stdout) as object;
    const frozen = { at: 'told/web', by: me, reason: 'release day', since, until };
    expect(report).toMatchObject({ groups: [{ group: 'told/web/a', frozen }] });
  });

  test('another freeze takes the place of the first, and says what it replaced', async () => {
    await agent.kv.put(keyOf('again'), byAnna());
    const { status, stdout } = await freeze('again', '--reason', 'longer');
    expect(status).toBe(0);
    expect(stdout.replace(/\d+s ago/, 'Ns ago').split('\n')[1]).toBe(
      'replaced the freeze set by anna@ops Ns ago until thawed: release day',
    );
    expect(await stored('again')).toMatchObject({ by: me, reason: 'longer' });
  });

  test('of eight operators at once each replaces another’s freeze, and one stands', async () => {
    const reasons = Array.from({ length: 8 }, (_, i) => `reason ${i}`);
    const answers = await Promise.all(reasons.map((reason) => freeze('race', '--reason', reason, '--json')));
    const results = answers.map(({ stdout }) => JSON.parse(stdout) as { replaced?: { reason: string } });
    const replaced = results.flatMap((result) => result.replaced?.reason ?? []);
    expect(replaced).toHaveLength(7);
    expect([...replaced, (await stored('race'))?.['reason']].sort()).toEqual(reasons);
  });

  test('--json', async () => {
    await agent.kv.put(keyOf('json'), byAnna());
    const { status, stdout, stderr } = await freeze('json', '--reason', 'a\u202eb', '--for', '1h', '--json');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).not.toContain('\u202e');
    const { v, ...freezing } = (await stored('json')) ?? {};
    expect(v).toBe(1);
    expect(JSON.parse(stdout)).toEqual({
      ...{ v: 1, kind: 'frozen', freeze: { at: 'json', ...freezing } },
      replaced: { at: 'json', by: 'anna@ops', reason: 'release day', since: expect.any(String) as string },
    });
  });

  test('one past its end is not replaced: it counts as absent', async () => {
    await agent.kv.put(keyOf('over'), byAnna({ until: '2020-01-02T00:00:00Z' }));
    const { stdout } = await freeze('over', '--reason', 'release day', '--json');
    expect(JSON.parse(stdout)).not.toHaveProperty('replaced');
    expect(await stored('over')).toMatchObject({ by: me });
  });
});

describe('what thaw says', () => {
  test('what was thawed, as text and JSON', async () => {
    await agent.kv.put(keyOf('thaw'), byAnna());
    const said = await thaw('thaw');
    expect({ ...said, stdout: said.stdout.replace(/\d+s/, 'Ns') }).toEqual(
      done('thawed thaw, which anna@ops froze Ns ago: release day\n'),
    );
    expect(await stored('thaw')).toBeNull();
    await agent.kv.put(keyOf('thaw'), byAnna());
    expect(JSON.parse((await thaw('thaw', '--json')).stdout)).toEqual({
      ...{ v: 1, kind: 'thawed', problems: [] },
      freeze: { at: 'thaw', by: 'anna@ops', reason: 'release day', since: expect.any(String) as string },
    });
  });

  test('that a group is not frozen, which is no error', async () => {
    const before = await agent.kv.tree();
    expect(await thaw('never')).toEqual(done('never is not frozen\n'));
    expect(await thaw('/')).toEqual(done('/ is not frozen\n'));
    expect(JSON.parse((await thaw('never', '--json')).stdout)).toEqual({
      ...{ v: 1, kind: 'not-frozen', at: 'never', problems: [] },
    });
    expect(await agent.kv.tree()).toEqual(before);
  });

  test('that a freeze had ended, which it deletes', async () => {
    await agent.kv.put(keyOf('late'), byAnna({ until: new Date(Date.now() - 3_660_000).toISOString() }));
    const { status, stdout } = await thaw('late');
    expect(status).toBe(0);
    expect(stdout).toBe('late is not frozen: the freeze by anna@ops (release day) ended 1h01m ago\n');
    expect(await stored('late')).toBeNull();
  });

  test('which group above is frozen, and how to thaw that one: exit 75, and that freeze stays', async () => {
    await agent.kv.put(keyOf('high'), byAnna());
    const refused = await thaw('high/a/web');
    expectComplaint(
      refused,
      75,
      /high\/a\/web itself is not frozen, but high was frozen \d+s ago by anna@ops \(release day\) until thawed; to thaw high and every group below it: 'runlock thaw high'\n$/,
    );
    expect(await stored('high')).toMatchObject({ by: 'anna@ops' });
  });

  test('that a group above still stops the one that was thawed', async () => {
    await agent.kv.put(keyOf('both'), byAnna());
    await agent.kv.put(keyOf('both/web'), byAnna({ by: 'bob@ops' }));
    const { status, stdout } = await thaw('both/web');
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^thawed both\/web, which bob@ops froze .*\nstill no new runs: both was frozen .*; to thaw both and every group below it: 'runlock thaw both'\n$/,
    );
    expect(await stored('both/web')).toBeNull();
    expect(await stored('both')).toMatchObject({ by: 'anna@ops' });
  });
});

describe('an answer that is lost', () => {
  test.each(['drop-before', 'drop-after'] as const)(
    '%s: freeze and thaw ask what is there',
    async (fault) => {
      const proxy = await startProxy(agent);
      onTestFinished(() => proxy.close());
      proxy.rule({ match: writes('cas', '/.freeze'), times: 1, do: fault });
      const set = await runlock(proxy, ['freeze', fault, '--reason', 'release day', '--json']);
      expect(set).toMatchObject({ status: 0, stderr: '' });
      expect(JSON.parse(set.stdout)).not.toHaveProperty('replaced');
      expect(await stored(fault)).toMatchObject({ reason: 'release day' });
      proxy.clear();
      proxy.rule({ match: writes('delete-cas', '/.freeze'), times: 1, do: fault });
      const ended = await runlock(proxy, ['thaw', fault, '--json']);
      expect(ended).toMatchObject({ status: 0, stderr: '' });
      expect(JSON.parse(ended.stdout)).toMatchObject({ kind: 'thawed', freeze: { reason: 'release day' } });
      expect(await stored(fault)).toBeNull();
    },
  );

  test('and no Consul to ask: it says that nobody knows, exit 69', async () => {
    const proxy = await startProxy(agent);
    onTestFinished(() => proxy.close());
    proxy.rule({ match: writes('cas', '/.freeze'), do: 'drop-after' });
    const freezing = runlock(proxy, ['freeze', 'unknown', '--reason', 'release day']);
    await proxy.seen(writes('cas', '/.freeze'));
    await proxy.close();
    expectComplaint(
      await freezing,
      69,
      /whether runlock\/unknown\/\.freeze was changed is unknown: check with 'runlock status unknown'/,
    );
  });
});

describe('a freeze that cannot be read', () => {
  test.each([
    [
      'written by a newer runlock',
      JSON.stringify({ v: 2, why: 'x' }),
      /written by a newer runlock .*upgrade/,
    ],
    ['no freeze at all', 'garbage', /not a freeze that runlock wrote; check the value with 'consul kv get/],
  ])('%s: exec, freeze and thaw say so in one line, exit 78, and it stays', async (name, value, pattern) => {
    const group = name.replaceAll(' ', '-');
    await agent.kv.put(keyOf(group), value);
    expectComplaint(await runlock(agent, ['exec', '-g', group, '-w', '0', '--', 'echo', 'ran']), 78, pattern);
    expectComplaint(await freeze(group, '--reason', 'release day'), 78, pattern);
    expectComplaint(await thaw(group), 78, pattern);
    expect((await agent.kv.get(keyOf(group)))?.Value).toBe(value);
    // One above it may stop a group that has none, or no longer has one.
    const below = await thaw(`${group}/web`);
    expect(below).toMatchObject({ status: 0, stdout: `${group}/web is not frozen\n` });
    expect(below.stderr).toMatch(/^runlock: another freeze may still be in effect: [^\n]+\n$/);
    expect(below.stderr).toMatch(pattern);
  });
});

test('wrong usage: one line, exit 64, and nothing is written', async () => {
  for (const [args, pattern] of [
    [['freeze', 'odd'], /--reason is required/],
    [['freeze', 'odd', '--reason', 'a\x1b[2Jb'], /one line/],
    [['freeze', '--reason', 'x'], /missing <group>; /],
    [['thaw'], /missing <group>; /],
  ] as const) {
    const wrong = await runlock(agent, args);
    expectComplaint(wrong, 64, pattern);
    expect(wrong.stderr).not.toContain('\x1b');
  }
  expect(await stored('odd')).toBeNull();
});

describe('rights', () => {
  const guarded = useAgent({ acl: true });
  const withRules = async (...rules: string[]) => ({
    env: { ...guarded.env, CONSUL_HTTP_TOKEN: await guarded.token(rules.join('\n')) },
  });
  const own = 'key "runlock/prod/web/.freeze" { policy = "write" }';

  test('one rule is enough to freeze and thaw a group', async () => {
    const token = await withRules(own);
    expect((await runlock(token, ['freeze', 'prod/web', '--reason', 'release day'])).status).toBe(0);
    const thawed = await runlock(token, ['thaw', 'prod/web']);
    expect(thawed).toMatchObject({ status: 0 });
    expect(thawed.stdout).toMatch(/^thawed prod\/web, /);
    // It can't know whether one above is frozen, and says so.
    expect(thawed.stderr).toMatch(
      /another freeze may still be in effect: .*key "runlock\/prod\/.freeze" { policy = "read" }/,
    );
  });

  test('without it: exit 77, and the message names the rule', async () => {
    for (const token of [await withRules(), await withRules(own.replace('write', 'read'))]) {
      const refused = await runlock(token, ['freeze', 'prod/web', '--reason', 'release day']);
      expectComplaint(refused, 77, /key "runlock\/prod\/web\/\.freeze" { policy = "write" }/);
    }
    expect(await guarded.kv.keys('runlock/')).toEqual([]);
    await guarded.kv.put(keyOf('prod/web'), byAnna());
    const refused = await runlock(await withRules(own.replace('write', 'read')), ['thaw', 'prod/web']);
    expectComplaint(refused, 77, /key "runlock\/prod\/web\/\.freeze" { policy = "write" }/);
    expect(await guarded.kv.keys('runlock/')).toEqual([keyOf('prod/web')]);
  });
});
