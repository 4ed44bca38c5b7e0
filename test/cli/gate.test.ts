// `runlock gate` in scripts: whether a node may go out of service, its way out and its way back, on real nodes.
import { writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { startAgent } from '../support/consul.ts';
import { spawnRunlock } from '../support/program.ts';
import type { Result, StartOptions } from '../support/program.ts';
import { succeeded } from '../support/consul-api.ts';
import { eventually } from '../support/processes.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { SEEN_MS, startServices } from '../support/services.ts';
import type { Health, Services } from '../support/services.ts';
import { stage } from '../support/stage.ts';
import { watchService } from '../support/services-watcher.ts';

let services: Services;
beforeAll(async () => {
  services = await startServices({ nodes: 3, services: ['web', 'db'] });
});
afterEach(async () => {
  for (const node of services.nodes) {
    for (const service of ['web', 'db']) {
      await node.maintain(false, { service });
      await node.instance(service).answer(200);
    }
    await node.maintain(false);
  }
  await untilOffline('web');
  await untilOffline('db');
  // Marks of who went out by hand stay until they leave; here the maintenance is ended without that.
  await services.server.kv.deleteTree('runlock/.gate/.out/');
  expect(await services.server.kv.keys('runlock/')).toEqual([]);
});
afterAll(() => services[Symbol.asyncDispose]());

const ONE_LOOK = ['--gate-stable', '0'];
const gate = (node: string, action: string, args: readonly string[] = [], options?: StartOptions) => {
  const named = args.includes('--service') ? args : ['--service', 'web', ...args];
  return startRunlock(services.node(node).agent, ['gate', action, ...named], options);
};
const once = (node: string, action: string, ...args: string[]) =>
  gate(node, action, [...ONE_LOOK, ...args]).ended;
const json = ({ stdout }: Result) => JSON.parse(stdout) as Record<string, unknown>;

/** Resolves when the catalogue shows these nodes of the service as offline, and no others. */
async function untilOffline(service: string, ...names: string[]): Promise<void> {
  const watcher = watchService(services.server, service);
  await watcher.untilOffline(...names).finally(() => watcher.stop());
}
async function falls(node: string, health: Health = 500): Promise<void> {
  await services.node(node).instance('web').answer(health);
  await untilOffline('web', node);
}
const watch = () => {
  const watcher = watchService(services.server, 'web');
  onTestFinished(() => watcher.stop());
  return watcher;
};

describe('check', () => {
  test('says in two looks that the gate is open, with 0', async () => {
    const { status, stdout, stderr } = await gate('web01', 'check', ['--gate-stable', '300ms']).ended;
    expect({ status, stdout, stderr }).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: 'web is open: 0 of 3 offline (max 1)\n',
    });
  });

  test('names the peer that closes it and why, with 75, and lets that one through itself', async () => {
    await services.node('web02').maintain(true, { service: 'web', reason: 'new disk' });
    await untilOffline('web', 'web02');
    const closed = await once('web01', 'check');
    expect(closed).toEqual({
      ...{ status: 75, stderr: '' },
      stdout:
        'web is closed: 1 of 3 offline: web-1 on web02 (maintenance: new disk); with web01 2 would be offline (max 1)\n',
    });
    const itself = await once('web02', 'check');
    expect(itself.stdout).toMatch(/^web is open: web02 is offline itself \(maintenance: new disk\)/);
    expect(itself.status).toBe(0);
  });

  test.each([500, 'hang', 'stopped'] as const)('is closed by a peer whose check gets: %s', async (health) => {
    await falls('web03', health);
    const { status, stdout } = await once('web01', 'check');
    expect(status).toBe(75);
    expect(stdout).toMatch(
      /^web is closed: 1 of 3 offline: web-1 on web03 \(web answers: .+\); with web01 2 would be/,
    );
  });

  test('is of every service that is named; each has its line, and all have to be open', async () => {
    await services.node('web02').maintain(true, { service: 'db' });
    await untilOffline('db', 'web02');
    const both = await once('web01', 'check', '--service', 'web', '--service', 'db');
    expect(both.status).toBe(75);
    expect(both.stdout).toMatch(/^db is closed: .*\nweb is open: .*\n$/);
    const auto = await once('web01', 'check', '--service', 'auto');
    expect(auto).toEqual(both);
    expect((await once('web01', 'check', '--service', 'web')).status).toBe(0);
  });

  test('goes by --max-offline, a number or a part rounded down, and by --min-healthy', async () => {
    await services.node('web02').maintain(true);
    await untilOffline('web', 'web02');
    const bounds = [
      ['--max-offline', '2'],
      ['--max-offline', '66%'],
      ['--max-offline', '67%'],
      ['--max-offline', '2', '--min-healthy', '1'],
      ['--max-offline', '2', '--min-healthy', '2'],
    ];
    const results = await Promise.all(bounds.map((args) => once('web01', 'check', ...args)));
    expect(results.map(({ status }) => status)).toEqual([0, 75, 0, 0, 75]);
  });

  test('judges another node by the catalogue', async () => {
    await falls('web02');
    expect((await once('web01', 'check', '--node', 'web03', '--service', 'auto')).status).toBe(75);
    expect((await once('web01', 'check', '--node', 'web02', '--service', 'auto')).status).toBe(0);
    const unknown = await once('web01', 'check', '--node', 'web09', '--service', 'auto');
    expect(unknown).toMatchObject({ status: 78, stdout: '' });
    expect(unknown.stderr).toMatch(/^runlock: [^\n]*no node 'web09'[^\n]*; correct --node[^\n]*\n$/);
  });

  test('has documented JSON', async () => {
    await services.node('web02').maintain(true, { service: 'web', reason: '\u001b[31mred' });
    await untilOffline('web', 'web02');
    const closed = await once('web01', 'check', '--json');
    expect(closed.stdout).not.toContain('\u001b');
    const service = { service: 'web', open: false, because: 'too-many-offline', total: 3, limit: 1 };
    const offline = [{ node: 'web02', id: 'web-1', why: 'maintenance: \u001b[31mred' }];
    expect(json(closed)).toEqual({
      ...{ v: 1, action: 'check', node: 'web01', open: false },
      services: [{ ...service, ownInstances: 1, own: 'healthy', offline }],
    });
  });

  // It was open before: a name that was wrong let every run pass.
  test('of the whole node is of all that it offers', async () => {
    const answers = await once('web01', 'check', '--service', 'db', '--maintenance', 'node', '--json');
    expect(answers).toMatchObject({ status: 0 });
    expect(json(answers)).toMatchObject({ services: [{ service: 'db' }, { service: 'web' }] });
    await falls('web02');
    for (const action of ['check', 'enter']) {
      const closed = await once('web01', action, '--service', 'db', '--maintenance', 'node');
      expect(closed).toMatchObject({ status: 75 });
      expect(closed.stdout).toMatch(/web .*1 of 3 offline: web-1 on web02/);
    }
    // By the catalogue alone too.
    const named = ['--service', 'db', '--node', 'web03', '--maintenance', 'node'];
    expect(await once('web01', 'check', ...named)).toMatchObject({ status: 75 });
    expect(await once('web02', 'check', '--service', 'db', '--maintenance', 'node')).toMatchObject({
      status: 0,
    });
  });

  // Open before: it looked like a control host, which takes nothing down.
  test('is closed while the catalogue does not show what the node’s agent offers', async () => {
    const { http } = services.node('web01').agent;
    const offered = (await http('GET', '/v1/agent/service/web-1')).json() as Record<string, unknown>;
    const gone = { Node: 'web01', ServiceID: 'web-1' };
    succeeded(await services.server.http('PUT', '/v1/catalog/deregister', gone), 'leaving');
    for (const args of [[], ['--service', 'auto']]) {
      const away = await once('web01', 'check', ...args);
      expect(away).toMatchObject({ status: 75 });
      expect(away.stdout).toMatch(
        /^web .*the instance of web01 has disappeared from Consul; its agent may be down$/m,
      );
    }
    // Told to register it again, the agent does not wait for its next round.
    const again = { ID: 'web-1', Name: 'web', Port: offered['Port'] };
    succeeded(await http('PUT', '/v1/agent/service/register', again), 'registering');
    await eventually(async () => expect(await once('web01', 'check')).toMatchObject({ status: 0 }));
  });

  test('refuses a name that the node offers in another case alone, whoever offers the right one', async () => {
    await services.offer('Api', ['web01']);
    await services.offer('api', ['web02']);
    for (const action of ['check', 'enter']) {
      const refused = await once('web01', action, '--service', 'api');
      expect(refused).toMatchObject({ status: 78, stdout: '' });
      expect(refused.stderr).toContain(
        "web01 has no instance of api (did you mean 'Api'?); correct --service",
      );
      expect(refused.stderr.trim().split('\n')).toHaveLength(1);
    }
    expect(await once('web02', 'check', '--service', 'api')).toMatchObject({ status: 0 });
    expect(await once('web03', 'check', '--service', 'api')).toMatchObject({ status: 0 });
    await services.node('web01').agent.http('PUT', '/v1/agent/service/deregister/Api-1');
    await services.node('web02').agent.http('PUT', '/v1/agent/service/deregister/api-1');
  });

  test('refuses a service that nobody offers, with the nearest right name, unless that is allowed', async () => {
    const refused = await once('web01', 'check', '--service', 'wbe,web');
    expect(refused).toMatchObject({ status: 78, stdout: '' });
    expect(refused.stderr).toMatch(
      /^runlock: no instances of wbe \(did you mean 'web'\?\) in Consul's catalogue at \S+; correct --service, or give --allow-unknown-service [^\n]*\n$/,
    );
    expect((await once('web01', 'enter', '--service', 'mongo')).stderr).toMatch(
      /no instances of mongo in .*; correct/,
    );
    const unknown = { status: 0, stderr: '', stdout: 'wbe is open: no instances; is the name correct?\n' };
    expect(await once('web01', 'check', '--service', 'wbe', '--allow-unknown-service')).toEqual(unknown);
    const env = { RUNLOCK_ALLOW_UNKNOWN_SERVICE: 'true' };
    expect(await gate('web01', 'check', ['--service', 'wbe', ...ONE_LOOK], { env }).ended).toEqual(unknown);
    const file = `${stage().folder}/config.toml`;
    writeFileSync(file, 'allow_unknown_service = true\n');
    expect(await once('web01', 'check', '--service', 'wbe', '--config', file)).toEqual(unknown);
  });

  test('refuses a node that the catalogue does not know, with the nearest name, unless allowed', async () => {
    for (const [name, meant] of [
      ['web01.example.com', 'web01'],
      ['WEB01', 'web01'],
      ['web0l', 'web01'],
    ] as const) {
      const refused = await once('web02', 'check', '--node', name);
      expect(refused).toMatchObject({ status: 78, stdout: '' });
      expect(refused.stderr).toMatch(
        new RegExp(`no node '${name}' \\(did you mean '${meant}'\\?\\); correct --node, or give --allow-`),
      );
    }
    const allowed = ['--node', 'h', '--allow-unknown-service'];
    expect(await once('web02', 'check', ...allowed)).toMatchObject({
      ...{ status: 0, stdout: 'web is open: h has no instance\n' },
    });
    expect(await once('web02', 'check', ...allowed, '--service', 'auto')).toMatchObject({
      ...{ status: 0, stdout: 'h has no services, so none go offline with it\n' },
    });
    // It is in the catalogue, and takes nothing of the service down.
    const control = services.server.name;
    expect((await once('web02', 'check', '--node', control)).stdout).toMatch(
      /^web is open: \S+ has no instance/,
    );
  });

  test('says its sentence once, also where waiting would not help', async () => {
    const { agent } = services.node('web01');
    const second = { Name: 'web', ID: 'web-2', Check: { TTL: '600s', Status: 'passing' } };
    succeeded(await agent.http('PUT', '/v1/agent/service/register', second), 'registering');
    try {
      await eventually(async () => {
        const closed = await once('web01', 'check');
        expect(closed).toEqual({
          ...{ status: 75, stderr: '' },
          stdout:
            'web is closed: web01 alone has 2 of 4 instances, more than may be offline (max 1); raise --max-offline\n',
        });
      });
    } finally {
      succeeded(await agent.http('PUT', '/v1/agent/service/deregister/web-2'), 'deregistering');
    }
  });
});

