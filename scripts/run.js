// Runs one of this folder's TypeScript programs: node scripts/run.js scripts/quickstart.ts [args…]
import { spawn } from 'node:child_process';
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
  // `await using` is not Node 20's own.
  target: 'node20.19',
  logLevel: 'warning',
});
const child = spawn(process.execPath, [outfile, ...args], { stdio: 'inherit' });
// The terminal sends Ctrl-C to both; the program cleans up first, and its exit code counts.
for (const signal of ['SIGINT', 'SIGHUP']) process.on(signal, () => undefined);
process.on('SIGTERM', () => child.kill('SIGTERM'));
child.on('exit', (code) => {
  process.exitCode = code ?? 1;
});
