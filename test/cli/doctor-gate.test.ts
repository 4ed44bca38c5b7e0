// `doctor` for groups whose runs go through the health gate: each right that they need beside the others is tried and named.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { succeeded } from '../support/consul-api.ts';
import { startAgent } from '../support/consul.ts';
import {
  addRule as add,
  doctorWith,
  fixesOf as fixes,
  leastRights as base,
  printedRights,
} from '../support/doctor.ts';
import { useAgent } from '../support/use-agent.ts';
import { startProxy } from '../support/proxy.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const SERVICE = 'service "web" { policy = "write" }';
const NODES = 'node_prefix "" { policy = "read" }';
const KEY = 'key "runlock/.gate/web" { policy = "write" }';
const NODE = 'node "web01" { policy = "write" }';
const MARKS = 'key_prefix "runlock/.gate/.out/web01/" { policy = "write" }';
/** For the whole node. */
const ALL = 'service_prefix "" { policy = "read" }';
const KEYS = 'key_prefix "runlock/.gate/" { policy = "write" }';
const gate = [NODES, SERVICE, KEY, MARKS];

const agent = useAgent({ acl: true, name: 'web01' });
beforeAll(async () => {
  for (const name of ['web', 'db']) {
    const service = { Name: name, ID: `${name}-1`, Check: { TTL: '600s', Status: 'passing' } };
    succeeded(await agent.http('PUT', '/v1/agent/service/register', service), 'registering');
  }
});

const doctor = (rules: readonly string[], ...args: string[]) => doctorWith(agent, rules, ...args);

async function stored() {
  const read = async (path: string) => (await agent.http('GET', path)).json();
  const [sessions, checks, services] = await Promise.all(
    ['/v1/session/list', '/v1/agent/checks', '/v1/catalog/node/web01'].map(read),
  );
  return { keys: await agent.kv.tree(), sessions, checks, services };
}

