// What the Debian package is made of, part by part.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { configExample } from '../../scripts/docs/config-example.ts';
import { debianChangelog, readChangelog } from '../../scripts/deb/changelog.ts';
import { commandTree } from '../../src/cli/parse.ts';
import { commands } from '../../src/commands/registry.ts';
import { keysOf } from '../../src/cli/config/apply.ts';
import { readConfig } from '../../src/cli/config/read.ts';

const tree = await commandTree(commands, { env: {}, version: '1.2.3', readText: () => '' });

describe('config.toml', () => {
  const example = configExample(tree);
  const keys = keysOf(tree.commands);

  test('says nothing until somebody takes a # away', () => {
    expect(example.split('\n').filter((line) => line !== '' && !line.startsWith('#'))).toEqual([]);
    expect(readConfig('config.toml', example, keys).general.size).toBe(0);
  });

  test('has every option that may stand in a file, as the file takes it', () => {
    const config = readConfig('config.toml', example.replaceAll(/^#(?=\w+ = |\[)/gm, ''), keys);
    const allowed = [...keys].filter(([, { perCall }]) => !perCall).map(([name]) => name);
    expect([...config.general.keys()].sort()).toEqual(allowed.sort());
    expect(config.groups.get('prod/web')?.get('slots')?.text).toBe('3');
  });
});

describe('the changelog', () => {
  const entry = (markdown: string) =>
    debianChangelog(readChangelog(markdown), '1', { maintainer: 'A B <a@b.c>', date: new Date(0) });

  test('has an entry for each version, dated by its heading, or by the build before its release', () => {
    expect(
      entry('# Changelog\n\n## 2.0.0 (unreleased)\n\n- `b`\n  goes on.\n\n## 1.0.0 (2030-01-31)\n\n- a\n'),
    ).toBe(
      [
        ...['runlock (2.0.0-1) unstable; urgency=medium', '', '  * b goes on.', ''],
        ...[' -- A B <a@b.c>  Thu, 01 Jan 1970 00:00:00 +0000', ''],
        ...['runlock (1.0.0-1) unstable; urgency=medium', '', '  * a', ''],
        ...[' -- A B <a@b.c>  Thu, 31 Jan 2030 00:00:00 +0000', ''],
      ].join('\n'),
    );
  });

  test('of this project has no line longer than Debian allows', () => {
    const lines = entry(readFileSync('CHANGELOG.md', 'utf8')).split('\n');
    expect(lines.length).toBeGreaterThan(10);
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
  });

  test('with a heading that has no date is refused', () => {
    expect(() => entry('# Changelog\n\n## next\n')).toThrow("'## next' is not like '## 1.2.3 (2030-01-31)'");
  });
});
