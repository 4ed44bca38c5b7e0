// `exec --when`: a run waits for its conditions without a slot, and starts only while they hold.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { groupOf } from '../support/group.ts';
import { eventually } from '../support/processes.ts';
import { startProxy } from '../support/proxy.ts';
import type { Match } from '../support/proxy.ts';
import { STEPS } from '../support/proxy-steps.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ name: 'node1' });

const set = async (path: string, value: string) => {
  expect((await runlock(agent, ['state', 'set', path, value])).status).toBe(0);
};

test('waits outside: no ticket, no claim, no mark, until the condition holds; then it runs', async () => {
  const group = groupOf(agent, 'when/outside');
  const run = group.start('web01', '-v', '--when', 'state:wo/a=1', '--', 'echo', 'ran');
  await run.says(
    /waiting until --when is met, without taking a slot of when\/outside: state:wo\/a=1: wo\/a is not set\n/,
  );
  // But for the record of the wait, which is for people.
  expect((await group.keys()).filter((key) => key !== '.outside/web01')).toEqual([]);
  // Others have the group meanwhile.
  expect((await group.exec('web02', '-w', '0', '--', 'true')).status).toBe(0);
  await set('wo/a', '1');
  expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
});

test('at the end of --wait exits 75, says what is missing and who set it, and starts nothing', async () => {
  const group = groupOf(agent, 'when/busy');
  await set('wb/a', '41');
  for (const wait of ['0', '700ms']) {
    const { status, stdout, stderr } = await group.exec(
      ...(['web01', '-w', wait, '--when', 'state:wb/a=42', '--', 'echo', 'ran'] as const),
    );
    expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
    expect(stderr).toMatch(
      /^runlock: busy: --when is not met: state:wb\/a=42: wb\/a is 41, set by \S+ \d+s ago\n$/,
    );
  }
  expect(
    await group.exec('web01', '-w', '0', '-E', '9', '--when', 'not:state:wb/a', '--', 'true'),
  ).toMatchObject({
    status: 9,
  });
  expect(await group.exec('web01', '-w', '0', '--when', 'state:wb/a=41', '--', 'echo', 'ran')).toMatchObject({
    ...{ status: 0, stdout: 'ran\n' },
  });
});

test('must all hold, in a run of several groups too; a dry run says so', async () => {
  await set('wa/a', '1');
  const group = groupOf(agent, 'when/all', { args: ['-g', 'when/more'] });
  const both = ['--when', 'state:wa/a=1', '--when', 'frozen:when/none'];
  expect((await group.exec('n', '-w', '0', ...both, '--', 'echo', 'ran')).status).toBe(75);
  expect((await group.exec('n', '--dry-run', ...both, '--', 'echo', 'ran')).status).toBe(75);
  const good = ['--when', 'state:wa/a=1', '--when', 'not:frozen:when/none'];
  expect(await group.exec('n', '-w', '0', ...good, '--', 'echo', 'ran')).toMatchObject({ stdout: 'ran\n' });
});

describe('a condition that turns false between ticket and grant', () => {
  test('has the slot given up at once and nothing started; true again, it runs', async () => {
    const group = groupOf(agent, 'when/turned');
    await set('wt/a', '1');
    const holder = await group.hold('web00');
    const run = group.start('web01', '-v', '--when', 'state:wt/a=1', '--', 'echo', 'ran');
    await group.waiting(1);
    await set('wt/a', '2');
    await holder.end();
    await run.says(
      /released the slot of when\/turned, because --when is no longer met; waiting again without a slot: state:wt\/a=1: wt\/a is 2/,
    );
    await eventually(async () => expect(await group.keys('.slot/')).toEqual([]));
    expect(await group.keys('.queue/')).toEqual([]);
    expect((await group.exec('web02', '-w', '0', '--', 'true')).status).toBe(0);
    expect(run.stdout()).toBe('');
    await set('wt/a', '1');
    expect(await run.ended).toMatchObject({ status: 0, stdout: 'ran\n' });
    expect(await group.lastRun('web01')).toMatchObject({ outcome: 'succeeded' });
  });

  test('puts the claim back that the node had before, and ends with 75 at the end of --wait', async () => {
    const group = groupOf(agent, 'when/before');
    await group.exec('web01', '--', 'false');
    await set('wbe/a', '1');
    await using proxy = await startProxy(agent);
    // The node comes back to its own claim; meanwhile the state changes.
    const changed = proxy.seen(STEPS['come back']).then(() => set('wbe/a', '2'));
    proxy.rule({ match: STEPS['come back'], times: 1, do: { until: changed } });
    const { status, stdout } = await runlock(proxy, [
      ...group.words('web01', '-w', '2s', '--when', 'state:wbe/a=1', '--', 'echo', 'ran'),
    ]);
    expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
    expect(await group.claim()).toMatchObject({ node: 'web01', state: 'failed' });
    expect(await group.lockedBy()).toBeUndefined();
  });

  test('behind a health gate puts the node back in service that it had taken out', async () => {
    await agent.http('PUT', '/v1/agent/service/register', { Name: 'shop', ID: 'shop' });
    const group = groupOf(agent, 'when/gate');
    await set('wg/a', '1');
    await using proxy = await startProxy(agent);
    const isMaintenance = ({ path }: { path: string }) => path.includes('/maintenance/shop?enable=true');
    const changed = proxy.seen(isMaintenance).then(() => set('wg/a', '2'));
    proxy.rule({ match: isMaintenance, times: 1, do: { until: changed } });
    const gate = ['--service', 'shop', '--maintenance', 'service', '--gate-stable', '0'];
    const { status, stdout } = await runlock(proxy, [
      ...group.words('node1', '-w', '4s', ...gate, '--when', 'state:wg/a=1', '--', 'echo', 'ran'),
    ]);
    expect({ status, stdout }).toEqual({ status: 75, stdout: '' });
    const checks = (await agent.http('GET', '/v1/agent/checks')).json() as object;
    expect(Object.keys(checks).filter((id) => id.includes('maintenance'))).toEqual([]);
    expect(await group.keys('.slot/')).toEqual([]);
  });
});

