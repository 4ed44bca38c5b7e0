// Whose work is in the program, and under which licence.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** The folders of the packages that a bundle is made of, by esbuild's metafile (or Bun's, which looks alike). */
export function packagesOf({ inputs }) {
  const folders = Object.keys(inputs).flatMap(
    (path) => /^(?:.*?)(node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? [],
  );
  return [...new Set(folders)].sort();
}

/** @throws Error when a package has no licence to show: then it can't be given to anybody. */
export function licensesOf(folders) {
  return ['.', ...folders].map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    return section(`${name} ${version} (${license})`, licenseText(folder, name));
  });
}

/** Of what is in the file that needs no Node.js besides. Its package comes without them. */
export function runtimeLicenses(version) {
  return section(`Bun ${version} (MIT and others)`, readFileSync('scripts/licenses/bun.txt', 'utf8'));
}

function licenseText(folder, name) {
  const file = readdirSync(folder).find((entry) => /^(?:licen[cs]e|copying)/i.test(entry));
  if (file !== undefined) return readFileSync(join(folder, file), 'utf8');
  const kept = `scripts/licenses/${name.replace('/', '-')}.txt`;
  if (existsSync(kept)) return readFileSync(kept, 'utf8');
  throw new Error(`${folder} has no licence file; put its text into ${kept}`);
}

const section = (title, text) => `${title}\n${'='.repeat(title.length)}\n\n${text.trim()}\n`;
