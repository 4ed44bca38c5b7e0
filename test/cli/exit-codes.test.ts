// Each exit code that design promises, through the built program.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, copyFileSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { groupOf } from '../support/group.ts';
import { eventually, untilGone } from '../support/processes.ts';
import { stage } from '../support/stage.ts';
import { runlock } from '../support/runlock.ts';
import { IS_BINARY, RUNLOCK, clean, preloading } from '../support/program.ts';
import type { Result, Running, StartOptions } from '../support/program.ts';

const agent = useAgent({ acl: true });

const on = (group: string) => groupOf(agent, group);

const exec = (group: string, args: readonly string[], options?: StartOptions) =>
  runlock(agent, ['exec', '-g', group, ...args], options);

/** What is in Consul: two of these are equal when nothing was left, taken or changed in between. */
const stored = async () => ({
  pairs: await agent.kv.tree(),
  sessions: (await agent.http('GET', '/v1/session/list')).json(),
});

async function waiter(group: string, node: string, command: readonly string[]): Promise<Running> {
  const run = on(group).start(node, '--', ...command);
  await eventually(async () =>
    expect((await on(group).tickets()).map((ticket) => ticket.node)).toContain(node),
  );
  return run;
}

const sleeper = ['sleep', '300'];

/** One line that says what is wrong, and nothing else. */
function expectComplaint(result: Result, status: number, words: RegExp): void {
  expect(result.stderr).toMatch(/^runlock: [^\n]+\n$/);
  expect(result.stderr).toMatch(words);
  expect(result.stderr).not.toMatch(/node:internal|\.c?js:\d+|^ {4}at /m);
  expect(result).toMatchObject({ status, stdout: '' });
}

describe('the exit code is the command’s own', () => {
  test.each([0, 1, 3, 42, 255])('%i', async (code) => {
    expect((await exec(`own-${code}`, ['--', 'sh', '-c', `exit ${code}`])).status).toBe(code);
  });

  test('64 and 75 are not taken for runlock’s own: the slot is kept as after any failure', async () => {
    for (const code of [64, 75]) {
      expect((await exec(`own-${code}`, ['--', 'sh', '-c', `exit ${code}`])).status).toBe(code);
      expect((await agent.kv.get(`runlock/own-${code}/.slot/0/owner`))?.Value).toContain('"failed"');
    }
  });

  test.each([
    ['TERM', 143],
    ['KILL', 137],
    ['SEGV', 139],
  ])('128 and the number of the signal that it died of: %s', async (signal, status) => {
    const died = await exec(`died-${signal}`, ['--', 'sh', '-c', `ulimit -c 0; kill -${signal} $$`]);
    expect(died.status).toBe(status);
  });

  // Node.js tells of exit code 0 there, and doctor says so (test/cli/doctor.test.ts).
  test.skipIf(!IS_BINARY)('a real-time signal too, and the run was no good one', async () => {
    for (const number of [34, 36, 50, 64]) {
      const group = `died-${number}`;
      expect((await exec(group, ['--', 'sh', '-c', `kill -${number} $$`])).status).toBe(128 + number);
      expect((await agent.kv.get(`runlock/${group}/.slot/0/owner`))?.Value).toContain('"failed"');
    }
  });

  test('every signal that ends a program', async () => {
    const stays = ['CHLD', 'CLD', 'CONT', 'URG', 'WINCH', 'STOP', 'TSTP', 'TTIN', 'TTOU'].map(
      (name) => constants.signals[`SIG${name}` as NodeJS.Signals],
    );
    const numbers = Array.from({ length: 31 }, (_, i) => i + 1).filter((number) => !stays.includes(number));
    const script = `ulimit -c 0; kill -$0 $$; exit 1`;
    for (const number of numbers) {
      const { status } = await exec(`signal-${number}`, ['--', 'sh', '-c', script, String(number)]);
      expect({ number, status }).toEqual({ number, status: 128 + number });
    }
  });
});

