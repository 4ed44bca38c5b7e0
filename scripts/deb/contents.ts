// What is in the Debian package, file by file. All of it but the program is text that is in this project.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { constants, gzipSync } from 'node:zlib';
import { bash } from '../../src/commands/completion/bash.ts';
import { fish } from '../../src/commands/completion/fish.ts';
import { zsh } from '../../src/commands/completion/zsh.ts';

export interface PackedFile {
  /** Below the root, without a slash at the start. */
  readonly path: string;
  readonly content: string | Buffer;
  readonly executable: boolean;
}

/** Files in /etc that an administrator may change, and an upgrade leaves so. */
export const conffiles: readonly string[] = ['/etc/runlock/config.toml', '/etc/runlock/runs.d/README'];

/** The README, the pages that its table of tasks names, and the examples: links between them work once installed. */
export const documents: readonly string[] = [
  'README.md',
  ...pagesByTask(readFileSync('README.md', 'utf8')),
  ...readdirSync('examples', { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort(),
];

function pagesByTask(readme: string): string[] {
  const [, table = ''] = /^## Documentation\n(.*?)^## /ms.exec(readme) ?? [];
  const pages = [...table.matchAll(/\]\((docs\/\w+\.md)\)/g)].map(([, page = '']) => page);
  return [...new Set(pages)].sort();
}

/** Reads from the project's root. */
export function contents(program: Buffer, debianChangelog: string): PackedFile[] {
  const text = (path: string, content: string | Buffer) => ({ path, content, executable: false });
  const copied = (path: string, source: string) => text(path, readFileSync(source));
  const doc = 'usr/share/doc/runlock';
  return [
    { path: 'usr/bin/runlock', content: program, executable: true },
    copied('etc/runlock/config.toml', 'packaging/config.toml'),
    copied('etc/runlock/runs.d/README', 'packaging/runs.d/README'),
    copied('usr/lib/systemd/system/runlock-agent.service', 'packaging/systemd/runlock-agent.service'),
    copied('usr/lib/systemd/system/runlock@.service', 'packaging/systemd/runlock@.service'),
    copied('usr/lib/systemd/system/runlock@.timer', 'packaging/systemd/runlock@.timer'),
    text('usr/share/bash-completion/completions/runlock', bash),
    text('usr/share/zsh/vendor-completions/_runlock', zsh),
    text('usr/share/fish/vendor_completions.d/runlock.fish', fish),
    text('usr/share/man/man1/runlock.1.gz', packed(readFileSync('docs/man/runlock.1'))),
    text(`${doc}/changelog.gz`, packed(readFileSync('CHANGELOG.md'))),
    text(`${doc}/changelog.Debian.gz`, packed(Buffer.from(debianChangelog))),
    ...documents.map((file) => copied(`${doc}/${file}`, file)),
    copied(`${doc}/copyright`, 'packaging/deb/copyright'),
    copied('usr/share/lintian/overrides/runlock', 'packaging/deb/lintian-overrides'),
  ];
}

/** As `gzip -9n`: neither a name nor a time in it. */
function packed(text: Buffer): Buffer {
  return gzipSync(text, { level: constants.Z_BEST_COMPRESSION });
}
