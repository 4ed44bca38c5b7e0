// `runlock exec` behind the health gate of a service: options, rights, other nodes, and what stays after a failed run.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { createToken } from '../support/consul-api.ts';
import { eventually } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import type { Result } from '../support/program.ts';
import { startServices } from '../support/services.ts';
import type { Services } from '../support/services.ts';
import { watchService } from '../support/services-watcher.ts';
import type { Watcher } from '../support/services-watcher.ts';
import { stage } from '../support/stage.ts';

let services: Services;
let watcher: Watcher;
beforeAll(async () => {
  services = await startServices({ nodes: 3, services: ['web', 'db'], acl: true });
  watcher = watchService(services.server, 'web');
});
afterEach(async () => {
  for (const node of services.nodes) {
    for (const service of ['web', 'db']) {
      await node.instance(service).answer(200);
      await node.maintain(false, { service });
    }
    await node.maintain(false);
  }
  await watcher.untilOffline();
  await services.server.kv.deleteTree('runlock/');
});
afterAll(async () => {
  await watcher.stop();
  await services[Symbol.asyncDispose]();
});

const GATE = ['--service', 'web', '--gate-stable', '200ms', '-w', '0'];

const envOf = (node: string) => (node === 'server' ? services.server : services.node(node).agent).env;

/** `runlock exec` in prod/web on the node's agent, behind web's gate. */
function exec(node: string, args: readonly string[], command = 'true', token?: string): Promise<Result> {
  const env = { ...envOf(node), ...(token !== undefined && { CONSUL_HTTP_TOKEN: token }) };
  return runlock({ env }, ['exec', '-g', 'prod/web', ...GATE, ...args, '--', 'sh', '-c', command]);
}

