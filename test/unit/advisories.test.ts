// 'npm audit' asks the network, and so CI alone runs it. What it is known to refuse must not come back here. Bun's
// holes have another name there than Bun has in package-lock.json: bun.test.ts sees to them.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

/** The first versions without the holes that were published of them. */
const MENDED: Readonly<Record<string, string>> = {
  'brace-expansion': '5.0.9', // GHSA-rgw5-rvv9-x895
  'cross-spawn': '7.0.5', // GHSA-3xgq-45jj-v275
  esbuild: '0.28.1', // GHSA-g7r4-m6w7-qqqr
  nanoid: '3.3.18', // GHSA-2v37-7h3g-55p8
  'smol-toml': '1.7.1', // GHSA-7w5x-hrqm-74c2
  uuid: '11.1.1', // GHSA-w5hq-g745-h8pq
};

function isBefore(one: string, other: string): boolean {
  return one.localeCompare(other, 'en', { numeric: true }) < 0;
}

test('package-lock.json has no version of which a hole is known', () => {
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
    packages: Record<string, { version?: string }>;
  };
  const locked = Object.entries(packages).map(([path, { version = '' }]) => ({
    name: path.replace(/^.*node_modules\//, ''),
    version,
  }));
  const known = locked.filter(({ name }) => name in MENDED);
  expect(new Set(known.map(({ name }) => name))).toEqual(new Set(Object.keys(MENDED)));
  expect(known.filter(({ name, version }) => isBefore(version, MENDED[name] ?? ''))).toEqual([]);
});

test('each package with an install script is denied in package.json, so npm does not warn', () => {
  const read = (file: string) => JSON.parse(readFileSync(file, 'utf8')) as unknown;
  const { packages } = read('package-lock.json') as {
    packages: Record<string, { hasInstallScript?: true; os?: readonly string[] }>;
  };
  const { allowScripts } = read('package.json') as { allowScripts: Record<string, boolean> };
  const scripted = Object.entries(packages)
    .filter(([, { hasInstallScript, os }]) => hasInstallScript && (os ?? ['linux']).includes('linux'))
    .map(([path]) => path.replace(/^.*node_modules\//, ''));
  // None needs its script: esbuild's only makes its command start sooner, and the builds here call its library.
  expect(allowScripts).toEqual(Object.fromEntries(scripted.map((name) => [name, false])));
});