describe('--wait', () => {
  test('says for whom it waits, and ends as soon as that one is back', async () => {
    await services.node('web02').maintain(true, { service: 'web', reason: 'new disk' });
    await untilOffline('web', 'web02');
    const waiting = gate('web01', 'check', ['--wait', 'forever', '--gate-stable', '200ms', '-v']);
    await waiting.says(/web01 is waiting for the gate of web: web02 \(maintenance: new disk\)/, SEEN_MS);
    await services.node('web02').maintain(false, { service: 'web' });
    const { status, stdout } = await waiting.ended;
    expect({ status, stdout }).toEqual({ status: 0, stdout: 'web is open: 0 of 3 offline (max 1)\n' });
  });

  test('is over when its time is: 75', async () => {
    await falls('web02');
    const { status, stdout } = await gate('web01', 'check', ['--wait', '1s']).ended;
    expect(status).toBe(75);
    expect(stdout).toMatch(/^web is closed: 1 of 3 offline: web-1 on web02/);
  });

  test('an open gate counts only when it stays open', async () => {
    const web02 = services.node('web02');
    await web02.maintain(true);
    await untilOffline('web', 'web02');
    const waiting = gate('web01', 'check', ['--wait', 'forever', '--gate-stable', '5s', '-v']);
    await waiting.says(/is waiting for the gate/, SEEN_MS);
    await web02.maintain(false);
    await waiting.says(/the gate is open for web01/, SEEN_MS);
    await web02.maintain(true);
    await waiting.says(/is waiting for the gate[^]*is open[^]*is waiting for the gate/, SEEN_MS);
    expect(waiting.stdout()).toBe('');
    await web02.maintain(false);
    expect((await waiting.ended).status).toBe(0);
  });

  test.each(['SIGTERM', 'SIGINT'] as const)('ends at once by %s', async (signal) => {
    await falls('web02');
    const waiting = gate('web01', 'enter', ['--wait', 'forever', '-v']);
    await waiting.says(/is waiting for the gate/, SEEN_MS);
    waiting.signal(signal);
    expect(await waiting.ended).toMatchObject({ status: signal === 'SIGTERM' ? 143 : 130, stdout: '' });
    expect(await services.node('web01').maintenances()).toEqual([]);
  });
});

