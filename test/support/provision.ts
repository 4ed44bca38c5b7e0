// Finds the real programs that the tests run: named by a variable, on the PATH, in our cache, or Debian's packages.
import { createHash } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { access, mkdir, mkdtemp, readFile, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, delimiter, join } from 'node:path';
import { execa } from 'execa';
import { architecture, createApt, sourcesFor, unpack } from './apt.ts';
import { silently } from './fetching.ts';
import type { ShowFetching } from './fetching.ts';
import {
  ansibleScript,
  fishScript,
  lintianScript,
  mandocScript,
  puppetScript,
  qemuScript,
  systemdAnalyzeScript,
  zshScript,
} from './unpacked.ts';

export interface Tool {
  /** A path whose last part is the program's well-known name. */
  readonly command: string;
  /** What it needs in its environment besides the caller's own. */
  readonly env: Readonly<Record<string, string>>;
}

interface Program {
  readonly name: string;
  /** Names a program to use instead of looking for one. */
  readonly variable: string;
  readonly version: string;
  /** Debian's packages that have it, the best first. */
  readonly packages: readonly string[];
  /** Makes the program runnable in `root`; its path below `root`. */
  make(root: string, apt: string): Promise<string>;
}

/** Debian's last consul. Releases after bullseye have none. */
const consulRelease = 'bullseye';
const consulDigests: Readonly<Record<string, string>> = {
  amd64: 'e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9',
};

const consul: Program = {
  name: 'consul',
  variable: 'CONSUL_BIN',
  version: 'version',
  packages: ['consul'],
  make: makeConsul,
};

const ansiblePlaybook: Program = {
  name: 'ansible-playbook',
  variable: 'ANSIBLE_PLAYBOOK_BIN',
  version: '--version',
  packages: ['ansible-core', 'ansible-base', 'ansible'],
  make: (root, apt) => makeTool(ansiblePlaybook, root, apt, ansibleScript),
};

const puppetProgram: Program = {
  name: 'puppet',
  variable: 'PUPPET_BIN',
  version: '--version',
  packages: ['puppet-agent', 'puppet'],
  make: (root, apt) => makeTool(puppetProgram, root, apt, puppetScript),
};

/** Prometheus's own parser and linter of metrics. */
const promtoolProgram: Program = {
  name: 'promtool',
  variable: 'PROMTOOL_BIN',
  version: '--version',
  packages: ['prometheus'],
  make: makePromtool,
};

const zshProgram: Program = {
  name: 'zsh',
  variable: 'ZSH_BIN',
  version: '--version',
  packages: ['zsh'],
  make: (root, apt) => makeTool(zshProgram, root, apt, zshScript),
};

const fishProgram: Program = {
  name: 'fish',
  variable: 'FISH_BIN',
  version: '--version',
  packages: ['fish'],
  make: (root, apt) => makeTool(fishProgram, root, apt, fishScript),
};

/** Reads manual pages, and says what is wrong with them. It has no option for its version: this is an empty page. */
const mandocProgram: Program = {
  name: 'mandoc',
  variable: 'MANDOC_BIN',
  version: '/dev/null',
  packages: ['mandoc'],
  make: (root, apt) => makeTool(mandocProgram, root, apt, mandocScript),
};

/** Debian's own judge of packages. */
const lintianProgram: Program = {
  name: 'lintian',
  variable: 'LINTIAN_BIN',
  version: '--version',
  packages: ['lintian'],
  make: (root, apt) => makeTool(lintianProgram, root, apt, lintianScript),
};

const systemdAnalyzeProgram: Program = {
  name: 'systemd-analyze',
  variable: 'SYSTEMD_ANALYZE_BIN',
  version: '--version',
  packages: ['systemd'],
  make: (root, apt) => makeTool(systemdAnalyzeProgram, root, apt, systemdAnalyzeScript),
};

/** Runs programs for arm64. One on the PATH may have no C library to run them with. */
const qemuProgram: Program = {
  name: 'qemu-aarch64-with-libc',
  variable: 'QEMU_AARCH64_BIN',
  version: '--version',
  packages: ['qemu-user-static', 'qemu-user'],
  make: makeQemu,
};

const found = new Map<Program, Promise<string>>();

/** Path of a consul program. */
export function consulBinary(show?: ShowFetching): Promise<string> {
  return provision(consul, show);
}

/** ansible-playbook. */
export async function ansible(show?: ShowFetching): Promise<Tool> {
  return { command: await provision(ansiblePlaybook, show), env: {} };
}

/** puppet. From the cache it keeps its state there too, unless it is told another `--vardir`. */
export async function puppet(): Promise<Tool> {
  return { command: await provision(puppetProgram), env: {} };
}

/** Path of a promtool program. */
export function promtool(): Promise<string> {
  return provision(promtoolProgram);
}

/** zsh, with its completion system. */
export const zsh = () => provision(zshProgram);

export const fish = () => provision(fishProgram);

export const mandoc = () => provision(mandocProgram);

/** These are for the packages' tests alone, and so not fetched for all. */
export const lintian = () => provision(lintianProgram);

export const systemdAnalyze = () => provision(systemdAnalyzeProgram);

export const qemuAarch64 = () => provision(qemuProgram);

/** All others, and the variables that spare other processes the search. */
export async function provisionAll(show?: ShowFetching): Promise<Record<string, string>> {
  const programs = [
    consul,
    ansiblePlaybook,
    puppetProgram,
    promtoolProgram,
    zshProgram,
    fishProgram,
    mandocProgram,
  ];
  const entries = programs.map(
    async (program) => [program.variable, await provision(program, show)] as const,
  );
  return Object.fromEntries(await Promise.all(entries));
}

