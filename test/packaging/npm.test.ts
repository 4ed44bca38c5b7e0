// The package for npm: what is in it, and that it runs by itself on each Node.js that it says it runs on.
import { existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { execa } from 'execa';
import { beforeAll, describe, expect, test } from 'vitest';
import { documents } from '../../scripts/deb/contents.ts';
import { useAgent } from '../support/use-agent.ts';
import { nodeFolder, nodeMajors } from '../support/nodes.ts';
import { scene } from '../support/processes.ts';
import type { Scene } from '../support/processes.ts';

const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as Record<string, unknown> & {
  version: string;
  scripts: Record<string, string>;
};

interface Packed {
  readonly filename: string;
  readonly files: readonly { path: string; mode: number }[];
}

/** Packs what `npm run build` has made; building is the business of whoever starts the tests. */
async function pack(...args: string[]): Promise<Packed> {
  const { stdout } = await execa('npm', ['pack', '--json', '--ignore-scripts', ...args]);
  const [packed] = JSON.parse(stdout) as Packed[];
  if (!packed) throw new Error('npm pack made nothing');
  return packed;
}

describe('what is in the package', () => {
  test('is the bundle, the documents, completions, units, licence and changelog, and nothing else', async () => {
    const { files } = await pack('--dry-run');
    const paths = files.map(({ path }) => path);
    const chunks = paths.filter((path) => /^dist\/[a-z-]+-[A-Z0-9]{8}\.cjs(?:\.LEGAL\.txt)?$/.test(path));
    const others = paths.filter((path) => !chunks.includes(path) && !documents.includes(path));
    expect(paths).toEqual(expect.arrayContaining([...documents]));
    expect(others.sort()).toEqual([
      ...['CHANGELOG.md', 'LICENSE', 'bin/package.json', 'bin/runlock.js'],
      ...['dist/completions/_runlock', 'dist/completions/runlock', 'dist/completions/runlock.fish'],
      ...['dist/main.cjs', 'docs/man/runlock.1', 'package.json', 'packaging/runs.d/README'],
      ...['packaging/systemd/runlock-agent.service'],
      ...['packaging/systemd/runlock@.service', 'packaging/systemd/runlock@.timer'],
    ]);
    expect(chunks).toEqual(
      expect.arrayContaining(
        readdirSync('dist')
          .filter(isChunk)
          .map((name) => `dist/${name}`),
      ),
    );
  });

  test('asks npm for no other package, and to run nothing', () => {
    const asks = [
      'dependencies',
      'optionalDependencies',
      'peerDependencies',
      'bundleDependencies',
      'gypfile',
    ];
    expect(Object.keys(manifest).filter((key) => asks.includes(key))).toEqual([]);
    const hooks = /^(?:pre|post)?(?:install|uninstall|prepare)$|^dependencies$/;
    expect(Object.keys(manifest.scripts).filter((name) => hooks.test(name))).toEqual([]);
  });
});

const isChunk = (name: string) => name.includes('.cjs') && name !== 'main.cjs';

describe('installed into an empty prefix, without a network', () => {
  let made: Scene;
  let prefix: string;
  const agent = useAgent();

  beforeAll(async () => {
    made = scene();
    prefix = join(made.folder, 'prefix');
    mkdirSync(prefix);
    const { filename } = await pack('--pack-destination', made.folder);
    const cache = join(made.folder, 'cache');
    // An empty cache and no network: whatever it asked for could not be had.
    const offline = ['--offline', '--cache', cache, '--no-audit', '--no-fund', '--omit=dev'];
    await execa('npm', ['install', '--global', '--prefix', prefix, ...offline, join(made.folder, filename)]);
    return () => made.clean();
  });

  test('it is alone there, with its man page where man looks for it', () => {
    expect(readdirSync(join(prefix, 'lib/node_modules'))).toEqual(['runlock']);
    expect(existsSync(join(prefix, 'lib/node_modules/runlock/node_modules'))).toBe(false);
    expect(existsSync(join(prefix, 'share/man/man1/runlock.1'))).toBe(true);
  });

  test.each(nodeMajors)(
    'it says its version and runs a command under its lock on Node.js %i',
    async (major) => {
      const folder = await nodeFolder(major);
      const PATH = [folder, join(prefix, 'bin'), '/usr/bin', '/bin'].join(delimiter);
      const env = { PATH, HOME: made.folder, ...agent.env };
      const { stdout } = await execa('node', ['--version'], { env, extendEnv: false });
      expect(stdout).toMatch(new RegExp(`^v${major}\\.`));
      const said = await outcome(['--version'], env);
      expect(said).toMatchObject({ status: 0, stderr: '' });
      expect(said.stdout.split('\n')[0]).toBe(`runlock ${manifest.version}`);
      const group = `prod/node${major}`;
      const command = ['sh', '-c', 'echo "$RUNLOCK_RUN_GROUP $RUNLOCK_RUN_NODE $1"; exit 3', 'sh', 'a  b'];
      expect(
        await outcome(['exec', '-g', group, '--node', 'web01', '--ok-codes', '3', '--', ...command], env),
      ).toEqual({
        status: 3,
        stdout: `${group} web01 a  b\n`,
        stderr: '',
      });
      const stored = await agent.kv.get(`runlock/${group}/.runs/web01`);
      expect(JSON.parse(stored?.Value ?? '{}')).toMatchObject({ outcome: 'succeeded', exitCode: 3 });
    },
  );
});

async function outcome(args: readonly string[], env: Readonly<Record<string, string | undefined>>) {
  const options = {
    env,
    extendEnv: false,
    stdin: 'ignore',
    stripFinalNewline: false,
    reject: false,
  } as const;
  const { exitCode, stdout, stderr } = await execa('runlock', args, options);
  return { status: exitCode, stdout, stderr };
}