describe('a group whose runs name a service', () => {
  test('the rights that docs/rights.md names are enough: each is tried, and nothing of it stays', async () => {
    expect(printedRights('gate-rights')).toEqual([...[NODES, SERVICE, KEY, MARKS, NODE, ALL, KEYS]]);
    await agent.http('PUT', '/v1/agent/service/maintenance/web-1?enable=true&reason=by%20hand');
    const before = await stored();
    const plain = await doctor([...base, ...gate]);
    const report = await doctor([...base, ...gate], '--service', 'web', '--maintenance');
    expect(report).toMatchObject({ status: 0, problems: [], notes: [] });
    const more = report.rights.filter((line) => !plain.rights.includes(line));
    expect(more).toEqual([
      ...['service "web": write', 'node_prefix "": read', 'key "runlock/.gate/web": write'],
      'key_prefix "runlock/.gate/.out/web01/": write',
    ]);
    expect(await stored()).toEqual(before);
    await agent.http('PUT', '/v1/agent/service/maintenance/web-1?enable=false');
  });

  test.for([
    [SERVICE, [], SERVICE],
    [SERVICE, ['service "web" { policy = "read" }'], SERVICE],
    [NODES, [], NODES],
    [NODES, ['node "web01" { policy = "read" }'], NODES],
    [KEY, [], KEY],
    [MARKS, [], MARKS],
    [KEY, ['key "runlock/.gate/web" { policy = "read" }'], KEY],
  ] as const)('without %s, and %j instead, it is named and no other', async ([rule, instead, missing]) => {
    const kept = gate.filter((one) => one !== rule);
    const report = await doctor([...base, ...kept, ...instead], '--service', 'web', '--maintenance');
    expect(report.status).toBe(2);
    expect(fixes(report)).toEqual([add(missing)]);
    const name = missing.replace(/ \{.*$/, '');
    expect(report.problems[0]?.found).toMatch(new RegExp(`^${name}: (?:read|write) denied$`));
  });

  test('what is refused is what a run is refused', async () => {
    const env = { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token([...base, NODES].join('\n')) };
    const options = ['--service', 'web', '--gate-stable', '0', '-w', '0', '--', 'true'];
    const run = await runlock({ env }, ['exec', '-g', 'prod/web', ...options]);
    expect(run.status).toBe(77);
    const rule = 'service "web" { policy = "read" }';
    expect(run.stderr).toContain(rule);
    expect(fixes(await doctor([...base, NODES], '--service', 'web'))).toEqual([add(rule)]);
  });

  test('without maintenance read is enough, and no lock of the gate is needed', async () => {
    const rules = [...base, NODES, 'service "web" { policy = "read" }'];
    expect(await doctor(rules, '--service', 'web')).toMatchObject({ status: 0, problems: [] });
  });

  test('to take the whole node out needs its node, and to see and lock all that goes out with it', async () => {
    const rules = [...base, NODES, KEYS, MARKS, ALL];
    const args = ['--service', 'web', '--maintenance=node'];
    expect(fixes(await doctor(rules, ...args))).toEqual([add(NODE)]);
    const report = await doctor([...rules, NODE], ...args);
    expect(report).toMatchObject({ status: 0, problems: [] });
    expect(report.rights).toContain('--maintenance node: services of web01: db, web');
    const named = 'service "web" { policy = "read" }';
    const few = rules.map((rule) => (rule === ALL ? named : rule === KEYS ? KEY : rule));
    expect(fixes(await doctor([...few, NODE], ...args))).toEqual([add(ALL)]);
    const locks = rules.filter((rule) => rule !== KEYS);
    expect(fixes(await doctor([...locks, KEY, NODE], ...args))).toEqual([
      add('key "runlock/.gate/db" { policy = "write" }'),
    ]);
  });

  test('a group that names none has no line of it', async () => {
    const { status, rights } = await doctor(base);
    expect(status).toBe(0);
    expect(rights).toHaveLength(4);
  });
});

test('each group goes by its own section of the configuration file', async () => {
  const file = join(stage().folder, 'config.toml');
  writeFileSync(
    file,
    '[groups.prod]\nservice = "web"\nmaintenance = "service"\n[groups."prod/db"]\nservice = ["db"]\n[groups.rack]\nslots = 2\n',
  );
  const both = await doctor(base, '--config', file, '-g', 'prod/db', '--prefix', 'elsewhere');
  const gates = fixes(both).filter((fix) => !/key_prefix "elsewhere\/prod|\.freeze/.test(fix ?? ''));
  expect(gates).toEqual([
    add('service "db" { policy = "write" }'),
    add(SERVICE),
    add(NODES),
    add('key "elsewhere/.gate/db" { policy = "write" }'),
    add('key "elsewhere/.gate/web" { policy = "write" }'),
    add('key_prefix "elsewhere/.gate/.out/web01/" { policy = "write" }'),
  ]);
  expect(both.checks).toContainEqual({
    ...{ check: 'config', level: 'ok' },
    found: `${file}: valid, 4 settings`,
  });
  const other = await runlock(agent, ['doctor', '--config', file, '-g', 'rack/r4']);
  expect(other.stdout).not.toMatch(/service|\.gate/);
});

describe('auto', () => {
  test('names what the node offers, and the rights for it', async () => {
    const report = await doctor(
      [...base, NODES, 'service_prefix "" { policy = "read" }'],
      '--service',
      'auto',
    );
    expect(report).toMatchObject({ status: 0, problems: [], notes: [] });
    expect(report.rights).toEqual(
      expect.arrayContaining([
        'auto: services of web01: db, web',
        'service "db": read',
        'service "web": read',
      ]),
    );
  });

  test('says when a service could be hidden from the token, and when all of them are', async () => {
    const some = await doctor([...base, NODES, SERVICE], '--service', 'auto');
    expect(some).toMatchObject({ status: 0, problems: [] });
    expect(some.notes.map(({ found }) => found)).toEqual([
      'auto: services of web01: web (this token may not see all)',
    ]);
    const none = await doctor([...base, NODES], '--service', 'auto');
    expect(fixes(none)).toEqual([add('service_prefix "" { policy = "read" }')]);
  });
});

describe('another node', () => {
  test('is taken out at its own agent, whose right is tried there', async () => {
    await using other = await startAgent({ name: 'web02' });
    const rules = [...base, ...gate, MARKS.replace('web01', 'web02')];
    const named = ['--service', 'web', '--maintenance', '--node', 'web02'];
    const [problem] = (await doctor(rules, ...named)).problems;
    expect(problem?.found).toMatch(/^maintenance of web02 needs its own agent/);
    expect(problem?.fix).toBe('give the agent of web02 with --agent ADDRESS');
    const wrong = await doctor(rules, ...named, '--agent', agent.address);
    expect(wrong.problems.map(({ found }) => found)).toEqual([
      `--agent ${agent.address} is the agent of web01, not of web02`,
    ]);
    const right = await doctor(rules, ...named, '--agent', other.address);
    expect(right).toMatchObject({ status: 0, problems: [] });
    expect(right.rights).toContain(`agent "web02": read, at ${other.address}`);
    const gone = await doctor(rules, ...named, '--agent', '127.0.0.1:1');
    expect(gone.problems.map(({ found }) => found)).toEqual([
      expect.stringContaining('127.0.0.1:1 unreachable'),
    ]);
  });

  test('whose agent this token may not ask: the rule is named', async () => {
    const rules = [...base.filter((rule) => !rule.startsWith('agent_prefix')), ...gate];
    const args = ['--service', 'web', '--maintenance', '--node', 'web01', '--agent', agent.address];
    const [problem, ...others] = (await doctor(rules, ...args)).problems;
    expect(others).toEqual([]);
    expect(problem?.fix).toBe('the token needs the rule: agent "web01" { policy = "read" }');
  });
});

test('where not even the node’s name may be known, what could not be tried for it is said', async () => {
  const report = await doctor([NODES, SERVICE, KEY], '--service', 'auto', '--maintenance=node');
  expect(fixes(report)[0]).toMatch(/session "NODE" \{ policy = "write" \}/);
  expect(report.notes.map(({ found }) => found)).toEqual(
    expect.arrayContaining([
      "--maintenance node: the agent's node name is unknown, so its services are too",
      'node "NODE": write is needed but was not checked: the agent\'s node name is unknown',
    ]),
  );
});

test('a Consul that does not say what a token may do: what is needed, and that it was not tried', async () => {
  await using proxy = await startProxy(agent);
  proxy.rule({ match: ({ path }) => path.includes('/acl/authorize'), do: { status: 404, body: '' } });
  const args = ['doctor', '--service', 'web', '--maintenance'];
  const { status, stdout } = await runlock(proxy, args);
  expect(status).toBe(0);
  expect(stdout).toMatch(
    /^note {5}rights +service "web": write is needed but was not checked: Consul does not report the rights of tokens; if runs are denied access, add to the token's policy: service "web" \{ policy = "write" \}$/m,
  );
  expect(proxy.requests.filter(({ path }) => path.includes('maintenance'))).toEqual([]);
});

test('where ACLs are off all of it is allowed', async () => {
  await using open = await startAgent();
  const { status, stdout } = await runlock(open, ['doctor', '--service', 'web', '--maintenance']);
  expect(status).toBe(0);
  expect(stdout).toMatch(/^ok {7}rights +service "web": write$/m);
});

test.for([
  [['--maintenance'], '--maintenance needs --service'],
  [['--service', 'web', '--agent', '127.0.0.1:1'], 'name that node with --node'],
  [['--service', 'we b'], "--service 'we b': not a service name"],
] as const)('%j is wrong usage', async ([args, message]) => {
  const wrong = await runlock(undefined, ['doctor', ...args]);
  expect(wrong).toMatchObject({ status: 64, stdout: '' });
  expect(wrong.stderr).toContain(message);
});
