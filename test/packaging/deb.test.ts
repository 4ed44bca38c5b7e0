// The Debian package, as `npm run build:deb` builds it: what is in it, and what Debian's own programs make of it. Packed
// here is a small program in the place of runlock's: packing the real one takes xz a quarter of a minute, and lintian as long.
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { execa } from 'execa';
import { beforeAll, describe, expect, test } from 'vitest';
import { documents } from '../../scripts/deb/contents.ts';
import { createDpkg } from '../support/dpkg.ts';
import { dependsByLoader } from '../support/libraries.ts';
import { scene } from '../support/processes.ts';
import type { Scene } from '../support/processes.ts';
import { lintian } from '../support/provision.ts';
import { runlock } from '../support/runlock.ts';
import { stage } from '../support/stage.ts';

const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
const EPOCH = '1700000000';
/** Any small program that needs libc alone. */
const PROGRAM = '/bin/true';

async function build(
  out: string,
  env: Readonly<Record<string, string>> = {},
  program = PROGRAM,
): Promise<string> {
  const script = 'umask "$UMASK" && exec "$@"';
  const args = ['scripts/run.js', 'scripts/build-deb.ts', '--program', program, '--out', out];
  const { stdout } = await execa('sh', ['-c', script, 'sh', process.execPath, ...args], {
    env: { SOURCE_DATE_EPOCH: EPOCH, UMASK: '022', ...env },
  });
  return stdout;
}

let made: Scene;
let deb: string;

beforeAll(async () => {
  made = scene();
  deb = await build(made.folder);
  return () => made.clean();
});

async function unpacked(): Promise<string> {
  const { folder } = stage();
  await execa('dpkg-deb', ['-x', deb, folder]);
  return folder;
}

describe('building it', () => {
  test('gives the same bytes from the same input and date, whatever umask and time zone are', async () => {
    const { folder } = stage();
    const other = await build(folder, { UMASK: '077', TZ: 'Pacific/Kiritimati' });
    expect(readFileSync(other).equals(readFileSync(deb))).toBe(true);
  });

  test('fails with one line that says what to do where there is no program', async () => {
    const { folder } = stage();
    await expect(build(folder, {}, join(folder, 'none'))).rejects.toMatchObject({
      exitCode: 1,
      stderr: `build:deb: ${folder}/none: no such file; run 'npm run build:binary' first, or name one with --program FILE`,
    });
    expect(readdirSync(folder)).toEqual([]);
  });
});

test('the README installs it from the folder where the build leaves it', async () => {
  const { folder } = stage();
  // All of the project but what was built: that stays as it is.
  for (const name of readdirSync('.').filter((each) => !['build', '.git'].includes(each)))
    symlinkSync(resolve(name), join(folder, name));
  const args = ['scripts/run.js', 'scripts/build-deb.ts', '--program', PROGRAM];
  const { stdout } = await execa(process.execPath, args, {
    cwd: folder,
    env: { SOURCE_DATE_EPOCH: EPOCH },
  });
  const [, glob = ''] = /^ {4}apt install (\S+)$/m.exec(readFileSync('README.md', 'utf8')) ?? [];
  const found = await execa('sh', ['-c', `echo ${glob}`], { cwd: folder });
  expect(found.stdout).toBe(`./${stdout}`);
});

describe('what it asks of a machine', () => {
  const field = async (name: string, file: string) =>
    (await execa('dpkg-deb', ['--field', file, name])).stdout;

  test('is the architecture that the name of its program ends with', async () => {
    const { folder } = stage();
    for (const [name, architecture] of [['x64', 'amd64'] as const, ['arm64', 'arm64'] as const]) {
      const program = join(folder, `runlock-linux-${name}`);
      copyFileSync(PROGRAM, program);
      const made = await build(folder, {}, program);
      expect(made).toBe(join(folder, `runlock_${version}-1_${architecture}.deb`));
      expect(await field('Architecture', made)).toBe(architecture);
    }
  });

  test('is the C library that the real program asks the loader for, and no other', async () => {
    const { stdout } = await execa('ldd', ['-v', `build/binary/runlock-linux-${process.arch}`]);
    expect(await field('Depends', deb)).toBe(dependsByLoader(stdout));
  });
});

