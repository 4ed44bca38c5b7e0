// What `doctor` finds wrong, named so that an operator can put it right; and that it leaves nothing behind.
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createTls } from '../support/consul-config.ts';
import { startAgent, startCluster } from '../support/consul.ts';
import { useAgent } from '../support/use-agent.ts';
import type { Agent } from '../support/consul.ts';
import { eventually } from '../support/processes.ts';
import { IS_BINARY, preloading } from '../support/program.ts';
import type { StartOptions } from '../support/program.ts';
import { consulBinary } from '../support/provision.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { startInTerminal } from '../support/terminal.ts';

const agent = useAgent({ name: 'web01' });

type Reached = Pick<Agent, 'env'> | undefined;

interface Check {
  readonly check: string;
  readonly level: string;
  readonly found: string;
  readonly fix?: string;
}

async function doctor(where: Reached, args: readonly string[] = [], options?: StartOptions) {
  const { status, stdout, stderr } = await runlock(where, ['doctor', '--json', ...args], options);
  expect(stderr).toBe('');
  const report = JSON.parse(stdout) as { v: number; verdict: string; checks: readonly Check[] };
  expect(status).toBe({ ok: 0, warning: 1, problem: 2 }[report.verdict]);
  const of = (level: string) => report.checks.filter((check) => check.level === level);
  return { ...report, status, stdout, warnings: of('warning'), problems: of('problem'), notes: of('note') };
}

/** The one complaint of a report that has no other. */
function only(checks: readonly Check[]): Check {
  expect(checks).toHaveLength(1);
  const [check] = checks;
  if (!check) throw new Error('no such check');
  return check;
}

async function stored(where: Agent) {
  const keys = await where.kv.tree();
  return { keys, sessions: (await where.http('GET', '/v1/session/list')).json() };
}

