// Hooks: what their files may say, what is posted, and what counts as an answer. Real servers on this host.
import { execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { createServer as createListener } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { toHook } from '../../src/agent/hook/definition.ts';
import type { Hook } from '../../src/agent/hook/definition.ts';
import { signatureOf, toBody } from '../../src/agent/hook/message.ts';
import { post } from '../../src/agent/hook/post.ts';
import type { Entry } from '../../src/agent/task/definition.ts';
import { serve } from '../support/serve.ts';

const file = '/etc/runlock/hooks.d/chat.toml';
const GOOD = { on: ['state:db/schema'], post: 'https://hooks.example.com/T0/secret' };
function read(keys: Record<string, unknown>): Hook {
  const entries = Object.entries(keys).map(([key, value], i): Entry => ({ path: [key], value, line: i + 1 }));
  return toHook({ name: 'chat', file }, entries);
}
function fault(keys: Record<string, unknown>): string {
  try {
    read(keys);
  } catch (error) {
    return (error as Error).message;
  }
  return 'none';
}

describe('a hook’s file', () => {
  test('names conditions, an address, and how to sign', () => {
    const hook = read({ ...GOOD, secret_file: '/etc/runlock/chat.key', timeout: '5s', debounce: '2s' });
    expect(hook).toMatchObject({ name: 'chat', secretFile: '/etc/runlock/chat.key', timeoutMs: 5_000 });
    expect(hook.trigger).toMatchObject({ debounceMs: 2_000, onFirst: 'run' });
    expect(hook.trigger.on.map(({ text }) => text)).toEqual(['state:db/schema']);
  });

  test.each([
    ['http://hooks.example.com/x', 'only https'],
    ['http://127.0.0.1.example.com/x', 'only https'],
    ['http://localhost.example.com/x', 'only https'],
    ['http://0x7f.1.example/', 'only https'],
    ['ftp://localhost/', 'only https'],
    ['file:///etc/shadow', 'only https'],
    ['https://user:pass123@hooks.example.com/', 'user and a password'],
    ['hooks.example.com', 'not an address'],
  ])('does not post to %s', (address, why) => {
    const message = fault({ ...GOOD, post: address });
    expect(message).toContain(`${file}:2: post: `);
    expect(message).toContain(why);
    expect(message).not.toContain('pass123');
  });

  test.each(['http://localhost:8080/x', 'http://127.0.0.1/', 'http://127.9.9.9/', 'http://[::1]:9/'])(
    'may post to this host: %s',
    (address) => expect(read({ ...GOOD, post: address }).post.href).toBe(address),
  );

  test.each([
    [{ post: GOOD.post }, 'a hook needs conditions'],
    [{ on: GOOD.on }, 'a hook needs an address'],
    [{ ...GOOD, on: ['state'] }, `${file}:1: on: 'state'`],
    [{ ...GOOD, secret_file: 'key' }, 'secret_file: not an absolute path'],
    [{ ...GOOD, timeout: '2m' }, 'timeout: must be greater than 0, and 60s at most'],
    [{ ...GOOD, timeout: 5 }, 'timeout: not a duration'],
    [{ ...GOOD, pots: 1 }, "unknown key 'pots'; did you mean 'post'?"],
    [{ ...GOOD, command: ['/bin/true'] }, "unknown key 'command'"],
    [{ ...GOOD, on: [], debounce: '1s' }, 'a hook needs conditions'],
  ])('is refused with what is right: %j', (keys, why) => {
    expect(fault(keys)).toContain(why);
  });
});

test('the message has each condition with its value, by whom and when, and says which are news', () => {
  const state = { value: '42', change: 'c1', by: 'db01', at: '2026-03-01T12:00:00.000Z', run: 'r1' };
  const sights = [
    { name: 'state:db/schema', holds: true, mark: 'c1', changes: [], is: 'db/schema is 42', state },
    { name: 'idle:prod', holds: false, mark: '', changes: [], is: 'prod is not idle' },
  ];
  const told = { hook: 'chat', node: 'web01', id: 'i1', sentAt: '2026-03-01T12:00:01.000Z' };
  expect(JSON.parse(toBody({ ...told, sights, news: ['state:db/schema'] }))).toEqual({
    ...{ v: 1, ...told },
    conditions: [
      { condition: 'state:db/schema', holds: true, changed: true, is: 'db/schema is 42', ...state },
      { condition: 'idle:prod', holds: false, changed: false, is: 'prod is not idle' },
    ],
  });
});

const SECRET = Buffer.from('a key');
const sending = (more: Partial<Parameters<typeof post>[1]> = {}): Parameters<typeof post>[1] => ({
  ...{ body: '{"v":1,"is":"größer"}', authorities: [], version: '0', signal: new AbortController().signal },
  ...more,
});
const to = (address: string, timeoutMs = 5_000): Hook => ({ ...read({ ...GOOD, post: address }), timeoutMs });

describe('what is posted', () => {
  test('arrives whole, signed, and counts as taken with a 2xx', async () => {
    const got: { request: IncomingMessage; body: Buffer }[] = [];
    const at = await serve((request, response) => {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => {
        got.push({ request, body: Buffer.concat(parts) });
        response.writeHead(204).end();
      });
    });
    const { body } = sending();
    const signature = signatureOf(body, SECRET);
    expect(await post(to(`http://${at}/in?key=1`), sending({ signature }))).toEqual({ kind: 'taken' });
    const [{ request, body: bytes } = { request: undefined, body: Buffer.alloc(0) }] = got;
    expect(request).toMatchObject({ method: 'POST', url: '/in?key=1' });
    expect(bytes.toString()).toBe(body);
    const wanted = `sha256=${createHmac('sha256', SECRET).update(bytes).digest('hex')}`;
    expect(request?.headers).toMatchObject({
      'x-runlock-signature': wanted,
      'content-type': 'application/json',
    });
  });

  test('is not signed without a secret', async () => {
    let headers: IncomingMessage['headers'] = {};
    const at = await serve((request, response) => {
      ({ headers } = request);
      response.end();
    });
    await post(to(`http://${at}/`), sending());
    expect(headers).not.toHaveProperty('x-runlock-signature');
  });

  test.each([
    [500, 'it answered 500'],
    [404, 'it answered 404'],
    [302, 'it answered 302, and redirects are not followed'],
  ])('is not taken with %i, and goes nowhere else', async (status, why) => {
    const asked: string[] = [];
    const at = await serve((request, response) => {
      asked.push(request.url ?? '');
      response.writeHead(status, { location: '/elsewhere' }).end('a secret in the answer');
    });
    expect(await post(to(`http://${at}/x`), sending())).toEqual({ kind: 'refused', why });
    expect(asked).toEqual(['/x']);
  });

  test('is taken by an answer that never ends, and nothing of it is kept', async () => {
    let closed: Promise<void> | undefined;
    const at = await serve((_, response) => {
      closed = new Promise((resolve) => response.once('close', resolve));
      response.writeHead(200);
      const pour = () => {
        if (response.write(Buffer.alloc(65_536))) setImmediate(pour);
        else response.once('drain', pour);
      };
      pour();
    });
    expect(await post(to(`http://${at}/`), sending())).toEqual({ kind: 'taken' });
    await closed;
  });

  test('waits no longer than its timeout for a server that says nothing', async () => {
    const server = createListener();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      server.close();
    });
    const at = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    expect(await post(to(`http://${at}/`, 200), sending())).toEqual({
      ...{ kind: 'refused', why: 'no answer within 0.2s' },
    });
  });

  test('says what is wrong with a server that is not there, and no more than its place', async () => {
    const at = await serve(() => undefined);
    const gone = `http://127.0.0.1:${Number(at.split(':')[1]) === 1 ? 2 : 1}/T0/secret`;
    expect(await post(to(gone), sending())).toEqual({
      ...{ kind: 'refused', why: 'connect ECONNREFUSED 127.0.0.1:1' },
    });
  });
});

