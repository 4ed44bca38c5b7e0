// Lays the package's files out in a folder and has dpkg-deb pack it: the same bytes from the same input and date.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { debianChangelog, readChangelog } from './changelog.ts';
import { conffiles, contents } from './contents.ts';
import type { PackedFile } from './contents.ts';

export interface DebRequest {
  /** The program for /usr/bin/runlock, named by its architecture as `npm run build:binary` names it. */
  readonly program: string;
  /** Of runlock itself. */
  readonly version: string;
  /** `name <mail address>` */
  readonly maintainer: string;
  /** Of every file, and of the changelog. */
  readonly date: Date;
  /** The folder for the package. */
  readonly out: string;
}

/** Debian's own number of a package of one version. */
const REVISION = '1';
/** Debian's names of the architectures. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };
const SCRIPTS = ['postinst', 'prerm', 'postrm'];

/** The package's file name. @throws Error: what is wrong with the program's name, or what dpkg-deb said. */
export function buildDeb(request: DebRequest): string {
  const { program, version, date, out } = request;
  const binary = readFileSync(program);
  const files = contents(
    binary,
    debianChangelog(readChangelog(readFileSync('CHANGELOG.md', 'utf8')), REVISION, request),
  );
  const packageVersion = `${version}-${REVISION}`;
  const architecture = architectureOf(program);
  const deb = join(out, `runlock_${packageVersion}_${architecture}.deb`);
  const control = fillControl({
    version: packageVersion,
    architecture,
    maintainer: request.maintainer,
    size: String(kibibytes(files)),
  });
  mkdirSync(out, { recursive: true });
  const tree = mkdtempSync(join(out, '.tree-'));
  try {
    layOut(tree, [...files, ...controlFiles(control, files)], date);
    pack(tree, deb, date);
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
  return deb;
}

/** By the end of its name; without one it is a program of this machine. */
function architectureOf(program: string): string {
  const [, name = process.arch] = /-(x64|arm64)$/.exec(program) ?? [];
  const architecture = ARCHITECTURES[name];
  if (architecture === undefined) throw new Error(`no Debian package for ${name}, only x64 and arm64`);
  return architecture;
}

function fillControl(values: Readonly<Record<string, string>>): string {
  return readFileSync('packaging/deb/control', 'utf8').replaceAll(/@(\w+)@/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`packaging/deb/control: no value for @${name}@`);
    return value;
  });
}

/** As dpkg counts: each file in whole KiB. */
function kibibytes(files: readonly PackedFile[]): number {
  return files.reduce((sum, { content }) => sum + Math.ceil(Buffer.byteLength(content) / 1024), 0);
}

function controlFiles(control: string, files: readonly PackedFile[]): PackedFile[] {
  const sums = files
    .filter(({ path }) => !conffiles.includes(`/${path}`))
    .map(({ path, content }) => `${createHash('md5').update(content).digest('hex')}  ${path}\n`);
  const text = (name: string, content: string) => ({ path: `DEBIAN/${name}`, content, executable: false });
  return [
    text('control', control),
    text('conffiles', `${conffiles.join('\n')}\n`),
    text('md5sums', sums.join('')),
    ...SCRIPTS.map((name) => ({
      ...text(name, readFileSync(join('packaging/deb', name), 'utf8')),
      executable: true,
    })),
  ];
}

/** Whatever the umask is, and whenever it runs. */
function layOut(tree: string, files: readonly PackedFile[], date: Date): void {
  for (const { path, content, executable } of files) {
    const file = join(tree, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
    chmodSync(file, executable ? 0o755 : 0o644);
    utimesSync(file, date, date);
  }
  const folders = readdirSync(tree, { recursive: true, withFileTypes: true }).filter((each) =>
    each.isDirectory(),
  );
  for (const folder of [tree, ...folders.map((each) => join(each.parentPath, each.name))]) {
    chmodSync(folder, 0o755);
    utimesSync(folder, date, date);
  }
}

function pack(tree: string, deb: string, date: Date): void {
  const seconds = String(Math.floor(date.getTime() / 1000));
  // Several threads of xz make other bytes than one.
  const env = { ...process.env, SOURCE_DATE_EPOCH: seconds, DPKG_DEB_THREADS_MAX: '1', LC_ALL: 'C' };
  // Eight per cent larger than at level 3, in a quarter of the time. Of zstd lintian does not know.
  execFileSync('dpkg-deb', ['--build', '--root-owner-group', '-Zxz', '-z0', tree, deb], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}