test('the look with all slots is the last before the command: it comes after the grant', async () => {
  const group = groupOf(agent, 'when/order');
  await set('wor/a', '1');
  await using proxy = await startProxy(agent);
  const run = await runlock(proxy, group.words('n', '--when', 'state:wor/a=1', '--', 'true'));
  expect(run.status).toBe(0);
  // Of one state, a look is a read of its key.
  const isLook: Match = ({ path }) =>
    path.startsWith('/v1/kv/') && decodeURIComponent(path).includes('/.state/');
  const steps = proxy.requests.map((request) =>
    isLook(request) ? 'look' : STEPS.grant(request) ? 'grant' : 'other',
  );
  expect(steps.filter((step) => step !== 'other')).toEqual(['look', 'grant', 'look']);
});

describe('`when` in the file', () => {
  const scene = (name = 'when/file', ...args: string[]) => {
    const file = join(stage().folder, 'config.toml');
    const env = { RUNLOCK_CONFIG: file };
    const write = (...lines: string[]) => writeFileSync(file, `${lines.join('\n')}\n`);
    return { file, write, env, group: groupOf(agent, name, { env, args }) };
  };
  const missing = ({ stderr }: { stderr: string }) =>
    /--when is not met: (.*)\n/.exec(stderr)?.[1]?.split('; ');

  test('says it for a group, in a list or alone; a flag takes its place', async () => {
    const { write, group } = scene();
    await set('wf/a', '1');
    write('[groups."when/file"]', 'when = "state:wf/a=2"');
    const one = await group.exec('n', '-w', '0', '--', 'echo', 'ran');
    expect(one.status).toBe(75);
    expect(one.stderr).toContain('busy: --when is not met: state:wf/a=2: wf/a is 1');
    write('[groups."when/file"]', 'when = [', '  "state:wf/a=3,4",', '  "state:wf/b",', ']');
    expect(missing(await group.exec('n', '-w', '0', '--', 'true'))).toEqual([
      expect.stringContaining('state:wf/a=3,4: wf/a is 1'),
      'state:wf/b: wf/b is not set',
    ]);
    expect((await group.exec('n', '-w', '0', '--when', 'state:wf/a=1', '--', 'true')).status).toBe(0);
  });

  test('is that of all of its groups for a run in several, and of each for that group alone', async () => {
    const { write, env, group: both } = scene('when/f1', '-g', 'when/f2');
    await runlock(agent, ['exec', '-g', 'when/f1', '--node', 'n', '--', 'true']);
    write(
      ...['[groups."when/f1"]', 'when = ["good:n", "state:wf/f1"]'],
      ...['[groups."when/f2"]', 'when = ["not:good:n", "state:wf/f2"]'],
    );
    // `good:n` is that of when/f1, where the run was, `not:good:n` that of when/f2: all for one group were never true.
    expect(missing(await both.exec('n', '-w', '0', '--', 'true'))).toEqual([
      'state:wf/f1: wf/f1 is not set',
      'state:wf/f2: wf/f2 is not set',
    ]);
    const second = groupOf(agent, 'when/f2', { env });
    expect(missing(await second.exec('n', '-w', '0', '--', 'true'))).toEqual([
      'state:wf/f2: wf/f2 is not set',
    ]);
    await set('wf/f1', '1');
    await set('wf/f2', '1');
    expect(await both.exec('n', '-w', '0', '--', 'echo', 'ran')).toMatchObject({
      status: 0,
      stdout: 'ran\n',
    });
  });

  test('is that of acquire too, and an empty list takes away what stands above', async () => {
    const { write, env } = scene();
    write('when = "state:wf/none"', '[groups."when/free"]', 'when = []');
    const acquire = (name: string) => runlock(agent, ['acquire', name, '--node', 'n', '-w', '0'], { env });
    expect((await acquire('when/held')).stderr).toContain('--when is not met: state:wf/none');
    expect((await acquire('when/free')).status).toBe(0);
  });

  test('that is wrong is said with file, line, section, place in the list and character', async () => {
    const { file, write, group } = scene();
    write('[groups."when/file"]', 'when = ["state:wf/a", "not:stat:wf"]');
    const wrong = await group.exec('n', '--', 'true');
    expect(wrong.status).toBe(78);
    expect(wrong.stderr).toContain(
      `${file}:2: when = ["state:wf/a","not:stat:wf"] in [groups."when/file"]: item 2: `,
    );
    expect(wrong.stderr).toContain("character 5: unknown kind of condition 'stat'; did you mean 'state:'?");
  });
});