describe('over https', () => {
  /** A server that has a certificate for localhost of its own authority. */
  async function serveTls(): Promise<{ port: number; ca: Buffer }> {
    const folder = mkdtempSync(join(tmpdir(), 'runlock-hook-'));
    const [key, cert] = [join(folder, 'key'), join(folder, 'cert')];
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2'];
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
    execFileSync('openssl', ['req', '-x509', '-nodes', ...curve, '-keyout', key, '-out', cert, ...subject], {
      stdio: 'ignore',
    });
    const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (_, response) =>
      response.end(),
    );
    await new Promise<void>((resolve) => server.listen(0, resolve));
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
      rmSync(folder, { recursive: true });
    });
    return { port: (server.address() as AddressInfo).port, ca: readFileSync(cert) };
  }

  test('only a server is believed that the host’s authorities vouch for, by its name', async () => {
    const { port, ca } = await serveTls();
    const url = `https://localhost:${port}/`;
    expect(await post(to(url), sending({ authorities: [ca] }))).toEqual({ kind: 'taken' });
    expect(await post(to(url), sending())).toMatchObject({ kind: 'refused' });
    process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0';
    onTestFinished(() => {
      delete process.env['NODE_TLS_REJECT_UNAUTHORIZED'];
    });
    expect(await post(to(url), sending())).toMatchObject({ kind: 'refused' });
    const other = await post(to(`https://127.0.0.1:${port}/`), sending({ authorities: [ca] }));
    expect(other).toMatchObject({ kind: 'refused' });
  });
});