describe('enter and leave', () => {
  test('take the node out of service and put it back; each may be called again', async () => {
    const web01 = services.node('web01');
    const inRun = { env: { RUNLOCK_RUN_ID: 'run-7' } };
    const entered = await gate('web01', 'enter', ONE_LOOK, inRun).ended;
    expect(entered).toEqual({
      status: 0,
      stdout: 'web01 is out of service: web (runlock run-7)\n',
      stderr: '',
    });
    expect(await web01.maintenances()).toEqual(['runlock run-7']);
    const again = await once('web01', 'enter');
    expect(again).toMatchObject({
      ...{ status: 0, stdout: 'web01 is out of service: web (already: runlock run-7)\n' },
    });
    expect((await once('web02', 'enter')).status).toBe(75);
    expect(await services.node('web02').maintenances()).toEqual([]);
    const left = await gate('web01', 'leave').ended;
    expect(left).toEqual({ status: 0, stdout: 'web01 is back from maintenance: web\n', stderr: '' });
    expect(await web01.maintenances()).toEqual([]);
    const nothing = await gate('web01', 'leave').ended;
    expect(nothing).toEqual({ status: 0, stdout: 'web01 is not in maintenance\n', stderr: '' });
  });

  test('a name in another case is refused with the right one, and puts back what is out', async () => {
    const refused = await once('web01', 'enter', '--service', 'WEB');
    expect(refused).toMatchObject({ status: 78, stdout: '' });
    expect(refused.stderr).toContain("has no instance of WEB (did you mean 'web'?)");
    expect((await once('web01', 'enter')).status).toBe(0);
    const left = await once('web01', 'leave', '--service', 'WEB', '--json');
    expect(json(left)).toMatchObject({ ended: [{ service: 'web' }] });
    await untilOffline('web');
  });

  test('of all nodes that enter at once one does, and the next when that one leaves', async () => {
    const watcher = watch();
    const nodes = ['web01', 'web02', 'web03'];
    const results = await Promise.all(nodes.map((node) => once(node, 'enter')));
    expect(results.map(({ status }) => status).sort()).toEqual([0, 75, 75]);
    const first = nodes.find((_, i) => results[i]?.status === 0) ?? '';
    const next = gate(nodes.find((node) => node !== first) ?? '', 'enter', [
      ...ONE_LOOK,
      '--wait',
      'forever',
      '-v',
    ]);
    await next.says(/is waiting for the gate/, SEEN_MS);
    expect((await once(first, 'leave')).status).toBe(0);
    expect((await next.ended).status).toBe(0);
    expect(await watcher.most()).toBe(1);
    for (const node of nodes) await once(node, 'leave');
  });

  test('never touch what somebody else has set, and say that it stays', async () => {
    const web01 = services.node('web01');
    await web01.maintain(true, { service: 'web', reason: 'by Anna' });
    expect((await once('web01', 'enter')).stdout).toBe('web01 is out of service: web (already: by Anna)\n');
    await web01.maintain(true, { service: 'db', reason: 'runlock run-8' });
    const left = await once('web01', 'leave', '--service', 'auto', '--json');
    const db = { scope: 'service', service: 'db', serviceId: 'db-1', reason: 'runlock run-8', run: 'run-8' };
    const web = { scope: 'service', service: 'web', serviceId: 'web-1', reason: 'by Anna' };
    const head = { v: 1, action: 'leave', node: 'web01' };
    expect(left.status).toBe(0);
    expect(json(left)).toEqual({ ...head, ended: [db], stays: [web] });
    expect(left.stderr).toMatch(
      /^runlock: web of web01 stays in maintenance, not set by runlock \("by Anna"\)\n$/,
    );
    expect(await web01.maintenances()).toEqual(['by Anna']);
  });

  test('are for a node at its own agent alone', async () => {
    const address = (node: string) => services.node(node).agent.address;
    const named = ['--node', 'web03', '--maintenance', 'node'];
    const lacks = await once('web01', 'enter', ...named);
    expect(lacks).toMatchObject({ status: 64, stdout: '' });
    expect(lacks.stderr).toMatch(
      /^runlock: maintenance of web03 needs its own agent[^\n]*--agent ADDRESS\n$/,
    );
    const wrong = await once('web01', 'enter', ...named, '--agent', address('web02'));
    expect(wrong).toMatchObject({ status: 78, stdout: '' });
    expect(wrong.stderr).toMatch(/is the agent of web02, not of web03; correct --agent or --node\n$/);
    const right = [...named, '--agent', address('web03')];
    expect((await once('web01', 'enter', ...right)).stdout).toMatch(
      /^web03 is out of service: the whole node/,
    );
    expect(await services.node('web03').maintenances()).toHaveLength(1);
    expect(await services.node('web01').maintenances()).toEqual([]);
    expect((await once('web01', 'leave', ...right)).stdout).toBe(
      'web03 is back from maintenance: the whole node\n',
    );
    expect(await services.node('web03').maintenances()).toEqual([]);
  });
});

