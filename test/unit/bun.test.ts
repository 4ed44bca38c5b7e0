// Which Bun the single file is built with (docs/adr/0015).
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { stage } from '../support/stage.ts';

const run = promisify(execFile);

const VERSION = '1.4.4';

interface Locked {
  readonly version?: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
}
const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
  packages: Readonly<Record<string, Locked>>;
};
const ofBun = Object.entries(packages).filter(([path]) => /\/@oven\/|\/bun$/.test(path));

describe('package-lock.json', () => {
  test('has the programs for the two architectures, of one version, and not the wrapper with its install script', () => {
    const programs = Object.fromEntries(ofBun.filter(([path]) => path !== 'scripts/bun'));
    const wanted = { version: VERSION, dev: true, optional: true, integrity: expect.any(String) as string };
    expect(programs).toEqual({
      'node_modules/@oven/bun-linux-aarch64': expect.objectContaining(wanted) as Locked,
      'node_modules/@oven/bun-linux-x64': expect.objectContaining(wanted) as Locked,
    });
  });

  test('names no host to fetch from', () => {
    const resolved = Object.values(packages).flatMap((each) => each.resolved ?? []);
    expect(resolved).toEqual(['scripts/bun']);
  });
});

describe('npm run build:binary ends with one line, which says what to do,', () => {
  const script = resolve('scripts/build-binary.js');
  const PROGRAM = 'node_modules/@oven/bun-linux-x64/bin/bun';

  /** Of a checkout that has no more than this Bun, on a machine of this kind. */
  async function failure({ bun, kind }: { bun?: string; kind?: Readonly<Record<string, string>> }) {
    const { folder } = stage();
    for (const name of ['package.json', 'package-lock.json']) copyFileSync(name, join(folder, name));
    const machine = Object.entries({ platform: 'linux', arch: 'x64', ...kind }).map(
      ([key, value]) => `Object.defineProperty(process, '${key}', { value: '${value}' });`,
    );
    writeFileSync(join(folder, 'machine.cjs'), machine.join('\n'));
    if (bun !== undefined) {
      mkdirSync(join(folder, PROGRAM, '..'), { recursive: true });
      writeFileSync(join(folder, PROGRAM), `#!/bin/sh\n${bun}\n`, { mode: 0o755 });
    }
    const words = ['--require', './machine.cjs', script];
    return run(process.execPath, words, { cwd: folder }).catch((error: unknown) => error);
  }

  test.each([
    ['where there is no Bun', {}, /Bun is missing \(\S+\), .*run 'npm ci' without --omit, .* glibc/],
    ['where there is another Bun', { bun: 'echo 1.0.0' }, /Bun 1\.0\.0 is installed, .*; run 'npm ci'/],
    [
      'where the processor lacks its instructions',
      { bun: 'kill -ILL $$' },
      /does not start here \(SIGILL\); .*x64/,
    ],
    [
      'where it is for another C library',
      { bun: 'exit 127' },
      /does not start here \(exit 127\); it needs glibc/,
    ],
    ['on macOS', { kind: { platform: 'darwin', arch: 'arm64' } }, /built on Linux, .* this is darwin arm64/],
    ['on another architecture', { kind: { arch: 'riscv64' } }, /built on Linux, .* this is linux riscv64/],
  ])('%s', async (_, given, said) => {
    const line = new RegExp(`^build:binary: .*${said.source}.*\n$`);
    expect(await failure(given)).toMatchObject({ code: 1, stderr: expect.stringMatching(line) as string });
  });
});
