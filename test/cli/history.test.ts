// Each node's last run, and who has been silent for how long: what is stored, shown, and forgotten.
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { createToken } from '../support/consul-api.ts';
import { eventually } from '../support/processes.ts';
import { runlock } from '../support/runlock.ts';
import type { StartOptions } from '../support/program.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent({ acl: true });

const on = (group: string) => groupOf(agent, group);

const history = (args: readonly string[], options?: StartOptions) =>
  runlock(agent, ['history', ...args], options);

interface Report {
  readonly v: number;
  readonly known: number;
  readonly nodes: readonly Record<string, unknown>[];
  readonly problems: readonly string[];
}
const report = async (...args: string[]) => JSON.parse((await history([...args, '--json'])).stdout) as Report;
const names = ({ nodes }: Report) => nodes.map(({ node }) => node);

const HOUR = 3_600_000;
const ago = (hours: number) => new Date(Date.now() - hours * HOUR).toISOString();

/** A record as runlock stores it, hours ago. */
const record = (node: string, hours: number, fields: Record<string, unknown> = {}) =>
  JSON.stringify({
    ...{ v: 1, node, run: `run-${node}`, outcome: 'succeeded', exitCode: 0, command: 'chef-client', slot: 0 },
    ...{ endedAt: ago(hours), waitedMs: 65_000, ranMs: 130_000 },
    ...fields,
  });
const put = (group: string, node: string, hours: number, fields?: Record<string, unknown>) =>
  agent.kv.put(`runlock/${group}/.runs/${node}`, record(node, hours, fields));

const cells = (stdout: string) => stdout.split('\n').map((line) => line.trim().replaceAll(/ {2,}/g, ' | '));

describe('what a run leaves', () => {
  test('failing runs after a good one keep when that ended; the next good one is newer', async () => {
    await on('kept').exec('web01', '--', 'true');
    const good = (await on('kept').lastRun('web01')) as Record<string, string>;
    expect(good).toMatchObject({ outcome: 'succeeded' });
    expect(good).not.toHaveProperty('lastGoodAt');
    for (let run = 0; run < 2; run++) {
      await on('kept').exec('web01', '--', 'sh', '-c', 'exit 3');
      expect(await on('kept').lastRun('web01')).toMatchObject({
        outcome: 'failed',
        lastGoodAt: good['endedAt'],
      });
    }
    await on('kept').exec('web01', '--timeout', '50ms', '--', 'sleep', '60');
    expect(await on('kept').lastRun('web01')).toMatchObject({
      outcome: 'timed-out',
      lastGoodAt: good['endedAt'],
    });
    await on('kept').exec('web01', '--', 'true');
    const [now] = (await report('kept')).nodes;
    expect(Date.parse(String(now?.['lastGoodAt']))).toBeGreaterThan(Date.parse(good['endedAt'] ?? ''));
  });

  test('of a node whose every run failed no good one is known', async () => {
    await on('never').exec('web01', '--', 'false');
    await on('never').exec('web01', '--', 'false');
    expect(await on('never').lastRun('web01')).not.toHaveProperty('lastGoodAt');
    expect(cells((await history(['never'])).stdout)[1]).toMatch(/^web01 \| unknown \| failed \| 1 \|/);
  });

  test('a record that nobody can read keeps no run from giving its slot back', async () => {
    await agent.kv.put('runlock/torn/.runs/web01', 'rubbish');
    expect((await on('torn').exec('web01', '--hold', 'none', '--', 'false')).status).toBe(1);
    expect(await on('torn').lastRun('web01')).toMatchObject({ outcome: 'failed' });
    expect(await on('torn').keys('.slot/')).toEqual([]);
  });
});