test.concurrent.each([
  [['check'], /name the services with --service/],
  [['check', '--service', 'a b'], /--service 'a b': not a service name/],
  [
    ['check', '--service', 'web', '--max-offline', '0'],
    /--max-offline 0: must be a whole number from 1, or a percentage/,
  ],
  [['check', '--service', 'web', '--max-offline', '101%'], /101%: must be a whole number/],
  [['look', '--service', 'web'], /unknown action 'look'; use check, enter, leave; see/],
  [['enter', '--service', 'web', '--agent', '127.0.0.1:1'], /name that node with --node/],
])('%j is wrong usage', async (args, pattern) => {
  const { status, stdout, stderr } = await spawnRunlock(undefined, ['gate', ...args]).ended;
  expect({ status, stdout }).toEqual({ status: 64, stdout: '' });
  expect(stderr).toMatch(/^runlock: [^\n]+\n$/);
  expect(stderr).toMatch(pattern);
});

describe('status --service', () => {
  const status = (...args: string[]) =>
    runlock(services.node('web01').agent, ['status', 'prod/web', ...args]);

  test('shows who is offline and why, and for whom the gate is open', async () => {
    await services.node('web02').maintain(true, { service: 'web', reason: 'new \u001b[31mdisk' });
    await untilOffline('web', 'web02');
    const { stdout, stderr } = await status('--service', 'auto', '--min-healthy', '2');
    expect(stderr).toBe('');
    expect(stdout.split('\n\n').slice(1).join('\n\n')).toBe(
      [
        'service db',
        '  gate: open for every node: 0 of 3 offline (max 1, min healthy 2)',
        '',
        'service web',
        '  INSTANCE  NODE   STATE    WHY',
        '  web-1     web02  offline  maintenance: new \\x1b[31mdisk',
        '  gate: closed for web01, web03: 1 of 3 offline: web-1 on web02 (maintenance: new \\x1b[31mdisk); with any of these nodes 2 would be offline (max 1)',
        '  gate: open for web02: web02 is offline itself (maintenance: new \\x1b[31mdisk), and its run may repair it',
        '',
      ].join('\n'),
    );
    const { services: views } = json(await status('--service', 'web', '--json'));
    const why = 'maintenance: new \u001b[31mdisk';
    const offline = [{ node: 'web02', id: 'web-1', why }];
    const lists = { openFor: ['web02'], closedFor: ['web01', 'web03'] };
    const closed = `1 of 3 offline: web-1 on web02 (${why}); with any of these nodes 2 would be offline (max 1)`;
    const gates = [
      { open: false, nodes: ['web01', 'web03'], why: closed },
      { open: true, nodes: ['web02'], why: `web02 is offline itself (${why}), and its run may repair it` },
    ];
    expect(views).toEqual([{ service: 'web', total: 3, limit: 1, offline, ...lists, gates }]);
    // One that is alone with its answer reads what `gate check` says to it, word for word.
    const { stdout: said } = await once('web02', 'check');
    expect(said).toBe(`web is open: ${gates[1]?.why.replaceAll('\u001b', '\\x1b')}\n`);
  });

  test("goes by the group's section of the configuration file; without one it names no services", async () => {
    const { folder } = stage();
    const file = `${folder}/config.toml`;
    writeFileSync(file, '[groups.prod]\nservice = ["web", "wbe"]\nmax_offline = "67%"\n');
    const { stdout } = await status('--config', file);
    expect(stdout).toMatch(/\nservice wbe\n {2}gate: no instances; is the name correct\?\n/);
    expect(stdout).toMatch(/\nservice web\n {2}gate: open for every node: 0 of 3 offline \(max 2\)\n$/);
    expect((await status()).stdout).not.toContain('service');
    const checked = await once('web01', 'check', '-g', 'prod/web', '--config', file);
    expect(checked.stdout).toMatch(/^web is open: 0 of 3 offline \(max 2\)\n$/);
  });

  test('is shown once: with --watch it is wrong usage', async () => {
    const wrong = await status('--service', 'web', '--watch', '--json');
    expect(wrong).toMatchObject({ status: 64, stdout: '' });
    expect(wrong.stderr).toMatch(/^runlock: --service and --watch exclude each other\n$/);
  });
});

