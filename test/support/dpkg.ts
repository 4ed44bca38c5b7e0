// Debian's real dpkg on a root of its own: the machine's packages are neither read nor changed.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { execa } from 'execa';

export interface Dpkg {
  readonly root: string;
  /** What dpkg printed. Rejects where it fails, with what it said. */
  readonly dpkg: (...args: string[]) => Promise<string>;
  /** What dpkg knows of the package: `ii`, `rc`, or nothing. */
  readonly state: (name: string) => Promise<string>;
}

export interface DpkgOptions {
  readonly folder: string;
  /** Who calls it. */
  readonly uid: number;
  /** Packages that count as installed, with their versions. */
  readonly installed: Readonly<Record<string, string>>;
}

export async function createDpkg({ folder, uid, installed }: DpkgOptions): Promise<Dpkg> {
  const root = join(folder, 'root');
  const admin = join(root, 'var/lib/dpkg');
  for (const name of ['info', 'updates', 'triggers']) mkdirSync(join(admin, name), { recursive: true });
  const architecture = (await execa('dpkg', ['--print-architecture'])).stdout;
  const known = Object.entries(installed).map(([name, version]) => paragraph(name, version, architecture));
  writeFileSync(join(admin, 'status'), known.join('\n'));
  writeFileSync(join(admin, 'available'), '');
  if (uid !== process.getuid?.()) await execa('chown', ['-R', String(uid), folder]);
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' };
  const options = { env, extendEnv: false, uid, cwd: dirname(folder), stripFinalNewline: false };
  const call = async (program: string, ...args: string[]) => {
    // The package's scripts run outside of that root: there is no shell in it.
    const forced = ['--force-not-root', '--force-script-chrootless'];
    const given = program === 'dpkg' ? [...forced, `--root=${root}`] : [`--admindir=${admin}`];
    const { stdout, stderr } = await execa(program, [...given, ...args], options);
    return stdout + stderr;
  };
  return {
    root,
    dpkg: (...args) => call('dpkg', ...args),
    state: async (name) => {
      const text = await call('dpkg-query', '--show', '--showformat=${db:Status-Abbrev}', name).catch(
        () => '',
      );
      return text.trim();
    },
  };
}

function paragraph(name: string, version: string, architecture: string): string {
  return `Package: ${name}
Status: install ok installed
Maintainer: nobody <nobody@packages.invalid>
Architecture: ${architecture}
Multi-Arch: same
Version: ${version}
Description: stands for the package
`;
}