test('a signal while it waits outside ends it, and nothing was started', async () => {
  const run = groupOf(agent, 'when/signal').start('n', '-v', '--when', 'state:ws/none', '--', 'echo', 'ran');
  await run.says(/waiting until --when is met/);
  run.signal('SIGTERM');
  expect(await run.ended).toMatchObject({ status: 143, stdout: '' });
});

test('what the token may not read ends it with 77 and the rule, before a slot is asked for', async () => {
  const guarded = agentWithAcl;
  const rules = ['session_prefix "" { policy = "write" }', 'key_prefix "runlock/g/" { policy = "write" }'];
  const freeze = 'key "runlock/.freeze" { policy = "write" }';
  const token = await guarded.token([...rules, freeze].join('\n'));
  const as = { env: { ...guarded.env, CONSUL_HTTP_TOKEN: token } };
  const { status, stderr } = await runlock(as, ['exec', '-g', 'g', '--when', 'not:state:x/y', '--', 'true']);
  expect(status).toBe(77);
  expect(stderr).toContain('key_prefix "runlock/.state/x/" { policy = "read" }');
  expect(await guarded.kv.keys('runlock/g/')).toEqual([]);
});

const agentWithAcl = useAgent({ acl: true });

test('refuses more states than the transaction that starts the command can compare', async () => {
  const when = (count: number) =>
    Array.from({ length: count }, (_, i) => ['--when', `not:state:wm/${i}`]).flat();
  const group = groupOf(agent, 'when/many');
  const { status, stderr } = await group.exec('n', '-w', '0', ...when(63), '--', 'true');
  expect(status).toBe(64);
  expect(stderr).toContain(
    '--when names 63 states, but the transaction that starts the command has room for 62',
  );
  expect((await group.exec('n', '-w', '0', ...when(62), '--', 'true')).status).toBe(0);
});

test('refuses a condition that is not UTF-8: it would be compared with what nobody wrote', async () => {
  const script = 'exec "$@" --when "$(printf "state:wu/a!=\\377")" -- echo ran';
  const words = ['exec', '-g', 'when/utf8', '--node', 'n', '-w', '0'];
  const { status, stdout, stderr } = await runlock(agent, words, { through: ['sh', '-c', script, 'sh'] });
  expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
  expect(stderr).toBe('runlock: --when: this value is not UTF-8; publish text, such as its base64\n');
});

test.each(['idle:when/own', 'not:active:n@when/own'])(
  'refuses %s for a run of that very group, which makes it false itself, and keeps nothing',
  async (condition) => {
    const group = groupOf(agent, 'when/own');
    const { status, stdout, stderr } = await group.exec('n', '--when', condition, '--', 'echo', 'ran');
    expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
    expect(stderr).toContain(`--when ${condition} never holds while this run has its slot`);
    expect(await group.keys('.slot/')).toEqual([]);
  },
);

test.each([
  ['active:n@when/never', 'a node has one run at a time in a group'],
  // The agent's node.
  ['active:node1', 'a node has one run at a time in a group'],
  ['blocked:when/never', 'allows this run one slot'],
])('refuses %s at once where it can never start while that holds', async (condition, why) => {
  const node = condition.includes('node1') ? [] : ['--node', 'n'];
  for (const words of [['exec', '--', 'echo', 'ran'], ['acquire']]) {
    const [command = '', ...rest] = words;
    const asked = [command, '-g', 'when/never', ...node, '--when', condition, ...rest];
    const { status, stdout, stderr } = await runlock(agent, asked);
    expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
    expect(stderr).toContain(`--when ${condition} never lets this run start`);
    expect(stderr).toContain(why);
  }
  expect(await agent.kv.keys('runlock/when/never/')).toEqual([]);
});