// It ended with 78 before: the sessions of the gate are shorter than that of a run.
test('agents that take no session as short as the gate’s: it takes the shortest that they take', async () => {
  await using agent = await startAgent({ name: 'web01', config: { session_ttl_min: '40s' } });
  const register = { Name: 'web', ID: 'web-1', Check: { TTL: '600s', Status: 'passing' } };
  succeeded(await agent.http('PUT', '/v1/agent/service/register', register), 'registering');
  const named = ['--service', 'web', ...ONE_LOOK];
  for (const action of ['check', 'enter', 'leave'])
    expect(await runlock(agent, ['gate', action, ...named])).toMatchObject({ status: 0, stderr: '' });
  const exec = ['exec', '-g', 'prod/web', '--session-ttl', '60s', ...named, '--maintenance', '--', 'true'];
  expect(await runlock(agent, exec)).toMatchObject({ status: 0, stderr: '' });
});

describe('rights', () => {
  const session = 'session "web01" { policy = "write" }';
  const service = 'service "web" { policy = "write" }';
  const node = 'node_prefix "" { policy = "read" }';
  const key = 'key "runlock/.gate/web" { policy = "write" }';

  test('what may not be seen is never taken for healthy: the rule that is missing is named', async () => {
    await using agent = await startAgent({ name: 'web01', acl: true });
    const register = { Name: 'web', ID: 'web-1', Check: { TTL: '600s', Status: 'passing' } };
    succeeded(await agent.http('PUT', '/v1/agent/service/register', register), 'registering');
    const asked = async (action: string, ...rules: string[]) => {
      const env = { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(rules.join('\n')) };
      return runlock({ env }, ['gate', action, '--service', 'web', ...ONE_LOOK]);
    };
    expect(await asked('check', session, service, node)).toMatchObject({ status: 0 });
    const lacks = await Promise.all([
      asked('check', session, node),
      asked('check', session, service),
      asked('check', session, service, 'node "web01" { policy = "read" }'),
      asked('check', service, node),
      asked('enter', session, service, node),
    ]);
    const rules = [/service "web" \{ policy = "read" \}/, /node_prefix "" \{ policy = "read" \}/];
    const expected = [
      rules[0],
      rules[1],
      rules[1],
      /session "NODE" \{ policy = "write" \}/,
      /key "runlock\/.gate\/web"/,
    ];
    for (const [i, { status, stdout, stderr }] of lacks.entries()) {
      expect({ status, stdout }).toEqual({ status: 77, stdout: '' });
      expect(stderr).toMatch(expected[i] ?? /never/);
    }
    const blind = 'key_prefix "runlock/" { policy = "read" } service "web" { policy = "read" }';
    const env = { ...agent.env, CONSUL_HTTP_TOKEN: await agent.token(blind) };
    const status = await runlock({ env }, ['status', 'prod/web', '--service', 'web']);
    expect(status.stdout).toMatch(
      /service web\n {2}problem: this token may not see all [^\n]*node_prefix "" /,
    );
    const marks = 'key_prefix "runlock/.gate/.out/web01/" { policy = "write" }';
    expect(await asked('enter', session, service, node, key, marks)).toMatchObject({ status: 0 });
    // Who else needs the maintenance is written there.
    const unmarked = await asked('leave', session, service, node);
    expect(unmarked).toMatchObject({ status: 77, stdout: '' });
    expect(unmarked.stderr).toContain(marks);
    expect(await asked('leave', session, service, node, marks)).toMatchObject({ status: 0 });
  });
});
