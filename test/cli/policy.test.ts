// `runlock policy`: each role can do what it is for with exactly what is printed, and not without one of the rules.
import { writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { succeeded } from '../support/consul-api.ts';
import { groupOf } from '../support/group.ts';
import { spawnRunlock } from '../support/program.ts';
import { outsideKey, outsideRecord } from '../support/outside.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent({ acl: true, name: 'web01' });
beforeAll(async () => {
  const service = { Name: 'web', ID: 'web-1', Check: { TTL: '600s', Status: 'passing' } };
  succeeded(await agent.http('PUT', '/v1/agent/service/register', service), 'registering');
  expect((await spawnRunlock(agent, ['state', 'set', 'db/schema', '42']).ended).status).toBe(0);
});

const printed = async (...words: string[]) => {
  const { status, stdout, stderr } = await runlock(undefined, ['policy', ...words]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout.trimEnd().split('\n');
};

const withRules = async (rules: readonly string[]) => ({
  env: { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(rules.join('\n')) },
});

/** One rule left out, each in turn. */
const withoutEach = (rules: readonly string[]) =>
  rules.map((missing) => ({ missing, rest: rules.filter((rule) => rule !== missing) }));

describe('a node', () => {
  const gate = ['--service', 'web', '--max-offline', '100%', '--gate-stable', '0'];
  const scenes = [
    { name: 'that takes a lock', asked: [], options: [] },
    {
      name: 'that waits for a state',
      asked: ['--when', 'state:db/schema=42'],
      options: ['--when', 'state:db/schema=42'],
    },
    {
      name: 'that publishes',
      asked: ['--publish', 'web/ready=1', '--during', 'app/loading=1'],
      options: ['--publish', 'web/ready=1', '--during', 'app/loading=1'],
    },
    { name: 'with a gate', asked: ['--service', 'web'], options: gate },
    {
      name: 'with maintenance',
      asked: ['--service', 'web', '--maintenance'],
      options: [...gate, '--maintenance'],
    },
    {
      name: 'that takes the whole node out',
      asked: ['--service', 'web', '--maintenance', 'node'],
      options: [...gate, '--maintenance', 'node'],
    },
  ];

  test.for(scenes)('$name', async ({ asked, options }) => {
    const rules = await printed('node', '-g', 'prod/web', '--node', 'web01', ...asked);
    const run = ['exec', '-g', 'prod/web', '-w', '5s', ...options, '--', 'true'];
    expect(await runlock(await withRules(rules), run)).toEqual({ status: 0, stdout: '', stderr: '' });
    for (const { missing, rest } of withoutEach(rules)) {
      const { status, stderr } = await runlock(await withRules(rest), run);
      expect({ missing, status, stderr }).toMatchObject({ missing, status: 77 });
      // It names what it was refused, of which the rule may be for more.
      expect(stderr).toContain(`the token needs the rule: ${/^[a-z]+/.exec(missing)?.[0] ?? ''}`);
    }
  });
});

describe('an operator', () => {
  /** What could not be done. */
  async function undone(rules: readonly string[], commands: readonly (readonly string[])[]) {
    const operator = await withRules(rules);
    const failed: string[] = [];
    for (const words of commands) {
      const { status, stderr } = await runlock(operator, words);
      if (status !== 0) failed.push(`${words.join(' ')}: ${status}: ${stderr}`);
    }
    return failed;
  }

  test('can do all that there is to do with exactly what is printed', async () => {
    const rules = await printed('operator', '-g', 'prod/ops', '--state', 'db/schema');
    const group = groupOf(agent, 'prod/ops');
    expect((await group.exec('web02', '--', 'false')).status).toBe(1);
    const waiting = group.start('web03', '-v', '--', 'true');
    await group.waiting(1);
    const all = [
      ['status', 'prod/ops'],
      ['release', 'prod/ops', '--owner', 'web03', '--force'],
      ['release', 'prod/ops', '--owner', 'web02'],
      ['freeze', 'prod/ops', '--reason', 'test'],
      ['thaw', 'prod/ops'],
      ['status', 'prod/ops', '--check'],
      ['history', 'prod/ops'],
      ['history', 'prod/ops', '--forget', 'web02'],
      ['state', 'set', 'db/schema', '43'],
      ['state', 'delete', 'db/schema'],
      ['forget', 'prod/ops', '--force'],
    ];
    expect(await undone(rules, all)).toEqual([]);
    expect((await waiting.ended).status).toBe(79);
  });

  test('needs each of the rules', async () => {
    const rules = await printed('operator', '-g', 'prod/needs', '--state', 'db/needs');
    expect((await groupOf(agent, 'prod/needs').exec('web02', '--', 'true')).status).toBe(0);
    // A run waits for a state in another folder.
    const made = await agent.http('PUT', '/v1/session/create', { Behavior: 'delete', LockDelay: '0s' });
    const wait = { node: 'web03', group: 'prod/needs', when: ['state:app/ready'] };
    const acquire = (made.json() as { ID: string }).ID;
    expect(await agent.kv.put(outsideKey(wait), outsideRecord(wait), { acquire })).toBe(true);
    let value = 0;
    const some = () => [
      ['status', 'prod/needs', '--check'],
      ['release', 'prod/needs', '--owner', 'web02'],
      // Another one each time, since setting what is set already takes no right to write.
      ['state', 'set', 'db/needs', String((value += 1))],
    ];
    expect(await undone(rules, some())).toEqual([]);
    // To look at a node ends well, and says what it could not see: the viewer's test shows that it needs these.
    const ofNodes = /"runlock\/\.(?:agents|requests|triggers)\/"/;
    for (const { missing, rest } of withoutEach(rules).filter((each) => !ofNodes.test(each.missing)))
      expect({ missing, undone: await undone(rest, some()) }).not.toEqual({ missing, undone: [] });
  });

  test('of the groups above may freeze and thaw each of them', async () => {
    const operator = await withRules(await printed('operator', '-g', 'prod'));
    for (const group of ['prod', 'prod/web'])
      for (const words of [
        ['freeze', group, '--reason', 'x'],
        ['thaw', group],
      ])
        expect((await runlock(operator, words)).status).toBe(0);
    expect((await runlock(operator, ['freeze', '/', '--reason', 'x'])).status).toBe(77);
  });
});

describe('a viewer', () => {
  test('can look at everything with exactly what is printed, and change nothing', async () => {
    await groupOf(agent, 'prod/seen').exec('web02', '--', 'true');
    const rules = await printed('viewer', '-g', 'prod/seen', '--service', 'web', '--when', 'state:db/schema');
    const looks = [
      ['status', 'prod/seen', '--service', 'web'],
      ['status', 'prod/seen', '--check'],
      ['status', 'prod/seen', '--node', 'web02'],
      ['history', 'prod/seen'],
      ['state', 'get', 'db/schema'],
    ];
    await spawnRunlock(agent, ['state', 'set', 'db/schema', '42']).ended;
    const look = async (lines: readonly string[]) => {
      const viewer = await withRules(lines);
      const results = [];
      for (const words of looks) results.push(await runlock(viewer, words));
      // Where less is shown than there is, that is said.
      return results.map(({ stdout, ...result }) => ({ ...result, stdout: stdout.replace(/\d+/g, '0') }));
    };
    const good = await look(rules);
    expect(good).toMatchObject(looks.map(() => ({ status: 0, stderr: '' })));
    for (const { missing, rest } of withoutEach(rules))
      expect({ missing, look: await look(rest) }).not.toEqual({ missing, look: good });
    const viewer = await withRules(rules);
    for (const words of [
      ['release', 'prod/seen'],
      ['freeze', 'prod/seen', '--reason', 'x'],
      ['state', 'set', 'db/schema', '1'],
    ])
      expect((await runlock(viewer, words)).status).toBe(77);
  });

  test('of / looks at all groups', async () => {
    const viewer = await withRules(await printed('viewer', '-g', '/'));
    expect(await runlock(viewer, ['status'])).toMatchObject({ status: 0, stderr: '' });
  });
});

test("an agent's are for what the files of its tasks say, and a wrong file says so", async () => {
  const { folder } = stage();
  const put = (name: string, lines: string) => {
    writeFileSync(`${folder}/${name}.toml`, `command = ["/bin/true"]\n${lines}`, { mode: 0o600 });
  };
  put(
    'a',
    'group = "prod/web"\nallow = ["ops"]\nservice = "web"\nmax_offline = 1\npublish = ["web/ready=1"]',
  );
  put('b', 'group = "rack/r4,prod/db"\nallow = ["ci", "ops"]\non = "state:db/schema"');
  const words = ['agent', '--node', 'web01', '--tasks-dir', folder];
  expect(await printed(...words)).toEqual([
    'session "web01" { policy = "write" }',
    'key_prefix "runlock/prod/web/" { policy = "write" }',
    'key "runlock/prod/.freeze" { policy = "write" }',
    'key "runlock/.freeze" { policy = "write" }',
    'node_prefix "" { policy = "read" }',
    'service "web" { policy = "read" }',
    'key_prefix "runlock/prod/db/" { policy = "write" }',
    'key_prefix "runlock/rack/r4/" { policy = "write" }',
    'key "runlock/rack/.freeze" { policy = "write" }',
    'key "runlock/.agents/web01" { policy = "write" }',
    'key_prefix "runlock/.requests/" { policy = "read" }',
    'key_prefix "runlock/.requests/ops/inbox/web01/" { policy = "write" }',
    'key_prefix "runlock/.requests/ci/inbox/web01/" { policy = "write" }',
    'key_prefix "runlock/.triggers/web01/" { policy = "write" }',
    'key_prefix "runlock/.state/web/" { policy = "write" }',
    'key_prefix "runlock/.state/db/" { policy = "read" }',
  ]);
  put('c', 'slot = 1');
  expect(await runlock(undefined, ['policy', ...words])).toEqual({
    ...{ status: 78, stdout: '' },
    stderr: `runlock: ${folder}/c.toml:2: unknown key 'slot'; did you mean 'slots'?\n`,
  });
});

test('--commands creates the policy and a token that can do it', async () => {
  const lines = await printed('node', '-g', 'prod/web', '--node', 'web01', '--commands');
  expect(lines[0]).toBe("consul acl policy create -name runlock-node-web01 -rules - <<'EOF'");
  expect(lines.slice(1, -2)).toEqual(await printed('node', '-g', 'prod/web', '--node', 'web01'));
  expect(lines.slice(-2)).toEqual([
    'EOF',
    'consul acl token create -description runlock-node-web01 -policy-name runlock-node-web01',
  ]);
});

test.each([
  [['policy'], 'missing <role>'],
  [['policy', 'admin'], "unknown role 'admin'; use node, agent, operator, viewer"],
  [['policy', 'viewer', '--node', 'x'], "--node is for 'policy node' and 'policy agent' only"],
  [['policy', 'node', '--principal', 'x'], "--principal is for 'policy agent', 'policy operator'"],
  [['policy', 'viewer', '--tasks-dir', '/x'], "--tasks-dir is for 'policy agent' only"],
  [['policy', 'agent', '-g', '/'], 'could ask in the name of everybody'],
  [['policy', 'agent', '--tasks-dir', '/no/such'], 'no tasks in /no/such; name the groups'],
  [['policy', 'agent', '--principal', '../x'], "not a principal's name"],
  [['policy', 'viewer', '-g', '/', '--principal', 'x'], 'no rule is for the jobs of every group'],
  [['policy', 'node', '--json', '--commands'], '--json and --commands exclude each other'],
  [['policy', 'node', '--maintenance'], '--maintenance needs --service'],
  [['policy', 'node', '--state', '../x'], '--state ../x'],
  [['policy', 'node', '-g', 'a//b'], 'not a group'],
])('%j is wrong usage', async (words, said) => {
  const { status, stdout, stderr } = await startRunlock(undefined, words).ended;
  expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
  expect(stderr).toContain(said);
});
