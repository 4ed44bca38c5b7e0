// `runlock state watch` on a real Consul: what wakes it, what ends it, and what it outlives.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { startAgent } from '../support/consul.ts';
import type { Agent } from '../support/consul.ts';
import { end, eventually } from '../support/processes.ts';
import { RUNLOCK } from '../support/program.ts';
import { startProxy } from '../support/proxy.ts';
import type { ProxyRequest } from '../support/proxy.ts';
import { runlock, startRunlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';
import { useAgent } from '../support/use-agent.ts';

const agent = useAgent();

const keyOf = (path: string) => `runlock/.state/${path}/.value`;
const set = async (on: Pick<Agent, 'env'>, path: string, value: string, ...more: string[]) => {
  expect((await runlock(on, ['state', 'set', path, value, ...more])).status).toBe(0);
};
const linesOf = (text: string) => text.split('\n').filter((line) => line !== '');
const docsOf = (text: string) =>
  linesOf(text).map((line) => JSON.parse(line) as { path: string; set: boolean; value?: string });
const isWatch = ({ path }: ProxyRequest) => /[?&]index=\d/.test(path);

describe('a watch', () => {
  test('tells each change once: --touch is one, the same value and another --ttl are none', async () => {
    await using proxy = await startProxy(agent);
    await set(agent, 'wake/a', '1', '--ttl', '1h');
    const watching = startRunlock(proxy, ['state', 'watch', 'wake/a', '--json']);
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(1));
    await set(agent, 'wake/a', '1', '--touch', '--ttl', '1h');
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(2));
    expect(docsOf(watching.stdout())).toHaveLength(2);
    // Consul wakes it, and it looks, but this is no change.
    await set(agent, 'wake/a', '1', '--ttl', '2h');
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(3));
    const before = await agent.kv.get(keyOf('wake/a'));
    await set(agent, 'wake/a', '1', '--if-value', '1', '--ttl', '2h', '--touch');
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(4));
    expect((await agent.kv.get(keyOf('wake/a')))?.ModifyIndex).not.toBe(before?.ModifyIndex);
    expect(docsOf(watching.stdout())).toHaveLength(3);
  });

  test('of the same value set again sees nothing: nothing was written', async () => {
    await using proxy = await startProxy(agent);
    await set(agent, 'wake/same', '1');
    const watching = startRunlock(proxy, ['state', 'watch', 'wake/same', '--json']);
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(1));
    const before = await agent.kv.get(keyOf('wake/same'));
    await set(agent, 'wake/same', '1');
    expect(await agent.kv.get(keyOf('wake/same'))).toEqual(before);
    await set(agent, 'wake/same', '2');
    await eventually(() => expect(docsOf(watching.stdout())).toHaveLength(2));
    await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(2));
  });

  test('tells by a timer of its own that a state has ended', async () => {
    await using proxy = await startProxy(agent);
    await set(agent, 'wake/ends', 'x', '--ttl', '1ms');
    const watching = startRunlock(proxy, ['state', 'watch', 'wake/ends', '--json']);
    await eventually(() => expect(docsOf(watching.stdout())).toMatchObject([{ set: true }]));
    await eventually(() => expect(docsOf(watching.stdout())).toMatchObject([{}, { set: false }]), 15_000);
    // It asked once for a change, until the end, and not again and again.
    expect(proxy.requests.filter(isWatch).length).toBeLessThanOrEqual(4);
  });

  test('prints one line of JSON for each state, whatever is in it', async () => {
    const values = ['a\nb', '"quoted"', '\u2028\u2029\u0085', '\x1b[31m', '\\', '{"v":1}', 'ü🦆'];
    for (const [i, value] of values.entries()) await set(agent, `json/s${i}`, value);
    const lone = {
      v: 1,
      value: '\ud800',
      change: '\n',
      by: 'x\ny',
      at: '2026-01-01T00:00:00Z',
      cause: ['\n'],
    };
    await agent.kv.put(keyOf('json/lone'), JSON.stringify(lone));
    const paths = [...values.map((_, i) => `json/s${i}`), 'json/lone'];
    const watching = startRunlock(agent, ['state', 'watch', ...paths, '--json']);
    await eventually(() => expect(docsOf(watching.stdout())).toHaveLength(paths.length));
    const told = new Map(docsOf(watching.stdout()).map(({ path, value }) => [path, value]));
    expect(paths.map((path) => told.get(path))).toEqual([...values, '\ud800']);
    // Nothing that breaks a line or that a terminal obeys.
    // eslint-disable-next-line no-control-regex
    expect(watching.stdout()).not.toMatch(/[\u2028\u2029\u0085\x1b]/);
  });
});

