// The program that is one file, and what the build puts into either.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { execa } from 'execa';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { useAgent } from '../support/use-agent.ts';
import { fillRoot, inRoot } from '../support/empty-root.ts';
import { end, eventually } from '../support/processes.ts';
import { stage } from '../support/stage.ts';

const BINARY = resolve(`build/binary/runlock-linux-${process.arch}`);
const BUNDLE = resolve('bin/runlock.js');
const PROGRAMS = [
  ['the single file', BINARY],
  ['the npm package', BUNDLE],
] as const;

const agent = useAgent();
beforeAll(() => {
  if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: run 'npm run build:binary'`);
});

test('the single file alone, in an empty root without Node.js, runs a command under the lock', async () => {
  const { folder } = stage();
  const root = join(folder, 'root');
  await fillRoot(root, BINARY);
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' });
  expect(files.filter((name) => /node/.test(name))).toEqual([]);
  const script = 'echo "in $RUNLOCK_RUN_GROUP as $(id -u)"; read -r word; echo "heard $word"; exit 3';
  const exec = ['exec', '-g', 'empty', '--node', 'web01', '--hold', 'none', '--', '/bin/sh', '-c', script];
  const [file = '', ...args] = await inRoot(root, ['/runlock', ...exec]);
  const child = spawn(file, args, { env: { PATH: '/usr/bin:/bin', ...agent.env }, stdio: 'pipe' });
  onTestFinished(() => end(child.pid ?? 0));
  const stdout = text(child.stdout);
  const stderr = text(child.stderr);
  const holds = async () => (await agent.kv.get('runlock/empty/.slot/0/owner'))?.Value ?? '';
  await eventually(async () => expect(await holds()).toContain('"node":"web01"'));
  const other = execa(BINARY, ['exec', '-g', 'empty', '--node', 'web02', '-w', '0', '--', 'true'], {
    env: agent.env,
  });
  await expect(other).rejects.toMatchObject({ exitCode: 75 });
  child.stdin.end('you\n');
  expect(await once(child, 'close')).toEqual([3, null]);
  expect({ stdout: await stdout, stderr: await stderr }).toEqual({
    stdout: 'in empty as 0\nheard you\n',
    stderr: '',
  });
  expect((await agent.kv.get('runlock/empty/.runs/web01'))?.Value).toContain('"exitCode":3');
  expect(await holds()).toBe('');
}, 120_000);

describe('what lies in the folder where it is started', () => {
  test('is neither for the single file nor for its command', async () => {
    const { folder } = stage();
    writeFileSync(join(folder, '.env'), 'CONSUL_HTTP_ADDR=127.0.0.1:1\nSTRAY=yes\n');
    writeFileSync(join(folder, 'bunfig.toml'), 'preload = ["./stray.js"]\n');
    writeFileSync(join(folder, 'stray.js'), 'console.log("stray"); process.exit(9);\n');
    const words = ['exec', '-g', 'stray', '--', '/bin/sh', '-c', 'echo "${STRAY-none}"'];
    const { PATH } = process.env;
    const { stdout } = await execa(BINARY, words, {
      cwd: folder,
      env: { PATH, ...agent.env },
      extendEnv: false,
    });
    expect(stdout).toBe('none');
  });
});

test.each(PROGRAMS)('%s asks Consul itself, whatever proxy the environment names', async (_, program) => {
  const proxy = 'http://127.0.0.1:1';
  const proxies = { HTTP_PROXY: proxy, http_proxy: proxy, HTTPS_PROXY: proxy, ALL_PROXY: proxy };
  const env = { ...agent.env, ...proxies };
  const { stdout } = await execa(program, ['exec', '-g', 'proxy', '--', 'echo', 'ran'], { env });
  expect(stdout).toBe('ran');
});

describe('what it was built from', () => {
  test.each(PROGRAMS)('%s names the version, the commit and the date', async (_, program) => {
    const { stdout } = await execa(program, ['--version']);
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
    expect(stdout).toMatch(
      new RegExp(
        `^runlock ${version}\ncommit .+, built \\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ(?:, Bun [\\d.]+)?$`,
      ),
    );
  });

  test('two builds of one moment are the same file, and say that moment', async () => {
    const build = async () => {
      const { folder } = stage();
      const env = { SOURCE_DATE_EPOCH: '1700000000' };
      await execa(process.execPath, ['scripts/build-binary.js', '--outdir', folder], { env });
      return join(folder, `runlock-linux-${process.arch}`);
    };
    const [one, two] = [await build(), await build()];
    expect(readFileSync(one).equals(readFileSync(two))).toBe(true);
    expect((await execa(one, ['--version'])).stdout).toContain('built 2023-11-14T22:13:20Z');
  }, 120_000);

  test.each([
    ['SOURCE_DATE_EPOCH=soon', [], { SOURCE_DATE_EPOCH: 'soon' }],
    ["no 'sparc'", ['sparc'], {}],
  ])('%s ends the build with one line', async (said, args, more) => {
    const words = ['scripts/build-binary.js', '--outdir', stage().folder, ...args];
    const failed = execa(process.execPath, words, { env: more });
    await expect(failed).rejects.toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(new RegExp(`^build:binary: .*${said}[^\n]*$`)) as string,
    });
  });
});

interface Metafile {
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly outputs: Readonly<
    Record<
      string,
      {
        readonly entryPoint?: string;
        readonly inputs: Readonly<Record<string, unknown>>;
        readonly imports: readonly { readonly path: string; readonly kind: string }[];
      }
    >
  >;
}
const metafile = () => JSON.parse(readFileSync('build/binary/metafile.json', 'utf8')) as Metafile;

test('nothing that is bundled uses what only Bun has but its spawn, its shell least of all', () => {
  const own = /\bBun\s*(?:[.[]|\?\.)|(?:\bfrom|\bimport|\brequire)\s*\(?\s*['"]bun(?::[a-z]+)?['"]/;
  const inputs = Object.keys(metafile().inputs);
  expect(inputs).toEqual(expect.arrayContaining(['src/main.ts', 'src/process/command.ts']));
  expect(inputs.filter((path) => own.test(readFileSync(path, 'utf8')))).toEqual([]);
  const reaching = inputs.filter((path) => /\bBun\b.*= globalThis\b/.test(readFileSync(path, 'utf8')));
  expect(reaching).toEqual(['src/process/command.ts']);
  const uses = readFileSync('src/process/command.ts', 'utf8').match(/\bbun\.\w+/g);
  expect([...new Set(uses)]).toEqual(['bun.spawn']);
});

describe('--licenses', () => {
  /** Both are made of the same source, so of the same packages. */
  const packages = () => {
    const names = Object.keys(metafile().inputs).flatMap(
      (path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? [],
    );
    return [...new Set(names)];
  };
  const titles = (printed: string) =>
    [...printed.matchAll(/^(\S+) \S+ \(.+\)\n=+$/gm)].map(([, name]) => name);

  test('of the single file has all that is bundled, and what runs it', async () => {
    const { stdout } = await execa(BINARY, ['--licenses']);
    expect(packages()).toEqual(expect.arrayContaining(['consul', 'commander', 'is-network-error']));
    expect(titles(stdout).sort()).toEqual(['runlock', 'Bun', ...packages()].sort());
    expect(stdout.match(/Permission is hereby granted/g)?.length).toBeGreaterThan(5);
    expect(stdout).toContain('GNU LIBRARY GENERAL PUBLIC LICENSE');
  });

  /** What of Bun's own parts can be seen in the file, where its makers' list leaves it out too. */
  const SEEN = {
    'SQLite format 3': 'SQLite ',
    HPE_INVALID_METHOD: 'llhttp ',
    argon2id: 'rust-argon2 ',
    'The libjpeg-turbo Project': 'libjpeg-turbo ',
  };

  test('of the single file has the runtime’s own parts, as seen in it, and their licence texts', async () => {
    const { stdout } = await execa(BINARY, ['--licenses']);
    const file = readFileSync(BINARY);
    for (const [seen, name] of Object.entries(SEEN)) {
      expect(file.includes(seen)).toBe(true);
      expect(stdout).toContain(`\n${name}`);
    }
    for (const words of ['Version 2.0, January 2004', 'Redistributions in binary form must reproduce'])
      expect(stdout).toContain(words);
  });

  test('of the npm package has each package whose text is in it', async () => {
    const { stdout } = await execa(BUNDLE, ['--licenses']);
    expect(titles(stdout).sort()).toEqual(['runlock', ...packages()].sort());
  });
});

describe('--version and --help', () => {
  /** What no start may load, but some command does. */
  const HEAVY =
    /node_modules\/(?:consul|papi|p-retry|smol-toml)\/|src\/(?:consul|lock|commands\/(?!registry|gate-flags|[a-z]+\/(?:command|gate-flags|describe)\.ts)|cli\/licenses|metrics)/;

  test('load neither the way to Consul nor any command: the single file', () => {
    const { outputs } = metafile();
    const loaded = new Set<string>();
    const load = (name: string) => {
      if (loaded.has(name)) return;
      loaded.add(name);
      for (const { path, kind } of outputs[name]?.imports ?? [])
        if (kind === 'import-statement' && path in outputs) load(path);
    };
    const [entry = ''] =
      Object.entries(outputs).find(([, { entryPoint }]) => entryPoint === 'src/main.ts') ?? [];
    load(entry);
    const inputs = (names: Iterable<string>) =>
      [...names].flatMap((name) => Object.keys(outputs[name]?.inputs ?? {}));
    expect(inputs(loaded)).toContain('src/main.ts');
    expect(inputs(loaded).filter((name) => HEAVY.test(name))).toEqual([]);
    expect(inputs(Object.keys(outputs)).filter((name) => HEAVY.test(name)).length).toBeGreaterThan(20);
  });

  /** The parts of the npm package that a command line loads. */
  async function partsFor(args: readonly string[]): Promise<string[]> {
    const { folder } = stage();
    const [hook, notes] = [join(folder, 'hook.cjs'), join(folder, 'parts.json')];
    writeFileSync(
      hook,
      `process.on('exit', () => require('node:fs').writeFileSync(${JSON.stringify(notes)}, JSON.stringify(Object.keys(require.cache))));`,
    );
    mkdirSync(folder, { recursive: true });
    const env = {
      ...process.env,
      ...agent.env,
      NODE_OPTIONS: `--require ${hook}`,
      RUNLOCK_CONFIG: undefined,
    };
    await execa(BUNDLE, args, { env });
    return JSON.parse(readFileSync(notes, 'utf8')) as string[];
  }
  /** Those of its parts that have this in them. */
  const having = (words: string) =>
    readdirSync('dist')
      .map((name) => resolve('dist', name))
      .filter((path) => path.endsWith('.cjs') && readFileSync(path, 'utf8').includes(words));
  const CONSUL = 'x-consul-token';
  const TOML = 'Invalid TOML document';

  test.each([[['--version']], [['--help']], [['exec', '--help']]])(
    'load neither the way to Consul nor any command: the npm package, %j',
    async (args) => {
      const parts = await partsFor(args);
      expect(parts).toContain(resolve('dist/main.cjs'));
      expect(having(CONSUL)).toHaveLength(1);
      for (const heavy of [...having(CONSUL), ...having(TOML)]) expect(parts).not.toContain(heavy);
    },
  );

  test('a run without a configuration file loads the way to Consul, and no parser', async () => {
    const parts = await partsFor(['exec', '-g', 'parts', '--', 'true']);
    expect(parts).toEqual(expect.arrayContaining(having(CONSUL)));
    expect(having(TOML)).toHaveLength(1);
    expect(parts).not.toContain(having(TOML)[0]);
  });
});
