// CHANGELOG.md → Debian's changelog: an entry for each `## version (date)`.

export interface Entry {
  readonly version: string;
  /** Undefined: not released. */
  readonly date: string | undefined;
  /** Each on one line. */
  readonly items: readonly string[];
}

export interface Signature {
  /** `name <mail address>` */
  readonly maintainer: string;
  /** Of what is not released: of this build. */
  readonly date: Date;
}

const WIDTH = 78;

export function readChangelog(markdown: string): Entry[] {
  return markdown
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const [, version, said] = /^(\d\S*) \((\S+)\)\n/.exec(section) ?? [];
      if (version === undefined || said === undefined)
        throw new Error(
          `CHANGELOG.md: '## ${section.split('\n')[0] ?? ''}' is not like '## 1.2.3 (2030-01-31)'`,
        );
      const items = section.split(/^- /m).slice(1);
      return {
        version,
        date: said === 'unreleased' ? undefined : said,
        items: items.map((item) => item.replaceAll(/\s+/g, ' ').trim()),
      };
    });
}

/** @param revision Debian's own number of the package, after the version. */
export function debianChangelog(entries: readonly Entry[], revision: string, signature: Signature): string {
  return entries.map((entry) => debianEntry(entry, revision, signature)).join('\n');
}

function debianEntry(entry: Entry, revision: string, { maintainer, date }: Signature): string {
  const when = entry.date === undefined ? date : new Date(`${entry.date}T00:00:00Z`);
  const items = entry.items.map((item) => wrap(item.replaceAll('`', '')));
  return [
    `runlock (${entry.version}-${revision}) unstable; urgency=medium`,
    '',
    ...items.flat(),
    '',
    ` -- ${maintainer}  ${when.toUTCString().replace('GMT', '+0000')}`,
    '',
  ].join('\n');
}

function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = '  *';
  for (const word of text.split(' ')) {
    if (line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = '   ';
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