describe('all is well', () => {
  test('a line a check, the address first, exit 0, and nothing of it in Consul', async () => {
    const before = await stored(agent);
    const { status, stdout, stderr } = await runlock(agent, ['doctor', '-g', 'prod/web']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).toBe(`ok       address      Consul at ${agent.address} (from CONSUL_HTTP_ADDR)`);
    expect(lines.at(-1)).toBe('no problems for group prod/web');
    for (const line of lines.slice(0, -1)) expect(line).toMatch(/^(?:ok|note) {5,}?[a-z]+ +\S/);
    expect(stdout).toMatch(/^ok {7}leader +127\./m);
    expect(stdout).toMatch(/^ok {7}versions +agent \d[\d.]+, servers \d[\d.]+$/m);
    expect(stdout).toMatch(/^ok {7}node +web01 \(the agent's node\)$/m);
    expect(await stored(agent)).toEqual(before);
  });

  test('--json has the same checks, and a version', async () => {
    const report = await doctor(agent, ['-g', 'prod/web', '--node', 'other']);
    expect(report).toMatchObject({
      v: 1,
      verdict: 'ok',
      address: agent.address,
      prefix: 'runlock',
      groups: ['prod/web'],
    });
    const names = new Set(report.checks.map(({ check }) => check));
    for (const name of [
      'contact',
      'tls',
      'leader',
      'versions',
      'clock',
      'token',
      'rights',
      'connections',
      'leftovers',
    ])
      expect(names).toContain(name);
    expect(report.checks).toContainEqual({
      check: 'node',
      level: 'ok',
      found: "other (--node; the agent's is web01)",
    });
  });

  test('after a run of the group', async () => {
    await runlock(agent, ['exec', '-g', 'used', '--', 'true']);
    expect(await doctor(agent, ['-g', 'used'])).toMatchObject({ status: 0, warnings: [], problems: [] });
  });
});

describe('no Consul', () => {
  test('nothing listens: the first line has the address, the next the reason, exit 2', async () => {
    const CONSUL_HTTP_ADDR = '127.0.0.1:1';
    const { status, stdout, stderr } = await runlock(undefined, ['doctor'], { env: { CONSUL_HTTP_ADDR } });
    expect({ status, stderr }).toEqual({ status: 2, stderr: '' });
    expect(stdout).toMatch(
      /^ok +address +Consul at 127\.0\.0\.1:1 \(from CONSUL_HTTP_ADDR\)\nproblem +contact .*connection refused\); is the agent running/,
    );
  });

  test('an agent that does not answer is said so within seconds', async () => {
    await using hanging = await startAgent();
    hanging.pause();
    const started = performance.now();
    const report = await doctor(hanging);
    expect(performance.now() - started).toBeLessThan(15_000);
    expect(only(report.problems)).toMatchObject({ check: 'contact' });
    hanging.resume();
  });

  test('an address that means nothing, with a password in it that is never shown', async () => {
    const env = { CONSUL_HTTP_ADDR: 'ftp://me:geheim@consul' };
    const report = await doctor(undefined, [], { env });
    expect(only(report.problems).found).toContain("unknown scheme 'ftp'");
    expect(report.checks[0]?.found).toBe('Consul at ftp://…@consul (from CONSUL_HTTP_ADDR)');
    expect(report.stdout).not.toContain('geheim');
  });

  test('a leader is missing: one problem, and what it takes', async () => {
    await using cluster = await startCluster({ servers: 2, clients: 0, raftMultiplier: 1 });
    const [survivor, other] = cluster.servers;
    if (!survivor || !other) throw new Error('no servers');
    await other.kill();
    await eventually(async () => {
      expect((await survivor.http('GET', '/v1/status/leader')).json()).toBe('');
    }, 30_000);
    const problem = only((await doctor(survivor)).problems);
    expect(problem).toMatchObject({ check: 'leader' });
    expect(problem.fix).toContain('more than half of the servers');
  });
});

describe('rights', () => {
  const page = readFileSync(new URL('../../docs/rights.md', import.meta.url), 'utf8');
  const [, policy = ''] = /least-rights.*?-->\n```hcl\n(.*?)```/s.exec(page) ?? [];
  const rules = policy.trim().split('\n');
  const readable = ['agent_prefix "" { policy = "read" }', 'node_prefix "" { policy = "read" }'];
  const guarded = useAgent({ acl: true, name: 'web01' });

  const withRules = async (lines: readonly string[]) => {
    const secret = await guarded.token(lines.join('\n'));
    return { secret, env: { ...guarded.env, CONSUL_HTTP_TOKEN: secret } };
  };

  test('the least that a run needs is enough, and the token itself is never shown', async () => {
    const before = await stored(guarded);
    const token = await withRules(rules);
    const report = await doctor(token, ['-g', 'prod/web']);
    expect(report).toMatchObject({ status: 0, warnings: [], problems: [] });
    const versions = report.notes.filter(({ check }) => check === 'versions');
    expect(only(versions).fix).toContain('agent_prefix "" { policy = "read" }');
    expect(report.stdout).not.toContain(token.secret);
    expect(report.checks.find(({ check }) => check === 'token')?.found).toMatch(
      /^from CONSUL_HTTP_TOKEN, accessor /,
    );
    expect(await stored(guarded)).toEqual(before);
  });

  test.for([0, 1, 2, 3])('without rule %i that rule, and no other, is named', async (missing) => {
    const kept = rules.filter((_, index) => index !== missing);
    const report = await doctor(await withRules([...kept, ...readable]), ['-g', 'prod/web']);
    expect(only(report.problems)).toMatchObject({
      check: 'rights',
      fix: `add to the token's policy: ${rules[missing] ?? ''}`,
    });
    expect(report.warnings).toEqual([]);
  });

  test('read where write is needed is not enough', async () => {
    const lines = rules.map((rule) => rule.replace('"write"', '"read"'));
    const report = await doctor(await withRules([...lines, ...readable]), ['-g', 'prod/web']);
    expect(report.problems.map(({ fix }) => fix)).toEqual(
      rules.map((rule) => `add to the token's policy: ${rule}`),
    );
  });

  test('a token that Consul does not know: one problem, and the variable to correct', async () => {
    const file = join(stage().folder, 'token');
    const secret = crypto.randomUUID();
    writeFileSync(file, `${secret}\n`);
    const report = await doctor(guarded, [], {
      env: { CONSUL_HTTP_TOKEN: '', CONSUL_HTTP_TOKEN_FILE: file },
    });
    const problem = only(report.problems);
    expect(problem).toMatchObject({
      check: 'token',
      fix: 'put a valid token into CONSUL_HTTP_TOKEN_FILE',
    });
    expect(report.stdout).not.toContain(secret);
  });

  test('no token at all: a note, and every right that everyone lacks', async () => {
    const report = await doctor(guarded, ['-g', 'prod/web'], { env: { CONSUL_HTTP_TOKEN: '' } });
    expect(report.notes.map(({ check }) => check)).toContain('token');
    expect(report.problems).toHaveLength(4);
  });

  test('without the right to read the catalogue, a claim’s node can’t be told gone: a note', async () => {
    await guarded.kv.put('runlock/prod/web/.slot/0/owner', claim({ node: 'web99' }));
    const { status, notes } = await doctor(await withRules(rules), ['-g', 'prod/web']);
    expect(status).toBe(0);
    expect(notes.map(({ fix }) => fix)).toContainEqual(
      expect.stringContaining('node_prefix "" { policy = "read" }'),
    );
    const report = await doctor(await withRules([...rules, ...readable]), ['-g', 'prod/web']);
    expect(only(report.warnings).found).toContain('web99');
    await guarded.kv.delete('runlock/prod/web/.slot/0/owner');
  });
});

describe('the clock', () => {
  const PRELOAD = 'const now = Date.now; Date.now = () => now() + Number(process.env.AHEAD_MS);';

  test.for([
    [3_600_000, 'ahead of', 'about 1h '],
    [-3_600_000, 'behind', 'about 1h '],
    [8_000, 'ahead of', /about [789]s /],
  ] as const)('%i ms beside the agent’s: which way, how far, exit 2', async ([aheadMs, way, far]) => {
    const preload = join(stage().folder, 'preload.cjs');
    writeFileSync(preload, PRELOAD);
    const env = { ...preloading(preload), AHEAD_MS: String(aheadMs) };
    const problem = only((await doctor(agent, ['-g', 'clock'], { env })).problems);
    expect(problem.check).toBe('clock');
    expect(problem.found).toContain(`${way} the agent's`);
    expect(problem.found).toMatch(far);
    expect(problem.fix).toContain('NTP');
  });

  test('a record from this host’s future says whose key it is', async () => {
    const since = new Date(Date.now() + 3_600_000).toISOString();
    await agent.kv.put('runlock/future/.slot/0/owner', claim({ node: 'web01', since }));
    const warning = only((await doctor(agent, ['-g', 'future'])).warnings);
    expect(warning).toMatchObject({ check: 'clock' });
    expect(warning.found).toMatch(
      /^runlock\/future\/\.slot\/0\/owner was written (?:59m\S*|1h) in the future, by this host's clock$/,
    );
  });
});

/** A claim as runlock stores it. */
function claim(fields: Readonly<Record<string, unknown>>): string {
  return JSON.stringify({
    ...{
      v: 1,
      node: 'web01',
      state: 'failed',
      run: 'r',
      since: new Date().toISOString(),
      command: 'chef-client',
    },
    ...{ hold: 'forever', exitCode: 1, pid: 1, startTime: '1', bootId: 'b', ...fields },
  });
}

test('a configuration file that is there is named, with how much it says', async () => {
  const file = join(stage().folder, 'config.toml');
  writeFileSync(file, 'wait = "30m"\n\n[groups."prod/web"]\nslots = 3\n');
  const { checks } = await doctor(agent, ['--config', file]);
  expect(checks).toContainEqual({ check: 'config', level: 'ok', found: `${file}: valid, 2 settings` });
});

test('a wrong configuration file is a problem with its line; the rest is checked by the defaults', async () => {
  const file = join(stage().folder, 'config.toml');
  writeFileSync(file, 'prefix = "elsewhere"\n[groups."prod/web"]\nslotz = 2\n');
  const report = await doctor(agent, ['--config', file, '-g', 'prod/web']);
  expect(report).toMatchObject({ status: 2, prefix: 'runlock', groups: ['prod/web'] });
  expect(only(report.problems)).toEqual({
    ...{ check: 'config', level: 'problem' },
    found: `${file}:3: unknown key 'slotz' in [groups."prod/web"]; did you mean 'slots'?`,
    fix: 'correct the file; until then every other command exits 78',
  });
  expect(report.checks.map(({ check }) => check)).toEqual(
    expect.arrayContaining(['leader', 'rights', 'host']),
  );
  const text = (await runlock(agent, ['doctor', '--config', file])).stdout;
  expect(text).toMatch(
    /^problem {2}config .* did you mean 'slots'\? correct the file; until then every other /m,
  );
});

test.each([
  ['is not there', '/nowhere.toml', /^--config \/nowhere\.toml: no such file; /],
  ['is a folder', '/', /^--config \/: it is a folder; /],
])('so is one that %s', async (_, file, found) => {
  const report = await doctor(agent, ['--config', file]);
  expect(only(report.problems)).toMatchObject({
    check: 'config',
    found: expect.stringMatching(found) as string,
  });
});

test('what is wrong on the command line or in the environment is wrong usage all the same', async () => {
  for (const [args, env] of [
    [['--config', '/nowhere.toml', '--prefix', '/'], {}],
    [['--config', '/nowhere.toml'], { RUNLOCK_JSON: 'perhaps' }],
  ] as const)
    expect(await runlock(agent, ['doctor', ...args], { env })).toMatchObject({ status: 64, stdout: '' });
});

describe('leftovers', () => {
  const leftover = async (group: string, key: string, value: string) => {
    await agent.kv.put(`runlock/${group}/${key}`, value);
    return doctor(agent, ['-g', group]);
  };

  test('a claim of a node that is not in the catalogue, with the command that clears it', async () => {
    const report = await leftover('gone', '.slot/0/owner', claim({ node: 'web99' }));
    expect(only(report.warnings)).toEqual({
      ...{ check: 'leftovers', level: 'warning' },
      found: "slot 0 is held by web99, which is not in Consul's catalogue",
      fix: 'if that node is gone for good: runlock release gone --owner web99',
    });
    await runlock(agent, ['release', 'gone', '--owner', 'web99']);
    expect((await doctor(agent, ['-g', 'gone'])).status).toBe(0);
  });

  test('a failed run of a node that is there is none', async () => {
    expect((await leftover('there', '.slot/0/owner', claim({}))).status).toBe(0);
  });

  test.for(['running', 'abandoned'])('a run that has vanished: %s', async (state) => {
    const group = `vanished/${state}`;
    const report = await leftover(group, '.slot/0/owner', claim({ state, exitCode: undefined }));
    expect(only(report.warnings)).toMatchObject({
      found: 'slot 0: the run of web01 has vanished',
      fix: expect.stringMatching(
        /^check web01 first: its command may still be running there; .*'runlock release' \(asks for confirmation\)$/,
      ) as string,
    });
  });

  test.for([
    [
      '.queue/nobody',
      JSON.stringify({ v: 1, node: 'web01', run: 'r', since: '2026-01-01T00:00:00Z', command: 'c', pid: 1 }),
    ],
    ['.slot/0/lock', JSON.stringify({ v: 1, run: 'r' })],
  ])('%s without a session, with the command that deletes it', async ([key = '', value = '']) => {
    const group = `stray${key.replaceAll(/\W/g, '-')}`;
    const warning = only((await leftover(group, key, value)).warnings);
    expect(warning.fix).toBe(`consul kv delete runlock/${group}/${key}`);
  });

  test('a record that cannot be read is a problem that names its key', async () => {
    const report = await leftover('odd', '.slot/0/owner', 'nonsense\u001b[2J');
    expect(only(report.problems).found).toBe('runlock/odd/.slot/0/owner: not a claim that runlock wrote');
  });

  test('those of a group below are not this group’s', async () => {
    expect((await leftover('upper/lower', '.slot/0/owner', claim({ node: 'web99' }))).status).toBe(1);
    expect((await doctor(agent, ['-g', 'upper'])).status).toBe(0);
  });
});

describe('connections from this host', () => {
  const open = async (where: Agent, count: number) => {
    const [host = '', port = ''] = where.address.split(':');
    const sockets = Array.from({ length: count }, (): Socket => connect({ host, port: Number(port) }));
    for (const socket of sockets) socket.on('error', () => undefined);
    onTestFinished(() => sockets.forEach((socket) => socket.destroy()));
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
  };
  const counted = ({ found }: Check) => Number(/^(\d+) open/.exec(found)?.[1]);

  test('many are said before Consul closes the next', async () => {
    await open(agent, 160);
    const warning = only((await doctor(agent, ['-g', 'many'])).warnings);
    expect(warning.check).toBe('connections');
    expect(counted(warning)).toBeGreaterThanOrEqual(160);
    expect(warning.fix).toContain('http_max_conns_per_client');
  });

  test('too many, so that Consul closes the next: that stands beside what fails', async () => {
    await using full = await startAgent();
    await open(full, 200);
    const report = await doctor(full);
    expect(only(report.problems)).toMatchObject({ check: 'contact' });
    expect(counted(only(report.warnings))).toBeGreaterThanOrEqual(200);
  });
});

test('in a terminal the levels are coloured', async () => {
  const run = startInTerminal(agent, ['doctor', '-g', 'paint']);
  expect(await run.ended).toBe(0);
  expect(run.screen()).toContain('\u001b[32mok');
  expect(run.screen()).toContain('\u001b[32mno problems for group paint');
});

describe('TLS', () => {
  const secure = useAgent({ tls: true });

  test('verified, with how long the certificate lasts', async () => {
    const report = await doctor(secure);
    expect(report.status).toBe(0);
    expect(report.checks.find(({ check }) => check === 'tls')?.found).toMatch(
      /^verified, certificate valid for \d+d/,
    );
  });

  test("verified by an authority of the system's", async () => {
    const { CONSUL_CACERT: own = '' } = secure.env;
    const report = await doctor(secure, [], { env: { CONSUL_CACERT: '', SSL_CERT_FILE: own } });
    expect(report.checks.find(({ check }) => check === 'tls')?.found).toMatch(/^verified, /);
  });

  test('not verified: a warning, with why it would be refused', async () => {
    const warning = only(
      (await doctor(secure, [], { env: { CONSUL_CACERT: '', CONSUL_HTTP_SSL_VERIFY: 'false' } })).warnings,
    );
    expect(warning).toMatchObject({ check: 'tls' });
    expect(warning.found).toMatch(/is not verified \(verification would fail: \w+/);
  });

  test('another authority: a problem that says so', async () => {
    const foreign = await createTls(await consulBinary(), stage().folder, '127.0.0.1');
    const problem = only((await doctor(secure, [], { env: { CONSUL_CACERT: foreign.ca } })).problems);
    expect(problem.found).toMatch(
      /^TLS with Consul at https:\/\/.* failed \(unable to verify the first certificate/,
    );
    expect(problem.fix).toContain('CONSUL_CACERT');
  });
});

test('by a Unix socket', async () => {
  await using socket = await startAgent({ unixSocket: true });
  const report = await doctor(socket);
  expect(report).toMatchObject({ status: 0, warnings: [], problems: [] });
  expect(report.checks[0]?.found).toMatch(/^Consul at unix:\/\//);
});

test('a node whose name can’t be part of a key is told to take another', async () => {
  await using odd = await startAgent({ name: '-odd' });
  const problem = only((await doctor(odd)).problems);
  expect(problem).toMatchObject({ check: 'node' });
  expect(problem.fix).toContain('--node');
  expect((await doctor(odd, ['--node', 'odd'])).status).toBe(0);
});

test.for([[['--group', '../x']], [['--node', 'a/b']], [['extra']]])(
  '%s is wrong usage',
  async ([args = []]) => {
    const { status, stdout, stderr } = await runlock(agent, ['doctor', ...args]);
    expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  },
);

test.skipIf(IS_BINARY)(
  'what Node.js does not tell is said, and in which package it is otherwise',
  async () => {
    const { stdout } = await runlock(agent, ['doctor']);
    expect(stdout).toMatch(
      /Node\.js resets ignored signals: .*install the Debian package or the single file/,
    );
    expect(stdout).toMatch(
      /by a real-time signal \(34 to 64\) as exit 0.*install the Debian package or the single file/,
    );
  },
);
