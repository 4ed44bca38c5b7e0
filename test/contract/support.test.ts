// The tests rest on test/support: what it promises them is tested here.
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { beforeAll, describe, expect, test } from 'vitest';
import { isDebianArchive, parseDeb822, parseList } from '../support/apt.ts';
import { createHttp } from '../support/consul-api.ts';
import { startAgent, startCluster } from '../support/consul.ts';
import { useAgent } from '../support/use-agent.ts';
import { ansible, puppet } from '../support/provision.ts';
import { startProxy } from '../support/proxy.ts';
import type { Proxy } from '../support/proxy.ts';

/** What a client says of a connection that was closed without an answer. */
const closed = /hang up|ECONNRESET/;

describe('an agent', () => {
  test('answers tests and the consul program alike', async () => {
    await using agent = await startAgent({ name: 'web-1' });
    expect(await agent.kv.put('a/b', 'ü', { cas: 0 })).toBe(true);
    expect(await agent.kv.put('a/b', 'again', { cas: 0 })).toBe(false);
    expect(await agent.kv.get('a/b')).toMatchObject({ Key: 'a/b', Value: 'ü' });
    expect(await agent.consul('kv', 'get', 'a/b')).toBe('ü');
    expect(await agent.consul('members')).toContain('web-1');
    expect(await agent.kv.delete('a/b')).toBe(true);
    expect(await agent.kv.keys()).toEqual([]);
    expect(await agent.kv.get('a/b')).toBeUndefined();
    const set = { KV: { Verb: 'set', Key: 'x', Value: Buffer.from('1').toString('base64') } };
    const check = { KV: { Verb: 'check-index', Key: 'x', Index: 1 } };
    expect((await agent.kv.txn([set, check])).status).toBe(409);
    expect((await agent.kv.txn([set])).status).toBe(200);
  });

  test('with ACLs refuses what no token allows', async () => {
    await using agent = await startAgent({ acl: true });
    const weak = await agent.token('key_prefix "runlock/web/" { policy = "write" }');
    const put = (key: string, token: string) => agent.http('PUT', `/v1/kv/${key}`, '1', { token });
    expect((await put('runlock/web/a', '')).status).toBe(403);
    expect((await put('runlock/db/a', weak)).status).toBe(403);
    expect((await put('runlock/web/a', weak)).status).toBe(200);
    expect(await agent.consul('kv', 'get', 'runlock/web/a')).toBe('1');
  });

  test('with TLS shows a certificate of its own authority, and asks for one', async () => {
    await using agent = await startAgent({ tls: { verifyIncoming: true, httpsOnly: true } });
    expect(agent.url).toMatch(/^https:/);
    expect(await agent.consul('kv', 'put', 'a', '1')).toContain('Success');
    const [host = '', port = ''] = agent.address.split(':');
    const ask = (tls: { ca?: string }) =>
      createHttp({ protocol: 'https:', host, port: Number(port), tls })('GET', '/v1/status/leader');
    await expect(ask({})).rejects.toThrow(/unable to verify|self.signed/);
    const { CONSUL_CACERT = '' } = agent.env;
    await expect(ask({ ca: await readFile(CONSUL_CACERT, 'utf8') })).rejects.toThrow(
      /alert|reset|RESET|hang up/,
    );
  });

  test('listens on a Unix socket', async () => {
    await using agent = await startAgent({ unixSocket: true });
    expect(agent.env['CONSUL_HTTP_ADDR']).toMatch(/^unix:\/\/\//);
    expect(await agent.consul('kv', 'put', 'a', '1')).toContain('Success');
  });

  test('keeps its data, its address and its name over a restart when it is durable', async () => {
    await using agent = await startAgent({ durable: true });
    await agent.kv.put('a', '1');
    const { pid } = agent;
    await agent.restart('kill');
    expect(agent.pid).not.toBe(pid);
    expect(await agent.kv.get('a')).toMatchObject({ Value: '1' });
  });

  test('answers nothing while paused, and ends without a trace even so', async () => {
    await using agent = await startAgent();
    agent.pause();
    const asked = agent.http('GET', '/v1/status/leader', undefined, { timeoutMs: 300 });
    await expect(asked).rejects.toThrow(/no answer in/);
    agent.resume();
    await agent.ready();
    agent.pause();
    await agent[Symbol.asyncDispose]();
    expect(existsSync(`/proc/${agent.pid}`)).toBe(false);
    expect(existsSync(agent.folder)).toBe(false);
  });

  test('that cannot start says why', async () => {
    const start = startAgent({ config: { no_such_setting: true } });
    await expect(start).rejects.toThrow(/ended by itself.*no_such_setting/s);
  });
});

test('a cluster elects a new leader when its leader is killed, and its clients find it', async () => {
  await using cluster = await startCluster({ servers: 3, clients: 2, raftMultiplier: 1 });
  const [one, two] = cluster.clients;
  const leader = await cluster.leader();
  await leader.kill();
  const next = await cluster.leader();
  expect(next.name).not.toBe(leader.name);
  for (const client of cluster.clients) await client.ready();
  expect(await one?.kv.put('a', '1')).toBe(true);
  expect(await two?.kv.get('a')).toMatchObject({ Value: '1' });
  next.pause();
  await leader.restart();
  expect([leader.name, ...cluster.servers.map((s) => s.name)]).toContain((await cluster.leader()).name);
  expect((await cluster.leader()).name).not.toBe(next.name);
});

test("a client's graceful restart ends its sessions", async () => {
  await using cluster = await startCluster({ servers: 1, clients: 1, raftMultiplier: 1 });
  const [client] = cluster.clients;
  if (client === undefined) throw new Error('no client');
  const created = await client.http('PUT', '/v1/session/create', { TTL: '60s', Checks: [] });
  const { ID } = created.json() as { ID: string };
  await client.restart('graceful');
  expect((await client.http('GET', `/v1/session/info/${ID}`)).json()).toEqual([]);
});

describe('the proxy', () => {
  const agent = useAgent();
  let proxy: Proxy;
  const call = (method: string, path: string, body = '') => {
    const [host = '', port = ''] = proxy.address.split(':');
    return createHttp({ protocol: 'http:', host, port: Number(port) })(method, path, body);
  };
  const put = (key: string) => call('PUT', `/v1/kv/${key}`, 'value');

  beforeAll(async () => {
    proxy = await startProxy(agent);
    return () => proxy.close();
  });

  test('passes everything on when no rule says otherwise', async () => {
    const before = proxy.counts();
    expect((await put('plain')).json()).toBe(true);
    const read = await call('GET', '/v1/kv/plain?raw');
    expect(read.text).toBe('value');
    expect(read.headers['x-consul-index']).toBeDefined();
    expect(proxy.counts().requests).toBe(before.requests + 2);
    expect(proxy.counts().bytesIn).toBeGreaterThan(before.bytesIn + 'value'.length);
    expect(proxy.requests.at(-2)).toEqual({ method: 'PUT', path: '/v1/kv/plain', body: 'value' });
  });

  test('lets a blocking query wait', async () => {
    await put('watched');
    const index = String((await call('GET', '/v1/kv/watched')).headers['x-consul-index']);
    const watch = call('GET', `/v1/kv/watched?index=${index}&wait=30s&raw`);
    await proxy.seen(({ path }) => path.includes(`index=${index}`));
    await agent.kv.put('watched', 'changed');
    expect((await watch).text).toBe('changed');
  });

  test('drops a request before it takes effect, as often as told', async () => {
    proxy.rule({ match: ({ path }) => path.includes('before'), times: 1, do: 'drop-before' });
    await expect(put('before')).rejects.toThrow(closed);
    expect(await agent.kv.get('before')).toBeUndefined();
    expect((await put('before')).json()).toBe(true);
  });

  test('drops the answer after the request took effect', async () => {
    const remove = proxy.rule({ do: 'drop-after' });
    await expect(put('after')).rejects.toThrow(closed);
    remove();
    expect(await agent.kv.get('after')).toMatchObject({ Value: 'value' });
  });

  test('cuts an answer in its middle', async () => {
    proxy.rule({ times: 1, do: 'cut' });
    await expect(put('cut')).rejects.toThrow(/aborted/);
    expect(await agent.kv.get('cut')).toMatchObject({ Value: 'value' });
  });

  test('lets a request hang until its connection is severed', async () => {
    proxy.rule({ times: 1, do: 'hang' });
    const hanging = put('hang');
    await proxy.seen(({ path }) => path.endsWith('hang'));
    proxy.sever();
    await expect(hanging).rejects.toThrow(closed);
    expect(await agent.kv.get('hang')).toBeUndefined();
  });

  test('says when a request took effect, and never answers it', async () => {
    const done = new Promise<void>((resolve) => {
      proxy.rule({ times: 1, do: { done: resolve } });
    });
    const unanswered = put('done');
    await done;
    expect(await agent.kv.get('done')).toMatchObject({ Value: 'value' });
    proxy.sever();
    await expect(unanswered).rejects.toThrow(closed);
  });

  test('brings a request late', async () => {
    proxy.rule({ times: 1, do: 'late' });
    await expect(put('late')).rejects.toThrow(closed);
    expect(await agent.kv.get('late')).toBeUndefined();
    expect(await proxy.release()).toEqual([{ status: 200, body: 'true\n' }]);
    expect(await agent.kv.get('late')).toMatchObject({ Value: 'value' });
  });

  test('delays, and answers by itself', async () => {
    proxy.rule({ times: 1, do: { delayMs: 200 } });
    const start = performance.now();
    await put('slow');
    expect(performance.now() - start).toBeGreaterThan(190);
    proxy.rule({ do: { status: 500, body: 'No cluster leader' } });
    expect(await put('refused')).toMatchObject({ status: 500, text: 'No cluster leader' });
    proxy.clear();
    expect((await put('refused')).status).toBe(200);
  });

  test('closes one connection more than allowed, silently', async () => {
    proxy.sever();
    proxy.maxConnections = 1;
    proxy.rule({ times: 1, do: 'hang' });
    const first = put('first');
    await proxy.seen(({ path }) => path.endsWith('first'));
    await expect(put('second')).rejects.toThrow(closed);
    proxy.maxConnections = Infinity;
    proxy.sever();
    await expect(first).rejects.toThrow();
  });

  test('does not hide from Consul that a body came in chunks', async () => {
    const { CONSUL_HTTP_ADDR } = proxy.env;
    const id = await new Promise<string>((resolve, reject) => {
      const chunked = request(`http://${CONSUL_HTTP_ADDR}/v1/session/create`, { method: 'PUT' }, (answer) => {
        answer.on('data', (chunk: Buffer) => resolve((JSON.parse(String(chunk)) as { ID: string }).ID));
      });
      chunked.on('error', reject);
      chunked.write('{"TTL":"30s"}');
      chunked.end();
    });
    const [session] = (await agent.http('GET', `/v1/session/info/${id}`)).json() as { TTL: string }[];
    expect(session?.TTL).toBe('');
  });
});

describe('the tools', () => {
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'runlock-tools-'));
    return () => rm(folder, { recursive: true });
  });

  test('ansible-playbook is real and runs a local job', async () => {
    const { command, env } = await ansible();
    const options = { cwd: folder, env: { ...env, HOME: folder } };
    expect(command).toMatch(/\/ansible-playbook$/);
    expect((await execa(command, ['--version'], options)).stdout).toMatch(/^ansible-playbook/);
    const play = [{ hosts: 'all', gather_facts: false, tasks: [{ command: 'echo real' }] }];
    await writeFile(join(folder, 'play.json'), JSON.stringify(play));
    const job = await execa(command, ['-v', '-i', 'localhost,', '-c', 'local', 'play.json'], options);
    expect(job.stdout).toMatch(/changed=1 .*failed=0/);
  });

  test('puppet is real and runs a local job', async () => {
    const { command, env } = await puppet();
    const options = { cwd: folder, env: { ...env, HOME: folder } };
    expect(command).toMatch(/\/puppet$/);
    expect((await execa(command, ['--version'], options)).stdout).toMatch(/^\d+\.\d+/);
    const args = ['apply', '--vardir', join(folder, 'var'), '--color=false', '-e', 'notice("real")'];
    expect((await execa(command, args, options)).stdout).toMatch(/: real$/m);
  });
});

test("the Debian archive is told apart in apt's sources, in both of their formats", () => {
  const list = `# deb http://old/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror/debian/ bookworm main contrib
deb http://mirror/debian-security bookworm-security main
deb-src http://mirror/debian bookworm main
deb http://mirror/debian bookworm-updates main
deb [signed-by=/etc/apt/keyrings/other.gpg] https://other/debian bookworm main
deb https://other/linux/debian bookworm stable
`;
  expect(
    parseList(list)
      .filter(isDebianArchive)
      .map(({ uri }) => uri),
  ).toEqual(['http://mirror/debian/']);
  const sources = `Types: deb deb-src
# a comment
URIs: http://mirror/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

Enabled: no
Types: deb
URIs: http://off/debian
Suites: trixie
Components: main

Types: deb
URIs: mirror+file:/etc/apt/mirrors/debian.list
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
`;
  expect(
    parseDeb822(sources)
      .filter(isDebianArchive)
      .map(({ uri }) => uri),
  ).toEqual(['http://mirror/debian', 'mirror+file:/etc/apt/mirrors/debian.list']);
});
