// `npm run build:binary`: runlock and what runs it (Bun) as one file, which needs nothing but libc (docs/adr/0015).
// node scripts/build-binary.js [--outdir folder] [x64] [arm64]; by default for this machine's architecture.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { arch, platform } from 'node:process';
import { parseArgs } from 'node:util';
import { build as built, lockedRuntime, runtimes, version } from './facts.js';
import { licensesOf, packagesOf, runtimeLicenses } from './licenses.js';

const bunVersion = lockedRuntime('x64').version;
let outdir = 'build/binary';

function main() {
  const { values, positionals: asked } = parseArgs({
    options: { outdir: { type: 'string', default: outdir } },
    allowPositionals: true,
  });
  ({ outdir } = values);
  const unknown = asked.find((name) => !Object.hasOwn(runtimes, name));
  if (unknown !== undefined)
    throw new Error(`no '${unknown}'; there are ${Object.keys(runtimes).join(', ')}`);
  mkdirSync(outdir, { recursive: true });
  const bun = ownBun();
  const licenses = collectLicenses(bun);
  for (const target of asked.length > 0 ? asked : [arch]) compile(bun, target, licenses);
}

/** npm installs the one for this machine, where there is one. */
function ownBun() {
  if (platform !== 'linux' || !Object.hasOwn(runtimes, arch))
    throw new Error(`the single file is built on Linux, x64 or arm64, and this is ${platform} ${arch}`);
  const bun = `node_modules/${runtimes[arch]}/bin/bun`;
  if (!existsSync(bun))
    throw new Error(
      `Bun is missing (${bun}), which the program is built with; run 'npm ci' without --omit, on a system with glibc`,
    );
  // The file says which Bun is in it, by the lock file.
  const installed = versionOf(bun);
  if (installed === bunVersion) return bun;
  throw new Error(`Bun ${installed} is installed, and package-lock.json names ${bunVersion}; run 'npm ci'`);
}

function versionOf(bun) {
  try {
    return run(bun, ['--version']).trim();
  } catch (error) {
    const how = error.signal ?? error.code ?? `exit ${error.status}`;
    throw new Error(`${bun} does not start here (${how}); it needs glibc, and on x64 SSE 4.2 and POPCNT`, {
      cause: error,
    });
  }
}

const bundling = ['build', 'src/main.ts', '--minify', '--format=esm', '--splitting'];
// What it says while it works is for nobody; why it failed is in the error.
const run = (file, args) => execFileSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

function collectLicenses(bun) {
  const metafile = `${outdir}/metafile.json`;
  const spare = `${outdir}/bundle`;
  run(bun, [...bundling, '--target=bun', `--metafile=${metafile}`, `--outdir=${spare}`]);
  rmSync(spare, { recursive: true });
  const packages = packagesOf(JSON.parse(readFileSync(metafile, 'utf8')));
  return [...licensesOf(packages), runtimeLicenses(bunVersion)].join('\n');
}

function compile(bun, target, licenses) {
  const name = `runlock-linux-${target}`;
  // The name is in the file. Whoever runs the one before must not see it half written.
  const made = `${outdir}/new/${name}`;
  const define = {
    RUNLOCK_VERSION: version,
    RUNLOCK_BUILD: `${built()}, Bun ${bunVersion}`,
    RUNLOCK_LICENSES: licenses,
  };
  const runtime = target === arch ? bun : otherBun(target);
  run(bun, [
    ...[...bundling, '--compile', '--bytecode', `--outfile=${made}`],
    ...[`--target=bun-linux-${target}`, `--compile-executable-path=${runtime}`],
    // A run is short, and waiting takes no CPU: what a compiler would save is less than it costs.
    '--compile-jit-policy=100',
    // What lies in the folder where it is started is not for runlock, nor for its command.
    ...['--no-compile-autoload-dotenv', '--no-compile-autoload-bunfig'],
    ...Object.entries(define).flatMap(([key, value]) => ['--define', `${key}=${JSON.stringify(value)}`]),
  ]);
  renameSync(made, `${outdir}/${name}`);
  rmSync(`${outdir}/new`, { recursive: true });
  console.log(`${outdir}/${name}`);
}

/** npm installs the runtime of this machine's kind alone; the lock file knows the others, and what they must be. */
function otherBun(target) {
  const folder = `build/runtimes/${target}-${bunVersion}`;
  const program = `${folder}/package/bin/bun`;
  if (existsSync(program)) return program;
  mkdirSync(folder, { recursive: true });
  const npm = ['pack', '--silent', `--pack-destination=${folder}`, `${runtimes[target]}@${bunVersion}`];
  const archive = `${folder}/${run('npm', npm).trim()}`;
  const digest = createHash('sha512').update(readFileSync(archive)).digest('base64');
  if (`sha512-${digest}` !== lockedRuntime(target).integrity)
    throw new Error(`${archive} is not what package-lock.json names`);
  run('tar', ['-xzf', archive, '-C', folder]);
  rmSync(archive);
  return program;
}

try {
  main();
} catch (error) {
  console.error(`build:binary: ${error.message}`);
  process.exitCode = 1;
}