test('a watch tries a refusal again, as while a token is being replaced', async () => {
  await using proxy = await startProxy(agent);
  await set(agent, 'refused/a', '1');
  const watching = startRunlock(proxy, ['state', 'watch', 'refused/a', '--json']);
  await eventually(() => expect(proxy.requests.filter(isWatch)).toHaveLength(1));
  proxy.rule({ match: isWatch, times: 1, do: { status: 403, body: 'Permission denied' } });
  await set(agent, 'refused/a', '2');
  await eventually(() => expect(docsOf(watching.stdout())).toHaveLength(2));
  await set(agent, 'refused/a', '3');
  await eventually(() => expect(docsOf(watching.stdout())).toHaveLength(3));
  watching.signal('SIGINT');
  expect((await watching.ended).status).toBe(0);
});

describe('a watch ends', () => {
  /** `script` in bash, with the program as "$0". */
  const throughBash = (script: string) => {
    const child = spawn('bash', ['-c', script, RUNLOCK], {
      env: { ...process.env, ...agent.env },
      stdio: 'pipe',
    });
    onTestFinished(() => end(child.pid ?? 0));
    return once(child, 'close') as Promise<[number, string | null]>;
  };

  test('with the next line after the reader of its lines has left', async () => {
    await set(agent, 'left/a', '42');
    const { folder } = stage();
    const script = `"$0" state watch left/a --json | head -n 1 >${folder}/first; exit "\${PIPESTATUS[0]}"`;
    const ended = throughBash(script);
    await eventually(() => expect(readFileSync(join(folder, 'first'), 'utf8')).toContain('"42"'));
    await set(agent, 'left/a', '43');
    expect(await ended).toEqual([0, null]);
  });

  test('at once with 74 if stdout is full', async () => {
    await set(agent, 'left/b', '42');
    expect(await throughBash('"$0" state watch left/b >/dev/full')).toEqual([74, null]);
  });

  test('at Ctrl-C, though the reader of its lines has stalled', async () => {
    const document = { v: 1, value: 'x'.repeat(4_000), change: 'c', by: 'b', at: '2026-01-01T00:00:00Z' };
    const Value = Buffer.from(JSON.stringify(document)).toString('base64');
    for (let batch = 0; batch < 7; batch += 1) {
      const keys = Array.from({ length: 60 }, (_, i) => keyOf(`stall/s${batch}-${i}`));
      const operations = keys.map((Key) => ({ KV: { Verb: 'set', Key, Value } }));
      expect((await agent.http('PUT', '/v1/txn', operations)).status).toBe(200);
    }
    const watch = spawn(RUNLOCK, ['state', 'watch', '--json'], {
      env: { ...process.env, ...agent.env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => end(watch.pid ?? 0));
    const exited = once(watch, 'exit');
    // Reads what has room here, and then no more.
    await once(watch.stdout, 'readable');
    watch.kill('SIGINT');
    expect(await exited).toEqual([0, null]);
  });
});

describe('a watch whose token is gone ends with 77, and calls no state unset:', () => {
  test.each([[['lose/a']], [[]]])(
    'of %j',
    async (paths) => {
      await using own = await startAgent({ acl: true });
      await set(own, 'lose/a', '1');
      const token = await own.token('key_prefix "runlock/.state/" { policy = "read" }');
      const env = { ...own.env, CONSUL_HTTP_TOKEN: token };
      const watching = startRunlock({ env }, ['state', 'watch', ...paths]);
      await eventually(() => expect(watching.stdout()).toContain('lose/a is 1'));
      const self = await own.http('GET', '/v1/acl/token/self', undefined, { token });
      await own.http('DELETE', `/v1/acl/token/${(self.json() as { AccessorID: string }).AccessorID}`);
      await set(own, 'lose/a', '2');
      const { status, stdout, stderr } = await watching.ended;
      expect({ status, stdout }).toEqual({
        status: 77,
        stdout: expect.not.stringContaining('not set') as string,
      });
      expect(linesOf(stderr)).toHaveLength(1);
    },
    60_000,
  );
});

describe('a snapshot that is restored under a watch', () => {
  test.each([[['back/a', 'back/new']], [[]]])(
    'of %j: it tells what is there again, and what changes then',
    async (paths) => {
      await using own = await startAgent();
      const file = join(stage().folder, 'snapshot');
      await set(own, 'back/a', 'old');
      await own.consul('snapshot', 'save', file);
      for (let i = 0; i < 20; i += 1) await own.kv.put('elsewhere', String(i));
      await set(own, 'back/a', 'newer');
      await set(own, 'back/new', 'x');
      const watching = startRunlock(own, ['state', 'watch', ...paths, '--json']);
      const told = (path: string) =>
        docsOf(watching.stdout()).flatMap((doc) => (doc.path === path ? [doc.value] : []));
      await eventually(() => expect([told('back/a'), told('back/new')]).toEqual([['newer'], ['x']]));
      await own.consul('snapshot', 'restore', file);
      // Consul answers a query that waits only at its end then.
      await eventually(() => expect(told('back/a')).toEqual(['newer', 'old']), 40_000);
      await eventually(() => expect(told('back/new')).toEqual(['x', undefined]), 40_000);
      await set(own, 'back/a', 'last');
      await eventually(() => expect(told('back/a')).toEqual(['newer', 'old', 'last']));
    },
    120_000,
  );
});
