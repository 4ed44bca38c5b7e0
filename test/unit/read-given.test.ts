// What the user names to be read may be anything: a pipe that nobody writes to, a device without an end.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { consulSettings, createToken } from '../../src/consul/env.ts';
import { systemAuthorities } from '../../src/consul/authorities.ts';
import { readGiven } from '../../src/platform/read-given.ts';

const folder = mkdtempSync(join(tmpdir(), 'runlock-given-'));
afterAll(() => rmSync(folder, { recursive: true }));

let names = 0;
const nameOf = () => join(folder, `f${(names += 1)}`);

function fifo(path = nameOf()): string {
  execFileSync('mkfifo', [path]);
  return path;
}

function file(text: string): string {
  const path = nameOf();
  writeFileSync(path, text);
  return path;
}

describe('at the start', () => {
  test('a pipe that is written to is read to its end, however late', () => {
    const path = fifo();
    spawn('sh', ['-c', `sleep 0.3; { printf one; sleep 0.3; printf two; } >${path}`]);
    expect(readGiven(path, 1_000).toString()).toBe('onetwo');
  });

  test('a pipe that nobody writes to is given up after five seconds', () => {
    const startedMs = performance.now();
    expect(() => readGiven(fifo(), 1_000)).toThrow('reading it took longer than 5 s');
    expect(performance.now() - startedMs).toBeLessThan(9_000);
  });

  test('what has no end, or too much, is refused', () => {
    expect(() => readGiven('/dev/zero', 1_048_576)).toThrow('it holds more than 1 MiB');
    expect(() => readGiven(file('x'.repeat(2_000_000)), 1_048_576)).toThrow('it holds more than 1 MiB');
  });

  test('a plain file, an empty one, and /dev/null', () => {
    expect(readGiven(file('text'), 10).toString()).toBe('text');
    expect(readGiven(file(''), 10).toString()).toBe('');
    expect(readGiven('/dev/null', 10).toString()).toBe('');
  });
});

test.each(['CONSUL_HTTP_TOKEN_FILE', 'CONSUL_CACERT', 'CONSUL_CLIENT_CERT', 'CONSUL_CLIENT_KEY'])(
  '%s that has no end is an error that names both',
  (name) => {
    expect(() => consulSettings({ [name]: '/dev/zero' })).toThrow(
      new RegExp(`^${name}=/dev/zero: can't be read \\(it holds more than \\d+ MiB\\); correct the path`),
    );
  },
);

test('a pipe among the authorities of the system holds nothing up', () => {
  const path = fifo();
  const startedMs = performance.now();
  expect(systemAuthorities({ SSL_CERT_FILE: path, SSL_CERT_DIR: folder }, [])).toEqual([]);
  expect(performance.now() - startedMs).toBeLessThan(2_000);
});

describe('a token that is read again under a run', () => {
  test('is the new one', async () => {
    const tokenFile = file('old');
    const token = createToken({ token: 'old', tokenFile });
    writeFileSync(tokenFile, 'new\n');
    expect(await token.replaced('old')).toBe(true);
    expect(token.now()).toBe('new');
  });

  test.each([
    ['a pipe that nobody writes to', fifo],
    ['nothing at all', nameOf],
    ['more than a token', () => file('x'.repeat(2_000_000))],
    ['two lines', () => file('one\ntwo\n')],
  ])('stays what it was where the file has become %s, and nothing waits for it', async (_, make) => {
    const token = createToken({ token: 'old', tokenFile: make() });
    const startedMs = performance.now();
    expect(await token.replaced('old')).toBe(false);
    await token.reread();
    expect(token.now()).toBe('old');
    expect(performance.now() - startedMs).toBeLessThan(900);
  });

  test('a pipe in its place, and then a file again', async () => {
    const tokenFile = file('old');
    const token = createToken({ token: 'old', tokenFile });
    renameSync(fifo(), tokenFile);
    await token.reread();
    renameSync(file('new'), tokenFile);
    await token.reread();
    expect(token.now()).toBe('new');
  });
});
