// Bundles src into dist: one small entry, and a chunk for each part that a command loads when it needs it.
import { readFileSync, rmSync } from 'node:fs';
import { build } from 'esbuild';

const [outdir = 'dist'] = process.argv.slice(2);
rmSync(outdir, { recursive: true, force: true });
await build({
  entryPoints: { main: 'src/main.ts' },
  outdir,
  bundle: true,
  splitting: true,
  platform: 'node',
  format: 'esm',
  target: 'node20.19',
  define: { RUNLOCK_VERSION: JSON.stringify(JSON.parse(readFileSync('package.json', 'utf8')).version) },
  minifySyntax: true,
  minifyWhitespace: true,
  keepNames: true,
  sourcemap: false,
  legalComments: 'linked',
  // `consul` is CommonJS and requires Node's own modules, which an ES module can't do without this.
  banner: {
    js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
  },
  logLevel: 'warning',
});
