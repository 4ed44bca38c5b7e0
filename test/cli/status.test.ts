// What `status` tells an operator: who holds, who waits, why a group stands still, and how to free it.
import { randomUUID } from 'node:crypto';
import { symlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { stage } from '../support/stage.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { RUNLOCK } from '../support/program.ts';
import type { StartOptions } from '../support/program.ts';

const agent = useAgent();

const on = (group: string) => groupOf(agent, group);

const status = (args: readonly string[], options?: StartOptions) =>
  runlock(agent, ['status', ...args], options);

interface Group {
  readonly group: string;
  readonly known: boolean;
  readonly state: string;
  readonly slots: readonly Record<string, unknown>[];
  readonly queue: readonly Record<string, unknown>[];
  readonly problems: readonly string[];
  readonly why: string;
  readonly fix?: string;
}

async function report(...args: string[]) {
  const { status: code, stdout, stderr } = await status(['--json', ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as { v: number; prefix: string; at: string; groups: readonly Group[] };
}

async function group(name: string): Promise<Group> {
  const [first] = (await report(name)).groups;
  if (!first) throw new Error(`no group ${name}`);
  return first;
}

const waiter = async (name: string, node: string, place: number) => {
  const run = on(name).start(node, '--', 'true');
  await on(name).waiting(place);
  return run;
};

/** A claim as runlock stores it. */
const byHand = (fields: Readonly<Record<string, unknown>>) =>
  JSON.stringify({
    ...{ v: 1, node: 'web01', state: 'failed', run: randomUUID(), since: new Date().toISOString() },
    ...{ command: 'chef-client', hold: 'forever', exitCode: 1, pid: 1, startTime: '1', bootId: 'another' },
    ...fields,
  });

/** The printed command, as an operator pastes it into a shell that finds runlock. */
async function paste(command: string): Promise<void> {
  const { folder } = stage();
  symlinkSync(RUNLOCK, `${folder}/runlock`);
  const PATH = `${folder}:${dirname(process.execPath)}:${process.env['PATH'] ?? ''}`;
  await execa('sh', ['-c', command], { env: { ...agent.env, PATH } });
}

describe('after a failed run, with two who wait', () => {
  const busy = async (name: string) => {
    await on(name).exec('web01', '--', 'sh', '-c', 'exit 3');
    const waiters = [await waiter(name, 'web02', 1), await waiter(name, 'web03', 2)];
    return async () => {
      for (const run of waiters) run.signal('SIGTERM');
      for (const run of waiters) await run.ended;
    };
  };

  test('the table says who, since when, what, how it ended, and who waits in which order', async () => {
    const end = await busy('table');
    const { status: code, stdout, stderr } = await status(['table']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout.split('\n').map((line) => line.trim().replaceAll(/ {2,}/g, ' | '));
    // Why, and what to do, stood below a queue that can be long.
    expect(lines[0]).toBe('table (blocked)');
    expect(lines[1]).toMatch(/^slot 0: web01 failed \d+s ago \(sh, exit 3\) .*; 2 runs waiting/);
    expect(lines[2]).toMatch(/^next: repair web01 and run it again/);
    expect(lines[3]).toBe('fix: runlock release table --owner web01');
    expect(lines[4]).toBe('SLOT | STATE | NODE | SINCE | COMMAND | EXIT | HOLD');
    expect(lines[5]).toMatch(/^0 \| failed \| web01 \| \d+s \| sh \| 3 \| forever$/);
    expect(lines[6]).toBe('PLACE | NODE | WAITING | COMMAND');
    expect(lines[7]).toMatch(/^1 \| web02 \| \d+s \| true$/);
    expect(lines[8]).toMatch(/^2 \| web03 \| \d+s \| true$/);
    expect(lines.slice(9)).toEqual(['']);
    await end();
  });

  test('--json says the same, with stable names', async () => {
    const startedMs = Date.now();
    const end = await busy('json');
    const { v, prefix, at, groups } = await report('json');
    expect({ v, prefix }).toEqual({ v: 1, prefix: 'runlock' });
    expect(Date.parse(at)).toBeGreaterThanOrEqual(startedMs);
    expect(groups).toMatchObject([
      {
        group: 'json',
        known: true,
        state: 'blocked',
        slots: [
          {
            slot: 0,
            state: 'failed',
            alive: false,
            node: 'web01',
            command: 'sh',
            exitCode: 3,
            hold: 'forever',
          },
        ],
        queue: [
          { place: 1, node: 'web02', command: 'true' },
          { place: 2, node: 'web03', command: 'true' },
        ],
        problems: [],
        fix: 'runlock release json --owner web01',
      },
    ]);
    expect(Date.parse(String(groups[0]?.slots[0]?.['since']))).toBeGreaterThanOrEqual(startedMs);
    const waited = groups[0]?.queue.map((one) => Number(one['waitedMs'])) ?? [];
    expect(waited[0]).toBeGreaterThan(waited[1] ?? Infinity);
    expect(waited[1]).toBeGreaterThan(0);
    await end();
  });

  test('the printed command, pasted into a shell, frees the group', async () => {
    await on('freed/web').exec('web01', '--', 'false');
    const next = await waiter('freed/web', 'web02', 1);
    const { stdout } = await status(['freed/web']);
    const [, command = ''] = /^ {2}fix: (.+)$/m.exec(stdout) ?? [];
    expect(command).toBe('runlock release freed/web --owner web01');
    await paste(command);
    expect((await next.ended).status).toBe(0);
    expect(await group('freed/web')).toMatchObject({ why: 'idle: nothing running or waiting' });
  });
});

describe('what else a group can be', () => {
  test('never used, below a frozen one: both are said, for its name may be wrong', async () => {
    expect((await runlock(agent, ['freeze', 'cold', '--reason', 'x'])).status).toBe(0);
    const { status, stdout } = await runlock(agent, ['status', 'cold/wep']);
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /cold \(which includes cold\/wep\) was frozen .*; group cold\/wep has not been used yet/,
    );
    expect((await runlock(agent, ['status', 'cold'])).stdout).not.toContain('has not been used');
    expect((await runlock(agent, ['thaw', 'cold'])).status).toBe(0);
  });

  test('never used: it says so, and that is no error', async () => {
    const result = await status(['never']);
    expect(result).toMatchObject({ status: 0, stderr: '' });
    expect(result.stdout).toBe(
      'never\n  group never has not been used yet (or this token may not read it)\n',
    );
    expect(await group('never')).toMatchObject({ known: false, queue: [] });
    expect(await on('never').keys()).toEqual([]);
  });

  test('idle', async () => {
    await on('idle').exec('web01', '--', 'true');
    expect(await group('idle')).toMatchObject({ slots: [{ slot: 0, state: 'free' }], queue: [] });
    expect((await status(['idle'])).stdout).toMatch(/^ {2}idle: nothing running or waiting$/m);
  });

  test('running: who, what and since when, and nothing to fix', async () => {
    const { folder, pid } = stage();
    const script = `echo $$ >${folder}/command.pid; exec sleep 300`;
    const args = ['exec', '-g', 'runs', '--node', 'web01', '--', 'sh', '-c', script];
    const run = startRunlock(agent, args);
    await pid('command');
    const seen = await group('runs');
    expect(seen).toMatchObject({ slots: [{ state: 'running', alive: true, node: 'web01', pid: run.pid }] });
    expect(seen.why).toMatch(/^slot 0: web01 has been running sh for \d+s$/);
    expect(seen).not.toHaveProperty('fix');
    run.signal('SIGTERM');
    await run.ended;
  });

  test('frozen: by whom, why, and the command that thaws it', async () => {
    await on('ice').freeze('anna', 'release day');
    const seen = await group('ice/web');
    expect(seen.why).toMatch(/^ice \(which includes ice\/web\) was frozen \d+s ago by anna \(release day\)/);
    expect(seen.fix).toBe('runlock thaw ice');
    expect((await status(['ice/web'])).stdout).toContain('ice/web (frozen)');
    await agent.kv.delete('runlock/ice/.freeze');
  });

  test('a run whose session is gone: what to look at, and the command', async () => {
    await agent.kv.put('runlock/lost/.slot/0/owner', byHand({ state: 'running', exitCode: undefined }));
    const seen = await group('lost');
    expect(seen.why).toMatch(
      /^slot 0: web01 has vanished or is cut off from Consul, and chef-client may still be running there/,
    );
    expect((await status(['lost'])).stdout).toContain('running (no session)');
  });

  test('a claim that a newer runlock wrote is a problem of its group, and no end of the report', async () => {
    await agent.kv.put('runlock/newer/.slot/0/owner', JSON.stringify({ v: 2 }));
    const seen = await group('newer');
    expect(seen.slots).toMatchObject([{ state: 'unreadable' }]);
    expect(seen.problems.join()).toContain('written by a newer runlock');
  });
});

describe('several groups', () => {
  test('the named ones, each once; without names all there are', async () => {
    for (const name of ['many/a', 'many/b', 'many']) await on(name).exec('web01', '--', 'true');
    const named = await report('many/b', 'many/a', 'many/b');
    expect(named.groups.map((one) => one.group)).toEqual(['many/a', 'many/b']);
    const all = (await report()).groups.map((one) => one.group);
    expect(all).toEqual([...all].sort());
    expect(all).toEqual(expect.arrayContaining(['many', 'many/a', 'many/b']));
    expect((await status(['many', 'many/a'])).stdout).toMatch(
      /^groups: .*3 idle.*\n\nmany \(idle\)\n(?: .*\n)+\nmany\/a \(idle\)\n(?: .*\n)+\nidle: many\/b\n$/,
    );
  });

  test('-g names a group as for exec, several times and beside others', async () => {
    const named = await report('-g', 'many/b', 'many', '--group', 'many/a');
    expect(named.groups.map((one) => one.group)).toEqual(['many', 'many/a', 'many/b']);
    // Inside a run the environment names the run's group; status is of all groups all the same.
    const { stdout } = await status(['--json'], { env: { RUNLOCK_GROUP: 'many/a' } });
    expect((JSON.parse(stdout) as { groups: unknown[] }).groups.length).toBeGreaterThan(1);
  });

  test('those that stand still come first and in full, idle ones last, in one line', async () => {
    const inOrder = (...args: string[]) => runlock(agent, ['status', '--prefix', 'order', ...args]);
    const run = (name: string, command: string) =>
      runlock(agent, ['exec', '--prefix', 'order', '-g', name, '--node', 'web01', '--', command]);
    for (const name of ['a', 'b', 'd']) await run(name, 'true');
    await run('c', 'false');
    const { stdout } = await inOrder();
    expect(stdout).toMatch(
      /^groups: 1 blocked, 0 waiting, 0 running, 3 idle, 0 frozen\n\nc \(blocked\)\n {2}slot 0: web01 failed .*\n {2}next: .*\n {2}fix: .*\n {2}SLOT .*\n {2}0 +failed .*\n\nidle: a, b, d\n$/,
    );
    expect((await inOrder('a', 'c')).stdout).toMatch(/\nc \(blocked\)\n(?: .*\n)+\na \(idle\)\n(?: .*\n)+$/);
    expect((await inOrder('--all')).stdout).toMatch(/\n\na \(idle\)\nb \(idle\)\nd \(idle\)\n$/);
  });

  test('--blocked shows those alone, and counts all; --check and --all take none of it', async () => {
    const some = (...args: string[]) => runlock(agent, ['status', '--prefix', 'some', ...args]);
    const run = (name: string, command: string) =>
      runlock(agent, ['exec', '--prefix', 'some', '-g', name, '--node', 'web01', '--', command]);
    await run('good', 'true');
    expect((await some('--blocked')).stdout).toMatch(/^groups: 0 blocked, .*\n\nno group is blocked\n$/);
    await run('bad', 'false');
    const { stdout } = await some('--blocked');
    expect(stdout).toMatch(
      /^groups: 1 blocked, 0 waiting, 0 running, 1 idle, 0 frozen\n\nbad \(blocked\)\n(?: .*\n)+$/,
    );
    const json = JSON.parse((await some('--blocked', '--json')).stdout) as {
      states: object;
      groups: readonly { group: string; state: string }[];
    };
    expect(json.states).toEqual({ blocked: 1, waiting: 0, running: 0, idle: 1, frozen: 0 });
    // A wrong name must not look like good news.
    expect((await some('--blocked', 'bda')).stdout).toMatch(/^bda\n.* has not been used yet/);
    expect((await some('--blocked', 'good')).stdout).toMatch(/^no group is blocked\n$/);
    expect(json.groups).toMatchObject([{ group: 'bad', state: 'blocked' }]);
    expect((await some('--blocked', '--all')).status).toBe(64);
    expect((await some('--blocked', '--check')).status).toBe(3);
  });

  test('a name stands for all groups below it, as for freeze; --check judges them too', async () => {
    await on('tree/db').exec('web01', '--', 'true');
    await on('tree/web').exec('web01', '--', 'false');
    await on('treehouse').exec('web01', '--', 'true');
    const { stdout } = await status(['tree']);
    expect(stdout).toMatch(
      /^groups: 1 blocked, .* 1 idle, .*\n\ntree\/web \(blocked\)\n(?: .*\n)+\nidle: tree\/db\n$/,
    );
    const states = async () => (await report('tree')).groups.map((one) => [one.group, one.known, one.state]);
    // What nobody has used is named all the same: a program finds what it asked for first.
    const below = [
      ['tree/db', true, 'idle'],
      ['tree/web', true, 'blocked'],
    ];
    expect(await states()).toEqual([['tree', false, 'idle'], ...below]);
    const check = async () => runlock(agent, ['status', '--check', '-g', 'tree']);
    expect(await check()).toMatchObject({
      status: 1,
      stdout: expect.stringMatching(/^RUNLOCK WARNING - tree\/web .*groups=2;/) as string,
    });
    await on('tree').exec('web01', '--', 'true');
    expect(await states()).toEqual([['tree', true, 'idle'], ...below]);
    expect((await status(['tree'])).stdout).toMatch(/\n\ntree \(idle\)\n/);
    await runlock(agent, ['release', 'tree/web', '--owner', 'web01']);
    expect((await check()).status).toBe(0);
    expect((await runlock(agent, ['status', '--check', '-g', 'tree/no'])).status).toBe(3);
  });

  test('a prefix that nobody uses', async () => {
    const result = await status(['--prefix', 'nowhere']);
    expect(result).toMatchObject({ status: 0, stderr: '' });
    expect(result.stdout).toMatch(/^nothing is stored below nowhere\//);
    expect((await report('--prefix', 'nowhere')).groups).toEqual([]);
  });
});

describe('what comes from Consul cannot speak to the terminal', () => {
  const nasty = 'chef\u001b]0;owned\u0007\u001b[2J\u202e\r\nrunlock: all is well';

  test('control characters are spelled out', async () => {
    const since = new Date().toISOString();
    await agent.kv.put('runlock/nasty/.slot/0/owner', byHand({ command: nasty }));
    await on('nasty').freeze(nasty, nasty, { since });
    for (const args of [['nasty'], ['nasty', '--json']]) {
      const { stdout } = await status(args, { env: { FORCE_COLOR: '0' } });
      // eslint-disable-next-line no-control-regex -- these are what must not be there
      expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
      expect(stdout).not.toMatch(/^runlock: all is well/m);
    }
    expect((await status(['nasty'])).stdout).toContain(String.raw`chef\x1b]0;owned\x07\x1b[2J\u202e\x0d\x0a`);
    expect((await group('nasty')).slots[0]?.['command']).toBe(nasty);
    await agent.kv.delete('runlock/nasty/.freeze');
  });

  test('in what a busy exec says, too', async () => {
    await agent.kv.put('runlock/nasty/.slot/0/owner', byHand({ command: nasty }));
    const busy = await on('nasty').exec('web02', '-w', '0', '--', 'true');
    expect(busy.status).toBe(75);
    // eslint-disable-next-line no-control-regex -- these are what must not be there
    expect(busy.stderr).toMatch(/^runlock: busy: [^\u0000-\u001f\u007f-\u009f\u202e]+\n$/);
    expect(busy.stderr).toContain(String.raw`chef\x1b]0;owned`);
  });

  test('a group’s name that a shell would obey is nobody’s group', async () => {
    await agent.kv.put('runlock/$(reboot)/.slot/0/owner', byHand({}));
    expect((await status([])).stdout).not.toContain('$(reboot)');
  });
});

describe.each([60, 80, 120])('on %i columns', (columns) => {
  const LONG = 'web-frontend-eu-central-1a-0123456789.prod.internal.example.com';
  const since = new Date(Date.now() - 7_200_000).toISOString();
  const ticket = { v: 1, node: LONG, run: 'r', since, command: 'chef-client', pid: 1 };
  const shown = async (...args: string[]) =>
    (await status(['--prefix', `wide${columns}`, ...args], { env: { COLUMNS: String(columns) } })).stdout;

  test('a fleet that is busy, blocked and idle fits, and no name or command is cut', async () => {
    const put = (key: string, value: string) => agent.kv.put(`wide${columns}/${key}`, value);
    const path = 'prod/eu-central-1/availability-zone-a/frontend/web';
    await put(`${path}/.slot/0/owner`, byHand({ node: LONG, since }));
    await put(`${path}/.queue/0f`, JSON.stringify(ticket));
    await put(`short/.slot/0/owner`, byHand({ node: 'web01', since, state: 'held', command: 'acquire' }));
    for (let i = 0; i < 40; i += 1) await put(`idle/rack-${i}/.tail`, JSON.stringify({ v: 1, session: 's' }));
    const text = await shown();
    expect(LONG).toHaveLength(63);
    // What can't be broken is longer than a line of its own: a name, a path, a command to copy.
    const long = /^ *(?:fix: .*|'consul .*'|(?:\S+ )?\S+|problem: \S+)$/;
    const wide = text.split('\n').filter((line) => line.length > columns && !long.test(line));
    expect(wide).toEqual([]);
    expect(text.split('\n').filter((line) => line.includes('…'))).toEqual([]);
    expect(text).toMatch(/^groups: 1 blocked, 0 waiting, 1 running, 40 idle, 0 frozen\n/);
    expect(text).toContain(`  fix: runlock release ${path} --owner ${LONG} --prefix wide${columns}\n`);
    expect(text).toMatch(/^idle: idle\/rack-0.* and \d+ more \(--all shows them\)$/m);
    expect(text.split(LONG).length).toBeGreaterThanOrEqual(5);
    expect(await shown('short')).toMatch(/^ {2}0 +held +web01 +2h +acquire +1 +forever$/m);
  });
});

describe('colour', () => {
  const ESCAPE = '\u001b[';
  const colours = async (env: Record<string, string>) =>
    (await status(['paint'], { env })).stdout.includes(ESCAPE);

  test('none in a pipe, with FORCE_COLOR=1 some, with NO_COLOR none whatever else is set', async () => {
    await on('paint').exec('web01', '--', 'false');
    expect(await colours({})).toBe(false);
    expect(await colours({ FORCE_COLOR: '1' })).toBe(true);
    expect(await colours({ FORCE_COLOR: '0' })).toBe(false);
    expect(await colours({ NO_COLOR: '1' })).toBe(false);
    expect(await colours({ NO_COLOR: '1', FORCE_COLOR: '1' })).toBe(false);
    expect(await colours({ NO_COLOR: '', FORCE_COLOR: '1' })).toBe(true);
  });

  test('--json never has any', async () => {
    const { stdout } = await status(['paint', '--json'], { env: { FORCE_COLOR: '1' } });
    expect(stdout).not.toContain(ESCAPE);
    expect(() => JSON.parse(stdout) as unknown).not.toThrow();
  });
});
