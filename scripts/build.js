// Bundles src into dist: one small entry, and a chunk for each part that a command loads when it needs it.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';
import { build as built, version } from './facts.js';
import { licensesOf, packagesOf } from './licenses.js';

const [outdir = 'dist'] = process.argv.slice(2);
rmSync(outdir, { recursive: true, force: true });
const common = {
  outdir,
  platform: 'node',
  target: 'node20.19',
  outExtension: { '.js': '.cjs' },
  // Half of what start-up costs beyond Node's own is reading the program.
  minify: true,
  logLevel: 'warning',
};
const bundle = {
  ...common,
  entryPoints: { main: 'src/main.ts' },
  bundle: true,
  splitting: true,
  format: 'esm',
  legalComments: 'none',
};
const { metafile } = await build({ ...bundle, write: false, metafile: true });
await build({
  ...bundle,
  define: {
    RUNLOCK_VERSION: JSON.stringify(version),
    RUNLOCK_BUILD: JSON.stringify(built()),
    // They say what comments in the bundle would say, and more.
    RUNLOCK_LICENSES: JSON.stringify(licensesOf(packagesOf(metafile)).join('\n')),
  },
});
// Node starts CommonJS sooner, and in less memory; but esbuild splits ES modules alone, so that was done first.
await build({
  ...common,
  entryPoints: readdirSync(outdir)
    .filter((name) => name.endsWith('.cjs'))
    .map((name) => `${outdir}/${name}`),
  allowOverwrite: true,
  format: 'cjs',
  supported: { 'dynamic-import': false },
});
// For whoever packs it: a shell that finds its script in a folder needs no line in anybody's start-up file.
const completions = { bash: 'runlock', zsh: '_runlock', fish: 'runlock.fish' };
mkdirSync(`${outdir}/completions`);
for (const [shell, name] of Object.entries(completions)) {
  const script = execFileSync(process.execPath, [`${outdir}/main.cjs`, 'completion', shell]);
  writeFileSync(`${outdir}/completions/${name}`, script);
}