describe('64 wrong usage: one line, and nothing in Consul', () => {
  test.each<[string, readonly string[], RegExp]>([
    ['a duration without a unit', ['exec', '-w', '90', '--', 'true'], /--wait 90: not a duration/],
    ['a duration of words', ['exec', '--timeout', 'soon', '--', 'true'], /--timeout soon: not a duration/],
    ['a negative duration', ['exec', '--kill-after=-1s', '--', 'true'], /--kill-after -1s: not a duration/],
    ['no time at all', ['exec', '--timeout', '0s', '--', 'true'], /--timeout 0s: must be greater than 0/],
    ['a duration beyond all reason', ['exec', '-w', '99999h', '--', 'true'], /longer than a year/],
    ['a group from the root', ['exec', '-g', '/prod', '--', 'true'], /--group \/prod: not a group/],
    ['a group with a reserved name', ['exec', '-g', 'prod/.slot', '--', 'true'], /: not a group/],
    ['a group that climbs', ['exec', '-g', 'prod/a..b', '--', 'true'], /: not a group/],
    ['a group with a line break', ['exec', '-g', 'prod\nweb', '--', 'true'], /: not a group/],
    ['an empty group', ['exec', '-g', '', '--', 'true'], /: not a group/],
    ['a node with a slash', ['exec', '--node', 'a/b', '--', 'true'], /--node a\/b: not a node name/],
    ['no slots', ['exec', '-n', '0', '--', 'true'], /--slots 0: not a whole number from 1/],
    ['half a slot', ['exec', '-n', '1.5', '--', 'true'], /--slots 1.5: not a whole number/],
    [
      'a code above 255',
      ['exec', '-E', '256', '--', 'true'],
      /--conflict-exit-code 256: not a whole number from 0 to 255/,
    ],
    ['a list that is none', ['exec', '--ok-codes', '0,x', '--', 'true'], /--ok-codes 0,x: not a list/],
    ['a hold that is none', ['exec', '--hold', 'never', '--', 'true'], /--hold never: not a duration/],
    ['a TTL that Consul refuses', ['exec', '--session-ttl', '5s', '--', 'true'], /10s to 24h/],
    ['a log format', ['exec', '--log-format', 'xml', '--', 'true'], /--log-format xml: unknown log format/],
    ['an unknown option', ['exec', '--tokken', 'x', '--', 'true'], /unknown option '--tokken'/],
    ['an option without its value', ['exec', '-g'], /-g/],
    ['no command', ['exec'], /see 'runlock exec --help'/],
    ['no command after --', ['exec', '-g', 'usage', '--'], /see 'runlock exec --help'/],
    ['nothing at all', [], /no command; see 'runlock --help'/],
    ['an unknown word', ['excec', '--', 'true'], /see 'runlock --help'/],
    ['status with an unknown option', ['status', '--wat'], /unknown option '--wat'/],
    ['status of a bad group', ['status', 'prod//web'], /: not a group/],
    ['release of two groups', ['release', 'one', 'two'], /see 'runlock release --help'/],
    [
      '--hold none with a --kill-after that leaves no time',
      ['exec', '--hold', 'none', '--kill-after', '50s', '--', 'true'],
      /no time for two missed renewals.*shorten --kill-after/,
    ],
    [
      'a short --hold with a --session-ttl that leaves no time',
      ['exec', '--hold', '5s', '--session-ttl', '2m', '--', 'true'],
      /no time for two missed renewals/,
    ],
  ])('%s', async (_name, args, words) => {
    const before = await stored();
    expectComplaint(await runlock(agent, args), 64, words);
    expect(await stored()).toEqual(before);
  });

  test.each([
    ['RUNLOCK_WAIT', 'soon'],
    ['RUNLOCK_GROUP', '../x'],
    ['RUNLOCK_SLOTS', 'many'],
    ['RUNLOCK_DRY_RUN', 'maybe'],
    ['RUNLOCK_KILL_AFTER', '10'],
  ])('a bad %s in the environment is named', async (name, value) => {
    const before = await stored();
    const result = await runlock(agent, ['exec', '--', 'true'], { env: { [name]: value } });
    expectComplaint(result, 64, new RegExp(`${name}=`));
    expect(await stored()).toEqual(before);
  });

  test('a flag goes before a bad word in the environment', async () => {
    const result = await exec('flag', ['-w', '1s', '--', 'true'], { env: { RUNLOCK_WAIT: 'soon' } });
    expect(result).toEqual({ status: 0, stdout: '', stderr: '' });
  });
});

