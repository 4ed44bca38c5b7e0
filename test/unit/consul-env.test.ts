import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { consulSettings } from '../../src/consul/env.ts';
import type { ConsulSettings } from '../../src/consul/env.ts';
import { RunlockError } from '../../src/errors.ts';

const folder = mkdtempSync(join(tmpdir(), 'runlock-env-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const missing = join(folder, 'missing');

/** The message of the configuration error, which is one line. */
function complaint(env: Record<string, string>): string {
  try {
    consulSettings(env);
  } catch (error) {
    expect(error).toBeInstanceOf(RunlockError);
    expect(error).toMatchObject({ code: 'config' });
    expect((error as Error).message).not.toContain('\n');
    return (error as Error).message;
  }
  throw new Error(`${JSON.stringify(env)} was accepted`);
}

test('without any variable it is the local agent, by plain HTTP', () => {
  const local: ConsulSettings = {
    address: '127.0.0.1:8500',
    baseUrl: 'http://127.0.0.1:8500/v1',
    tls: { verify: true },
  };
  expect(consulSettings({})).toEqual(local);
});

test('an empty variable is as good as none', () => {
  const names = ['HTTP_ADDR', 'HTTP_TOKEN', 'HTTP_TOKEN_FILE', 'HTTP_AUTH', 'HTTP_SSL', 'HTTP_SSL_VERIFY'];
  const more = ['CACERT', 'CAPATH', 'CLIENT_CERT', 'CLIENT_KEY', 'TLS_SERVER_NAME', 'NAMESPACE', 'PARTITION'];
  const env = Object.fromEntries([...names, ...more].map((name) => [`CONSUL_${name}`, '']));
  expect(consulSettings(env)).toEqual(consulSettings({}));
});

describe('CONSUL_HTTP_ADDR', () => {
  test.each([
    ['consul:8500', 'http://consul:8500/v1'],
    ['consul', 'http://consul/v1'],
    ['http://consul:8500', 'http://consul:8500/v1'],
    ['http://consul:8500/', 'http://consul:8500/v1'],
    ['https://consul:8501', 'https://consul:8501/v1'],
    ['[::1]:8500', 'http://[::1]:8500/v1'],
    [':31850', 'http://127.0.0.1:31850/v1'],
    ['https://:31850/ops', 'https://127.0.0.1:31850/ops/v1'],
    ['consul:8500/ops/consul', 'http://consul:8500/ops/consul/v1'],
    ['https://consul/ops/', 'https://consul/ops/v1'],
  ])('%s leads to %s', (address, baseUrl) => {
    const settings = consulSettings({ CONSUL_HTTP_ADDR: address });
    expect(settings).toMatchObject({ address, baseUrl });
    expect(settings.socketPath).toBeUndefined();
  });

  test.each([
    ['http://me:pass@consul:8500', 'http://…@consul:8500', 'me:pass'],
    ['me:pass@consul:8500', '…@consul:8500', 'me:pass'],
    ['https://me:p%40ss%3A%2f@consul', 'https://…@consul', 'me:p@ss:/'],
    ['http://me@consul', 'http://…@consul', 'me:'],
    ['me:pass@:8500', '…@:8500', 'me:pass'],
    ['http://me:100%@[::1]:8500', 'http://…@[::1]:8500', 'me:100%'],
  ])('%s: the user and password are used, and not part of what is shown', (written, address, auth) => {
    expect(consulSettings({ CONSUL_HTTP_ADDR: written })).toMatchObject({ address, auth });
    expect(consulSettings({ CONSUL_HTTP_ADDR: written, CONSUL_HTTP_AUTH: 'you:x' }).auth).toBe('you:x');
    expect(consulSettings({ CONSUL_HTTP_ADDR: written }).baseUrl).not.toMatch(/me|pass/);
    expect(consulSettings({ CONSUL_HTTP_ADDR: written }, 'other:8500').auth).toBeUndefined();
  });

  test.each([
    'http://me:secret/word@consul',
    'tcp://me:secret@consul',
    'me:secret@x y',
    'http://me:a@secret@b c',
  ])('a password is in no complaint about %s', (address) => {
    expect(complaint({ CONSUL_HTTP_ADDR: address })).not.toContain('secret');
  });

  test('unix:// names a socket', () => {
    expect(consulSettings({ CONSUL_HTTP_ADDR: 'unix:///run/consul.sock' })).toMatchObject({
      ...{ address: 'unix:///run/consul.sock', socketPath: '/run/consul.sock' },
      baseUrl: 'http://localhost/v1',
    });
  });

  test.each(['tcp', 'ftp', 'HTTP', 'Unix'])(
    'of the scheme %s is an error that says which ones there are',
    (scheme) => {
      expect(complaint({ CONSUL_HTTP_ADDR: `${scheme}://consul:8500` })).toMatch(
        new RegExp(
          `^CONSUL_HTTP_ADDR=.*unknown scheme '${scheme}'; use host:port, http://, https:// or unix://$`,
        ),
      );
    },
  );

  test.each([
    'http://',
    'https://',
    'unix://',
    'consul:port',
    'a b:8500',
    'consul:99999',
    ':99999',
    ':',
    '://x',
  ])('%s is not an address', (address) => {
    expect(complaint({ CONSUL_HTTP_ADDR: address })).toContain('not an address; use host:port');
  });
});

describe('CONSUL_HTTP_SSL', () => {
  test('turns TLS on, whatever the scheme', () => {
    const url = (address: string) =>
      consulSettings({ CONSUL_HTTP_ADDR: address, CONSUL_HTTP_SSL: 'true' }).baseUrl;
    expect(url('consul:8501')).toBe('https://consul:8501/v1');
    expect(url('http://consul:8501')).toBe('https://consul:8501/v1');
    expect(url('unix:///run/consul.sock')).toBe('https://localhost/v1');
  });

  test('set to false takes nothing back from https://', () => {
    const env = { CONSUL_HTTP_ADDR: 'https://consul:8501', CONSUL_HTTP_SSL: 'false' };
    expect(consulSettings(env).baseUrl).toBe('https://consul:8501/v1');
  });

  test.each(['1', 't', 'T', 'TRUE', 'true', 'True'])('%s is yes, as to Go', (word) => {
    expect(consulSettings({ CONSUL_HTTP_SSL: word }).baseUrl).toMatch(/^https:/);
    expect(consulSettings({ CONSUL_HTTP_SSL_VERIFY: word }).tls.verify).toBe(true);
  });

  test.each(['0', 'f', 'F', 'FALSE', 'false', 'False'])('%s is no, as to Go', (word) => {
    expect(consulSettings({ CONSUL_HTTP_SSL: word }).baseUrl).toMatch(/^http:/);
    expect(consulSettings({ CONSUL_HTTP_SSL_VERIFY: word }).tls.verify).toBe(false);
  });

  test.each(['yes', 'no', 'on', 'tRUE', '2', ' true'])(
    '%j is an error, and never stops verifying',
    (word) => {
      for (const name of ['CONSUL_HTTP_SSL', 'CONSUL_HTTP_SSL_VERIFY'])
        expect(complaint({ [name]: word })).toBe(`${name}=${word}: must be true or false`);
    },
  );
});

describe('the token', () => {
  test('is in CONSUL_HTTP_TOKEN', () => {
    expect(consulSettings({ CONSUL_HTTP_TOKEN: 'secret' }).token).toBe('secret');
  });

  test('in a file wins, without the space around it', () => {
    const path = file('token', ' from-file\n');
    expect(consulSettings({ CONSUL_HTTP_TOKEN_FILE: path }).token).toBe('from-file');
    expect(consulSettings({ CONSUL_HTTP_TOKEN_FILE: path, CONSUL_HTTP_TOKEN: 'x' }).token).toBe('from-file');
  });

  test.each(['', '\n', '  \n'])('in a file that has only %j falls back to the variable', (text) => {
    const path = file('empty', text);
    expect(consulSettings({ CONSUL_HTTP_TOKEN_FILE: path, CONSUL_HTTP_TOKEN: 'x' }).token).toBe('x');
    expect(consulSettings({ CONSUL_HTTP_TOKEN_FILE: path }).token).toBeUndefined();
  });

  test('in a file that cannot be read is an error, never the variable instead', () => {
    const env = (path: string) => ({ CONSUL_HTTP_TOKEN_FILE: path, CONSUL_HTTP_TOKEN: 'secret' });
    expect(complaint(env(missing))).toMatch(
      /^CONSUL_HTTP_TOKEN_FILE=.*missing: can't be read \(no such file\)/,
    );
    expect(complaint(env(folder))).toMatch(/can't be read \(it is a folder\)/);
  });

  test('of several lines is an error that does not show it', () => {
    expect(complaint({ CONSUL_HTTP_TOKEN: 'sec\nret' })).toMatch(/^CONSUL_HTTP_TOKEN: (?!.*(sec|ret\b))/);
    expect(complaint({ CONSUL_HTTP_TOKEN_FILE: file('two', 'sec\nret\n') })).toMatch(
      /^CONSUL_HTTP_TOKEN_FILE: /,
    );
  });
});

describe('CONSUL_HTTP_AUTH', () => {
  test.each([
    ['me:secret', 'me:secret'],
    ['me:with:colons', 'me:with:colons'],
    ['me', 'me:'],
    [':secret', ':secret'],
  ])('%s is %s', (text, auth) => {
    expect(consulSettings({ CONSUL_HTTP_AUTH: text }).auth).toBe(auth);
  });
});

test('CONSUL_NAMESPACE and CONSUL_PARTITION are kept as they are', () => {
  const env = { CONSUL_NAMESPACE: 'team', CONSUL_PARTITION: 'east' };
  expect(consulSettings(env)).toMatchObject({ namespace: 'team', partition: 'east' });
});

describe('TLS', () => {
  const pem = (kind: string, text: string) => `-----BEGIN ${kind}-----\n${text}\n-----END ${kind}-----\n`;
  const certificate = (text: string) => pem('CERTIFICATE', text);
  const ecKey = pem('EC PRIVATE KEY', 'KEY');
  const ca = file('ca.pem', certificate('CA'));
  const cert = file('cert.pem', certificate('CERT'));
  const key = file('key.pem', ecKey);

  test('takes authority, certificate and key from files, and the name to expect', () => {
    const env = { CONSUL_CACERT: ca, CONSUL_CLIENT_CERT: cert, CONSUL_CLIENT_KEY: key };
    expect(consulSettings({ ...env, CONSUL_TLS_SERVER_NAME: 'server.dc1.consul' }).tls).toEqual({
      ...{ verify: true, ca: [Buffer.from(certificate('CA'))] },
      ...{ cert: Buffer.from(certificate('CERT')), key: Buffer.from(ecKey) },
      serverName: 'server.dc1.consul',
    });
  });

  test('takes every authority in the folder of CONSUL_CAPATH', () => {
    const path = join(folder, 'cas');
    mkdirSync(join(path, 'below'), { recursive: true });
    file('cas/a.pem', certificate('A'));
    file('cas/b.pem', certificate('B'));
    const found = (env: Record<string, string>) =>
      consulSettings(env)
        .tls.ca?.map((text) => String(text).split('\n')[1])
        .sort();
    expect(found({ CONSUL_CAPATH: path })).toEqual(['A', 'B']);
    expect(found({ CONSUL_CAPATH: path, CONSUL_CACERT: ca })).toEqual(['A', 'B', 'CA']);
  });

  test('an empty folder of authorities leaves those of the system', () => {
    const path = join(folder, 'no-cas');
    mkdirSync(path);
    expect(consulSettings({ CONSUL_CAPATH: path }).tls).toEqual({ verify: true });
  });

  test.each([{ CONSUL_CLIENT_CERT: cert }, { CONSUL_CLIENT_KEY: key }])('%j alone is an error', (env) => {
    expect(complaint(env as Record<string, string>)).toBe(
      'CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY go together; set both, or neither',
    );
  });

  test('a file without what it is for is an error that names variable and file', () => {
    const none = file('none.pem', 'no PEM\n');
    const both = { CONSUL_CLIENT_CERT: cert, CONSUL_CLIENT_KEY: key };
    const fix = 'in PEM format in this file; correct the path or the file';
    expect(complaint({ CONSUL_CACERT: none })).toBe(`CONSUL_CACERT=${none}: no certificate ${fix}`);
    expect(complaint({ ...both, CONSUL_CLIENT_CERT: key })).toBe(
      `CONSUL_CLIENT_CERT=${key}: no certificate ${fix}`,
    );
    expect(complaint({ ...both, CONSUL_CLIENT_KEY: cert })).toBe(
      `CONSUL_CLIENT_KEY=${cert}: no private key ${fix}`,
    );
    const path = join(folder, 'mixed');
    mkdirSync(path);
    file('mixed/a.pem', certificate('A'));
    const odd = file('mixed/README', 'no PEM\n');
    expect(complaint({ CONSUL_CAPATH: path })).toBe(`CONSUL_CAPATH=${odd}: no certificate ${fix}`);
  });

  test.each(['PRIVATE KEY', 'RSA PRIVATE KEY', 'ENCRYPTED PRIVATE KEY'])('a %s is one', (kind) => {
    const path = file('other-key.pem', pem(kind, 'KEY'));
    expect(consulSettings({ CONSUL_CLIENT_CERT: cert, CONSUL_CLIENT_KEY: path }).tls.key).toBeDefined();
  });

  test.each(['CONSUL_CACERT', 'CONSUL_CAPATH', 'CONSUL_CLIENT_CERT', 'CONSUL_CLIENT_KEY'])(
    '%s that cannot be read is an error that names it',
    (name) => {
      expect(complaint({ [name]: missing })).toBe(
        `${name}=${missing}: can't be read (no such file); correct the path or the file's permissions`,
      );
    },
  );
});
