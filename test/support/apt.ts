// Debian packages for any user, in a folder of ours: nothing on the system is changed, nothing needs root.
import { access, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

export interface Apt {
  /** `sources` replaces the machine's own sources. Rejects with what apt said. */
  update(sources?: string): Promise<void>;
  /** Downloads the package alone; its file's name. */
  download(name: string): Promise<string>;
  /** Downloads the package with all of its dependencies that this machine lacks; their files' names. */
  downloadMissing(name: string): Promise<string[]>;
}

/** An apt that keeps its lists and its cache below `folder`; for `foreign`'s packages it knows no others. */
export async function createApt(folder: string, foreign?: string): Promise<Apt> {
  const archives = join(folder, 'cache/archives');
  await mkdir(join(archives, 'partial'), { recursive: true });
  await mkdir(join(folder, 'lists/partial'), { recursive: true });
  const config = join(folder, 'apt.conf');
  await writeFile(join(folder, 'status'), '');
  const ours = settings(folder) + (foreign === undefined ? '' : foreignSettings(folder, foreign));
  await writeFile(config, ours);
  const apt = async (...args: string[]): Promise<void> => {
    try {
      const env = { LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' };
      await execa('apt-get', ['-c', config, '-q', '-y', ...args], { cwd: archives, env, timeout: 240_000 });
    } catch (error) {
      throw new Error(`apt-get ${args.join(' ')}: ${saidBy(error)}`, { cause: error });
    }
  };
  const debs = async () => {
    const names = await readdir(archives);
    return names.filter((name) => name.endsWith('.deb')).map((name) => join(archives, name));
  };
  return {
    update: async (sources) => {
      if (sources !== undefined) {
        const list = join(folder, 'sources.list');
        await writeFile(list, sources);
        await writeFile(config, `${ours}Dir::Etc::sourcelist "${list}";\nDir::Etc::sourceparts "-";\n`);
      }
      await apt('update');
    },
    download: async (name) => {
      await apt('download', name);
      const [file] = await debs();
      if (file === undefined) throw new Error(`apt-get download ${name} left no file`);
      return file;
    },
    downloadMissing: async (name) => {
      await apt('install', '--download-only', '--no-install-recommends', name);
      return debs();
    },
  };
}

export async function unpack(debs: readonly string[], root: string): Promise<void> {
  await mkdir(root, { recursive: true });
  for (const deb of debs) await execa('dpkg', ['-x', deb, root]);
}

export async function architecture(): Promise<string> {
  return (await execa('dpkg', ['--print-architecture'])).stdout;
}

/** One-line sources for another release, one for each Debian archive that this machine uses already. */
export async function sourcesFor(release: string): Promise<string[]> {
  const keyring = await firstFile(
    '/usr/share/keyrings/debian-archive-keyring.gpg',
    '/usr/share/keyrings/debian-archive-keyring.pgp',
  );
  const uris = new Set((await readSources()).filter(isDebianArchive).map(({ uri }) => uri));
  return [...uris].map((uri) => `deb [signed-by=${keyring}] ${uri} ${release} main\n`);
}

export interface Source {
  readonly uri: string;
  readonly suite: string;
  readonly components: readonly string[];
  readonly signedBy: string;
}

/** The archive itself: not its security updates, and nobody else's packages for Debian. */
export function isDebianArchive({ uri, suite, components, signedBy }: Source): boolean {
  return (
    // Also a snapshot of a day, and the list of mirrors that cloud images use.
    /[/:]debian(\.list)?(\/\d{8}T\d{6}Z)?\/?$/.test(uri) &&
    /^[a-z]+$/.test(suite) &&
    components.includes('main') &&
    (signedBy === '' || /debian-archive|BEGIN PGP/.test(signedBy))
  );
}

/** apt's older format: `deb [options] URI suite component…` */
export function parseList(text: string): Source[] {
  return text.split('\n').flatMap((line) => {
    const [, options = '', uri, suite, rest = ''] =
      /^\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)([^#]*)/.exec(line) ?? [];
    if (uri === undefined || suite === undefined) return [];
    const signedBy = /signed-by=(\S+)/i.exec(options)?.[1] ?? '';
    return [{ uri, suite, components: words(rest), signedBy }];
  });
}

/** apt's newer format, deb822: paragraphs of `Field: value`, a value goes on in indented lines. */
export function parseDeb822(text: string): Source[] {
  const lines = text.split('\n').filter((line) => !line.startsWith('#'));
  return lines
    .join('\n')
    .split(/\n\s*\n/)
    .flatMap((paragraph) => {
      const fields = new Map<string, string>();
      for (const [, name = '', value = ''] of paragraph.matchAll(/^([\w-]+):((?:.*)(?:\n[ \t].*)*)/gm)) {
        fields.set(name.toLowerCase(), value.trim());
      }
      const field = (name: string) => fields.get(name) ?? '';
      if (!words(field('types')).includes('deb') || /^(no|false|0)$/i.test(field('enabled'))) return [];
      const rest = { components: words(field('components')), signedBy: field('signed-by') };
      return words(field('uris')).flatMap((uri) =>
        words(field('suites')).map((suite) => ({ uri, suite, ...rest })),
      );
    });
}

async function readSources(): Promise<Source[]> {
  const parts = '/etc/apt/sources.list.d';
  const names = (await readdir(parts).catch(() => [])).map((name) => join(parts, name));
  const files = ['/etc/apt/sources.list', ...names].map(async (name) => {
    const parse = name.endsWith('.sources') ? parseDeb822 : name.endsWith('.list') ? parseList : () => [];
    return parse(await readFile(name, 'utf8').catch(() => ''));
  });
  return (await Promise.all(files)).flat();
}

/** The hooks are the system's own business: some empty its cache, some tell its desktop. */
function settings(folder: string): string {
  return `#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
Dir::State::lists "${folder}/lists";
Dir::Cache "${folder}/cache";
Dir::Cache::archives "archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "1";
`;
}

/** As on a machine of that architecture which has nothing installed yet. */
const foreignSettings = (folder: string, architecture: string) => `APT::Architecture "${architecture}";
APT::Architectures { "${architecture}"; };
Dir::State::status "${folder}/status";
`;

async function firstFile(...names: string[]): Promise<string> {
  for (const name of names) {
    const found = await access(name).then(
      () => true,
      () => false,
    );
    if (found) return name;
  }
  throw new Error(`${names[0] ?? ''} is missing: it comes with Debian's package debian-archive-keyring`);
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}

function saidBy(error: unknown): string {
  const { stderr = '', message = String(error) } = error as { stderr?: string; message?: string };
  const complaints = stderr.split('\n').filter((line) => /^[EW]:/.test(line));
  return complaints.length > 0 ? complaints.join(' ') : message;
}