describe('what is in it', () => {
  test('is each file in its Debian folder, all of it root’s, and nothing else', async () => {
    const { stdout } = await execa('dpkg-deb', ['--contents', deb], { env: { TZ: 'UTC' } });
    const lines = stdout.split('\n');
    const files = lines.filter((line) => !line.endsWith('/')).map((line) => line.replace(/ +\d+ /, ' '));
    const on = 'root/root 2023-11-14 22:13';
    const plain = [
      ...['etc/runlock/config.toml', 'etc/runlock/runs.d/README'],
      ...['usr/lib/systemd/system/runlock-agent.service'],
      ...['usr/lib/systemd/system/runlock@.service', 'usr/lib/systemd/system/runlock@.timer'],
      'usr/share/bash-completion/completions/runlock',
      ...['changelog.Debian.gz', 'changelog.gz', 'copyright'].map((name) => `usr/share/doc/runlock/${name}`),
      'usr/share/fish/vendor_completions.d/runlock.fish',
      'usr/share/lintian/overrides/runlock',
      'usr/share/man/man1/runlock.1.gz',
      ...documents.map((file) => `usr/share/doc/runlock/${file}`),
      'usr/share/zsh/vendor-completions/_runlock',
    ];
    expect(files.sort()).toEqual([
      ...plain.sort().map((path) => `-rw-r--r-- ${on} ./${path}`),
      `-rwxr-xr-x ${on} ./usr/bin/runlock`,
    ]);
    const folders = lines.filter((line) => line.endsWith('/'));
    expect(folders.filter((line) => !line.startsWith('drwxr-xr-x root/root '))).toEqual([]);
  });

  test('has the examples that people start from, and the pages that explain them', () => {
    const four = ['README.md', 'group_vars/all.yml', 'mysql.yml', 'migrate.yml', 'app.yml', 'haproxy.yml'];
    expect(documents).toEqual(
      expect.arrayContaining([
        ...['docs/waiting.md', 'docs/rights.md'],
        ...four.map((name) => `examples/four-nodes/${name}`),
        ...['files/client.d/four_nodes.rb', 'recipes/four_nodes.rb'].map((name) => `examples/chef/${name}`),
      ]),
    );
  });

  test('completes as runlock itself would, and has its man page', async () => {
    const root = await unpacked();
    const installed = {
      bash: 'usr/share/bash-completion/completions/runlock',
      zsh: 'usr/share/zsh/vendor-completions/_runlock',
      fish: 'usr/share/fish/vendor_completions.d/runlock.fish',
    };
    for (const [shell, path] of Object.entries(installed)) {
      const { stdout } = await runlock(undefined, ['completion', shell]);
      expect(readFileSync(join(root, path), 'utf8')).toBe(stdout);
    }
    const page = gunzipSync(readFileSync(join(root, 'usr/share/man/man1/runlock.1.gz')));
    expect(page.equals(readFileSync('docs/man/runlock.1'))).toBe(true);
  });

  test('has a configuration that changes nothing, and that runlock takes with every # gone', async () => {
    const root = await unpacked();
    const file = join(root, 'etc/runlock/config.toml');
    const asIs = await runlock(undefined, ['config', '--config', file, '--json']);
    const options = (JSON.parse(asIs.stdout) as { options: { from: string }[] }).options;
    expect(new Set(options.map(({ from }) => from))).toEqual(new Set(['default']));
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll(/^#(?=\w+ = |\[)/gm, ''));
    expect(await runlock(undefined, ['config', '--config', file])).toMatchObject({ status: 0, stderr: '' });
  });

  // It may have to be fetched first.
  test('passes lintian', { timeout: 300_000 }, async () => {
    const { folder } = stage();
    const options = ['--no-cfg', '--fail-on', 'error,warning', '--allow-root'];
    const { stdout } = await execa(await lintian(), [...options, deb], {
      cwd: folder,
      env: { TMPDIR: folder },
    });
    expect(stdout).toBe('');
  });
});

/** As root, where the tests are root's; always as somebody else too. */
const callers = process.getuid?.() === 0 ? [0, 65_534] : [process.getuid?.() ?? 0];

describe.each(callers)('with dpkg as user %i', (uid) => {
  const libc = { libc6: '2.36-9' };
  const conffile = 'etc/runlock/config.toml';
  const text = (root: string, path: string) => readFileSync(join(root, path), 'utf8');

  /** The package a version later, with another configuration file. */
  async function nextVersion(folder: string): Promise<string> {
    const tree = join(folder, 'next');
    await execa('dpkg-deb', ['-R', deb, tree]);
    appendFileSync(join(tree, conffile), '# new in this version\n');
    const control = join(tree, 'DEBIAN/control');
    writeFileSync(control, readFileSync(control, 'utf8').replace(/^Version: .*$/m, 'Version: 99.0.0-1'));
    const next = join(folder, 'next.deb');
    await execa('dpkg-deb', ['--build', '--root-owner-group', '-Znone', tree, next]);
    return next;
  }

  const machine = async (installed: Readonly<Record<string, string>> = libc) => {
    const { folder } = stage();
    const next = await nextVersion(folder);
    const own = join(folder, 'machine');
    mkdirSync(own);
    // The package and the folder are to be seen by that user too.
    await execa('chmod', ['a+rx', folder, made.folder]);
    return { ...(await createDpkg({ folder: own, uid, installed })), next };
  };

  test('it is not installed without the libraries that its program needs', async () => {
    const { dpkg } = await machine({});
    await expect(dpkg('--install', deb)).rejects.toThrow(/runlock depends on libc6 \(>= 2\.\d+\)/);
  });

  test('it is installed, upgraded, removed and purged, and nothing of it is left', async () => {
    const { root, dpkg, state, next } = await machine();
    await dpkg('--install', deb);
    expect(await state('runlock')).toBe('ii');
    expect(existsSync(join(root, 'usr/bin/runlock'))).toBe(true);
    await dpkg('--install', next);
    expect(readFileSync(join(root, conffile), 'utf8')).toContain('# new in this version');
    await dpkg('--remove', 'runlock');
    expect(await state('runlock')).toBe('rc');
    expect(existsSync(join(root, 'usr/bin/runlock'))).toBe(false);
    expect(existsSync(join(root, conffile))).toBe(true);
    await dpkg('--purge', 'runlock');
    expect(await state('runlock')).toBe('');
    const { stdout } = await execa('find', [
      root,
      '-path',
      join(root, 'var'),
      '-prune',
      '-o',
      '!',
      '-type',
      'd',
      '-print',
    ]);
    expect(stdout).toBe('');
    expect(existsSync(join(root, 'etc/runlock'))).toBe(false);
  });

  test('an upgrade keeps a configuration that was changed, and puts the new one beside it', async () => {
    const { root, dpkg, next } = await machine();
    await dpkg('--install', deb);
    const changed = `${text(root, conffile)}wait = "30m"\n`;
    writeFileSync(join(root, conffile), changed);
    await dpkg('--force-confold', '--install', next);
    expect(text(root, conffile)).toBe(changed);
    expect(text(root, `${conffile}.dpkg-dist`)).toContain('# new in this version');
  });

  test('a purge leaves what somebody wrote into its folder, says so, and takes enabled timers away', async () => {
    const { root, dpkg } = await machine();
    await dpkg('--install', deb);
    const wants = join(root, 'etc/systemd/system/timers.target.wants');
    mkdirSync(wants, { recursive: true });
    await execa('chown', ['-R', String(uid), join(root, 'etc')]);
    for (const name of ['runlock@web.timer', 'other@web.timer']) writeFileSync(join(wants, name), '');
    writeFileSync(join(root, 'etc/runlock/runs.d/web.env'), 'RUNLOCK_COMMAND=true\n');
    const ofAgent = ['var/lib/runlock', 'var/log/runlock'].map((path) => join(root, path));
    for (const folder of ofAgent) mkdirSync(folder, { recursive: true });
    await execa('chown', ['-R', String(uid), join(root, 'var/lib'), join(root, 'var/log')]);
    const said = await dpkg('--purge', 'runlock');
    expect(said).toMatch(/directory '\/etc\/runlock\/runs\.d' not empty so not removed/);
    expect(readdirSync(join(root, 'etc/runlock/runs.d'))).toEqual(['web.env']);
    expect(readdirSync(wants)).toEqual(['other@web.timer']);
    expect(ofAgent.filter(existsSync)).toEqual([]);
  });

  test('a purge takes the token away and says so; a removal without purge keeps it', async () => {
    const { root, dpkg } = await machine();
    await dpkg('--install', deb);
    const token = join(root, 'etc/runlock/token');
    writeFileSync(token, 'secret\n', { mode: 0o600 });
    await execa('chown', ['-R', String(uid), join(root, 'etc')]);
    await dpkg('--remove', 'runlock');
    expect(readFileSync(token, 'utf8')).toBe('secret\n');
    const said = await dpkg('--purge', 'runlock');
    expect(said).toContain(`Removed ${token}. The token is still valid in Consul`);
    expect(existsSync(join(root, 'etc/runlock'))).toBe(false);
  });
});

test('its version is runlock’s, and the first of Debian’s', async () => {
  const { stdout } = await execa('dpkg-deb', ['--field', deb, 'Version']);
  expect(stdout).toBe(`${version}-1`);
});
