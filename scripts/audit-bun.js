// `npm audit` goes by names, and the holes of Bun are published under that of its wrapper, which is not installed
// (docs/adr/0015). So CI asks for that name besides: exit status 1 where there is a hole that nobody has judged yet.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lockedRuntime } from './facts.js';

/** Why they are none here is in docs/adr/0015. */
const JUDGED = ['GHSA-4j66-8f4r-3pjx'];
const { version } = lockedRuntime('x64');

/** What npm says of a project that has nothing but this. */
function audit(cwd) {
  const root = { name: 'audit', version: '0.0.0', dependencies: { bun: version } };
  const packages = { '': root, 'node_modules/bun': { version } };
  writeFileSync(join(cwd, 'package.json'), JSON.stringify(root));
  writeFileSync(join(cwd, 'package-lock.json'), JSON.stringify({ ...root, lockfileVersion: 3, packages }));
  const { stdout, error } = spawnSync('npm', ['audit', '--json'], { cwd, encoding: 'utf8' });
  if (error) throw error;
  const { vulnerabilities, message } = JSON.parse(stdout);
  if (!vulnerabilities) throw new Error(`npm audit could not be asked: ${message}`);
  return Object.values(vulnerabilities).flatMap(({ via }) => via.filter((each) => typeof each === 'object'));
}

const folder = mkdtempSync(join(tmpdir(), 'runlock-audit-'));
try {
  const holes = audit(folder).filter(({ url }) => !JUDGED.some((id) => url.endsWith(`/${id}`)));
  for (const { title, severity, url } of holes)
    console.error(`audit-bun: Bun ${version}: ${title} (${severity}): ${url}`);
  if (holes.length > 0) process.exitCode = 1;
  else console.log(`Bun ${version}: no known hole but those that docs/adr/0015 judges`);
} catch (error) {
  console.error(`audit-bun: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true });
}
