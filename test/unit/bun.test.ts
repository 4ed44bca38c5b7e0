// Which Bun the single file is built with, and what is known of its holes (docs/adr/0015).
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { describe, expect, test } from 'vitest';
import { serve } from '../support/serve.ts';
import { stage } from '../support/stage.ts';

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
  test('has the programs for both architectures, of one version, and no wrapper’s install script', () => {
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
    return execa(process.execPath, words, { cwd: folder, reject: false });
  }

  test('where it is given what it does not know', async () => {
    const wrong = await execa(process.execPath, [script, '--help'], { reject: false });
    const stderr = expect.stringMatching(/^build:binary: Unknown option '--help'.*$/) as string;
    expect(wrong).toMatchObject({ exitCode: 1, stderr });
  });

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
    const line = new RegExp(`^build:binary: .*${said.source}.*$`);
    expect(await failure(given)).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(line) as string,
    });
  });
});

describe('the holes that are published of Bun', () => {
  const JUDGED = 'GHSA-4j66-8f4r-3pjx';

  /** What scripts/audit-bun.js makes of them. npm is the real one; this stands for what it asks. */
  async function audit(holes: readonly string[] | 'refused') {
    const asked: string[] = [];
    const advisory = (id: string, index: number) => ({
      ...{ id: index + 1, title: `hole ${id}`, url: `https://github.com/advisories/${id}` },
      ...{ severity: 'high', vulnerable_versions: '>0.0.12' },
    });
    const address = await serve((request, response) => {
      asked.push(`${request.method ?? ''} ${request.url ?? ''}`);
      response.setHeader('content-type', 'application/json');
      const about = {
        name: 'bun',
        'dist-tags': {},
        versions: { [VERSION]: { name: 'bun', version: VERSION } },
      };
      if (request.method === 'GET') return response.end(JSON.stringify(about));
      if (holes === 'refused') response.statusCode = 405;
      return response.end(JSON.stringify(holes.length > 0 ? { bun: Array.from(holes, advisory) } : {}));
    });
    const env = { npm_config_registry: `http://${address}/`, npm_config_cache: stage().folder };
    const said = await execa(process.execPath, ['scripts/audit-bun.js'], { env, reject: false });
    expect(asked[0]).toBe('POST /-/npm/v1/security/advisories/bulk');
    return said;
  }

  test.each([[[]], [[JUDGED]]])('%j: pass', async (holes) => {
    expect(await audit(holes)).toMatchObject({
      exitCode: 0,
      stdout: `Bun ${VERSION}: no known hole but those that docs/adr/0015 judges`,
      stderr: '',
    });
  });

  test('one that nobody has judged yet ends CI, and is named', async () => {
    expect(await audit([JUDGED, 'GHSA-new'])).toMatchObject({
      exitCode: 1,
      stderr: `audit-bun: Bun ${VERSION}: hole GHSA-new (high): https://github.com/advisories/GHSA-new`,
    });
  });

  test('a registry that does not answer ends CI', async () => {
    const said = /^audit-bun: npm audit could not be asked: 405 .*$/;
    expect(await audit('refused')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(said) as string,
    });
  });
});