describe('69 Consul not reachable: said within a few seconds', () => {
  async function freePort(): Promise<number> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    return port;
  }

  test('where nothing listens: exec and release within 8 s, status within 20 s, each in one line', async () => {
    const address = `127.0.0.1:${await freePort()}`;
    const startedMs = performance.now();
    const ask = async (...args: string[]) => {
      const result = await runlock(undefined, args, { env: { CONSUL_HTTP_ADDR: address } });
      return { result, tookMs: performance.now() - startedMs };
    };
    const [exec, release, status] = await Promise.all([
      ask('exec', '--', 'true'),
      ask('release', 'prod'),
      ask('status'),
    ]);
    const words = new RegExp(`${address} unreachable \\(connection refused\\)`);
    for (const { result } of [exec, release, status]) expectComplaint(result, 69, words);
    expect(Math.max(exec.tookMs, release.tookMs)).toBeLessThan(8_000);
    expect(status.tookMs).toBeLessThan(20_000);
  });

  test('a socket that is not there', async () => {
    const env = { CONSUL_HTTP_ADDR: 'unix:///nonexistent/consul.sock' };
    const result = await runlock(undefined, ['exec', '--', 'true'], { env });
    expectComplaint(result, 69, /no such socket/);
  });
});

describe('74 stdout could not be written', () => {
  async function into(stdout: number | 'pipe', args: readonly string[]) {
    const env = { ...clean, ...agent.env };
    const child = spawn(RUNLOCK, args, { env, stdio: ['ignore', stdout, 'pipe'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    // Whoever would read leaves before there is anything to read.
    child.stdout?.destroy();
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    await once(child, 'close');
    return { status: child.exitCode, stderr };
  }

  test.each([
    [['status']],
    [['status', '--json']],
    [['history']],
    [['config']],
    [['freeze', 'full/ice', '--reason', 'x']],
    [['acquire', 'full/held', '--json', '--node', 'web01', '-w', '0']],
    [['state', 'set', 'full/state', '1']],
    [['state', 'get', 'full/state']],
    [['wait', '--until', 'idle:full/none', '--timeout', '0', '--json']],
    [['policy', 'viewer']],
    [['--help']],
  ])('a full disk: %j', async (args) => {
    const full = openSync('/dev/full', 'w');
    onTestFinished(() => closeSync(full));
    const { status, stderr } = await into(full, args);
    expect(stderr).toMatch(/^runlock: stdout could not be written \(ENOSPC[^\n]+\n$/);
    expect(status).toBe(74);
  });

  // Node.js opens /dev/null in place of what is closed, and leaves no trace of that.
  describe.runIf(IS_BINARY)('a closed stdout', () => {
    const closed = (args: readonly string[]) =>
      runlock(agent, args, { through: ['sh', '-c', 'exec "$0" "$@" >&-'] });

    test.each([
      [['status'], 74],
      [['history'], 74],
      [['config'], 74],
      [['--version'], 74],
      [['--help'], 74],
      [['freeze', 'closed/ice', '--reason', 'x'], 74],
      // Its own word comes first.
      [['status', '--check', 'closed/nobody'], 3],
    ] as const)('is said: %j', async (args, status) => {
      const result = await closed(args);
      expect(result.stderr).toMatch(/^runlock: stdout is closed, so nothing could be printed; [^\n]+\n$/);
      expect(result.status).toBe(status);
    });

    test('is nothing to exec, and /dev/null is not closed, however it was opened', async () => {
      expect(await closed(['exec', '-g', 'closed', '--', 'true'])).toEqual({
        status: 0,
        stdout: '',
        stderr: '',
      });
      for (const to of ['>/dev/null', '<>/dev/null >&0']) {
        const through = ['sh', '-c', `exec "$0" "$@" ${to}`];
        expect(await runlock(agent, ['status'], { through })).toEqual({ status: 0, stdout: '', stderr: '' });
      }
    });
  });

  test('whoever reads and leaves is no fault', async () => {
    expect(await into('pipe', ['status', '--json'])).toEqual({ status: 0, stderr: '' });
  });
});

describe('75 busy', () => {
  test('no slot and no patience: -w 0', async () => {
    const held = await on('busy').hold();
    const busy = await exec('busy', ['--node', 'web02', '-w', '0', '--', 'true']);
    expectComplaint(busy, 75, /busy: no slot available in busy \(slot 0: web01 running sh for \d+s\)/);
    held.tell();
    expect((await held.ended).status).toBe(0);
  });

  test('no slot within -w 1s, and the queue is left', async () => {
    await exec('busy-1s', ['--node', 'web01', '--', 'false']);
    const startedMs = performance.now();
    const busy = await exec('busy-1s', ['--node', 'web02', '-w', '1s', '--', 'true']);
    expect(performance.now() - startedMs).toBeGreaterThan(1_000);
    expectComplaint(
      busy,
      75,
      /busy: no slot available in busy-1s within 1s \(slot 0: web01 failed \d+s ago \(false, exit 1\)/,
    );
    expect(await agent.kv.keys('runlock/busy-1s/.queue/')).toEqual([]);
    expect(await agent.kv.keys('runlock/busy-1s/.node/')).toEqual([]);
  });

  test.each([
    ['the group', 'frozen/web', 'frozen/web'],
    ['an ancestor', 'cold/web', 'cold'],
  ])('%s is frozen', async (_name, group, above) => {
    await on(above).freeze('anna', 'release day');
    for (const wait of ['0', '300ms']) {
      const busy = await exec(group, ['-w', wait, '--', 'true']);
      expectComplaint(busy, 75, /was frozen \d+s ago by anna \(release day\)/);
    }
    expect(await agent.kv.keys(`runlock/${group}/.slot/`)).toEqual([]);
    await agent.kv.delete(on(above).key('.freeze'));
    expect((await exec(group, ['-w', '0', '--', 'true'])).status).toBe(0);
  });

  test('a freeze past its end stops nobody, and goes', async () => {
    const [since, until] = ['2020-01-01T00:00:00Z', '2020-01-02T00:00:00Z'];
    await on('thawed').freeze('anna', 'new year', { since, until });
    expect((await exec('thawed', ['-w', '0', '--', 'true'])).status).toBe(0);
    expect(await agent.kv.get('runlock/thawed/.freeze')).toBeUndefined();
  });

  test('a freeze stops an owner’s return too', async () => {
    await exec('back-frozen', ['--', 'false']);
    await on('back-frozen').freeze('anna', 'release day');
    expectComplaint(await exec('back-frozen', ['-w', '0', '--', 'true']), 75, /was frozen \d+s ago by anna/);
    expect((await agent.kv.get('runlock/back-frozen/.slot/0/owner'))?.Value).toContain('"failed"');
  });

  // Without a limit both would wait for their node's turn on this host (ADR 41).
  test('this node runs here already', async () => {
    const held = await on('twice').hold();
    expect((await exec('twice', ['-w', '0', '--node', 'web01', '--', 'true'])).status).toBe(75);
    held.tell();
    expect((await held.ended).status).toBe(0);
  });

  test('this node waits here already, and goes on waiting', async () => {
    const held = await on('waits').hold();
    const first = await waiter('waits', 'web02', ['true']);
    expect((await exec('waits', ['-w', '0', '--node', 'web02', '--', 'true'])).status).toBe(75);
    expect(await agent.kv.keys('runlock/waits/.queue/')).toHaveLength(1);
    held.tell();
    expect((await first.ended).status).toBe(0);
  });

  test.each([0, 99])('-E %i instead, for each kind of busy, and only for busy', async (code) => {
    const group = `conflict-${code}`;
    const held = await on(group).hold();
    const other = ['-E', String(code), '-w', '0', '--node'];
    expect((await exec(group, [...other, 'web02', '--', 'true'])).status).toBe(code);
    expect((await exec(group, [...other, 'web01', '--', 'true'])).status).toBe(code);
    held.tell();
    await held.ended;
    expect((await exec(group, [...other, 'web02', '--', 'sh', '-c', 'exit 75'])).status).toBe(75);
  });
});

describe('77 Consul refused: the missing rule is named', () => {
  const session = 'session_prefix "" { policy = "write" }';

  async function refused(group: string, rules: string): Promise<Result> {
    const env = { CONSUL_HTTP_TOKEN: await agent.token(rules) };
    const before = await stored();
    const result = await exec(group, ['-w', '5s', '--', 'true'], { env });
    expect((await stored()).pairs).toEqual(before.pairs);
    expect((await stored()).sessions).toEqual(before.sessions);
    return result;
  }

  test('no rights at all', async () => {
    expectComplaint(await refused('acl', ''), 77, /session "NODE" \{ policy = "write" \}/);
  });

  test('no rights on the group', async () => {
    const result = await refused('acl/web', `${session} key_prefix "runlock/acl/db/" { policy = "write" }`);
    expectComplaint(result, 77, /key_prefix "runlock\/acl\/web\/" \{ policy = "write" \}/);
  });

  test('only reading rights on the group', async () => {
    const result = await refused('acl', `${session} key_prefix "runlock/" { policy = "read" }`);
    expectComplaint(result, 77, /key_prefix "runlock\/acl\/" \{ policy = "write" \}/);
  });

  test('the rights that the messages name are enough', async () => {
    const node = `session "${agent.name}" { policy = "write" }`;
    const freezes = ['runlock/acl/.freeze', 'runlock/.freeze'].map(
      (key) => `key "${key}" { policy = "write" }`,
    );
    const rules = [node, 'key_prefix "runlock/acl/web/" { policy = "write" }', ...freezes].join('\n');
    const env = { CONSUL_HTTP_TOKEN: await agent.token(rules) };
    const result = await exec('acl/web', ['--', 'true'], { env });
    expect(result).toEqual({ status: 0, stdout: '', stderr: '' });
  });

  test('a token that Consul does not know', async () => {
    const env = { CONSUL_HTTP_TOKEN: '7d1a6ff4-0b5c-4b1c-8f5e-000000000000' };
    const before = await stored();
    expectComplaint(
      await exec('acl', ['--', 'true'], { env }),
      77,
      /does not know the token.*CONSUL_HTTP_TOKEN/,
    );
    expect(await stored()).toEqual(before);
  });

  test('no message ever shows a token', async () => {
    const token = await agent.token('');
    const { stderr } = await exec('acl', ['-v', '--', 'true'], { env: { CONSUL_HTTP_TOKEN: token } });
    expect(stderr).not.toContain(token);
  });
});

describe('78 bad configuration', () => {
  test.each([
    ['a token file that is not there', 'CONSUL_HTTP_TOKEN_FILE', '/nonexistent/token', /no such file/],
    ['a token file that is a folder', 'CONSUL_HTTP_TOKEN_FILE', '/', /it is a folder/],
    ['neither true nor false', 'CONSUL_HTTP_SSL_VERIFY', 'maybe', /must be true or false/],
    ['an unknown scheme', 'CONSUL_HTTP_ADDR', 'ftp://consul:8500', /unknown scheme 'ftp'/],
    ['a certificate without its key', 'CONSUL_CLIENT_CERT', '/etc/hostname', /go together/],
  ])('%s', async (_name, variable, value, words) => {
    const before = await stored();
    const result = await exec('config', ['--', 'true'], { env: { [variable]: value } });
    expectComplaint(result, 78, words);
    expect(result.stderr).toContain(variable);
    expect(await stored()).toEqual(before);
  });

  test('a claim of a newer runlock is never guessed at', async () => {
    const key = 'runlock/newer/.slot/0/owner';
    await agent.kv.put(key, JSON.stringify({ v: 2, holder: 'web01' }));
    const before = await stored();
    const result = await exec('newer', ['-w', '5s', '--', 'true']);
    expectComplaint(
      result,
      78,
      /runlock\/newer\/\.slot\/0\/owner: this claim was written by a newer runlock/,
    );
    expect(await stored()).toEqual(before);
  });

  test('a claim that nobody can read is left as it is', async () => {
    await agent.kv.put('runlock/scribble/.slot/0/owner', 'anna was here');
    const before = await stored();
    expectComplaint(await exec('scribble', ['-w', '0', '--', 'true']), 78, /not a claim that runlock wrote/);
    expect(await stored()).toEqual(before);
  });
});

describe('79 lock lost: the command is killed', () => {
  test('evicted', async () => {
    const run = await on('evicted').hold();
    const args = ['release', 'evicted', '--owner', 'web01', '--force'];
    expect((await runlock(agent, args)).status).toBe(0);
    expect((await run.ended).status).toBe(79);
    expect(run.stderr()).toMatch(/^runlock: \S+@\S+ evicted the run; killed the command; [^\n]+\n$/);
    await untilGone(run.command);
  });

  test('the claim names somebody else', async () => {
    const run = await on('stolen').hold();
    const key = 'runlock/stolen/.slot/0/owner';
    const claim = JSON.parse((await agent.kv.get(key))?.Value ?? '{}') as object;
    await agent.kv.put(key, JSON.stringify({ ...claim, node: 'web09', run: 'another' }));
    expect((await run.ended).status).toBe(79);
    expect(run.stderr()).toMatch(/lost the lock of stolen \(its claim names web09 \(run another\)\)/);
    await untilGone(run.command);
    expect((await agent.kv.get(key))?.Value).toContain('web09');
  });
});

describe('124 --timeout', () => {
  test('the command is killed, the claim stays as after a failure', async () => {
    const result = await exec('slow', ['--timeout', '300ms', '--kill-after', '1s', '--', ...sleeper]);
    expectComplaint(result, 124, /killed the command: it ran longer than --timeout/);
    expect((await agent.kv.get('runlock/slow/.slot/0/owner'))?.Value).toContain('"failed"');
  });

  test('a command that ends in time keeps its own code', async () => {
    expect((await exec('quick', ['--timeout', '1h', '--', 'sh', '-c', 'exit 3'])).status).toBe(3);
  });
});

describe('126 and 127 are found out before a slot is taken', () => {
  function inFolder(): { file: string; folder: string } {
    const { folder } = stage();
    const file = `${folder}/not-executable`;
    writeFileSync(file, '#!/bin/sh\n');
    chmodSync(file, 0o644);
    mkdirSync(`${folder}/folder`);
    return { file, folder: `${folder}/folder` };
  }

  test.each([
    ['126: no right to execute it', 126, () => inFolder().file, /may not execute it/],
    ['126: a folder', 126, () => inFolder().folder, /it is a folder/],
    ['127: no such path', 127, () => '/nonexistent/chef-client', /no such file/],
    [
      '127: no such name in PATH',
      127,
      () => 'no-such-program',
      /cannot run no-such-program: not found in PATH; name/,
    ],
    [
      '127: a whole command line',
      127,
      () => 'ls -la',
      /'ls -la': not found in PATH; .*separate words.* sh -c '…'/,
    ],
    [
      '127: a command line with a path',
      127,
      () => '/bin/ls -la',
      /'\/bin\/ls -la': no such file; .*sh -c '…'/,
    ],
    ['127: an empty name', 127, () => '', /empty name/],
  ])('%s', async (_name, status, command, words) => {
    const before = await stored();
    expectComplaint(await exec('missing', ['--', command()]), status, words);
    expect(await stored()).toEqual(before);
  });

  test('said even when the group is busy and Consul is away', async () => {
    const env = { CONSUL_HTTP_ADDR: '127.0.0.1:1' };
    expect((await exec('missing', ['--', 'no-such-program'], { env })).status).toBe(127);
  });

  /** What is known only at the start: no claim stays. */
  async function expectNoStart(group: string, file: string, words: RegExp): Promise<void> {
    expectComplaint(await exec(group, ['--', file]), 126, words);
    expect(await agent.kv.keys(`runlock/${group}/`)).toEqual([
      `runlock/${group}/.last`,
      `runlock/${group}/.tail`,
    ]);
    expect((await exec(group, ['--node', 'web02', '-w', '0', '--', 'true'])).status).toBe(0);
  }

  test('126: a missing interpreter', async () => {
    const { folder } = stage();
    const script = `${folder}/script`;
    writeFileSync(script, '#!/nonexistent/interpreter\n', { mode: 0o755 });
    await expectNoStart('interpreter', script, /interpreter that its first line names/);
  });

  test('126: a program that is being written', async () => {
    const { folder } = stage();
    const program = `${folder}/program`;
    copyFileSync('/bin/true', program);
    const written = openSync(program, 'r+');
    try {
      await expectNoStart('written', program, /still writing this file/);
    } finally {
      closeSync(written);
    }
  });
});

describe('128 and the signal’s number for a waiting runlock', () => {
  test.each<[NodeJS.Signals, number]>([
    ['SIGTERM', 143],
    ['SIGINT', 130],
    ['SIGHUP', 129],
  ])('%s', async (signal, status) => {
    const group = `waiting-${signal}`;
    await exec(group, ['--node', 'web01', '--', 'false']);
    const waiting = await waiter(group, 'web02', ['true']);
    waiting.signal(signal);
    expect(await waiting.ended).toEqual({ status, stdout: '', stderr: '' });
  });
});

test('0: help and version go to stdout, and need no Consul', async () => {
  const env = { CONSUL_HTTP_ADDR: '127.0.0.1:1' };
  for (const args of [
    ['--help'],
    ['exec', '--help'],
    ['status', '--help'],
    ['release', '-h'],
    ['--version'],
  ]) {
    const result = await runlock(undefined, args, { env });
    expect(result).toMatchObject({ status: 0, stderr: '' });
    expect(result.stdout).toMatch(/runlock/);
  }
});

test('70 a bug in runlock: one line that asks for a report, and nothing is started', async () => {
  // A fault that no correct program has: chance breaks before the first use of it.
  const broken = "Math.random=()=>{throw new TypeError('chance broke')}";
  const hook = join(stage().folder, 'hook.cjs');
  writeFileSync(hook, broken);
  const options = { env: preloading(hook) };
  const result = await runlock(agent, ['exec', '-g', 'bug', '--', 'echo', 'ran'], options);
  expect(result).toEqual({
    status: 70,
    stdout: '',
    stderr: 'runlock: bug in runlock, please report: chance broke\n',
  });
});
