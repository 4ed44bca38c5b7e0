// Which certificate authorities count where none is given: those of the system.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { systemAuthorities } from '../../src/consul/authorities.ts';
import { consulSettings } from '../../src/consul/env.ts';

const folder = mkdtempSync(join(tmpdir(), 'runlock-authorities-'));
afterAll(() => rmSync(folder, { recursive: true }));

const pem = (name: string) => `-----BEGIN CERTIFICATE-----\n${name}\n-----END CERTIFICATE-----\n`;
function file(name: string, text = pem(name)): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

mkdirSync(join(folder, 'more'));
for (const name of ['more/a.pem', 'more/b.pem']) file(name);
file('more/a.0', pem('more/a.pem'));
file('more/README', 'none');
const more = join(folder, 'more');
const [one, two, none] = [file('one'), file('two'), file('none', 'no certificate')];

const found = (env: Record<string, string>, bundles = ['/nowhere', none, one, two]) =>
  systemAuthorities(env, bundles).map((text) => String(text).split('\n')[1]);

test("a distribution's bundle: the first that is there, and has any", () => {
  expect(found({})).toEqual(['one']);
  expect(found({}, [])).toEqual([]);
});

test('SSL_CERT_FILE takes its place, SSL_CERT_DIR adds to it, each certificate once', () => {
  expect(found({ SSL_CERT_FILE: two })).toEqual(['two']);
  expect(found({ SSL_CERT_FILE: '/nowhere' })).toEqual([]);
  expect(found({ SSL_CERT_DIR: `/nowhere:${more}` })).toEqual(['one', 'more/a.pem', 'more/b.pem']);
  expect(found({ SSL_CERT_FILE: '', SSL_CERT_DIR: '' })).toEqual(['one']);
});

test('what NODE_EXTRA_CA_CERTS adds is not lost', () => {
  expect(found({ NODE_EXTRA_CA_CERTS: two })).toEqual(['one', 'two']);
  expect(found({ NODE_EXTRA_CA_CERTS: two }, [])).toEqual([]);
});

test('they are read where TLS is used, verified, and no authority is given', () => {
  const read = (env: Record<string, string>) =>
    consulSettings({ SSL_CERT_FILE: two, ...env }).tls.systemCa?.map((text) => String(text));
  expect(read({ CONSUL_HTTP_ADDR: 'https://consul' })).toEqual([pem('two')]);
  expect(read({})).toBeUndefined();
  expect(read({ CONSUL_HTTP_SSL: 'true', CONSUL_HTTP_SSL_VERIFY: 'false' })).toBeUndefined();
  expect(read({ CONSUL_HTTP_SSL: 'true', CONSUL_CACERT: one })).toBeUndefined();
});