describe('the table', () => {
  test('has outcome, exit code, when, waited, ran; the longest silent first', async () => {
    await put('table', 'new', 1);
    await put('table', 'old', 76);
    await put('table', 'bad', 2, { outcome: 'failed', exitCode: 3, lastGoodAt: ago(100) });
    // As an older runlock left it: when its last good run was, nobody knows.
    await put('table', 'unknown', 3, { outcome: 'lost', exitCode: 143 });
    const { status, stdout, stderr } = await history(['table']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(cells(stdout)).toEqual([
      'NODE | SUCCEEDED | OUTCOME | EXIT | ENDED | WAITED | RAN | COMMAND',
      'unknown | unknown | lost | 143 | 3h | 1m05s | 2m10s | chef-client',
      'bad | 4d4h | failed | 3 | 2h | 1m05s | 2m10s | chef-client',
      'old | 3d4h | succeeded | 0 | 3d4h | 1m05s | 2m10s | chef-client',
      'new | 1h | succeeded | 0 | 1h | 1m05s | 2m10s | chef-client',
      '',
    ]);
  });

  test('without a group has all groups below the prefix, and says which', async () => {
    const prefix = ['--prefix', 'fleet'];
    await agent.kv.put('fleet/prod/web/.runs/web01', record('web01', 2));
    await agent.kv.put('fleet/prod/.runs/web01', record('web01', 5));
    const { stdout } = await history(prefix);
    expect(cells(stdout).slice(0, 3)).toEqual([
      'NODE | GROUP | SUCCEEDED | OUTCOME | EXIT | ENDED | WAITED | RAN | COMMAND',
      'web01 | prod | 5h | succeeded | 0 | 5h | 1m05s | 2m10s | chef-client',
      'web01 | prod/web | 2h | succeeded | 0 | 2h | 1m05s | 2m10s | chef-client',
    ]);
  });

  // It showed the named group alone once, other than freeze stops it.
  test('a name stands for all groups below it, which are named then; --silent-for judges them too', async () => {
    await put('deep', 'web01', 5);
    expect(cells((await history(['deep'])).stdout)[0]).toMatch(/^NODE \| SUCCEEDED/);
    await put('deep/web', 'web02', 48);
    await put('deeper', 'web03', 48);
    expect(cells((await history(['deep'])).stdout).slice(0, 3)).toEqual([
      'NODE | GROUP | SUCCEEDED | OUTCOME | EXIT | ENDED | WAITED | RAN | COMMAND',
      expect.stringMatching(/^web02 \| deep\/web \|/),
      expect.stringMatching(/^web01 \| deep \|/),
    ]);
    expect(await history(['deep', '--silent-for', '1d'])).toMatchObject({
      status: 1,
      stdout: expect.stringContaining('1 of 2 entries in deep without a successful run for 1d') as string,
    });
  });

  test('fits the terminal, and cannot be made to speak to it', async () => {
    await put('narrow', 'web01', 2, { command: 'chef'.repeat(40) });
    await put('narrow', 'web02', 2, { command: 'x\u001b[2J\u202e' });
    const screen = startInTerminal(agent, ['history', 'narrow']);
    expect(await screen.ended).toBe(0);
    const lines = screen
      .screen()
      // eslint-disable-next-line no-control-regex -- colours take no room
      .replaceAll(/\u001b\[\d+m/g, '')
      .split('\r\n');
    expect(lines.every((line) => line.length <= 80)).toBe(true);
    expect(lines.join('\n')).toMatch(/web01 .*chef…$/m);
    expect(screen.screen()).toContain(String.raw`x\x1b[2J\u202e`);
  });

  test('a group without any run says so', async () => {
    expect(await history(['nobody'])).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: 'no runs recorded in nobody (or this token may not read them)\n',
    });
  });

  test('a record that a newer runlock wrote is a problem, and no end of the report', async () => {
    await put('newer', 'web01', 1);
    await agent.kv.put('runlock/newer/.runs/web02', JSON.stringify({ v: 2 }));
    const { status, stdout } = await history(['newer']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ {2}web01 /m);
    expect(stdout).toMatch(/^ {2}problem: runlock\/newer\/.runs\/web02: .*newer runlock/m);
    // Nobody knows a good run of it.
    expect((await history(['newer', '--silent-for', '1d'])).status).toBe(1);
  });
});

test('--json has the same, with stable names', async () => {
  await put('json', 'web01', 30, { outcome: 'failed', exitCode: 3, lastGoodAt: ago(50) });
  const { v, known, nodes, problems } = await report('json');
  expect({ v, known, problems }).toEqual({ v: 1, known: 1, problems: [] });
  expect(Object.keys(nodes[0] ?? {})).toEqual([
    ...['node', 'group', 'outcome', 'exitCode', 'endedAt', 'lastGoodAt', 'waitedMs', 'ranMs', 'command'],
    ...['slot', 'run'],
  ]);
  expect(nodes[0]).toMatchObject({ node: 'web01', group: 'json', outcome: 'failed', exitCode: 3 });
});

describe('--silent-for', () => {
  test('lists who had no good run for that long, and exits 1; 0 if there are none', async () => {
    await put('silent', 'fresh', 2);
    await put('silent', 'failing', 1, { outcome: 'failed', exitCode: 1, lastGoodAt: ago(30) });
    await put('silent', 'recent', 1, { outcome: 'failed', exitCode: 1, lastGoodAt: ago(3) });
    await put('silent', 'gone', 40);
    await put('silent', 'unknown', 1, { outcome: 'interrupted', exitCode: 130 });
    const found = await history(['silent', '--silent-for', '1d']);
    expect(found).toMatchObject({ status: 1, stderr: '' });
    expect(cells(found.stdout).map((line) => line.split(' | ')[0])).toEqual([
      ...[
        'NODE',
        'unknown',
        'gone',
        'failing',
        '3 of 5 entries in silent without a successful run for 1d',
        '',
      ],
    ]);
    expect(names(await report('silent', '--silent-for', '36h'))).toEqual(['unknown', 'gone']);
    await agent.kv.delete('runlock/silent/.runs/unknown');
    expect(await history(['silent', '--silent-for', '1d17h'])).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: 'all 4 entries in silent had a successful run within 1d17h\n',
    });
  });

  test('of a group in which no run is known is no verdict: 3, as a monitoring plugin says UNKNOWN', async () => {
    const none = await history(['no-such-group', '--silent-for', '1d']);
    expect(none).toMatchObject({ status: 3, stderr: '' });
    expect(none.stdout).toMatch(/^no runs recorded in no-such-group [^\n]*\n$/);
    expect((await history(['no-such-group', '--silent-for', '1d', '--json'])).status).toBe(3);
    expect((await history(['no-such-group'])).status).toBe(0);
  });

  test.each(['1x', 'd', '0', '0d', '-1d', 'forever'])('%s is no such time', async (text) => {
    const { status, stdout, stderr } = await history(['--silent-for', text]);
    expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
    expect(stderr).toMatch(
      /^runlock: --silent-for \S+: (?:not a duration; write it like 90s, 10m, 1h30m or 2d|must be greater than 0)\n$/,
    );
  });
});