const claims = async () =>
  (await services.server.kv.keys('runlock/prod/web/.slot/')).map((key) => key.replace(/^.*\.slot\//, ''));

const takeDown = async (...names: string[]) => {
  for (const name of names) await services.node(name).instance('web').answer(500);
  await watcher.untilOffline(...names);
};

test('closed without patience: exit 75 and one line that names the peers; -E changes it', async () => {
  await takeDown('web02');
  const busy = await exec('web01', []);
  expect(busy).toMatchObject({ status: 75, stdout: '' });
  expect(busy.stderr).toMatch(
    /^runlock: busy: the gate is closed for web01 \(web: 1 of 3 offline: web-1 on web02 \(.*500.*\); with web01 2 would be offline \(max 1\)\)\n$/,
  );
  expect(await exec('web01', ['-E', '10'])).toMatchObject({ status: 10 });
  expect(await exec('web01', ['--max-offline', '66%'])).toMatchObject({ status: 75 });
  expect(await exec('web01', ['--max-offline', '67%'])).toMatchObject({ status: 0, stderr: '' });
  const few = await exec('web01', ['--max-offline', '2', '--min-healthy', '2']);
  expect(few.stderr).toContain('without web01 1 would stay healthy (min 2)');
});

// Both ran before, with 0: what is not known looked as if nothing went offline with it.
test('a service that nobody offers, or a node that is not in the catalogue: 78, nothing started', async () => {
  const { folder, lines } = stage();
  const ran = `echo ran >>${folder}/ran`;
  const refused = await exec('web01', ['--service', 'wbe', '--dry-run'], ran);
  expect(refused).toMatchObject({ status: 78, stdout: '' });
  expect(refused.stderr).toMatch(
    /^runlock: no instances of wbe \(did you mean 'web'\?\) in .*; correct --service, .*\n$/,
  );
  // Waiting is not for names that are wrong.
  expect(await exec('web01', ['--service', 'wbe', '-w', 'forever'], ran)).toMatchObject({ status: 78 });
  const host = await exec('web01', ['--node', 'web02.example.com'], ran);
  expect(host).toMatchObject({ status: 78, stdout: '' });
  expect(host.stderr).toContain("no node 'web02.example.com' (did you mean 'web02'?); correct --node");
  expect(lines('ran')).toEqual([]);
  expect(await claims()).toEqual([]);
  const first = ['--allow-unknown-service', '--service', 'wbe', '--node', 'web09'];
  expect(await exec('web01', first, ran)).toMatchObject({ status: 0, stderr: '' });
  expect(lines('ran')).toEqual(['ran']);
});

test('auto: every service that the node offers, and the strictest of them decides', async () => {
  await services.node('web02').maintain(true, { service: 'db', reason: 'disk' });
  expect(await exec('web01', [])).toMatchObject({ status: 0 });
  const busy = await exec('web01', ['--service', 'auto']);
  expect(busy.status).toBe(75);
  expect(busy.stderr).toContain('db: 1 of 3 offline: db-1 on web02 (maintenance: disk)');
});

test('the command runs out of service, under the run’s name', async () => {
  const { folder, lines } = stage();
  const { CONSUL_HTTP_ADDR: address = '', CONSUL_HTTP_TOKEN: token = '' } = envOf('web01');
  const ask = `curl -s -H "X-Consul-Token: ${token}" http://${address}/v1/agent/checks >${folder}/checks; echo "$RUNLOCK_RUN_ID" >${folder}/run`;
  expect(await exec('web01', ['--maintenance'], ask)).toMatchObject({ status: 0 });
  const [run = ''] = lines('run');
  const checks = JSON.parse(readFileSync(join(folder, 'checks'), 'utf8')) as Record<
    string,
    { Notes: string }
  >;
  expect(checks['_service_maintenance:web-1']).toMatchObject({ Notes: `runlock ${run}`, Status: 'critical' });
  expect(Object.keys(checks)).not.toContain('_service_maintenance:db-1');
  expect(await services.node('web01').maintenances()).toEqual([]);
});

test('after a failed run maintenance stays; a good one ends it, also one without --maintenance', async () => {
  const failed = await exec('web01', ['--maintenance=node'], 'exit 3');
  expect(failed.status).toBe(3);
  expect(failed.stderr).toMatch(
    /web01 stays in maintenance \(its run ended as failed\).*'runlock gate leave --service web' on web01/,
  );
  const [reason] = await services.node('web01').maintenances();
  expect(reason).toMatch(/^runlock [0-9a-f-]{36}$/);
  // Others wait for it, and it does not wait for itself.
  expect(await exec('web02', [])).toMatchObject({ status: 75 });
  expect(await exec('web01', ['--maintenance'], 'exit 4')).toMatchObject({ status: 4 });
  expect(await services.node('web01').maintenances()).toHaveLength(2);
  expect(await exec('web01', [])).toMatchObject({ status: 0 });
  expect(await services.node('web01').maintenances()).toEqual([]);
  expect(await exec('web02', [])).toMatchObject({ status: 0 });
});

/** A run of a group of its own, behind the gate of the named service alone, with its whole node out. */
const wholeNode = (node: string, args: readonly string[], command: string) =>
  startRunlock({ env: envOf(node) }, [
    ...['exec', '-g', `prod/${node}`, '--gate-stable', '200ms', '--maintenance=node', ...args],
    ...['--', 'sh', '-c', command],
  ]);
const until = (file: string) => `until [ -e ${file} ]; do sleep 0.05; done`;
const withdraw = async (node: string, service: string) => {
  const { http } = services.node(node).agent;
  await http('PUT', `/v1/agent/service/deregister/${service}-1`);
};

// It went by the named service alone, and took all the others along.
test('the whole node out: what it offers besides has to bear that too', async () => {
  await takeDown('web03');
  const closed = await wholeNode('web01', ['--service', 'db', '-w', '0'], 'true').ended;
  expect(closed).toMatchObject({ status: 75 });
  expect(closed.stderr).toContain('the gate is closed for web01 (web: 1 of 3 offline: web-1 on web03');
});

test('two whole nodes at once, each named by its own service: one waits for what both offer', async () => {
  const { folder } = stage();
  await services.offer('one', ['web01']);
  await services.offer('two', ['web02']);
  const both = watchService(services.server, 'web');
  const args = (service: string) => ['--service', service, '-w', '0'];
  const runs = [
    wholeNode('web01', args('one'), until(`${folder}/go`)),
    wholeNode('web02', args('two'), until(`${folder}/go`)),
  ];
  const first = await Promise.race(runs.map((run) => run.ended));
  expect(first.stderr).toMatch(/the gate is closed for web0[12] \((?:db|web): 1 of 3 offline/);
  writeFileSync(`${folder}/go`, '');
  const ends = await Promise.all(runs.map((run) => run.ended));
  expect(ends.map(({ status }) => status).sort()).toEqual([0, 75]);
  expect(await both.most()).toBe(1);
  await both.stop();
  await withdraw('web01', 'one');
  await withdraw('web02', 'two');
});

test('the whole node out: what is registered while it waits for its slot is looked at before', async () => {
  const { folder } = stage();
  const holder = exec('web02', ['-g', 'prod/web01'], until(`${folder}/go`));
  await eventually(async () =>
    expect(await services.server.kv.keys('runlock/prod/web01/.slot/')).not.toEqual([]),
  );
  const args = ['--service', 'db', '-w', 'forever', '-v'];
  const run = wholeNode('web01', args, 'true');
  await run.says(/wait/, 30_000);
  await services.offer('cache', ['web01', 'web02']);
  const cache = watchService(services.server, 'cache');
  await services.node('web02').instance('cache').answer(500);
  await cache.untilOffline('web02');
  writeFileSync(`${folder}/go`, '');
  await run.says(/is releasing its slot: the gate has closed \(cache: 1 of 2 offline/, 30_000);
  expect((await holder).status).toBe(0);
  await services.node('web02').instance('cache').answer(200);
  expect(await run.ended).toMatchObject({ status: 0 });
  expect(await cache.most()).toBe(1);
  await cache.stop();
  for (const node of ['web01', 'web02']) await withdraw(node, 'cache');
});

test('release ends it on the node, elsewhere with its agent’s address, or says where to do it', async () => {
  await exec('web01', ['--maintenance'], 'false');
  const elsewhere = await runlock({ env: envOf('web02') }, ['release', 'prod/web', '--owner', 'web01']);
  expect(elsewhere).toMatchObject({ status: 0 });
  expect(elsewhere.stdout).toMatch(/^cleared the failed claim of web01 on slot 0 of prod\/web\n$/);
  expect(elsewhere.stderr).toContain(
    "web on web01: still in maintenance set by runlock (only web01's own agent can end it)",
  );
  expect(await services.node('web01').maintenances()).toHaveLength(1);

  await exec('web01', ['--maintenance'], 'false');
  const named = ['release', 'prod/web', '--owner', 'web01', '--json'];
  const byAddress = await runlock({ env: envOf('web02') }, [
    ...named,
    '--agent',
    services.node('web01').agent.address,
  ]);
  expect(byAddress).toMatchObject({ status: 0, stderr: '' });
  expect(JSON.parse(byAddress.stdout)).toMatchObject({ maintenance: { ended: ['web on web01'], stays: [] } });
  expect(await services.node('web01').maintenances()).toEqual([]);

  await exec('web01', ['--maintenance'], 'false');
  await services.node('web01').maintain(true, { reason: 'by hand' });
  const itself = await runlock({ env: envOf('web01') }, ['release', 'prod/web']);
  expect(itself.stdout).toContain('web on web01 is out of maintenance\n');
  expect(await services.node('web01').maintenances()).toEqual(['by hand']);
});

test('release ends it too where the claim is gone: the run had no hold, or its hold is over', async () => {
  expect(await exec('web01', ['--maintenance', '--hold', 'none'], 'false')).toMatchObject({ status: 1 });
  expect(await claims()).toEqual([]);
  expect(await services.node('web01').maintenances()).toHaveLength(1);
  const failed = await runlock({ env: envOf('web01') }, ['release', 'prod/web', '--failed']);
  expect(failed.status).toBe(0);
  expect(await services.node('web01').maintenances()).toHaveLength(1);
  const released = await runlock({ env: envOf('web01') }, ['release', 'prod/web']);
  expect(released).toMatchObject({ status: 0, stderr: '' });
  expect(released.stdout).toContain('web on web01 is out of maintenance\n');
  expect(await services.node('web01').maintenances()).toEqual([]);
});

test.each([
  ['a run', () => exec('web01', ['--maintenance'])],
  ['a run without --maintenance', () => exec('web01', [])],
  [
    'release',
    async () => (await exec('web01', [], 'false'), runlock({ env: envOf('web01') }, ['release', 'prod/web'])),
  ],
])('another run’s maintenance of the node stays: %s in another group', async (_, other) => {
  const { folder, lines } = stage();
  const wait = `echo "$RUNLOCK_RUN_ID" >${folder}/run; until [ -e ${folder}/end ]; do sleep 0.05; done`;
  const args = ['exec', '-g', 'prod/db', ...GATE, '--maintenance', '--', 'sh', '-c', wait];
  const first = startRunlock({ env: envOf('web01') }, args);
  await eventually(() => expect(lines('run')).toHaveLength(1));
  const own = [`runlock ${lines('run')[0] ?? ''}`];
  expect(await services.node('web01').maintenances()).toEqual(own);
  expect(await other()).toMatchObject({ status: 0 });
  expect(await services.node('web01').maintenances()).toEqual(own);
  writeFileSync(join(folder, 'end'), '');
  expect(await first.ended).toMatchObject({ status: 0 });
  expect(await services.node('web01').maintenances()).toEqual([]);
});

test('auto on a node that offers nothing: no wait, but its maintenance comes and goes as ever', async () => {
  const bare = (args: readonly string[], command: string) =>
    runlock({ env: envOf('server') }, [
      ...['exec', '-g', 'prod/bare', '--service', 'auto', '--gate-stable', '0', ...args, '--', command],
    ]);
  const node = async () => {
    const checks = (await services.server.http('GET', '/v1/agent/checks')).json() as object;
    return Object.keys(checks).filter((id) => id === '_node_maintenance');
  };
  expect(await bare(['--maintenance'], 'true')).toMatchObject({ status: 0, stderr: '' });
  expect(await bare(['--maintenance=node'], 'true')).toMatchObject({ status: 0, stderr: '' });
  expect(await node()).toEqual([]);
  expect(await bare(['--maintenance=node'], 'false')).toMatchObject({ status: 1 });
  expect(await node()).toHaveLength(1);
  expect(await bare([], 'true')).toMatchObject({ status: 0, stderr: '' });
  expect(await node()).toEqual([]);
});

test('a named node: the catalogue decides for it, its own agent takes it out, and no other', async () => {
  const { address } = services.node('web01').agent;
  const named = ['--node', 'web01'];
  await takeDown('web02');
  const closed = await exec('server', named);
  expect(closed).toMatchObject({ status: 75 });
  expect(closed.stderr).toContain('the gate is closed for web01');
  await services.node('web02').instance('web').answer(200);
  await watcher.untilOffline();
  const without = await exec('server', [...named, '--maintenance']);
  expect(without.status).toBe(64);
  expect(without.stderr).toMatch(/maintenance of web01 needs its own agent.*--agent ADDRESS/);
  const wrong = await exec('server', [
    ...named,
    '--maintenance',
    '--agent',
    services.node('web02').agent.address,
  ]);
  expect(wrong.status).toBe(78);
  expect(wrong.stderr).toContain('is the agent of web02, not of web01');
  expect(await claims()).toEqual([]);
  const looks = (await watcher.looks()).length;
  expect(await exec('server', [...named, '--maintenance', '--agent', address])).toMatchObject({ status: 0 });
  const since = (await watcher.looks())
    .slice(looks)
    .flatMap(({ offline }) => offline.map(({ node }) => node));
  expect(new Set(since)).toEqual(new Set(['web01']));
});

test('a dry run looks, and changes nothing', async () => {
  const before = (await watcher.looks()).length;
  const open = await exec('web01', ['--maintenance', '--dry-run']);
  expect(open).toMatchObject({ status: 0 });
  expect(open.stderr).toContain('dry run: web01 would start now in slot 0 of prod/web');
  await takeDown('web02');
  const closed = await exec('web01', ['--maintenance', '--dry-run']);
  expect(closed).toMatchObject({ status: 75 });
  expect(closed.stderr).toContain('the gate is closed for web01');
  const since = (await watcher.looks()).slice(before).flatMap(({ offline }) => offline);
  expect(since.flatMap(({ maintenance }) => maintenance)).toEqual([]);
  expect(await claims()).toEqual([]);
});

const RULES = `
session "web01" { policy = "write" }
key_prefix "runlock/prod/web/" { policy = "write" }
key "runlock/prod/.freeze" { policy = "write" }
key "runlock/.freeze" { policy = "write" }
node_prefix "" { policy = "read" }
service "web" { policy = "write" }
key "runlock/.gate/web" { policy = "write" }
key_prefix "runlock/.gate/.out/web01/" { policy = "write" }`;

test('with these rights, and nothing else, all of it works', async () => {
  const token = await createToken(services.server.http, RULES);
  const args = ['--maintenance', '--healthy-within', '10s'];
  expect(await exec('web01', args, 'true', token)).toMatchObject({ status: 0, stderr: '' });
  const failed = await exec('web01', args, 'false', token);
  expect(failed.status).toBe(1);
  const released = await runlock({ env: { ...envOf('web01'), CONSUL_HTTP_TOKEN: token } }, [
    'release',
    'prod/web',
  ]);
  expect(released.stdout).toContain('web on web01 is out of maintenance');
});

const WHOLE_RULES = `${RULES}
service_prefix "" { policy = "read" }
key_prefix "runlock/.gate/" { policy = "write" }
node "web01" { policy = "write" }`;

test('to take the whole node out all its services must be seen, else 77; nothing else is needed', async () => {
  const whole = async (rules: string) =>
    exec('web01', ['--maintenance=node'], 'true', await createToken(services.server.http, rules));
  const refused = await whole(WHOLE_RULES.replace(/service_prefix.*/, ''));
  expect(refused.status).toBe(77);
  expect(refused.stderr).toContain('all services of web01 in Consul at');
  expect(refused.stderr).toContain('service_prefix "" { policy = "read" }');
  expect(await whole(WHOLE_RULES)).toMatchObject({ status: 0, stderr: '' });
});

test.each([
  [
    'service "web" { policy = "write" }',
    'service "web" { policy = "read" }',
    'service "web" { policy = "write" }',
  ],
  ['service "web" { policy = "write" }', '', 'service "web" { policy = "read" }'],
  ['node_prefix "" { policy = "read" }', '', 'node_prefix "" { policy = "read" }'],
  ['key "runlock/.gate/web" { policy = "write" }', '', 'key "runlock/.gate/web" { policy = "write" }'],
  [
    'key_prefix "runlock/.gate/.out/web01/" { policy = "write" }',
    '',
    'key_prefix "runlock/.gate/.out/web01/" { policy = "write" }',
  ],
])(
  'without %s (%s instead): 77, the rule is named, and nothing was started',
  async (rule, instead, missing) => {
    const { folder, lines } = stage();
    const token = await createToken(services.server.http, RULES.replace(rule, instead));
    const refused = await exec('web01', ['--maintenance'], `echo ran >${folder}/ran`, token);
    expect(refused.status).toBe(77);
    expect(refused.stderr).toContain(missing);
    expect(refused.stderr.trim().split('\n')).toHaveLength(1);
    expect(lines('ran')).toEqual([]);
    expect(await claims()).toEqual([]);
    expect(await services.node('web01').maintenances()).toEqual([]);
  },
);

test.each([
  [['--maintenance'], '--maintenance needs --service'],
  [['--healthy-within', '1m'], '--healthy-within needs --service'],
  [['--max-offline', '2'], '--max-offline needs --service'],
  [['--min-healthy', '3'], '--min-healthy needs --service'],
  [['--gate-stable', '1s'], '--gate-stable needs --service'],
  [['--allow-unknown-service'], '--allow-unknown-service needs --service'],
  [['--settle', '5s'], '--settle needs --service'],
  [['--agent', '127.0.0.1:1'], '--agent needs --service'],
  [['--service', 'web', '--settle', '5s'], '--settle needs --maintenance'],
  [['--service', 'web', '--agent', '127.0.0.1:1'], 'name that node with --node'],
  [['--service', 'we b'], "--service 'we b': not a service name"],
  [
    ['--service', 'web', '--max-offline', '0'],
    'must be a whole number from 1, or a percentage from 1% to 100%',
  ],
  [['--service', 'web', '--maintenance=host'], '--maintenance host: write service or node'],
])('%j is wrong usage', async (args, message) => {
  const wrong = await runlock(undefined, ['exec', ...args, '--', 'true']);
  expect(wrong).toMatchObject({ status: 64, stdout: '' });
  expect(wrong.stderr).toContain(message);
  expect(wrong.stderr.trim().split('\n')).toHaveLength(1);
});

test('what the file says of maintenance and health is for runs that name a service', async () => {
  const { folder } = stage();
  const metrics = join(folder, 'runlock.prom');
  const env = { RUNLOCK_MAINTENANCE: 'service', RUNLOCK_HEALTHY_WITHIN: '500ms', RUNLOCK_SETTLE: '10ms' };
  const { env: own } = services.node('web01').agent;
  const plain = await runlock({ env: own }, ['exec', '-g', 'prod/web', '--', 'true'], { env });
  expect(plain).toMatchObject({ status: 0, stderr: '' });
  await takeDown('web01');
  const args = ['exec', '-g', 'prod/web', ...GATE, '--metrics-file', metrics, '--log-format', 'json'];
  const unhealthy = await runlock({ env: own }, [...args, '--', 'true'], { env });
  expect(unhealthy.status).toBe(80);
  expect(readFileSync(metrics, 'utf8')).toContain(
    'runlock_last_outcome{group="prod/web",outcome="unhealthy"} 1',
  );
  expect(readFileSync(metrics, 'utf8')).toContain('runlock_last_exit_code{group="prod/web"} 80');
  const events = unhealthy.stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(events.map(({ event }) => event)).toEqual([
    'granted',
    'maintenance-on',
    'waiting-for-health',
    'maintenance-left',
    'ended',
  ]);
  expect(events.at(-1)).toMatchObject({ outcome: 'unhealthy', exitCode: 0, released: 'held' });
});
