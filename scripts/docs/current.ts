// What the generated files should say now.
import { readFileSync } from 'node:fs';
import { commandTree } from '../../src/cli/parse.ts';
import { commands } from '../../src/commands/registry.ts';
import { configExample } from './config-example.ts';
import { manPage } from './man.ts';
import { describePages } from './pages.ts';
import { commandsPage, fillPage, generatedParts } from './tables.ts';

export interface Generated {
  readonly file: string;
  readonly text: string;
}

/** Reads from the project's root. */
export async function currentDocs(): Promise<Generated[]> {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  const tree = await commandTree(commands, { env: {}, version, readText: () => '' });
  const pages = describePages(tree);
  return [
    { file: 'docs/man/runlock.1', text: manPage(pages, version) },
    { file: 'packaging/config.toml', text: configExample(tree) },
    { file: 'docs/commands.md', text: commandsPage(pages) },
    ...Object.keys(generatedParts).map((file) => ({
      file,
      text: fillPage(file, readFileSync(file, 'utf8'), pages),
    })),
  ];
}