function provision(program: Program, show: ShowFetching = silently): Promise<string> {
  const known = found.get(program) ?? find(program, show);
  found.set(program, known);
  return known;
}

async function find(program: Program, show: ShowFetching): Promise<string> {
  const { name, variable } = program;
  const named = process.env[variable];
  if (named !== undefined && named !== '') {
    if (await isExecutable(named)) return named;
    throw new Error(`${variable} names ${named}, which is no program that can be run`);
  }
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    // What is there may be a shim of a version manager that has no version to offer.
    if (await works(join(folder, name), program)) return join(folder, name);
  }
  try {
    return await fromCache(program, show);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(
      `${name} is missing: it is not on the PATH, and fetching it failed (${reason}). ` +
        `Install Debian's package ${program.packages[0] ?? name}, or set ${variable} to a ${name} program.`,
      { cause: error },
    );
  }
}

/** Where what was fetched stays. */
export const cacheFolder = () =>
  join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'runlock-test');

async function fromCache(program: Program, show: ShowFetching): Promise<string> {
  const cache = cacheFolder();
  const root = join(cache, `${program.name}-${await release()}-${await architecture()}`);
  const marker = join(root, 'program');
  const path = await readFile(marker, 'utf8').catch(() => undefined);
  if (path !== undefined) return join(root, path);
  await mkdir(cache, { recursive: true });
  const making = await mkdtemp(`${root}.`);
  try {
    const fetching = { name: program.name, folder: making };
    const made = await show(fetching, () => program.make(join(making, 'root'), join(making, 'apt')));
    if (!(await works(join(making, 'root', made), program))) throw new Error(`${made} does not run`);
    await writeFile(join(making, 'root/program'), made);
    // Another process may have been quicker: then its copy is as good as ours.
    await rename(join(making, 'root'), root).catch(() => readFile(marker));
    return join(root, made);
  } finally {
    await rm(making, { recursive: true, force: true });
  }
}

async function makeConsul(root: string, folder: string): Promise<string> {
  const apt = await createApt(folder);
  const sources = await sourcesFor(consulRelease);
  const deb = await firstThatWorks(sources, async (source) => {
    await apt.update(source);
    return apt.download('consul');
  });
  const wanted = consulDigests[await architecture()];
  const digest = createHash('sha256')
    .update(await readFile(deb))
    .digest('hex');
  if (wanted !== undefined && digest !== wanted) {
    throw new Error(`${basename(deb)} has SHA-256 ${digest}, not ${wanted}`);
  }
  await unpack([deb], root);
  return 'usr/bin/consul';
}

/** It needs nothing but libc, so its package comes without what that depends on. */
async function makePromtool(root: string, folder: string): Promise<string> {
  const apt = await createApt(folder);
  await apt.update().catch(() => undefined);
  await unpack([await firstThatWorks(promtoolProgram.packages, (name) => apt.download(name))], root);
  return 'usr/bin/promtool';
}

async function makeQemu(root: string, folder: string): Promise<string> {
  const libc = await createApt(join(folder, 'arm64'), 'arm64');
  await libc.update();
  const debs = [await libc.download('libc6')];
  const apt = await createApt(join(folder, 'own'));
  await apt.update().catch(() => undefined);
  debs.push(await firstThatWorks(qemuProgram.packages, (name) => apt.download(name)));
  await unpack(debs, root);
  const programs = join(root, 'usr/bin');
  // It has one for each of some thirty architectures.
  const others = (await readdir(programs)).filter((name) => !name.startsWith('qemu-aarch64'));
  for (const name of others) await rm(join(programs, name));
  // Where releases after bookworm keep it.
  if (!existsSync(join(root, 'lib'))) await symlink('usr/lib', join(root, 'lib'));
  const wrapper = `bin/${qemuProgram.name}`;
  await mkdir(join(root, 'bin'), { recursive: true });
  await writeFile(join(root, wrapper), qemuScript(root), { mode: 0o755 });
  return wrapper;
}

async function makeTool(
  program: Program,
  root: string,
  folder: string,
  script: (root: string) => string,
): Promise<string> {
  const apt = await createApt(folder);
  // A source of someone else's may be out of order; whether Debian's are, the download tells.
  await apt.update().catch(() => undefined);
  await unpack(await firstThatWorks(program.packages, (name) => apt.downloadMissing(name)), root);
  const wrapper = `bin/${program.name}`;
  await mkdir(join(root, 'bin'), { recursive: true });
  await writeFile(join(root, wrapper), script(root), { mode: 0o755 });
  return wrapper;
}

async function works(path: string, { version }: Program): Promise<boolean> {
  if (!(await isExecutable(path))) return false;
  return execa(path, [version], { timeout: 60_000 }).then(
    () => true,
    () => false,
  );
}

function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** Debian's code name for the release of this machine: packages of another one need not run here. */
async function release(): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '');
  return /^VERSION_CODENAME=(\w+)/m.exec(text)?.[1] ?? 'unknown';
}

async function firstThatWorks<T, R>(candidates: readonly T[], attempt: (one: T) => Promise<R>): Promise<R> {
  const failures: string[] = [];
  for (const candidate of candidates) {
    try {
      return await attempt(candidate);
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new Error(failures.join('; ') || "this machine's apt sources name no Debian archive");
}