describe('--forget', () => {
  test('deletes what is known of the node in the group, and says so', async () => {
    for (const group of ['old', 'old/web']) await put(group, 'web07', 99);
    await put('old', 'web08', 99);
    expect(await history(['old', '--forget', 'web07'])).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: 'deleted the record of web07 in old\nkept the record of web07 in old/web\n',
    });
    expect(await on('old').keys()).toEqual(['.runs/web08', 'web/.runs/web07']);
    const again = await history(['old', '--forget', 'web07', '--json']);
    expect(JSON.parse(again.stdout)).toMatchObject({ forgotten: [], below: ['old/web'] });
  });

  test('without a group in all of them, even where the record can’t be read', async () => {
    for (const group of ['all/a', 'all/b']) await agent.kv.put(`runlock/${group}/.runs/web09`, 'rubbish');
    const { stdout } = await history(['--forget', 'web09', '--json']);
    expect(JSON.parse(stdout)).toMatchObject({ v: 1, node: 'web09', forgotten: ['all/a', 'all/b'] });
    expect(await on('all').keys()).toEqual([]);
  });

  test('a node that nobody knows is said, and no error: it may be asked twice', async () => {
    expect(await history(['old', '--forget', 'web99'])).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: 'no run of web99 is recorded in old; nothing was deleted\n',
    });
  });

  test('together with --silent-for it is wrong usage', async () => {
    expect((await history(['--forget', 'web01', '--silent-for', '1d'])).status).toBe(64);
  });
});

test('of groups below one the token reads what it may, and says that others may be missing', async () => {
  for (const group of ['part/a', 'part/b']) await put(group, 'web01', 1);
  const token = await createToken(agent.http, 'key_prefix "runlock/part/a/" { policy = "read" }');
  const env = { CONSUL_HTTP_TOKEN: token };
  const { status, stdout } = await history(['part'], { env });
  expect(status).toBe(0);
  expect(stdout).toMatch(/^ {2}web01 +part\/a /m);
  expect(stdout).toMatch(/nodes may be missing here: .*key_prefix "runlock\/part\/"/);
  expect((await history(['part', '--silent-for', '1d'], { env })).status).toBe(77);
  // Status does the same.
  const seen = await runlock(agent, ['status', 'part'], { env });
  expect(seen.status).toBe(0);
  expect(seen.stdout).toMatch(/idle: part\/a\n|^part\/a \(idle\)\n/m);
  expect(seen.stdout).toMatch(/groups and freezes may be missing here: .*key_prefix "runlock\/part\/"/);
  expect((await runlock(agent, ['status', '--check', '-g', 'part'], { env })).status).toBe(3);
  const own = await runlock(agent, ['status', 'part/a'], { env });
  expect(own.stdout).not.toContain('missing here');
});

test('a group that the token may not read is refused, not empty', async () => {
  await put('secret', 'web01', 1);
  const token = await createToken(agent.http, 'key_prefix "runlock/other/" { policy = "read" }');
  const { status, stdout, stderr } = await history(['secret'], { env: { CONSUL_HTTP_TOKEN: token } });
  expect({ status, stdout }).toEqual({ status: 77, stdout: '' });
  expect(stderr).toContain('key_prefix "runlock/secret/" { policy = "read" }');
});

test('10,000 nodes fit into a small heap', async () => {
  const all = Array.from({ length: 10_000 }, (_, i) => `web${String(i).padStart(5, '0')}`);
  for (let from = 0; from < all.length; from += 64) {
    const operations = all.slice(from, from + 64).map((node, i) => ({
      KV: {
        ...{ Verb: 'set', Key: `runlock/many/.runs/${node}` },
        Value: Buffer.from(record(node, 1 + from + i)).toString('base64'),
      },
    }));
    expect((await agent.kv.txn(operations)).status).toBe(200);
  }
  const { status, stdout, stderr } = await history(['many'], {
    env: { NODE_OPTIONS: '--max-old-space-size=64' },
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const lines = cells(stdout);
  expect(lines).toHaveLength(10_002);
  expect(lines[1]).toMatch(/^web09999 /);
  await eventually(() => agent.kv.deleteTree('runlock/many/'));
});
