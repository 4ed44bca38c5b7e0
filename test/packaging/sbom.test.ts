// The list of what is in the programs, for those who look there when one of these packages has a hole.
import { readFileSync } from 'node:fs';
import { execa } from 'execa';
import { expect, test } from 'vitest';

interface Component {
  readonly 'bom-ref': string;
  readonly name: string;
  readonly version: string;
  readonly scope: string;
  readonly hashes: readonly { content: string }[];
}

interface Sbom {
  readonly metadata: { readonly component: Component };
  readonly components: readonly Component[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[];
}

test('the SBOM has what --licenses has, with versions and digests, and no development tool', async () => {
  const [{ stdout: licences }, { stdout }] = await Promise.all([
    execa(`build/binary/runlock-linux-${process.arch}`, ['--licenses']),
    execa('npm', ['run', '--silent', 'sbom']),
  ]);
  const { metadata, components, dependencies } = JSON.parse(stdout) as Sbom;
  const titles = [...licences.matchAll(/^(\S+) (\S+) \(.+\)\n=+$/gm)].map(
    ([, name, version]) => `${name} ${version}`,
  );
  const { name, version } = JSON.parse(readFileSync('package.json', 'utf8')) as Component;
  expect(metadata.component).toMatchObject({ name, version });
  const listed = [metadata.component, ...components].map(
    (each) => `${each.name.replace(/^@oven\/bun-linux-\w+$/, 'Bun')} ${each.version}`,
  );
  expect(titles.length).toBeGreaterThan(5);
  // There is a Bun for each architecture that was built.
  expect([...new Set(listed)].sort()).toEqual(titles.sort());
  for (const { scope, hashes } of components) {
    expect(scope).toBe('required');
    expect(hashes[0]?.content).toMatch(/^[0-9a-f]{128}$/);
  }
  // Each is there because something asks for it, and nothing asks for what is not listed.
  const refs = components.map((each) => each['bom-ref']);
  expect([...new Set(dependencies.flatMap(({ dependsOn }) => dependsOn))].sort()).toEqual(refs.sort());
});
