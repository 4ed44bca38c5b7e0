// Runs one of this folder's TypeScript programs: node scripts/run.js scripts/quickstart.ts [args…]
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { basename } from 'node:path';
import { build } from 'esbuild';

const [source, ...args] = process.argv.slice(2);
const outfile = `build/${basename(source, '.ts')}.js`;
mkdirSync('build', { recursive: true });
await build({
  entryPoints: [source],
  outfile,
  bundle: true,
  platform: 'node',
  format: 'esm',
  packages: 'external',
  logLevel: 'warning',
});
const { status } = spawnSync(process.execPath, [outfile, ...args], { stdio: 'inherit' });
process.exitCode = status ?? 1;
